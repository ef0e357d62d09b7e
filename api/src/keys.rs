//! API keys: random, and stored only as their hash.

use sha2::{Digest as _, Sha256};

/// What every key begins with, so that a scanner for leaked secrets can tell one.
const PREFIX: &str = "om_";
/// How much chance is in a key.
const RANDOM_BYTES: usize = 32;
/// How short a key may be that somebody has chosen: the hash is a fast one, so a key must be too long to be guessed, and 32
/// hexadecimal digits are 128 bits.
const CHOSEN_LENGTH_MIN: usize = 32;
/// Longer keys are none of ours and are not worth hashing.
pub(crate) const KEY_LENGTH_MAX: usize = 256;

/// A text that somebody has chosen for an administrator's key, and that can't be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an administrator's key has {} to {} visible ASCII characters and no space: make one by `openssl rand -hex 32`",
    CHOSEN_LENGTH_MIN,
    KEY_LENGTH_MAX
)]
pub struct UnfitKey;

/// A new API key and its hash. The key is shown to its owner once; the hash is what is stored.
///
/// # Errors
/// Where the machine has no source of randomness.
pub fn new_api_key() -> Result<(String, Vec<u8>), getrandom::Error> {
    let mut random = [0_u8; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    let key = format!("{PREFIX}{}", hex::encode(random));
    let hash = hash_key(&key);
    Ok((key, hash))
}

/// The hash under which a key is stored: SHA-256. A random key of 256 bits needs no slow hash.
#[must_use]
pub fn hash_key(key: &str) -> Vec<u8> {
    digest(key).to_vec()
}

/// The hash of an administrator's key that somebody has chosen.
///
/// # Errors
/// [`UnfitKey`] where it could be guessed, or not be sent.
pub fn hash_chosen_key(key: &str) -> Result<Vec<u8>, UnfitKey> {
    let is_long_enough = (CHOSEN_LENGTH_MIN..=KEY_LENGTH_MAX).contains(&key.len());
    if is_long_enough && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(hash_key(key))
    } else {
        Err(UnfitKey)
    }
}

/// The first 8 hexadecimal digits of a key's hash, which tell keys apart and lead to none: for logs.
pub(crate) fn mark(key: &str) -> String {
    let [a, b, c, d, ..] = digest(key);
    hex::encode([a, b, c, d])
}

pub(crate) fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_the_same_and_each_is_found_by_its_hash() {
        let (first, first_hash) = new_api_key().unwrap();
        let (second, _) = new_api_key().unwrap();
        assert_ne!(first, second);
        assert_eq!(first.len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert_eq!(first_hash, hash_key(&first));
        assert_eq!(first_hash.len(), 32);
        assert_eq!(mark(&first), hex::encode(&first_hash)[..8]);
    }

    #[test]
    fn a_key_that_could_be_guessed_or_not_be_sent_is_refused_with_advice() {
        for fit in [new_api_key().unwrap().0, "0f".repeat(16), "~".repeat(256)] {
            assert_eq!(hash_chosen_key(&fit), Ok(hash_key(&fit)), "{fit}");
        }
        let short = "0f".repeat(16).split_off(1);
        for unfit in ["", "admin", &short, &"k ".repeat(16), &"é".repeat(16), &"k".repeat(257)] {
            assert_eq!(hash_chosen_key(unfit), Err(UnfitKey), "{unfit:?}");
        }
        assert!(
            UnfitKey.to_string().contains("32 to 256")
                && UnfitKey.to_string().contains("openssl rand -hex 32")
        );
    }
}
