//! One batch, one transaction: effects, new events, dead letters and offsets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use thiserror::Error;

use super::offsets::{self, Advance, Progress};
use super::record::{Received, Record};
use super::{Appended, Batch, Handler, HandlerError, Runtime};
use crate::dead_letters::{self, Code, Rejection};
use crate::label::Label;
use crate::log;
use crate::trace::TraceContext;
use crate::{database, database::Next};

/// A record that is to be applied, or only to be passed over.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) record: Record,
    pub(super) epoch: i64,
    /// The partition's last label before this record.
    pub(super) before: Label,
    /// The partition's last label once this record is done with.
    pub(super) label: Label,
    /// The record's own label.
    pub(super) tip: Option<Label>,
    /// It was applied before: only the offset moves.
    pub(super) skip: bool,
}

/// Why a batch was not committed.
#[derive(Debug, Error)]
pub(super) enum BatchError {
    /// The same again, later.
    #[error("{0}")]
    Retry(HandlerError),
    /// A partition has another owner: drop everything and join anew.
    #[error("another member owns a partition of this batch")]
    Fenced,
    /// Kafka holds another history than the log: nothing of it is applied.
    #[error(
        "Kafka holds records that the log does not have: the database was restored from an older copy. Stop all \
         relays and workers and run `ordermill relay adopt`"
    )]
    NotInLog,
    /// A record breaks a rule of the database; it must be found and put aside.
    #[error("{0}")]
    Reject(HandlerError),
}

impl From<HandlerError> for BatchError {
    fn from(error: HandlerError) -> BatchError {
        match error.next() {
            Next::Reject => BatchError::Reject(error),
            // What is wrong with the program or its set-up is wrong with every record: nothing is put aside for
            // it; the worker stays where it is, says so, and goes on once it is mended.
            Next::Retry | Next::Bug => BatchError::Retry(error),
        }
    }
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> BatchError {
        HandlerError::from(error).into()
    }
}

/// How often the batch has been tried, for the dead letters in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempts {
    pub(super) count: u32,
    pub(super) first_at: Timestamp,
}

/// Applies the records that are `left`, in order, and takes from `left` what has been committed, also where it
/// fails on the way. A record that breaks a rule of the database is found by halving and becomes a dead letter.
pub(super) async fn apply<H: Handler>(
    runtime: &Runtime,
    handler: &H,
    left: &mut &[Item],
    attempts: Attempts,
) -> Result<(), BatchError> {
    let mut count = left.len();
    while !left.is_empty() {
        let (items, rest) = left.split_at(count.min(left.len()));
        match commit(runtime, handler, items, attempts, None).await {
            Ok(()) => {
                *left = rest;
                // The poison is behind or in the next half: the rest is tried as a whole again.
                count = left.len();
            }
            Err(BatchError::Reject(error)) if items.len() == 1 => {
                tracing::error!(group = H::GROUP, place = ?items[0].record.place, %error, "dead letter");
                commit(runtime, handler, items, attempts, Some(&error.to_string())).await?;
                *left = rest;
                count = left.len();
            }
            Err(BatchError::Reject(_)) => count = items.len() / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One transaction. With `refusal`, the records are not applied but put aside for that reason.
async fn commit<H: Handler>(
    runtime: &Runtime,
    handler: &H,
    items: &[Item],
    attempts: Attempts,
    refusal: Option<&str>,
) -> Result<(), BatchError> {
    let now = runtime.clock.now();
    let started = std::time::Instant::now();
    let mut transaction = database::begin(&runtime.pool).await?;
    let (events, rejected) = sort(items, refusal);
    let mut entries = if events.is_empty() {
        Vec::new()
    } else {
        let batch = Batch { events: &events, now, partitions: runtime.partitions };
        handler.handle(&mut transaction, &batch).await?
    };
    let appended: Vec<Appended> = entries
        .iter()
        .filter(|entry| H::follows_up(entry))
        .map(|entry| Appended { event_id: entry.event_id, entry: entry.clone() })
        .collect();
    for (record, code, error) in &rejected {
        let rejection = Rejection {
            code: *code,
            error: error.clone(),
            attempts: i32::try_from(attempts.count).unwrap_or(i32::MAX),
            first_failed_at: attempts.first_at,
            last_failed_at: now,
        };
        entries.push(dead_letters::record(&mut transaction, H::GROUP, record, &rejection).await?);
    }
    let wakes = !entries.is_empty();
    log::append(&mut transaction, entries, now).await?;
    match offsets::advance(&mut transaction, H::GROUP, &progress(items), now).await? {
        Advance::Moved => {}
        Advance::Fenced => return Err(BatchError::Fenced),
        Advance::NotInLog => return Err(BatchError::NotInLog),
    }
    transaction.commit().await?;
    if wakes {
        runtime.wake.wake();
    }
    measure::<H>(runtime, items, rejected.len(), started.elapsed().as_secs_f64());
    if !appended.is_empty() {
        handler.committed(appended);
    }
    Ok(())
}

type Rejected<'a> = (&'a Record, Code, String);

/// What can be applied, and what can't with the reason.
fn sort<'a>(items: &'a [Item], refusal: Option<&str>) -> (Vec<Received>, Vec<Rejected<'a>>) {
    let mut events = Vec::with_capacity(items.len());
    let mut rejected = Vec::new();
    for Item { record, .. } in items.iter().filter(|item| !item.skip) {
        let decoded = match refusal {
            Some(reason) => Err((Code::Rule, reason.to_owned())),
            None if record.label().is_none() => {
                Err((Code::Foreign, "not published by the relay: no ordermill-label header".to_owned()))
            }
            None => record.decode(),
        };
        match (decoded, record.event_id().zip(record.time())) {
            (Ok(event), Some((event_id, at))) => events.push(Received {
                event_id,
                event,
                at,
                place: record.place.clone(),
                trace: TraceContext::child_of(record.traceparent()),
            }),
            (Ok(_), None) => rejected.push((record, Code::Foreign, "no ce_id or ce_time header".to_owned())),
            (Err((code, error)), _) => rejected.push((record, code, error)),
        }
    }
    (events, rejected)
}

/// How far the batch brings each partition, and from where.
fn progress(items: &[Item]) -> Vec<Progress> {
    let mut partitions: BTreeMap<(&str, i16), Progress> = BTreeMap::new();
    for item in items {
        let place = &item.record.place;
        let progress = partitions.entry((&place.topic, place.partition)).or_insert_with(|| Progress {
            topic: place.topic.clone(),
            partition: place.partition,
            epoch: item.epoch,
            before: item.before,
            next_offset: 0,
            label: item.label,
            tip: None,
            event_id: None,
        });
        if item.tip == Some(item.label) && !item.skip {
            progress.event_id = item.record.event_id();
        }
        progress.next_offset = place.offset + 1;
        progress.label = item.label;
        progress.tip = item.tip;
    }
    partitions.into_values().collect()
}

fn measure<H: Handler>(runtime: &Runtime, items: &[Item], rejected: usize, seconds: f64) {
    let metrics = &runtime.metrics;
    let label = crate::metrics::GroupLabel { group: H::GROUP.to_owned() };
    let skipped = items.iter().filter(|item| item.skip).count();
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52 records")]
    let records = (items.len() - skipped) as f64;
    metrics.batch_records.get_or_create(&label).observe(records);
    metrics.batch_seconds.get_or_create(&label).observe(seconds);
    metrics.skipped.get_or_create(&label).inc_by(skipped as u64);
    metrics.dead_letters.get_or_create(&label).inc_by(rejected as u64);
    // Shown as 0 until there is one: who watches its rate would miss the first one otherwise.
    metrics.retries.get_or_create(&label).inc_by(0);
}
