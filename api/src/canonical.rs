//! When two bodies say the same: their JSON is equal once parsed.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// SHA-256 of what `value` says: white space, escapes and the order of members don't count.
pub(crate) fn hash(value: &Value) -> Vec<u8> {
    let mut hasher = Sha256::new();
    feed(&mut hasher, value);
    hasher.finalize().to_vec()
}

/// Every value is written with its kind and its length in front, so that no two write the same bytes.
fn feed(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(false) => hasher.update(b"f"),
        Value::Bool(true) => hasher.update(b"t"),
        Value::Number(number) => feed_text(hasher, b"#", &number.to_string()),
        Value::String(text) => feed_text(hasher, b"\"", text),
        Value::Array(items) => {
            feed_length(hasher, b"[", items.len());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::Object(members) => {
            feed_length(hasher, b"{", members.len());
            // Sorted here: whether the map is depends on a feature that any crate can switch.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in members {
                feed_text(hasher, b"\"", name);
                feed(hasher, value);
            }
        }
    }
}

fn feed_text(hasher: &mut Sha256, kind: &[u8], text: &str) {
    feed_length(hasher, kind, text.len());
    hasher.update(text.as_bytes());
}

fn feed_length(hasher: &mut Sha256, kind: &[u8], length: usize) {
    hasher.update(kind);
    hasher.update(length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(json: &str) -> Vec<u8> {
        hash(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn how_it_is_written_down_does_not_count() {
        let plain = hash_of(r#"{"a":1,"b":[true,null,"é"]}"#);
        assert_eq!(plain, hash_of("{ \"b\" : [ true , null , \"\\u00e9\" ] ,\n \"a\" : 1 }"));
    }

    #[test]
    fn what_it_says_counts() {
        let bodies = [
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1]}"#,
            r#"{"a":[1,1]}"#,
            r#"{"a":[[1],1]}"#,
            r#"{"a":[1,[1]]}"#,
            r#"{"a":null}"#,
            r#"{"a":false}"#,
            r#"{"a":""}"#,
            r#"{"a":{}}"#,
            r#"{"a":[]}"#,
            r#"{"ab":""}"#,
            r#"{"a":"b"}"#,
            "{}",
        ];
        let hashes: std::collections::HashSet<_> = bodies.iter().map(|body| hash_of(body)).collect();
        assert_eq!(hashes.len(), bodies.len());
    }
}
