//! The gateway's signature on its callbacks: `t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;

/// How far the signature's time and ours may be apart, in seconds.
const TOLERANCE_S: u64 = 300;

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    /// It has another form.
    #[error("the signature must have the form t=<unix seconds>,v1=<hex>")]
    Malformed,
    /// It was made too long ago, or in the future.
    #[error("the signature's time is more than {TOLERANCE_S} seconds off")]
    OutOfTime,
    /// It is of another body, another time, or by another secret.
    #[error("the signature does not fit the body")]
    Wrong,
}

/// Checks the signature of a body. Several `v1` may stand in it, so that a secret can be changed without a
/// pause; one that fits is enough. What else stands in it is for versions to come.
///
/// # Errors
/// [`SignatureError`] where it is not accepted.
pub(crate) fn verify(secret: &[u8], header: &str, body: &[u8], now: Timestamp) -> Result<(), SignatureError> {
    let mut time = None;
    let mut digests = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", text)) if time.is_none() => time = Some(text),
            Some(("v1", text)) => digests.push(hex::decode(text).map_err(|_| SignatureError::Malformed)?),
            Some((name, _)) if name != "t" => {}
            _ => return Err(SignatureError::Malformed),
        }
    }
    let time = time.ok_or(SignatureError::Malformed)?;
    let unix_s: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    if digests.is_empty() {
        return Err(SignatureError::Malformed);
    }
    if unix_s.abs_diff(now.as_second()) > TOLERANCE_S {
        return Err(SignatureError::OutOfTime);
    }
    let fits = |digest: &Vec<u8>| {
        // A key of any length is taken, so there is no error to expect.
        Hmac::<Sha256>::new_from_slice(secret).is_ok_and(|mut mac| {
            mac.update(time.as_bytes());
            mac.update(b".");
            mac.update(body);
            // Takes the same time wherever the difference is.
            mac.verify_slice(digest).is_ok()
        })
    };
    if digests.iter().any(fits) { Ok(()) } else { Err(SignatureError::Wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // From: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
    const DIGEST: &str = "49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
    const BODY: &[u8] = br#"{"a":1}"#;

    fn verify_at(header: &str, seconds_later: i64) -> Result<(), SignatureError> {
        verify(b"secret", header, BODY, Timestamp::from_second(1_700_000_000 + seconds_later).unwrap())
    }

    fn header() -> String {
        format!("t=1700000000,v1={DIGEST}")
    }

    #[test]
    fn the_gateways_signature_is_accepted_for_300_seconds() {
        for (seconds_later, verdict) in [
            (0, Ok(())),
            (300, Ok(())),
            (-300, Ok(())),
            (301, Err(SignatureError::OutOfTime)),
            (-301, Err(SignatureError::OutOfTime)),
        ] {
            assert_eq!(verify_at(&header(), seconds_later), verdict, "{seconds_later}");
        }
    }

    #[test]
    fn another_secret_time_or_body_does_not_fit() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        assert_eq!(verify(b"Secret", &header(), BODY, now), Err(SignatureError::Wrong));
        assert_eq!(verify(b"secret", &header(), b"{}", now), Err(SignatureError::Wrong));
        assert_eq!(
            verify_at(&header().replace("t=1700000000", "t=1700000001"), 0),
            Err(SignatureError::Wrong)
        );
        assert_eq!(verify_at(&header()[..header().len() - 2], 0), Err(SignatureError::Wrong));
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let other = "00".repeat(32);
        assert_eq!(verify_at(&format!("t=1700000000, v1={other}, v1={DIGEST}, v2=x"), 0), Ok(()));
    }

    #[test]
    fn what_has_another_form_is_no_signature() {
        for wrong in ["", "t=1700000000", &format!("v1={DIGEST}"), "t=x,v1=00", "t=1,t=1,v1=00", "t=1,v1=zz"]
        {
            assert_eq!(verify_at(wrong, 0), Err(SignatureError::Malformed), "{wrong}");
        }
    }
}
