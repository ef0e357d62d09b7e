//! A Kafka header in JSON: what is not text there is kept as base64, so that nothing of it is lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

// As tables and answers hold it; one of the two values is there. What is no UTF-8 is no text, nor what has a NUL in it, which
// PostgreSQL can't hold.
/// A header of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MessageHeader)]
pub struct StoredHeader {
    /// Its name.
    #[schema(example = "ce_type")]
    pub name: String,
    /// Its value, where that is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Its value in base64, where it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

impl StoredHeader {
    /// The header of that name with that value.
    #[must_use]
    pub fn new(name: &str, value: &[u8]) -> StoredHeader {
        let name = name.replace('\0', "\u{fffd}");
        match std::str::from_utf8(value) {
            Ok(text) if !text.contains('\0') => {
                StoredHeader { name, value: Some(text.to_owned()), value_base64: None }
            }
            _ => StoredHeader { name, value: None, value_base64: Some(STANDARD.encode(value)) },
        }
    }

    /// The value.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match (&self.value, &self.value_base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(encoded)) => STANDARD.decode(encoded).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_reads_back_to_the_byte() {
        for value in [b"text".as_slice(), b"", b"\xff\xfe", b"a\0b", "후추".as_bytes()] {
            let json = serde_json::to_string(&StoredHeader::new("name", value)).unwrap();
            assert!(!json.contains("\\u0000"), "{json}");
            let back: StoredHeader = serde_json::from_str(&json).unwrap();
            assert_eq!(back.bytes(), value);
        }
    }
}
