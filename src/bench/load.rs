//! `ordermill bench-load`: the process that places the orders, apart from the one that is measured.
//!
//! Two ways of placing them. The *closed loop* keeps every connection busy: the next order is sent when the last one is
//! answered, which finds the highest rate, but a slow answer also holds back the orders that would have met it. The
//! *open loop* sends at moments fixed beforehand, whatever has become of the orders before, and measures from those
//! moments on, so that waiting anywhere shows: in the API, or here for a free connection.
//!
//! One thread does it all, so that it takes little from what it measures; a second one keeps the time.

mod closed;
mod open;
mod tally;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::http::{Answer, Connection};
use super::latency::Percentiles;
use super::mix::{Orders, Shop, WAIT_S};
use tally::Tally;

/// In the open loop, of so many orders one is held until it rests.
pub const SAMPLE_EVERY: usize = 10;
/// How long one answer may take: as long as an order waits for its rest, and some more.
const ANSWER_WITHIN: Duration = Duration::from_secs(WAIT_S + 10);

/// The flags of `ordermill bench-load`.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Where the API listens; this machine only.
    #[arg(long)]
    address: SocketAddr,
    /// The file that says who orders what.
    #[arg(long)]
    shop: PathBuf,
    /// Stands before the number of every order in its idempotency key.
    #[arg(long)]
    label: String,
    /// How many orders.
    #[arg(long)]
    orders: usize,
    /// How many connections; in the open loop, as many again for the orders that wait for their rest.
    #[arg(long)]
    connections: usize,
    /// Sends so many orders a second, answered or not: the open loop. Without it, the closed one.
    #[arg(long)]
    rate: Option<f64>,
    /// Chooses who orders what.
    #[arg(long)]
    seed: u64,
    /// Sends nothing any more after this many seconds.
    #[arg(long)]
    within_s: u64,
}

/// What the load process says at its end, as one line of JSON. Times are microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Orders that were sent.
    pub sent: u64,
    /// Those that were answered with 202.
    pub accepted: u64,
    /// What went wrong, and how often. An order that was not sent for lack of time is here, too.
    pub errors: BTreeMap<String, u64>,
    /// When the first order was sent.
    pub first_sent_us: i64,
    /// When the first 202 came.
    pub first_accepted_us: i64,
    /// When the last 202 came.
    pub last_accepted_us: i64,
    /// From the moment an order was to be sent to its 202, without those that waited for their rest.
    pub accept: Percentiles,
    /// From the moment an order was to be sent to the answer that says CONFIRMED, of those that waited for it.
    pub settle: Percentiles,
    /// How much later than they should have been orders were sent; 0 in the closed loop.
    pub delay: Percentiles,
}

/// Places the orders and prints the report.
///
/// # Errors
/// Where the flags or the shop can't be used, or nobody listens there.
pub async fn run(args: &LoadArgs) -> Result<ExitCode> {
    if !args.address.ip().is_loopback() {
        bail!(
            "{} is not on this machine: the load is for the stack that `ordermill bench` starts",
            args.address
        );
    }
    let load = Rc::new(Load::prepare(args)?);
    let placing = async {
        match args.rate {
            None => closed::run(load, args.connections).await,
            Some(rate) => open::run(load, args.connections, rate).await,
        }
    };
    let tally = LocalSet::new().run_until(placing).await?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&tally.report())?)?;
    Ok(ExitCode::SUCCESS)
}

fn read_shop(path: &Path) -> Result<Shop> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let shop: Shop =
        serde_json::from_str(&text).with_context(|| format!("{} is not a shop", path.display()))?;
    if shop.users.is_empty() || shop.products.is_empty() {
        bail!("{} has no users or no products", path.display());
    }
    Ok(shop)
}

/// The orders to be placed, ready for the wire.
#[derive(Debug)]
struct Load {
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    is_open: bool,
    /// Nothing is sent after this.
    end: Instant,
}

impl Load {
    fn prepare(args: &LoadArgs) -> Result<Load> {
        let is_open = args.rate.is_some();
        let mut orders =
            Orders::new(read_shop(&args.shop)?, &args.address.to_string(), &args.label, args.seed);
        let requests = (0..args.orders).map(|number| orders.request(number, is_open && waits(number)));
        Ok(Load {
            address: args.address,
            requests: requests.collect(),
            is_open,
            end: Instant::now() + Duration::from_secs(args.within_s),
        })
    }

    fn waits(&self, number: usize) -> bool {
        self.is_open && waits(number)
    }
}

/// Whether that order of the open loop is held until it rests.
fn waits(number: usize) -> bool {
    number.is_multiple_of(SAMPLE_EVERY)
}

/// A connection that is opened anew after an error.
#[derive(Debug)]
struct Line {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Line {
    async fn open(address: SocketAddr) -> Result<Line> {
        let connection = Connection::open(address).await;
        let connection = connection.with_context(|| format!("nobody answers on {address}"))?;
        Ok(Line { address, connection: Some(connection) })
    }

    /// Places an order that should have been sent at `due`, and tells the tally.
    async fn place(&mut self, load: &Load, number: usize, due: Option<Instant>, tally: &Tally) {
        let sent = Instant::now();
        let due = due.unwrap_or(sent);
        if sent > load.end {
            return tally.not_sent();
        }
        tally.sent(due, sent);
        let waits = load.waits(number);
        let exchange = self.exchange(&load.requests[number], waits);
        let outcome = match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::unanswered(format!("no answer in {} s", ANSWER_WITHIN.as_secs()))),
        };
        if outcome.as_ref().is_err_and(|failure| !failure.answered) {
            self.connection = None;
        }
        tally.answered(due, waits, outcome);
    }

    async fn exchange(&mut self, request: &[u8], waits: bool) -> Result<(), Failure> {
        let lost = |error: std::io::Error| Failure::unanswered(format!("connection: {}", error.kind()));
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(self.address).await.map_err(lost)?),
        };
        judge(&connection.exchange(request).await.map_err(lost)?, waits)
    }
}

/// Why an order is not as it should be.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    kind: String,
    /// There was an answer, so the connection can be used on.
    answered: bool,
    /// It was accepted all the same.
    accepted: bool,
}

impl Failure {
    fn unanswered(kind: String) -> Failure {
        Failure { kind, answered: false, accepted: false }
    }
}

/// Whether an answer is what it should be: 202, and CONFIRMED where it was waited for.
fn judge(answer: &Answer<'_>, waits: bool) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Order {
        status: String,
    }
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    if answer.status != 202 {
        let code = serde_json::from_slice(answer.body).map_or_else(|_| String::new(), |p: Problem| p.code);
        let kind = format!("{} {code}", answer.status).trim_end().to_owned();
        return Err(Failure { kind, answered: true, accepted: false });
    }
    if !waits {
        return Ok(());
    }
    let kind = match serde_json::from_slice(answer.body) {
        Ok(Order { status }) if status == "CONFIRMED" => return Ok(()),
        Ok(Order { status }) => format!("{status} after waiting"),
        Err(_) => "202 without an order".to_owned(),
    };
    Err(Failure { kind, answered: true, accepted: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str, waits: bool) -> Result<(), (String, bool)> {
        judge(&Answer { status, body: body.as_bytes() }, waits)
            .map_err(|failure| (failure.kind, failure.accepted))
    }

    #[test]
    fn only_202_is_accepted_and_a_problem_is_known_by_its_code() {
        assert_eq!(judged(202, "", false), Ok(()));
        assert_eq!(judged(200, "{}", false), Err(("200".to_owned(), false)));
        let problem = r#"{"code":"OVERLOADED","status":503}"#;
        assert_eq!(judged(503, problem, true), Err(("503 OVERLOADED".to_owned(), false)));
    }

    #[test]
    fn an_order_that_was_waited_for_must_be_confirmed() {
        assert_eq!(judged(202, r#"{"status":"CONFIRMED","total":1}"#, true), Ok(()));
        let rejected = judged(202, r#"{"status":"REJECTED"}"#, true);
        assert_eq!(rejected, Err(("REJECTED after waiting".to_owned(), true)));
        assert!(judged(202, r#"{"status":"PENDING"}"#, true).is_err());
        assert_eq!(judged(202, r#"{"status":"PENDING"}"#, false), Ok(()));
    }

    #[test]
    fn one_order_in_ten_waits_for_its_rest() {
        assert_eq!((0..1_000).filter(|number| waits(*number)).count(), 100);
    }
}
