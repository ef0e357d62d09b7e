//! Groups that have stopped since too much of what they read can't be applied.

use std::time::Duration;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use ordermill_pipeline::dead_letters::halts::{self, Halted, Resumed};

use crate::dead_letters::All;
use crate::routes::prelude::*;

/// For how long a group that goes on is not stopped again unless the client says otherwise, in seconds.
const UNCHECKED_DEFAULT_S: Whole = Whole(60);

/// List the groups that have stopped (administrators)
#[utoipa::path(
    get,
    path = "/v1/dead-letters/halts",
    responses(
        (status = 200, description = "The groups that have stopped", body = All<Halted>),
        Problems<Admin>,
    ),
)]
pub(super) async fn list_halts(
    State(api): State<Api>,
    Admin(_caller): Admin,
) -> Result<JsonAnswer<All<Halted>>, Problem> {
    Ok(JsonAnswer(All::of(halts::halted(&api.journal.pool).await?)))
}

/// How a group goes on.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// For how many seconds failures become dead letters however many they are, and don't stop the group again.
    #[serde(default = "unchecked_default")]
    #[schema(value_type = i64, default = 60, minimum = 0, maximum = 86_400)]
    unchecked_seconds: Whole,
}

const fn unchecked_default() -> Whole {
    UNCHECKED_DEFAULT_S
}

fn not_halted() -> Problem {
    Problem::new(Code::HaltNotFound, "no group of this name has stopped, so there is nothing to resume")
}

/// Have a group go on that has stopped (administrators)
#[utoipa::path(
    post,
    path = "/v1/dead-letters/halts/{group}/resume",
    params(("group" = String, Path, description = "The group")),
    responses(
        (status = 200, description = "It goes on", body = Resumed),
        Problems<(Admin, Json<Resume>, code::HaltNotFound, code::ValidationFailed)>,
    ),
)]
pub(super) async fn resume_group(
    State(api): State<Api>,
    Admin(caller): Admin,
    group: Result<Path<String>, PathRejection>,
    Json { value, .. }: Json<Resume>,
) -> Result<JsonAnswer<Resumed>, Problem> {
    // PostgreSQL's text can't hold NUL, so no group has it in its name.
    let named = group.ok().filter(|Path(group)| !group.contains('\0'));
    let Path(group) = named.ok_or_else(not_halted)?;
    let Whole(seconds) = value.unchecked_seconds;
    Checks::all(|checks| checks.number("unchecked_seconds", seconds, &limits::UNCHECKED_S))?;
    let unchecked = Duration::from_secs(seconds.unsigned_abs());
    let (worker, actor) = (api.clone(), caller.name());
    let work = async move {
        let (pool, now) = (&worker.journal.pool, worker.journal.now());
        Ok(halts::resume(pool, &group, unchecked, &actor, now).await?)
    };
    let resumed = api.uninterrupted(work).await?.ok_or_else(not_halted)?;
    Ok(JsonAnswer(resumed))
}
