//! Replays of dead letters: asked for here, worked off by the workers of the groups that failed.

use std::collections::HashSet;

use ordermill_pipeline::database;
use ordermill_pipeline::dead_letters::State as LetterState;
use ordermill_pipeline::dead_letters::replays::{self, Options, Replay, ReplayError, Selection};

use super::filter::LetterFilter;
use crate::dead_letters::{ReplayView, RequestedView, WholeReplayView};
use crate::routes::prelude::*;

/// How many replays a page has unless the client says otherwise.
const REPLAYS_DEFAULT: i64 = 20;

/// A replay to be asked for: of `ids` or of what `filter` means, one of the two.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReplay {
    /// These letters, each once. One that is resolved is answered by `ALREADY_APPLIED`; one that was discarded is refused.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<Uuid>, required = false, min_items = 1, max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// Those that the filter means; where it names no state, those that are `PARKED`. What waits behind a letter is applied
    /// after it without being selected. At most 100,000.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = LetterFilter, required = false)]
    filter: Option<Object<LetterFilter>>,
    /// Each letter is decided on and nothing is written: the verdicts say what would happen. What only the database would
    /// refuse is not foreseen.
    #[serde(default)]
    #[schema(default = false)]
    dry_run: bool,
    /// At most this many letters a second, whichever workers take them; as fast as they can if left out.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = i64, required = false, minimum = 1, maximum = 100_000, example = 50)]
    rate_per_second: Option<Whole>,
}

impl NewReplay {
    fn check(self, prefix: &str) -> Result<(Selection, Options), Problem> {
        let selection = Checks::all(|checks| {
            if let Some(Whole(rate)) = self.rate_per_second {
                checks.number("rate_per_second", rate, &limits::REPLAY_RATE);
            }
            match (self.ids, self.filter) {
                (Some(ids), None) => {
                    if !limits::DEAD_LETTER_IDS.contains(&ids.len()) {
                        let (least, most) = (limits::DEAD_LETTER_IDS.start(), limits::DEAD_LETTER_IDS.end());
                        let detail = format!("must have {least} to {most} ids; take a filter for more");
                        checks.refuse("ids", "LENGTH_OUT_OF_RANGE", detail);
                    }
                    Selection::Ids(ids)
                }
                (None, Some(Object(filter))) => {
                    let filter = filter.check("filter.", prefix, checks);
                    if filter.state == Some(LetterState::Discarded) {
                        let detail = "what was discarded is not replayed; ask for another state or for none";
                        checks.refuse("filter.state", "OUT_OF_RANGE", detail);
                    }
                    Selection::Filter(filter)
                }
                (Some(_), Some(_)) => {
                    checks.refuse("filter", "NOT_TOGETHER", "give either ids or a filter, not both");
                    Selection::Ids(Vec::new())
                }
                (None, None) => {
                    let detail = "give ids, or a filter; {} as a filter means all that is PARKED";
                    checks.refuse("ids", "MISSING", detail);
                    Selection::Ids(Vec::new())
                }
            }
        })?;
        let rate_per_second = self.rate_per_second.and_then(|Whole(rate)| i32::try_from(rate).ok());
        Ok((selection, Options { dry_run: self.dry_run, rate_per_second }))
    }
}

/// List replays, the newest first, without their letters (administrators)
#[utoipa::path(
    get,
    path = "/v1/dead-letters/replays",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of replays", body = Items<ReplayView>),
        Problems<(Admin, code::ValidationFailed)>,
    ),
)]
pub(super) async fn list_replays(
    State(api): State<Api>,
    Admin(_caller): Admin,
    query: PageQuery,
) -> Result<JsonAnswer<Items<ReplayView>>, Problem> {
    let page = query.page::<Uuid>(REPLAYS_DEFAULT)?;
    let rows = replays::list(&api.journal.pool, page.after, page.rows()).await?;
    Ok(JsonAnswer(Items::of_rows(rows, page.limit, |replay: &Replay| replay.replay_id, ReplayView::from)))
}

type ReplayDeadLettersRequest = Keyed<Admin, (), NewReplay>;

/// Replay dead letters, or say what a replay would do (administrators)
///
/// What is selected is fixed now. The workers of the groups that failed apply the letters, nobody else sees them; a replay goes
/// on wherever processes end and begin.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/replays",
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 30, until all is \
                                                           decided", example = "wait=10"),
    ),
    request_body = NewReplay,
    responses(
        (status = 202, description = "Asked for", body = RequestedView,
            headers(("Location" = String, description = "The replay"))),
        Problems<(
            ReplayDeadLettersRequest, code::DeadLetterSettled, code::ValidationFailed,
            code::SelectedDeadLetterNotFound,
        )>,
    ),
)]
pub(super) async fn replay_dead_letters(
    State(api): State<Api>,
    prefer: Prefer,
    Keyed { caller: Admin(caller), request, body, .. }: ReplayDeadLettersRequest,
) -> Result<Answer, Problem> {
    let (selection, options) = body.check(&api.config.kafka.prefix)?;
    let actor = caller.name();
    let select = |api: Api, turn| async move {
        let (mut transaction, now) = (database::begin(&api.journal.pool).await?, api.journal.now());
        let requested = replays::request(&mut transaction, &selection, options, &actor, now).await;
        let requested = requested.map_err(|error| refusal(error, &selection))?;
        let location = format!("/v1/dead-letters/replays/{}", requested.replay_id);
        let answer = first_answer(202, Some(location), &RequestedView::from(requested))?;
        api.finish(turn, transaction, answer, now).await
    };
    let mut answer = api.once(request, select).await?;
    // A repetition gets the first answer again, at once.
    if let Some(wait) = prefer.wait.filter(|_| !answer.is_replay) {
        answer = waited(&api, answer, wait).await?;
    }
    Ok(answer)
}

/// The answer with the replay's state once it is done, or when the time is over.
async fn waited(api: &Api, mut answer: Answer, wait: std::time::Duration) -> Result<Answer, Problem> {
    let path = answer.first.location.as_deref().unwrap_or_default();
    let Some(replay_id) = path.rsplit('/').next().and_then(path::parse) else { return Ok(answer) };
    api.waiting_replays.until_rest(replay_id, wait).await;
    // The replay stands whatever happens now: where it can't be read, it is shown as it was asked for.
    if let Ok(Some(Replay { selected, progress, .. })) = replays::get(&api.journal.pool, replay_id).await {
        let view = RequestedView { replay_id, selected, state: progress };
        answer.first = first_answer(answer.first.status, answer.first.location, &view)?;
    }
    Ok(answer)
}

/// Why nothing is replayed.
fn refusal(error: ReplayError, selection: &Selection) -> Problem {
    let asked: &[Uuid] = match selection {
        Selection::Ids(ids) => ids,
        Selection::Filter(_) => &[],
    };
    let errors = |wrong: &[Uuid], code: &'static str, detail: &'static str| -> Vec<FieldError> {
        let wrong: HashSet<&Uuid> = wrong.iter().collect();
        let places = asked.iter().enumerate().filter(|(_, id)| wrong.contains(id));
        let error =
            |(index, _)| FieldError { field: format!("ids[{index}]").into(), code, detail: detail.into() };
        places.map(error).collect()
    };
    match error {
        ReplayError::NotFound(unknown) => {
            let code = Code::SelectedDeadLetterNotFound;
            Problem::new(code, "some of these ids are no dead letter's").with_errors(errors(
                &unknown,
                code.text(),
                "there is no dead letter of this id",
            ))
        }
        ReplayError::Discarded(discarded) => {
            let code = Code::DeadLetterSettled;
            Problem::new(code, "some of these dead letters were discarded; leave them out")
                .with_errors(errors(&discarded, code.text(), "it was discarded, so it is not replayed"))
        }
        ReplayError::TooMany(_) => Checks::refusal("filter", "OUT_OF_RANGE", error.to_string()),
        ReplayError::Database(error) => error.into(),
    }
}

/// Show how far a replay is, with the verdict on each letter (administrators)
///
/// With `Prefer: wait=N` the answer is held until every letter has its verdict or N seconds are over.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/replays/{replay_id}",
    params(Prefer),
    responses(
        (status = 200, description = "The replay", body = WholeReplayView),
        Problems<(Admin, Id<path::Replay>)>,
    ),
)]
pub(super) async fn get_replay(
    State(api): State<Api>,
    Admin(_caller): Admin,
    Id(replay_id, _): Id<path::Replay>,
    prefer: Prefer,
) -> Result<JsonAnswer<WholeReplayView>, Problem> {
    let pool = &api.journal.pool;
    let unknown = path::unknown::<path::Replay>;
    let mut replay = replays::get(pool, replay_id).await?.ok_or_else(unknown)?;
    if let Some(wait) = prefer.wait {
        api.waiting_replays.until_rest(replay_id, wait).await;
        replay = replays::get(pool, replay_id).await?.ok_or_else(unknown)?;
    }
    // Read after the counts: a replay that says it is done shows a verdict on each letter.
    let items = replays::items(pool, replay_id).await?;
    Ok(JsonAnswer(WholeReplayView::of(replay, items)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(Selection, Options), String> {
        let replay: NewReplay =
            crate::body::parse(json.as_bytes()).map_err(|problem| format!("{problem:?}"))?;
        replay.check("").map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn a_replay_is_of_ids_or_of_a_filter() {
        let id = Uuid::nil();
        let (selection, options) =
            check(&format!(r#"{{"ids":["{id}"],"dry_run":true,"rate_per_second":5}}"#)).unwrap();
        assert!(matches!(selection, Selection::Ids(ids) if ids == [id]));
        assert_eq!((options.dry_run, options.rate_per_second), (true, Some(5)));
        let (selection, options) = check(r#"{"filter":{}}"#).unwrap();
        assert!(matches!(selection, Selection::Filter(_)));
        assert_eq!((options.dry_run, options.rate_per_second), (false, None));
        assert!(check("{}").unwrap_err().contains("MISSING"));
        assert!(check(r#"{"ids":[],"filter":{}}"#).unwrap_err().contains("NOT_TOGETHER"));
    }

    #[test]
    fn a_selection_is_neither_empty_nor_too_long_and_a_rate_is_at_least_one() {
        let ids = |count| serde_json::json!({"ids": vec![Uuid::nil(); count]}).to_string();
        assert!(check(&ids(1_000)).is_ok());
        for wrong in [ids(0), ids(1_001)] {
            assert!(check(&wrong).unwrap_err().contains("1 to 1000 ids"));
        }
        for rate in ["0", "-1", "100001", "99999999999999999999"] {
            let problem = check(&format!(r#"{{"filter":{{}},"rate_per_second":{rate}}}"#)).unwrap_err();
            assert!(problem.contains("rate_per_second") && problem.contains("OUT_OF_RANGE"), "{problem}");
        }
        assert!(check(r#"{"filter":{"state":"DISCARDED"}}"#).unwrap_err().contains("filter.state"));
    }

    #[test]
    fn what_has_another_shape_is_no_replay() {
        for wrong in [
            r#"{"ids":null}"#,
            r#"{"filter":null}"#,
            r#"{"filter":["orders"]}"#,
            r#"{"filter":{"colour":"red"}}"#,
            r#"{"ids":["x"]}"#,
            r#"{"filter":{},"dry_run":1}"#,
            r#"{"filter":{},"rate":1}"#,
        ] {
            assert!(check(wrong).unwrap_err().contains("InvalidJson"), "{wrong}");
        }
    }

    #[test]
    fn what_can_not_be_replayed_is_named_by_its_place() {
        let (known, unknown) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let selection = Selection::Ids(vec![known, unknown]);
        let problem = refusal(ReplayError::NotFound(vec![unknown]), &selection);
        assert_eq!((problem.code().text(), problem.code().status().as_u16()), ("DEAD_LETTER_NOT_FOUND", 422));
        let text = format!("{problem:?}");
        assert!(text.contains("ids[1]") && !text.contains("ids[0]"), "{text}");
        let problem = refusal(ReplayError::Discarded(vec![known]), &selection);
        assert_eq!((problem.code().text(), problem.code().status().as_u16()), ("DEAD_LETTER_SETTLED", 409));
        let filter = Selection::Filter(ordermill_pipeline::dead_letters::letters::Filter::default());
        let problem = refusal(ReplayError::TooMany(100_001), &filter);
        assert_eq!(problem.code(), Code::ValidationFailed);
    }
}
