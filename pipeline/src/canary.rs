//! The canary: a record that the relay sends where nothing else moves, to show that records would come.
//!
//! It is not in the log, has a topic of its own, and moves nothing but what a member says of itself: that it has met one. It is signed like
//! every record, and counted, so that nobody else's and no repeated one shows anything.

use ordermill_wire::headers::{COVERED, KEY, LABEL, MAC};
use rdkafka::message::{Header, OwnedHeaders};

use crate::authenticity::{Covered, Key};
use crate::label::Label;

/// Its topic, without prefix.
pub(crate) const TOPIC: &str = "canary";
/// How many partitions that has.
pub(crate) const PARTITIONS: i32 = 1;
/// The one that canaries are sent to.
pub(crate) const PARTITION: i32 = 0;

/// All that a canary has: headers. The topic is given by its full name. The label counts canaries; its position is none of the log.
pub(crate) fn signed(topic: &str, label: Label, key: &Key) -> OwnedHeaders {
    let text = label.to_string();
    let values: [Option<&[u8]>; COVERED.len()] =
        COVERED.map(|header| (header == LABEL).then_some(text.as_bytes()));
    let mac = key.sign(&Covered { topic, partition: PARTITION, key: None, payload: None, headers: values });
    let all = [(LABEL, text.as_bytes()), (KEY, key.id().as_str().as_bytes()), (MAC, mac.as_bytes())];
    let headers = OwnedHeaders::new_with_capacity(all.len());
    all.into_iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::authenticity::RootSecret;
    use crate::headers::Headers;

    #[test]
    fn a_canary_verifies_in_its_topic_and_nowhere_else() {
        let key = Key::derive(&RootSecret::generate().unwrap(), &"2-1-0123456789abcdef".parse().unwrap());
        let label = Label { era: 2, position: 7 };
        let made = signed("p.canary", label, &key);
        let read = Headers::of(made.iter().map(|header| (header.key.as_bytes(), header.value.unwrap())));
        assert_eq!((read.label(), read.repeated), (Some(label), false));
        assert_eq!(read.key, Some(key.id().as_str().as_bytes()));
        let (key_bytes, payload, headers) = (None, None, read.covered());
        let covered = Covered { topic: "p.canary", partition: 0, key: key_bytes, payload, headers };
        assert!(key.verifies(&covered, read.mac.unwrap()) && key.is_of_era_of(&covered));
        let elsewhere = Covered { topic: "p.orders", ..covered };
        assert!(!key.verifies(&elsewhere, read.mac.unwrap()));
    }
}
