//! `dlq list` and `dlq groups`.

use anyhow::{Context as _, Result};
use clap::Args;
use ordermill_api::dead_letters::{All, GroupView, LetterView};
use ordermill_api::{Items, read_cursor};
use ordermill_pipeline::dead_letters::State;
use ordermill_pipeline::dead_letters::letters::{self, Letter};

use super::desk::Desk;
use super::filter::FilterArgs;
use crate::database::explain;
use crate::output::{cell, note, time};

/// The flags of `dlq list`.
#[derive(Args, Clone, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Goes on where the list before ended, as it says.
    #[arg(long)]
    cursor: Option<String>,
}

/// What is said where there is none.
const NONE: &str = "no dead letters";

/// Lists letters.
pub(super) async fn list(desk: &Desk, args: &ListArgs) -> Result<()> {
    let filter = args.filter.filter(&desk.prefix)?;
    let none_of_ours = "--cursor must be the one that the list before ended with";
    let before =
        args.cursor.as_deref().map(|cursor| read_cursor(cursor).context(none_of_ours)).transpose()?;
    // One more than is shown tells of more.
    let rows =
        letters::list(&desk.pool, &filter, before, i64::from(args.limit) + 1).await.map_err(explain)?;
    let ordinal = |letter: &Letter| letter.ordinal;
    let page = Items::of_rows(rows, usize::from(args.limit), ordinal, LetterView::from);
    desk.list(
        &page,
        &page.items,
        NONE,
        &[
            ("dead letter", |letter| letter.dead_letter_id.to_string()),
            ("group", |letter| cell(Some(&letter.group))),
            ("from", |l| cell(Some(&format!("{}/{}@{}", l.topic, l.partition, l.offset)))),
            ("type", |letter| cell(letter.event_type.as_deref())),
            ("key", |letter| cell(letter.key.as_deref().or(letter.key_base64.as_deref()))),
            ("code", |letter| cell(letter.code.as_deref())),
            ("state", |letter| letter.state.to_owned()),
            ("tries", |letter| letter.attempts.to_string()),
            ("last failed", |letter| time(letter.last_failed_at)),
            ("behind", |letter| letter.waiting_behind.to_string()),
            ("error", |letter| cell(letter.error.as_deref())),
        ],
    )?;
    if let Some(cursor) = page.next_cursor.filter(|_| !desk.json) {
        note(&format!("there are more: add --cursor {cursor}"));
    }
    Ok(())
}

/// Counts letters by cause.
pub(super) async fn groups(desk: &Desk, args: &FilterArgs) -> Result<()> {
    let filter = args.filter(&desk.prefix)?;
    let groups: All<GroupView> = All::of(letters::counts(&desk.pool, &filter).await.map_err(explain)?);
    desk.list(
        &groups,
        &groups.items,
        NONE,
        &[
            ("topic", |group| cell(Some(&group.topic))),
            ("group", |group| cell(Some(&group.group))),
            ("code", |group| cell(group.code.as_deref())),
            ("letters", |group| group.count.to_string()),
            ("parked", |group| in_state(group, State::Parked)),
            ("waiting", |group| in_state(group, State::Waiting)),
            ("replayed", |group| in_state(group, State::Replayed)),
            ("resolved", |group| in_state(group, State::Resolved)),
            ("discarded", |group| in_state(group, State::Discarded)),
            ("last failed", |group| time(group.last_failed_at)),
            ("newest error", |group| cell(group.error.as_deref())),
        ],
    )
}

fn in_state(group: &GroupView, state: State) -> String {
    group.states.get(state.name()).copied().unwrap_or_default().to_string()
}
