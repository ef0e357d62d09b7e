//! Structured logs.

use std::env;
use std::io::{IsTerminal as _, stderr};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// What is never logged, whatever is asked for: sqlx shows the value of a parameter of the database's address that it does not know, which
/// may be a password.
const NEVER: &str = "sqlx_postgres::options::parse=off";

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Sends logs to standard error. `RUST_LOG` chooses what is logged; `default_filter` does where it is not set.
pub fn start(format: LogFormat, default_filter: &str) {
    let builder = tracing_subscriber::fmt()
        // Where standard error is closed, the complaint about that would end whoever logs.
        .log_internal_errors(false)
        .with_env_filter(filter(env::var(EnvFilter::DEFAULT_ENV).ok(), default_filter))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// What was asked for where that can be understood, else `default_filter`.
fn filter(asked_for: Option<String>, default_filter: &str) -> EnvFilter {
    let asked_for = asked_for.filter(|text| !text.trim().is_empty() && EnvFilter::try_new(text).is_ok());
    EnvFilter::new(format!("{},{NEVER}", asked_for.as_deref().unwrap_or(default_filter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directives of a filter, sorted.
    fn directives(asked_for: Option<&str>) -> Vec<String> {
        let filter = filter(asked_for.map(str::to_owned), "warn,sqlx::query=error").to_string();
        let mut directives: Vec<String> = filter.split(',').map(str::to_owned).collect();
        directives.sort();
        directives
    }

    #[test]
    fn what_is_asked_for_is_logged_but_for_what_never_is() {
        let default = ["sqlx::query=error", NEVER, "warn"];
        for nothing in [None, Some(""), Some(" "), Some("x=loud")] {
            assert_eq!(directives(nothing), default, "{nothing:?}");
        }
        assert_eq!(directives(Some("debug")), ["debug", NEVER]);
        for itself in ["debug,sqlx_postgres::options::parse=trace", "sqlx_postgres=trace"] {
            assert!(directives(Some(itself)).contains(&NEVER.to_owned()), "{itself}");
        }
    }
}
