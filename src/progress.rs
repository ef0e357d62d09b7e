//! How far something is: a bar where standard error is a terminal, else a line now and then.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::note;

/// A bar, which goes when the value is dropped.
pub(crate) struct Bar {
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    tell_every: Duration,
    told_at: Instant,
}

impl Bar {
    /// One that looks so. Where there is no terminal, a line is written every `tell_every`, first after that time.
    pub(crate) fn new(template: &str, tell_every: Duration) -> Bar {
        let bar = ProgressBar::no_length().with_style(style(template));
        Bar { bar, tell_every, told_at: Instant::now() }
    }

    /// So much is done of so much, with a message on the bar, or else that line.
    pub(crate) fn at(
        &mut self,
        done: u64,
        of: u64,
        message: impl Into<String>,
        line: impl FnOnce() -> String,
    ) {
        self.bar.set_length(of);
        self.bar.set_position(done);
        self.bar.set_message(message.into());
        if self.bar.is_hidden() && self.told_at.elapsed() >= self.tell_every {
            self.told_at = Instant::now();
            note(&line());
        }
    }

    /// Writes a line above the bar.
    pub(crate) fn warn(&self, warning: &str) {
        self.bar.suspend(|| note(warning));
    }
}

/// What a bar looks like.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
