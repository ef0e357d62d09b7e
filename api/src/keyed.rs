//! Requests that carry an `Idempotency-Key`: reading the key, and doing the work of its first request once.

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;
use jiff::Timestamp;
use ordermill_store::idempotency::{self, FirstAnswer, Request};
use sqlx::{Postgres, Transaction};

use crate::app::Api;
use crate::idempotency::{Answer, RunningKey, in_use, replay};
use crate::problem::{Code, Problem};

/// The header that a repetition is told by.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
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

    #[test]
    fn a_key_has_1_to_255_visible_ascii_characters() {
        let key = |text: &str| read_key(&HeaderValue::from_str(text).unwrap());
        assert_eq!(key("a~!\"").as_deref(), Some("a~!\""));
        assert!(key(&"k".repeat(255)).is_some());
        for wrong in ["", "a b", "a\tb", "é", &"k".repeat(256)] {
            assert_eq!(key(wrong), None, "{wrong:?}");
        }
    }
}
