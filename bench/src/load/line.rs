//! A connection that orders are placed on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::http::Connection;
use crate::load::outcome::{Failure, judge};
use crate::load::tally::Tally;
use crate::load::work::{Work, is_held};
use crate::orders::WAIT_S;

/// How long one answer may take: as long as an order waits for its rest, and some more.
const ANSWER_WITHIN: Duration = Duration::from_secs(WAIT_S + 10);

/// A connection that is opened when it is needed, and anew after an error.
#[derive(Debug)]
pub(super) struct Line {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Line {
    /// One that is opened with its first order.
    pub(super) fn new(address: SocketAddr) -> Line {
        Line { address, connection: None }
    }

    /// One that is open.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub(super) async fn open(address: SocketAddr) -> Result<Line> {
        let connection = Connection::open(address).await;
        let connection = connection.with_context(|| format!("nobody answers on {address}"))?;
        Ok(Line { address, connection: Some(connection) })
    }

    /// Places an order that was to be sent at `due`, now if it had no moment of its own, and tells the tally.
    pub(super) async fn place(&mut self, work: &Work, number: usize, due: Option<Instant>, tally: &Tally) {
        let sent = Instant::now();
        let due = due.unwrap_or(sent);
        if sent > work.end {
            return tally.not_sent();
        }
        tally.sent(due, sent);
        let held = is_held(number);
        let exchange = self.exchange(&work.requests[number], held);
        let outcome = match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::unanswered(format!("no answer in {} s", ANSWER_WITHIN.as_secs()))),
        };
        if outcome.as_ref().is_err_and(|failure| !failure.answered) {
            self.connection = None;
        }
        tally.answered(due, held, outcome);
    }

    async fn exchange(&mut self, request: &[u8], held: bool) -> Result<(), Failure> {
        let lost = |error: std::io::Error| Failure::unanswered(format!("connection: {}", error.kind()));
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(self.address).await.map_err(lost)?),
        };
        judge(&connection.exchange(request).await.map_err(lost)?, held)
    }
}
