//! Whose API key it is, remembered for a moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::future::Cache;
use ordermill_store::keys::{self, Identity};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::keys::digest;
use crate::problem::{Code, Problem};
use crate::rounds::in_rounds;

/// How long a key that another process has revoked still works here at most.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);
/// How often the keys that are in use are looked at, all at once, so that they need not be asked for one by one.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a key that this process has revoked is known as such. By then every request that asked the database before
/// has been answered or given up, and what it remembered is forgotten.
const REVOKED_FOR: Duration = Duration::from_secs(90);
/// How many keys are remembered at once.
const REMEMBERED_MAX: u64 = 100_000;
/// Longer keys are none of ours and are not worth hashing.
const KEY_LENGTH_MAX: usize = 256;

/// How many keys are looked up in one query at most.
const LOOKUP_MAX: usize = 256;
/// How many may wait for that.
const LOOKUPS_MAX: usize = 8_192;

/// Why a key says nothing about its bearer.
#[derive(Debug)]
enum Unidentified {
    UnknownKey,
    /// Nobody could be asked: too many wait, or the round has panicked.
    TooMany,
    Database(Arc<sqlx::Error>),
}

/// The hash of a key that nobody has shown lately, and who waits to hear whose it is.
type Lookup = ([u8; 32], oneshot::Sender<Result<Identity, Unidentified>>);

/// Whose keys were seen lately. Only keys that are valid are remembered, so that a new key works at once, and
/// only for a moment, so that a revoked one stops. One that was revoked here stops at once: a request that found it valid
/// a moment ago may still be about to remember it, so it isn't enough to forget it.
#[derive(Clone, Debug)]
pub(crate) struct Identities {
    known: Cache<[u8; 32], Remembered>,
    revoked: Cache<[u8; 32], ()>,
    lookups: mpsc::Sender<Lookup>,
    pool: PgPool,
}

/// Whose key it is, and whether anybody has shown it since that was last looked at.
#[derive(Clone, Debug)]
struct Remembered {
    identity: Identity,
    used: Arc<AtomicBool>,
}

impl From<Identity> for Remembered {
    fn from(identity: Identity) -> Remembered {
        Remembered { identity, used: Arc::default() }
    }
}

impl Identities {
    /// Starts looking keys up; that ends when everybody is answered after `drained`.
    pub(crate) fn start(pool: &PgPool, tasks: &TaskTracker, drained: &CancellationToken) -> Identities {
        let (lookups, asked) = mpsc::channel(LOOKUPS_MAX);
        let looked_up_in = pool.clone();
        tasks.spawn(in_rounds(asked, LOOKUP_MAX, drained.clone(), move |round| {
            let pool = looked_up_in.clone();
            async move { look_up(&pool, round).await }
        }));
        Identities {
            known: Cache::builder().time_to_live(REMEMBERED_FOR).max_capacity(REMEMBERED_MAX).build(),
            revoked: Cache::builder().time_to_live(REVOKED_FOR).max_capacity(REMEMBERED_MAX).build(),
            lookups,
            pool: pool.clone(),
        }
    }

    /// Whose key it is. Many requests with one key ask once, and keys that are asked for at once are one query.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where it is nobody's, `OVERLOADED` where too many wait to hear of theirs, or where the database fails.
    pub(crate) async fn of(&self, key: &str) -> Result<Identity, Problem> {
        let unknown = || Problem::new(Code::Unauthenticated, "this API key is unknown or revoked");
        if key.len() > KEY_LENGTH_MAX {
            return Err(unknown());
        }
        let hash = digest(key);
        if self.revoked.contains_key(&hash) {
            return Err(unknown());
        }
        if let Some(known) = self.known.get(&hash).await {
            known.used.store(true, Ordering::Relaxed);
            return Ok(known.identity);
        }
        let asked = self.known.try_get_with(hash, self.ask(hash));
        asked.await.map(|known| known.identity).map_err(|error: Arc<Unidentified>| match &*error {
            Unidentified::UnknownKey => unknown(),
            Unidentified::TooMany => Problem::overloaded(),
            Unidentified::Database(error) => Problem::from(&**error),
        })
    }

    async fn ask(&self, hash: [u8; 32]) -> Result<Remembered, Unidentified> {
        let (reply, answer) = oneshot::channel();
        self.lookups.try_send((hash, reply)).map_err(|_| Unidentified::TooMany)?;
        let identity = answer.await.map_err(|_| Unidentified::TooMany)??;
        Ok(Remembered::from(identity))
    }

    /// Remembers keys that are in use for longer as long as they are valid, until the stop.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        let keep = async {
            loop {
                tokio::time::sleep(KEEP_EVERY).await;
                self.keep_used().await;
            }
        };
        let _: Option<()> = stop.run_until_cancelled(keep).await;
    }

    async fn keep_used(&self) {
        let used = self.known.iter().filter(|(_, known)| known.used.swap(false, Ordering::Relaxed));
        let hashes: Vec<Vec<u8>> = used.map(|(hash, _)| hash.to_vec()).collect();
        if hashes.is_empty() {
            return;
        }
        let asked_at = Instant::now();
        match keys::valid(&self.pool, &hashes).await {
            // An answer that took long says little of now.
            Ok(valid) if asked_at.elapsed() < KEEP_EVERY => {
                for (hash, identity) in valid {
                    // The table lets no other length in.
                    let Ok(hash) = <[u8; 32]>::try_from(hash) else { continue };
                    self.known.insert(hash, Remembered::from(identity)).await;
                }
            }
            Ok(_) => {}
            // They are forgotten in a moment, and asked for one by one again.
            Err(error) => tracing::warn!(%error, "cannot see which keys are still valid"),
        }
    }

    /// Lets keys in no more whose revocation has been committed.
    pub(crate) async fn revoke(&self, key_hashes: Vec<Vec<u8>>) {
        for hash in key_hashes {
            // The table lets no other length in.
            let Ok(hash) = <[u8; 32]>::try_from(hash) else { continue };
            self.revoked.insert(hash, ()).await;
            self.known.invalidate(&hash).await;
        }
    }

    /// Knows a key without a database, for tests.
    #[cfg(test)]
    pub(crate) async fn remember(&self, key: &str, identity: Identity) {
        self.known.insert(digest(key), identity.into()).await;
    }
}

/// Answers all who wait to hear whose keys they have shown.
async fn look_up(pool: &PgPool, round: Vec<Lookup>) {
    let hashes: Vec<Vec<u8>> = round.iter().map(|(hash, _)| hash.to_vec()).collect();
    let valid: Result<HashMap<_, _>, _> =
        keys::valid(pool, &hashes).await.map(|valid| valid.into_iter().collect()).map_err(Arc::new);
    for (hash, reply) in round {
        let identity = match &valid {
            Ok(valid) => valid.get(hash.as_slice()).copied().ok_or(Unidentified::UnknownKey),
            Err(error) => Err(Unidentified::Database(error.clone())),
        };
        // Whoever has gone hears nothing.
        let _ = reply.send(identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::api_without_database;

    #[tokio::test]
    async fn a_key_that_was_revoked_here_does_not_get_in_even_if_it_is_remembered_afterwards() {
        let identities = &api_without_database().identities;
        identities.remember("om_1", Identity::Admin).await;
        assert_eq!(identities.of("om_1").await, Ok(Identity::Admin));
        identities.revoke(vec![digest("om_1").to_vec()]).await;
        // As a request does that asked the database just before.
        identities.remember("om_1", Identity::Admin).await;
        assert_eq!(identities.of("om_1").await.unwrap_err().code(), Code::Unauthenticated);
    }
}
