//! The signature of a callback.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "Ordermill-Signature";

/// Signs a body: `t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`.
///
/// The time is part of what is signed, so that a receiver can refuse a callback that is replayed
/// long after it was sent.
///
/// ```
/// let header = ordermill_gateway::sign(b"secret", 1_700_000_000, b"{}");
/// assert!(header.starts_with("t=1700000000,v1="));
/// ```
pub fn sign(secret: &[u8], unix_seconds: i64, body: &[u8]) -> String {
    // HMAC hashes a key that is too long and pads one that is too short, so none is refused.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        unreachable!("HMAC takes a key of any length");
    };
    mac.update(unix_seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let digest = hex::encode(mac.finalize().into_bytes());
    format!("t={unix_seconds},v1={digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_hmac_of_time_and_body() {
        // From: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let expected = "49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(sign(b"secret", 1_700_000_000, br#"{"a":1}"#), format!("t=1700000000,v1={expected}"));
    }

    #[test]
    fn another_secret_time_or_body_gives_another_signature() {
        let signature = sign(b"secret", 1, b"body");
        assert_ne!(signature, sign(b"Secret", 1, b"body"));
        assert_ne!(signature, sign(b"secret", 2, b"body"));
        assert_ne!(signature, sign(b"secret", 1, b"bodY"));
    }
}
