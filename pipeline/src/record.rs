//! A record as it came from Kafka, and the event in it.

use jiff::Timestamp;
use ordermill_wire::{DecodeError, Event, headers};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};
use uuid::Uuid;

use crate::dead_letters::Code;
use crate::kafka;
use crate::label::Label;
use crate::log::{Cause, Origin, RecordPlace};
use crate::stored_header::StoredHeader;
use crate::trace::TraceContext;

/// A record with everything it carries.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it lies; the topic without prefix.
    pub place: RecordPlace,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers, in the client's own form: one copy, where a list of our own would be dozens of small ones.
    headers: Option<OwnedHeaders>,
    /// Its value.
    pub payload: Option<Vec<u8>>,
}

/// An event that was received and is to be applied.
#[derive(Clone, Debug)]
pub struct Received<E> {
    /// The event's id.
    pub event_id: Uuid,
    /// The event.
    pub event: E,
    /// When it happened, as the log says.
    pub at: Timestamp,
    /// Where it lay.
    pub place: RecordPlace,
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
            cause: Some(Cause { event_id: self.event_id, met_at: Some(self.place.clone()) }),
            actor: format!("worker:{group}"),
            request: None,
            trace: self.trace.child(),
        }
    }
}

impl Record {
    /// Copies a message out of the client's buffers.
    pub(crate) fn copy(message: &BorrowedMessage<'_>, topic: &str) -> Record {
        Record {
            place: RecordPlace {
                topic: topic.to_owned(),
                partition: i16::try_from(message.partition()).unwrap_or(i16::MAX),
                offset: message.offset(),
            },
            key: message.key().map(<[u8]>::to_vec),
            headers: kafka::headers(message),
            payload: message.payload().map(<[u8]>::to_vec),
        }
    }

    /// A record as it was put aside.
    pub(crate) fn stored(
        place: RecordPlace,
        key: Option<Vec<u8>>,
        headers: &[StoredHeader],
        payload: Option<Vec<u8>>,
    ) -> Record {
        let all = headers.iter().fold(OwnedHeaders::new(), |all, header| {
            all.insert(Header { key: &header.name, value: Some(&header.bytes()) })
        });
        Record { place, key, headers: Some(all), payload }
    }

    /// Its headers, names and values.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let headers = self.headers.iter().flat_map(|headers| headers.iter());
        headers.map(|header| (header.key, header.value.unwrap_or_default()))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().find(|(key, _)| *key == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The key that later messages wait by while this one can't be applied.
    pub(crate) fn parking_key(&self) -> &[u8] {
        self.key.as_deref().unwrap_or_default()
    }

    /// The label that the relay gave it; none on a record that is not the relay's.
    #[must_use]
    pub fn label(&self) -> Option<Label> {
        self.header(headers::LABEL)?.parse().ok()
    }

    /// The label of the record before it in its partition; [`Label::START`] on the first.
    #[must_use]
    pub fn previous(&self) -> Label {
        self.header(headers::PREVIOUS).and_then(|text| text.parse().ok()).unwrap_or(Label::START)
    }

    /// The event's type as the headers say it.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.header(headers::TYPE)
    }

    /// The event's id as the headers say it.
    #[must_use]
    pub fn event_id(&self) -> Option<Uuid> {
        self.header(headers::ID)?.parse().ok()
    }

    /// When the event happened, as the headers say it.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.header(headers::TIME)?.parse().ok()
    }

    /// What the event belongs to, as the headers say it.
    #[must_use]
    pub fn correlation_id(&self) -> Option<Uuid> {
        self.header(headers::CORRELATION)?.parse().ok()
    }

    /// The span it happened in, as the headers say it.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.header(headers::TRACEPARENT)
    }

    /// The event's ordinal in its aggregate's history, as the headers say it.
    #[must_use]
    pub fn sequence(&self) -> Option<i32> {
        self.header(headers::SEQUENCE)?.parse().ok()
    }

    /// The version of the payload's schema, as the headers say it.
    pub(crate) fn version(&self) -> Option<i16> {
        self.version_text().parse().ok()
    }

    /// The same as it stands there; empty where it does not.
    pub(crate) fn version_text(&self) -> &str {
        self.header(headers::DATA_SCHEMA).and_then(|schema| schema.rsplit(':').next()).unwrap_or_default()
    }

    /// The event in it with what came along, or why it can't be applied.
    pub(crate) fn receive<E: Event>(&self) -> Result<Received<E>, (Code, String)> {
        self.decode().map_err(|Mismatch { code, error, .. }| (code, error))
    }

    /// The same, and where it fails.
    pub(crate) fn decode<E: Event>(&self) -> Result<Received<E>, Mismatch> {
        let mismatch = |code, error| Mismatch { code, error, place: None };
        let foreign = |what: &str| mismatch(Code::Foreign, format!("not published by the relay: {what}"));
        if self.label().is_none() {
            return Err(foreign("no ordermill-label header"));
        }
        let event_id = self.event_id().ok_or_else(|| foreign("no ce_id header"))?;
        let at = self.time().ok_or_else(|| foreign("no ce_time header"))?;
        let name = self.event_type().ok_or_else(|| foreign("no ce_type header"))?;
        let version = self.version().ok_or_else(|| foreign("no ce_dataschema header"))?;
        let payload = self.payload.as_deref().unwrap_or_default();
        let event = E::decode(name, version, payload).map_err(|error| {
            let told = error.to_string();
            let (code, place) = match error {
                DecodeError::UnknownType { .. } => (Code::UnknownType, None),
                DecodeError::NotJson { source, .. } => {
                    (Code::Undecodable, Some(Place::Text { line: source.line(), column: source.column() }))
                }
                DecodeError::Payload { place, .. } => (Code::Schema, Some(Place::Member(place))),
            };
            Mismatch { code, error: told, place }
        })?;
        if self.key.as_deref() != Some(event.key().to_string().as_bytes()) {
            let error = format!("the key is not {}, which the payload says", event.key());
            return Err(mismatch(Code::KeyMismatch, error));
        }
        let trace = TraceContext::child_of(self.traceparent());
        Ok(Received { event_id, event, at, place: self.place.clone(), trace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "0192f0c1-7a3e-7000-8000-000000000001";

    fn record(payload: &str) -> Record {
        let all = [
            (headers::LABEL, "1-7"),
            (headers::ID, USER),
            (headers::TIME, "2026-01-01T00:00:00Z"),
            (headers::TYPE, "balance.opened"),
            (headers::DATA_SCHEMA, "urn:ordermill:schema:balance.opened:1"),
        ]
        .map(|(name, value)| StoredHeader::new(name, value.as_bytes()));
        let place = RecordPlace { topic: "balances".to_owned(), partition: 0, offset: 0 };
        Record::stored(place, Some(USER.into()), &all, Some(payload.into()))
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
}
