//! The whole pipeline in this process, on servers that nothing else uses: what is counted there is its own.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill::connections::Connections;
use ordermill::services::{self, Services};
use ordermill_bench::cost::{KAFKA_SETTING, Meter};
use ordermill_bench::load::report::LoadReport;
use ordermill_bench::setup;
use ordermill_pipeline::authenticity::RootSecret;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::database;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::relay::{self, Beside};
use ordermill_pipeline::topics::{self, PARTITIONS_DEFAULT_ON_ONE_MACHINE};
use ordermill_stack::{
    Gateway, GatewayOptions, Kafka, Postgres, PostgresOptions, Private, Quiet, Scratch, free_port,
    sibling_program,
};
use ordermill_store::{keys, migrations, orders};
use ordermill_workers::{GatewayConfig, Worker};
use sqlx::PgPool;
use tokio::process::Command;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(25);
const ADMIN_KEY: &str = "om_admin_key_of_the_tests_0123456789";
const SECRET: &str = "secret of the tests";
const TIME_ZONE: &str = "Asia/Seoul";
const USERS: usize = 50;
const PRODUCTS: usize = 100;

/// API, relay, workers and gateway, with users who can pay and products in stock.
pub(crate) struct Pipeline {
    pub(crate) pool: PgPool,
    pub(crate) meter: Meter,
    api_port: u16,
    shutdown: DropGuard,
    tasks: Vec<JoinHandle<()>>,
    // The order of the fields is that of their dropping.
    _gateway: Gateway,
    _servers: (Postgres, Private<Kafka>),
    scratch: Scratch,
}

impl Pipeline {
    /// Starts everything; returns when it is ready and the shop is open.
    pub(crate) async fn open() -> Pipeline {
        let scratch = Scratch::new().unwrap();
        let directory = scratch.path().to_owned();
        let servers = spawn_blocking(move || {
            // Whole pages in the write-ahead log, and what is cleared up, depend on the time, not on the orders.
            let settings = [("full_page_writes", "off"), ("autovacuum", "off")];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let options = PostgresOptions { settings, ..PostgresOptions::default() };
            (Postgres::start(&directory, options, &Quiet).unwrap(), Private::kafka().unwrap())
        });
        let (postgres, broker) = servers.await.unwrap();
        let database_url = postgres.url("ordermill");
        let pool = database::connect(&database_url, "test", 2).await.unwrap();
        migrations::run(&pool).await.unwrap();
        let partitions = PARTITIONS_DEFAULT_ON_ONE_MACHINE;
        relay::install(&pool, None, partitions).await.unwrap();
        let mut kafka = KafkaConfig::new(&broker.brokers(), "", RootSecret::generate().unwrap().into());
        kafka.settings.insert(KAFKA_SETTING.0.to_owned(), KAFKA_SETTING.1.to_owned());
        topics::ensure(&kafka, partitions, &ordermill_workers::groups()).await.unwrap();
        let key_hash = ordermill_api::hash_chosen_key(ADMIN_KEY).unwrap();
        keys::establish(&pool, "tests", &key_hash, Clock::system().now()).await.unwrap();
        let api_port = free_port().unwrap();
        let gateway = gateway(&scratch, api_port);
        let gateway_url = Some(gateway.url());
        let connections = Connections { database_url, kafka, gateway_url, gateway_ca_file: None };
        let shutdown = CancellationToken::new();
        let services = Services::connect(&connections, shutdown.clone()).await.unwrap();
        let tasks = serve(services, api_port, &gateway.url()).await;
        let meter = Meter::new(pool.clone(), &format!("http://127.0.0.1:{api_port}")).await.unwrap();
        let pipeline = Pipeline {
            pool,
            meter,
            api_port,
            shutdown: shutdown.drop_guard(),
            tasks,
            _gateway: gateway,
            _servers: (postgres, broker),
            scratch,
        };
        pipeline.until_ready().await;
        let shop = setup::shop(&pipeline.url(), ADMIN_KEY, USERS, PRODUCTS).await.unwrap();
        let shop = serde_json::to_string(&shop).unwrap();
        std::fs::write(pipeline.scratch.path().join("shop.json"), shop).unwrap();
        pipeline
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    /// Places orders at a rate, and waits until all are settled and published.
    pub(crate) async fn place(&self, label: &str, orders: usize, rate: usize) -> LoadReport {
        let load = Command::new(env!("CARGO_BIN_EXE_ordermill-bench"))
            .args(["load", "--address", &format!("127.0.0.1:{}", self.api_port), "--shop"])
            .arg(self.scratch.path().join("shop.json"))
            .args(["--orders", &orders.to_string(), "--rate", &rate.to_string(), "--label", label])
            .args(["--connections", "16", "--seed", "1", "--within-s", &DEADLINE.as_secs().to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(DEADLINE, load).await.expect("the load ends in time").unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        self.until_quiet().await;
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    /// Waits until no order is under way and everything is in Kafka.
    pub(crate) async fn until_quiet(&self) {
        until("no order is under way and all is published", async || {
            let unsettled = orders::oldest_unsettled(&self.pool, Uuid::nil()).await.unwrap();
            unsettled.is_none() && relay::status(&self.pool).await.unwrap().lag == 0
        })
        .await;
    }

    async fn until_ready(&self) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/readyz", self.url());
        until("the pipeline is ready", async || {
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        drop(self.shutdown);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn gateway(scratch: &Scratch, api_port: u16) -> Gateway {
    let options = GatewayOptions {
        port: None,
        callback_url: Some(format!("http://127.0.0.1:{api_port}/v1/payments/callbacks")),
        callback_secret: SECRET.to_owned(),
        tls: None,
    };
    let program = sibling_program("ordermill-gateway").unwrap();
    Gateway::start(&program, scratch.path(), options, &Quiet).unwrap()
}

async fn serve(services: Services, api_port: u16, gateway_url: &str) -> Vec<JoinHandle<()>> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", api_port)).await.unwrap();
    let gateway = GatewayConfig::new(gateway_url);
    let zone = services::time_zone(TIME_ZONE).unwrap();
    let api = Arc::new(services);
    let (relay, workers) = (api.clone(), api.clone());
    vec![
        tokio::spawn(async move { relay.run_relay(Beside::ApiAndWorkers).await }),
        tokio::spawn(async move { workers.run_workers(Worker::ALL, &gateway).await.unwrap() }),
        tokio::spawn(async move { api.run_api(listener, Some(SECRET), zone).await.unwrap() }),
    ]
}

/// Waits for a condition.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
