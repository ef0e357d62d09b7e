//! What a MAC covers of a record, in one form that no other record has.

use ordermill_wire::headers::COVERED;

/// The parts of a record that its MAC covers: where it lies, and all that anything here reads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered<'a> {
    /// The topic's full name, with the prefix of the installation.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The key, where there is one.
    pub key: Option<&'a [u8]>,
    /// The value, where there is one.
    pub payload: Option<&'a [u8]>,
    /// The values of [`COVERED`], in that order. A header without a value is as absent.
    pub headers: [Option<&'a [u8]>; COVERED.len()],
}

/// How much is gathered before it is hashed: most records but for their payload. Each call of the hasher costs some
/// nanoseconds, and a record has thirty parts.
const GATHERED: usize = 512;

impl Covered<'_> {
    /// Hands the canonical form to `sink`, in pieces of any length.
    ///
    /// Each part but the partition stands behind its length, in four bytes; an absent one has the length -1. There are always as many parts in the
    /// same order, so the form can be read back, and no two records have the same.
    pub(super) fn write(&self, mut sink: impl FnMut(&[u8])) {
        let mut gathered = Gathered { bytes: [0; GATHERED], len: 0 };
        gathered.part(Some(self.topic.as_bytes()), &mut sink);
        gathered.bytes(&self.partition.to_le_bytes(), &mut sink);
        gathered.part(self.key, &mut sink);
        for header in self.headers {
            gathered.part(header, &mut sink);
        }
        gathered.part(self.payload, &mut sink);
        gathered.empty(&mut sink);
    }
}

struct Gathered {
    bytes: [u8; GATHERED],
    len: usize,
}

impl Gathered {
    fn part(&mut self, part: Option<&[u8]>, sink: &mut impl FnMut(&[u8])) {
        // Kafka's lengths are of four bytes, so none is longer.
        let len = part.map_or(-1, |part| i32::try_from(part.len()).unwrap_or(i32::MAX));
        self.bytes(&len.to_le_bytes(), sink);
        self.bytes(part.unwrap_or_default(), sink);
    }

    fn bytes(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        if self.put(bytes).is_none() {
            self.empty(sink);
            if self.put(bytes).is_none() {
                sink(bytes);
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn empty(&mut self, sink: &mut impl FnMut(&[u8])) {
        sink(self.bytes.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Owned, records};
    use super::*;

    fn canonical(record: &Owned) -> Vec<u8> {
        let mut form = Vec::new();
        record.covered().write(|piece| form.extend_from_slice(piece));
        form
    }

    /// Reads the form back, to its last byte.
    fn read_back(mut form: &[u8]) -> Owned {
        let mut bytes = |count: usize| {
            let (taken, rest) = form.split_at(count);
            form = rest;
            taken.to_vec()
        };
        let number = |bytes: Vec<u8>| i32::from_le_bytes(bytes.try_into().unwrap());
        let part = |bytes: &mut dyn FnMut(usize) -> Vec<u8>| {
            let len = number(bytes(4));
            usize::try_from(len).ok().map(bytes)
        };
        let topic = String::from_utf8(part(&mut bytes).unwrap()).unwrap();
        let partition = number(bytes(4));
        let key = part(&mut bytes);
        let headers = std::array::from_fn(|_| part(&mut bytes));
        let payload = part(&mut bytes);
        assert!(form.is_empty());
        Owned { topic, partition, key, payload, headers }
    }

    proptest! {
        #[test]
        fn the_form_reads_back_so_no_two_records_have_the_same(record in records()) {
            prop_assert_eq!(read_back(&canonical(&record)), record);
        }
    }

    #[test]
    fn parts_of_every_length_are_in_the_form_also_those_that_are_not_gathered() {
        for len in [0, 1, GATHERED - 8, GATHERED - 4, GATHERED, GATHERED + 1, 5 * GATHERED] {
            let record = Owned { key: Some(vec![7; len]), payload: Some(vec![8; len]), ..Owned::default() };
            assert_eq!(read_back(&canonical(&record)), record);
        }
    }

    #[test]
    fn what_is_absent_is_not_as_what_is_empty() {
        let absent = Owned::default();
        let empty = Owned { key: Some(Vec::new()), ..Owned::default() };
        assert_ne!(canonical(&absent), canonical(&empty));
    }
}
