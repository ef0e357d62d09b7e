//! Dead letters: looking at them. What is done to them is in the modules below.

mod changes;
mod filter;
mod halts;
mod replays;

use ordermill_pipeline::dead_letters::letters::{self, Letter};
use ordermill_schemas::Event;

use crate::dead_letters::{All, GroupView, LetterView, WholeLetterView};

use crate::routes::prelude::*;
use filter::LetterFilter;

/// How many letters a page has unless the client says otherwise.
const LETTERS_DEFAULT: i64 = 20;

/// The routes of dead letters.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_dead_letters))
        .routes(routes!(count_dead_letters))
        .routes(routes!(get_dead_letter))
        .routes(routes!(changes::edit_dead_letter))
        .routes(routes!(changes::discard_dead_letter))
        .routes(routes!(replays::list_replays, replays::replay_dead_letters))
        .routes(routes!(replays::get_replay))
        .routes(routes!(halts::list_halts))
        .routes(routes!(halts::resume_group))
}

/// List dead letters, the newest first (administrators)
///
/// What only waits behind a letter has never failed, so it has no code and no time of a failure: it is not in a list
/// that asks for those.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    params(LetterFilter, PageQuery),
    responses(
        (status = 200, description = "A page of dead letters", body = Items<LetterView>),
        Problems<(Admin, code::ValidationFailed)>,
    ),
)]
async fn list_dead_letters(
    State(api): State<Api>,
    Admin(_caller): Admin,
    filter: LetterFilter,
    query: PageQuery,
) -> Result<JsonAnswer<Items<LetterView>>, Problem> {
    let prefix = &api.config.kafka.prefix;
    let (filter, page) =
        Checks::all(|checks| (filter.check("", prefix, checks), query.check(LETTERS_DEFAULT, checks)))?;
    let rows = letters::list(&api.journal.pool, &filter, page.after, page.rows()).await?;
    Ok(JsonAnswer(Items::of_rows(rows, page.limit, |letter: &Letter| letter.ordinal, LetterView::from)))
}

/// Count dead letters by topic, group and code (administrators)
#[utoipa::path(
    get,
    path = "/v1/dead-letters/groups",
    params(LetterFilter),
    responses(
        (status = 200, description = "The counts", body = All<GroupView>),
        Problems<(Admin, code::ValidationFailed)>,
    ),
)]
async fn count_dead_letters(
    State(api): State<Api>,
    Admin(_caller): Admin,
    filter: LetterFilter,
) -> Result<JsonAnswer<All<GroupView>>, Problem> {
    let filter = Checks::all(|checks| filter.check("", &api.config.kafka.prefix, checks))?;
    Ok(JsonAnswer(All::of(letters::counts(&api.journal.pool, &filter).await?)))
}

/// Show a dead letter with headers, payload and what was done to it (administrators)
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{dead_letter_id}",
    responses(
        (status = 200, description = "The dead letter", body = WholeLetterView),
        Problems<(Admin, Id<path::DeadLetter>)>,
    ),
)]
async fn get_dead_letter(
    State(api): State<Api>,
    Admin(_caller): Admin,
    Id(dead_letter_id, _): Id<path::DeadLetter>,
) -> Result<JsonAnswer<WholeLetterView>, Problem> {
    find(&api, dead_letter_id).await
}

/// The letter with everything.
async fn find(api: &Api, dead_letter_id: Uuid) -> Result<JsonAnswer<WholeLetterView>, Problem> {
    let letter = letters::get::<Event>(&api.journal.pool, dead_letter_id).await?;
    let letter = letter.ok_or_else(path::unknown::<path::DeadLetter>)?;
    Ok(JsonAnswer(WholeLetterView::from(letter)))
}
