//! Where somebody else was faster lately, and what is done about it for a while: turns where it was this process, locks where it
//! was another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::load::Loaded;
use super::statement::Unwritten;

/// For how long.
const LATELY: Duration = Duration::from_secs(1);
/// Whoever was at it when turns began to be taken has come to an end after so long.
const BEFORE_TURNS: Duration = Duration::from_millis(200);

/// What is done, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Means {
    /// Who decides in this process takes turns with the others.
    Turns,
    /// The rows are loaded and locked, in turn. Where others write the same rows, that costs less than deciding twice.
    Locks,
}

/// Since when something is done, and for whom the last time.
#[derive(Clone, Copy, Debug)]
struct Lately {
    means: Means,
    since: Instant,
    at: Instant,
}

/// The tables where that was. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Contention {
    tables: Arc<Mutex<HashMap<&'static str, Lately>>>,
}

impl Contention {
    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Lately>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done by who decides from rows of these tables; nothing where they are written by one at a time.
    pub(super) fn calls_for(&self, tables: &[&'static str], now: Instant) -> Option<Means> {
        let lately = self.lock();
        let of = |table| lately.get(table).filter(|of| is_lately(of, now)).map(|of| of.means);
        tables.iter().filter_map(of).max()
    }

    /// Somebody was faster than who has decided from these. Where those of this process have taken turns for a while, it was another.
    pub(super) fn met(&self, loaded: &Loaded, error: &Unwritten, now: Instant) {
        let mut lately = self.lock();
        for table in loaded.tables.iter().filter(|table| error.part().ends_with(table.name)) {
            let before = lately.get(table.name).filter(|before| is_lately(before, now)).copied();
            let since = before.map_or(now, |before| before.since);
            let is_of_no_use = loaded.turn.is_some() && now.saturating_duration_since(since) >= BEFORE_TURNS;
            let means = if is_of_no_use { Means::Locks } else { Means::Turns };
            let means = before.map_or(means, |before| before.means.max(means));
            lately.insert(table.name, Lately { means, since, at: now });
        }
    }

    /// Somebody had to wait for a turn at rows of these tables.
    pub(super) fn lasts(&self, tables: &[&'static str], now: Instant) {
        let mut lately = self.lock();
        for table in tables {
            if let Some(of) = lately.get_mut(table).filter(|of| of.means == Means::Turns) {
                of.at = now;
            }
        }
    }
}

fn is_lately(of: &Lately, now: Instant) -> bool {
    now.saturating_duration_since(of.at) < LATELY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Table;
    use crate::journal::statement::Shortfall;
    use crate::journal::turns::Turns;

    static TABLES: [Table; 2] = [Table::new("cups"), Table::new("pots")];

    /// Somebody was faster, while cups were decided on in turn or not.
    async fn met(contention: &Contention, is_in_turn: bool, now: Instant) {
        let turn = if is_in_turn { Some(Turns::default().take([].into()).await) } else { None };
        let (part, shortfall) = ("updated_cups".to_owned(), Shortfall::Conflict);
        let conflict = Unwritten::Short { part, rows: 1, written: 0, shortfall };
        contention.met(&Loaded::recalled(&TABLES).in_turn(turn), &conflict, now);
    }

    #[tokio::test]
    async fn turns_are_taken_while_anybody_waits_for_them_and_locks_where_they_are_of_no_use() {
        let (contention, began) = (Contention::default(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        let calls_for = |table, ms| contention.calls_for(&[table], at(ms));
        assert_eq!(calls_for("cups", 0), None);
        met(&contention, false, at(0)).await;
        assert_eq!((calls_for("cups", 999), calls_for("pots", 999)), (Some(Means::Turns), None));
        // Against one who took none yet.
        met(&contention, true, at(100)).await;
        contention.lasts(&["cups", "pots"], at(900));
        assert_eq!((calls_for("cups", 1_899), calls_for("pots", 900)), (Some(Means::Turns), None));
        assert_eq!(calls_for("cups", 1_900), None);
        contention.lasts(&["cups"], at(1_800));
        met(&contention, true, at(2_000)).await;
        contention.lasts(&["cups"], at(2_500));
        assert_eq!(calls_for("cups", 2_999), Some(Means::Locks));
        assert_eq!(calls_for("cups", 3_000), None, "waiting for turns does not keep it");
    }
}
