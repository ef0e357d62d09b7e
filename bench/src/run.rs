//! The order of things in one run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use ordermill::database::connect_pool;
use ordermill::verify;
use ordermill_pipeline::relay;
use ordermill_stack::KAFKA_VERSION;
use ordermill_store::orders;
use tokio::task::spawn_blocking;

use crate::apart::Apart;
use crate::args::{RunArgs, StackArgs};
use crate::cost::Meter;
use crate::latency::Percentiles;
use crate::load::HELD_EVERY;
use crate::load::args::LINES_MAX;
use crate::machine::{Machine, OTHERS, Usage};
use crate::memory::Memory;
use crate::pgbench::{self, Pgbench};
use crate::phase::{Ground, Phase, Placed, WHOLE_SHOP};
use crate::plan::{CONNECTIONS_MANY, Measurement, Plan, open_orders};
use crate::report::{Headline, Parameters, Report, Versions};
use crate::seen::Seen;
use crate::shop::Shop;
use crate::stack::OwnStack;
use crate::timetable::Timetable;
use crate::{backlog, bare, claims, replay, server, setup};

/// The files that say who orders what where all order the same, or one orders all.
const HOT_PRODUCT: &str = "hot-product.json";
const HOT_USER: &str = "hot-user.json";
/// The share of the settled rate at which latency is measured, where no rate is given.
const OPEN_LOOP_SHARE: f64 = 0.5;
/// Where nothing settles, so many orders a second are sent all the same.
const RATE_MIN: f64 = 0.1;

/// A run under way.
struct Run<'a> {
    args: &'a RunArgs,
    plan: Plan,
    timetable: Timetable,
    stack: OwnStack,
    ground: Ground,
    seen: Seen,
}

/// Measures everything on a stack of its own, or what was asked for.
///
/// # Errors
/// Where something could not be measured at all.
pub async fn measure(args: &RunArgs) -> Result<Report> {
    let plan = Plan::of(args)?;
    let timetable = Timetable::new(plan.steps(args));
    let (stack, ground) = start(&timetable, &args.stack, args.seed).await?;
    let mut run = Run { args, plan, timetable, stack, ground, seen: Seen::default() };
    let report = run.everything().await;
    let Run { stack, ground, timetable, .. } = run;
    let stopped = stop(&timetable, stack, ground).await;
    // What went wrong first is the more telling.
    let mut report = report?;
    stopped?;
    report.steps = timetable.told();
    Ok(report)
}

/// Starts a stack, and makes it ready to be measured.
pub(crate) async fn start(timetable: &Timetable, args: &StackArgs, seed: u64) -> Result<(OwnStack, Ground)> {
    let what = "a stack of PostgreSQL, Kafka, gateway and pipeline";
    let stack = timetable.step("start", what, OwnStack::start(args)).await?;
    let pool = connect_pool(&stack.file.database_url, "bench", 2).await?;
    let api_url = stack.file.api_url.clone();
    let meter = Meter::new(pool.clone(), &api_url).await?;
    let directory = stack.directory().to_owned();
    Ok((stack, Ground { api_url, pool, meter, directory, seed }))
}

/// Stops the stack, and says where its data is if that is kept.
pub(crate) async fn stop(timetable: &Timetable, stack: OwnStack, ground: Ground) -> Result<()> {
    ground.pool.close().await;
    if let Some(path) = timetable.step("stop", "the stack", stack.stop()).await? {
        eprintln!("the data directory is {}", path.display());
    }
    Ok(())
}

/// Which versions are measured.
pub(crate) async fn versions(ground: &Ground) -> Result<Versions> {
    Ok(Versions {
        ordermill: env!("CARGO_PKG_VERSION"),
        postgresql: server::version(&ground.pool).await?,
        postgresql_settings: server::settings(&ground.pool).await?,
        kafka: KAFKA_VERSION,
    })
}

impl Run<'_> {
    async fn everything(&mut self) -> Result<Report> {
        let machine = Machine::this()?;
        let pgbench = self.before().await?;
        // First the slow ones: of a small database the server does nothing behind the orders' backs.
        self.open_loops().await?;
        self.closed_loops().await?;
        self.claims().await?;
        if self.plan.has(Measurement::RoundTrip) {
            let trips = round_trips(&self.ground, &self.stack, self.args.round_trips);
            let what = "records to Kafka and back, one after the other";
            self.seen.round_trip = Some(self.timetable.step("round-trip", what, trips).await?);
        }
        self.seen.memory = Memory::of(self.stack.up.pid())?;
        self.apart().await?;
        if let Some(pgbench) = &pgbench {
            self.transactions(pgbench, "after").await?;
        }
        if self.plan.has(Measurement::Replay) {
            let replay = replay::measure(&self.stack.file.database_url, &self.ground.pool);
            self.seen.replay =
                Some(self.timetable.step("replay", "reading and replaying the log", replay).await?);
        }
        let connections = self.stack.connections()?;
        let verified = self.timetable.step("verify", "everything", verify::look(&connections)).await?;
        self.seen.verified("", &verified);
        self.report(machine).await
    }

    /// T, the shop, and a pipeline that is warm, as far as they are needed.
    async fn before(&mut self) -> Result<Option<Pgbench>> {
        let pgbench = if self.plan.has(Measurement::Pgbench) {
            let fill = Pgbench::prepare(&self.stack, &self.ground.pool);
            let pgbench = self.timetable.step("pgbench", "filling its database", fill).await?;
            self.transactions(&pgbench, "before").await?;
            Some(pgbench)
        } else {
            None
        };
        if self.plan.places_orders() {
            let what = format!("{} users and {} products", self.args.users, self.args.products);
            self.timetable.step("shop", &what, open_shop(&self.ground, &self.stack, self.args)).await?;
            self.place(Phase::closed("warm-up", self.args.warm_up, self.args.concurrency)).await?;
        }
        if self.plan.has(Measurement::Rest) {
            let rest = self.ground.at_rest(Duration::from_secs(self.args.rest_seconds));
            let what = "what the pipeline does while nobody orders";
            self.seen.at_rest = Some(self.timetable.step("rest", what, rest).await?);
        }
        Ok(pgbench)
    }

    async fn open_loops(&mut self) -> Result<()> {
        for measurement in [Measurement::Rate20, Measurement::Rate100, Measurement::Rate300] {
            if let Some(rate) = measurement.rate() {
                self.open(measurement, rate).await?;
            }
        }
        Ok(())
    }

    async fn closed_loops(&mut self) -> Result<()> {
        let RunArgs { orders, hot_orders, long_orders, concurrency, rate, .. } = *self.args;
        let closed = |orders, connections| Phase::closed("", orders, connections);
        self.measure(Measurement::Closed64, closed(orders, concurrency)).await?;
        self.measure(Measurement::Closed256, closed(orders, CONNECTIONS_MANY)).await?;
        let settled_per_s = self.seen.placed.get(&Measurement::Closed64).map(Placed::settled_per_s);
        let rate = rate.unwrap_or(settled_per_s.unwrap_or_default() * OPEN_LOOP_SHARE);
        self.open(Measurement::HalfRate, rate.max(RATE_MIN)).await?;
        let hot = |shop| Phase { shop, ..closed(hot_orders, concurrency) };
        self.measure(Measurement::HotProduct, hot(HOT_PRODUCT)).await?;
        self.measure(Measurement::HotUser, hot(HOT_USER)).await?;
        let long = Phase { lines: Some(LINES_MAX), ..closed(long_orders, concurrency) };
        self.measure(Measurement::LongOrders, long).await
    }

    async fn claims(&mut self) -> Result<()> {
        if !self.plan.has(Measurement::Claims) {
            return Ok(());
        }
        let what = format!("{} users want {} coupons", self.args.claimants, self.args.coupons);
        let claims = claims::measure(&self.ground, &self.stack.admin_key, self.args);
        let claims = self.timetable.step("claims", &what, claims).await?;
        for error in &claims.errors {
            self.seen.error("claims", error, 1);
        }
        self.seen.claims = Some(claims);
        Ok(())
    }

    /// What is measured without all parts of the pipeline.
    async fn apart(&mut self) -> Result<()> {
        if !self.plan.has(Measurement::AcceptAlone) {
            return Ok(());
        }
        let name = Measurement::AcceptAlone.name();
        let open = Apart::open(&self.stack, &self.ground, self.args);
        let mut apart = self.timetable.step(&name, "an API and a shop apart", open).await?;
        for connections in [self.args.concurrency, CONNECTIONS_MANY] {
            let closed = Phase::closed(format!("alone-{connections}"), self.args.alone_orders, connections);
            let phase = Phase { settles: false, ..closed };
            let title = phase.title();
            let placed = self.timetable.step(&name, &title, apart.ground.place(phase)).await?;
            self.seen.note_errors(&placed);
            self.seen.alone.push(placed);
        }
        if self.plan.has(Measurement::Relay) {
            let what = "what waits, published by a relay, then by a bare producer";
            let backlog = self.timetable.step("relay", what, backlog::measure(&mut apart)).await?;
            self.seen.backlog = Some(backlog);
        }
        let verified = verify::look(apart.connections());
        let verified = self.timetable.step("verify", "what was accepted alone", verified).await?;
        self.seen.verified("accepted alone: ", &verified);
        apart.close().await
    }

    /// T, and how many processors other programs kept busy meanwhile.
    async fn transactions(&mut self, pgbench: &Pgbench, when: &str) -> Result<()> {
        let then = Usage::now()?;
        let what = format!("{} s, {when} everything", self.args.seconds);
        let rate = self.timetable.step("pgbench", &what, pgbench.measure(self.args.seconds)).await?;
        let work = Usage::now()?.since(&then);
        self.seen.transactions.push((rate, work.cores(OTHERS)));
        Ok(())
    }

    async fn open(&mut self, measurement: Measurement, rate: f64) -> Result<()> {
        let closed = Phase::closed("", open_orders(self.args, rate), self.args.concurrency);
        self.measure(measurement, Phase { rate: Some(rate), ..closed }).await
    }

    /// Has orders be placed, if that is planned, and keeps what was seen.
    async fn measure(&mut self, measurement: Measurement, phase: Phase) -> Result<()> {
        if self.plan.has(measurement) {
            let placed = self.place(Phase { label: measurement.name(), ..phase }).await?;
            self.seen.placed.insert(measurement, placed);
        }
        Ok(())
    }

    /// Has orders be placed, and adds up what became of them.
    async fn place(&mut self, phase: Phase) -> Result<Placed> {
        let (label, title) = (phase.label.clone(), phase.title());
        let placed = self.timetable.step(&label, &title, self.ground.place(phase)).await?;
        self.seen.count(&placed);
        Ok(placed)
    }

    async fn report(&mut self, machine: Machine) -> Result<Report> {
        let mut seen = std::mem::take(&mut self.seen);
        let (args, pool) = (self.args, &self.ground.pool);
        seen.count_in_database(orders::count_by_status(pool).await?)?;
        let partitions = Some(relay::partitions(pool).await?);
        let stack = StackArgs { partitions, ..args.stack.clone() };
        let (orders, errors, verify) = (seen.orders.clone(), seen.errors.clone(), seen.verdict());
        let measured = seen.measured(&machine);
        Ok(Report {
            ok: verify.ok && errors.is_empty() && orders.confirmed == orders.sent,
            at: Timestamp::now(),
            parameters: Parameters {
                args: RunArgs { stack, ..args.clone() },
                pgbench_scale: pgbench::SCALE,
                pgbench_clients: pgbench::CLIENTS,
                pgbench_threads: pgbench::THREADS,
                pgbench_protocol: pgbench::PROTOCOL,
                sample_every: HELD_EVERY,
            },
            versions: versions(&self.ground).await?,
            headline: Headline::of(&measured),
            steps: Vec::new(),
            measured,
            machine,
            orders,
            errors,
            verify,
        })
    }
}

/// Makes users and products, and the lists of who orders what.
async fn open_shop(ground: &Ground, stack: &OwnStack, args: &RunArgs) -> Result<()> {
    let shop = setup::shop(&ground.api_url, &stack.admin_key, args.users, args.products).await?;
    let Shop { users, products } = &shop;
    ground.keep(WHOLE_SHOP, &shop)?;
    ground.keep(HOT_PRODUCT, &Shop { users: users.clone(), products: products[..1].to_vec() })?;
    ground.keep(HOT_USER, &Shop { users: users[..1].to_vec(), products: products.clone() })
}

async fn round_trips(ground: &Ground, stack: &OwnStack, count: usize) -> Result<Percentiles> {
    server::checkpoint(&ground.pool).await?;
    let kafka = stack.file.kafka("bench.")?;
    let topic = kafka.full_name("round-trip");
    bare::make_topic(&kafka, &topic, 1).await?;
    let trips = spawn_blocking(move || bare::round_trips(&kafka, &topic, count));
    trips.await.context("the round trips broke off")?
}
