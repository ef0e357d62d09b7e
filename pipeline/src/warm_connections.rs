//! Warm connections: those that are kept at hand between statements.
//!
//! The pool asks a connection whether it is alive before it hands it out, and again when it comes back: three round trips for a
//! statement that needs one. And it hands out the one that has rested for longest, whose server process has forgotten most. What
//! is written all the time goes over these instead, the last one used first, and only one that has rested is asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgPool, Postgres};

use crate::database::ALIVE_FOR;

/// Of how many connections of the pool one may be kept.
const ONE_OF: u32 = 3;

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
    /// Of that pool, of which most connections stay free.
    pub(crate) fn of(pool: &PgPool) -> WarmConnections {
        let max = usize::try_from(pool.options().get_max_connections() / ONE_OF).unwrap_or(0);
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
        if at_hand.len() < self.max && !self.pool.is_closed() {
            at_hand.push((connection, Instant::now()));
        }
    }

    /// Gives all back to the pool, so that it can be closed.
    pub(crate) fn let_go(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, AtHand> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
