//! Groups that have stopped since too much of what they read can't be applied.

use std::time::Duration;

use axum::extract::RawPathParams;
use ordermill_pipeline::dead_letters::halts;

use crate::dead_letters::{All, HaltView, ResumedView};
use crate::routes::prelude::*;

/// For how long a group that goes on is not stopped again unless the client says otherwise, in seconds.
const UNCHECKED_DEFAULT_S: i64 = 60;

/// List the groups that have stopped (administrators)
#[utoipa::path(
    get,
    path = "/v1/dead-letters/halts",
    responses(
        (status = 200, description = "The groups that have stopped", body = All<HaltView>),
        Problems<Admin>,
    ),
)]
pub(super) async fn list_halts(
    State(api): State<Api>,
    Admin(_caller): Admin,
) -> Result<JsonAnswer<All<HaltView>>, Problem> {
    Ok(JsonAnswer(All::of(halts::halted(&api.journal.pool).await?)))
}

/// How a group goes on.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// For how many seconds failures become dead letters however many they are, and don't stop the group again.
    #[serde(default = "unchecked_default", deserialize_with = "whole")]
    #[schema(default = 60, minimum = 0, maximum = 86_400)]
    unchecked_seconds: i64,
}

const fn unchecked_default() -> i64 {
    UNCHECKED_DEFAULT_S
}

/// The group in the path.
#[derive(Debug)]
pub(super) struct Group(String);

impl<S: Send + Sync> FromRequestParts<S> for Group {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Group, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| not_halted())?;
        let name = params.iter().next().map(|(_, name)| name.to_owned());
        // PostgreSQL's text can't hold NUL, so no group has it in its name.
        name.filter(|name| !name.contains('\0')).map(Group).ok_or_else(not_halted)
    }
}

fn not_halted() -> Problem {
    Problem::new(Code::HaltNotFound, "no group of this name has stopped, so there is nothing to resume")
}

/// Have a group go on that has stopped (administrators)
#[utoipa::path(
    post,
    path = "/v1/dead-letters/halts/{group}/resume",
    params(("group" = String, Path, description = "The group")),
    request_body = Resume,
    responses(
        (status = 200, description = "It goes on", body = ResumedView),
        Problems<(Admin, Json<Resume>, code::HaltNotFound, code::ValidationFailed)>,
    ),
)]
pub(super) async fn resume_group(
    State(api): State<Api>,
    Admin(caller): Admin,
    Group(group): Group,
    Json { value, .. }: Json<Resume>,
) -> Result<JsonAnswer<ResumedView>, Problem> {
    let seconds = value.unchecked_seconds;
    Checks::all(|checks| checks.number("unchecked_seconds", seconds, &limits::UNCHECKED_S))?;
    let unchecked = Duration::from_secs(seconds.unsigned_abs());
    let (worker, actor) = (api.clone(), caller.name_with_key());
    let work = async move {
        let (pool, now) = (&worker.journal.pool, worker.journal.now());
        Ok(halts::resume(pool, &group, unchecked, &actor, now).await?)
    };
    let resumed = api.uninterrupted(work).await?.ok_or_else(not_halted)?;
    Ok(JsonAnswer(ResumedView::from(resumed)))
}
