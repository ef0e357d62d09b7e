//! Whose API key it is, remembered for a moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::future::Cache;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::journal::Journal;
use ordermill_store::keys::{self, Identity, Standing};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::keys::digest;
use crate::refusals::Reason;
use crate::rounds::in_rounds;

/// How long a key is remembered: one that has expired or that another process has revoked works here that much longer, and for
/// as long as the database took to say that it was valid.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);
/// How often the keys that are in use are looked at, all at once, so that they need not be asked for one by one.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a key that this process has revoked is known as such. By then every request that asked the database before
/// has been answered or given up, and what it remembered is forgotten.
const REVOKED_FOR: Duration = Duration::from_secs(90);
/// How many keys are remembered at once.
const REMEMBERED_MAX: u64 = 100_000;
/// How long it is remembered which keys are administrators', where somebody had to ask.
const ADMINISTRATORS_FOR: Duration = Duration::from_secs(1);

/// How many keys are looked up in one query at most.
const LOOKUP_MAX: usize = 256;
/// How many may wait for that.
const LOOKUPS_MAX: usize = 8_192;

/// Why a key says nothing about its bearer.
#[derive(Clone, Debug)]
pub(crate) enum Unidentified {
    /// It lets nobody in.
    Refused(Reason),
    /// Nobody could be asked: too many wait, or the round has panicked.
    TooMany,
    /// The database failed.
    Database(Arc<sqlx::Error>),
}

/// The hash of a key that nobody has shown lately, and who waits to hear whose it is.
type Lookup = ([u8; 32], oneshot::Sender<Result<Identity, Unidentified>>);

/// Whose keys were seen lately. Only keys that are valid are remembered, so that a new key works at once, and
/// only for a moment, so that a revoked one stops. One that was revoked here stops at once: a request that found it valid
/// a moment ago may still be about to remember it, so it isn't enough to forget it. What guessed keys cost is bounded all the same:
/// rounds follow one another, so all of them together have one connection, and a statement for up to [`LOOKUP_MAX`] of them.
#[derive(Clone, Debug)]
pub(crate) struct Identities {
    known: Cache<[u8; 32], Remembered>,
    revoked: Cache<[u8; 32], ()>,
    administrators: Cache<(), Arc<HashSet<Vec<u8>>>>,
    lookups: mpsc::Sender<Lookup>,
    pool: PgPool,
    clock: Clock,
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
    pub(crate) fn start(journal: &Journal, tasks: &TaskTracker, drained: &CancellationToken) -> Identities {
        let (lookups, asked) = mpsc::channel(LOOKUPS_MAX);
        let (pool, clock) = (journal.pool.clone(), journal.clock.clone());
        tasks.spawn(in_rounds(asked, LOOKUP_MAX, drained.clone(), move |round| {
            let (pool, clock) = (pool.clone(), clock.clone());
            async move { look_up(&pool, &clock, round).await }
        }));
        Identities {
            known: Cache::builder().time_to_live(REMEMBERED_FOR).max_capacity(REMEMBERED_MAX).build(),
            revoked: Cache::builder().time_to_live(REVOKED_FOR).max_capacity(REMEMBERED_MAX).build(),
            administrators: Cache::builder().time_to_live(ADMINISTRATORS_FOR).max_capacity(1).build(),
            lookups,
            pool: journal.pool.clone(),
            clock: journal.clock.clone(),
        }
    }

    /// Whose key it is. Many requests with one key ask once, and keys that are asked for at once are one query.
    ///
    /// # Errors
    /// [`Unidentified`] where it is nobody's, too many wait to hear of theirs, or the database fails.
    pub(crate) async fn of(&self, key: &str) -> Result<Identity, Unidentified> {
        self.of_hash(digest(key)).await
    }

    /// The same of the key that has this hash.
    ///
    /// # Errors
    /// As [`Identities::of`].
    pub(crate) async fn of_hash(&self, hash: [u8; 32]) -> Result<Identity, Unidentified> {
        if self.revoked.contains_key(&hash) {
            return Err(Unidentified::Refused(Reason::Revoked));
        }
        if let Some(known) = self.known.get(&hash).await {
            known.used.store(true, Ordering::Relaxed);
            return Ok(known.identity);
        }
        let asked = self.known.try_get_with(hash, self.ask(hash));
        asked
            .await
            .map(|known| known.identity)
            .map_err(|error: Arc<Unidentified>| Unidentified::clone(&error))
    }

    async fn ask(&self, hash: [u8; 32]) -> Result<Remembered, Unidentified> {
        let (reply, answer) = oneshot::channel();
        self.lookups.try_send((hash, reply)).map_err(|_| Unidentified::TooMany)?;
        let identity = answer.await.map_err(|_| Unidentified::TooMany)??;
        Ok(Remembered::from(identity))
    }

    /// Whether the key that has this hash is an administrator's and good, for whoever must not ask about keys: of those that are not remembered the
    /// database is asked once a second at most, however many there are, for all keys of administrators. Where it fails, nobody is one.
    pub(crate) async fn is_administrators(&self, hash: &[u8; 32]) -> bool {
        if self.revoked.contains_key(hash) {
            return false;
        }
        if let Some(known) = self.known.get(hash).await {
            return matches!(known.identity, Identity::Admin(_));
        }
        self.administrators.get_with((), self.ask_for_administrators()).await.contains(hash.as_slice())
    }

    async fn ask_for_administrators(&self) -> Arc<HashSet<Vec<u8>>> {
        let hashes = keys::of_administrators(&self.pool, self.clock.now()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot see which keys are administrators'");
            Vec::new()
        });
        Arc::new(hashes.into_iter().collect())
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
        match keys::standings(&self.pool, &hashes, self.clock.now()).await {
            // An answer that took long says little of now.
            Ok(standings) if asked_at.elapsed() < KEEP_EVERY => {
                for (hash, standing) in standings {
                    // The table lets no other length in.
                    let Ok(hash) = <[u8; 32]>::try_from(hash) else { continue };
                    match standing {
                        Standing::Valid(identity) => self.known.insert(hash, identity.into()).await,
                        Standing::Expired | Standing::Revoked => self.known.invalidate(&hash).await,
                    }
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
async fn look_up(pool: &PgPool, clock: &Clock, round: Vec<Lookup>) {
    let hashes: Vec<Vec<u8>> = round.iter().map(|(hash, _)| hash.to_vec()).collect();
    let standings = keys::standings(pool, &hashes, clock.now()).await;
    let standings: Result<HashMap<_, _>, _> =
        standings.map(|standings| standings.into_iter().collect()).map_err(Arc::new);
    for (hash, reply) in round {
        let standing = match &standings {
            Ok(standings) => Ok(standings.get(hash.as_slice())),
            Err(error) => Err(Unidentified::Database(error.clone())),
        };
        let identity = standing.and_then(|standing| match standing {
            Some(Standing::Valid(identity)) => Ok(*identity),
            Some(Standing::Expired) => Err(Unidentified::Refused(Reason::Expired)),
            Some(Standing::Revoked) => Err(Unidentified::Refused(Reason::Revoked)),
            None => Err(Unidentified::Refused(Reason::Unknown)),
        });
        // Whoever has gone hears nothing.
        let _ = reply.send(identity);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use uuid::Uuid;

    use super::*;
    use crate::testing::api_without_database;

    #[tokio::test]
    async fn a_thousand_wrong_keys_at_once_are_a_handful_of_statements() {
        const KEYS: usize = 1_000;
        let api = api_without_database();
        let mut asked = JoinSet::new();
        for number in 0..KEYS {
            let identities = api.identities.clone();
            asked.spawn(async move { identities.of(&format!("om_{number}")).await.unwrap_err() });
        }
        // Nobody answers, and all who were asked about in one statement are told of the same failure. All are kept, so that none
        // takes the place of another in memory.
        let errors: Vec<Arc<sqlx::Error>> = asked
            .join_all()
            .await
            .into_iter()
            .map(|unidentified| match unidentified {
                Unidentified::Database(error) => error,
                other => panic!("{other:?}"),
            })
            .collect();
        let statements: HashSet<*const sqlx::Error> = errors.iter().map(Arc::as_ptr).collect();
        assert_eq!(errors.len(), KEYS);
        assert!(statements.len() <= KEYS.div_ceil(LOOKUP_MAX) + 2, "{}", statements.len());
    }

    #[tokio::test]
    async fn an_administrators_key_is_told_from_others_and_from_one_that_was_revoked() {
        let identities = &api_without_database().identities;
        identities.remember("om_1", Identity::Admin("minji".parse().unwrap())).await;
        identities.remember("om_2", Identity::Customer(Uuid::nil())).await;
        assert!(identities.is_administrators(&digest("om_1")).await);
        assert!(!identities.is_administrators(&digest("om_2")).await);
        assert!(!identities.is_administrators(&digest("om_3")).await, "the database does not say so");
        identities.revoke(vec![digest("om_1").to_vec()]).await;
        assert!(!identities.is_administrators(&digest("om_1")).await);
    }

    #[tokio::test]
    async fn a_key_that_was_revoked_here_does_not_get_in_even_if_it_is_remembered_afterwards() {
        let identities = &api_without_database().identities;
        let minji = Identity::Admin("minji".parse().unwrap());
        identities.remember("om_1", minji).await;
        assert_eq!(identities.of("om_1").await.unwrap(), minji);
        identities.revoke(vec![digest("om_1").to_vec()]).await;
        // As a request does that asked the database just before.
        identities.remember("om_1", minji).await;
        let refused = identities.of("om_1").await.unwrap_err();
        assert!(matches!(refused, Unidentified::Refused(Reason::Revoked)), "{refused:?}");
    }
}
