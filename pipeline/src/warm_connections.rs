//! Warm connections: those that are kept at hand between statements.
//!
//! The pool asks a connection whether it is alive before it hands it out, and again when it comes back: three round trips for a
//! statement that needs one. And it hands out the one that has rested for longest, whose server process has forgotten most. What
//! is written all the time goes over these instead, the last one used first, and only one that has rested is asked.
//!
//! None is kept from anybody: where all connections of the pool are out, what comes back goes to the pool, for whoever waits there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgPool, Postgres, Transaction};

use crate::database::{self, ALIVE_FOR};

/// Of how many connections of a pool that others have as well one may be kept.
const ONE_OF: u32 = 4;

/// Connections, and since when they are idle.
type AtHand = Vec<(PoolConnection<Postgres>, Instant)>;

/// The connections that are at hand. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct WarmConnections {
    pool: PgPool,
    max: usize,
    at_hand: Arc<Mutex<AtHand>>,
}

impl WarmConnections {
    /// Of a pool that others have as well, for whom most connections stay free.
    pub(crate) fn among_others(pool: &PgPool) -> WarmConnections {
        WarmConnections::keeping(pool.options().get_max_connections() / ONE_OF, pool)
    }

    /// Of a pool that is there for them alone.
    pub(crate) fn alone(pool: &PgPool) -> WarmConnections {
        WarmConnections::keeping(pool.options().get_max_connections(), pool)
    }

    fn keeping(max: u32, pool: &PgPool) -> WarmConnections {
        let max = usize::try_from(max).unwrap_or(0);
        WarmConnections { pool: pool.clone(), max, at_hand: Arc::default() }
    }

    /// One that is at hand, or else one of the pool's. It is to be given back once it has served well; dropped, it goes back to the pool,
    /// which looks what is wrong with it.
    pub(crate) async fn take(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let at_hand = self.lock().pop();
        if let Some((mut connection, since)) = at_hand
            && !self.pool.is_closed()
            && (since.elapsed() < ALIVE_FOR || connection.ping().await.is_ok())
        {
            return Ok(connection);
        }
        self.pool.acquire().await
    }

    /// Takes one back that is idle.
    pub(crate) fn give_back(&self, connection: PoolConnection<Postgres>) {
        let mut at_hand = self.lock();
        if at_hand.len() < self.max && !self.pool.is_closed() && !database::is_spent(&self.pool) {
            at_hand.push((connection, Instant::now()));
        }
    }

    /// Begins a transaction, which only a connection of the pool's can. Where all are out, one that rests at hand goes back for it.
    ///
    /// # Errors
    /// Where no connection can be had.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        if database::is_spent(&self.pool) {
            let at_rest = self.lock().pop();
            drop(at_rest);
        }
        let begun = database::begin(&self.pool).await;
        // Meanwhile others may have come to wait, who do not know of those at rest.
        if database::is_spent(&self.pool) {
            self.lock().clear();
        }
        begun
    }

    /// Closes the pool, at once for whoever waits for one of its connections; done once all have come back.
    pub(crate) fn close(&self) -> impl Future<Output = ()> {
        let closed = self.pool.close();
        self.lock().clear();
        closed
    }

    fn lock(&self) -> MutexGuard<'_, AtHand> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
