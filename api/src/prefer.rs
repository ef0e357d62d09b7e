//! `Prefer: wait=N` (RFC 7240): how long a client would like to wait for the end.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use utoipa::IntoParams;

/// Longer is not waited, in seconds.
pub(crate) const WAIT_MAX_S: u64 = 30;
/// The header's name.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long the client would like to wait; `None` where it would not. A preference that makes no sense is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Prefer {
    /// `wait=N`: wait up to N seconds, at most 30
    #[param(rename = "Prefer", value_type = Option<String>, example = "wait=10")]
    pub(crate) wait: Option<Duration>,
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Prefer, Infallible> {
        Ok(Prefer { wait: wait(&parts.headers) })
    }
}

/// The first `wait` among the preferences counts.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    let wait = preferences.find_map(|preference| {
        let preference = preference.split(';').next()?;
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    })?;
    let is_number = !wait.is_empty() && wait.bytes().all(|byte| byte.is_ascii_digit());
    // A number too large to be read is more than the most, too.
    let seconds = if is_number { wait.parse().unwrap_or(u64::MAX).min(WAIT_MAX_S) } else { 0 };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_s(values: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, value.parse().unwrap());
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_first_wait_among_the_preferences_counts() {
        assert_eq!(wait_s(&["wait=10"]), Some(10));
        assert_eq!(wait_s(&["respond-async, Wait = \"10\"; x=y"]), Some(10));
        assert_eq!(wait_s(&["respond-async", "wait=3, wait=4"]), Some(3));
    }

    #[test]
    fn no_one_waits_longer_than_the_most() {
        assert_eq!(wait_s(&["wait=31"]), Some(WAIT_MAX_S));
        assert_eq!(wait_s(&["wait=99999999999999999999999"]), Some(WAIT_MAX_S));
    }

    #[test]
    fn what_makes_no_sense_is_no_preference() {
        for values in [&[][..], &["wait"], &["wait="], &["wait=-1"], &["wait=1.5"], &["wait=0"], &["x=1"]] {
            assert_eq!(wait_s(values), None, "{values:?}");
        }
    }
}
