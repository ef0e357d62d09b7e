//! Whether relay and workers do what they are there for, told by what moves.
//!
//! What moves stands in the database, whoever moves it: who leads, how far the relay is with the log, and how far each group is with what was
//! published. That is looked at again and again (`readiness/sight.rs`), and what waits and has not moved between looks stands still. Where nothing
//! moves the relay sends canaries, and each group must have met one. What loops say of themselves (`heartbeat.rs`) comes beside it: that they
//! live, and why something does not work.
//!
//! A state machine that does no I/O: shown what there is to see, it says what is not ready.

mod sight;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use sight::{Failing, Sight, Sign, Stopped, Waiting, look};

/// The role of the relay.
pub const RELAY: &str = "relay";
/// For so long anything may fail, stand still with something waiting, or meet no canary with nothing to do, of which one is sent every five
/// seconds: a rebalance and a change of leaders take some seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// For so long one partition may stand still while the group moves others, which may be before it.
const PATIENCE_WITH_A_PARTITION: Duration = Duration::from_secs(60);

/// The code of what does not move although something waits for it, or would not if something did.
const STANDS_STILL: &str = "STANDS_STILL";

/// The role of the worker of that name.
#[must_use]
pub fn worker_role(name: &str) -> String {
    format!("worker:{name}")
}

/// What must be at work.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The roles, like `relay` and `worker:timers`.
    pub roles: Vec<String>,
    /// The groups, each with the topics that it reads, without prefix. Each has a worker among the roles.
    pub groups: Vec<(String, Vec<String>)>,
}

/// Something that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The role.
    pub role: String,
    /// What is wrong with it, for programs: `NOT_ANSWERING`, `NOT_LEADING`, `FAILING`, `STANDS_STILL` or `HALTED`.
    pub code: &'static str,
    /// The same for people, and what to do.
    pub detail: String,
}

/// A place where something waits: a partition of a group's topics, or the log before the relay.
type Place = (String, String);

/// What waits at a place.
#[derive(Clone, Copy, Debug)]
struct Wait {
    progress: i64,
    /// Since when it has waited there without any progress, as far as that was seen.
    since: Instant,
}

/// Judges what is seen, look by look.
#[derive(Debug, Default)]
pub struct Judge {
    waits: BTreeMap<Place, Wait>,
    /// When a role was last seen to have moved anything that waited.
    moved_at: BTreeMap<String, Instant>,
    /// Since when no member of a group is to meet canaries.
    unmet_since: BTreeMap<String, Instant>,
}

impl Judge {
    /// What is not ready by what is seen now, in the order of the roles.
    pub fn judge(&mut self, sight: &Sight, expected: &Expected, now: Instant) -> Vec<Trouble> {
        self.follow(&sight.waiting, now);
        let mut troubles = Vec::new();
        for role in &expected.roles {
            let mut tell = |code: &'static str, detail: String| {
                troubles.push(Trouble { role: role.clone(), code, detail });
            };
            let halted = sight.halted.iter().find(|halted| worker_role(&halted.group) == *role);
            let signs: Vec<&Sign> = sight.signs.iter().filter(|sign| sign.role == *role).collect();
            if signs.is_empty() {
                tell(
                    "NOT_ANSWERING",
                    "no process of it has been at work for some seconds; orders are accepted and wait"
                        .to_owned(),
                );
            }
            if let Some(halted) = halted {
                let group = &halted.group;
                let what_to_do =
                    format!("look at `ordermill dlq groups`, then run `ordermill dlq resume {group}`");
                tell("HALTED", format!("it has stopped: {}; {what_to_do}", halted.reason));
            }
            if signs.is_empty() || halted.is_some() {
                continue;
            }
            let reads_topics = expected.groups.iter().any(|(group, _)| worker_role(group) == *role);
            if let Some((code, detail)) = self.finding(role, &signs, reads_topics, sight, now) {
                tell(code, detail);
            }
        }
        troubles
    }

    /// What is wrong with a role of which processes live: what they say of themselves, and else what is seen.
    fn finding(
        &mut self,
        role: &str,
        signs: &[&Sign],
        reads_topics: bool,
        sight: &Sight,
        now: Instant,
    ) -> Option<Finding> {
        let unmet = if reads_topics { self.misses_canaries(role, signs, sight, now) } else { None };
        // Whoever stands by may fail.
        let at_work: Vec<&Sign> = if role == RELAY { leading(sight).collect() } else { signs.to_vec() };
        let lacks_a_leader = || not_leading(sight, signs).filter(|_| role == RELAY);
        let stands_still = || {
            let waited = self.stands_still(role, now)?;
            // It may say itself why, even if it has failed for a little less long.
            Some(longest_failure(&at_work).map_or_else(|| (STANDS_STILL, still(waited)), fails))
        };
        lacks_a_leader()
            .or_else(|| failing(&at_work))
            .or_else(stands_still)
            .or_else(|| Some((STANDS_STILL, silent(unmet?))))
    }

    /// Takes in what waits now.
    fn follow(&mut self, waiting: &[Waiting], now: Instant) {
        let before = std::mem::take(&mut self.waits);
        let mut moved: BTreeSet<String> = BTreeSet::new();
        for Waiting { role, place, progress } in waiting {
            let at = (role.clone(), place.clone());
            let since = match before.get(&at) {
                Some(wait) if wait.progress == *progress => wait.since,
                Some(_) => {
                    moved.insert(role.clone());
                    now
                }
                None => now,
            };
            self.waits.insert(at, Wait { progress: *progress, since });
        }
        // Where nothing waits any more, all of it was moved.
        let done = before.into_keys().filter(|place| !self.waits.contains_key(place));
        moved.extend(done.map(|(role, _)| role));
        self.moved_at.extend(moved.into_iter().map(|role| (role, now)));
    }

    /// For how long a group has met no canary although the relay has sent them. While there is something to do it shows nothing: canaries
    /// come after what was there before them.
    fn misses_canaries(
        &mut self,
        role: &str,
        signs: &[&Sign],
        sight: &Sight,
        now: Instant,
    ) -> Option<Duration> {
        let Some(quiet) = leading(sight).find_map(|leader| leader.quiet) else {
            self.unmet_since.remove(role);
            return None;
        };
        let unmet = if let Some(ago) = signs.iter().filter_map(|sign| sign.canary).min() {
            self.unmet_since.remove(role);
            ago
        } else {
            // Their partition may just go from one member to another.
            now.saturating_duration_since(*self.unmet_since.entry(role.to_owned()).or_insert(now))
        };
        Some(unmet.min(quiet)).filter(|unmet| *unmet >= PATIENCE && self.has_been_idle(role, now))
    }

    /// Whether a role has had nothing to do for a while.
    fn has_been_idle(&self, role: &str, now: Instant) -> bool {
        !self.waits.keys().any(|(of, _)| of == role) && !self.moves(role, now)
    }

    /// Whether a role has moved something lately.
    fn moves(&self, role: &str, now: Instant) -> bool {
        self.moved_at.get(role).is_some_and(|at| now.saturating_duration_since(*at) < PATIENCE)
    }

    /// For how long something has waited where a role stands still.
    fn stands_still(&self, role: &str, now: Instant) -> Option<Duration> {
        let waits = self.waits.iter().filter(|((of, _), _)| of == role);
        let since = waits.map(|(_, wait)| wait.since).min()?;
        let waited = now.saturating_duration_since(since);
        let patience = if self.moves(role, now) { PATIENCE_WITH_A_PARTITION } else { PATIENCE };
        (waited >= patience).then_some(waited)
    }
}

/// The code of a trouble, and what it means.
type Finding = (&'static str, String);

/// What the leading relay tells of itself.
fn leading(sight: &Sight) -> impl Iterator<Item = &Sign> {
    let leader = sight.leader.as_ref();
    sight.signs.iter().filter(move |sign| sign.role == RELAY && Some(&sign.instance) == leader)
}

/// Nobody leads, although somebody lives who could.
fn not_leading(sight: &Sight, signs: &[&Sign]) -> Option<Finding> {
    let detail = match sight.led {
        Some(ago) if ago < PATIENCE => return None,
        Some(ago) => format!("no relay has led for {} s", ago.as_secs()),
        None => "no relay has led yet".to_owned(),
    };
    let why = longest_failure(signs).map_or_else(
        || "look at `ordermill relay status` and at the relays' logs".to_owned(),
        |failure| format!("{}; the relay's log says more", failure.what),
    );
    Some(("NOT_LEADING", format!("{detail}: {why}")))
}

/// Something has not worked for long in any of these processes, or a loop has not come round.
fn failing(signs: &[&Sign]) -> Option<Finding> {
    if let Some(failure) = longest_failure(signs).filter(|failure| failure.long >= PATIENCE) {
        return Some(fails(failure));
    }
    let turned = signs.iter().map(|sign| sign.turned).max().filter(|turned| *turned >= PATIENCE)?;
    Some((STANDS_STILL, format!("its loop has not come round for {} s; look at its log", turned.as_secs())))
}

fn longest_failure<'a>(signs: &[&'a Sign]) -> Option<&'a Failing> {
    signs.iter().filter_map(|sign| sign.failing.as_ref()).max_by_key(|failure| failure.long)
}

fn fails(failure: &Failing) -> Finding {
    ("FAILING", format!("{}, for {} s; its log says why", failure.what, failure.long.as_secs()))
}

fn silent(waited: Duration) -> String {
    let waited = waited.as_secs();
    format!(
        "no canary has come through Kafka for {waited} s, so no event would; look at its log and at Kafka"
    )
}

fn still(waited: Duration) -> String {
    format!(
        "what there is to do has waited for {} s, and nothing of it is done; look at its log",
        waited.as_secs()
    )
}
