//! The timers: what lasts too long is given up, so that nobody waits for ever. The deadline stands in the order's row,
//! so a timer that dies loses none.

use std::time::Duration;

use ordermill_domain::decider::Decided;
use ordermill_pipeline::consumer::{HandlerError, Runtime, derived_event_id};
use ordermill_pipeline::database;
use ordermill_pipeline::heartbeat::{self, Pulse};
use ordermill_pipeline::log::{self, Origin};
use ordermill_pipeline::retry::Retry;
use ordermill_pipeline::trace::TraceContext;
use ordermill_store::{Written, coupons, orders};

use crate::metrics::WorkerMetrics;

/// The worker's name.
pub(crate) const NAME: &str = "timers";
/// How often deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many orders are given up in one transaction.
const BATCH_MAX: i64 = 500;

/// Gives up what is overdue, until shutdown. Several side by side share the work.
pub(crate) async fn run(runtime: Runtime, instance: String, metrics: WorkerMetrics) {
    let pulse = Pulse::default();
    let beat = tokio::spawn(heartbeat::run(
        runtime.pool.clone(),
        format!("worker:{NAME}"),
        instance,
        pulse.clone(),
        runtime.shutdown.clone(),
    ));
    let mut retry = Retry::forever(Duration::from_millis(100), Duration::from_secs(5));
    let shutdown = runtime.shutdown.clone();
    while !shutdown.is_cancelled() {
        pulse.beat();
        let pause = match look(&runtime, &metrics).await {
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

async fn look(runtime: &Runtime, metrics: &WorkerMetrics) -> Result<(), HandlerError> {
    let full = usize::try_from(BATCH_MAX).unwrap_or(usize::MAX);
    while give_up_some(runtime).await? == full {}
    while expire_some(runtime).await? == full {}
    metrics.orders_overdue().set(orders::count_overdue(&runtime.pool, runtime.clock.now()).await?);
    Ok(())
}

/// Gives up one batch; how many.
async fn give_up_some(runtime: &Runtime) -> Result<usize, HandlerError> {
    let now = runtime.clock.now();
    let mut transaction = database::begin(&runtime.pool).await?;
    let before = orders::load_expired(&mut transaction, now, BATCH_MAX).await?;
    if before.orders.is_empty() {
        return Ok(0);
    }
    let mut after = before.clone();
    let mut entries = Vec::with_capacity(after.orders.len());
    for order in after.orders.values_mut() {
        let Some(Decided { event, sequence }) = order.expire() else { continue };
        tracing::warn!(order_id = %order.order_id, event = event.name(), "the order's deadline has passed");
        // One deadline for each round, so one event.
        let round = usize::try_from(order.round).unwrap_or_default();
        let event_id = derived_event_id(NAME, order.order_id, round);
        let written = Written::new(event_id, Decided { event, sequence }, origin());
        entries.push(written.into_entry(runtime.partitions)?);
    }
    orders::apply(&mut transaction, &before, &after, now).await?;
    log::append(&mut transaction, entries, now).await?;
    transaction.commit().await?;
    runtime.wake.wake();
    Ok(after.orders.len())
}

/// Ends one batch of users' coupons whose time is over; how many.
async fn expire_some(runtime: &Runtime) -> Result<usize, HandlerError> {
    let now = runtime.clock.now();
    let mut transaction = database::begin(&runtime.pool).await?;
    let before = coupons::load_expired(&mut transaction, now, BATCH_MAX).await?;
    if before.user_coupons.is_empty() {
        return Ok(0);
    }
    let mut after = before.clone();
    let mut entries = Vec::with_capacity(before.user_coupons.len());
    for user_coupon_id in before.user_coupons.keys() {
        let Some(decided) = after.expire(*user_coupon_id) else { continue };
        // A coupon expires once, so it has one event of that.
        let event_id = derived_event_id(NAME, *user_coupon_id, 0);
        entries.push(Written::new(event_id, decided, origin()).into_entry(runtime.partitions)?);
    }
    coupons::apply(&mut transaction, &before, &after).await?;
    log::append(&mut transaction, entries, now).await?;
    transaction.commit().await?;
    runtime.wake.wake();
    Ok(before.user_coupons.len())
}

fn origin() -> Origin {
    Origin { cause: None, actor: format!("worker:{NAME}"), request: None, trace: TraceContext::new_root() }
}
