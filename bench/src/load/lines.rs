//! The connections of one kind of orders: those that are answered at once, or those that the API holds until they rest.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::http::Connection;
use crate::load::outcome::{Failure, judge};
use crate::load::tally::Tally;
use crate::load::work::Work;
use crate::orders::WAIT_S;

/// How many orders are held at the same time at most; more than that wait for a connection. It takes a pipeline that is
/// thousands of orders behind.
const HELD_MAX: usize = 512;
/// How long one answer may take: as long as an order waits for its rest, and some more.
const ANSWER_WITHIN: Duration = Duration::from_secs(WAIT_S + 10);

/// Connections, each with one order at a time.
#[derive(Debug)]
pub(super) struct Lines {
    work: Rc<Work>,
    tally: Rc<Tally>,
    /// The open ones that carry no order; the one that is free for longest comes first.
    free: Rc<RefCell<VecDeque<Connection>>>,
    /// One for each order that may be under way.
    permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Lines {
    /// So many, all of them open.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub(super) async fn open(work: &Rc<Work>, tally: &Rc<Tally>, count: usize) -> Result<Lines> {
        let lines = Lines::unopened(work, tally, count);
        for _ in 0..count {
            let connection = Connection::open(work.address).await;
            let connection = connection.with_context(|| format!("nobody answers on {}", work.address))?;
            lines.free.borrow_mut().push_back(connection);
        }
        Ok(lines)
    }

    /// Those of orders that are held. They are opened as they are needed.
    pub(super) fn held(work: &Rc<Work>, tally: &Rc<Tally>) -> Lines {
        Lines::unopened(work, tally, HELD_MAX)
    }

    fn unopened(work: &Rc<Work>, tally: &Rc<Tally>, count: usize) -> Lines {
        let (work, tally, permits) = (work.clone(), tally.clone(), Arc::new(Semaphore::new(count)));
        Lines { work, tally, free: Rc::default(), permits, tasks: JoinSet::new() }
    }

    /// Places an order as soon as a connection is free, and does not wait for its answer.
    pub(super) async fn place(&mut self, number: usize, due: Option<Instant>) -> Result<()> {
        let permit = self.permits.clone().acquire_owned().await?;
        let (work, tally, free) = (self.work.clone(), self.tally.clone(), self.free.clone());
        self.tasks.spawn_local(async move {
            let connection = free.borrow_mut().pop_front();
            let connection = place(connection, &work, number, due, &tally).await;
            free.borrow_mut().extend(connection);
            drop(permit);
        });
        while let Some(ended) = self.tasks.try_join_next() {
            ended?;
        }
        Ok(())
    }

    /// Waits for the answers that are not there yet.
    pub(super) async fn finish(mut self) -> Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// Places an order that was to be sent at `due`, now if it had no moment of its own, and tells the tally. Where there is
/// no connection, one is opened. It comes back unless an error has made it useless.
async fn place(
    mut connection: Option<Connection>,
    work: &Work,
    number: usize,
    due: Option<Instant>,
    tally: &Tally,
) -> Option<Connection> {
    let sent = Instant::now();
    let due = due.unwrap_or(sent);
    if sent > work.end {
        tally.not_sent();
        return connection;
    }
    tally.sent(due, sent);
    let exchange = tokio::time::timeout(ANSWER_WITHIN, exchange(&mut connection, work, number)).await;
    let outcome = exchange
        .unwrap_or_else(|_| Err(Failure::unanswered(format!("no answer in {} s", ANSWER_WITHIN.as_secs()))));
    let is_useless = outcome.as_ref().is_err_and(|failure| !failure.answered);
    tally.answered(due, work.is_held(number), outcome);
    connection.filter(|_| !is_useless)
}

async fn exchange(connection: &mut Option<Connection>, work: &Work, number: usize) -> Result<(), Failure> {
    let lost = |error: std::io::Error| Failure::unanswered(format!("connection: {}", error.kind()));
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(Connection::open(work.address).await.map_err(lost)?),
    };
    judge(&connection.exchange(&work.requests[number]).await.map_err(lost)?, work.is_held(number))
}
