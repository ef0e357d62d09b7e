//! `ordermill up`: the whole pipeline on this machine, in one process beside PostgreSQL, Kafka and the gateway.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use jiff::tz::TimeZone;
use ordermill_pipeline::consumer::FloodLimit;
use ordermill_pipeline::relay;
use ordermill_pipeline::topics::{self, PARTITIONS_DEFAULT_ON_ONE_MACHINE};
use ordermill_stack::{
    Gateway, GatewayOptions, Kafka, KafkaOptions, Postgres, PostgresOptions, Terminal, sibling_program,
};
use ordermill_store::{keys, migrations};
use ordermill_workers::{GatewayConfig, Worker};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::arguments::{FloodArgs, PartitionArgs, TimeZoneArgs};
use crate::connections::{ConnectionArgs, Connections, admin_key_file};
use crate::database::connect_pool;
use crate::services::{Services, listen};
use crate::shutdown::shutdown_on_signal;
use crate::stack_file::{StackFile, write_private};

/// How often the children are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long until everything must be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long the services have to end.
const END_WITHIN: Duration = Duration::from_secs(20);

/// The flags of `ordermill up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpArgs {
    /// The API's port on 127.0.0.1.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// PostgreSQL's port; by default that of the last run, else any free one.
    #[arg(long)]
    postgres_port: Option<u16>,
    /// Kafka's port; by default that of the last run, else any free one.
    #[arg(long)]
    kafka_port: Option<u16>,
    /// The gateway's port; by default that of the last run, else any free one.
    #[arg(long)]
    gateway_port: Option<u16>,
    #[command(flatten)]
    partitions: PartitionArgs,
    #[command(flatten)]
    zone: TimeZoneArgs,
    #[command(flatten)]
    flood: FloodArgs,
}

/// The servers that were started here; what was given from outside is not among them.
struct Children {
    gateway: Option<Gateway>,
    kafka: Option<Kafka>,
    postgres: Option<Postgres>,
}

impl Children {
    /// The first that runs no more, with its log.
    fn fallen(&self) -> Option<(&'static str, String)> {
        let postgres = self.postgres.as_ref().filter(|p| !p.is_alive());
        let kafka = self.kafka.as_ref().filter(|k| !k.is_alive());
        let gateway = self.gateway.as_ref().filter(|g| !g.is_alive());
        postgres
            .map(|p| ("PostgreSQL", p.log().display().to_string()))
            .or_else(|| kafka.map(|k| ("Kafka", k.log().display().to_string())))
            .or_else(|| gateway.map(|g| ("the gateway", g.log().display().to_string())))
    }

    /// Whether the database has gone that was started here.
    fn has_lost_database(&self) -> bool {
        self.postgres.as_ref().is_some_and(|postgres| !postgres.is_alive())
    }

    /// Stops what runs, in the order in which nothing is missed.
    fn stop(self) {
        if let Some(gateway) = self.gateway {
            gateway.stop();
        }
        if let Some(kafka) = self.kafka {
            kafka.stop();
        }
        if let Some(postgres) = self.postgres
            && let Err(error) = postgres.stop()
        {
            eprintln!("ordermill: {error}");
        }
    }
}

/// Runs everything until Ctrl-C or SIGTERM.
///
/// # Errors
/// Where a part can't be started or falls over; everything else is stopped then.
pub(crate) async fn run(args: &ConnectionArgs, up: UpArgs) -> Result<ExitCode> {
    let shutdown = shutdown_on_signal()?;
    let directory = data_dir(&args.data_dir)?;
    let (time_zone, flood_limit) = (up.zone.time_zone.clone(), up.flood.limit());
    let partitions = up.partitions.partitions;
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], up.port))).await?;
    let api_url = format!("http://{}", listener.local_addr()?);
    let secret = callback_secret(&directory)?;
    let (start_args, start_directory, start_up) = (args.clone(), directory.clone(), up);
    let callback_url = format!("{api_url}/v1/payments/callbacks");
    let gateway_secret = secret.clone();
    let started = tokio::task::spawn_blocking(move || {
        start(&start_args, &start_directory, &start_up, callback_url, gateway_secret)
    });
    let (children, mut connections) = started.await.context("starting the servers panicked")??;
    connections.api_url = Some(api_url);
    let settings = Settings { callback_secret: secret, partitions, time_zone, flood_limit };
    let outcome = serve(&connections, &directory, listener, settings, &children, shutdown).await;
    StackFile::remove(&directory);
    eprintln!("stopping ...");
    tokio::task::spawn_blocking(move || children.stop()).await.context("stopping the servers panicked")?;
    outcome?;
    eprintln!("stopped; the data is in {}", directory.display());
    Ok(ExitCode::SUCCESS)
}

/// The data directory as an absolute path, made if it is missing.
fn data_dir(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).and_then(|()| path.canonicalize()).with_context(|| {
        format!("can't make the data directory {}: choose another by --data-dir", path.display())
    })
}

/// Starts what was not given: PostgreSQL and Kafka side by side, then the gateway.
fn start(
    args: &ConnectionArgs,
    directory: &Path,
    up: &UpArgs,
    callback_url: String,
    callback_secret: String,
) -> Result<(Children, Connections)> {
    let progress = Terminal::new();
    let postgres_options = PostgresOptions { port: up.postgres_port, ..PostgresOptions::default() };
    let kafka_options = KafkaOptions { port: up.kafka_port, ..KafkaOptions::default() };
    let (postgres, kafka) = std::thread::scope(|scope| {
        let postgres = scope.spawn(|| match args.database_url {
            Some(_) => Ok(None),
            None => Postgres::start(directory, postgres_options, &progress).map(Some),
        });
        let kafka = scope.spawn(|| match args.kafka_brokers {
            Some(_) => Ok(None),
            None => Kafka::start(directory, kafka_options, &progress).map(Some),
        });
        (postgres.join(), kafka.join())
    });
    let panicked = |_| anyhow!("starting a server panicked");
    let (postgres, kafka) = (postgres.map_err(panicked)??, kafka.map_err(panicked)??);
    let gateway = match args.gateway_url {
        Some(_) => None,
        None => {
            let options =
                GatewayOptions { port: up.gateway_port, callback_url: Some(callback_url), callback_secret };
            let program = sibling_program("ordermill-gateway")?;
            Some(Gateway::start(&program, directory, options, &progress)?)
        }
    };
    let brokers = args.kafka_brokers.clone().or_else(|| kafka.as_ref().map(Kafka::brokers));
    let connections = Connections {
        database_url: args
            .database_url
            .clone()
            .or_else(|| postgres.as_ref().map(|p| p.url("ordermill")))
            .unwrap_or_default(),
        kafka: args.kafka(&brokers.unwrap_or_default(), None)?,
        gateway_url: args.gateway_url.clone().or_else(|| gateway.as_ref().map(Gateway::url)),
        api_url: None,
    };
    Ok((Children { gateway, kafka, postgres }, connections))
}

/// What the services are told.
struct Settings {
    callback_secret: String,
    partitions: Option<i16>,
    time_zone: TimeZone,
    flood_limit: FloodLimit,
}

/// Sets the database and the topics up, runs the services, and watches the children.
async fn serve(
    connections: &Connections,
    directory: &Path,
    listener: TcpListener,
    settings: Settings,
    children: &Children,
    shutdown: CancellationToken,
) -> Result<()> {
    set_up(connections, directory, settings.partitions).await?;
    let mut services = Services::connect(connections, shutdown.clone()).await?;
    services.flood_limit = settings.flood_limit;
    let services = std::sync::Arc::new(services);
    let gateway_url = connections.gateway_url.clone().unwrap_or_default();
    let relay = tokio::spawn({
        let services = services.clone();
        async move { services.run_relay().await }
    });
    let mut workers = tokio::spawn({
        let services = services.clone();
        async move { services.run_workers(Worker::ALL, &GatewayConfig::new(&gateway_url)).await }
    });
    let mut api = tokio::spawn({
        let services = services.clone();
        let Settings { callback_secret, time_zone, .. } = settings;
        async move { services.run_api(listener, Some(&callback_secret), time_zone).await }
    });
    let outcome = tokio::select! {
        outcome = announce_and_watch(connections, directory, children, &shutdown) => outcome,
        ended = &mut workers => ended.context("a worker panicked").flatten(),
        ended = &mut api => ended.context("the API panicked").flatten(),
    };
    shutdown.cancel();
    let ended = async {
        if children.has_lost_database() {
            // Whoever waits for a connection waits in vain; from here on it is told at once.
            drop(services.runtime.journal.pool.close());
        }
        let _ = relay.await;
        if !workers.is_finished() {
            let _ = workers.await;
        }
        if !api.is_finished() {
            let _ = api.await;
        }
        services.runtime.journal.pool.close().await;
    };
    if tokio::time::timeout(END_WITHIN, ended).await.is_err() {
        eprintln!(
            "ordermill: a service takes too long to end; what it had not committed is done at the next start"
        );
    }
    outcome
}

async fn set_up(connections: &Connections, directory: &Path, partitions: Option<i16>) -> Result<()> {
    let pool = connect_pool(&connections.database_url, "up", 2).await?;
    migrations::run(&pool).await.context("the schema can't be brought up to date")?;
    let partitions = relay::install(&pool, partitions, PARTITIONS_DEFAULT_ON_ONE_MACHINE).await?;
    topics::ensure(&connections.kafka, partitions, &ordermill_workers::groups()).await?;
    let path = admin_key_file(directory);
    let key = match fs::read_to_string(&path) {
        Ok(key) => key.trim().to_owned(),
        Err(_) => {
            let (key, _) = ordermill_api::new_api_key()?;
            write_private(&path, &(key.clone() + "\n"))?;
            key
        }
    };
    let now = ordermill_pipeline::clock::Clock::system().now();
    keys::insert_admin(&pool, &ordermill_api::hash_key(&key), now).await?;
    pool.close().await;
    Ok(())
}

/// The secret that gateway and API share, kept in the data directory.
fn callback_secret(directory: &Path) -> Result<String> {
    let path = directory.join("callback.secret");
    if let Ok(secret) = fs::read_to_string(&path) {
        return Ok(secret.trim().to_owned());
    }
    let (secret, _) = ordermill_api::new_api_key()?;
    write_private(&path, &(secret.clone() + "\n"))?;
    Ok(secret)
}

/// Waits until everything answers, says how to go on, then watches the children until shutdown.
async fn announce_and_watch(
    connections: &Connections,
    directory: &Path,
    children: &Children,
    shutdown: &CancellationToken,
) -> Result<()> {
    let api_url = connections.api_url.clone().unwrap_or_default();
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        ready = wait_until_ready(&api_url, children) => ready?,
    }
    let file = StackFile {
        api_url: api_url.clone(),
        gateway_url: connections.gateway_url.clone().unwrap_or_default(),
        database_url: connections.database_url.clone(),
        kafka_brokers: connections.kafka.brokers.clone(),
        topic_prefix: connections.kafka.prefix.clone(),
        admin_key_file: admin_key_file(directory),
    };
    file.write(directory)?;
    announce(&file);
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        check(children)?;
    }
}

fn check(children: &Children) -> Result<()> {
    match children.fallen() {
        None => Ok(()),
        Some((what, log)) => {
            Err(anyhow!("{what} has stopped; its log is {log}. Nothing is lost: run `ordermill up` again"))
        }
    }
}

async fn wait_until_ready(api_url: &str, children: &Children) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let started = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut last = String::new();
    while started.elapsed() < READY_WITHIN {
        ticks.tick().await;
        check(children)?;
        match client.get(format!("{api_url}/readyz")).send().await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) => last = response.text().await.unwrap_or_default(),
            Err(error) => last = error.to_string(),
        }
    }
    Err(anyhow!("the pipeline is not ready after {} s: {last}", READY_WITHIN.as_secs()))
}

/// The address and the lines that place an order and follow it.
#[expect(clippy::print_stdout, reason = "this is what the command says")]
fn announce(file: &StackFile) {
    let (api, key) = (&file.api_url, file.admin_key_file.display());
    println!(
        "Ordermill is ready at {api}  (documents: {api}/docs, metrics: {api}/metrics)\n\n\
         Place an order and follow it (these lines need jq):\n\
         export KEY=$(cat {key}) API={api}/v1; post() {{ curl -sS -H \"Authorization: Bearer $KEY\" \
         -H 'Content-Type: application/json' -H \"Idempotency-Key: $RANDOM-$RANDOM-$RANDOM\" \"$API$1\" -d \"$2\" \"${{@:3}}\"; }}\n\
         P=$(post /products '{{\"name\":\"Lamp\",\"description\":\"\",\"category\":\"LIGHT\",\"price\":12000,\"stock\":5}}' | jq -r .product_id) \
         U=$(post /users \"{{\\\"name\\\":\\\"Kim\\\",\\\"email\\\":\\\"kim$RANDOM@example.com\\\"}}\" | jq -r .user_id); post /users/$U/balance/charges '{{\"amount\":50000}}'\n\
         post /orders \"{{\\\"user_id\\\":\\\"$U\\\",\\\"lines\\\":[{{\\\"product_id\\\":\\\"$P\\\",\\\"quantity\\\":2}}]}}\" -H 'Prefer: wait=10' | jq\n\n\
         Ctrl-C stops everything; nothing is lost."
    );
}
