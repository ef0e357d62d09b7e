//! Why a payload is not what its headers promise, and where.

use ordermill_schemas::{DecodeError, Event};

use super::super::Code;
use crate::record::Record;

/// Why a payload is not what its headers promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// For programs.
    pub code: Code,
    /// For operators; it names the failing place, too.
    pub error: String,
    /// The failing place, where it is one place.
    pub place: Option<Place>,
}

/// A place in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A member of the JSON, like `lines[0].quantity`; `.` is the whole.
    Member(String),
    /// Where the text stops being JSON, both from 1.
    Text {
        /// The line.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
}

impl Mismatch {
    /// What is wrong with a record; nothing where it can be applied as far as its shape goes.
    pub(super) fn of(record: &Record) -> Option<Mismatch> {
        let (code, error) = record.receive().err()?;
        let place = match code {
            Code::Undecodable | Code::Schema => place_of(record),
            _ => None,
        };
        Some(Mismatch { code, error, place })
    }
}

/// Decodes the payload once more for what its error says besides its text.
fn place_of(record: &Record) -> Option<Place> {
    let payload = record.payload.as_deref().unwrap_or_default();
    match Event::decode(record.event_type()?, record.version()?, payload).err()? {
        DecodeError::NotJson { source, .. } => {
            Some(Place::Text { line: source.line(), column: source.column() })
        }
        DecodeError::Payload { place, .. } => Some(Place::Member(place)),
        DecodeError::UnknownType { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use ordermill_schemas::headers;
    use uuid::Uuid;

    use super::*;
    use crate::log::RecordPlace;
    use crate::stored_header::StoredHeader;

    const USER: &str = "0192f0c1-7a3e-7000-8000-000000000001";

    fn record(payload: &str) -> Record {
        let all = [
            (headers::LABEL, "1-7"),
            (headers::ID, USER),
            (headers::TIME, "2026-01-01T00:00:00Z"),
            (headers::TYPE, "balance.opened"),
            (headers::DATA_SCHEMA, "urn:ordermill:schema:balance.opened:1"),
        ]
        .map(|(name, value)| StoredHeader::new(name, value.as_bytes()));
        let place = RecordPlace { topic: "balances".to_owned(), partition: 0, offset: 0 };
        Record::stored(place, Some(USER.into()), &all, Some(payload.into()))
    }

    #[test]
    fn a_payload_as_promised_has_no_mismatch() {
        assert_eq!(Mismatch::of(&record(&format!(r#"{{"user_id":"{USER}"}}"#))), None);
    }

    #[test]
    fn what_is_no_json_fails_at_a_line_and_a_column() {
        let mismatch = Mismatch::of(&record("{\n  \"user_id\": oops}")).unwrap();
        assert_eq!(mismatch.code, Code::Undecodable);
        assert_eq!(mismatch.place, Some(Place::Text { line: 2, column: 14 }));
    }

    #[test]
    fn what_has_another_shape_fails_at_a_member() {
        let mismatch = Mismatch::of(&record(r#"{"user_id":"Kim"}"#)).unwrap();
        assert_eq!(
            (mismatch.code, mismatch.place),
            (Code::Schema, Some(Place::Member("user_id".to_owned())))
        );
        assert!(mismatch.error.contains("at user_id"), "{}", mismatch.error);
    }

    #[test]
    fn a_wrong_key_is_no_place_in_the_payload() {
        let other = Uuid::nil();
        let mismatch = Mismatch::of(&record(&format!(r#"{{"user_id":"{other}"}}"#))).unwrap();
        assert_eq!((mismatch.code, mismatch.place), (Code::KeyMismatch, None));
    }
}
