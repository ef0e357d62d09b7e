//! `ordermill-bench run`: how many orders a second the pipeline takes and settles, as multiples of what PostgreSQL itself
//! does on the same machine in the same run, and what one order costs.
//!
//! One run starts a stack of its own (as `ordermill up` does), and measures what [`plan::Measurement`] lists, in that order,
//! or what `--only` names. First come rest, which is taken off the costs of all that follows, and slow loops: of a small
//! database the server does nothing behind the orders' backs. Then come the highest rates, and last what takes the pipeline
//! apart: an API without relay and workers, and a relay on what waits, on a database of their own. T is measured before and
//! after.
//!
//! Then it proves by `verify` that what was fast was also right. Orders come over HTTP from a process of their own,
//! `ordermill-bench load`. `ordermill-bench long` places many orders, and looks whether memory grows.
//!
//! An order counts as *accepted* with its 202, and as *settled* when it is CONFIRMED. The last CONFIRMED of a closed loop is
//! seen by asking the database for the oldest order that has not come to rest, twenty times a second: it is seen at most a
//! tenth of a second late. Of each load one order in ten asks the API to hold its answer until it rests (`Prefer: wait`), so
//! what is measured there is what such a client sees. Beside it stands what the database says of every order of the loop:
//! when it was accepted, and when it last changed visibly.
//!
//! Where imports go: `load` and what it stands on know nothing of the stack; `run` and `long` know them all.

mod apart;
pub mod args;
mod backlog;
mod bare;
mod claims;
pub mod cost;
pub mod drawing;
pub mod figures;
pub mod http;
pub mod latency;
pub mod load;
pub mod long;
pub mod machine;
mod memory;
pub mod orders;
mod pgbench;
mod phase;
pub mod plan;
mod replay;
pub mod report;
pub mod run;
mod seen;
pub mod server;
pub mod setup;
pub mod shop;
pub mod stack;
pub mod timetable;
