//! Showing what takes its time.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar};

/// Is told of every step that may take over a second. Steps may run side by side.
pub trait Progress: Send + Sync {
    /// A step begins: "starting PostgreSQL".
    fn started(&self, step: &str);
    /// The step of that name has ended; `succeeded` is false if the error is on its way to the caller.
    fn ended(&self, step: &str, took: Duration, succeeded: bool);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn started(&self, _step: &str) {}
    fn ended(&self, _step: &str, _took: Duration, _succeeded: bool) {}
}

/// Writes to standard error: spinners where that is a terminal, plain lines elsewhere.
#[derive(Debug, Default)]
pub struct Terminal {
    bars: MultiProgress,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Terminal {
    /// Chooses between spinners and lines at each step, by what standard error then is.
    pub fn new() -> Terminal {
        Terminal::default()
    }

    fn line(&self, text: &str) {
        if self.bars.println(text).is_err() || !std::io::stderr().is_terminal() {
            eprintln!("{text}");
        }
    }
}

impl Progress for Terminal {
    fn started(&self, step: &str) {
        if !std::io::stderr().is_terminal() {
            eprintln!("{step} ...");
            return;
        }
        let bar = self.bars.add(ProgressBar::new_spinner().with_message(step.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(step.to_owned(), bar);
    }

    fn ended(&self, step: &str, took: Duration, succeeded: bool) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(step) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        let verdict = if succeeded { "done" } else { "failed" };
        self.line(&format!("{step}: {verdict} ({:.1} s)", took.as_secs_f64()));
    }
}

/// Reports one step around `work`.
pub(crate) fn during<T, E>(
    progress: &dyn Progress,
    step: &str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let start = Instant::now();
    progress.started(step);
    let result = work();
    progress.ended(step, start.elapsed(), result.is_ok());
    result
}
