//! The state tables, made again from the log alone.
//!
//! It writes to a schema of its own and to nothing else, but for a swap, which puts a projection in place. Nothing is
//! appended to the log, no worker is told, no gateway is asked.

mod progress;
mod rebuild;
mod swap;

pub use progress::Progress;
pub use rebuild::{Options, Rebuilt, Undecodable, rebuild};
pub(crate) use swap::swap;

/// How many processors there are to be used, at most as many as a replay takes parts.
#[must_use]
pub fn processors() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(processors).unwrap_or(1).min(64)
}
