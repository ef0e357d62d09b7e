//! Whether orders are admitted: not while so many are before them that they would not come to rest in time.
//!
//! What counts is how long events wait for the parts that every order passes, and only where those move: while relay, workers or
//! Kafka stand still, orders are accepted and wait, as long as their deadline allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ordermill_pipeline::backlog::{Stage, stages};
use ordermill_pipeline::journal::Journal;
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;

/// How often the backlog is looked at while orders come.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The part of its deadline that an order may wait for others; it passes each part more than once.
const PART_OF_DEADLINE: u32 = 4;
/// When orders are refused for a while, none comes before this part of that is left.
const REOPEN_BELOW: u32 = 2;

/// Whether orders are admitted, shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// How long whoever comes now should wait, in seconds; 0 while orders are admitted.
    retry_after_s: AtomicU64,
    /// Somebody has asked since the last look.
    is_asked: AtomicBool,
}

impl Admission {
    /// Looks at the backlog until the stop, while orders come.
    pub(crate) async fn watch(self: Arc<Self>, journal: Journal, config: ApiConfig, stop: CancellationToken) {
        let wait_max = config.order_deadline / PART_OF_DEADLINE;
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = Looks::default();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if !self.is_asked.swap(false, Ordering::Relaxed) && self.retry_after().is_none() {
                // Nothing that was seen before says anything of what comes after a rest.
                looks = Looks::default();
                continue;
            }
            match stages(&journal.pool, &config.order_groups, journal.now()).await {
                Ok(now) => self.judge(looks.look(now), wait_max),
                // Whoever submits an order finds out.
                Err(error) => tracing::debug!(%error, "cannot see how many orders wait"),
            }
        }
    }

    /// Takes in how long events wait.
    fn judge(&self, wait: Duration, wait_max: Duration) {
        let is_open = self.retry_after().is_none();
        let is_admitted = wait <= if is_open { wait_max } else { wait_max / REOPEN_BELOW };
        if is_admitted != is_open {
            let wait_ms = wait.as_millis();
            tracing::warn!(
                wait_ms,
                is_admitted,
                "so long do events wait for relay and workers; orders are admitted or not"
            );
        }
        let excess = wait.saturating_sub(wait_max / REOPEN_BELOW).as_secs() + 1;
        self.retry_after_s.store(if is_admitted { 0 } else { excess }, Ordering::Relaxed);
    }

    /// How long whoever brings an order now should wait before it brings it again; `None` where it is admitted.
    pub(crate) fn refusal(&self) -> Option<Duration> {
        self.is_asked.store(true, Ordering::Relaxed);
        self.retry_after()
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.retry_after_s.load(Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

/// What was seen at the last look, while orders come.
#[derive(Debug, Default)]
struct Looks {
    before: Vec<Stage>,
    wait: Duration,
}

impl Looks {
    /// How long events wait by this look and the last: what was held up for a while is often done with by the next one.
    fn look(&mut self, now: Vec<Stage>) -> Duration {
        let wait = wait(&self.before, &now);
        self.before = now;
        wait.min(std::mem::replace(&mut self.wait, wait))
    }
}

/// How long events wait: for the relay, and for each group where it is behind most. Only what has moved between two looks counts, and is
/// still behind: what has come to a partition after a quiet time seems to have waited for as long as that was quiet, but is done
/// with by the first move.
fn wait(before: &[Stage], now: &[Stage]) -> Duration {
    let mut behind: BTreeMap<&str, Duration> = BTreeMap::new();
    for stage in now {
        let is_same = |before: &&Stage| before.name == stage.name && before.slot == stage.slot;
        if before.iter().find(is_same).is_some_and(|before| before.progress < stage.progress) {
            let most = behind.entry(&stage.name).or_default();
            *most = stage.behind.max(*most);
        }
    }
    behind.into_values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(15);

    fn stage(name: &str, slot: &str, progress: i64, behind_s: u64) -> Stage {
        let (name, slot) = (name.to_owned(), slot.to_owned());
        Stage { name, slot, progress, behind: Duration::from_secs(behind_s) }
    }

    #[test]
    fn only_what_moves_is_waited_for() {
        let before = [
            stage("relay", "", 5, 9),
            stage("stock", "orders/0", 5, 9),
            stage("orders", "stock/0", 5, 9),
            stage("orders", "stock/1", 5, 9),
            stage("orders", "stock/2", 5, 99),
        ];
        let now = [
            stage("relay", "", 6, 4),
            stage("stock", "orders/0", 5, 10),
            stage("orders", "stock/0", 9, 2),
            stage("orders", "stock/1", 9, 3),
            stage("orders", "stock/2", 5, 99),
            stage("new", "orders/0", 1, 9),
        ];
        assert_eq!(wait(&before, &now), Duration::from_secs(7));
        assert_eq!(wait(&[], &now), Duration::ZERO);
    }

    #[test]
    fn two_looks_decide_and_after_a_rest_two_others() {
        let mut looks = Looks::default();
        let mut look = |progress| looks.look(vec![stage("relay", "", progress, 100)]);
        assert_eq!((look(1), look(2)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(look(3), Duration::from_secs(100));
        looks = Looks::default();
        let mut look = |progress| looks.look(vec![stage("relay", "", progress, 100)]);
        assert_eq!((look(4), look(5)), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn orders_are_refused_above_the_limit_and_admitted_again_below_half_of_it() {
        let admission = Admission::default();
        for (wait_s, refusal) in
            [(15, None), (16, Some(9)), (9, Some(2)), (7, None), (14, None), (100, Some(93))]
        {
            admission.judge(Duration::from_secs(wait_s), MAX);
            assert_eq!(admission.refusal(), refusal.map(Duration::from_secs), "{wait_s} s");
        }
    }
}
