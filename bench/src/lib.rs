//! `ordermill-bench run`: how many orders a second the pipeline takes and settles, as multiples of what PostgreSQL itself
//! does on the same machine in the same run, and what one order costs.
//!
//! One run starts a stack of its own (as `ordermill up` does), and in turn measures
//! 1. T: `pgbench`, TPC-B-like, on the very server that the pipeline uses;
//! 2. rest: what the pipeline does while nobody orders, which is taken off the costs of all that follows;
//! 3. open loops at 20, 100 and 300 orders a second: the latency of acceptance and of settlement, from the moment at which
//!    an order was to be sent, and the cost of an order;
//! 4. the closed loop: every connection busy; the highest rate at which orders are accepted, and settled;
//! 5. an open loop at 30 % of that;
//! 6. a closed loop of orders of 50 lines;
//! 7. T again, now that the pipeline is idle;
//! 8. the replay: the log that all of this has written, plainly read and then replayed into the shadow.
//!
//! Then it proves by `verify` that what was fast was also right. Orders come over HTTP from a process of their own,
//! `ordermill-bench load`.
//!
//! An order counts as *accepted* with its 202, and as *settled* when it is CONFIRMED. The last CONFIRMED of a closed loop is
//! seen by asking the database for the oldest order that has not come to rest, twenty times a second: it is seen at most a
//! tenth of a second late. Of each load one order in ten asks the API to hold its answer until it rests (`Prefer: wait`), so
//! what is measured there is what such a client sees; the API looks every 10 to 25 ms.
//!
//! Where imports go: `load` and what it stands on know nothing of the stack; `run` knows them all.

pub mod args;
pub mod cost;
pub mod figures;
pub mod http;
pub mod latency;
pub mod load;
pub mod machine;
pub mod orders;
mod pgbench;
mod phase;
mod replay;
pub mod report;
pub mod run;
pub mod server;
pub mod setup;
pub mod shop;
pub mod stack;
