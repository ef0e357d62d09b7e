//! Editing and discarding dead letters.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ordermill_pipeline::dead_letters::State as LetterState;
use ordermill_pipeline::dead_letters::edits::{self, EditError, Waiting};

use super::find;
use crate::dead_letters::WholeLetterView;
use crate::routes::prelude::*;

/// Another payload, as text or in base64, one of the two.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPayload {
    /// The payload as text.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, example = "{\"order_id\": \"…\"}")]
    payload: Option<String>,
    /// The payload in base64.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false)]
    payload_base64: Option<String>,
}

impl NewPayload {
    fn check(self) -> Result<Vec<u8>, Problem> {
        match (self.payload, self.payload_base64) {
            (Some(payload), None) => Ok(payload.into_bytes()),
            (None, Some(encoded)) => BASE64_STANDARD.decode(encoded).map_err(|_| {
                let detail = "must be base64 (RFC 4648, section 4)";
                Checks::refusal("payload_base64", "MALFORMED", detail)
            }),
            (Some(_), Some(_)) => {
                let detail = "give either payload or payload_base64, not both";
                Err(Checks::refusal("payload_base64", "NOT_TOGETHER", detail))
            }
            (None, None) => {
                let detail = "give the payload as payload, or in base64 as payload_base64";
                Err(Checks::refusal("payload", "MISSING", detail))
            }
        }
    }
}

/// Put another payload into a dead letter, for its next replay (administrators)
///
/// The payload as it came is kept. Any payload is taken; `schema` of the answer says whether it now has the promised shape.
#[utoipa::path(
    put,
    path = "/v1/dead-letters/{dead_letter_id}/payload",
    responses(
        (status = 200, description = "The dead letter", body = WholeLetterView),
        Problems<(
            Admin, Id<path::DeadLetter>, Json<NewPayload>, code::DeadLetterBusy, code::DeadLetterSettled,
            code::ValidationFailed,
        )>,
    ),
)]
pub(super) async fn edit_dead_letter(
    State(api): State<Api>,
    Admin(caller): Admin,
    Id(dead_letter_id, _): Id<path::DeadLetter>,
    Json { value, .. }: Json<NewPayload>,
) -> Result<JsonAnswer<WholeLetterView>, Problem> {
    let payload = value.check()?;
    let (worker, actor) = (api.clone(), caller.name());
    let work = async move {
        let now = worker.journal.now();
        edits::edit(&worker.journal.pool, dead_letter_id, &payload, &actor, now).await.map_err(refusal)
    };
    api.uninterrupted(work).await?;
    find(&api, dead_letter_id).await
}

/// A decision that a dead letter is never applied.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Discard {
    /// Why.
    #[schema(example = "The order was placed again by hand", min_length = 1, max_length = 500)]
    reason: String,
    /// What becomes of the messages that wait behind it: `true`, they are applied in order; `false`, they are discarded, too.
    release_waiting: bool,
}

/// Decide that a dead letter is never applied (administrators)
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{dead_letter_id}/discard",
    responses(
        (status = 200, description = "The dead letter", body = WholeLetterView),
        Problems<(
            Admin, Id<path::DeadLetter>, Json<Discard>, code::DeadLetterBusy, code::DeadLetterSettled,
            code::ValidationFailed,
        )>,
    ),
)]
pub(super) async fn discard_dead_letter(
    State(api): State<Api>,
    Admin(caller): Admin,
    Id(dead_letter_id, _): Id<path::DeadLetter>,
    Json { value, .. }: Json<Discard>,
) -> Result<JsonAnswer<WholeLetterView>, Problem> {
    Checks::all(|checks| checks.text("reason", &value.reason, &limits::REASON_LENGTH))?;
    let waiting = if value.release_waiting { Waiting::Released } else { Waiting::Discarded };
    let (worker, actor) = (api.clone(), caller.name());
    let work = async move {
        let (pool, now) = (&worker.journal.pool, worker.journal.now());
        let done = edits::discard(pool, dead_letter_id, &value.reason, Some(waiting), &actor, now).await;
        done.map_err(refusal)
    };
    api.uninterrupted(work).await?;
    find(&api, dead_letter_id).await
}

/// Why a letter stays as it is.
fn refusal(error: EditError) -> Problem {
    match error {
        EditError::NotFound(_) => path::unknown::<path::DeadLetter>(),
        EditError::State { state: LetterState::Replayed, .. } => Problem::new(
            Code::DeadLetterBusy,
            "a replay has selected it and has not come to it yet; try again when it has",
        ),
        EditError::State { state, .. } => {
            let detail = format!("it is {}; only what is PARKED or WAITING can be changed", state.name());
            Problem::new(Code::DeadLetterSettled, detail)
        }
        EditError::TooLarge(_) => Problem::new(Code::PayloadTooLarge, error.to_string()),
        // Not met here, since a request always says what becomes of them.
        EditError::SomethingWaits { .. } => {
            Problem::new(Code::DeadLetterBusy, "messages wait behind it; say what becomes of them")
        }
        EditError::Database(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn payload(json: &str) -> Result<Vec<u8>, String> {
        let payload: NewPayload =
            crate::body::parse(json.as_bytes()).map_err(|problem| format!("{problem:?}"))?;
        payload.check().map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn a_payload_is_text_or_base64_and_exactly_one_of_them() {
        assert_eq!(payload(r#"{"payload":"{}"}"#), Ok(b"{}".to_vec()));
        assert_eq!(payload(r#"{"payload_base64":"/wA="}"#), Ok(vec![0xff, 0]));
        for (wrong, why) in [
            ("{}", "MISSING"),
            (r#"{"payload":"","payload_base64":""}"#, "NOT_TOGETHER"),
            (r#"{"payload_base64":"_w"}"#, "MALFORMED"),
            (r#"{"payload":null}"#, "InvalidJson"),
            (r#"{"payload":{}}"#, "InvalidJson"),
            (r#"{"payload":"","reason":""}"#, "InvalidJson"),
        ] {
            let problem = payload(wrong).unwrap_err();
            assert!(problem.contains(why), "{wrong}: {problem}");
        }
    }

    #[test]
    fn a_letter_that_can_not_be_changed_says_whether_it_can_later() {
        let code = |state| {
            refusal(EditError::State { dead_letter_id: Uuid::nil(), state, allowed: "" }).code().text()
        };
        assert_eq!(code(LetterState::Replayed), "DEAD_LETTER_BUSY");
        for state in [LetterState::Resolved, LetterState::Discarded] {
            assert_eq!(code(state), "DEAD_LETTER_SETTLED");
        }
    }
}
