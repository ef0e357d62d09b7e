//! What can go wrong, each in one line that says what to do.

use std::fmt::Display;
use std::path::Path;

/// The result of this crate's functions.
pub type Result<T, E = StackError> = std::result::Result<T, E>;

/// Why a part of the stack could not be started, stopped or used. Every message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// Something else listens on the port that was asked for.
    #[error("port {port} for {what} is in use: stop the program that listens there, or choose another port")]
    PortInUse {
        /// Which part of the stack wanted it.
        what: String,
        /// The port.
        port: u16,
    },

    /// Anything else, in words: nobody has to tell one from the other.
    #[error("{0}")]
    Other(String),
}

impl StackError {
    /// Turns an I/O error into ours: `map_err(StackError::io("read", path))`.
    pub(crate) fn io(verb: &str, path: &Path) -> impl FnOnce(std::io::Error) -> StackError {
        move |error| StackError::Other(format!("can't {verb} {}: {error}", path.display()))
    }

    /// Turns an error of the PostgreSQL client into ours; of what the server says, the first line is told.
    pub(crate) fn database(doing: &str) -> impl FnOnce(sqlx::Error) -> StackError {
        move |error| {
            let text = error.to_string();
            StackError::Other(format!("PostgreSQL: {doing}: {}", text.lines().next().unwrap_or_default()))
        }
    }

    /// A program that we need is not there, or is too old.
    pub(crate) fn not_installed(program: impl Display, remedy: &str) -> StackError {
        StackError::Other(format!("{program} is not installed: {remedy}"))
    }

    /// The data of a PostgreSQL cluster is there, but can't be used as it is.
    pub(crate) fn unusable_data(path: &Path, reason: impl Display) -> StackError {
        StackError::Other(format!("the PostgreSQL data in {} can't be used: {reason}", path.display()))
    }
}
