//! The commands and their flags.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use jiff::tz::TimeZone;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::relay;
use ordermill_pipeline::topics::{self, PARTITIONS_DEFAULT};
use ordermill_store::{keys, migrations};
use ordermill_workers::{GatewayConfig, Worker};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::connections::{ConnectionArgs, Connections};
use crate::dlq::{self, DlqArgs};
use crate::flood::FloodArgs;
use crate::logging::{self, LogFormat};
use crate::order::{self, OrderArgs};
use crate::payments_commands::{self, PaymentsArgs};
use crate::relay_commands::{self, RelayArgs};
use crate::replay::{self, ReplayArgs};
use crate::services::{self, Services};
use crate::up::{self, UpArgs};
use crate::verify::{self, Facts, VerifyArgs};

/// A message-driven, asynchronous order pipeline for online shops.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    connections: ConnectionArgs,
    /// What log lines look like; by default text on a terminal and JSON elsewhere.
    #[arg(long, env = "ORDERMILL_LOG_FORMAT", global = true)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything on this machine: PostgreSQL, Kafka, gateway, API, relay and workers.
    Up(UpArgs),
    /// Runs the HTTP front.
    Api(ApiArgs),
    /// Runs workers, all or the named ones.
    Worker(WorkerArgs),
    /// Runs a relay, which publishes or stands by; or looks at it, has it publish again, begins a new era.
    Relay(RelayArgs),
    /// Brings the database's schema up to date and sets up the log.
    Migrate(PartitionArgs),
    /// Creates the topics that are missing and checks the others.
    Topics,
    /// Gives back what the gateway holds for orders that the database does not know.
    Payments(PaymentsArgs),
    /// Stores an admin's API key, read from standard input or made anew and printed.
    Keys(KeysArgs),
    /// Checks on the live system that money, stock, charges, orders and log add up.
    Verify(VerifyArgs),
    /// Tells the whole story of one order.
    Order(OrderArgs),
    /// Looks at dead letters, edits, replays and discards them; works on the database, also without the API.
    Dlq(DlqArgs),
    /// Makes the state tables again from the log: to compare, to look at the past, to mend a projection.
    Replay(ReplayArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    /// Serves /metrics and /healthz of this process here.
    #[arg(long, env = "ORDERMILL_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

/// The flags of every command that serves the API.
#[derive(Args, Clone, Debug)]
pub(crate) struct TimeZoneArgs {
    /// By whose days sales are ranked and counted, a name of the tz database.
    #[arg(long, env = "ORDERMILL_TIME_ZONE", default_value = "Asia/Seoul", value_parser = services::time_zone)]
    pub(crate) time_zone: TimeZone,
}

/// The flags of every command that may set up the log.
#[derive(Args, Clone, Debug)]
pub(crate) struct PartitionArgs {
    /// How many partitions each topic has; fixed when the log is set up: 12 unless given then, or 4 by `up`.
    #[arg(long, env = "ORDERMILL_PARTITIONS", value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..=1_000))]
    pub(crate) partitions: Option<i16>,
}

#[derive(Args, Debug)]
struct ApiArgs {
    /// Where to listen.
    #[arg(long, env = "ORDERMILL_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// An admin's API key that is stored at the start.
    #[arg(long, env = "ORDERMILL_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
    /// What the gateway signs its callbacks with.
    #[arg(long, env = "ORDERMILL_CALLBACK_SECRET", hide_env_values = true)]
    callback_secret: Option<String>,
    #[command(flatten)]
    zone: TimeZoneArgs,
}

#[derive(Args, Debug)]
struct WorkerArgs {
    /// The workers: orders, stock, payments, coupons, sales, timers. All if none is named.
    #[arg(value_parser = worker)]
    names: Vec<Worker>,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    flood: FloodArgs,
}

#[derive(Args, Debug)]
struct KeysArgs {
    /// Reads the key from standard input instead of making one.
    #[arg(long)]
    stdin: bool,
}

fn worker(name: &str) -> Result<Worker> {
    let known = Worker::ALL.map(|worker| worker.name()).join(", ");
    Worker::from_name(name).with_context(|| format!("there is no worker {name:?}; there are {known}"))
}

/// What commands log that run to an end and print what they have to say.
const TOOLS_FILTER: &str = "warn,sqlx::query=error,librdkafka=error,rdkafka=off";

/// Runs a command to its end.
///
/// # Errors
/// What the command says, in one line.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let default_filter = match &cli.command {
        // `up` shows its progress itself.
        Command::Up(_) => "warn,librdkafka=off,rdkafka=off",
        Command::Relay(args) if !args.runs_relay() => TOOLS_FILTER,
        Command::Verify(_)
        | Command::Order(_)
        | Command::Dlq(_)
        | Command::Replay(_)
        | Command::Payments(_)
        | Command::Keys(_)
        | Command::Migrate(_)
        | Command::Topics => TOOLS_FILTER,
        Command::Api(_) | Command::Worker(_) | Command::Relay(_) => "info,librdkafka=error,rdkafka=off",
    };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let format = cli.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    logging::start(format, default_filter);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(command(cli))
}

async fn command(cli: Cli) -> Result<ExitCode> {
    let connections = cli.connections;
    let done = Ok(ExitCode::SUCCESS);
    match cli.command {
        Command::Up(args) => return up::run(&connections, args).await,
        Command::Verify(args) => {
            return match connections.resolve() {
                Ok(connections) => verify::run(args, Facts::of(&connections)).await,
                // 1 would say that something does not add up.
                Err(error) => {
                    eprintln!("ordermill: {error:#}");
                    Ok(ExitCode::from(2))
                }
            };
        }
        Command::Order(args) => return order::run(&args, connections.database_url()).await,
        Command::Dlq(args) => return dlq::run(args, &connections).await,
        Command::Replay(args) => {
            let database_url = connections.database_url();
            return replay::run(&args, database_url).await;
        }
        Command::Migrate(args) => migrate(&connections.database_url()?, &args).await?,
        Command::Topics => make_topics(&connections.resolve()?).await?,
        Command::Keys(args) => store_key(&connections.database_url()?, &args).await?,
        Command::Api(args) => api(&connections.resolve()?, args).await?,
        Command::Relay(args) => relay_commands::run(&connections, args).await?,
        Command::Payments(args) => return payments_commands::run(&connections.resolve()?, args).await,
        Command::Worker(args) => {
            let connections = connections.resolve()?;
            let gateway_url = connections
                .gateway_url
                .clone()
                .context("the gateway's address is missing: give --gateway-url or ORDERMILL_GATEWAY_URL")?;
            let mut services = connect(&connections, args.service.metrics_listen).await?;
            services.flood_limit = args.flood.limit();
            let workers = if args.names.is_empty() { Worker::ALL.to_vec() } else { args.names };
            services.run_workers(&workers, &GatewayConfig::new(&gateway_url)).await?;
        }
    }
    done
}

/// Services that end when this process is told to.
pub(crate) async fn connect(
    connections: &Connections,
    metrics_listen: Option<SocketAddr>,
) -> Result<Services> {
    let shutdown = shutdown_on_signal()?;
    let services = Services::connect(connections, shutdown).await?;
    if let Some(address) = metrics_listen {
        services.serve_metrics(listen(address).await?);
    }
    Ok(services)
}

async fn api(connections: &Connections, args: ApiArgs) -> Result<()> {
    let listener = listen(args.listen).await?;
    let services = connect(connections, None).await?;
    if let Some(key) = &args.admin_key {
        keys::insert_admin(
            &services.runtime.pool,
            &ordermill_api::hash_key(key),
            services.runtime.clock.now(),
        )
        .await?;
    }
    services.run_api(listener, args.callback_secret.as_deref(), args.zone.time_zone).await
}

/// Listens on `address`.
///
/// # Errors
/// Where the port is in use or not allowed, in words that say what to do.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address}: stop the program that does, or choose another port")
    })
}

async fn migrate(database_url: &str, args: &PartitionArgs) -> Result<()> {
    let pool = services::connect_pool(database_url, "migrate", 2).await?;
    migrations::run(&pool).await.context("the schema can't be brought up to date")?;
    relay::install(&pool, args.partitions, PARTITIONS_DEFAULT).await?;
    Ok(())
}

async fn make_topics(connections: &Connections) -> Result<()> {
    let pool = services::connect_pool(&connections.database_url, "topics", 2).await?;
    let partitions = relay::partitions(&pool).await?;
    topics::ensure(&connections.kafka, partitions, &ordermill_workers::groups()).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the key is what the command is called for")]
async fn store_key(database_url: &str, args: &KeysArgs) -> Result<()> {
    let pool = services::connect_pool(database_url, "keys", 2).await?;
    let key = if args.stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("can't read the key")?;
        text.trim().to_owned()
    } else {
        ordermill_api::new_api_key()?.0
    };
    if key.len() < 16 {
        bail!("a key needs at least 16 characters; run without --stdin to have one made");
    }
    keys::insert_admin(&pool, &ordermill_api::hash_key(&key), Clock::system().now()).await?;
    if !args.stdin {
        println!("{key}");
    }
    Ok(())
}

/// A token that is cancelled by Ctrl-C or SIGTERM.
///
/// # Errors
/// Where no signal handler can be installed.
pub(crate) fn shutdown_on_signal() -> Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(shutdown)
}

/// The name of this process among its like.
#[must_use]
pub(crate) fn instance() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}:{}:{}", host.trim(), std::process::id(), uuid::Uuid::new_v4().simple())
}

/// The data directory as an absolute path, made if it is missing.
///
/// # Errors
/// Where it can't be made.
pub(crate) fn data_dir(path: &std::path::Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).and_then(|()| path.canonicalize()).with_context(|| {
        format!("can't make the data directory {}: choose another by --data-dir", path.display())
    })
}
