//! API keys: random, and stored only as their hash.

use sha2::{Digest as _, Sha256};

/// What every key begins with, so that a scanner for leaked secrets can tell one.
const PREFIX: &str = "om_";
/// How much chance is in a key.
const RANDOM_BYTES: usize = 32;

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
    }
}
