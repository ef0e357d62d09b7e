//! `dlq replay`, `dlq replays` and `dlq progress`.

use anyhow::{Result, bail};
use clap::Args;
use ordermill_api::Items;
use ordermill_api::dead_letters::{ItemView, ReplayView, RequestedView, WholeReplayView};
use ordermill_pipeline::database;
use ordermill_pipeline::dead_letters::replays::{self, Options, Replay, Requested, Selection, Verdicts};
use ordermill_pipeline::dead_letters::{State, Verdict};
use uuid::Uuid;

use super::desk::{Desk, actor};
use super::filter::FilterArgs;
use super::progress;
use crate::database::explain;
use crate::output::{Column, cell, note, table, time};
use crate::printable::printable;

/// Up to so many letters, each verdict is shown.
const SHOWN_ALWAYS: usize = 20;
/// So many of what went wrong are shown where there are more letters than that.
const WRONG_SHOWN_MAX: usize = 50;

/// The flags of `dlq replay`.
#[derive(Args, Clone, Debug)]
pub(super) struct ReplayArgs {
    /// These letters.
    ids: Vec<Uuid>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All that is PARKED.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Decides on each letter and writes nothing: the verdicts say what would happen. What only the database
    /// would refuse is not foreseen.
    #[arg(long)]
    dry_run: bool,
    /// At most this many letters a second; as fast as the workers can if not given.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    rate: Option<i32>,
    /// Does not wait for the verdicts.
    #[arg(long)]
    no_wait: bool,
    /// Shows the verdict on each letter, however many there are.
    #[arg(long, short)]
    verbose: bool,
}

/// The flags of `dlq progress`.
#[derive(Args, Clone, Debug)]
pub(super) struct ProgressArgs {
    /// The replay.
    replay_id: Uuid,
    /// Shows it as it is now.
    #[arg(long)]
    no_wait: bool,
    /// Shows the verdict on each letter, however many there are.
    #[arg(long, short)]
    verbose: bool,
}

impl ReplayArgs {
    /// Which letters are meant.
    fn selection(&self, prefix: &str) -> Result<Selection> {
        match (self.ids.is_empty(), self.filter.is_empty(), self.all) {
            (false, true, false) => Ok(Selection::Ids(self.ids.clone())),
            (true, _, true) | (true, false, false) => {
                let filter = self.filter.filter(prefix)?;
                if filter.state == Some(State::Discarded) {
                    bail!("what was discarded is not replayed: give another --state or none");
                }
                Ok(Selection::Filter(filter))
            }
            (false, ..) => bail!("give either ids or filters like --topic orders.stock.dlt, not both"),
            (true, true, false) => bail!(
                "say what to replay: ids, filters like --topic orders.stock.dlt, or --all for all that is PARKED"
            ),
        }
    }
}

/// Asks for a replay and waits for its verdicts; answers whether all was applied.
pub(super) async fn replay(desk: &Desk, args: ReplayArgs) -> Result<bool> {
    let selection = args.selection(&desk.prefix)?;
    let options = Options { dry_run: args.dry_run, rate_per_second: args.rate };
    let requested = request(desk, &selection, options).await?;
    let Requested { replay_id, selected } = requested;
    if args.no_wait {
        let text = || format!("replay {replay_id}: {selected} letters are selected");
        desk.show(&RequestedView::from(requested), text)?;
        return Ok(true);
    }
    let kind = if args.dry_run { "dry run" } else { "replay" };
    note(&format!("{kind} {replay_id}: {selected} letters are selected"));
    if selected > 0 {
        note(&format!(
            "it goes on without this command; to see it again: ordermill dlq progress {replay_id}"
        ));
    }
    let replay = progress::watch(desk, replay_id).await?;
    show(desk, replay, args.verbose).await
}

/// Fixes what is selected.
async fn request(desk: &Desk, selection: &Selection, options: Options) -> Result<Requested> {
    let mut transaction = database::begin(&desk.pool).await.map_err(explain)?;
    let requested = replays::request(&mut transaction, selection, options, &actor(), desk.now()).await;
    let requested = requested.map_err(|error| match error {
        replays::ReplayError::Database(error) => explain(error),
        refused => anyhow::Error::new(refused),
    })?;
    transaction.commit().await.map_err(explain)?;
    Ok(requested)
}

/// Lists the latest replays.
pub(super) async fn replays(desk: &Desk, limit: u16) -> Result<()> {
    let rows = replays::list(&desk.pool, None, i64::from(limit) + 1).await.map_err(explain)?;
    let replay_id = |replay: &Replay| replay.replay_id;
    let page = Items::of_rows(rows, usize::from(limit), replay_id, ReplayView::from);
    desk.list(
        &page,
        &page.items,
        "no replays",
        &[
            ("replay", |replay| replay.replay_id.to_string()),
            ("asked for", |replay| time(Some(replay.requested_at))),
            ("by", |replay| cell(Some(&replay.requested_by))),
            ("dry run", |replay| if replay.dry_run { "yes" } else { "no" }.to_owned()),
            ("state", |replay| ordermill_store::word(replay.state)),
            ("letters", |replay| replay.selected.to_string()),
            ("applied", |replay| replay.counts.applied.to_string()),
            ("already", |replay| replay.counts.already_applied.to_string()),
            ("failed again", |replay| replay.counts.failed_again.to_string()),
            ("waiting", |replay| replay.counts.waiting.to_string()),
            ("undecided", |replay| replay.counts.undecided.to_string()),
        ],
    )
}

/// Shows how far a replay is, until it is done; answers whether all was applied.
pub(super) async fn progress(desk: &Desk, args: &ProgressArgs) -> Result<bool> {
    let replay = if args.no_wait {
        progress::find(desk, args.replay_id).await?
    } else {
        progress::watch(desk, args.replay_id).await?
    };
    show(desk, replay, args.verbose).await
}

/// Prints a replay; answers whether all was applied. A dry run has done what it was asked for when it has its verdicts.
async fn show(desk: &Desk, replay: Replay, verbose: bool) -> Result<bool> {
    let items = replays::items(&desk.pool, replay.replay_id).await.map_err(explain)?;
    let view = WholeReplayView::of(replay, items);
    desk.show(&view, || match verdicts(&view.items, verbose) {
        Some(verdicts) => format!("{}\n\n{verdicts}", counted(&view.replay)),
        None => counted(&view.replay),
    })?;
    let ReplayView { dry_run, counts, .. } = view.replay;
    Ok(dry_run || counts.failed_again + counts.waiting == 0)
}

/// The counts as a table.
fn counted(view: &ReplayView) -> String {
    let Verdicts { applied, already_applied, failed_again, waiting, undecided } = view.counts;
    let counts = [applied, already_applied, failed_again, waiting];
    let mut rows: Vec<(&str, i64)> = Verdict::ALL.into_iter().map(Verdict::name).zip(counts).collect();
    if undecided > 0 {
        rows.push(("(undecided)", undecided));
    }
    let title = if view.dry_run { "would be" } else { "verdict" };
    table(
        &rows,
        &[(title, |(verdict, _)| (*verdict).to_owned()), ("letters", |(_, count)| count.to_string())],
    )
}

/// The verdicts letter by letter: all where they are few or were asked for, else those that say that something is wrong.
fn verdicts(items: &[ItemView], verbose: bool) -> Option<String> {
    let applied = [Verdict::Applied.name(), Verdict::AlreadyApplied.name()];
    let is_wrong = |item: &ItemView| item.verdict.is_some_and(|verdict| !applied.contains(&verdict));
    let shows_all = verbose || items.len() <= SHOWN_ALWAYS;
    let wanted: Vec<&ItemView> = items.iter().filter(|item| shows_all || is_wrong(item)).collect();
    if wanted.is_empty() {
        return None;
    }
    let shown_max = if shows_all { wanted.len() } else { wanted.len().min(WRONG_SHOWN_MAX) };
    let (shown, unshown) = wanted.split_at(shown_max);
    let columns: [Column<&ItemView>; 4] = [
        ("dead letter", |item| item.dead_letter_id.to_string()),
        ("group", |item| cell(Some(&item.group))),
        ("verdict", |item| item.verdict.unwrap_or("(undecided)").to_owned()),
        ("why", |item| printable(item.detail.as_deref().unwrap_or_default())),
    ];
    let rest = match unshown.len() {
        0 => String::new(),
        unshown => format!("\n… and {unshown} more: add --verbose"),
    };
    Some(format!("{}{rest}", table(shown, &columns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ReplayArgs {
        ReplayArgs {
            ids: Vec::new(),
            filter: FilterArgs::default(),
            all: false,
            dry_run: false,
            rate: None,
            no_wait: false,
            verbose: false,
        }
    }

    fn items(verdict: Verdict, count: usize) -> Vec<ItemView> {
        let item = |_| ItemView {
            dead_letter_id: Uuid::nil(),
            group: "stock".to_owned(),
            verdict: Some(verdict.name()),
            detail: None,
            decided_at: None,
        };
        (0..count).map(item).collect()
    }

    #[test]
    fn nothing_is_replayed_that_was_not_named() {
        assert!(args().selection("").unwrap_err().to_string().contains("--all"));
        let all = ReplayArgs { all: true, ..args() };
        assert!(matches!(all.selection("").unwrap(), Selection::Filter(filter) if filter.state.is_none()));
        let ids = ReplayArgs { ids: vec![Uuid::nil()], ..args() };
        assert!(matches!(ids.selection("").unwrap(), Selection::Ids(ids) if ids == [Uuid::nil()]));
    }

    #[test]
    fn few_verdicts_are_shown_and_of_many_those_that_are_wrong() {
        let lines = |items: &[ItemView], verbose| {
            verdicts(items, verbose).map_or(0, |text| text.lines().filter(|l| l.contains("stock")).count())
        };
        let many = items(Verdict::Applied, SHOWN_ALWAYS + 1);
        assert_eq!(lines(&items(Verdict::Applied, SHOWN_ALWAYS), false), SHOWN_ALWAYS);
        assert_eq!((lines(&many, false), lines(&many, true)), (0, SHOWN_ALWAYS + 1));
        let wrong = items(Verdict::FailedAgain, WRONG_SHOWN_MAX + 7);
        assert_eq!(lines(&wrong, false), WRONG_SHOWN_MAX);
        assert!(verdicts(&wrong, false).unwrap().ends_with("… and 7 more: add --verbose"));
    }
}
