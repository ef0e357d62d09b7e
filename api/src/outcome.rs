//! What a request has had decided.

use ordermill_domain::capability::Decided;
use ordermill_pipeline::journal::Projection;
use ordermill_pipeline::log::Origin;
use ordermill_store::notes::Note;
use ordermill_store::{Decision, Written};

/// What was decided for a request, and what the request says of it in words of somebody's own.
pub(crate) struct Outcome {
    decided: Vec<Decided>,
    note: Option<Note>,
}

impl Outcome {
    /// What was decided with a note of it. Where nothing was, the note says nothing.
    pub(crate) fn noted(decided: Vec<Decided>, note: Option<Note>) -> Outcome {
        let note = note.filter(|_| !decided.is_empty());
        Outcome { decided, note }
    }

    /// The same to be written, with where it comes from and what is answered.
    pub(crate) fn decision<T>(self, origin: &Origin, answer: T) -> Decision<T> {
        let note = self.note.map(|note| -> Box<dyn Projection> { Box::new(note) });
        Decision {
            written: Written::asked_for(self.decided, origin),
            beside: note.into_iter().collect(),
            answer,
        }
    }
}

impl From<Vec<Decided>> for Outcome {
    fn from(decided: Vec<Decided>) -> Outcome {
        Outcome { decided, note: None }
    }
}
