//! Partitions, and which of them a key belongs to: Kafka's own rule, so that other producers and consumers agree.

use murmur2::murmur2;
use uuid::Uuid;

/// The seed that Kafka uses.
const SEED: u32 = 0x9747_b28c;

/// A partition of a topic, which is named without prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) topic: &'static str,
    pub(crate) partition: i16,
}

/// The partition of a key: murmur2 as Kafka's Java client computes it (`Utils.murmur2` and
/// `Utils.toPositive` there), modulo the number of partitions.
#[must_use]
pub fn partition_of(key: Uuid, partitions: i16) -> i16 {
    let mut text = [0_u8; 36];
    let key = key.hyphenated().encode_lower(&mut text);
    let hash = murmur2(key.as_bytes(), SEED) & 0x7fff_ffff;
    let count = u32::from(partitions.unsigned_abs().max(1));
    i16::try_from(hash % count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs are those of Kafka's own unit test of `Utils.murmur2`.
    #[test]
    fn murmur2_agrees_with_the_java_client() {
        for (text, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes(), SEED).cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn every_key_has_a_partition_below_the_count() {
        for n in 0..1_000_u128 {
            assert!((0..12).contains(&partition_of(Uuid::from_u128(n), 12)));
        }
    }
}
