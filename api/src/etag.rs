//! Entity tags: the version of what is shown.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

/// The tag of a version.
pub(crate) fn of_version(version: i32) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the client's `If-Match` names this tag (RFC 9110, 13.1.1: the comparison is the strong one); `None` where
/// it names none at all.
pub(crate) fn is_expected_by_client(headers: &HeaderMap, etag: &HeaderValue) -> Option<bool> {
    let mut values =
        headers.get_all(header::IF_MATCH).iter().filter_map(|value| value.to_str().ok()).peekable();
    values.peek()?;
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    Some(tags.any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes()))
}

/// The answer that shows something of that tag: nothing of it where the client has it already.
pub(crate) fn answer(headers: &HeaderMap, etag: HeaderValue, view: impl Serialize) -> Response {
    let is_known = is_known_to_client(headers, &etag);
    let etag = [(header::ETAG, etag)];
    if is_known {
        (StatusCode::NOT_MODIFIED, etag).into_response()
    } else {
        (etag, Json(view)).into_response()
    }
}

/// Whether the client has it already: one of its tags in `If-None-Match` is this one (RFC 9110, 13.1.2: the
/// comparison is the weak one, so a `W/` before a tag does not matter).
fn is_known_to_client(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(if_none_match: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, if_none_match.parse().unwrap());
        is_known_to_client(&headers, &of_version(3))
    }

    #[test]
    fn a_client_expects_the_version_that_it_names() {
        let expects = |if_match: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, if_match.parse().unwrap());
            is_expected_by_client(&headers, &of_version(3))
        };
        for (if_match, expected) in [
            ("\"3\"", true),
            ("\"1\", \"3\"", true),
            ("*", true),
            ("\"2\"", false),
            ("W/\"3\"", false),
            ("3", false),
        ] {
            assert_eq!(expects(if_match), Some(expected), "{if_match}");
        }
        assert_eq!(is_expected_by_client(&HeaderMap::new(), &of_version(3)), None);
    }

    #[test]
    fn a_client_knows_what_it_has_a_tag_of() {
        for known in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*"] {
            assert!(knows(known), "{known}");
        }
        for unknown in ["\"2\"", "3", "\"33\"", ""] {
            assert!(!knows(unknown), "{unknown}");
        }
        assert!(!is_known_to_client(&HeaderMap::new(), &of_version(3)));
    }
}
