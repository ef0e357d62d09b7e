//! What becomes of messages that can't be applied, and of those behind them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::consumer::FloodLimit;
use ordermill_pipeline::database;
use ordermill_pipeline::dead_letters::edits::{self, EditError, Waiting};
use ordermill_pipeline::dead_letters::halts;
use ordermill_pipeline::dead_letters::letters::{self, Filter, Letter};
use ordermill_pipeline::dead_letters::replays::{
    self, Options, Progress, ReplayError, Requested, Selection, Verdicts,
};
use ordermill_pipeline::dead_letters::{State, Verdict};
use ordermill_pipeline::stored_header::StoredHeader;
use ordermill_schemas::{Event, headers};
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::handlers::{Recorder, Witness};
use crate::support::{Log, until};

const ACTOR: &str = "test";

fn now() -> Timestamp {
    Clock::system().now()
}

impl Log {
    pub(crate) async fn letters(&self, state: State) -> Vec<Letter> {
        let filter = Filter { state: Some(state), ..Filter::default() };
        letters::list(&self.pool, &filter, None, 10_000).await.unwrap()
    }

    pub(crate) async fn until_letters(&self, state: State, count: usize) -> Vec<Letter> {
        until("the letters are there", async || self.letters(state).await.len() == count).await;
        self.letters(state).await
    }

    /// Has the rule be gone that 13 breaks.
    pub(crate) async fn forgive_thirteen(&self) {
        sqlx::query("ALTER TABLE applied DROP CONSTRAINT no_thirteen").execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn request(
        &self,
        selection: Selection,
        options: Options,
    ) -> Result<Requested, ReplayError> {
        let mut transaction = database::begin(&self.pool).await.unwrap();
        let requested = replays::request(&mut transaction, &selection, options, ACTOR, now()).await;
        transaction.commit().await.unwrap();
        requested
    }

    pub(crate) async fn until_done(&self, replay_id: Uuid) -> Verdicts {
        let progress = async || replays::get(&self.pool, replay_id).await.unwrap().unwrap();
        until("the replay is done", async || progress().await.progress == Progress::Done).await;
        progress().await.verdicts
    }

    pub(crate) async fn replay(&self, selection: Selection, options: Options) -> Verdicts {
        let requested = self.request(selection, options).await.unwrap();
        self.until_done(requested.replay_id).await
    }

    pub(crate) async fn verdicts(&self, replay_id: Uuid) -> Vec<Option<Verdict>> {
        let items = replays::items(&self.pool, replay_id).await.unwrap();
        items.into_iter().map(|item| item.verdict).collect()
    }
}

pub(crate) fn parked() -> Selection {
    Selection::Filter(Filter::default())
}

pub(crate) const AS_IT_IS: Options = Options { dry_run: false, rate_per_second: None };
pub(crate) const DRY_RUN: Options = Options { dry_run: true, rate_per_second: None };

#[tokio::test(flavor = "multi_thread")]
async fn five_later_messages_of_a_key_wait_behind_its_dead_letter_and_then_apply_in_order() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let (key, other) = (Uuid::new_v4(), Uuid::new_v4());
    log.append_all(key, &[1, 13, 3, 4]).await;
    log.append_all(other, &[1, 2, 3]).await;
    log.until_letters(State::Waiting, 2).await;
    log.until_applied_of(other, &[1, 2, 3]).await;
    assert_eq!(log.applied_of(key).await, [1]);

    // Whoever owns the partition next holds the key back as well.
    consumer.stop().await;
    let (consumer, second) = (log.consumer(Arc::default()), log.consumer(Arc::default()));
    log.append_all(key, &[5, 6, 7]).await;
    log.append_all(other, &[4]).await;
    let waiting = log.until_letters(State::Waiting, 5).await;
    log.until_applied_of(other, &[1, 2, 3, 4]).await;
    assert_eq!(log.applied_of(key).await, [1]);
    let letters = log.letters(State::Parked).await;
    assert_eq!((letters.len(), letters[0].waiting_behind), (1, 5));
    assert_eq!(letters[0].code.as_deref(), Some("RULE"));
    assert!(waiting.iter().all(|w| w.waits_for == Some(letters[0].dead_letter_id) && w.code.is_none()));

    log.forgive_thirteen().await;
    let applied = log.replay(Selection::Ids(vec![letters[0].dead_letter_id]), AS_IT_IS).await;
    assert_eq!(applied, Verdicts { applied: 1, ..Verdicts::default() });
    log.until_applied_of(key, &[1, 13, 3, 4, 5, 6, 7]).await;
    log.append_all(key, &[8]).await;
    log.until_applied_of(key, &[1, 13, 3, 4, 5, 6, 7, 8]).await;
    assert_eq!(log.count("SELECT count(*) FROM parked_key").await, 0);
    assert_eq!(log.letters(State::Resolved).await.len(), 6);
    second.stop().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_come_while_a_key_is_released_keep_their_order() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let second = log.consumer(Arc::default());
    let key = Uuid::new_v4();
    let until_300: Vec<i64> = (14..=300).collect();
    log.append_all(key, &[13]).await;
    log.append_all(key, &until_300).await;
    log.until_letters(State::Waiting, until_300.len()).await;
    log.forgive_thirteen().await;
    log.request(parked(), AS_IT_IS).await.unwrap();
    for available in 301..=400 {
        log.append(key, available).await;
    }
    let all: Vec<i64> = (13..=400).collect();
    log.until_applied_of(key, &all).await;
    assert_eq!(log.count("SELECT count(*) FROM parked_key").await, 0);
    second.stop().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_waits_again_behind_the_next_message_that_fails() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let key = Uuid::new_v4();
    log.append_all(key, &[13, 2, 666, 4]).await;
    log.until_letters(State::Waiting, 3).await;
    log.forgive_thirteen().await;
    let verdicts = log.replay(parked(), AS_IT_IS).await;
    assert_eq!(verdicts, Verdicts { applied: 1, ..Verdicts::default() });
    log.until_applied_of(key, &[13, 2]).await;
    let letters = log.until_letters(State::Parked, 1).await;
    assert_eq!((letters[0].code.as_deref(), letters[0].waiting_behind), (Some("BUG"), 1));
    assert!(letters[0].error.as_deref().unwrap().contains("the number of the beast"));
    until("its topic has it", async || {
        log.count("SELECT count(*) FROM event_log WHERE topic = 'balances.recorder.dlt'").await == 2
    })
    .await;
    // It fails again as long as the program is as it is.
    let verdicts = log.replay(parked(), AS_IT_IS).await;
    assert_eq!(verdicts, Verdicts { failed_again: 1, ..Verdicts::default() });
    assert_eq!(log.letters(State::Parked).await[0].attempts, 2);
    assert_eq!(log.applied_of(key).await, [13, 2]);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_in_five_hundred_costs_few_decisions_and_delays_no_other_key() {
    let log = Log::new().await;
    let relay = log.relay();
    let poisoned = Uuid::new_v4();
    for ordinal in 1..=500 {
        let key = if ordinal == 123 { poisoned } else { Uuid::new_v4() };
        log.append_all(key, &[if ordinal == 123 { 13 } else { 1 }]).await;
    }
    log.append_all(poisoned, &[2]).await;
    log.until_published().await;
    let recorder = Arc::new(Recorder::default());
    let consumer = log.consumer(recorder.clone());
    log.until_applied(499).await;
    log.until_letters(State::Parked, 1).await;
    log.until_letters(State::Waiting, 1).await;
    // Halving 500 takes 9 steps, and each good half on the way lets the rest be tried as a whole once more.
    let decisions = recorder.decisions.load(Ordering::SeqCst);
    assert!(decisions <= 30, "{decisions} decisions to find one poison in 500");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cause_has_its_code_and_everything_is_kept() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let keys: Vec<Uuid> = (0..6).map(|_| Uuid::new_v4()).collect();
    let binary = StoredHeader::new("binary", b"\xff\x00\xfe");
    let further = json!([binary]);
    log.append_spoilt(keys[0], |entry| entry.data = b"{not JSON".to_vec()).await;
    log.append_spoilt(keys[1], |entry| {
        entry.data = format!(r#"{{"user_id":"{}","amount":"much","available":1,"held":1}}"#, keys[1]).into();
        entry.headers = Some(further);
    })
    .await;
    log.append_spoilt(keys[2], |entry| entry.event_type = "balance.exploded".to_owned()).await;
    log.append_spoilt(keys[3], |entry| {
        let text = String::from_utf8(entry.data.clone()).unwrap();
        entry.data = text.replace(&keys[3].to_string(), &keys[4].to_string()).into_bytes();
    })
    .await;
    log.append_all(keys[4], &[13]).await;
    log.append_all(keys[5], &[666]).await;
    let mut letters = log.until_letters(State::Parked, 6).await;
    letters.sort_by_key(|letter| {
        keys.iter().position(|key| letter.key.as_deref() == Some(key.to_string().as_bytes()))
    });
    let codes: Vec<&str> = letters.iter().map(|letter| letter.code.as_deref().unwrap()).collect();
    assert_eq!(codes, ["UNDECODABLE", "SCHEMA", "UNKNOWN_TYPE", "KEY_MISMATCH", "RULE", "BUG"]);
    let error = letters[1].error.as_deref().unwrap();
    assert!(error.contains("at amount: invalid type: string"), "the failing place is missing: {error}");

    let whole = letters::get::<Event>(&log.pool, letters[1].dead_letter_id).await.unwrap().unwrap();
    assert!(whole.headers.contains(&binary));
    assert!(whole.headers.iter().any(|header| header.name == headers::LABEL));
    assert_eq!(whole.mismatch.unwrap().error, error);
    let whole = letters::get::<Event>(&log.pool, letters[4].dead_letter_id).await.unwrap().unwrap();
    assert_eq!(whole.mismatch, None, "13 breaks a rule, but is well formed");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_happen_to_each_and_changes_nothing() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let (mended, broken, refused) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    log.append_all(mended, &[13, 2, 3]).await;
    log.append_all(broken, &[666, 2]).await;
    log.append_all(refused, &[-1]).await;
    log.until_letters(State::Waiting, 3).await;
    log.until_letters(State::Parked, 3).await;
    log.forgive_thirteen().await;
    let mut all = log.letters(State::Parked).await;
    all.extend(log.letters(State::Waiting).await);
    let ids: Vec<Uuid> = all.iter().map(|letter| letter.dead_letter_id).collect();
    let before = log.count("SELECT max(position) FROM event_log").await;

    let requested = log.request(Selection::Ids(ids.clone()), DRY_RUN).await.unwrap();
    let would = log.until_done(requested.replay_id).await;
    assert_eq!(would, Verdicts { applied: 3, failed_again: 2, waiting: 1, ..Verdicts::default() });
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 0);
    assert_eq!(log.count("SELECT count(*) FROM recorded").await, 0);
    assert_eq!(log.count("SELECT max(position) FROM event_log").await, before);
    assert_eq!(log.letters(State::Parked).await.len(), 3);

    let replay = log.request(Selection::Ids(ids), AS_IT_IS).await.unwrap();
    assert_eq!(log.until_done(replay.replay_id).await, would, "the dry run has promised something else");
    assert_eq!(log.verdicts(replay.replay_id).await, log.verdicts(requested.replay_id).await);
    log.until_applied_of(mended, &[13, 2, 3]).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_meets_a_row_which_was_not_there_when_it_was_loaded_is_decided_anew() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { gate: Some(Semaphore::new(1)), ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let key = Uuid::new_v4();
    log.append(key, 13).await;
    log.until_letters(State::Parked, 1).await;
    log.forgive_thirteen().await;
    let replay = log.request(parked(), AS_IT_IS).await.unwrap();
    let until_decisions = async |count| {
        until("it is decided", async || recorder.decisions.load(Ordering::SeqCst) == count).await;
    };
    until_decisions(2).await;
    sqlx::query("INSERT INTO recorded VALUES ($1, 1, '[]')").bind(key).execute(&log.pool).await.unwrap();
    recorder.gate.as_ref().unwrap().add_permits(1);
    until_decisions(3).await;
    assert_eq!(log.verdicts(replay.replay_id).await, [None]);
    assert_eq!(log.letters(State::Replayed).await[0].attempts, 1, "a conflict is no failure of the letter");
    recorder.gate.as_ref().unwrap().add_permits(100);
    assert_eq!(log.until_done(replay.replay_id).await, Verdicts { applied: 1, ..Verdicts::default() });
    log.until_applied_of(key, &[13]).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_letters_those_applied_before_are_told_apart_though_workers_come_and_go() {
    let log = Log::new().await;
    let recorder = || Arc::new(Recorder { tolerant: true, ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder()));
    let mut transaction = database::begin(&log.pool).await.unwrap();
    for _ in 0..1_000 {
        crate::support::append_next(&log.journal, &mut transaction, Uuid::new_v4(), 13).await;
    }
    transaction.commit().await.unwrap();
    let letters = log.until_letters(State::Parked, 1_000).await;
    log.forgive_thirteen().await;
    // 150 are resolved by a replay, 150 others have been applied by somebody's hand.
    let ids = letters.iter().map(|letter| letter.dead_letter_id);
    let first: Vec<Uuid> = ids.clone().take(150).collect();
    assert_eq!(log.replay(Selection::Ids(first), AS_IT_IS).await.applied, 150);
    sqlx::query(
        "WITH by_hand AS (
             INSERT INTO applied (event_id, key, available)
             SELECT event_id, key, 13 FROM event_log WHERE topic = 'balances'
                 AND event_id NOT IN (SELECT event_id FROM applied) LIMIT 150
             RETURNING event_id, key)
         INSERT INTO recorded (key, version, state) SELECT key, 1, jsonb_build_array(event_id) FROM by_hand",
    )
    .execute(&log.pool)
    .await
    .unwrap();
    let replay = log.request(Selection::Ids(ids.collect()), AS_IT_IS).await.unwrap();
    let decided = "SELECT count(*) FROM dead_letter_replay_item WHERE verdict IS NOT NULL";
    until("the replay is under way", async || log.count(decided).await > 150 + 200).await;
    // It dies with a transaction open.
    drop(consumer);
    let (consumer, second) = (log.consumer(recorder()), log.consumer(recorder()));
    let verdicts = log.until_done(replay.replay_id).await;
    assert_eq!(verdicts, Verdicts { applied: 700, already_applied: 300, ..Verdicts::default() });
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 1_000);
    second.stop().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_group_that_failed_sees_a_replay() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let witness = log.consumer_of(Arc::new(Witness), FloodLimit::default());
    let key = Uuid::new_v4();
    log.append_all(key, &[13, 2]).await;
    let letters = log.until_letters(State::Parked, 2).await;
    log.until_letters(State::Waiting, 2).await;
    log.forgive_thirteen().await;
    sqlx::query("ALTER TABLE witnessed DROP CONSTRAINT no_thirteen_either").execute(&log.pool).await.unwrap();
    let filter = Filter::default().with_topic("balances.recorder.dlt", "").unwrap();
    let verdicts = log.replay(Selection::Filter(filter), AS_IT_IS).await;
    assert_eq!(verdicts, Verdicts { applied: 1, ..Verdicts::default() });
    log.until_applied_of(key, &[13, 2]).await;
    assert_eq!(log.count("SELECT count(*) FROM witnessed").await, 0);
    let left = log.letters(State::Parked).await;
    assert_eq!((left.len(), left[0].group.as_str()), (1, "witness"));
    assert_eq!(letters.len(), 2);
    witness.stop().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_takes_no_more_letters_a_second_than_it_may() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let second = log.consumer(Arc::default());
    for _ in 0..12 {
        log.append_all(Uuid::new_v4(), &[13]).await;
    }
    log.until_letters(State::Parked, 12).await;
    log.forgive_thirteen().await;
    let rate = Options { dry_run: false, rate_per_second: Some(10) };
    let replay = log.request(parked(), rate).await.unwrap();
    assert_eq!(log.until_done(replay.replay_id).await.applied, 12);
    let items = replays::items(&log.pool, replay.replay_id).await.unwrap();
    let mut decided: Vec<Timestamp> = items.into_iter().filter_map(|item| item.decided_at).collect();
    decided.sort_unstable();
    for pair in decided.windows(2) {
        let apart = pair[1].duration_since(pair[0]);
        assert!(apart >= jiff::SignedDuration::from_millis(99), "{apart:?} apart");
    }
    second.stop().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_was_edited_is_applied_as_edited_and_the_original_is_kept() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let key = Uuid::new_v4();
    log.append_spoilt(key, |entry| entry.data = b"\xff{".to_vec()).await;
    let id = log.until_letters(State::Parked, 1).await[0].dead_letter_id;
    let mended = json!({"user_id": key, "amount": 1, "available": 7, "held": 0}).to_string();
    edits::edit(&log.pool, id, b"still wrong", ACTOR, now()).await.unwrap();
    edits::edit(&log.pool, id, mended.as_bytes(), ACTOR, now()).await.unwrap();
    let whole = letters::get::<Event>(&log.pool, id).await.unwrap().unwrap();
    assert_eq!(whole.original_payload.as_deref(), Some(b"\xff{".as_slice()));
    assert_eq!((whole.letter.edited, whole.mismatch), (true, None));
    let done: Vec<(String, String)> = whole.audit.into_iter().map(|done| (done.action, done.actor)).collect();
    let by = |action: &str| (action.to_owned(), ACTOR.to_owned());
    assert_eq!(done, [by("EDITED"), by("EDITED")]);
    assert_eq!(log.replay(parked(), AS_IT_IS).await.applied, 1);
    log.until_applied_of(key, &[7]).await;
    let refused = edits::edit(&log.pool, id, b"", ACTOR, now()).await;
    assert!(matches!(refused, Err(EditError::State { state: State::Resolved, .. })), "{refused:?}");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_discarded_letter_is_released_or_discarded_as_was_said() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let (released, discarded) = (Uuid::new_v4(), Uuid::new_v4());
    log.append_all(released, &[13, 2, 3]).await;
    log.append_all(discarded, &[13, 2, 3]).await;
    log.until_letters(State::Waiting, 4).await;
    for letter in log.letters(State::Parked).await {
        let key = letter.key.unwrap();
        let waiting =
            if key == released.to_string().as_bytes() { Waiting::Released } else { Waiting::Discarded };
        let waited =
            edits::discard(&log.pool, letter.dead_letter_id, "a test", Some(waiting), ACTOR, now()).await;
        assert_eq!(waited.unwrap(), 2);
    }
    log.until_applied_of(released, &[2, 3]).await;
    log.append_all(released, &[4]).await;
    log.append_all(discarded, &[4]).await;
    log.until_applied_of(released, &[2, 3, 4]).await;
    log.until_applied_of(discarded, &[4]).await;
    assert_eq!(log.letters(State::Discarded).await.len(), 4);
    let nothing =
        log.request(Selection::Ids(vec![log.letters(State::Discarded).await[0].dead_letter_id]), AS_IT_IS);
    assert!(matches!(nothing.await, Err(ReplayError::Discarded(_))));
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_failures_halts_the_group_before_it_is_put_aside_until_somebody_resumes_it() {
    let log = Log::new().await;
    let relay = log.relay();
    for _ in 0..50 {
        log.append_spoilt(Uuid::new_v4(), |entry| entry.data = b"spoilt".to_vec()).await;
    }
    let good = Uuid::new_v4();
    log.append_all(good, &[1]).await;
    log.until_published().await;
    let limit = FloodLimit { share_max: 0.5, failures_min: 20, window: Duration::from_secs(60) };
    let (consumer, second) = (
        log.consumer_of(Arc::<Recorder>::default(), limit),
        log.consumer_of(Arc::<Recorder>::default(), limit),
    );
    until("the group has stopped", async || !halts::halted(&log.pool).await.unwrap().is_empty()).await;
    let halted = halts::halted(&log.pool).await.unwrap();
    assert_eq!(halted[0].group, "recorder");
    assert!(halted[0].reason.contains("can't be applied, more than 50 %"), "{}", halted[0].reason);
    // Up to 19 may have become letters in smaller batches; the flood has not.
    assert!(log.count("SELECT count(*) FROM dead_letter").await < 40);
    // It stands still, also for what could be applied, and also after a restart.
    second.stop().await;
    consumer.stop().await;
    let before = log.count("SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_offset").await;
    let consumer = log.consumer_of(Arc::<Recorder>::default(), limit);
    let another = Uuid::new_v4();
    log.append_all(another, &[1]).await;
    until("the member is at work", async || {
        log.count("SELECT count(*) FROM heartbeat WHERE role = 'worker:recorder'").await == 1
    })
    .await;
    assert_eq!(log.count("SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_offset").await, before);
    assert_eq!(log.applied_of(another).await, [0_i64; 0]);

    let resumed = halts::resume(&log.pool, "recorder", Duration::from_secs(60), ACTOR, now()).await;
    assert!(resumed.unwrap().is_some());
    log.until_letters(State::Parked, 50).await;
    log.until_applied_of(good, &[1]).await;
    log.until_applied_of(another, &[1]).await;
    assert!(halts::resume(&log.pool, "recorder", Duration::ZERO, ACTOR, now()).await.unwrap().is_none());
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_wait_stay_when_one_more_joins_their_group() {
    let log = Log::new().await;
    let relay = log.relay();
    let halted =
        "INSERT INTO halted_group (group_name, halted_at, reason) VALUES ('recorder', now(), 'for a test')";
    sqlx::query(halted).execute(&log.pool).await.unwrap();
    for _ in 0..24 {
        log.append(Uuid::new_v4(), 1).await;
    }
    log.until_published().await;
    let (mut members, mut settled) = (Vec::new(), BTreeSet::new());
    for count in 1..=3 {
        members.push(log.consumer(Arc::default()));
        let former = std::mem::replace(&mut settled, log.until_settled(count).await);
        assert!(former.is_subset(&settled), "{former:?} were driven out: {settled:?}");
    }
    halts::resume(&log.pool, "recorder", Duration::ZERO, ACTOR, now()).await.unwrap();
    log.until_applied(24).await;
    assert_eq!(log.until_settled(3).await, settled);
    for member in members {
        member.stop().await;
    }
    relay.stop().await;
}
