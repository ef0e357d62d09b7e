//! What is fuzzed here: any bytes as the cursor of a page, and as a callback of the gateway. Nothing that is shipped has this module: it is there for
//! tests, and behind the feature `fuzzing`, which only `fuzz/` turns on.
//!
//! Each function panics where a promise does not hold. cargo-fuzz calls it with bytes that it makes up, the tests below with those that it has found
//! worth keeping (`fuzz/corpus`).

use std::fmt::Debug;

use axum::http::Request;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::DeserializeOwned;
use sha2::Sha256;

use super::payments::signed;
use super::prelude::*;
use super::{coupons, products};
use crate::paging::{parameters, read_cursor};
use crate::validation::limits;

/// Takes bytes for the cursor of a page: as they stand in a query, and as what a cursor is written of. What is one, of any list, is written so that it
/// reads back as the same; and no query leads to a page that is too large.
pub fn cursor(bytes: &[u8]) {
    for text in texts(bytes) {
        reads_back::<i32>(&text); // of the entries of a balance
        reads_back::<i64>(&text); // of dead letters
        reads_back::<Uuid>(&text); // of orders and replays
        reads_back::<coupons::Place>(&text);
        reads_back::<products::Cursor>(&text);
        asks_for_a_page(&text);
    }
}

/// The text that stands there, and the one that a cursor of this JSON would be.
fn texts(bytes: &[u8]) -> [String; 2] {
    [String::from_utf8_lossy(bytes).into_owned(), BASE64_URL_SAFE_NO_PAD.encode(bytes)]
}

/// Whether it is a cursor of that list.
fn reads_back<C: DeserializeOwned + Serialize + PartialEq + Debug>(text: &str) -> bool {
    let Some(cursor) = read_cursor::<C>(text) else { return false };
    let page = Items::of_rows(vec![(), ()], 1, |_| &cursor, |row| row);
    let next = page.next_cursor.expect("there is a next page");
    assert_eq!(read_cursor::<C>(&next).as_ref(), Some(&cursor), "{next}");
    true
}

fn asks_for_a_page(query: &str) {
    let Ok(request) = Request::builder().uri(format!("/?{query}")).body(()) else { return };
    let (parts, ()) = request.into_parts();
    let Ok(query) = parameters::<PageQuery>(&parts, "limit", "once each") else { return };
    if let Ok(page) = query.page::<i32>(*limits::PAGE.end()) {
        assert!(i64::try_from(page.limit).is_ok_and(|limit| limits::PAGE.contains(&limit)), "{page:?}");
    }
}

/// What callbacks are signed with, also those of the corpus.
const SECRET: &[u8] = b"secret";
/// When they come, in seconds since 1970.
const NOW_S: i64 = 1_700_000_000;

/// Takes bytes for a callback: the header with the signature in the first line, and the body. What the gateway has not signed is refused, and nothing of it
/// read; what it has signed is read.
pub fn callback(bytes: &[u8]) {
    let (header, body) = header_and_body(bytes);
    if refusal(header, body, NOW_S) != Some(Code::InvalidSignature) {
        let header = std::str::from_utf8(header).unwrap_or_default();
        assert!(is_signed(header, body), "{header}");
    }

    let header = format!("t={NOW_S},v1={}", digest(SECRET, &NOW_S.to_string(), body));
    let expected = body_refusal(body);
    for now_s in [NOW_S, NOW_S - 300, NOW_S + 300] {
        assert_eq!(refusal(header.as_bytes(), body, now_s), expected);
    }
    let mut other_body = body.to_vec();
    match other_body.last_mut() {
        Some(last) => *last ^= 1,
        None => other_body.push(b'0'),
    }
    let other_secret = format!("t={NOW_S},v1={}", digest(b"Secret", &NOW_S.to_string(), body));
    for (header, body, now_s) in [
        (&header, &*other_body, NOW_S),
        (&header, body, NOW_S - 301),
        (&header, body, NOW_S + 301),
        (&other_secret, body, NOW_S),
    ] {
        assert_eq!(refusal(header.as_bytes(), body, now_s), Some(Code::InvalidSignature));
    }
}

fn header_and_body(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// How a callback is refused that comes at that time, if it is.
fn refusal(header: &[u8], body: &[u8], now_s: i64) -> Option<Code> {
    let now = Timestamp::from_second(now_s).expect("a time of this century");
    let mut headers = HeaderMap::new();
    // What can be no header can't be sent.
    if let Ok(value) = HeaderValue::from_bytes(header) {
        headers.insert("ordermill-signature", value);
    }
    signed(SECRET, &headers, body, now).err().map(|problem| problem.code())
}

/// How a body is refused that is signed.
fn body_refusal(body: &[u8]) -> Option<Code> {
    crate::body::parse::<super::payments::Callback>(body).err().map(|problem| problem.code())
}

/// Whether one of the header's signatures is that of its time and the body.
fn is_signed(header: &str, body: &[u8]) -> bool {
    let value = |name: &'static str| header.split(',').filter_map(move |part| part.trim().strip_prefix(name));
    let Some(time) = value("t=").next() else { return false };
    let is_recent = time.parse().is_ok_and(|time: i64| time.abs_diff(NOW_S) <= 300);
    let wanted = digest(SECRET, time, body);
    is_recent && value("v1=").any(|digest| digest.eq_ignore_ascii_case(&wanted))
}

fn digest(secret: &[u8], time: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is taken");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What the corpus of a target has. Each file is named before it is tried, so that the last one named is the one that failed.
    fn corpus(target: &str) -> impl Iterator<Item = Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        std::fs::read_dir(directory).unwrap().map(|file| {
            let path = file.unwrap().path();
            println!("{}", path.display());
            std::fs::read(path).unwrap()
        })
    }

    #[test]
    fn a_cursor_of_the_corpus_reads_back_as_written() {
        for bytes in corpus("cursors") {
            cursor(&bytes);
        }
    }

    #[test]
    fn the_corpus_has_a_cursor_of_every_list() {
        let texts: Vec<String> = corpus("cursors").flat_map(|bytes| texts(&bytes)).collect();
        type Reads = fn(&str) -> bool;
        let lists: [(&str, Reads); 5] = [
            ("entries of a balance", reads_back::<i32>),
            ("dead letters", reads_back::<i64>),
            ("orders", reads_back::<Uuid>),
            ("a user's coupons", reads_back::<coupons::Place>),
            ("products", reads_back::<products::Cursor>),
        ];
        for (list, reads) in lists {
            assert!(texts.iter().any(|text| reads(text)), "{list}");
        }
    }

    #[test]
    fn of_the_callbacks_of_the_corpus_those_that_the_gateway_signed_are_read_and_no_other() {
        for bytes in corpus("callbacks") {
            callback(&bytes);
        }
    }

    #[test]
    fn the_corpus_has_callbacks_that_are_read_and_such_as_are_refused() {
        let mut refusals = Vec::new();
        for bytes in corpus("callbacks") {
            let (header, body) = header_and_body(&bytes);
            refusals.push(refusal(header, body, NOW_S));
        }
        for refusal in [None, Some(Code::InvalidSignature), Some(Code::InvalidJson)] {
            assert!(refusals.contains(&refusal), "{refusal:?}");
        }
    }
}
