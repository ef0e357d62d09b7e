//! API keys in a database: when they are good, and who replaces or revokes whom.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::database;
use ordermill_stack::TestStack;
use ordermill_store::keys::{self, Identity, KeyRef, KeysError, NewKey, Standing};
use ordermill_store::migrations;
use sqlx::PgPool;
use uuid::Uuid;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

async fn pool() -> PgPool {
    let url = TestStack::shared().await.fresh_database().await;
    let pool = database::connect(&url, "test", 8).await.unwrap();
    migrations::run(&pool).await.unwrap();
    pool
}

/// When everything begins.
fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A hash as good as any.
fn hash(number: u8) -> Vec<u8> {
    vec![number; 32]
}

fn new(name: &str, user_id: Option<Uuid>, expires_at: Option<Timestamp>) -> NewKey {
    NewKey { name: name.parse().unwrap(), user_id, expires_at }
}

fn named(name: &str) -> KeyRef {
    name.parse().unwrap()
}

fn admin(name: &str) -> Standing {
    Standing::Valid(Identity::Admin(name.parse().unwrap()))
}

/// What a key is worth at that time; `None` where it is no key.
async fn standing(pool: &PgPool, number: u8, at: Timestamp) -> Option<Standing> {
    let standings = keys::standings(pool, &[hash(number)], at).await.unwrap();
    standings.into_iter().map(|(_, standing)| standing).next()
}

async fn user(pool: &PgPool) -> Uuid {
    let user_id = Uuid::now_v7();
    sqlx::query("INSERT INTO users (user_id, name, email, created_at) VALUES ($1, 'Kim', $1::text, now())")
        .bind(user_id)
        .execute(pool)
        .await
        .unwrap();
    user_id
}

/// Erases a user as the API does.
async fn erase(pool: &PgPool, user_id: Uuid, at: Timestamp) -> Vec<Vec<u8>> {
    let mut transaction = database::begin(pool).await.unwrap();
    let mut revoked = ordermill_store::users::erase(&mut transaction, user_id, at)
        .await
        .unwrap()
        .expect("there is such a user");
    transaction.commit().await.unwrap();
    revoked.sort();
    revoked
}

#[tokio::test]
async fn a_key_is_good_until_it_expires_or_is_revoked() {
    let (pool, kim) = (pool().await, Uuid::now_v7());
    assert_eq!(standing(&pool, 1, start()).await, None);
    keys::create(&pool, &hash(1), &new("minji", None, Some(start() + HOUR)), start()).await.unwrap();
    let moment = SignedDuration::from_micros(1);
    assert_eq!(standing(&pool, 1, start() + HOUR - moment).await, Some(admin("minji")));
    assert_eq!(standing(&pool, 1, start() + HOUR).await, Some(Standing::Expired));
    let refused = keys::create(&pool, &hash(2), &new("app", Some(kim), None), start()).await.unwrap_err();
    assert!(matches!(refused, KeysError::NoSuchUser(user_id) if user_id == kim), "{refused}");
    let kim = user(&pool).await;
    let id = keys::create(&pool, &hash(2), &new("app", Some(kim), None), start()).await.unwrap();
    assert_eq!(standing(&pool, 2, start()).await, Some(Standing::Valid(Identity::Customer(kim))));
    assert_eq!(keys::revoke(&pool, &KeyRef::Id(id), start() + HOUR).await.unwrap(), [id]);
    assert_eq!(standing(&pool, 2, start() + HOUR).await, Some(Standing::Revoked));
    let again = keys::revoke(&pool, &KeyRef::Id(id), start() + HOUR * 2).await.unwrap_err();
    assert!(matches!(again, KeysError::NoSuchKey(_)), "{again}");
}

#[tokio::test]
async fn the_name_of_an_administrators_key_is_free_once_it_is_good_no_more() {
    let pool = pool().await;
    let create = async |number: u8, at: Timestamp| {
        keys::create(&pool, &hash(number), &new("minji", None, Some(at + HOUR)), at).await
    };
    create(1, start()).await.unwrap();
    let taken = create(2, start()).await.unwrap_err();
    assert!(
        matches!(taken, KeysError::NameTaken(_)) && taken.to_string().contains("keys rotate minji"),
        "{taken}"
    );
    create(2, start() + HOUR).await.unwrap();
    keys::revoke(&pool, &named("minji"), start() + HOUR).await.unwrap();
    create(3, start() + HOUR).await.unwrap();
    assert_eq!(standing(&pool, 3, start() + HOUR).await, Some(admin("minji")));
    // Customers may call theirs as they like.
    let (kim, lee) = (user(&pool).await, user(&pool).await);
    for (number, user_id) in [(4, kim), (5, lee), (6, kim)] {
        keys::create(&pool, &hash(number), &new("minji", Some(user_id), None), start()).await.unwrap();
    }
    let listed = keys::list(&pool, Some(kim)).await.unwrap();
    let marks: Vec<&str> = listed.iter().map(|key| key.mark.as_str()).collect();
    assert!(marks.len() == 2 && marks.contains(&"04040404") && marks.contains(&"06060606"), "{marks:?}");
}

#[tokio::test]
async fn a_key_that_is_replaced_is_good_for_its_time_and_the_new_one_lasts_as_long_as_it_was_to() {
    let pool = pool().await;
    let former_id =
        keys::create(&pool, &hash(1), &new("minji", None, Some(start() + HOUR * 10)), start()).await.unwrap();
    let rotate = async |number: u8, former_until: Timestamp, at: Timestamp| {
        keys::rotate(&pool, &named("minji"), &hash(number), former_until, at).await
    };
    let at = start() + HOUR * 8;
    let rotated = rotate(2, at + HOUR, at).await.unwrap();
    assert_eq!((rotated.former_id, rotated.name.as_str()), (former_id, "minji"));
    assert_eq!(rotated.expires_at, Some(at + HOUR * 10));
    assert_eq!(standing(&pool, 1, at).await, Some(admin("minji")));
    assert_eq!(standing(&pool, 2, at).await, Some(admin("minji")));
    assert_eq!(standing(&pool, 1, at + HOUR).await, Some(Standing::Revoked));
    // What was replaced is not replaced again.
    let refused = keys::rotate(&pool, &KeyRef::Id(former_id), &hash(3), at, at).await.unwrap_err();
    assert!(matches!(refused, KeysError::NoSuchKey(_)), "{refused}");
    // At once: nothing is good but the new one, also of what was replaced before.
    rotate(3, at, at).await.unwrap();
    for number in 1..=2 {
        assert_eq!(standing(&pool, number, at).await, Some(Standing::Revoked), "{number}");
    }
    // Whoever revokes the name means all that are good.
    rotate(4, at + HOUR, at).await.unwrap();
    assert_eq!(keys::revoke(&pool, &named("minji"), at).await.unwrap().len(), 2);
    for number in 1..=4 {
        assert_eq!(standing(&pool, number, at).await, Some(Standing::Revoked), "{number}");
    }
}

#[tokio::test]
async fn a_key_that_was_revoked_is_good_no_more_by_any_clock() {
    let pool = pool().await;
    for (number, name) in [(1, "minji"), (2, "kim"), (3, "environment")] {
        keys::create(&pool, &hash(number), &new(name, None, None), start()).await.unwrap();
    }
    // Whoever revokes and replaces them is ahead of who looks.
    let ahead = start() + HOUR;
    keys::revoke(&pool, &named("minji"), ahead).await.unwrap();
    keys::rotate(&pool, &named("kim"), &hash(4), ahead, ahead).await.unwrap();
    keys::establish(&pool, "environment", &hash(5), ahead).await.unwrap();
    for number in 1..=3 {
        assert_eq!(standing(&pool, number, start()).await, Some(Standing::Revoked), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_rotate_a_key_at_once_one_does() {
    let pool = pool().await;
    let id = keys::create(&pool, &hash(100), &new("minji", None, None), start()).await.unwrap();
    let rotations = (0..8).map(|number| {
        let pool = pool.clone();
        tokio::spawn(
            async move { keys::rotate(&pool, &KeyRef::Id(id), &hash(number), start(), start()).await },
        )
    });
    let mut done = 0;
    for rotation in rotations.collect::<Vec<_>>() {
        match rotation.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => assert!(matches!(error, KeysError::NoSuchKey(_)), "{error}"),
        }
    }
    assert_eq!((done, keys::list(&pool, None).await.unwrap().len()), (1, 2));
}

#[tokio::test]
async fn whoever_is_erased_has_no_key_any_more_nor_gets_one() {
    let pool = pool().await;
    let kim = user(&pool).await;
    let id = keys::create(&pool, &hash(1), &new("app", Some(kim), None), start()).await.unwrap();
    let until = start() + HOUR;
    let rotated = keys::rotate(&pool, &KeyRef::Id(id), &hash(2), until, start()).await.unwrap();
    assert_eq!(erase(&pool, kim, start()).await, [hash(1), hash(2)], "also the one that was replaced");
    for number in [1, 2] {
        assert_eq!(standing(&pool, number, start()).await, Some(Standing::Revoked));
    }
    let names = sqlx::query_scalar("SELECT DISTINCT name FROM api_keys WHERE user_id = $1").bind(kim);
    let names: Vec<String> = names.fetch_all(&pool).await.unwrap();
    assert_eq!(names, ["erased"], "somebody has chosen the names");
    let refused = keys::create(&pool, &hash(3), &new("app", Some(kim), None), start()).await.unwrap_err();
    assert!(matches!(refused, KeysError::NoSuchUser(_)), "{refused}");
    let refused = keys::rotate(&pool, &KeyRef::Id(rotated.key_id), &hash(3), start(), start()).await;
    assert!(matches!(refused, Err(KeysError::NoSuchKey(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_side_by_side_establish_a_key_once() {
    let pool = pool().await;
    for (number, revoked) in [(1, 0), (2, 1)] {
        let starts = (0..8).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                keys::establish(&pool, "environment", &hash(number), start()).await.unwrap()
            })
        });
        let mut revoked_by_all = 0;
        for process in starts.collect::<Vec<_>>() {
            revoked_by_all += process.await.unwrap();
        }
        assert_eq!(revoked_by_all, revoked);
        assert_eq!(standing(&pool, number, start()).await, Some(admin("environment")));
    }
    assert_eq!(standing(&pool, 1, start()).await, Some(Standing::Revoked));
    assert_eq!(keys::list(&pool, None).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_keys_that_are_established_at_once_one_is_good() {
    let pool = pool().await;
    let starts = (0..8).map(|number| {
        let pool = pool.clone();
        tokio::spawn(
            async move { keys::establish(&pool, "environment", &hash(number), start()).await.unwrap() },
        )
    });
    for process in starts.collect::<Vec<_>>() {
        process.await.unwrap();
    }
    let mut good = 0;
    for number in 0..8 {
        good += i32::from(standing(&pool, number, start()).await == Some(admin("environment")));
    }
    assert_eq!(good, 1);
}

#[tokio::test]
async fn a_key_that_was_replaced_may_be_given_at_the_start_for_its_time_and_not_after_it() {
    let pool = pool().await;
    let give =
        async |number: u8, at: Timestamp| keys::establish(&pool, "environment", &hash(number), at).await;
    give(1, start()).await.unwrap();
    let environment = named("environment");
    keys::rotate(&pool, &environment, &hash(2), start() + HOUR, start()).await.unwrap();
    // A process that starts again before it is given the new key.
    assert_eq!(give(1, start()).await.unwrap(), 0);
    assert_eq!(standing(&pool, 2, start()).await, Some(admin("environment")), "that one stays");
    assert_eq!(give(2, start()).await.unwrap(), 0);
    let over = give(1, start() + HOUR).await.unwrap_err();
    assert!(matches!(over, KeysError::Over) && over.to_string().contains("openssl rand -hex 32"), "{over}");
    // Another value takes the place of all that are good.
    assert_eq!(give(3, start()).await.unwrap(), 2);
    for (number, expected) in [(1, Standing::Revoked), (2, Standing::Revoked), (3, admin("environment"))] {
        assert_eq!(standing(&pool, number, start()).await, Some(expected), "{number}");
    }
}

#[tokio::test]
async fn the_keys_of_administrators_are_those_that_are_good() {
    let (pool, end) = (pool().await, start() + HOUR);
    for (number, name, expires_at) in
        [(1, "minji", None), (2, "kim", Some(end)), (3, "lee", None), (4, "park", Some(end + HOUR))]
    {
        keys::create(&pool, &hash(number), &new(name, None, expires_at), start()).await.unwrap();
    }
    keys::revoke(&pool, &named("lee"), start()).await.unwrap();
    keys::rotate(&pool, &named("park"), &hash(5), end, start()).await.unwrap();
    let customer = user(&pool).await;
    keys::create(&pool, &hash(6), &new("app", Some(customer), None), start()).await.unwrap();
    let good_at = async |at: Timestamp| {
        let mut hashes = keys::of_administrators(&pool, at).await.unwrap();
        hashes.sort();
        hashes
    };
    let moment = SignedDuration::from_micros(1);
    assert_eq!(good_at(end - moment).await, [1, 2, 4, 5].map(hash));
    assert_eq!(good_at(end).await, [1, 5].map(hash));
}

#[tokio::test]
async fn a_key_of_somebody_else_is_not_established_and_nothing_is_revoked_for_it() {
    let pool = pool().await;
    keys::establish(&pool, "environment", &hash(1), start()).await.unwrap();
    keys::create(&pool, &hash(2), &new("minji", None, None), start()).await.unwrap();
    let kim = user(&pool).await;
    keys::create(&pool, &hash(3), &new("environment", Some(kim), None), start()).await.unwrap();
    for number in [2, 3] {
        let refused = keys::establish(&pool, "environment", &hash(number), start()).await.unwrap_err();
        assert!(matches!(refused, KeysError::OfAnother), "{refused}");
    }
    assert_eq!(standing(&pool, 1, start()).await, Some(admin("environment")));
}
