//! Request bodies: JSON of an exact shape, not too large, not too slow.
//!
//! What can't be read as the shape that is asked for (no JSON, an unknown, missing or repeated member, a value of
//! another type, an id that is none) is 400 `INVALID_JSON`; what can be read but not accepted is 422, which the
//! routes decide. A body of another declared type is 415; one of no declared type is taken for JSON.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::problem::{Code, Problem, Refuses};

/// How long a body may be.
pub(crate) const LENGTH_MAX: usize = 64 * 1024;
/// How long a body may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);
/// How much of an error's text is passed on: it quotes what was sent.
const DETAIL_LENGTH_MAX: usize = 300;

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Json<T> {
    /// What it says.
    pub(crate) value: T,
    /// SHA-256 of what it says, the same however it was written down.
    pub(crate) hash: Vec<u8>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Json<T>, Problem> {
        check_type(request.headers())?;
        let bytes = read(request.into_body()).await?;
        // Where every member is optional, no body says the same as an empty object; elsewhere it is refused either way.
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        let value = parse(&bytes)?;
        let hash = canonical::hash(&serde_json::from_slice(&bytes).map_err(|error| invalid(&error))?);
        Ok(Json { value, hash })
    }
}

impl<T> Refuses for Json<T> {
    fn add_codes(codes: &mut Vec<Code>) {
        codes.extend([
            Code::InvalidJson,
            Code::RequestTimeout,
            Code::PayloadTooLarge,
            Code::UnsupportedMediaType,
        ]);
    }
}

/// The whole body.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE`, `REQUEST_TIMEOUT`, or `INVALID_JSON` where it ends early.
pub(crate) async fn read(body: Body) -> Result<Bytes, Problem> {
    let collected = tokio::time::timeout(ARRIVAL_MAX, Limited::new(body, LENGTH_MAX).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::PayloadTooLarge, format!("a body has at most {LENGTH_MAX} bytes")))
        }
        Ok(Err(_)) => Err(Problem::new(Code::InvalidJson, "the body ended early")),
        Err(_) => {
            Err(Problem::new(Code::RequestTimeout, format!("the body took longer than {ARRIVAL_MAX:?}")))
        }
    }
}

/// What a body says.
///
/// # Errors
/// `INVALID_JSON` where it has another shape.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let Object(value) = serde_json::from_slice(bytes).map_err(|error| invalid(&error))?;
    Ok(value)
}

/// A shape that is written as an object. Without this, an array of the members' values would be read as one, too.
#[derive(Clone, Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Object)
    }
}

fn invalid(error: &serde_json::Error) -> Problem {
    let mut detail = error.to_string();
    if let Some((end, _)) = detail.char_indices().nth(DETAIL_LENGTH_MAX) {
        detail.truncate(end);
        detail.push('…');
    }
    Problem::new(Code::InvalidJson, detail)
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &'static str| Err(Problem::new(Code::UnsupportedMediaType, detail));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return refused("send the body as it is, without Content-Encoding");
    }
    let Some(declared) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = declared.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    let subtype = subtype.to_ascii_lowercase();
    let is_json = subtype == "json" || subtype.ends_with("+json");
    if kind.eq_ignore_ascii_case("application") && is_json {
        Ok(())
    } else {
        refused("send the body with Content-Type: application/json")
    }
}

/// A whole number, written without fraction or exponent. One that is too large for the type is still one:
/// it becomes the nearest that fits, which every range then refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Whole(pub(crate) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = i64;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<i64, E> {
                Ok(number)
            }

            fn visit_u64<E>(self, number: u64) -> Result<i64, E> {
                Ok(i64::try_from(number).unwrap_or(i64::MAX))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<i64, E> {
                // The parser has no other type for whole numbers beyond 64 bits.
                const BEYOND: f64 = 9_223_372_036_854_775_808.0;
                match number {
                    _ if number >= BEYOND => Ok(i64::MAX),
                    _ if number <= -BEYOND => Ok(i64::MIN),
                    _ => Err(E::invalid_type(Unexpected::Float(number), &self)),
                }
            }
        }

        deserializer.deserialize_i64(Number).map(Whole)
    }
}

/// Reads a member that may be left out. Where it stands it has a value: null is none.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Amount {
        amount: Whole,
    }

    async fn receive(content_type: Option<&str>, body: impl Into<Body>) -> Result<i64, Code> {
        let mut request = Request::builder();
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let received = Json::<Amount>::from_request(request.body(body.into()).unwrap(), &()).await;
        received.map(|json| json.value.amount.0).map_err(|problem| problem.code())
    }

    #[tokio::test]
    async fn what_is_not_the_shape_that_is_asked_for_is_invalid_json() {
        for wrong in [
            "",
            "{",
            "null",
            "[]",
            "[1]",
            "{}",
            r#"{"amount": 1.5}"#,
            r#"{"amount": 1.0}"#,
            r#"{"amount": "1"}"#,
            r#"{"amount": null}"#,
            r#"{"amount": 1, "other": 2}"#,
            r#"{"amount": 1, "amount": 2}"#,
            r#"{"amount": 1} trailing"#,
            "{\"amount\": 1, \"\u{0}\": 1}",
        ] {
            assert_eq!(receive(None, wrong).await, Err(Code::InvalidJson), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_number_too_large_for_any_type_is_still_a_number() {
        assert_eq!(receive(None, r#"{"amount": 99999999999999999999999}"#).await, Ok(i64::MAX));
        assert_eq!(receive(None, r#"{"amount": 18446744073709551615}"#).await, Ok(i64::MAX));
        assert_eq!(receive(None, r#"{"amount": -99999999999999999999}"#).await, Ok(i64::MIN));
        assert_eq!(receive(None, r#"{"amount": -1}"#).await, Ok(-1));
    }

    #[tokio::test]
    async fn a_body_of_64_kib_is_read_and_one_of_a_byte_more_is_not() {
        let fill = |length: usize| format!("{}{}", r#"{"amount":7}"#, " ".repeat(length - 12));
        assert_eq!(receive(None, fill(LENGTH_MAX)).await, Ok(7));
        assert_eq!(receive(None, fill(LENGTH_MAX + 1)).await, Err(Code::PayloadTooLarge));
    }

    #[tokio::test]
    async fn a_declared_type_must_be_json() {
        for right in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert_eq!(receive(Some(right), r#"{"amount":7}"#).await, Ok(7), "{right}");
        }
        for wrong in ["text/plain", "application/x-www-form-urlencoded", "json", ""] {
            let received = receive(Some(wrong), r#"{"amount":7}"#).await;
            assert_eq!(received, Err(Code::UnsupportedMediaType), "{wrong}");
        }
    }

    #[test]
    fn an_error_quotes_only_the_beginning_of_what_was_sent() {
        let problem = parse::<Amount>(format!(r#"{{"{}":1}}"#, "é".repeat(10_000)).as_bytes()).unwrap_err();
        let detail = format!("{problem:?}");
        assert!(detail.len() < 1_000, "{detail}");
    }
}
