//! The headers of a record: those that anything reads, in place, and all of them for whoever keeps the record.

use std::ffi::CStr;
use std::str::FromStr;
use std::{ptr, slice};

use jiff::Timestamp;
use ordermill_wire::headers;
use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_message_headers};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use uuid::Uuid;

use crate::label::Label;

/// The headers that anything reads, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Headers<'a> {
    pub(crate) label: Option<&'a [u8]>,
    pub(crate) previous: Option<&'a [u8]>,
    pub(crate) id: Option<&'a [u8]>,
    pub(crate) event_type: Option<&'a [u8]>,
    pub(crate) data_schema: Option<&'a [u8]>,
    pub(crate) time: Option<&'a [u8]>,
    pub(crate) sequence: Option<&'a [u8]>,
    pub(crate) subject: Option<&'a [u8]>,
    pub(crate) actor: Option<&'a [u8]>,
    pub(crate) correlation: Option<&'a [u8]>,
    pub(crate) causation: Option<&'a [u8]>,
    pub(crate) traceparent: Option<&'a [u8]>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) mac: Option<&'a [u8]>,
    /// One of these stands there more than once. Then readers could differ in what the record says.
    pub(crate) repeated: bool,
}

impl<'a> Headers<'a> {
    /// Picks them out of all headers of a record, in one walk. Of a header that is repeated the first counts.
    pub(crate) fn of(all: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Headers<'a> {
        let mut picked = Headers::default();
        for (name, value) in all {
            let Some(place) = picked.place(name) else { continue };
            if place.is_some() {
                picked.repeated = true;
            } else {
                *place = Some(value);
            }
        }
        picked
    }

    fn place(&mut self, name: &[u8]) -> Option<&mut Option<&'a [u8]>> {
        Some(match std::str::from_utf8(name).ok()? {
            headers::LABEL => &mut self.label,
            headers::PREVIOUS => &mut self.previous,
            headers::ID => &mut self.id,
            headers::TYPE => &mut self.event_type,
            headers::DATA_SCHEMA => &mut self.data_schema,
            headers::TIME => &mut self.time,
            headers::SEQUENCE => &mut self.sequence,
            headers::SUBJECT => &mut self.subject,
            headers::ACTOR => &mut self.actor,
            headers::CORRELATION => &mut self.correlation,
            headers::CAUSATION => &mut self.causation,
            headers::TRACEPARENT => &mut self.traceparent,
            headers::KEY => &mut self.key,
            headers::MAC => &mut self.mac,
            _ => return None,
        })
    }

    /// What a MAC covers of them, in its order.
    pub(crate) fn covered(&self) -> [Option<&'a [u8]>; headers::COVERED.len()] {
        [
            self.label,
            self.previous,
            self.id,
            self.event_type,
            self.data_schema,
            self.time,
            self.sequence,
            self.subject,
            self.actor,
            self.correlation,
            self.causation,
            self.traceparent,
        ]
    }

    pub(crate) fn label(&self) -> Option<Label> {
        parsed(self.label)
    }

    /// The label of the record before it in its partition; [`Label::START`] on the first. None where it is no label.
    pub(crate) fn previous(&self) -> Option<Label> {
        if self.previous.is_none() { Some(Label::START) } else { parsed(self.previous) }
    }

    pub(crate) fn event_id(&self) -> Option<Uuid> {
        parsed(self.id)
    }

    pub(crate) fn event_type(&self) -> Option<&'a str> {
        text(self.event_type)
    }

    pub(crate) fn time(&self) -> Option<Timestamp> {
        parsed(self.time)
    }

    pub(crate) fn sequence(&self) -> Option<i32> {
        parsed(self.sequence)
    }

    pub(crate) fn correlation_id(&self) -> Option<Uuid> {
        parsed(self.correlation)
    }

    pub(crate) fn traceparent(&self) -> Option<&'a str> {
        text(self.traceparent)
    }

    /// The version of the payload's schema.
    pub(crate) fn version(&self) -> Option<i16> {
        self.version_text().parse().ok()
    }

    /// The same as it stands there; empty where it does not.
    pub(crate) fn version_text(&self) -> &'a str {
        text(self.data_schema).and_then(|schema| schema.rsplit(':').next()).unwrap_or_default()
    }
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(value?).ok()
}

fn parsed<T: FromStr>(value: Option<&[u8]>) -> Option<T> {
    text(value)?.parse().ok()
}

/// Every header of a message, names and values, without a copy. The client's own way to them panics at a name that is
/// not UTF-8, which anybody may write.
#[expect(unsafe_code, reason = "the client shows a name only as text, and panics where it is none")]
pub(crate) fn all<'m>(message: &'m BorrowedMessage<'_>) -> impl Iterator<Item = (&'m [u8], &'m [u8])> {
    let mut native = ptr::null_mut();
    // SAFETY: the message is alive. It owns its headers and does not change them while it is borrowed.
    let found = unsafe { rd_kafka_message_headers(message.ptr(), &raw mut native) };
    let count = if found == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR { usize::MAX } else { 0 };
    (0..count).map_while(move |index| {
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `native` came from the message, which is alive. Behind the last header this is an error.
        let found =
            unsafe { rd_kafka_header_get_all(native, index, &raw mut name, &raw mut value, &raw mut length) };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: a name ends with NUL, a value has that length, and both live as long as the message.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let value: &[u8] = if value.is_null() {
            &[]
        } else {
            // SAFETY: as above.
            unsafe { slice::from_raw_parts(value.cast(), length) }
        };
        Some((name, value))
    })
}

/// All headers of a record that is kept, in one piece of memory: of each the lengths of name and value, then both.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptHeaders(Vec<u8>);

/// How many bytes a length takes.
const LENGTH: usize = size_of::<u32>();

impl KeptHeaders {
    pub(crate) fn of<'a>(all: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> KeptHeaders {
        let mut kept = Vec::new();
        for (name, value) in all {
            // What is not UTF-8 of a name is replaced: neither JSON nor PostgreSQL could hold it.
            let name = String::from_utf8_lossy(name);
            for part in [name.as_bytes(), value] {
                // A record is far shorter than 4 GiB.
                kept.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            }
            kept.extend_from_slice(name.as_bytes());
            kept.extend_from_slice(value);
        }
        KeptHeaders(kept)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (name, value) = (length(&mut rest)?, length(&mut rest)?);
            Some((rest.split_off(..name)?, rest.split_off(..value)?))
        })
    }
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let bytes = rest.split_off(..LENGTH)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<'a>(all: &[(&'a str, &'a str)]) -> Headers<'a> {
        Headers::of(all.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn each_header_is_found_wherever_it_stands_and_others_are_passed_over() {
        let picked = headers(&[
            ("theirs", "x"),
            (headers::PREVIOUS, "1-4"),
            (headers::DATA_SCHEMA, "urn:ordermill:schema:cup.filled:3"),
            (headers::LABEL, "1-7"),
        ]);
        assert_eq!(picked.label(), Some(Label { era: 1, position: 7 }));
        assert_eq!(picked.previous(), Some(Label { era: 1, position: 4 }));
        assert_eq!(picked.version(), Some(3));
        assert_eq!((picked.event_id(), picked.repeated), (None, false));
    }

    #[test]
    fn a_mac_covers_each_header_that_is_read_in_its_order() {
        let all = headers::COVERED.map(|name| (name, name));
        assert_eq!(headers(&all).covered(), headers::COVERED.map(|name| Some(name.as_bytes())));
    }

    #[test]
    fn the_first_record_has_none_before_it_and_what_is_no_label_is_told_from_that() {
        assert_eq!(headers(&[]).previous(), Some(Label::START));
        assert_eq!(headers(&[(headers::PREVIOUS, "none")]).previous(), None);
    }

    #[test]
    fn of_a_repeated_header_the_first_counts_and_it_is_told() {
        let picked = headers(&[(headers::LABEL, "1-7"), ("x", ""), ("x", ""), (headers::LABEL, "1-9")]);
        assert_eq!((picked.label().unwrap().position, picked.repeated), (7, true));
        assert!(!headers(&[("x", ""), ("x", "")]).repeated, "nobody reads it");
    }

    #[test]
    fn what_is_kept_reads_back_to_the_byte_but_for_a_name_that_is_no_text() {
        let all: [(&[u8], &[u8]); 3] = [(b"a", b"\xff\0"), (b"", b""), (b"\xffb", b"c")];
        let kept = KeptHeaders::of(all.into_iter());
        let read: Vec<_> = kept.iter().collect();
        assert_eq!(
            read,
            [(b"a".as_slice(), b"\xff\0".as_slice()), (b"", b""), ("\u{fffd}b".as_bytes(), b"c")]
        );
    }
}
