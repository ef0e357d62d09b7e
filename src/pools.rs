//! Who has which of a process's connections to PostgreSQL.
//!
//! Relay, workers and API have connections of their own: however many ask the API, it keeps neither relay nor worker from one. Who waits for
//! a connection waits for those alone who have the same; each of them holds it for statements, locks and transactions that the
//! database puts an end to (`pipeline/src/database.rs`).
//!
//! The API has two kinds. Where it decides about what a worker decides about as well, the worker waits for its turn
//! (`pipeline/src/journal/turns.rs`), which begins before there is a connection to write with. Those connections nobody has who reads.
//! Orders and claims are taken in rounds, which wait for no lock. They have connections of their own as well: others who decide may wait
//! for locks that a worker holds which has stopped in the middle of a batch.

use anyhow::Result;
use ordermill_pipeline::database;
use sqlx::PgPool;

use crate::database::not_connected;

/// How many connections a process opens at most, whatever runs in it. Workers have what relay and API leave. They can hold two for each group for as long as
/// a lock lasts, one for the timers and one for what the gateway has answered; all else of theirs is short statements, for which there must be one more.
const ALL: u32 = 27;
/// How many the relay has: it reads the log while it writes its cursor, and keeps its lease while it goes back.
const RELAY: u32 = 3;
/// How many a relay's process has besides, for its start, its signs of life and its wire keys.
const BESIDE_THE_RELAY: u32 = 2;
/// How many the API reads with, beside relay and workers.
pub const READING: u32 = 5;
/// How many it decides with, beside relay and workers.
const DECIDING: u32 = 3;
/// How many there are for the rounds in which orders and claims are taken: of each one at a time, and one in reserve.
const ROUNDS: u32 = 3;
/// How many the API decides with in a process of its own, out of all.
const DECIDING_ALONE: u32 = 8;

/// What runs in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// API, relay and workers.
    All,
    /// The API.
    Api,
    /// A relay.
    Relay,
    /// Workers.
    Workers,
}

/// The connections of a process.
pub(crate) struct Pools {
    /// Those of workers, and for what a process does for itself: its start, its signs of life, its wire keys.
    pub(crate) workers: PgPool,
    /// Those of the relay.
    pub(crate) relay: PgPool,
    /// Those that the API reads with.
    pub(crate) reading: PgPool,
    /// Those that it decides with.
    pub(crate) deciding: PgPool,
    /// Those by which it takes orders and claims.
    pub(crate) rounds: PgPool,
}

impl Pools {
    /// The same connections for all that runs.
    fn of_one(pool: &PgPool) -> Pools {
        let pool = || pool.clone();
        Pools { workers: pool(), relay: pool(), reading: pool(), deciding: pool(), rounds: pool() }
    }
}

impl Parts {
    /// Opens their connections. What does not run has none of its own.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub(crate) async fn connect(self, url: &str) -> Result<Pools> {
        Ok(match self {
            Parts::All => Pools {
                workers: open(url, "workers", ALL - RELAY - READING - DECIDING - ROUNDS).await?,
                relay: open(url, "relay", RELAY).await?,
                reading: open(url, "api", READING).await?,
                deciding: open(url, "api-deciding", DECIDING).await?,
                rounds: open(url, "api-rounds", ROUNDS).await?,
            },
            Parts::Api => {
                let reading = open(url, "api", ALL - DECIDING_ALONE - ROUNDS).await?;
                let deciding = open(url, "api-deciding", DECIDING_ALONE).await?;
                let rounds = open(url, "api-rounds", ROUNDS).await?;
                Pools { deciding, rounds, ..Pools::of_one(&reading) }
            }
            Parts::Relay => {
                let process = open(url, "relay-process", BESIDE_THE_RELAY).await?;
                Pools { relay: open(url, "relay", RELAY).await?, ..Pools::of_one(&process) }
            }
            Parts::Workers => Pools::of_one(&open(url, "workers", ALL - ROUNDS).await?),
        })
    }
}

async fn open(url: &str, name: &str, connections_max: u32) -> Result<PgPool> {
    database::connect_service(url, &format!("ordermill-{name}"), connections_max).await.map_err(not_connected)
}
