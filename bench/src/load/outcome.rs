//! Whether an answer is what it should be.

use serde_json::Value;

use crate::http::Answer;

/// Why an order is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: String,
    /// There was an answer, so the connection can be used on.
    pub(super) answered: bool,
    /// It was accepted all the same.
    pub(super) accepted: bool,
}

impl Failure {
    pub(super) fn unanswered(kind: String) -> Failure {
        Failure { kind, answered: false, accepted: false }
    }
}

/// Whether an answer is what it should be: 202, and CONFIRMED where it was held for that.
pub(super) fn judge(answer: &Answer<'_>, held: bool) -> Result<(), Failure> {
    if answer.status == 202 && !held {
        return Ok(());
    }
    let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
    let kind = match (answer.status, body["status"].as_str()) {
        (202, Some("CONFIRMED")) => return Ok(()),
        (202, Some(status)) => format!("{status} after waiting"),
        (202, None) => "202 without an order".to_owned(),
        (status, _) => {
            format!("{status} {}", body["code"].as_str().unwrap_or_default()).trim_end().to_owned()
        }
    };
    Err(Failure { kind, answered: true, accepted: answer.status == 202 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str, held: bool) -> Result<(), (String, bool)> {
        judge(&Answer { status, body: body.as_bytes() }, held)
            .map_err(|failure| (failure.kind, failure.accepted))
    }

    #[test]
    fn only_202_is_accepted_and_a_problem_is_known_by_its_code() {
        assert_eq!(judged(202, "", false), Ok(()));
        assert_eq!(judged(200, "{}", false), Err(("200".to_owned(), false)));
        let problem = r#"{"code":"OVERLOADED","status":503}"#;
        assert_eq!(judged(503, problem, true), Err(("503 OVERLOADED".to_owned(), false)));
    }

    #[test]
    fn an_order_that_was_held_must_be_confirmed() {
        assert_eq!(judged(202, r#"{"status":"CONFIRMED","total":1}"#, true), Ok(()));
        let rejected = judged(202, r#"{"status":"REJECTED"}"#, true);
        assert_eq!(rejected, Err(("REJECTED after waiting".to_owned(), true)));
        assert!(judged(202, r#"{"status":"PENDING"}"#, true).is_err());
        assert_eq!(judged(202, r#"{"status":"PENDING"}"#, false), Ok(()));
    }
}
