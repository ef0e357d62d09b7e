//! The order of things in one run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use ordermill::database::connect_pool;
use ordermill::verify;
use ordermill_pipeline::relay;
use ordermill_stack::{KAFKA_VERSION, Progress, write_private};
use ordermill_store::orders;

use crate::args::RunArgs;
use crate::cost::{Meter, Spent};
use crate::load::HELD_EVERY;
use crate::load::args::LINES_MAX;
use crate::machine::{Machine, OTHERS, Usage, Work};
use crate::pgbench::{self, Pgbench};
use crate::phase::{Ground, Phase, Placed, SHOP_FILE};
use crate::replay;
use crate::report::{
    AtRest, Loop, OrderCounts, Parameters, PgbenchRates, Report, Shares, Verified, Versions,
};
use crate::stack::OwnStack;
use crate::{server, setup};

/// Orders a second of the open loops that show what an order costs.
const RATES: [f64; 3] = [20.0, 100.0, 300.0];
/// The share of the settled rate at which latency is measured, where no rate is given.
const OPEN_LOOP_SHARE: f64 = 0.3;
/// Where nothing settles, so many orders a second are sent all the same.
const RATE_MIN: f64 = 0.1;

/// What has been seen so far.
struct Run<'a> {
    ground: Ground<'a>,
    orders: OrderCounts,
    errors: BTreeMap<String, u64>,
}

/// Everything that orders were placed for.
struct Loops {
    at_rest: (Spent, Work),
    rates: Vec<Placed>,
    closed: Placed,
    open: Placed,
    long: Placed,
}

/// Measures everything on a stack of its own.
///
/// # Errors
/// Where something could not be measured at all.
pub async fn measure(args: &RunArgs) -> Result<Report> {
    let progress = Progress::terminal();
    let start = progress.begin("starting a stack of PostgreSQL, Kafka, gateway and pipeline");
    let stack = start.end(OwnStack::start(args).await)?;
    let pool = connect_pool(&stack.file.database_url, "bench", 2).await?;
    let meter = Meter::new(pool.clone(), &stack.file.api_url).await?;
    let ground = Ground { args, stack, pool, meter, progress };
    let mut run = Run { ground, orders: OrderCounts::default(), errors: BTreeMap::new() };
    let report = run.phases().await;
    let Ground { stack, pool, progress, .. } = run.ground;
    pool.close().await;
    let kept = progress.begin("stopping the stack").end(stack.stop().await);
    // What went wrong first is the more telling.
    let report = report?;
    if let Some(path) = kept? {
        eprintln!("the data directory is {}", path.display());
    }
    Ok(report)
}

impl Run<'_> {
    async fn phases(&mut self) -> Result<Report> {
        let (args, machine) = (self.ground.args, Machine::this()?);
        let fill = self.ground.progress.begin("filling pgbench's database");
        let pgbench = fill.end(Pgbench::prepare(&self.ground.stack, &self.ground.pool).await)?;
        let (before_per_s, others_before) = self.transactions(&pgbench, "before").await?;
        self.open_shop().await?;
        self.place(Phase::closed("warm-up", args.warm_up)).await?;
        let loops = self.loops().await?;
        let (after_per_s, others_after) = self.transactions(&pgbench, "after").await?;
        let t_per_s = f64::midpoint(before_per_s, after_per_s);
        let Ground { stack, pool, progress, .. } = &self.ground;
        let step = progress.begin("reading and replaying the log");
        let replay = step.end(replay::measure(&stack.file.database_url, pool).await)?;
        let verify = progress.begin("verifying").end(self.verify().await)?;
        self.count_orders().await?;
        let Loops { at_rest: (spent, work), rates, closed, open, long } = loops;
        let told = |placed| Loop::of(placed, &spent, t_per_s);
        let closed_loop = told(closed);
        let pool = &self.ground.pool;
        Ok(Report {
            ok: verify.ok && self.errors.is_empty() && self.orders.confirmed == self.orders.sent,
            at: Timestamp::now(),
            parameters: Parameters {
                args: RunArgs { partitions: Some(relay::partitions(pool).await?), ..args.clone() },
                pgbench_scale: pgbench::SCALE,
                pgbench_clients: pgbench::CLIENTS,
                pgbench_threads: pgbench::THREADS,
                pgbench_protocol: pgbench::PROTOCOL,
                sample_every: HELD_EVERY,
            },
            versions: Versions {
                ordermill: env!("CARGO_PKG_VERSION"),
                postgresql: server::version(pool).await?,
                postgresql_settings: server::settings(pool).await?,
                kafka: KAFKA_VERSION,
            },
            pgbench: PgbenchRates {
                before_per_s,
                after_per_s,
                t_per_s,
                others_cores: [others_before, others_after],
            },
            at_rest: AtRest { seconds: spent.seconds, per_s: spent.per_second(), work },
            rates: rates.into_iter().map(told).collect(),
            shares: Shares::of(&closed_loop, args.orders, machine.cores, t_per_s),
            wal_bytes_per_order: closed_loop.wal_bytes_per_order,
            closed_loop,
            open_loop: told(open),
            long_orders: told(long),
            machine,
            replay,
            orders: self.orders.clone(),
            errors: self.errors.clone(),
            verify,
        })
    }

    /// First the slow ones: of a small database the server does nothing behind the orders' backs.
    async fn loops(&mut self) -> Result<Loops> {
        let args = self.ground.args;
        let at_rest = self.ground.at_rest().await?;
        let mut rates = Vec::new();
        for rate in RATES {
            rates.push(self.open(&format!("open-{rate:.0}"), rate).await?);
        }
        let closed = self.place(Phase::closed("closed-loop", args.orders)).await?;
        let rate = args.rate.unwrap_or(closed.settled_per_s() * OPEN_LOOP_SHARE);
        let open = self.open("open-loop", rate.max(RATE_MIN)).await?;
        let long = Phase::closed("long-orders", args.long_orders);
        let long = self.place(Phase { lines: Some(LINES_MAX), ..long }).await?;
        Ok(Loops { at_rest, rates, closed, open, long })
    }

    /// T, and how many processors other programs kept busy meanwhile.
    async fn transactions(&self, pgbench: &Pgbench, when: &str) -> Result<(f64, f64)> {
        let Ground { args, stack, progress, .. } = &self.ground;
        let name = format!("pgbench for {} s, {when} the load", args.seconds);
        let then = Usage::now(stack.up.pid())?;
        let rate = progress.begin(&name).end(pgbench.measure(args.seconds).await)?;
        let work = Usage::now(stack.up.pid())?.since(&then);
        Ok((rate, work.cores(OTHERS)))
    }

    async fn open_shop(&self) -> Result<()> {
        let Ground { args, stack, progress, .. } = &self.ground;
        let name = format!("making {} users and {} products", args.users, args.products);
        let shop = setup::shop(&stack.file.api_url, &stack.admin_key, args.users, args.products);
        let shop = progress.begin(&name).end(shop.await)?;
        // It holds keys.
        Ok(write_private(&stack.path(SHOP_FILE), &serde_json::to_string(&shop)?)?)
    }

    async fn open(&mut self, label: &str, rate: f64) -> Result<Placed> {
        let time = Duration::from_secs(self.ground.args.open_seconds);
        self.place(Phase::open(label, rate, time)).await
    }

    /// Has orders be placed, and adds up what became of them.
    async fn place(&mut self, phase: Phase) -> Result<Placed> {
        let placed = self.ground.place(phase).await?;
        let Placed { phase, load, rested_at_us, .. } = &placed;
        self.orders.sent += load.sent;
        self.orders.accepted += load.accepted;
        for (kind, count) in &load.errors {
            *self.errors.entry(format!("{}: {kind}", phase.label)).or_default() += count;
        }
        if rested_at_us.is_none() {
            *self.errors.entry(format!("{}: orders did not come to rest", phase.label)).or_default() += 1;
        }
        Ok(placed)
    }

    async fn verify(&self) -> Result<Verified> {
        let report = verify::look(&self.ground.stack.connections()).await?;
        let failed = report.checks.iter().filter(|check| !check.ok).map(|check| {
            let first = check.violations.first().map_or("see ordermill verify", String::as_str);
            format!("{}: {first}", check.name)
        });
        Ok(Verified { ok: report.ok, checks: report.checks.len(), failed: failed.collect() })
    }

    async fn count_orders(&mut self) -> Result<()> {
        self.orders.by_status = orders::count_by_status(&self.ground.pool).await?.into_iter().collect();
        let confirmed = self.orders.by_status.get("CONFIRMED").copied().unwrap_or(0);
        self.orders.confirmed = u64::try_from(confirmed)?;
        Ok(())
    }
}
