//! The order of things in one run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use ordermill_pipeline::relay;
use ordermill_stack::{KAFKA_VERSION, Progress as _, Terminal};
use ordermill_store::orders;
use sqlx::PgPool;
use uuid::Uuid;

use super::BenchArgs;
use super::batches::Figures;
use super::load::{LoadReport, SAMPLE_EVERY};
use super::machine::{Machine, OTHERS, Usage, Work};
use super::pgbench::{self, Pgbench};
use super::replay;
use super::report::{
    ClosedLoop, OpenLoop, OrderCounts, Parameters, PgbenchRates, Report, Verified, Versions,
};
use super::setup;
use super::stack::{OwnStack, finish, this_program};
use crate::database::connect_pool;
use crate::verify::{self, Facts};

/// The share of the settled rate at which latency is measured, where no rate is given.
const OPEN_LOOP_SHARE: f64 = 0.3;
/// Where nothing settles, so many orders a second are sent all the same.
const RATE_MIN: f64 = 0.1;
/// How often it is looked whether orders are still under way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a load may send.
const SEND_WITHIN: Duration = Duration::from_secs(1_200);
/// How long after the last 202 the last order may take to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(600);
/// The file that tells the load who orders what.
const SHOP_FILE: &str = "shop.json";

/// How a phase places its orders.
#[derive(Clone, Copy, Debug)]
struct Phase {
    label: &'static str,
    orders: usize,
    /// Orders a second in the open loop; none in the closed one.
    rate: Option<f64>,
}

/// A phase that is over.
struct Placed {
    load: LoadReport,
    /// When no order was under way any more, in microseconds since 1970; none where that never was.
    rested_at_us: Option<i64>,
    work: Work,
}

/// The stack under measurement, and what has been seen of it.
struct Run<'a> {
    args: &'a BenchArgs,
    stack: OwnStack,
    pool: PgPool,
    progress: Terminal,
    orders: OrderCounts,
    errors: BTreeMap<String, u64>,
}

/// Measures everything on a stack of its own.
pub(super) async fn measure(args: &BenchArgs) -> Result<Report> {
    let progress = Terminal::new();
    let stack =
        step(&progress, "starting a stack of PostgreSQL, Kafka, gateway and pipeline", OwnStack::start(args))
            .await?;
    let pool = connect_pool(stack.database_url(), "bench", 2).await?;
    let orders = OrderCounts { sent: 0, accepted: 0, confirmed: 0, by_status: BTreeMap::new() };
    let mut run = Run { args, stack, pool, progress, orders, errors: BTreeMap::new() };
    let report = run.phases().await;
    let Run { stack, pool, progress, .. } = run;
    pool.close().await;
    let kept = step(&progress, "stopping the stack", stack.stop()).await;
    // What went wrong first is the more telling.
    let report = report?;
    if let Some(path) = kept? {
        eprintln!("the data directory is {}", path.display());
    }
    Ok(report)
}

impl Run<'_> {
    async fn phases(&mut self) -> Result<Report> {
        let args = self.args;
        let pgbench =
            step(&self.progress, "filling pgbench's database", Pgbench::prepare(&self.stack, &self.pool));
        let pgbench = pgbench.await?;
        let (before_per_s, others_before) = self.transactions(&pgbench, "before").await?;
        self.open_shop().await?;
        self.place(Phase { label: "warm-up", orders: args.warm_up, rate: None }).await?;
        let closed_loop = self.closed_loop().await?;
        let open_loop = self.open_loop(closed_loop.settled_per_s).await?;
        let (after_per_s, others_after) = self.transactions(&pgbench, "after").await?;
        let t_per_s = f64::midpoint(before_per_s, after_per_s);
        let replay = replay::measure(self.stack.database_url(), &self.pool);
        let replay = step(&self.progress, "reading and replaying the log", replay).await?;
        let verify = step(&self.progress, "verifying", self.verify()).await?;
        self.count_orders().await?;
        Ok(Report {
            ok: verify.ok && self.errors.is_empty() && self.orders.confirmed == self.orders.sent,
            at: Timestamp::now(),
            parameters: parameters(args, relay::partitions(&self.pool).await?),
            versions: Versions {
                ordermill: env!("CARGO_PKG_VERSION"),
                postgresql: pgbench::version(&self.pool).await?,
                postgresql_settings: pgbench::settings(&self.pool).await?,
                kafka: KAFKA_VERSION,
            },
            machine: Machine::this()?,
            pgbench: PgbenchRates {
                before_per_s,
                after_per_s,
                t_per_s,
                others_cores: [others_before, others_after],
            },
            closed_loop: ClosedLoop {
                accepted_per_t: closed_loop.accepted_per_s / t_per_s,
                settled_per_t: closed_loop.settled_per_s / t_per_s,
                ..closed_loop
            },
            open_loop,
            replay,
            orders: self.orders.clone(),
            errors: self.errors.clone(),
            verify,
        })
    }

    /// T, and how many processors other programs kept busy meanwhile.
    async fn transactions(&self, pgbench: &Pgbench, when: &str) -> Result<(f64, f64)> {
        let name = format!("pgbench for {} s, {when} the load", self.args.seconds);
        let then = Usage::now(self.stack.pid())?;
        let rate = step(&self.progress, &name, pgbench.measure(self.args.seconds)).await?;
        let work = Usage::now(self.stack.pid())?.since(&then);
        Ok((rate, work.cores(OTHERS)))
    }

    async fn open_shop(&self) -> Result<()> {
        let (users, products) = (self.args.users, self.args.products);
        let name = format!("making {users} users and {products} products");
        let shop = setup::shop(self.stack.api_url(), self.stack.admin_key(), users, products);
        let shop = step(&self.progress, &name, shop).await?;
        // It holds keys.
        crate::stack_file::write_private(&self.stack.path(SHOP_FILE), &serde_json::to_string(&shop)?)
    }

    async fn closed_loop(&mut self) -> Result<ClosedLoop> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let then = Figures::read(&client, self.stack.api_url()).await?;
        let phase = Phase { label: "closed-loop", orders: self.args.orders, rate: None };
        let Placed { load, rested_at_us, work } = self.place(phase).await?;
        let batches = Figures::read(&client, self.stack.api_url()).await?.batches_since(&then);
        let accepted_in_s = seconds(load.first_sent_us, load.last_accepted_us);
        let settled_in_s = rested_at_us.map_or(f64::INFINITY, |rest| seconds(load.first_accepted_us, rest));
        #[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 orders")]
        let accepted = load.accepted as f64;
        Ok(ClosedLoop {
            accepted_per_s: accepted / accepted_in_s,
            settled_per_s: accepted / settled_in_s,
            accepted_per_t: 0.0,
            settled_per_t: 0.0,
            settled_in_s,
            accept: load.accept,
            batches,
            work,
        })
    }

    async fn open_loop(&mut self, settled_per_s: f64) -> Result<OpenLoop> {
        let rate = self.args.rate.unwrap_or(settled_per_s * OPEN_LOOP_SHARE).max(RATE_MIN);
        let orders = Duration::from_secs(self.args.open_seconds).as_secs_f64() * rate;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rate and time are bounded"
        )]
        let orders = orders.clamp(1.0, 1e7) as usize;
        let phase = Phase { label: "open-loop", orders, rate: Some(rate) };
        let Placed { load, .. } = self.place(phase).await?;
        let LoadReport { accept, settle, delay, sent, .. } = load;
        Ok(OpenLoop { rate_per_s: rate, orders: sent, accept, settle, delay })
    }

    /// Has a load process place orders, and waits until they rest.
    async fn place(&mut self, phase: Phase) -> Result<Placed> {
        let Phase { label, orders, rate } = phase;
        let name = match rate {
            None => format!("{label}: {orders} orders"),
            Some(rate) => format!("{label}: {orders} orders, {rate:.0} a second"),
        };
        pgbench::checkpoint(&self.pool).await?;
        let then = Usage::now(self.stack.pid())?;
        let child = self.load(phase)?;
        let placed = step(&self.progress, &name, async {
            let output = finish(child, "the load", SEND_WITHIN + REST_WITHIN).await?;
            let load = output.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
            let load: LoadReport = serde_json::from_str(load).context("the load process did not report")?;
            Ok((load, until_rest(&self.pool).await?))
        });
        let (load, rested_at_us) = placed.await?;
        let work = Usage::now(self.stack.pid())?.since(&then);
        self.orders.sent += load.sent;
        self.orders.accepted += load.accepted;
        for (kind, count) in &load.errors {
            *self.errors.entry(format!("{label}: {kind}")).or_default() += count;
        }
        if rested_at_us.is_none() {
            *self.errors.entry(format!("{label}: orders did not come to rest")).or_default() += 1;
        }
        Ok(Placed { load, rested_at_us, work })
    }

    fn load(&self, phase: Phase) -> Result<ordermill_stack::Child> {
        let address = self.stack.api_url().strip_prefix("http://").context("the API has no address")?;
        let mut program = this_program("the load", &self.stack.path(&format!("{}.log", phase.label)))?
            .args(["bench-load", "--address", address, "--label", phase.label, "--shop"])
            .arg(self.stack.path(SHOP_FILE))
            .args(["--orders", &phase.orders.to_string()])
            .args(["--connections", &self.args.concurrency.to_string()])
            .args(["--seed", &self.args.seed.to_string()])
            .args(["--within-s", &SEND_WITHIN.as_secs().to_string()]);
        if let Some(rate) = phase.rate {
            program = program.args(["--rate", &rate.to_string()]);
        }
        Ok(program.start()?)
    }

    async fn verify(&self) -> Result<Verified> {
        let connections = self.stack.connections();
        let facts = Facts {
            database_url: connections.database_url,
            kafka: connections.kafka,
            gateway_url: connections.gateway_url,
        };
        let report = verify::look(&facts).await?;
        let failed = report.checks.iter().filter(|check| !check.ok).map(|check| {
            format!(
                "{}: {}",
                check.name,
                check.violations.first().map_or("see ordermill verify", String::as_str)
            )
        });
        Ok(Verified { ok: report.ok, checks: report.checks.len(), failed: failed.collect() })
    }

    async fn count_orders(&mut self) -> Result<()> {
        self.orders.by_status = orders::count_by_status(&self.pool).await?.into_iter().collect();
        let confirmed = self.orders.by_status.get("CONFIRMED").copied().unwrap_or(0);
        self.orders.confirmed = u64::try_from(confirmed)?;
        Ok(())
    }
}

/// Waits until no order is under way; when that was, or none where it takes too long.
async fn until_rest(pool: &PgPool) -> Result<Option<i64>> {
    let end = tokio::time::Instant::now() + REST_WITHIN;
    let mut oldest = Uuid::nil();
    while tokio::time::Instant::now() < end {
        match orders::oldest_unsettled(pool, oldest).await? {
            None => return Ok(Some(Timestamp::now().as_microsecond())),
            Some(order_id) => oldest = order_id,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

/// Shows a step that may take over a second.
async fn step<T>(progress: &Terminal, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let started = std::time::Instant::now();
    progress.started(name);
    let outcome = work.await;
    progress.ended(name, started.elapsed(), outcome.is_ok());
    outcome
}

fn parameters(args: &BenchArgs, partitions: i16) -> Parameters {
    Parameters {
        partitions,
        orders: args.orders,
        warm_up: args.warm_up,
        connections: args.concurrency,
        users: args.users,
        products: args.products,
        seed: args.seed,
        pgbench_seconds: args.seconds,
        pgbench_scale: pgbench::SCALE,
        pgbench_clients: pgbench::CLIENTS,
        pgbench_threads: pgbench::THREADS,
        pgbench_protocol: pgbench::PROTOCOL,
        sample_every: SAMPLE_EVERY,
    }
}

/// Between two moments in microseconds, at least one of them.
fn seconds(from_us: i64, to_us: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run need no 53 bits")]
    let seconds = (to_us - from_us).max(1) as f64 / 1e6;
    seconds
}
