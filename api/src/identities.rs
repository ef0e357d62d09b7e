//! Whose API key it is, remembered for a moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::future::Cache;
use ordermill_store::keys::{self, Identity};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::keys::digest;
use crate::problem::{Code, Problem};

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

/// Why a key says nothing about its bearer.
enum Unidentified {
    UnknownKey,
    Database(sqlx::Error),
}

/// Whose keys were seen lately. Only keys that are valid are remembered, so that a new key works at once, and
/// only for a moment, so that a revoked one stops. One that was revoked here stops at once: a request that found it valid
/// a moment ago may still be about to remember it, so it isn't enough to forget it.
#[derive(Clone, Debug)]
pub(crate) struct Identities {
    known: Cache<[u8; 32], Remembered>,
    revoked: Cache<[u8; 32], ()>,
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
    pub(crate) fn new() -> Identities {
        Identities {
            known: Cache::builder().time_to_live(REMEMBERED_FOR).max_capacity(REMEMBERED_MAX).build(),
            revoked: Cache::builder().time_to_live(REVOKED_FOR).max_capacity(REMEMBERED_MAX).build(),
        }
    }

    /// Whose key it is. Many requests with one key ask the database once.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where it is nobody's, or where the database fails.
    pub(crate) async fn of(&self, pool: &PgPool, key: &str) -> Result<Identity, Problem> {
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
        let asked = self.known.try_get_with(hash, async {
            match keys::find(pool, &hash).await {
                Ok(Some(identity)) => Ok(Remembered::from(identity)),
                Ok(None) => Err(Unidentified::UnknownKey),
                Err(error) => Err(Unidentified::Database(error)),
            }
        });
        asked.await.map(|known| known.identity).map_err(|error: Arc<Unidentified>| match &*error {
            Unidentified::UnknownKey => unknown(),
            Unidentified::Database(error) => Problem::from(error),
        })
    }

    /// Remembers keys that are in use for longer as long as they are valid, until the stop.
    pub(crate) async fn keep(self, pool: PgPool, stop: CancellationToken) {
        let keep = async {
            loop {
                tokio::time::sleep(KEEP_EVERY).await;
                self.keep_used(&pool).await;
            }
        };
        let _: Option<()> = stop.run_until_cancelled(keep).await;
    }

    async fn keep_used(&self, pool: &PgPool) {
        let used = self.known.iter().filter(|(_, known)| known.used.swap(false, Ordering::Relaxed));
        let used: HashMap<Vec<u8>, Identity> =
            used.map(|(hash, known)| (hash.to_vec(), known.identity)).collect();
        if used.is_empty() {
            return;
        }
        let (hashes, asked_at): (Vec<Vec<u8>>, _) = (used.keys().cloned().collect(), Instant::now());
        match keys::valid(pool, &hashes).await {
            // An answer that took long says little of now.
            Ok(valid) if asked_at.elapsed() < KEEP_EVERY => {
                for hash in valid {
                    let (Some(identity), Ok(hash)) = (used.get(&hash), hash.as_slice().try_into()) else {
                        continue;
                    };
                    self.known.insert(hash, Remembered::from(*identity)).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parts_without_database;

    #[tokio::test]
    async fn a_key_that_was_revoked_here_does_not_get_in_even_if_it_is_remembered_afterwards() {
        let (identities, pool) = (Identities::new(), &parts_without_database().journal.pool);
        identities.remember("om_1", Identity::Admin).await;
        assert_eq!(identities.of(pool, "om_1").await, Ok(Identity::Admin));
        identities.revoke(vec![digest("om_1").to_vec()]).await;
        // As a request does that asked the database just before.
        identities.remember("om_1", Identity::Admin).await;
        assert_eq!(identities.of(pool, "om_1").await.unwrap_err().code(), Code::Unauthenticated);
    }
}
