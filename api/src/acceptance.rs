//! Accepting orders, many in one commit.
//!
//! Submissions wait in a bounded queue. An acceptor takes all that wait, decides each in memory, and stores the
//! accepted with one statement. An answer is given after the commit.

mod decision;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use ordermill_domain::orders::Order;
use ordermill_pipeline::database::{Next, next_after};
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::log::Entry;
use ordermill_schemas::Event;
use ordermill_schemas::orders::OrderPlaced;
use ordermill_store::acceptance::{self, References, Submission};
use ordermill_store::idempotency::{self, Kept, Request};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::admission::Admission;
use crate::config::ApiConfig;
use crate::idempotency::{Answer, RunningKey, first_answer, in_use, location_of, replay};
use crate::metrics::ApiMetrics;
use crate::problem::Problem;
use crate::request::RequestContext;
use crate::rounds::in_rounds;
use crate::routes::orders::view::OrderView;

pub(crate) use decision::{Wanted, order_lines};

/// The status of an answer to an accepted order.
const ACCEPTED: i16 = 202;

/// A submission that waits for its decision.
struct Pending {
    request: Request,
    /// Held while this is the first request of its key; absent where another one runs.
    running: Option<RunningKey>,
    wanted: Wanted,
    context: RequestContext,
    reply: oneshot::Sender<Result<Accepted, Problem>>,
}

impl Pending {
    fn answer(self, result: Result<Accepted, Problem>) {
        let Pending { running, reply, .. } = self;
        // The key is free again before the client hears of it, so that it can be repeated at once. A client who
        // has gone hears nothing, and finds the answer kept.
        drop(running);
        let _ = reply.send(result);
    }
}

/// The answer to a submission.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The answer as it is kept.
    pub(crate) answer: Answer,
    /// The order; absent where the answer was given before.
    pub(crate) order_id: Option<Uuid>,
}

/// Where submissions wait.
#[derive(Debug)]
pub(crate) struct Acceptance {
    queue: mpsc::Sender<Pending>,
    admission: Arc<Admission>,
    metrics: ApiMetrics,
}

impl Acceptance {
    /// Starts the acceptor; it ends when everything is answered after `drained`.
    pub(crate) fn start(
        journal: &Journal,
        config: &ApiConfig,
        metrics: &ApiMetrics,
        tasks: &TaskTracker,
        drained: &CancellationToken,
    ) -> Acceptance {
        let (queue, submissions) = mpsc::channel(config.accept_queue_max.max(1));
        let deadline = SignedDuration::try_from(config.order_deadline).unwrap_or(SignedDuration::MAX);
        let acceptor = Acceptor { journal: journal.clone(), metrics: metrics.clone(), deadline };
        // While one batch is read and committed, the next one gathers: fewer and larger ones than several acceptors would make.
        tasks.spawn(in_rounds(submissions, config.accept_batch_max.max(1), drained.clone(), move |batch| {
            acceptor.metrics.accept_queue_orders.dec_by(i64::try_from(batch.len()).unwrap_or(i64::MAX));
            let acceptor = acceptor.clone();
            async move { acceptor.accept(batch).await }
        }));
        let admission = Arc::<Admission>::default();
        tasks.spawn(admission.clone().watch(journal.clone(), config.clone(), drained.clone()));
        Acceptance { queue, admission, metrics: metrics.clone() }
    }

    /// Has an order accepted.
    ///
    /// # Errors
    /// `OVERLOADED` where too many wait already, here or for relay and workers, and why the order or its key was refused.
    pub(crate) async fn submit(
        &self,
        request: Request,
        running: Option<RunningKey>,
        wanted: Wanted,
        context: RequestContext,
    ) -> Result<Accepted, Problem> {
        if let Some(retry_after) = self.admission.refusal() {
            return Err(Problem::overloaded_for(retry_after));
        }
        let (reply, answer) = oneshot::channel();
        let pending = Pending { request, running, wanted, context, reply };
        self.queue.try_send(pending).map_err(|_| Problem::overloaded())?;
        self.metrics.accept_queue_orders.inc();
        // No answer at all: the batch has panicked.
        answer.await.unwrap_or_else(|_| Err(Problem::internal()))
    }
}

/// Decides on batches of submissions.
#[derive(Clone)]
struct Acceptor {
    journal: Journal,
    metrics: ApiMetrics,
    deadline: SignedDuration,
}

impl Acceptor {
    async fn accept(&self, mut batch: Vec<Pending>) {
        // Nobody waits for these, and nothing has been begun.
        batch.retain(|pending| !pending.reply.is_closed());
        if batch.is_empty() {
            return;
        }
        let references = match self.references(&batch).await {
            Ok(references) => references,
            Err(error) => return refuse_all(batch, &Problem::from(error)),
        };
        let now = self.journal.now();
        let (mut placed, mut refused) = (Vec::new(), Vec::new());
        for pending in batch {
            match self.place(&pending, &references, now) {
                Ok(submission) => placed.push((submission, pending)),
                Err(problem) => refused.push((pending, problem)),
            }
        }
        // A repetition gets the first answer, also where it would be refused by now.
        for (pending, problem) in self.replay_kept(refused).await {
            pending.answer(Err(problem));
        }
        self.store(placed, now).await;
    }

    /// What the submissions refer to.
    async fn references(&self, batch: &[Pending]) -> Result<References, sqlx::Error> {
        let mut user_ids: Vec<Uuid> = batch.iter().map(|pending| pending.wanted.user_id).collect();
        let lines = batch.iter().flat_map(|pending| &pending.wanted.lines);
        let mut product_ids: Vec<Uuid> = lines.map(|line| line.product_id).collect();
        for ids in [&mut user_ids, &mut product_ids] {
            ids.sort_unstable();
            ids.dedup();
        }
        acceptance::references(&self.journal.pool, &user_ids, &product_ids).await
    }

    /// Gives those whose keys have been used before their first answers. Answers the others, with what stood beside them.
    async fn replay_kept<T>(&self, batch: Vec<(Pending, T)>) -> Vec<(Pending, T)> {
        if batch.is_empty() {
            return batch;
        }
        let requests: Vec<&Request> = batch.iter().map(|(pending, _)| &pending.request).collect();
        let mut kept: HashMap<usize, Kept> = match idempotency::find_many(&self.journal.pool, &requests).await
        {
            Ok(kept) => kept.into_iter().collect(),
            Err(error) => {
                refuse_all(batch.into_iter().map(|(pending, _)| pending), &Problem::from(error));
                return Vec::new();
            }
        };
        let mut others = Vec::new();
        for (index, (pending, beside)) in batch.into_iter().enumerate() {
            let Some(kept) = kept.remove(&index) else {
                others.push((pending, beside));
                continue;
            };
            let answer = replay(kept, &pending.request);
            self.metrics.replays.inc_by(answer.is_ok().into());
            pending.answer(answer.map(|answer| Accepted { answer, order_id: None }));
        }
        others
    }

    /// The order that a submission makes, unless its key was used before.
    fn place(
        &self,
        pending: &Pending,
        references: &References,
        now: Timestamp,
    ) -> Result<Submission, Problem> {
        if pending.running.is_none() {
            return Err(in_use());
        }
        let (lines, quote) = decision::price(&pending.wanted, references)?;
        let Wanted { user_id, payment_method, user_coupon_id, .. } = pending.wanted;
        let deadline_at = now.checked_add(self.deadline).unwrap_or(Timestamp::MAX);
        let order_id = Uuid::now_v7();
        let placed = OrderPlaced {
            order_id,
            user_id,
            lines,
            payment_method,
            user_coupon_id,
            subtotal: quote.subtotal,
            discounts: quote.discounts,
            total: quote.total,
            deadline_at,
        };
        let origin = pending.context.origin(pending.request.caller.clone());
        let (order, event) = (Order::placed(&placed, now), Event::from(placed));
        let entry = Entry::of_event(Uuid::now_v7(), event, 1, origin, self.journal.partitions)?;
        Ok(Submission { request: pending.request.clone(), order, entry })
    }

    /// Stores what was accepted; where one of them breaks a rule of the database, each alone.
    async fn store(&self, accepted: Vec<(Submission, Pending)>, now: Timestamp) {
        if accepted.is_empty() {
            return;
        }
        let (submissions, pending): (Vec<Submission>, Vec<Pending>) = accepted.into_iter().unzip();
        match acceptance::accept(&self.journal, &submissions, now).await {
            Ok(true) => {
                self.metrics.accept_batch_orders.observe(submissions.len() as f64);
                for (submission, pending) in submissions.into_iter().zip(pending) {
                    self.announce(submission, pending);
                }
            }
            // Some of the keys were used before, which is seldom, so nobody has looked until now.
            Ok(false) => {
                let new = self.replay_kept(pending.into_iter().map(|pending| (pending, ())).collect()).await;
                Box::pin(self.accept(new.into_iter().map(|(pending, ())| pending).collect())).await;
            }
            Err(error) if next_after(&error) == Next::Reject && submissions.len() > 1 => {
                tracing::warn!(%error, orders = submissions.len(), "a batch was refused; trying each alone");
                for alone in submissions.into_iter().zip(pending) {
                    Box::pin(self.store(vec![alone], now)).await;
                }
            }
            Err(error) => refuse_all(pending, &Problem::from(error)),
        }
    }

    fn announce(&self, submission: Submission, pending: Pending) {
        let (order_id, at) = (submission.order.purchase.order_id, submission.order.purchase.created_at);
        self.metrics.orders_accepted.inc();
        tracing::debug!(
            %order_id,
            request_id = %pending.context.request_id,
            trace_id = %pending.context.trace.trace_id(),
            "order accepted"
        );
        let view = OrderView::of(submission.order, at);
        let first = first_answer(ACCEPTED, Some(location_of(order_id)), &view);
        pending.answer(first.map(|first| {
            let answer = Answer { first, is_replay: false };
            Accepted { answer, order_id: Some(order_id) }
        }));
    }
}

fn refuse_all(batch: impl IntoIterator<Item = Pending>, problem: &Problem) {
    for pending in batch {
        pending.answer(Err(problem.clone()));
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::problem::Code;

    #[tokio::test]
    async fn who_finds_the_queue_full_is_turned_away_at_once() {
        let (queue, _nobody_takes) = mpsc::channel(1);
        let metrics = ApiMetrics::register(&mut Registry::default());
        let acceptance = Arc::new(Acceptance { queue, admission: Arc::default(), metrics: metrics.clone() });
        let submit = |acceptance: Arc<Acceptance>| async move {
            let request = Request {
                caller: String::new(),
                route: String::new(),
                key: String::new(),
                body_hash: Vec::new(),
            };
            let payment_method = ordermill_schemas::orders::PaymentMethod::Balance;
            let (lines, user_coupon_id) = (Vec::new(), None);
            let wanted = Wanted { user_id: Uuid::nil(), lines, payment_method, user_coupon_id };
            acceptance.submit(request, None, wanted, RequestContext::of(&HeaderMap::new())).await
        };
        let first = tokio::spawn(submit(acceptance.clone()));
        while acceptance.queue.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(submit(acceptance).await.unwrap_err().code(), Code::Overloaded);
        assert!(!first.is_finished());
        assert_eq!(metrics.accept_queue_orders.get(), 1);
    }
}
