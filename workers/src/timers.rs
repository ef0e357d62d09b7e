//! The timers: what lasts too long is given up, so that nobody waits for ever. The deadline stands in the order's row,
//! so a timer that dies loses none.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::coupons::{Coupons, UserCoupon};
use ordermill_domain::orders::{Order, Orders};
use ordermill_pipeline::consumer::{Runtime, derived_event_id};
use ordermill_pipeline::heartbeat;
use ordermill_pipeline::journal::{Journal, JournalError, Keys};
use ordermill_pipeline::log::Origin;
use ordermill_pipeline::retry::Retry;
use ordermill_pipeline::trace::TraceContext;
use ordermill_store::{Decision, Written, coupons, decide, orders};

use crate::metrics::WorkerMetrics;

/// The worker's name.
pub(crate) const NAME: &str = "timers";
/// How often deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is counted what is overdue all the same.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How many orders are given up in one transaction.
const BATCH_MAX: i64 = 500;

/// Gives up what is overdue, until shutdown. Several side by side share the work.
pub(crate) async fn run(runtime: Runtime, instance: String, metrics: WorkerMetrics) {
    let role = format!("worker:{NAME}");
    let (pulse, beat) = heartbeat::start(&runtime.journal.pool, &role, &instance, &runtime.shutdown);
    let mut retry = Retry::forever(Duration::from_millis(100), Duration::from_secs(5));
    let shutdown = runtime.shutdown.clone();
    let mut counted_at: Option<Instant> = None;
    while !shutdown.is_cancelled() {
        pulse.beat();
        let pause = match look(&runtime.journal, &metrics, &mut counted_at).await {
            Ok(()) => {
                retry.succeeded();
                LOOK_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "deadlines could not be looked at; tried again");
                retry.next_delay()
            }
        };
        shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    let _ = beat.await;
}

async fn look(
    journal: &Journal,
    metrics: &WorkerMetrics,
    counted_at: &mut Option<Instant>,
) -> Result<(), JournalError> {
    let full = usize::try_from(BATCH_MAX).unwrap_or(usize::MAX);
    while give_up_some(journal).await? == full {}
    while expire_some(journal).await? == full {}
    if counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
        metrics.orders_overdue.set(orders::count_overdue(&journal.pool, journal.now()).await?);
        *counted_at = Some(Instant::now());
    }
    Ok(())
}

/// Gives up one batch of orders; how many were due.
async fn give_up_some(journal: &Journal) -> Result<usize, JournalError> {
    let due = orders::expired(&journal.pool, journal.now(), BATCH_MAX).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let mut keys = Keys::default();
    keys.extend(Order::NOUN, due.iter().copied());
    decide(journal, &keys, |state: &mut Orders| {
        let (now, mut written) = (state.now, Vec::with_capacity(due.len()));
        for order_id in &due {
            let round = state.orders.get(order_id).map_or(0, |order| order.round);
            let Ok(decided) = state.command(*order_id, |order| Ok::<_, Infallible>(order.expire(now)));
            for decided in decided {
                tracing::warn!(%order_id, event = decided.event.name(), "the order's deadline has passed");
                // One deadline for each round, so one event.
                let round = usize::try_from(round).unwrap_or_default();
                written.push(Written::new(derived_event_id(NAME, *order_id, round), decided, origin()));
            }
        }
        Ok::<_, JournalError>(Decision::of(written, ()))
    })
    .await?;
    Ok(due.len())
}

/// Ends one batch of users' coupons whose time is over; how many were due.
async fn expire_some(journal: &Journal) -> Result<usize, JournalError> {
    let due = coupons::expired(&journal.pool, journal.now(), BATCH_MAX).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let mut keys = Keys::default();
    keys.extend(UserCoupon::NOUN, due.iter().copied());
    decide(journal, &keys, |state: &mut Coupons| {
        let mut written = Vec::with_capacity(due.len());
        for user_coupon_id in &due {
            // A coupon expires once, so it has one event of that.
            let event_id = derived_event_id(NAME, *user_coupon_id, 0);
            written.extend(
                state.expire(*user_coupon_id).map(|decided| Written::new(event_id, decided, origin())),
            );
        }
        Ok::<_, JournalError>(Decision::of(written, ()))
    })
    .await?;
    Ok(due.len())
}

fn origin() -> Origin {
    Origin { cause_id: None, actor: format!("worker:{NAME}"), request: None, trace: TraceContext::new_root() }
}
