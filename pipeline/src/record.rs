//! A record as it came from Kafka, and the event in it.

use std::sync::Arc;

use jiff::Timestamp;
use ordermill_wire::Event;
use rdkafka::message::BorrowedMessage;
use uuid::Uuid;

use crate::authenticity::{Authenticity, Flaw};
use crate::dead_letters::Code;
use crate::headers::{self, Headers, KeptHeaders};
use crate::log::{Origin, RecordPlace};
use crate::raw_record::RawRecord;
use crate::stored_header::StoredHeader;
use crate::trace::TraceContext;

/// A record with everything it carries, copied out of the client's buffers.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it lies; the topic without prefix.
    pub place: RecordPlace,
    /// Its key.
    pub key: Option<Vec<u8>>,
    headers: KeptHeaders,
    /// Its value.
    pub payload: Option<Vec<u8>>,
    /// Whether it is the relay's, as it was judged when it was read from Kafka.
    pub(crate) authenticity: Authenticity,
}

/// An event that was received and is to be applied.
#[derive(Clone, Debug)]
pub struct Received<E> {
    /// The event's id.
    pub event_id: Uuid,
    /// The event.
    pub event: Arc<E>,
    /// When it happened, as the log says.
    pub at: Timestamp,
    /// The span that it happened in.
    pub trace: TraceContext,
}

/// Why a payload is not what its headers promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// For programs.
    pub code: Code,
    /// For operators; it names the failing place, too.
    pub error: String,
    /// The failing place, where it is one place.
    pub place: Option<Place>,
}

/// A place in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A member of the JSON, like `lines[0].quantity`; `.` is the whole.
    Member(String),
    /// Where the text stops being JSON, both from 1.
    Text {
        /// The line.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
}

impl<E> Received<E> {
    /// The origin of what `group` decides because of this event.
    #[must_use]
    pub fn origin(&self, group: &str) -> Origin {
        Origin {
            cause_id: Some(self.event_id),
            actor: format!("worker:{group}"),
            request: None,
            trace: self.trace.child(),
        }
    }
}

impl Record {
    /// Copies what is read of a message, and all its headers.
    pub(crate) fn copy(raw: &RawRecord<'_>, message: &BorrowedMessage<'_>) -> Record {
        Record {
            place: raw.place(),
            key: raw.key.map(<[u8]>::to_vec),
            headers: KeptHeaders::of(headers::all(message)),
            payload: raw.payload.map(<[u8]>::to_vec),
            authenticity: raw.authenticity,
        }
    }

    /// A record as it was put aside. Whether it was authentic stands on its row: once somebody has edited it, its MAC does not
    /// fit any more.
    pub(crate) fn stored(
        place: RecordPlace,
        key: Option<Vec<u8>>,
        headers: &[StoredHeader],
        payload: Option<Vec<u8>>,
        authentic: bool,
    ) -> Record {
        let all: Vec<_> = headers.iter().map(|header| (header.name.as_bytes(), header.bytes())).collect();
        let headers = KeptHeaders::of(all.iter().map(|(name, value)| (*name, value.as_slice())));
        let authenticity =
            if authentic { Authenticity::Authentic } else { Authenticity::Foreign(Flaw::PutAside) };
        Record { place, key, headers, payload, authenticity }
    }

    /// Its headers, names and values.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The key that later messages wait by while this one can't be applied.
    pub(crate) fn parking_key(&self) -> &[u8] {
        self.key.as_deref().unwrap_or_default()
    }

    /// The event's type as the headers say it.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.read_headers().event_type()
    }

    /// The event's id as the headers say it.
    #[must_use]
    pub fn event_id(&self) -> Option<Uuid> {
        self.read_headers().event_id()
    }

    /// What the event belongs to, as the headers say it.
    #[must_use]
    pub fn correlation_id(&self) -> Option<Uuid> {
        self.read_headers().correlation_id()
    }

    /// The span it happened in, as the headers say it.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.read_headers().traceparent()
    }

    /// The event in it with what came along, or why it can't be applied.
    pub(crate) fn receive<E: Event>(&self) -> Result<Received<E>, (Code, String)> {
        self.decode().map_err(|Mismatch { code, error, .. }| (code, error))
    }

    /// The same, and where it fails.
    pub(crate) fn decode<E: Event>(&self) -> Result<Received<E>, Mismatch> {
        let raw = RawRecord {
            topic: &self.place.topic,
            partition: self.place.partition,
            offset: self.place.offset,
            key: self.key.as_deref(),
            headers: self.read_headers(),
            payload: self.payload.as_deref(),
            authenticity: self.authenticity,
        };
        raw.decode()
    }

    fn read_headers(&self) -> Headers<'_> {
        Headers::of(self.headers.iter())
    }
}

#[cfg(test)]
mod tests {
    use ordermill_wire::headers;

    use super::*;

    const USER: &str = "0192f0c1-7a3e-7000-8000-000000000001";

    fn record(payload: &str) -> Record {
        let all = [
            (headers::LABEL, "1-7"),
            (headers::ID, USER),
            (headers::TIME, "2026-01-01T00:00:00Z"),
            (headers::TYPE, "balance.opened"),
            (headers::DATA_SCHEMA, "urn:ordermill:schema:balance.opened:1"),
            (headers::SEQUENCE, "1"),
        ];
        with_headers(payload, &all)
    }

    fn with_headers(payload: &str, all: &[(&str, &str)]) -> Record {
        let all: Vec<_> = all.iter().map(|(name, value)| StoredHeader::new(name, value.as_bytes())).collect();
        let place = RecordPlace { topic: "balances".to_owned(), partition: 0, offset: 0 };
        Record::stored(place, Some(USER.into()), &all, Some(payload.into()), true)
    }

    fn mismatch(record: &Record) -> Option<Mismatch> {
        record.decode::<ordermill_schemas::Event>().err()
    }

    #[test]
    fn a_payload_as_promised_has_no_mismatch() {
        assert_eq!(mismatch(&record(&format!(r#"{{"user_id":"{USER}"}}"#))), None);
    }

    #[test]
    fn what_is_no_json_fails_at_a_line_and_a_column() {
        let mismatch = mismatch(&record("{\n  \"user_id\": oops}")).unwrap();
        assert_eq!(mismatch.code, Code::Undecodable);
        assert_eq!(mismatch.place, Some(Place::Text { line: 2, column: 14 }));
    }

    #[test]
    fn what_has_another_shape_fails_at_a_member() {
        let mismatch = mismatch(&record(r#"{"user_id":"Kim"}"#)).unwrap();
        assert_eq!(
            (mismatch.code, mismatch.place),
            (Code::Schema, Some(Place::Member("user_id".to_owned())))
        );
        assert!(mismatch.error.contains("at user_id"), "{}", mismatch.error);
    }

    #[test]
    fn a_wrong_key_is_no_place_in_the_payload() {
        let other = Uuid::nil();
        let mismatch = mismatch(&record(&format!(r#"{{"user_id":"{other}"}}"#))).unwrap();
        assert_eq!((mismatch.code, mismatch.place), (Code::KeyMismatch, None));
    }

    #[test]
    fn what_lacks_a_header_or_has_one_twice_or_spoilt_is_foreign() {
        let record = record(&format!(r#"{{"user_id":"{USER}"}}"#));
        let all: Vec<(&str, &str)> =
            record.headers().map(|(name, value)| (name, std::str::from_utf8(value).unwrap())).collect();
        let foreign = |all: &[(&str, &str)]| {
            let mismatch = mismatch(&with_headers("{}", all)).unwrap();
            assert_eq!(mismatch.code, Code::Foreign, "{all:?}");
            mismatch.error
        };
        for (index, (name, _)) in all.iter().enumerate() {
            let mut less = all.clone();
            less.remove(index);
            assert!(foreign(&less).contains(name), "without {name}");
            let mut spoilt = all.clone();
            // Any text is a type.
            spoilt[index].1 = if *name == headers::TYPE { continue } else { "spoilt" };
            assert!(foreign(&spoilt).contains(name), "with {name} spoilt");
        }
        let twice = [all.as_slice(), &[(headers::LABEL, "1-8")]].concat();
        assert!(foreign(&twice).contains("twice"));
        let lying = [all.as_slice(), &[(headers::PREVIOUS, "x")]].concat();
        assert!(foreign(&lying).contains(headers::PREVIOUS));
    }
}
