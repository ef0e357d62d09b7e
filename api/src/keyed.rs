//! Requests that carry an `Idempotency-Key`: one extractor for all that such a route takes, and the work of the first
//! request of a key, done once.

use axum::extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request as HttpRequest};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use ordermill_domain::capability::Capability;
use ordermill_pipeline::journal::{JournalError, Keys, Projection as _, Statement};
use ordermill_store::Decision;
use ordermill_store::idempotency::{self, FirstAnswer, Keep, Request};
use serde::de::DeserializeOwned;
use sqlx::{Postgres, Transaction};
use utoipa::IntoParams;

use crate::app::Api;
use crate::auth::Caller;
use crate::body::Json;
use crate::idempotency::{Answer, RunningKey, in_use, replay};
use crate::outcome::Outcome;
use crate::path;
use crate::problem::{Code, Problem, Refuses};
use crate::request::RequestContext;

/// The header that a repetition is told by.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// How long a key may be.
const KEY_LENGTH_MAX: usize = 255;

/// A request that may be repeated under its key: who may send it (`Caller` or `Admin`), what its path names (an `Id`, or
/// `()` for nothing), and what its body says. A route that is keyed takes this and nothing of it by another way.
#[derive(Debug)]
pub(crate) struct Keyed<W, P, T> {
    /// Who sent it.
    pub(crate) caller: W,
    /// What its path names.
    pub(crate) path: P,
    /// Which request it is, with its key.
    pub(crate) context: RequestContext,
    /// What tells it from others and a repetition of it from another body: for [`Api::once`].
    pub(crate) request: Request,
    /// What it says; of the right shape, and not checked further.
    pub(crate) body: T,
}

/// Refuses in this order: who may not send it, what its path does not name, a missing key, a body that can't be read.
impl<W, P, T> FromRequest<Api> for Keyed<W, P, T>
where
    W: FromRequestParts<Api, Rejection = Problem> + Copy + Into<Caller> + Send,
    P: FromRequestParts<Api> + Send,
    Problem: From<P::Rejection>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: HttpRequest, api: &Api) -> Result<Keyed<W, P, T>, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = W::from_request_parts(&mut parts, api).await?;
        let path = P::from_request_parts(&mut parts, api).await?;
        let key = key(&parts.headers)?;
        let Ok(context) = RequestContext::from_request_parts(&mut parts, api).await;
        let route = route(&mut parts, api).await?;
        let Json { value, hash } = Json::from_request(HttpRequest::from_parts(parts, body), api).await?;
        let who: Caller = caller.into();
        let request = Request { caller: who.name(), route, key, body_hash: hash };
        Ok(Keyed { caller, path, context, request, body: value })
    }
}

/// The header, as the document shows it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `key` reads")]
pub(crate) struct KeyHeader {
    /// 1 to 255 visible ASCII characters, the same when the request is repeated
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    key: String,
}

impl<W: Refuses, P: Refuses, T> Refuses for Keyed<W, P, T> {
    fn add_codes(codes: &mut Vec<Code>) {
        <(W, P, Json<T>)>::add_codes(codes);
        codes.extend([Code::IdempotencyKeyMissing, Code::IdempotencyKeyInUse, Code::IdempotencyKeyReused]);
    }
}

/// The key that the request carries.
fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (first, second) = (values.next(), values.next());
    first.filter(|_| second.is_none()).and_then(read_key).ok_or_else(|| {
        let detail = "send one header Idempotency-Key of 1 to 255 visible ASCII characters, the same when you \
                      repeat the request";
        Problem::new(Code::IdempotencyKeyMissing, detail)
    })
}

fn read_key(value: &HeaderValue) -> Option<String> {
    let key = value.to_str().ok()?;
    let is_valid =
        (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    is_valid.then(|| key.to_owned())
}

/// The route that the key is for.
async fn route(parts: &mut Parts, api: &Api) -> Result<String, Problem> {
    let pattern = parts.extensions.get::<MatchedPath>().cloned().ok_or_else(Problem::internal)?;
    let params = RawPathParams::from_request_parts(parts, api).await.map_err(|_| Problem::internal())?;
    Ok(name_of_route(&parts.method, pattern.as_str(), &params))
}

/// A method and a path, ids in their one form: an id in capitals is the same thing.
fn name_of_route<'a>(
    method: &Method,
    pattern: &str,
    params: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut path = pattern.to_owned();
    for (name, text) in params {
        let id = path::parse(text).map(|id| id.to_string());
        path = path.replace(&format!("{{{name}}}"), id.as_deref().unwrap_or(text));
    }
    format!("{method} {path}")
}

/// The right to do the work of a key in this process. While it lives, repetitions are told to wait.
pub(crate) struct FirstTurn {
    request: Request,
    _running: RunningKey,
}

impl Api {
    /// Does the work of a request that is the first of its key, to its end also where the client goes away; answers any
    /// other as the first was answered. `work` ends with [`Api::decide_in_turn`] or
    /// [`Api::finish`].
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
        let running = self.running_keys.claim(&request);
        // Asked with a claim or without: whoever holds it may be a mere repetition, too.
        if let Some(answer) = self.answer_before(&request).await? {
            return Ok(answer);
        }
        let turn = FirstTurn { request: request.clone(), _running: running.ok_or_else(in_use)? };
        match self.uninterrupted(work(self.clone(), turn)).await {
            Ok(answer) => Ok(answer),
            // The same request may have been under way in another process. Whoever is refused must look: the refusal may be for
            // what that one has done, as where the last unit was taken away.
            Err(problem) => self.answer_before(&request).await?.ok_or(problem),
        }
    }

    /// The answer that the first request of the key was given, if it was.
    async fn answer_before(&self, request: &Request) -> Result<Option<Answer>, Problem> {
        let kept = idempotency::find(&self.journal.pool, request).await?;
        let answer = kept.map(|kept| replay(kept, request)).transpose()?;
        self.metrics.replays.inc_by(answer.is_some().into());
        Ok(answer)
    }

    /// Has a capability decide about what `keys` say, for a request that is the first of its key, and keeps the answer with
    /// what it decides.
    ///
    /// # Errors
    /// As [`Api::once`].
    pub(crate) async fn decide_once<C: Capability, D: Into<Outcome> + Send + 'static>(
        &self,
        request: Request,
        context: RequestContext,
        keys: Keys,
        mut decide: impl FnMut(&mut C) -> Result<(D, FirstAnswer), Problem> + Send + 'static,
    ) -> Result<Answer, Problem> {
        let origin = context.origin(request.caller.clone());
        let decide = move |state: &mut C| {
            let (decided, answer) = decide(state)?;
            let outcome: Outcome = decided.into();
            Ok(outcome.decision(&origin, answer))
        };
        self.once(request, |api, turn| async move { api.decide_in_turn(turn, &keys, decide).await }).await
    }

    /// Has a capability decide, and keeps the answer with what it decides; where another process was first, nothing is written
    /// and its answer is given.
    ///
    /// # Errors
    /// Those of `decide`, `IDEMPOTENCY_KEY_REUSED`, or where the database fails.
    pub(crate) async fn decide_in_turn<C: Capability>(
        &self,
        turn: FirstTurn,
        keys: &Keys,
        mut decide: impl FnMut(&mut C) -> Result<Decision<FirstAnswer>, Problem>,
    ) -> Result<Answer, Problem> {
        let request = &turn.request;
        let done = ordermill_store::decide(&self.journal, keys, |state: &mut C| {
            let mut decision = decide(state).map_err(NotDone::Refused)?;
            let keep = Keep { request: request.clone(), answer: decision.answer.clone(), at: *state.now() };
            decision.beside.push(Box::new(keep));
            Ok(decision)
        });
        match done.await {
            Ok(first) => Ok(Answer { first, is_replay: false }),
            Err(NotDone::Refused(problem)) => Err(problem),
            Err(NotDone::Failed(error)) => self.undone(request, error).await,
        }
    }

    /// Keeps the answer in the transaction of the work, and commits both; where another process was first, the work is undone
    /// and its answer given.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_REUSED`, or where the database fails.
    pub(crate) async fn finish(
        &self,
        turn: FirstTurn,
        mut transaction: Transaction<'static, Postgres>,
        answer: FirstAnswer,
        at: Timestamp,
    ) -> Result<Answer, Problem> {
        let keep = Keep { request: turn.request.clone(), answer: answer.clone(), at };
        let mut statement = Statement::default();
        keep.add(&mut statement);
        match statement.execute(&mut *transaction).await {
            Ok(_) => {
                transaction.commit().await?;
                Ok(Answer { first: answer, is_replay: false })
            }
            Err(error) => {
                transaction.rollback().await?;
                self.undone(&turn.request, error.into()).await
            }
        }
    }

    /// What is answered where the work was not written: what another process has answered, if that is why.
    async fn undone(&self, request: &Request, error: JournalError) -> Result<Answer, Problem> {
        if !error.is_repeated() {
            return Err(error.into());
        }
        // Where it is gone again, it was 24 hours old in this very moment: the client asks again and is the first.
        self.answer_before(request).await?.ok_or_else(in_use)
    }
}

/// Why the work of a key was not done.
enum NotDone {
    /// It was refused.
    Refused(Problem),
    /// It could not be written.
    Failed(JournalError),
}

impl From<JournalError> for NotDone {
    fn from(error: JournalError) -> NotDone {
        NotDone::Failed(error)
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

    #[test]
    fn there_is_one_key() {
        let mut headers = HeaderMap::new();
        assert_eq!(key(&headers).unwrap_err().code(), Code::IdempotencyKeyMissing);
        headers.append("idempotency-key", HeaderValue::from_static("k"));
        assert_eq!(key(&headers), Ok("k".to_owned()));
        headers.append("idempotency-key", HeaderValue::from_static("k"));
        assert_eq!(key(&headers).unwrap_err().code(), Code::IdempotencyKeyMissing);
    }

    #[test]
    fn the_route_of_a_key_names_what_the_path_names_in_one_form() {
        let id = "0192f0c1-7a3e-7000-8000-0123456789ab";
        let of = |pattern: &str, params: &[(&str, &str)]| {
            name_of_route(&Method::POST, pattern, params.iter().copied())
        };
        assert_eq!(of("/v1/orders", &[]), "POST /v1/orders");
        let cancellation = "/v1/orders/{order_id}/cancellation";
        let expected = format!("POST /v1/orders/{id}/cancellation");
        assert_eq!(of(cancellation, &[("order_id", id)]), expected);
        assert_eq!(of(cancellation, &[("order_id", &id.to_uppercase())]), expected);
    }
}
