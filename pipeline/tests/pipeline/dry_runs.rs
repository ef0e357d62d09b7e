//! What a dry run of dead letters says, and how much work it and the replay after it are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ordermill_pipeline::dead_letters::replays::{self, Options, Selection, Verdicts};
use ordermill_pipeline::dead_letters::{State, Verdict};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::dead_letters::{AS_IT_IS, DRY_RUN, parked};
use crate::handlers::Recorder;
use crate::support::{Log, until};

/// A recorder that refuses what is not the next of its key: what it is told before it must have been taken in.
fn recorder() -> Arc<Recorder> {
    Arc::new(Recorder { in_order: true, ..Recorder::default() })
}

fn applications(recorder: &Recorder) -> usize {
    recorder.applications.load(Ordering::SeqCst)
}

impl Log {
    /// Appends events of a new key: first the one that the table refuses, then the others.
    async fn append_line(&self, behind: impl IntoIterator<Item = i64>) -> Uuid {
        let (key, mut line) = (Uuid::new_v4(), vec![13]);
        line.extend(behind);
        self.append_all(key, &line).await;
        key
    }

    /// The letters of a key that are not done with, in order.
    async fn line_of(&self, key: Uuid) -> Vec<Uuid> {
        let sql = "SELECT dead_letter_id FROM dead_letter
                   WHERE record_key = $1 AND state IN ('PARKED', 'WAITING', 'REPLAYED') ORDER BY ordinal";
        sqlx::query_scalar(sql).bind(key.to_string().into_bytes()).fetch_all(&self.pool).await.unwrap()
    }

    async fn all_open(&self) -> Selection {
        let mut letters = self.letters(State::Parked).await;
        letters.extend(self.letters(State::Waiting).await);
        Selection::Ids(letters.into_iter().map(|letter| letter.dead_letter_id).collect())
    }

    /// What a replay says of each letter of a selection, and how often the recorder has applied any of them meanwhile.
    async fn spent(
        &self,
        recorder: &Recorder,
        selection: &Selection,
        options: Options,
    ) -> (Vec<Option<Verdict>>, Verdicts, usize) {
        let before = applications(recorder);
        let requested = self.request(selection.clone(), options).await.unwrap();
        let verdicts = self.until_done(requested.replay_id).await;
        (self.verdicts(requested.replay_id).await, verdicts, applications(recorder) - before)
    }

    /// The dry run and the replay after it say the same, and apply each letter a few times at most.
    async fn assert_foretold(&self, recorder: &Recorder, letters: usize, expected: Verdicts) {
        let all = self.all_open().await;
        let (foretold, verdicts, spent) = self.spent(recorder, &all, DRY_RUN).await;
        assert_eq!(verdicts, expected);
        assert!(spent <= 4 * letters, "the dry run of {letters} letters has applied {spent}");
        assert_eq!(self.count("SELECT count(*) FROM applied").await, 0);
        assert_eq!(self.count("SELECT count(*) FROM recorded").await, 0);
        let (told, verdicts, spent) = self.spent(recorder, &all, AS_IT_IS).await;
        assert_eq!((told, verdicts), (foretold, expected), "the dry run has promised something else");
        assert!(spent <= 4 * letters, "the replay of {letters} letters has applied {spent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_letters_of_three_keys_are_applied_few_times_each() {
    let (log, recorder) = (Log::new().await, recorder());
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(log.append_line(1..=99).await);
    }
    log.until_letters(State::Parked, 3).await;
    log.until_letters(State::Waiting, 297).await;
    log.forgive_thirteen().await;
    log.assert_foretold(&recorder, 300, Verdicts { applied: 300, ..Verdicts::default() }).await;
    let all: Vec<i64> = std::iter::once(13).chain(1..=99).collect();
    for key in keys {
        assert_eq!(log.applied_of(key).await, all);
    }
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_letters_of_as_many_keys_are_applied_few_times_each_though_some_fail() {
    let (log, recorder) = (Log::new().await, recorder());
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    for ordinal in 0..300 {
        log.append_all(Uuid::new_v4(), &[if ordinal % 10 == 0 { -1 } else { 13 }]).await;
    }
    log.until_letters(State::Parked, 300).await;
    log.forgive_thirteen().await;
    let expected = Verdicts { applied: 270, failed_again: 30, ..Verdicts::default() };
    log.assert_foretold(&recorder, 300, expected).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_is_gone_through_once_up_to_the_letter_that_fails() {
    let (log, recorder) = (Log::new().await, recorder());
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let key = log.append_line((1..=249).map(|ordinal| if ordinal == 149 { -1 } else { 1 })).await;
    log.until_letters(State::Waiting, 249).await;
    log.forgive_thirteen().await;
    let expected = Verdicts { applied: 149, failed_again: 1, waiting: 100, ..Verdicts::default() };
    log.assert_foretold(&recorder, 250, expected).await;
    assert_eq!(log.applied_of(key).await.len(), 149);
    assert_eq!(log.letters(State::Parked).await[0].waiting_behind, 100);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_rate_a_dry_run_goes_on_where_it_was() {
    let (log, recorder) = (Log::new().await, recorder());
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    log.append_line(1..=59).await;
    log.until_letters(State::Waiting, 59).await;
    // Five at once.
    let options = Options { rate_per_second: Some(100), ..DRY_RUN };
    let (_, verdicts, spent) = log.spent(&recorder, &log.all_open().await, options).await;
    assert_eq!(verdicts, Verdicts { applied: 60, ..Verdicts::default() });
    assert!(spent <= 2 * 60, "the dry run of 60 letters has applied {spent}");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_that_a_worker_leaves_is_finished_by_others() {
    let (log, recorder) = (Log::new().await, recorder());
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    log.append_line(1..=149).await;
    log.append_line(1..=149).await;
    log.until_letters(State::Waiting, 298).await;
    let before = applications(&recorder);
    // Ten at once, 1.5 seconds in all.
    let options = Options { rate_per_second: Some(200), ..DRY_RUN };
    let requested = log.request(log.all_open().await, options).await.unwrap();
    let decided = "SELECT count(*) FROM dead_letter_replay_item WHERE verdict IS NOT NULL";
    until("the dry run is in the first line", async || log.count(decided).await > 50).await;
    drop(consumer);
    let (consumer, second) = (log.consumer(recorder.clone()), log.consumer(recorder.clone()));
    let verdicts = log.until_done(requested.replay_id).await;
    assert_eq!(verdicts, Verdicts { applied: 300, ..Verdicts::default() });
    // Each of the three may have gone through each line.
    let spent = applications(&recorder) - before;
    assert!(spent <= 4 * 300, "the dry run of 300 letters has applied {spent}");
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 0);
    second.stop().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dry_run_has_not_selected_is_gone_through_all_the_same_and_without_its_head_a_line_waits() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(recorder()));
    let (sound, broken, headless) =
        (log.append_line([2, 3]).await, log.append_line([2, -1, 4]).await, log.append_line([2]).await);
    log.until_letters(State::Waiting, 6).await;
    let (sound, broken, headless) =
        (log.line_of(sound).await, log.line_of(broken).await, log.line_of(headless).await);
    let ids = vec![sound[0], sound[2], broken[0], broken[3], headless[1]];
    let requested = log.request(Selection::Ids(ids), DRY_RUN).await.unwrap();
    log.until_done(requested.replay_id).await;
    let items = replays::items(&log.pool, requested.replay_id).await.unwrap();
    let verdict = |id: Uuid| items.iter().find(|item| item.dead_letter_id == id).unwrap().verdict.unwrap();
    assert_eq!((verdict(sound[0]), verdict(sound[2])), (Verdict::Applied, Verdict::Applied));
    assert_eq!((verdict(broken[0]), verdict(broken[3])), (Verdict::Applied, Verdict::Waiting));
    assert_eq!(verdict(headless[1]), Verdict::Waiting);
    assert_eq!(log.count("SELECT count(*) FROM recorded").await, 0);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_holds_up_nobody_who_has_a_message_of_the_same_key() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { gate: Some(Semaphore::new(1)), ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let key = log.append_line([]).await;
    log.until_letters(State::Parked, 1).await;
    let requested = log.request(parked(), DRY_RUN).await.unwrap();
    until("the dry run is deciding", async || recorder.decisions.load(Ordering::SeqCst) == 2).await;
    log.append(key, 2).await;
    log.until_letters(State::Waiting, 1).await;
    assert_eq!(log.verdicts(requested.replay_id).await, [None]);
    recorder.gate.as_ref().unwrap().add_permits(100);
    let verdicts = log.until_done(requested.replay_id).await;
    assert_eq!(verdicts, Verdicts { applied: 1, ..Verdicts::default() });
    consumer.stop().await;
    relay.stop().await;
}
