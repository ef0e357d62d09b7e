//! PostgreSQL, Kafka and the payment gateway as child processes on one machine.
//!
//! `ordermill up` and the end-to-end tests start the same three programs with this crate. Everything here blocks and
//! stands on plain threads and processes, so that nothing depends on the async runtime that happened to ask first;
//! from async code call it through `tokio::task::spawn_blocking`.
//!
//! Invariants:
//! - A child never outlives this process, however this process ends (see [`Child`]).
//! - A data directory has one owner at a time; a second one is told who has it.
//! - A directory that looks finished is finished: clusters, logs and jars are made under another name and renamed.
//! - Nothing listens on anything but the loopback address.
//! - Where a server is given a certificate, it answers by TLS alone.
//! - What is kept is its owner's alone: directories are 0700 and files 0600, whatever the umask is and an earlier version has made.

mod cache;
mod certificates;
mod child;
mod claim;
mod error;
mod files;
mod gateway;
mod kafka;
mod ports;
mod postgres;
mod processes;
mod programs;
mod progress;
mod runtime;
#[cfg(feature = "testing")]
mod schemathesis;
mod scratch;
mod server;
mod spawner;
#[cfg(feature = "testing")]
mod test_stack;
mod wait;

pub use certificates::{Certificates, ServerTls};
pub use child::{Child, Program};
pub use error::{Result, StackError};
pub use files::{make_private_dir, private_data_dir, write_private};
pub use gateway::{Gateway, GatewayOptions};
pub use kafka::{KAFKA_VERSION, Kafka, KafkaOptions, KafkaSecurity, properties_text};
pub use nix::sys::signal::Signal;
pub use ports::free_port;
pub use postgres::{Postgres, PostgresOptions, postgres_program};
pub use programs::sibling_program;
pub use progress::Progress::{self, Quiet};
#[cfg(feature = "testing")]
pub use schemathesis::schemathesis;
pub use scratch::Scratch;
pub use server::Server;
#[cfg(feature = "testing")]
pub use test_stack::{Private, TestStack};
