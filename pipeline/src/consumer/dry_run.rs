//! Dry runs: what would come of letters, decided in memory.
//!
//! A letter that nothing of the replay waits behind is decided from the rows as they are, after the others that are decided with it. What
//! waits is decided as it would be released: the line of its key is gone through from the letter that the key is parked for, up to
//! the first that fails. Each letter of a line is gone through once, in however many transactions that is: a member remembers how
//! far it has come, and the documents as they would be by then. What it does not remember, since it has just started, say, it goes
//! through again.
//!
//! Nothing but the items of the replay is locked, so whoever has messages of the same keys does not wait.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::Handler;
use super::attempt::{Attempter, On};
use crate::dead_letters::Verdict;
use crate::dead_letters::verdicts::{Decision, Sifted};
use crate::dead_letters::working::{Key, Letter, Task, Work};
use crate::journal::{Foreseen, JournalError};

/// How many letters of a line are decided together.
const STEP_MAX: i64 = 100;
/// How many letters of lines are gone through in one transaction.
const LETTERS_MAX: i64 = 1_000;
/// Of how many replays it is remembered how far they have come.
const REMEMBERED_MAX: usize = 8;

/// The dry runs that a member works at.
#[derive(Default)]
pub(super) struct DryRuns {
    /// Of each replay, the line that was gone through last.
    lines: HashMap<Uuid, Line>,
}

/// What a member has done for a dry run.
pub(super) struct Foretold {
    pub(super) decisions: Vec<Decision>,
    /// It has come further, if not to a letter that the replay wants.
    pub(super) went_on: bool,
}

impl DryRuns {
    /// Says what would come of the letters of a task. Those that are not come to yet, and those that are being released, are left
    /// for later.
    pub(super) async fn decide<H: Handler>(
        &mut self,
        work: &mut Work,
        attempts: &Attempter<'_, H>,
        task: &Task,
    ) -> Result<Foretold, JournalError> {
        let letters = work.letters(&task.dead_letter_ids).await?;
        let Sifted { mut decisions, failed, waiting } = Sifted::of(task, letters);
        let heads: Vec<Uuid> = waiting.iter().filter_map(|letter| letter.waits_for).collect();
        let heads = work.selected(task, &heads).await?;
        let (of_lines, alone): (Vec<Letter>, Vec<Letter>) =
            failed.into_iter().partition(|letter| heads.contains(&letter.dead_letter_id));
        // It would be released by its key's letter, if the replay has that, too.
        let (released, left): (Vec<Letter>, Vec<Letter>) = waiting
            .into_iter()
            .partition(|letter| letter.waits_for.is_some_and(|head| heads.contains(&head)));
        let waits = |letter: &Letter| Decision::plain(letter.dead_letter_id, Verdict::Waiting);
        decisions.extend(left.iter().map(waits));
        let mut foreseen = Foreseen::default();
        let on = On::Memory(&mut work.transaction, &mut foreseen);
        let (outcomes, _) = attempts.attempt(on, &alone, false).await?;
        decisions.extend(alone.iter().zip(outcomes).map(|(letter, outcome)| Decision::of(letter, outcome)));

        let stretches = stretches(task, of_lines.into_iter().chain(released));
        let went_on = self.go_on(work, attempts, task, &stretches, &mut decisions).await?;
        Ok(Foretold { decisions, went_on })
    }

    /// Goes on through lines, one after the other. Answers whether any letter was gone through.
    async fn go_on<H: Handler>(
        &mut self,
        work: &mut Work,
        attempts: &Attempter<'_, H>,
        task: &Task,
        stretches: &[Stretch],
        decisions: &mut Vec<Decision>,
    ) -> Result<bool, JournalError> {
        if stretches.is_empty() {
            return Ok(false);
        }
        let mut known = self.lines.remove(&task.replay_id);
        if known.is_none() {
            self.forget_what_is_done(work).await?;
        }
        let can_remember = self.lines.len() < REMEMBERED_MAX;
        // What can't be remembered has to come to its end at once.
        let budget = if can_remember { LETTERS_MAX } else { i64::MAX };
        let mut left = budget;
        for stretch in stretches {
            if left == 0 {
                break;
            }
            let line = known.take().filter(|line| line.is_before(stretch));
            let mut line = line.unwrap_or_else(|| Line::new(stretch.head));
            decisions.extend(line.go_on(work, attempts, stretch, &mut left).await?);
            known = Some(line);
        }
        if let Some(line) = known.filter(|_| can_remember) {
            self.lines.insert(task.replay_id, line);
        }
        Ok(left < budget)
    }

    async fn forget_what_is_done(&mut self, work: &mut Work) -> Result<(), sqlx::Error> {
        if !self.lines.is_empty() {
            let remembered: Vec<Uuid> = self.lines.keys().copied().collect();
            let under_way = work.under_way(&remembered).await?;
            self.lines.retain(|replay_id, _| under_way.contains(replay_id));
        }
        Ok(())
    }
}

/// Letters of a task that are in the line of one key.
struct Stretch {
    key: Key,
    /// The letter that the key is parked for.
    head: Uuid,
    /// By their ordinals.
    letters: BTreeMap<i64, Uuid>,
}

impl Stretch {
    fn first(&self) -> i64 {
        self.letters.keys().next().copied().unwrap_or_default()
    }

    fn last(&self) -> i64 {
        self.letters.keys().next_back().copied().unwrap_or_default()
    }
}

/// The stretches of letters, in the order in which the task has them.
fn stretches(task: &Task, letters: impl Iterator<Item = Letter>) -> Vec<Stretch> {
    let mut of_heads: HashMap<Uuid, Stretch> = HashMap::new();
    for letter in letters {
        let head = letter.waits_for.unwrap_or(letter.dead_letter_id);
        let stretch = of_heads.entry(head).or_insert_with(|| {
            let (topic, record_key) =
                (letter.record.place.topic.clone(), letter.record.parking_key().to_vec());
            Stretch { key: Key { topic, record_key }, head, letters: BTreeMap::new() }
        });
        stretch.letters.insert(letter.ordinal, letter.dead_letter_id);
    }
    let places: HashMap<Uuid, usize> =
        task.dead_letter_ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let mut stretches: Vec<Stretch> = of_heads.into_values().collect();
    stretches.sort_by_key(|stretch| stretch.letters.values().filter_map(|id| places.get(id)).min().copied());
    stretches
}

/// A line that is being gone through.
struct Line {
    head: Uuid,
    /// The ordinal of the last letter that was gone through.
    upto: i64,
    /// That one can't be applied, so what is behind it would go on waiting.
    is_blocked: bool,
    foreseen: Foreseen,
}

impl Line {
    /// At its beginning.
    fn new(head: Uuid) -> Line {
        Line { head, upto: 0, is_blocked: false, foreseen: Foreseen::default() }
    }

    /// Whether it comes to all of the stretch from here.
    fn is_before(&self, stretch: &Stretch) -> bool {
        self.head == stretch.head && self.upto < stretch.first()
    }

    /// Goes on to the end of the stretch, by `left` letters at most, and takes those off. Answers verdicts on what it came to.
    async fn go_on<H: Handler>(
        &mut self,
        work: &mut Work,
        attempts: &Attempter<'_, H>,
        stretch: &Stretch,
        left: &mut i64,
    ) -> Result<Vec<Decision>, JournalError> {
        let mut decisions = Vec::new();
        while !self.is_blocked && self.upto < stretch.last() && *left > 0 {
            // The letter that failed is tried by itself, as in a replay: what waits behind it may only be tried once it is applied, and
            // both together may keep a rule that one of them breaks.
            let limit = if self.upto == 0 { 1 } else { STEP_MAX.min(*left) };
            let letters = work.line(&stretch.key, self.upto, stretch.last(), limit).await?;
            // The others are done with by now.
            let Some(last) = letters.last() else { break };
            let on = On::Memory(&mut work.transaction, &mut self.foreseen);
            let (outcomes, _) = attempts.attempt(on, &letters, true).await?;
            self.upto = last.ordinal;
            self.is_blocked = outcomes.iter().any(Result::is_err);
            self.foreseen.end_step();
            *left -= i64::try_from(letters.len()).unwrap_or(*left);
            let decided = letters.iter().zip(outcomes);
            let decided = decided.filter(|(letter, _)| stretch.letters.contains_key(&letter.ordinal));
            decisions.extend(decided.map(|(letter, outcome)| Decision::of(letter, outcome)));
        }
        if self.is_blocked {
            let decided: HashSet<Uuid> = decisions.iter().map(|decision| decision.dead_letter_id).collect();
            let behind = stretch.letters.values().filter(|id| !decided.contains(*id));
            decisions.extend(behind.map(|id| Decision::plain(*id, Verdict::Waiting)));
        }
        Ok(decisions)
    }
}
