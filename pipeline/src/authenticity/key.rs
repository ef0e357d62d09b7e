//! A key: its id, which records name, and what it signs.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use ordermill_wire::headers::COVERED;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::covered::Covered;
use super::secrets::RootSecret;

/// What keys are derived for.
const KEY_PURPOSE: &[u8] = b"ordermill key for the MACs of records\0";
/// How many bytes of the HMAC are the MAC.
const MAC_BYTES: usize = 16;

/// The id of a key: `<era>-<number>-<16 hexadecimal digits>`.
///
/// The number counts keys. The digits are random: a database that was restored counts again, and must not come upon a key that
/// was made, and perhaps given away, in a future which it has forgotten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    text: Box<str>,
    era: i32,
    number: i32,
}

/// The text is not the id of a key.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not the id of a key, which has the form <era>-<number>-<16 hexadecimal digits>")]
pub struct NotAKeyId;

impl KeyId {
    /// The id as records have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The era of the log whose records it signs.
    #[must_use]
    pub fn era(&self) -> i32 {
        self.era
    }

    /// Counts keys.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl FromStr for KeyId {
    type Err = NotAKeyId;

    /// Takes one form only, so that equal ids have equal texts.
    fn from_str(text: &str) -> Result<KeyId, NotAKeyId> {
        let mut parts = text.splitn(3, '-');
        let mut number = || -> Option<i32> {
            let text = parts.next()?;
            let number = text.parse().ok().filter(|number: &i32| *number > 0)?;
            (number.to_string() == text).then_some(number)
        };
        let (era, number) = (number().ok_or(NotAKeyId)?, number().ok_or(NotAKeyId)?);
        let random = parts.next().ok_or(NotAKeyId)?;
        let is_random = random.len() == 16 && random.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_random { Ok(KeyId { text: text.into(), era, number }) } else { Err(NotAKeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A MAC as its header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacText([u8; 2 * MAC_BYTES]);

impl MacText {
    /// The header's value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What signs records, and verifies what it has signed.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    /// What the label of every record begins with that it may sign.
    label_prefix: Box<[u8]>,
    /// HMAC that has taken in the key and nothing else yet.
    mac: Hmac<Sha256>,
}

impl Key {
    /// The key of that id.
    #[must_use]
    pub fn derive(root: &RootSecret, id: &KeyId) -> Key {
        let mac = keyed(&root.derive(KEY_PURPOSE, id.as_str().as_bytes()));
        let label_prefix = format!("{}-", id.era).into_bytes().into();
        Key { id: id.clone(), label_prefix, mac }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The MAC of a record.
    #[must_use]
    pub fn sign(&self, covered: &Covered<'_>) -> MacText {
        let mut mac = self.mac.clone();
        covered.write(|piece| mac.update(piece));
        let mut text = [0; 2 * MAC_BYTES];
        for (digits, byte) in text.chunks_exact_mut(2).zip(mac.finalize().into_bytes()) {
            digits.copy_from_slice(&HEX[usize::from(byte)]);
        }
        MacText(text)
    }

    /// Whether that is the MAC of a record. It takes the same time wherever it differs.
    #[must_use]
    pub fn verifies(&self, covered: &Covered<'_>, mac: &[u8]) -> bool {
        self.sign(covered).0.ct_eq(mac).into()
    }

    /// Whether a record is of the era whose records this key signs. A key of an earlier era, which a restored
    /// database may have forgotten to be revoked, says nothing in a later one.
    #[must_use]
    pub fn is_of_era_of(&self, covered: &Covered<'_>) -> bool {
        let [label, ..] = covered.headers;
        label.is_some_and(|label| label.starts_with(&self.label_prefix))
    }
}

// The label is looked at by its place.
const _: () = assert!(matches!(COVERED[0].as_bytes(), b"ordermill-label"));

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// HMAC by a key that is not longer than a block, which it fills up with zeros.
pub(super) fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    let (begin, _) = block.split_at_mut(key.len());
    begin.copy_from_slice(key);
    Hmac::new(&block.into())
}

/// The two hexadecimal digits of every byte.
static HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use ordermill_wire::headers::LABEL;
    use proptest::prelude::*;

    use super::super::testing::{Change, Owned, changes, records};
    use super::*;

    fn key(root: &RootSecret, id: &str) -> Key {
        Key::derive(root, &id.parse().unwrap())
    }

    #[test]
    fn an_id_has_one_form() {
        let id: KeyId = "2-13-0123456789abcdef".parse().unwrap();
        assert_eq!((id.era(), id.number(), id.to_string().as_str()), (2, 13, "2-13-0123456789abcdef"));
        for wrong in [
            "",
            "1-2",
            "0-1-0123456789abcdef",
            "1-0-0123456789abcdef",
            "01-1-0123456789abcdef",
            "+1-1-0123456789abcdef",
            "1-1-0123456789ABCDEF",
            "1-1-0123456789abcde",
            "1-1-0123456789abcdef0",
            " 1-1-0123456789abcdef",
            "1-1-0123456789abcdef-",
        ] {
            assert_eq!(wrong.parse::<KeyId>(), Err(NotAKeyId), "{wrong:?}");
        }
    }

    #[test]
    fn no_two_keys_sign_alike() {
        let (root, other) = (RootSecret([1; 32]), RootSecret([2; 32]));
        let keys = [
            key(&root, "1-1-0123456789abcdef"),
            key(&root, "1-1-0123456789abcdee"),
            key(&root, "1-2-0123456789abcdef"),
            key(&root, "2-1-0123456789abcdef"),
            key(&other, "1-1-0123456789abcdef"),
        ];
        let record = Owned::default();
        for (index, key) in keys.iter().enumerate() {
            let mac = key.sign(&record.covered());
            for (other, other_key) in keys.iter().enumerate() {
                assert_eq!(other_key.verifies(&record.covered(), mac.as_bytes()), index == other);
            }
        }
    }

    /// Records lie in Kafka for days: what a MAC is does not change unnoticed.
    #[test]
    fn the_mac_of_a_record_stays_what_it_is() {
        let key = key(&RootSecret([7; 32]), "1-1-0123456789abcdef");
        let record = Owned { topic: "orders".to_owned(), partition: 3, ..Owned::default() };
        let mac = key.sign(&record.covered());
        assert_eq!(std::str::from_utf8(mac.as_bytes()).unwrap(), "2f519bd8bfef0a9f123070a5a1f1ffce");
    }

    #[test]
    fn a_mac_of_another_length_or_in_other_letters_is_none() {
        let key = key(&RootSecret([7; 32]), "1-1-0123456789abcdef");
        let record = Owned::default();
        let mac = key.sign(&record.covered());
        let upper = mac.as_bytes().to_ascii_uppercase();
        for wrong in [&[][..], &mac.as_bytes()[..31], &[mac.as_bytes(), b"0"].concat(), &upper] {
            assert!(!key.verifies(&record.covered(), wrong));
        }
    }

    #[test]
    fn a_key_signs_for_its_era_alone() {
        let key = key(&RootSecret([7; 32]), "2-1-0123456789abcdef");
        for (label, is_of_era) in [("2-1", true), ("1-1", false), ("22-1", false), ("2", false), ("", false)]
        {
            let record = Owned::default().with_header(LABEL, label);
            assert_eq!(key.is_of_era_of(&record.covered()), is_of_era, "{label}");
        }
        assert!(!key.is_of_era_of(&Owned::default().covered()));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_of_a_record_its_mac_fits_no_more(record in records(), change in changes()) {
            let key = key(&RootSecret([7; 32]), "1-1-0123456789abcdef");
            let mac = key.sign(&record.covered());
            prop_assert!(key.verifies(&record.covered(), mac.as_bytes()));
            let changed: Owned = Change::apply(&change, &record);
            prop_assume!(changed != record);
            prop_assert!(!key.verifies(&changed.covered(), mac.as_bytes()));
        }
    }
}
