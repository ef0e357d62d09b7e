//! One dead letter, in a list or with everything.

use jiff::Timestamp;
use ordermill_pipeline::dead_letters::edits::audit::Audited;
use ordermill_pipeline::dead_letters::letters::{Letter, Mismatch, Place, WholeLetter};
use ordermill_pipeline::stored_header::StoredHeader;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::text_or_base64;
use crate::view::view;

view! {
    /// A message that a group did not apply.
    #[schema(as = DeadLetter)]
    pub struct LetterView from letter: Letter where (key, key_base64) = text_or_base64(letter.key); {
        /// The letter.
        pub dead_letter_id: Uuid,
        /// The topic that the message came from, without prefix.
        #[schema(example = "orders")]
        pub topic: String = letter.place.topic,
        /// Its partition there.
        pub partition: i16 = letter.place.partition,
        /// Its offset there.
        pub offset: i64 = letter.place.offset,
        /// Its key; null where it has none, or one that is not UTF-8.
        pub key?: String = key,
        /// Its key in base64, where it is not UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub key_base64: Option<String> = key_base64,
        /// The consumer group that did not apply it.
        #[schema(example = "stock")]
        pub group: String,
        /// The event's type as its headers say it.
        #[schema(example = "order.placed")]
        pub event_type?: String,
        /// The order that it belongs to, where its headers name one.
        pub correlation_id?: Uuid,
        /// `FOREIGN`, `UNKNOWN_TYPE`, `UNDECODABLE`, `SCHEMA`, `KEY_MISMATCH`, `RULE` or `BUG`; null on what only waits.
        #[schema(example = "RULE")]
        pub code?: String,
        /// What went wrong, for people.
        pub error?: String,
        /// How often it was tried.
        pub attempts: i32,
        /// When it failed first.
        pub first_failed_at?: Timestamp,
        /// When it failed last.
        pub last_failed_at?: Timestamp,
        /// `PARKED`, `WAITING`, `REPLAYED`, `RESOLVED` or `DISCARDED`.
        #[schema(value_type = String, example = "PARKED")]
        pub state: &'static str = letter.state.name(),
        /// When it was applied.
        pub resolved_at?: Timestamp,
        /// How many messages of its key wait behind it.
        pub waiting_behind: i64,
        /// The letter that it waits behind itself.
        pub waits_for?: Uuid,
        /// Whether somebody has edited the payload.
        pub edited: bool,
    }
}

view! {
    /// A message that a group did not apply, with everything.
    #[schema(as = WholeDeadLetter)]
    pub struct WholeLetterView from whole: WholeLetter
    where
        (payload, payload_base64) = text_or_base64(whole.payload);
        (original_payload, original_payload_base64) = text_or_base64(whole.original_payload);
    {
        /// The letter.
        #[serde(flatten)]
        pub letter: LetterView = whole.letter.into(),
        /// The message's headers, in order.
        pub headers: Vec<StoredHeader>,
        /// The payload, as edited; null where there is none, or it is not UTF-8.
        pub payload?: String = payload,
        /// The payload in base64, where it is not UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub payload_base64: Option<String> = payload_base64,
        /// The payload as it came, where somebody has edited it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub original_payload: Option<String> = original_payload,
        /// The same in base64, where it is not UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub original_payload_base64: Option<String> = original_payload_base64,
        /// Whether the payload has the shape that the headers promise.
        pub schema: SchemaView = whole.mismatch.into(),
        /// What people have done to it, oldest first.
        pub audit: Vec<Audited>,
    }
}

/// Whether a payload has the shape that its headers promise.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SchemaCheck)]
pub struct SchemaView {
    /// It has. Whether it can be applied only a replay tells.
    pub ok: bool,
    /// What is wrong with it, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "SCHEMA")]
    pub code: Option<&'static str>,
    /// What is wrong with it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The failing member, like `lines[0].quantity`; `.` is the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "lines[0].quantity")]
    pub place: Option<String>,
    /// The line on which it stops being JSON, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The byte of that line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl From<Option<Mismatch>> for SchemaView {
    fn from(mismatch: Option<Mismatch>) -> SchemaView {
        let mut view =
            SchemaView { ok: true, code: None, error: None, place: None, line: None, column: None };
        let Some(Mismatch { code, error, place }) = mismatch else { return view };
        (view.ok, view.code, view.error) = (false, Some(code.name()), Some(error));
        match place {
            Some(Place::Member(member)) => view.place = Some(member),
            Some(Place::Text { line, column }) => (view.line, view.column) = (Some(line), Some(column)),
            None => {}
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use ordermill_pipeline::dead_letters::Code;
    use serde_json::{Value, json};

    use super::*;

    fn shown(mismatch: Option<Mismatch>) -> Value {
        serde_json::to_value(SchemaView::from(mismatch)).unwrap()
    }

    #[test]
    fn a_schema_check_says_what_is_wrong_and_where() {
        assert_eq!(shown(None), json!({"ok": true}));
        let error = "payload is not a order.placed: at total: missing".to_owned();
        let place = Some(Place::Member("total".to_owned()));
        let expected = json!({"ok": false, "code": "SCHEMA", "error": error, "place": "total"});
        assert_eq!(shown(Some(Mismatch { code: Code::Schema, error, place })), expected);
        let place = Some(Place::Text { line: 2, column: 5 });
        let mismatch = Mismatch { code: Code::Undecodable, error: "eof".to_owned(), place };
        let expected = json!({"ok": false, "code": "UNDECODABLE", "error": "eof", "line": 2, "column": 5});
        assert_eq!(shown(Some(mismatch)), expected);
    }
}
