//! Verdicts: what a replay says of each letter, from its row or from an attempt.

use uuid::Uuid;

use super::working::{Letter, Task};
use super::{Code, State, Verdict};

/// What came of an attempt at one message: whether it changed anything, or why it can't be applied.
pub(crate) type Attempt = Result<bool, (Code, String)>;

/// The verdict on a letter.
pub(crate) struct Decision {
    pub(crate) dead_letter_id: Uuid,
    pub(crate) verdict: Verdict,
    pub(crate) detail: Option<String>,
}

impl Decision {
    /// A verdict that says all.
    pub(crate) fn plain(dead_letter_id: Uuid, verdict: Verdict) -> Decision {
        Decision { dead_letter_id, verdict, detail: None }
    }

    /// What an attempt at the letter comes to.
    pub(crate) fn of(letter: &Letter, attempt: Attempt) -> Decision {
        let dead_letter_id = letter.dead_letter_id;
        match attempt {
            Ok(had_effect) => Decision::plain(dead_letter_id, Verdict::of_effect(had_effect)),
            Err((code, error)) => {
                let detail = Some(format!("{}: {error}", code.name()));
                Decision { dead_letter_id, verdict: Verdict::FailedAgain, detail }
            }
        }
    }
}

/// Letters by what is to be done with them.
#[derive(Default)]
pub(crate) struct Sifted {
    /// Verdicts on those that need not be tried.
    pub(crate) decisions: Vec<Decision>,
    /// Those that have failed.
    pub(crate) failed: Vec<Letter>,
    /// Those that wait behind another.
    pub(crate) waiting: Vec<Letter>,
}

impl Sifted {
    /// Sifts the letters of a task. One that is being released is left for later.
    pub(crate) fn of(task: &Task, letters: Vec<Letter>) -> Sifted {
        let mut sifted = Sifted::default();
        for letter in letters {
            match letter.state {
                State::Parked | State::Replayed => sifted.failed.push(letter),
                State::Resolved => {
                    let verdict = letter.verdict_in(task);
                    sifted.decisions.push(Decision::plain(letter.dead_letter_id, verdict));
                }
                State::Discarded => sifted.decisions.push(Decision {
                    dead_letter_id: letter.dead_letter_id,
                    verdict: Verdict::FailedAgain,
                    detail: Some("it has been discarded meanwhile".to_owned()),
                }),
                State::Waiting if letter.releasing => {}
                State::Waiting => sifted.waiting.push(letter),
            }
        }
        sifted
    }
}
