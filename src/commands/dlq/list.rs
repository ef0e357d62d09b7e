//! `dlq list` and `dlq groups`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use ordermill_api::dead_letters::{All, GroupView, LetterView};
use ordermill_api::{Items, read_cursor};
use ordermill_pipeline::dead_letters::State;
use ordermill_pipeline::dead_letters::letters::{self, Letter};

use super::desk::Desk;
use super::filter::FilterArgs;
use super::text::{cell, note, print, print_json, table, time};
use crate::database::explain;

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

/// The flags of `dlq groups`.
#[derive(Args, Clone, Debug)]
pub(super) struct GroupsArgs {
    #[command(flatten)]
    filter: FilterArgs,
}

/// Lists letters.
pub(super) async fn list(desk: &Desk, args: &ListArgs) -> Result<ExitCode> {
    let filter = args.filter.filter(&desk.prefix)?;
    let none_of_ours = "--cursor must be the one that the list before ended with";
    let before =
        args.cursor.as_deref().map(|cursor| read_cursor(cursor).context(none_of_ours)).transpose()?;
    let limit = usize::from(args.limit);
    // One more than is shown tells of more.
    let rows =
        letters::list(&desk.pool, &filter, before, i64::from(args.limit) + 1).await.map_err(explain)?;
    let page = Items::of_rows(rows, limit, |letter: &Letter| letter.ordinal, LetterView::from);
    if desk.json {
        print_json(&page)?;
        return Ok(ExitCode::SUCCESS);
    }
    if page.items.is_empty() {
        print("no dead letters")?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = [
        "dead letter",
        "group",
        "from",
        "type",
        "key",
        "code",
        "state",
        "tries",
        "last failed",
        "behind",
        "error",
    ];
    let mut rows = table(header);
    for letter in &page.items {
        rows.add_row([
            letter.dead_letter_id.to_string(),
            cell(Some(&letter.group)),
            cell(Some(&format!("{}/{}@{}", letter.topic, letter.partition, letter.offset))),
            cell(letter.event_type.as_deref()),
            cell(letter.key.as_deref().or(letter.key_base64.as_deref())),
            cell(letter.code.as_deref()),
            letter.state.to_owned(),
            letter.attempts.to_string(),
            time(letter.last_failed_at),
            letter.waiting_behind.to_string(),
            cell(letter.error.as_deref()),
        ]);
    }
    print(&rows.to_string())?;
    if let Some(cursor) = page.next_cursor {
        note(&format!("there are more: add --cursor {cursor}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts letters by cause.
pub(super) async fn groups(desk: &Desk, args: &GroupsArgs) -> Result<ExitCode> {
    let filter = args.filter.filter(&desk.prefix)?;
    let groups: All<GroupView> = All::of(letters::counts(&desk.pool, &filter).await.map_err(explain)?);
    if desk.json {
        print_json(&groups)?;
        return Ok(ExitCode::SUCCESS);
    }
    if groups.items.is_empty() {
        print("no dead letters")?;
        return Ok(ExitCode::SUCCESS);
    }
    let states = State::ALL.map(|state| state.name().to_lowercase());
    let states = states.each_ref().map(String::as_str);
    let [parked, waiting, replayed, resolved, discarded] = states;
    let mut rows = table([
        "topic",
        "group",
        "code",
        "letters",
        parked,
        waiting,
        replayed,
        resolved,
        discarded,
        "last failed",
        "newest error",
    ]);
    for group in &groups.items {
        let [parked, waiting, replayed, resolved, discarded] =
            State::ALL.map(|state| group.states.get(state.name()).copied().unwrap_or_default().to_string());
        rows.add_row([
            cell(Some(&group.topic)),
            cell(Some(&group.group)),
            cell(group.code.as_deref()),
            group.count.to_string(),
            parked,
            waiting,
            replayed,
            resolved,
            discarded,
            time(group.last_failed_at),
            cell(group.error.as_deref()),
        ]);
    }
    print(&rows.to_string())?;
    Ok(ExitCode::SUCCESS)
}
