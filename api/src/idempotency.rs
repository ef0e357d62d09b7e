//! Requests that may be repeated: the first answer is given again.
//!
//! The answer is kept in the transaction that does the work, so there is never one without the other. While a
//! first request runs, this process knows its key; between processes the database's unique key decides.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use ordermill_store::idempotency::{self, FirstAnswer, Kept, Request};
use serde::Serialize;
use sqlx::{Postgres, Transaction};

use crate::app::Api;
use crate::problem::{Code, Problem};

/// The header that a repetition is told by.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that tells a repetition's answer from a first one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long a key may be.
const KEY_LENGTH_MAX: usize = 255;

/// The key that the request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<IdempotencyKey, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let (first, second) = (values.next(), values.next());
        let key = first.filter(|_| second.is_none()).and_then(read_key);
        key.map(IdempotencyKey).ok_or_else(|| {
            let detail = "send one header Idempotency-Key of 1 to 255 visible ASCII characters, the same when you \
                          repeat the request";
            Problem::new(Code::IdempotencyKeyMissing, detail)
        })
    }
}

fn read_key(value: &HeaderValue) -> Option<String> {
    let key = value.to_str().ok()?;
    let is_valid =
        (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    is_valid.then(|| key.to_owned())
}

/// The keys whose first requests run in this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunningKeys(Arc<Mutex<HashSet<String>>>);

/// A key that is running until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningKey {
    name: String,
    keys: RunningKeys,
}

impl RunningKeys {
    /// Claims a key; `None` where a request of it runs already.
    pub(crate) fn claim(&self, request: &Request) -> Option<RunningKey> {
        // Neither callers, routes nor keys contain a space but the one after a route's method.
        let name = format!("{} {} {}", request.caller, request.route, request.key);
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(name.clone()).then(|| RunningKey { name, keys: self.clone() })
    }
}

impl Drop for RunningKey {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// What a key that was used before means for a request.
///
/// # Errors
/// `IDEMPOTENCY_KEY_REUSED` where it was used for another body.
pub(crate) fn replay(kept: Kept, request: &Request) -> Result<Answer, Problem> {
    if kept.body_hash == request.body_hash {
        Ok(Answer { first: kept.answer, is_replay: true })
    } else {
        let detail = "this Idempotency-Key was used for another body; take a new key for a new request";
        Err(Problem::new(Code::IdempotencyKeyReused, detail))
    }
}

/// The refusal of a request whose key is running.
pub(crate) fn in_use() -> Problem {
    let detail = "a request with this Idempotency-Key still runs; repeat this one when it has ended";
    Problem::new(Code::IdempotencyKeyInUse, detail)
}

/// An answer to a request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The answer to the first request of the key.
    pub(crate) first: FirstAnswer,
    /// This request is not the first.
    pub(crate) is_replay: bool,
}

impl Answer {
    pub(crate) fn into_response(self) -> Response {
        let status = u16::try_from(self.first.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let mut response = Response::new(Body::from(self.first.body));
        *response.status_mut() = status.unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(location) = self.first.location.and_then(|location| HeaderValue::try_from(location).ok())
        {
            headers.insert(header::LOCATION, location);
        }
        if self.is_replay {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The answer to the first request of a key.
///
/// # Errors
/// None in practice: views are plain data with text keys.
pub(crate) fn first_answer(
    status: i16,
    location: Option<String>,
    view: &impl Serialize,
) -> Result<FirstAnswer, Problem> {
    Ok(FirstAnswer { status, location, body: serde_json::to_string(view)? })
}

/// What is to be done about a request with a key.
enum Turn {
    /// The work.
    First(FirstTurn),
    /// Nothing: it has been answered before.
    Replay(Answer),
}

/// The right to do the work of a key in this process. While it lives, repetitions are told to wait.
pub(crate) struct FirstTurn {
    request: Request,
    _running: RunningKey,
}

impl Api {
    /// Does the work of a request that is the first of its key, to its end also where the client goes away; answers any
    /// other as the first was answered. `work` ends with [`Api::finish`].
    ///
    /// # Errors
    /// Those of `work`, `IDEMPOTENCY_KEY_IN_USE`, `IDEMPOTENCY_KEY_REUSED`, or where the database fails.
    pub(crate) async fn once<W>(
        &self,
        request: Request,
        work: impl FnOnce(Api, FirstTurn) -> W,
    ) -> Result<Answer, Problem>
    where
        W: Future<Output = Result<Answer, Problem>> + Send + 'static,
    {
        match self.turn(request).await? {
            Turn::Replay(answer) => Ok(answer),
            Turn::First(turn) => {
                let request = turn.request.clone();
                match self.uninterrupted(work(self.clone(), turn)).await {
                    Ok(answer) => Ok(answer),
                    Err(problem) => self.first_of_another_process(&request).await.unwrap_or(Err(problem)),
                }
            }
        }
    }

    /// The answer of another process to the same request, which was under way there when it was begun here. Whoever is
    /// refused must look: the refusal may be for what that one has done, as where the last unit was taken away.
    async fn first_of_another_process(&self, request: &Request) -> Option<Result<Answer, Problem>> {
        let kept = idempotency::find(&self.journal.pool, request).await.ok()??;
        self.metrics.replays.inc();
        Some(replay(kept, request))
    }

    /// Finds out whether the request is the first of its key.
    async fn turn(&self, request: Request) -> Result<Turn, Problem> {
        let running = self.running_keys.claim(&request);
        // Asked with a claim or without: whoever holds it may be a mere repetition, too.
        let kept = idempotency::find(&self.journal.pool, &request).await?;
        match (kept, running) {
            (Some(kept), _) => {
                let answer = replay(kept, &request)?;
                self.metrics.replays.inc();
                Ok(Turn::Replay(answer))
            }
            (None, Some(running)) => Ok(Turn::First(FirstTurn { request, _running: running })),
            (None, None) => Err(in_use()),
        }
    }

    /// Keeps the answer with the work and commits both; where another process was first, the work is undone and
    /// its answer given.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_REUSED`, or where the database fails.
    pub(crate) async fn finish(
        &self,
        turn: FirstTurn,
        mut transaction: Transaction<'static, Postgres>,
        answer: FirstAnswer,
        now: Timestamp,
    ) -> Result<Answer, Problem> {
        let is_first = idempotency::keep(&mut transaction, &turn.request, &answer, now).await?;
        if is_first {
            transaction.commit().await?;
            self.journal.wake.wake();
            return Ok(Answer { first: answer, is_replay: false });
        }
        transaction.rollback().await?;
        let kept = idempotency::find(&self.journal.pool, &turn.request).await?;
        // Where it is gone again, it was 24 hours old in this very moment: the client asks again and is the first.
        let answer = replay(kept.ok_or_else(in_use)?, &turn.request)?;
        self.metrics.replays.inc();
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &str) -> Request {
        Request {
            caller: "admin".to_owned(),
            route: "POST /v1/products".to_owned(),
            key: key.to_owned(),
            body_hash: vec![1],
        }
    }

    fn kept() -> Kept {
        let answer =
            FirstAnswer { status: 201, location: Some("/v1/products/1".to_owned()), body: "{}".to_owned() };
        Kept { body_hash: vec![1], answer }
    }

    #[test]
    fn a_key_has_1_to_255_visible_ascii_characters() {
        let key = |text: &str| read_key(&HeaderValue::from_str(text).unwrap());
        assert_eq!(key("a~!\"").as_deref(), Some("a~!\""));
        assert!(key(&"k".repeat(255)).is_some());
        for wrong in ["", "a b", "a\tb", "é", &"k".repeat(256)] {
            assert_eq!(key(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_key_runs_once_at_a_time_and_can_run_again_afterwards() {
        let keys = RunningKeys::default();
        let running = keys.claim(&request("k"));
        assert!(running.is_some());
        assert!(keys.claim(&request("k")).is_none());
        assert!(keys.claim(&request("other")).is_some());
        drop(running);
        assert!(keys.claim(&request("k")).is_some());
    }

    #[test]
    fn the_same_body_gets_the_first_answer_again_and_another_is_refused() {
        let response = replay(kept(), &request("k")).unwrap().into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()[header::LOCATION], "/v1/products/1");
        assert_eq!(response.headers()["idempotency-replayed"], "true");
        let other = Request { body_hash: vec![2], ..request("k") };
        assert_eq!(replay(kept(), &other).unwrap_err().code(), Code::IdempotencyKeyReused);
    }

    #[test]
    fn a_first_answer_does_not_claim_to_be_a_replay() {
        let response = Answer { first: kept().answer, is_replay: false }.into_response();
        assert!(!response.headers().contains_key("idempotency-replayed"));
    }
}
