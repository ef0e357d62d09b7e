//! Records for the tests: any, and any change of one.

use ordermill_wire::headers::COVERED;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::covered::Covered;

/// What a MAC covers, with its own bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) headers: [Option<Vec<u8>>; COVERED.len()],
}

impl Owned {
    pub(super) fn covered(&self) -> Covered<'_> {
        Covered {
            topic: &self.topic,
            partition: self.partition,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            headers: self.headers.each_ref().map(Option::as_deref),
        }
    }

    pub(super) fn with_header(mut self, name: &str, value: &str) -> Owned {
        let at = COVERED.iter().position(|covered| *covered == name).unwrap();
        self.headers[at] = Some(value.into());
        self
    }

    /// Every part that may be absent.
    fn parts(&mut self) -> Vec<&mut Option<Vec<u8>>> {
        [&mut self.key, &mut self.payload].into_iter().chain(&mut self.headers).collect()
    }
}

/// Any record; parts are short, so that they often are alike, or long.
pub(super) fn records() -> impl Strategy<Value = Owned> {
    let bytes = prop_oneof![4 => vec(any::<u8>(), 0..4), 1 => vec(any::<u8>(), 500..1_500)];
    let part = option::of(bytes);
    let headers = proptest::array::uniform12(part.clone());
    ("[a-z.]{0,5}", 0..3_i32, part.clone(), part, headers).prop_map(
        |(topic, partition, key, payload, headers)| Owned { topic, partition, key, payload, headers },
    )
}

/// What somebody does to a record.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Moves it to a topic of another name, prefix or installation.
    Topic(String),
    /// Moves it to another partition.
    Partition(i32),
    /// Flips a bit of a part.
    Flip { part: usize, byte: usize, bit: u8 },
    /// Sets a part, or takes it away.
    Set { part: usize, to: Option<Vec<u8>> },
    /// Swaps two parts.
    Swap(usize, usize),
    /// Moves the beginning of a part to the end of the one before it.
    Shift { part: usize, bytes: usize },
}

impl Change {
    pub(super) fn apply(&self, record: &Owned) -> Owned {
        let mut changed = record.clone();
        match self {
            Change::Topic(topic) => changed.topic.clone_from(topic),
            Change::Partition(partition) => changed.partition = *partition,
            Change::Flip { part, byte, bit } => {
                if let Some(bytes) = changed.parts()[*part].as_mut().filter(|bytes| !bytes.is_empty()) {
                    let at = byte % bytes.len();
                    bytes[at] ^= 1 << bit;
                }
            }
            Change::Set { part, to } => changed.parts()[*part].clone_from(to),
            Change::Swap(one, other) => {
                let (first, second) = (changed.parts()[*one].take(), changed.parts()[*other].take());
                *changed.parts()[*one] = second;
                if one != other {
                    *changed.parts()[*other] = first;
                }
            }
            Change::Shift { part, bytes } => {
                let mut parts = changed.parts();
                if let [before, here] = &mut parts[*part - 1..=*part]
                    && let (Some(before), Some(here)) = (before.as_mut(), here.as_mut())
                {
                    before.extend(here.drain(..(*bytes).min(here.len())));
                }
            }
        }
        changed
    }
}

/// Any change.
pub(super) fn changes() -> impl Strategy<Value = Change> {
    const PARTS: usize = COVERED.len() + 2;
    prop_oneof![
        "[a-z.]{0,5}".prop_map(Change::Topic),
        (0..3_i32).prop_map(Change::Partition),
        (0..PARTS, any::<usize>(), 0..8_u8).prop_map(|(part, byte, bit)| Change::Flip { part, byte, bit }),
        (0..PARTS, option::of(vec(any::<u8>(), 0..4))).prop_map(|(part, to)| Change::Set { part, to }),
        (0..PARTS, 0..PARTS).prop_map(|(one, other)| Change::Swap(one, other)),
        (1..PARTS, 1..4_usize).prop_map(|(part, bytes)| Change::Shift { part, bytes }),
    ]
}
