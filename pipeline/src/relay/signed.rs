//! The headers of a record that the relay sends, and the MAC over them.

use std::fmt::{Display, Write as _};
use std::ops::Range;

use ordermill_wire::headers::{self, COVERED};
use rdkafka::message::{Header, OwnedHeaders};

use crate::authenticity::{Covered, Key};
use crate::label::Label;
use crate::log::Entry;
use crate::stored_header::StoredHeader;

/// A record that is about to be sent, but for its headers.
pub(super) struct Unsigned<'a> {
    /// The topic's full name.
    pub(super) topic: &'a str,
    pub(super) key: &'a [u8],
    pub(super) entry: &'a Entry,
    /// When the event happened.
    pub(super) at: &'a str,
    pub(super) label: Label,
    /// The label of the record before it in its partition, where there is one.
    pub(super) previous: Option<Label>,
}

/// The texts of a record's covered headers, in one buffer that is used again for the next record.
#[derive(Default)]
pub(super) struct Texts {
    text: String,
    ranges: [Option<Range<usize>>; COVERED.len()],
}

impl Texts {
    fn write(&mut self, values: [Option<&dyn Display>; COVERED.len()]) {
        self.text.clear();
        for (range, value) in self.ranges.iter_mut().zip(values) {
            let begin = self.text.len();
            *range = value.map(|value| {
                // Writing to a string does not fail.
                let _ = write!(self.text, "{value}");
                begin..self.text.len()
            });
        }
    }

    fn values(&self) -> [Option<&[u8]>; COVERED.len()] {
        self.ranges.each_ref().map(|range| self.text.as_bytes().get(range.clone()?))
    }
}

/// `urn:ordermill:schema:<type>:<version>`.
struct DataSchema<'a>(&'a Entry);

impl Display for DataSchema<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}:{}", headers::SCHEMA_URN, self.0.event_type, self.0.version)
    }
}

/// All headers of a record, signed.
pub(super) fn headers(texts: &mut Texts, record: &Unsigned<'_>, key: &Key) -> OwnedHeaders {
    let Unsigned { topic, entry, label, .. } = record;
    let (id, subject) = (entry.event_id.hyphenated(), entry.aggregate_id.hyphenated());
    let correlation = entry.correlation_id.map(|id| id.hyphenated());
    let cause = entry.cause_id.map(|id| id.hyphenated());
    // In the order of `COVERED`.
    texts.write([
        Some(label),
        shown(record.previous.as_ref()),
        Some(&id),
        Some(&entry.event_type),
        Some(&DataSchema(entry)),
        Some(&record.at),
        Some(&entry.sequence),
        Some(&subject),
        Some(&entry.actor),
        shown(correlation.as_ref()),
        shown(cause.as_ref()),
        Some(&entry.trace),
    ]);
    let values = texts.values();
    let mac = key.sign(&Covered {
        topic,
        partition: i32::from(entry.partition),
        key: Some(record.key),
        payload: Some(&entry.data),
        headers: values,
    });
    let mut all = OwnedHeaders::new_with_capacity(20);
    for (key, value) in COVERED.into_iter().zip(values).filter(|(_, value)| value.is_some()) {
        all = all.insert(Header { key, value });
    }
    let source = format!("/ordermill/{}", entry.topic);
    for (key, value) in [
        (headers::SOURCE, source.as_bytes()),
        (headers::SPEC_VERSION, b"1.0".as_slice()),
        (headers::KEY, key.id().as_str().as_bytes()),
        (headers::MAC, mac.as_bytes()),
    ] {
        all = all.insert(Header { key, value: Some(value) });
    }
    match &entry.headers {
        None => all.insert(Header { key: headers::CONTENT_TYPE, value: Some("application/json") }),
        Some(further) => {
            let further = serde_json::from_value::<Vec<StoredHeader>>(further.clone()).unwrap_or_default();
            further.iter().fold(all, |all, header| {
                all.insert(Header { key: &header.name, value: Some(&header.bytes()) })
            })
        }
    }
}

fn shown<T: Display>(value: Option<&T>) -> Option<&dyn Display> {
    value.map(|value| value as &dyn Display)
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;
    use serde_json::json;

    use super::*;
    use crate::authenticity::RootSecret;
    use crate::headers::Headers;
    use crate::testing::entry;

    fn assert_verifies(texts: &mut Texts, entry: &Entry, previous: Option<Label>) {
        let key = Key::derive(&RootSecret::generate().unwrap(), &"1-1-0123456789abcdef".parse().unwrap());
        let label = Label { era: 1, position: 100_002 };
        let at = "2026-01-01T00:00:00Z";
        let unsigned = Unsigned { topic: "p.cups", key: b"k", entry, at, label, previous };
        let made = headers(texts, &unsigned, &key);
        let all = made.iter().map(|header| (header.key.as_bytes(), header.value.unwrap()));
        let read = Headers::of(all);
        assert!(!read.repeated);
        assert_eq!((read.label(), read.previous()), (Some(label), Some(previous.unwrap_or(Label::START))));
        assert_eq!(
            (read.event_type(), read.version(), read.sequence()),
            (Some("cup.filled"), Some(2), Some(7))
        );
        assert_eq!((read.event_id(), read.correlation_id()), (Some(entry.event_id), entry.correlation_id));
        let (payload, headers) = (Some(entry.data.as_slice()), read.covered());
        let covered = Covered { topic: "p.cups", partition: 3, key: Some(b"k"), payload, headers };
        assert_eq!(read.key, Some(key.id().as_str().as_bytes()));
        assert!(key.verifies(&covered, read.mac.unwrap()));
    }

    #[test]
    fn what_is_sent_verifies_as_it_is_read_also_where_less_is_said_than_of_the_record_before() {
        let mut texts = Texts::default();
        let entry = entry("cups", 3, 2);
        assert_verifies(&mut texts, &entry, Some(Label { era: 1, position: 100_001 }));
        let headers = Some(json!([{"name": "dlt-topic", "value": "cups"}]));
        let less = Entry { correlation_id: None, headers, ..entry };
        assert_verifies(&mut texts, &less, None);
    }
}
