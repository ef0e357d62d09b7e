//! The workers. Each capability has one, which decides by its rules (`participant.rs`). The sales worker decides nothing: it only
//! adds up. The timers look at the clock.

mod gateway;
pub mod metrics;
mod orders;
mod participant;
mod payments;
pub mod sales;
mod timers;

use std::sync::Arc;

use ordermill_domain::capability::Reacts;
use ordermill_domain::orders::Orders;
use ordermill_domain::payments::Payments;
use ordermill_pipeline::consumer::{self, ConsumerConfig, Handler, Runtime};
use ordermill_schemas::{Event, Topic};
use ordermill_store::database_roles::DatabaseRole;

pub use gateway::{CallError, GatewayConfig, GatewayError, GatewayHttp};
pub use metrics::WorkerMetrics;

use participant::{FollowUp, Participant};

macro_rules! workers {
    ($($noun:ident $Name:ident $(($($parts:tt)+))?;)+) => {
        /// A worker. Its name is that of its consumer group, where it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Worker {
            $(
                #[doc = concat!("Decides by the rules of ", stringify!($noun), ".")]
                $Name,
            )+
            /// Keeps the sums of what was sold.
            Sales,
            /// Gives up what lasts too long. It reads the tables and no topic.
            Timers,
        }

        impl Worker {
            /// Every worker.
            pub const ALL: &[Worker] = &[$(Worker::$Name,)+ Worker::Sales, Worker::Timers];

            /// Its group's name and topics; no topic where it has no group.
            #[must_use]
            pub const fn group(self) -> (&'static str, &'static [Topic]) {
                match self {
                    $(Worker::$Name => group_of::<Participant<ordermill_domain::$noun::$Name, ()>>(),)+
                    Worker::Sales => group_of::<sales::SalesWorker>(),
                    Worker::Timers => (timers::NAME, &[]),
                }
            }
        }

        /// Runs a worker until the runtime's shutdown.
        ///
        /// # Errors
        /// [`GatewayError`] where the gateway can't be reached in the way that was asked for.
        #[expect(unreachable_patterns, reason = "who does something after a commit stands above the others")]
        pub async fn run(
            worker: Worker,
            runtime: Runtime,
            config: ConsumerConfig,
            gateway: &GatewayConfig,
            metrics: WorkerMetrics,
        ) -> Result<(), GatewayError> {
            match worker {
                Worker::Orders => {
                    let stages = orders::Stages { metrics, clock: runtime.journal.clock.clone() };
                    decide::<Orders, _>(runtime, config, stages).await;
                }
                Worker::Payments => {
                    let (queue, executor) = gateway::start(&runtime, gateway, metrics)?;
                    decide::<Payments, _>(runtime, config, queue).await;
                    executor.finish().await;
                }
                Worker::Sales => consumer::run(runtime, config, Arc::new(sales::SalesWorker)).await,
                Worker::Timers => timers::run(runtime, metrics).await,
                $(Worker::$Name => decide::<ordermill_domain::$noun::$Name, _>(runtime, config, ()).await,)+
            }
            Ok(())
        }
    };
}

ordermill_schemas::capabilities!(workers);

impl Worker {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.group().0
    }

    /// What it may do in the database.
    #[must_use]
    pub const fn role(self) -> DatabaseRole {
        DatabaseRole::Worker(self.name())
    }

    /// The worker of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Worker> {
        Worker::ALL.iter().copied().find(|worker| worker.name() == name)
    }
}

const fn group_of<H: Handler<Event = Event>>() -> (&'static str, &'static [Topic]) {
    (H::GROUP, H::TOPICS)
}

/// Every group with its topics, for the dead-letter topics.
#[must_use]
pub fn groups() -> Vec<(&'static str, &'static [Topic])> {
    Worker::ALL.iter().copied().map(Worker::group).filter(|(_, topics)| !topics.is_empty()).collect()
}

/// Runs the worker of a capability.
async fn decide<C: Reacts + PartialEq, F: FollowUp>(runtime: Runtime, config: ConsumerConfig, follow_up: F) {
    consumer::run(runtime, config, Arc::new(Participant::<C, F>::new(follow_up))).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ordermill_store::database_roles;

    use super::*;

    #[test]
    fn the_compose_file_runs_every_worker_and_no_other() {
        let compose = include_str!("../../docker-compose.yml");
        let named = compose.split("command: [worker, ").skip(1).map(|rest| rest.split(']').next().unwrap());
        let named: BTreeSet<_> = named.map(Worker::from_name).collect();
        assert_eq!(named, Worker::ALL.iter().copied().map(Some).collect());
    }

    #[test]
    fn every_worker_has_a_database_role_and_there_is_none_for_anybody_else() {
        let roles: Vec<DatabaseRole> = database_roles::workers().collect();
        assert_eq!(roles, Worker::ALL.iter().map(|worker| worker.role()).collect::<Vec<_>>());
    }
}
