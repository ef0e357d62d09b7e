//! The keys by which records are authentic, as the database has them.

use ordermill_pipeline::authenticity::{
    self, Authenticity, Covered, KeyError, KeyId, KeyRow, KeyState, Keyring, Keys, Revocation, RootSecret,
    Secrets,
};
use ordermill_schemas::headers::COVERED;

use crate::support::Log;

fn secrets() -> Secrets {
    RootSecret::generate().unwrap().into()
}

/// The keys as a process has them that starts with those secrets.
async fn open(log: &Log, secrets: Secrets) -> Keyring {
    let keyring = Keyring::new(secrets);
    keyring.open(&log.pool).await.unwrap();
    keyring
}

/// A log without a key.
async fn log_without_keys() -> Log {
    let log = Log::new().await;
    sqlx::query("DELETE FROM wire_key").execute(&log.pool).await.unwrap();
    log
}

async fn keys_of(log: &Log) -> Vec<(KeyId, KeyState)> {
    let rows = authenticity::list(&log.pool).await.unwrap();
    rows.iter().map(|row: &KeyRow| (row.id.clone(), row.state())).collect()
}

/// A record of era 1 that one has signed; what another says of it.
fn said_by(keys: &Keys, signer: &Keys) -> Authenticity {
    let mut headers = [None; COVERED.len()];
    headers[0] = Some(b"1-100001".as_slice());
    let covered = Covered { topic: "orders", partition: 0, key: None, payload: None, headers };
    let (key, mac) = (signer.signing(1).unwrap().id(), signer.signing(1).unwrap().sign(&covered));
    keys.judge(&covered, Some(key.as_str().as_bytes()), Some(mac.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_set_the_keys_up_at_once_one_makes_the_first_key() {
    let (log, secrets) = (log_without_keys().await, secrets());
    let installs = (0..8).map(|_| {
        let (pool, secrets) = (log.pool.clone(), secrets.clone());
        tokio::spawn(async move { authenticity::install(&pool, &secrets).await.unwrap() })
    });
    for install in installs.collect::<Vec<_>>() {
        install.await.unwrap();
    }
    let keys = keys_of(&log).await;
    assert!(matches!(&keys[..], [(id, KeyState::Signs)] if (id.era(), id.number()) == (1, 1)), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_replaced_verifies_until_it_is_revoked() {
    let (log, secrets) = (log_without_keys().await, secrets());
    let keyring = open(&log, secrets.clone()).await;
    let first = keyring.keys();
    let (second, former) = authenticity::rotate(&log.pool, &secrets).await.unwrap();
    assert_eq!((former.as_ref(), second.number()), (Some(first.signing(1).unwrap().id()), 2));
    // A process that has not heard of the new key takes it all the same.
    let other = open(&log, secrets.clone()).await.keys();
    assert_eq!(other.signing(1).unwrap().id(), &second);
    assert_eq!(said_by(&first, &other), Authenticity::Authentic);
    keyring.refresh(&log.pool).await.unwrap();
    assert_eq!(keyring.keys().signing(1).unwrap().id(), &second);
    assert_eq!(said_by(&keyring.keys(), &first), Authenticity::Authentic);
    let revocation = authenticity::revoke(&log.pool, &secrets, first.signing(1).unwrap().id()).await.unwrap();
    assert_eq!(revocation, Revocation { was_revoked: false, signs_now: None });
    keyring.refresh(&log.pool).await.unwrap();
    assert_eq!(said_by(&keyring.keys(), &first), Authenticity::Revoked);
    assert_eq!(said_by(&keyring.keys(), &other), Authenticity::Authentic);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_key_that_signs_is_revoked_another_signs_from_then_on() {
    let (log, secrets) = (log_without_keys().await, secrets());
    let keyring = open(&log, secrets.clone()).await;
    let first = keyring.keys();
    let id = first.signing(1).unwrap().id();
    let revocation = authenticity::revoke(&log.pool, &secrets, id).await.unwrap();
    assert!(!revocation.was_revoked && revocation.signs_now.is_some(), "{revocation:?}");
    let again = authenticity::revoke(&log.pool, &secrets, id).await.unwrap();
    assert_eq!(again, Revocation { was_revoked: true, signs_now: None });
    keyring.refresh(&log.pool).await.unwrap();
    assert_eq!(Some(keyring.keys().signing(1).unwrap().id()), revocation.signs_now.as_ref());
    assert_eq!(said_by(&keyring.keys(), &first), Authenticity::Revoked);
    let unknown: KeyId = "1-7-0123456789abcdef".parse().unwrap();
    let refused = authenticity::revoke(&log.pool, &secrets, &unknown).await.unwrap_err();
    assert!(matches!(refused, KeyError::Unknown(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_database_has_forgotten_to_be_revoked_the_secret_file_still_says() {
    let (log, root) = (log_without_keys().await, RootSecret::generate().unwrap());
    let before = open(&log, root.clone().into()).await.keys();
    let signing = before.signing(1).unwrap().id().clone();
    // The key that signs as the database was restored, and one that was made since the backup: both were revoked later.
    let lost: KeyId = "1-2-0123456789abcdef".parse().unwrap();
    let lines = [&signing, &lost].map(Secrets::revocation_line).concat();
    let secrets = Secrets::parse(&(root.file() + &lines)).unwrap();
    let keyring = open(&log, secrets).await;
    let keys = keys_of(&log).await;
    assert_eq!(keys[..2], [(signing, KeyState::Revoked), (lost.clone(), KeyState::Revoked)]);
    assert!(matches!(&keys[2..], [(id, KeyState::Signs)] if id.number() == 3), "{keys:?}");
    assert_eq!(said_by(&keyring.keys(), &before), Authenticity::Revoked);
    // From now on a process whose file does not say so knows it from the database.
    let other = open(&log, root.into()).await;
    assert_eq!(said_by(&other.keys(), &before), Authenticity::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_than_the_databases_is_refused_until_its_keys_sign() {
    let (log, former, new) = (log_without_keys().await, secrets(), secrets());
    let before = open(&log, former.clone()).await;
    let refused = Keyring::new(new.clone()).open(&log.pool).await.unwrap_err().to_string();
    assert!(refused.contains("ordermill keys wire rotate"), "{refused}");
    authenticity::rotate(&log.pool, &new).await.unwrap();
    let after = open(&log, new).await.keys();
    assert!(matches!(said_by(&after, &before.keys()), Authenticity::Foreign(_)));
    // A process that runs with the former secret knows its keys, signs nothing more, and says what is wrong.
    let known = before.keys();
    let refused = before.refresh(&log.pool).await.unwrap_err();
    assert!(matches!(refused, KeyError::OtherSecret(_)), "{refused}");
    assert_eq!(said_by(&before.keys(), &known), Authenticity::Authentic);
    assert!(matches!(before.keys().signing(1), Err(KeyError::OtherSecret(_))));
}
