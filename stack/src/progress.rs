//! Showing what takes its time.

use std::io::{IsTerminal, Write as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar};

/// Where steps are shown that may take over a second. They may run side by side.
#[derive(Debug, Clone)]
pub enum Progress {
    /// Nowhere.
    Quiet,
    /// On standard error: spinners where that is a terminal, plain lines elsewhere.
    Terminal(MultiProgress),
}

/// A step that has begun.
#[derive(Debug)]
pub struct Step<'a> {
    progress: &'a Progress,
    name: String,
    spinner: Option<ProgressBar>,
    began_at: Instant,
}

impl Progress {
    /// Shows steps on standard error.
    pub fn terminal() -> Progress {
        Progress::Terminal(MultiProgress::new())
    }

    /// Begins a step, "starting PostgreSQL": `progress.begin(name).end(work())`.
    pub fn begin(&self, name: &str) -> Step<'_> {
        let spinner = match self {
            Progress::Terminal(bars) if stderr().is_terminal() => {
                let bar = bars.add(ProgressBar::new_spinner().with_message(name.to_owned()));
                bar.enable_steady_tick(Duration::from_millis(100));
                Some(bar)
            }
            Progress::Terminal(_) => {
                tell(&format!("{name} ..."));
                None
            }
            Progress::Quiet => None,
        };
        Step { progress: self, name: name.to_owned(), spinner, began_at: Instant::now() }
    }
}

impl Step<'_> {
    /// Ends the step with what came of it.
    pub fn end<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        let Progress::Terminal(bars) = self.progress else { return result };
        let verdict = if result.is_ok() { "done" } else { "failed" };
        let line = format!("{}: {verdict} ({:.1} s)", self.name, self.began_at.elapsed().as_secs_f64());
        if let Some(spinner) = self.spinner {
            spinner.finish_and_clear();
            bars.remove(&spinner);
        }
        if bars.println(&line).is_err() || !stderr().is_terminal() {
            tell(&line);
        }
        result
    }
}

/// Where standard error is closed nobody wants to know, and the work goes on.
fn tell(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
