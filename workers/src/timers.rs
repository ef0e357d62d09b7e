//! The timers: what lasts too long is given up, so that nobody waits for ever. The deadline stands in the order's row,
//! so a timer that dies loses none. What can't be given up keeps nothing else waiting.

mod postponed;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::coupons::{CouponUse, Coupons, UserCoupon};
use ordermill_domain::orders::{Order, Orders};
use ordermill_pipeline::consumer::{Runtime, derived_event_id, is_rejected};
use ordermill_pipeline::journal::{Journal, JournalError, Keys};
use ordermill_pipeline::log::Origin;
use ordermill_pipeline::pulse::Pulse;
use ordermill_pipeline::readiness::worker_role;
use ordermill_pipeline::retry::Retry;
use ordermill_pipeline::supervised::{self, without_panic};
use ordermill_pipeline::trace::TraceContext;
use ordermill_store::coupons::AwaitsCoupon;
use ordermill_store::{Decision, Written, coupons, decide, orders};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics::WorkerMetrics;
use postponed::Postponed;

/// The worker's name.
pub(crate) const NAME: &str = "timers";
/// How often deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is counted what is overdue all the same.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How many are ended in one transaction.
const BATCH_MAX: i64 = 500;

/// Gives up what is overdue, until shutdown. Several side by side share the work.
pub(crate) async fn run(runtime: Runtime, metrics: WorkerMetrics) {
    let role = worker_role(NAME);
    let Runtime { journal, signs, shutdown, .. } = runtime;
    let (pulse, telling) = (signs.pulse(&role), signs.pulse(&role));
    supervised::run(&role, &shutdown, || {
        let timers = Timers {
            journal: journal.clone(),
            metrics: metrics.clone(),
            pulse: pulse.clone(),
            telling: telling.clone(),
            postponed: Default::default(),
            counted_at: None,
        };
        tokio::spawn(timers.run(shutdown.clone()))
    })
    .await;
    signs.leave(&role).await;
}

/// What has a deadline.
#[derive(Clone, Copy, Debug)]
enum Timed {
    Orders,
    UserCoupons,
}

struct Timers {
    journal: Journal,
    metrics: WorkerMetrics,
    pulse: Pulse,
    /// Of telling orders of their coupons, which is done less often.
    telling: Pulse,
    postponed: [Postponed; Timed::ALL.len()],
    counted_at: Option<Instant>,
}

impl Timers {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = Retry::forever(Duration::from_millis(100), Duration::from_secs(5));
        while !shutdown.is_cancelled() {
            let pause = match self.look().await {
                Ok(()) => {
                    retry.succeeded();
                    self.pulse.works();
                    LOOK_EVERY
                }
                Err(error) => {
                    self.pulse.fails("what is overdue can't be ended");
                    tracing::warn!(%error, "deadlines could not be looked at; tried again");
                    retry.next_delay()
                }
            };
            shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    async fn look(&mut self) -> Result<(), JournalError> {
        for (timed, postponed) in Timed::ALL.into_iter().zip(&mut self.postponed) {
            while end_some(&self.journal, timed, postponed, &self.pulse).await? {}
            self.metrics.postponed(timed.name(), postponed.len());
        }
        if self.counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            self.counted_at = Some(Instant::now());
            let overdue = orders::count_overdue(&self.journal.pool, self.journal.now()).await?;
            self.metrics.orders_overdue.set(overdue);
            let told = if overdue > 0 { give_coupons_up(&self.journal, &self.pulse).await } else { Ok(()) };
            match told {
                Ok(()) => self.telling.works(),
                Err(error) => {
                    self.telling.fails("orders that are overdue can't be told of their coupons");
                    tracing::warn!(%error, "orders that are overdue could not be told of their coupons; tried again");
                }
            }
        }
        Ok(())
    }
}

/// Ends a batch of what is overdue, together, or, where that can't be, one after the other. Answers whether there may be more.
///
/// # Errors
/// Where the same may work later.
async fn end_some(
    journal: &Journal,
    timed: Timed,
    postponed: &mut Postponed,
    pulse: &Pulse,
) -> Result<bool, JournalError> {
    pulse.beat();
    let now = journal.now();
    let due = timed.due(journal, &postponed.left_alone(now)).await?;
    let is_full = usize::try_from(BATCH_MAX).is_ok_and(|full| due.len() >= full);
    if !is_full {
        postponed.due(&due, now);
    }
    if due.is_empty() {
        return Ok(false);
    }
    match timed.end(journal, &due).await {
        Ok(()) => due.iter().for_each(|id| postponed.ended(*id)),
        Err(error) if !is_rejected(&error) => return Err(error),
        Err(_) => {
            for id in due {
                pulse.beat();
                match timed.end(journal, &[id]).await {
                    Ok(()) => postponed.ended(id),
                    Err(error) if !is_rejected(&error) => return Err(error),
                    Err(error) => {
                        let pause_ms = postponed.put(id, journal.now()).as_millis();
                        let what = timed.name();
                        tracing::error!(what, %id, %error, pause_ms, "can't be ended although its time is over");
                    }
                }
            }
        }
    }
    Ok(is_full)
}

impl Timed {
    const ALL: [Timed; 2] = [Timed::Orders, Timed::UserCoupons];

    fn name(self) -> &'static str {
        match self {
            Timed::Orders => Order::NOUN,
            Timed::UserCoupons => UserCoupon::NOUN,
        }
    }

    /// Some of what is overdue, without those.
    async fn due(self, journal: &Journal, except: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
        let (pool, now) = (&journal.pool, journal.now());
        match self {
            Timed::Orders => orders::expired(pool, now, except, BATCH_MAX).await,
            Timed::UserCoupons => coupons::expired(pool, now, except, BATCH_MAX).await,
        }
    }

    /// Ends those, or none of them.
    async fn end(self, journal: &Journal, due: &[Uuid]) -> Result<(), JournalError> {
        match self {
            Timed::Orders => give_up(journal, due).await,
            Timed::UserCoupons => expire(journal, due).await,
        }
    }
}

async fn give_up(journal: &Journal, due: &[Uuid]) -> Result<(), JournalError> {
    let mut keys = Keys::default();
    keys.extend(Order::NOUN, due.iter().copied());
    decide(journal, &keys, |state: &mut Orders| {
        without_panic(|| {
            let (now, mut written) = (state.now, Vec::with_capacity(due.len()));
            for order_id in due {
                let round = state.orders.get(order_id).map_or(0, |order| order.round);
                let Ok(decided) = state.command(*order_id, |order| Ok::<_, Infallible>(order.expire(now)));
                for decided in decided {
                    tracing::warn!(%order_id, event = decided.event.name(), "the order's deadline has passed");
                    // One deadline for each round, so one event.
                    let round = usize::try_from(round).unwrap_or_default();
                    written.push(Written::new(derived_event_id(NAME, *order_id, round), decided, origin()));
                }
            }
            Ok(Decision::of(written, ()))
        })
    })
    .await
}

/// Tells orders that are being undone and are overdue of their coupons. Each by itself: one that can't be told holds up no other.
async fn give_coupons_up(journal: &Journal, pulse: &Pulse) -> Result<(), JournalError> {
    for awaits in coupons::overdue(&journal.pool, journal.now(), BATCH_MAX).await? {
        pulse.beat();
        if let Err(error) = give_coupon_up(journal, awaits).await {
            if !is_rejected(&error) {
                return Err(error);
            }
            let order_id = awaits.order_id;
            tracing::warn!(%order_id, %error, "the order can't be told of its coupon; tried again");
        }
    }
    Ok(())
}

async fn give_coupon_up(journal: &Journal, awaits: AwaitsCoupon) -> Result<(), JournalError> {
    let AwaitsCoupon { order_id, user_id, user_coupon_id } = awaits;
    let mut keys = Keys::default();
    keys.add(CouponUse::NOUN, order_id);
    decide(journal, &keys, |state: &mut Coupons| {
        // An order is told of its coupon once. The rounds that are given up under its id count from 1.
        let event_id = derived_event_id(NAME, order_id, 0);
        without_panic(|| {
            let told = state.give_up(order_id, user_id, user_coupon_id).map(|decided| {
                tracing::warn!(%order_id, event = decided.event.name(), "nobody has told the order of its coupon");
                Written::new(event_id, decided, origin())
            });
            Ok(Decision::of(told.into_iter().collect(), ()))
        })
    })
    .await
}

async fn expire(journal: &Journal, due: &[Uuid]) -> Result<(), JournalError> {
    let mut keys = Keys::default();
    keys.extend(UserCoupon::NOUN, due.iter().copied());
    decide(journal, &keys, |state: &mut Coupons| {
        without_panic(|| {
            let mut written = Vec::with_capacity(due.len());
            for user_coupon_id in due {
                // A coupon expires once, so it has one event of that.
                let event_id = derived_event_id(NAME, *user_coupon_id, 0);
                let expired = state.expire(*user_coupon_id);
                written.extend(expired.map(|decided| Written::new(event_id, decided, origin())));
            }
            Ok(Decision::of(written, ()))
        })
    })
    .await
}

fn origin() -> Origin {
    Origin { cause_id: None, actor: format!("worker:{NAME}"), request: None, trace: TraceContext::new_root() }
}
