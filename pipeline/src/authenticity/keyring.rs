//! The keys of this process, and what it says of a record.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::covered::Covered;
use super::key::{Key, KeyId};
use super::key_table::{self, KeyError, KeyRow, KeyState};
use super::secrets::Secrets;

/// How often a process asks which keys there are: so late it may learn that one is revoked, or that another one signs.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// Whether a record is the relay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticity {
    /// The relay has sent it, as it is and to where it lies.
    Authentic,
    /// It was signed by a key that is revoked: by the relay, or by who has got hold of the key. It is passed over; what the relay
    /// has sent is published again.
    Revoked,
    /// It is not the relay's.
    Foreign(Flaw),
}

/// Why a record is foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It names no key, or has no MAC.
    Unsigned,
    /// What it names is not a key.
    NoKey,
    /// Its MAC does not fit: it was changed, comes from elsewhere, or was made without the key.
    WrongMac,
    /// Its key does not sign for its era.
    OtherEra,
    /// It was foreign when it became a dead letter.
    PutAside,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flaw::Unsigned => "it is not signed",
            Flaw::NoKey => "what it names is not the id of a key",
            Flaw::WrongMac => "its MAC does not fit",
            Flaw::OtherEra => "its key signs for another era",
            Flaw::PutAside => "it was foreign when it was put aside, and can only be discarded",
        })
    }
}

/// The keys as they were known at some moment.
#[derive(Debug)]
pub struct Keys {
    secrets: Secrets,
    signing: Option<Arc<Key>>,
    known: Vec<(Arc<Key>, KeyState)>,
    /// Those that are revoked and that no secret here derives.
    revoked: Vec<KeyId>,
    /// The key that signs, where no secret here derives it.
    signs_elsewhere: Option<KeyId>,
}

impl Keys {
    /// The keys of these rows. What the file revokes is revoked whatever the rows say.
    pub(super) fn new(secrets: Secrets, rows: &[KeyRow]) -> Keys {
        let (mut known, mut revoked) = (Vec::new(), Vec::from_iter(secrets.revoked.iter().cloned()));
        let (mut signing, mut signs_elsewhere) = (None, None);
        for row in rows {
            let root = row.secret.as_deref().and_then(|secret| secrets.with_fingerprint(secret));
            let state = if secrets.revokes(&row.id) { KeyState::Revoked } else { row.state() };
            match root {
                Some(root) => {
                    let key = Arc::new(Key::derive(root, &row.id));
                    if state == KeyState::Signs {
                        signing = Some(Arc::clone(&key));
                    }
                    known.push((key, state));
                }
                None if state == KeyState::Signs => signs_elsewhere = Some(row.id.clone()),
                None if state == KeyState::Revoked => revoked.push(row.id.clone()),
                // A secret that was taken out of the file: what its keys have signed is not believed any more.
                None => {}
            }
        }
        Keys { secrets, signing, known, revoked, signs_elsewhere }
    }

    /// Whether the key that signs derives from one of the secrets here.
    ///
    /// # Errors
    /// [`KeyError::OtherSecret`] where it does not.
    fn check(&self) -> Result<(), KeyError> {
        self.signs_elsewhere.clone().map_or(Ok(()), |id| Err(KeyError::OtherSecret(id)))
    }

    /// The key that signs records of an era.
    ///
    /// # Errors
    /// [`KeyError`] where none is known here.
    pub fn signing(&self, era: i32) -> Result<&Key, KeyError> {
        self.check()?;
        self.signing.as_deref().filter(|key| key.id().era() == era).ok_or(KeyError::NoneSigns(era))
    }

    /// Whether a record is the relay's, by its headers `ordermill-key` and `ordermill-mac`.
    ///
    /// A key that no row tells of, but that derives from the secret, is as good as one that does: another process has made it
    /// a moment ago, or this database was restored and has forgotten it.
    #[must_use]
    pub fn judge(&self, covered: &Covered<'_>, key: Option<&[u8]>, mac: Option<&[u8]>) -> Authenticity {
        let (Some(id), Some(mac)) = (key, mac) else { return Authenticity::Foreign(Flaw::Unsigned) };
        // The newest stand last, and sign nearly everything.
        let known = self.known.iter().rev().find(|(key, _)| key.id().as_str().as_bytes() == id);
        if let Some((key, state)) = known {
            return judge_by(key, *state, covered, mac);
        }
        let id = std::str::from_utf8(id).ok().and_then(|text| text.parse().ok());
        let Some(id): Option<KeyId> = id else { return Authenticity::Foreign(Flaw::NoKey) };
        let state = if self.revoked.contains(&id) { KeyState::Revoked } else { KeyState::Retired };
        let keys = self.secrets.roots().map(|root| Key::derive(root, &id));
        let fits = keys.map(|key| judge_by(&key, state, covered, mac));
        let wrong = Authenticity::Foreign(Flaw::WrongMac);
        fits.into_iter().find(|authenticity| *authenticity != wrong).unwrap_or(wrong)
    }
}

fn judge_by(key: &Key, state: KeyState, covered: &Covered<'_>, mac: &[u8]) -> Authenticity {
    if !key.verifies(covered, mac) {
        Authenticity::Foreign(Flaw::WrongMac)
    } else if !key.is_of_era_of(covered) {
        Authenticity::Foreign(Flaw::OtherEra)
    } else if state == KeyState::Revoked {
        Authenticity::Revoked
    } else {
        Authenticity::Authentic
    }
}

/// The keys of a process, which follow the database. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Keyring(Arc<RwLock<Arc<Keys>>>);

impl Keyring {
    /// Of these secrets. Which keys are revoked in the database, and which one signs, is read later, by
    /// [`Keyring::open`] or [`Keyring::refresh`].
    #[must_use]
    pub fn new(secrets: Secrets) -> Keyring {
        let revoked = secrets.revoked.iter().cloned().collect();
        let keys = Keys { secrets, signing: None, known: Vec::new(), revoked, signs_elsewhere: None };
        Keyring(Arc::new(RwLock::new(Arc::new(keys))))
    }

    /// Reads which keys there are. Tells the database which ones the file revokes, in case it was restored and has forgotten
    /// it, and makes a key where none signs.
    ///
    /// # Errors
    /// [`KeyError`] where the secrets are not those of the database, or it fails.
    pub async fn open(&self, pool: &PgPool) -> Result<(), KeyError> {
        key_table::install(pool, &self.keys().secrets).await?;
        self.refresh(pool).await
    }

    /// The secrets that it was made of.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        self.keys().secrets.clone()
    }

    /// The keys as they are known now: to be asked for once for many records.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads again which keys there are.
    ///
    /// # Errors
    /// As [`Keyring::open`]. What is revoked is learned also where the key that signs derives from another secret.
    pub async fn refresh(&self, pool: &PgPool) -> Result<(), KeyError> {
        let rows = key_table::list(pool).await?;
        let keys = Keys::new(self.keys().secrets.clone(), &rows);
        let checked = keys.check();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        checked
    }

    /// Does so every second until shutdown.
    pub async fn keep_fresh(self, pool: PgPool, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_failure = String::new();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let failure = self.refresh(&pool).await.err().map(|error| error.to_string()).unwrap_or_default();
            if !failure.is_empty() && failure != last_failure {
                tracing::warn!(failure, "can't learn which wire keys there are; those that are known stay");
            }
            last_failure = failure;
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use ordermill_wire::headers::LABEL;

    use super::super::RootSecret;
    use super::super::testing::Owned;
    use super::*;

    const FIRST: &str = "1-1-00000000000000aa";
    const SECOND: &str = "1-2-00000000000000bb";
    const UNKNOWN: &str = "1-9-00000000000000cc";

    fn id(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    fn root(byte: u8) -> RootSecret {
        RootSecret([byte; 32])
    }

    fn row(text: &str, root: &RootSecret, state: KeyState) -> KeyRow {
        let at = Some(Timestamp::UNIX_EPOCH);
        KeyRow {
            id: id(text),
            secret: Some(root.fingerprint().to_vec()),
            created_at: Timestamp::UNIX_EPOCH,
            retired_at: at.filter(|_| state != KeyState::Signs),
            revoked_at: at.filter(|_| state == KeyState::Revoked),
        }
    }

    fn keys(secrets: Secrets, first: KeyState) -> Keys {
        let rows = [row(FIRST, &root(1), first), row(SECOND, &root(1), KeyState::Signs)];
        Keys::new(secrets, &rows)
    }

    /// What is said of a record of era 1 that is signed by the key of that id.
    fn said_of(keys: &Keys, root: &RootSecret, key: &str) -> Authenticity {
        said(keys, &Owned::default().with_header(LABEL, "1-100001"), root, key)
    }

    fn said(keys: &Keys, record: &Owned, root: &RootSecret, key: &str) -> Authenticity {
        let mac = Key::derive(root, &id(key)).sign(&record.covered());
        keys.judge(&record.covered(), Some(key.as_bytes()), Some(mac.as_bytes()))
    }

    #[test]
    fn what_a_retired_key_signed_is_authentic_and_what_a_revoked_one_signed_is_not() {
        for (first, expected) in
            [(KeyState::Retired, Authenticity::Authentic), (KeyState::Revoked, Authenticity::Revoked)]
        {
            let keys = keys(root(1).into(), first);
            assert_eq!(said_of(&keys, &root(1), FIRST), expected);
            assert_eq!(said_of(&keys, &root(1), SECOND), Authenticity::Authentic);
            assert_eq!(keys.signing(1).unwrap().id(), &id(SECOND));
        }
    }

    #[test]
    fn a_key_that_a_restored_database_has_forgotten_verifies_unless_the_file_revokes_it() {
        let keys_without = keys(root(1).into(), KeyState::Retired);
        assert_eq!(said_of(&keys_without, &root(1), UNKNOWN), Authenticity::Authentic);
        let mut secrets = Secrets::from(root(1));
        secrets.revoked = [id(UNKNOWN), id(FIRST)].into();
        let keys = keys(secrets, KeyState::Retired);
        assert_eq!(said_of(&keys, &root(1), UNKNOWN), Authenticity::Revoked);
        assert_eq!(said_of(&keys, &root(1), FIRST), Authenticity::Revoked, "the database has forgotten it");
    }

    #[test]
    fn a_key_signs_nothing_of_another_era() {
        let keys = keys(root(1).into(), KeyState::Retired);
        let of_era_2 = Owned::default().with_header(LABEL, "2-100001");
        let foreign = Authenticity::Foreign(Flaw::OtherEra);
        assert_eq!(said(&keys, &of_era_2, &root(1), FIRST), foreign);
        assert_eq!(said(&keys, &of_era_2, &root(1), UNKNOWN), foreign);
        assert_eq!(said(&keys, &Owned::default(), &root(1), FIRST), foreign, "it has no label");
    }

    #[test]
    fn what_was_signed_without_the_secret_or_not_at_all_is_foreign() {
        let keys = keys(root(1).into(), KeyState::Revoked);
        for key in [FIRST, SECOND, UNKNOWN] {
            assert_eq!(said_of(&keys, &root(2), key), Authenticity::Foreign(Flaw::WrongMac));
        }
        let record = Owned::default().with_header(LABEL, "1-100001");
        let mac = Key::derive(&root(1), &id(SECOND)).sign(&record.covered());
        let judge = |key: Option<&str>, mac| keys.judge(&record.covered(), key.map(str::as_bytes), mac);
        assert_eq!(judge(None, Some(mac.as_bytes())), Authenticity::Foreign(Flaw::Unsigned));
        assert_eq!(judge(Some(SECOND), None), Authenticity::Foreign(Flaw::Unsigned));
        assert_eq!(judge(Some("2"), Some(mac.as_bytes())), Authenticity::Foreign(Flaw::NoKey));
        assert_eq!(judge(Some(FIRST), Some(mac.as_bytes())), Authenticity::Foreign(Flaw::WrongMac));
        assert_eq!(judge(Some(SECOND), Some(mac.as_bytes())), Authenticity::Authentic);
    }

    #[test]
    fn further_secrets_of_the_file_verify_and_the_keys_of_one_that_is_not_there_do_not() {
        let both = Secrets::parse(&(root(2).file() + &root(1).file())).unwrap();
        let keys_of_both = keys(both, KeyState::Retired);
        assert_eq!(said_of(&keys_of_both, &root(1), FIRST), Authenticity::Authentic);
        assert_eq!(said_of(&keys_of_both, &root(2), UNKNOWN), Authenticity::Authentic);
        let rows = [row(FIRST, &root(1), KeyState::Retired), row(SECOND, &root(2), KeyState::Signs)];
        let keys = Keys::new(root(2).into(), &rows);
        assert_eq!(said_of(&keys, &root(1), FIRST), Authenticity::Foreign(Flaw::WrongMac));
    }

    #[test]
    fn what_is_revoked_is_learned_also_where_the_key_that_signs_is_of_another_secret() {
        let rows = [row(FIRST, &root(1), KeyState::Revoked), row(SECOND, &root(2), KeyState::Signs)];
        let keys = Keys::new(root(1).into(), &rows);
        assert_eq!(said_of(&keys, &root(1), FIRST), Authenticity::Revoked);
    }

    #[test]
    fn without_the_secret_of_the_key_that_signs_or_such_a_key_nothing_is_signed() {
        let rows = [row(FIRST, &root(1), KeyState::Signs)];
        let keys = Keys::new(root(2).into(), &rows);
        for refused in [keys.check().unwrap_err(), keys.signing(1).err().unwrap()] {
            assert!(matches!(&refused, KeyError::OtherSecret(key) if *key == id(FIRST)), "{refused}");
        }
        let keys = Keys::new(root(1).into(), &[]);
        assert!(matches!(keys.signing(1), Err(KeyError::NoneSigns(1))));
    }
}
