//! `dlq discard`, `dlq halts` and `dlq resume`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::SignedDuration;
use ordermill_api::dead_letters::All;
use ordermill_pipeline::dead_letters::edits::{self, EditError, Waiting};
use ordermill_pipeline::dead_letters::halts;
use uuid::Uuid;

use super::desk::{Desk, actor};
use crate::database::explain;
use crate::output::{cell, time};
use crate::printable::printable;

/// How long a reason may be, in characters.
const REASON_LENGTH_MAX: usize = 500;
/// For how long a group may go on without being stopped again.
const UNCHECKED_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The flags of `dlq discard`.
#[derive(Args, Clone, Debug)]
pub(super) struct DiscardArgs {
    /// The dead letter.
    dead_letter_id: Uuid,
    /// Why, for the audit.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// What waits behind it is applied, in order.
    #[arg(long, conflicts_with = "discard_waiting")]
    release_waiting: bool,
    /// What waits behind it is discarded, too.
    #[arg(long)]
    discard_waiting: bool,
}

fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        _ if text.trim().is_empty() => Err("say why in some words".to_owned()),
        length if length > REASON_LENGTH_MAX => Err(format!("at most {REASON_LENGTH_MAX} characters")),
        _ => Ok(text.to_owned()),
    }
}

/// Discards a letter.
pub(super) async fn discard(desk: &Desk, args: &DiscardArgs) -> Result<()> {
    let id = args.dead_letter_id;
    let released = args.release_waiting.then_some(Waiting::Released);
    let waiting = released.or(args.discard_waiting.then_some(Waiting::Discarded));
    let waited = edits::discard(&desk.pool, id, &args.reason, waiting, &actor(), desk.now()).await;
    let waited = waited.map_err(refused)?;
    let rest = match (waited, waiting) {
        (0, _) | (_, None) => String::new(),
        (_, Some(Waiting::Released)) => format!("; {waited} that waited behind it are applied now, in order"),
        (_, Some(Waiting::Discarded)) => format!("; {waited} that waited behind it, too"),
    };
    desk.changed(id, &format!("dead letter {id} is discarded{rest}")).await
}

/// Why a letter stays as it is, in words for this command.
pub(super) fn refused(error: EditError) -> anyhow::Error {
    match error {
        EditError::Database(error) => explain(error),
        EditError::NotFound(id) => anyhow::anyhow!("there is no dead letter {id}: see `ordermill dlq list`"),
        EditError::SomethingWaits { dead_letter_id, waiting } => anyhow::anyhow!(
            "dead letter {dead_letter_id} has {waiting} waiting behind it: add --release-waiting to have them applied, \
             or --discard-waiting"
        ),
        refused => anyhow::Error::new(refused),
    }
}

/// Lists the groups that have stopped.
pub(super) async fn halts(desk: &Desk) -> Result<()> {
    let halts: All<halts::Halted> = All::of(halts::halted(&desk.pool).await.map_err(explain)?);
    desk.list(
        &halts,
        &halts.items,
        "no group has stopped",
        &[
            ("group", |halt| cell(Some(&halt.group))),
            ("since", |halt| time(Some(halt.halted_at))),
            ("why", |halt| printable(&halt.reason)),
        ],
    )
}

/// The flags of `dlq resume`.
#[derive(Args, Clone, Debug)]
pub(super) struct ResumeArgs {
    /// The group.
    group: String,
    /// For how long failures become dead letters however many they are, like 60s or 5m; at most 24h.
    #[arg(long, default_value = "60s", value_parser = unchecked)]
    unchecked_for: Duration,
}

fn unchecked(text: &str) -> Result<Duration> {
    let duration: SignedDuration = text.parse().context("give a time like 60s or 5m")?;
    match Duration::try_from(duration) {
        Ok(duration) if duration <= UNCHECKED_MAX => Ok(duration),
        _ => bail!("give a time from 0s to 24h"),
    }
}

/// Has a group go on.
pub(super) async fn resume(desk: &Desk, args: &ResumeArgs) -> Result<()> {
    let resumed = halts::resume(&desk.pool, &args.group, args.unchecked_for, &actor(), desk.now()).await;
    let resumed = resumed
        .map_err(explain)?
        .with_context(|| format!("no group {} has stopped: see `ordermill dlq halts`", args.group))?;
    let until = time(Some(resumed.unchecked_until));
    let text = format!("{} goes on; until {until} no failure stops it", printable(&resumed.group));
    desk.show(&resumed, || text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_go_on_unchecked_is_at_most_a_day() {
        assert_eq!(unchecked("60s").unwrap(), Duration::from_secs(60));
        assert_eq!(unchecked("5m").unwrap(), Duration::from_secs(300));
        assert_eq!(unchecked("24h").unwrap(), UNCHECKED_MAX);
        for wrong in ["", "60", "-1s", "25h", "soon"] {
            assert!(unchecked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_says_something_and_not_too_much() {
        assert!(reason("twice").is_ok());
        assert!(reason(&"후".repeat(500)).is_ok());
        for wrong in ["", "  ", &"후".repeat(501)] {
            assert!(reason(wrong).is_err());
        }
    }
}
