//! The workers. Each is a file: its topics, the capability whose rules it follows, and which rows an event is about. The sales
//! worker decides nothing: it only adds up.

pub mod coupons;
mod gateway;
pub mod metrics;
pub mod orders;
mod participant;
pub mod payments;
pub mod sales;
pub mod stock;
mod timers;

use std::sync::Arc;

use ordermill_pipeline::consumer::{self, ConsumerConfig, Handler, Runtime};
use ordermill_schemas::Topic;

pub use gateway::{GatewayConfig, GatewayError};
pub use metrics::WorkerMetrics;

use participant::Adapter;

/// A worker. Its name is that of its consumer group, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    /// Decides what follows for an order.
    Orders,
    /// Reserves, deducts and releases stock.
    Stock,
    /// Holds and captures balances and asks the gateway.
    Payments,
    /// Decides claims of coupons, and has orders use them.
    Coupons,
    /// Keeps the sums of what was sold.
    Sales,
    /// Gives up what lasts too long. It reads the tables and no topic.
    Timers,
}

impl Worker {
    /// Every worker.
    pub const ALL: [Worker; 6] =
        [Worker::Orders, Worker::Stock, Worker::Payments, Worker::Coupons, Worker::Sales, Worker::Timers];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.group().0
    }

    /// Its group's name and topics; no topic where it has no group.
    #[must_use]
    pub const fn group(self) -> (&'static str, &'static [Topic]) {
        match self {
            Worker::Coupons => group_of::<Adapter<coupons::CouponsWorker>>(),
            Worker::Timers => (timers::NAME, &[]),
            Worker::Orders => group_of::<Adapter<orders::OrdersWorker>>(),
            Worker::Stock => group_of::<Adapter<stock::StockWorker>>(),
            Worker::Payments => group_of::<Adapter<payments::PaymentsWorker>>(),
            Worker::Sales => group_of::<sales::SalesWorker>(),
        }
    }

    /// The worker of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Worker> {
        Worker::ALL.into_iter().find(|worker| worker.name() == name)
    }
}

const fn group_of<H: Handler>() -> (&'static str, &'static [Topic]) {
    (H::GROUP, H::TOPICS)
}

/// Every group with its topics, for the dead-letter topics.
#[must_use]
pub fn groups() -> Vec<(&'static str, &'static [Topic])> {
    Worker::ALL.into_iter().map(Worker::group).filter(|(_, topics)| !topics.is_empty()).collect()
}

/// Runs a worker until the runtime's shutdown.
///
/// # Errors
/// [`GatewayError`] where the gateway's address can't be used.
pub async fn run(
    worker: Worker,
    runtime: Runtime,
    config: ConsumerConfig,
    gateway: &GatewayConfig,
    metrics: WorkerMetrics,
) -> Result<(), GatewayError> {
    match worker {
        Worker::Orders => {
            let handler = Adapter(orders::OrdersWorker::new(metrics, runtime.journal.clock.clone()));
            consumer::run(runtime, config, Arc::new(handler)).await;
        }
        Worker::Stock => consumer::run(runtime, config, Arc::new(Adapter(stock::StockWorker))).await,
        Worker::Payments => {
            let (queue, executor) = gateway::start(&runtime, gateway, metrics)?;
            let handler = Adapter(payments::PaymentsWorker::new(queue));
            consumer::run(runtime, config, Arc::new(handler)).await;
            executor.finish().await;
        }
        Worker::Coupons => consumer::run(runtime, config, Arc::new(Adapter(coupons::CouponsWorker))).await,
        Worker::Sales => consumer::run(runtime, config, Arc::new(sales::SalesWorker)).await,
        Worker::Timers => timers::run(runtime, config.instance, metrics).await,
    }
    Ok(())
}
