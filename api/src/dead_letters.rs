//! How dead letters are shown, by the API and by `ordermill dlq --json` alike.

mod letter;
mod replay;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use ordermill_pipeline::dead_letters::letters::Count;
use serde::Serialize;
use utoipa::ToSchema;

use crate::view::view;

pub use letter::{LetterView, SchemaView, WholeLetterView};
pub use replay::{ItemView, ReplayView, RequestedView, WholeReplayView};

/// A list that has no pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct All<T> {
    /// The items.
    pub items: Vec<T>,
}

impl<T> All<T> {
    /// Shows all of them.
    pub fn of<R: Into<T>>(rows: impl IntoIterator<Item = R>) -> All<T> {
        All { items: rows.into_iter().map(R::into).collect() }
    }
}

view! {
    /// Dead letters of one cause.
    #[schema(as = DeadLetterGroup)]
    pub struct GroupView from count: Count where
        states = count.states.into_iter().map(|(state, count)| (state.name(), count)).collect();
    {
        /// The topic that the messages came from, without prefix.
        #[schema(example = "orders")]
        pub topic: String,
        /// The consumer group that did not apply them.
        #[schema(example = "stock")]
        pub group: String,
        /// Why they failed; null for messages that were never tried, since they wait or waited behind one that failed.
        #[schema(example = "RULE")]
        pub code?: String,
        /// How many there are.
        #[schema(example = 3)]
        pub count: i64,
        /// How many of them are in which state.
        pub states: BTreeMap<&'static str, i64> = states,
        /// When the first failed first.
        pub first_failed_at?: Timestamp,
        /// When the last failed last.
        pub last_failed_at?: Timestamp,
        /// The error of the newest.
        pub error?: String,
    }
}

/// Bytes as JSON holds them: as text, or in base64 where they are not UTF-8.
fn text_or_base64(bytes: Option<Vec<u8>>) -> (Option<String>, Option<String>) {
    match bytes.map(String::from_utf8) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(error)) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf_8_is_shown_in_base64() {
        assert_eq!(text_or_base64(Some(b"tea".to_vec())), (Some("tea".to_owned()), None));
        assert_eq!(text_or_base64(Some(vec![0xff, 0x00])), (None, Some("/wA=".to_owned())));
        assert_eq!(text_or_base64(None), (None, None));
    }
}
