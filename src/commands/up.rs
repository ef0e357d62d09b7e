//! `ordermill up`: the whole pipeline on this machine, in one process beside PostgreSQL, Kafka and the gateway.

mod secure;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ordermill_pipeline::authenticity::{self, KeyError, RootSecret};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::kafka::access::Role;
use ordermill_pipeline::relay::{self, Beside};
use ordermill_pipeline::topics::{self, PARTITIONS_DEFAULT_ON_ONE_MACHINE};
use ordermill_stack::{
    Certificates, Gateway, GatewayOptions, Kafka, KafkaOptions, Postgres, PostgresOptions, Progress, Server,
    private_data_dir, sibling_program, write_private,
};
use ordermill_store::{keys, migrations};
use ordermill_workers::Worker;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, block_in_place};
use tokio_util::sync::CancellationToken;

use crate::arguments::{FloodArgs, PartitionArgs, RateLimitArgs, TimeZoneArgs};
use crate::connections::{ConnectionArgs, Connections, admin_key_file, wire_secret_file};
use crate::database::connect_pool;
use crate::output::{note, print};
use crate::services::{Services, listen};
use crate::shutdown::shutdown_on_signal;
use crate::stack_file::StackFile;

use secure::Secure;

/// The name of the administrator whose key is in the data directory.
const ADMIN: &str = "up";
/// How often it is looked whether everything is ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the servers are looked at.
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
    /// PostgreSQL, Kafka and the gateway answer by TLS alone, with certificates that are made here, and Kafka knows who reaches it.
    #[arg(long)]
    secure: bool,
    #[command(flatten)]
    partitions: PartitionArgs,
    #[command(flatten)]
    zone: TimeZoneArgs,
    #[command(flatten)]
    flood: FloodArgs,
    #[command(flatten)]
    rate_limits: RateLimitArgs,
}

/// Runs everything until Ctrl-C or SIGTERM.
///
/// # Errors
/// Where a part can't be started or falls over; everything else is stopped then.
pub(crate) async fn run(given: &ConnectionArgs, args: UpArgs) -> Result<ExitCode> {
    let shutdown = shutdown_on_signal()?;
    let directory = data_dir(&given.data_dir)?;
    let mut given = given.clone();
    if given.wire_secret_file.is_none() {
        given.wire_secret_file = Some(kept_wire_secret(&directory)?);
    }
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], args.port))).await?;
    let api_url = format!("http://{}", listener.local_addr()?);
    let stack = block_in_place(|| Stack::start(&given, args, directory.clone(), api_url))?;
    let outcome = stack.serve(listener, shutdown).await;
    StackFile::remove(&directory);
    note("stopping ...");
    block_in_place(|| stack.stop());
    outcome?;
    note(&format!("stopped; the data is in {}", directory.display()));
    Ok(ExitCode::SUCCESS)
}

/// The data directory as an absolute path, made if it is missing.
fn data_dir(path: &Path) -> Result<PathBuf> {
    let made = private_data_dir(path).map_err(anyhow::Error::new);
    made.and_then(|()| Ok(path.canonicalize()?)).with_context(|| {
        format!("can't make the data directory {}: choose another by --data-dir", path.display())
    })
}

/// What runs here, and where everything is.
struct Stack {
    args: UpArgs,
    directory: PathBuf,
    api_url: String,
    /// What gateway and API share.
    callback_secret: String,
    wire_secret_file: PathBuf,
    connections: Connections,
    secure: Option<Secure>,
    // The servers that were started here; what was given from outside is not among them.
    gateway: Option<Gateway>,
    kafka: Option<Kafka>,
    postgres: Option<Postgres>,
}

impl Stack {
    /// Starts what was not given: PostgreSQL and Kafka side by side, then the gateway.
    fn start(given: &ConnectionArgs, args: UpArgs, directory: PathBuf, api_url: String) -> Result<Stack> {
        let callback_secret = kept_key(&directory.join("callback.secret"))?;
        // Others find it from other directories.
        let wire_secret_file = std::path::absolute(given.wire_secret_file()?)?;
        ensure!(
            given.kafka_brokers.is_some() || given.kafka_security.given().is_nothing(),
            "it is given how a Kafka of yours is reached (KAFKA_SECURITY_PROTOCOL and its like), but not where it is: give KAFKA_BROKERS, too, or \
             leave that out; --secure needs none of it"
        );
        let secure = args.secure.then(|| Secure::prepare(given, &directory)).transpose()?;
        let certificates = secure.as_ref().map(|secure| &secure.certificates);
        let security = secure.as_ref().map(Secure::kafka).transpose()?;
        let (progress, dir) = (Progress::terminal(), directory.as_path());
        let start_postgres = || {
            let (port, tls) = (args.postgres_port, certificates.map(Certificates::postgres));
            Postgres::start(dir, PostgresOptions { port, tls, ..PostgresOptions::default() }, &progress)
        };
        let start_kafka = || {
            let options = KafkaOptions { port: args.kafka_port, security, ..KafkaOptions::default() };
            Kafka::start(dir, options, &progress)
        };
        let (postgres, kafka) = std::thread::scope(|scope| {
            let postgres = scope.spawn(|| given.database_url.is_none().then(start_postgres).transpose());
            let kafka = given.kafka_brokers.is_none().then(start_kafka).transpose();
            (postgres.join().unwrap_or_else(|panic| resume_unwind(panic)), kafka)
        });
        let (postgres, kafka) = (postgres?, kafka?);
        let start_gateway = || {
            let callback_url = Some(format!("{api_url}/v1/payments/callbacks"));
            let callback_secret = callback_secret.clone();
            let (port, tls) = (args.gateway_port, certificates.map(Certificates::gateway));
            let options = GatewayOptions { port, callback_url, callback_secret, tls };
            Gateway::start(&sibling_program("ordermill-gateway")?, dir, options, &progress)
        };
        let gateway = given.gateway_url.is_none().then(start_gateway).transpose()?;
        let given_or = |given: &Option<String>, started: Option<String>| given.clone().or(started);
        let brokers = given_or(&given.kafka_brokers, kafka.as_ref().map(Kafka::brokers));
        let database_url = given_or(&given.database_url, postgres.as_ref().map(|p| p.url("ordermill")));
        let mut reached = given.kafka(&brokers.unwrap_or_default())?;
        if let Some(secure) = &secure {
            // The relay and workers are users of their own.
            reached.security = secure.users.of_role(Role::Api)?;
        }
        let ca_file = certificates.map(Certificates::ca_file);
        let connections = Connections {
            database_url: database_url.unwrap_or_default(),
            kafka: reached,
            gateway_url: given_or(&given.gateway_url, gateway.as_ref().map(Gateway::url)),
            gateway_ca_file: ca_file.or_else(|| given.gateway_ca_file.clone()),
        };
        Ok(Stack {
            args,
            directory,
            api_url,
            callback_secret,
            wire_secret_file,
            connections,
            secure,
            gateway,
            kafka,
            postgres,
        })
    }

    /// Kafka as a role reaches it.
    fn kafka_as(&self, role: Role) -> Result<KafkaConfig> {
        let kafka = &self.connections.kafka;
        match &self.secure {
            Some(secure) => Ok(kafka.reached_by(secure.users.of_role(role)?)),
            None => Ok(kafka.clone()),
        }
    }

    /// Sets the database and the topics up, runs the services, and watches the servers.
    async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
        self.set_up().await?;
        let mut services = Services::connect(&self.connections, shutdown.clone()).await?;
        services.flood_limit = self.args.flood.limit();
        services.rate_limits = self.args.rate_limits.config();
        services.relay_kafka = self.kafka_as(Role::Relay)?;
        services.worker_kafka = self.kafka_as(Role::Worker)?;
        let services = Arc::new(services);
        let mut running = JoinSet::new();
        let relay = services.clone();
        running.spawn(async move {
            relay.run_relay(Beside::ApiAndWorkers).await;
            Ok(())
        });
        let (workers, gateway) = (services.clone(), self.connections.gateway()?);
        running.spawn(async move { workers.run_workers(Worker::ALL, &gateway).await });
        let (api, secret) = (services.clone(), self.callback_secret.clone());
        let time_zone = self.args.zone.time_zone.clone();
        running.spawn(async move { api.run_api(listener, Some(&secret), time_zone).await });
        let outcome = tokio::select! {
            outcome = self.announce_and_watch(&shutdown) => outcome,
            Some(ended) = running.join_next() => ended.context("a service panicked").flatten(),
        };
        shutdown.cancel();
        let ended = async {
            if self.postgres.as_ref().is_some_and(|postgres| !postgres.is_alive()) {
                // Whoever waits for a connection waits in vain; from here on it is told at once.
                drop(services.close());
            }
            while running.join_next().await.is_some() {}
            services.close().await;
        };
        if tokio::time::timeout(END_WITHIN, ended).await.is_err() {
            note(
                "ordermill: a service takes too long to end; what it had not committed is done at the next start",
            );
        }
        outcome
    }

    async fn set_up(&self) -> Result<()> {
        let pool = connect_pool(&self.connections.database_url, "up", 2).await?;
        migrations::run(&pool).await.context("the schema can't be brought up to date")?;
        let partitions = self.args.partitions.partitions;
        let partitions = relay::install(&pool, partitions, PARTITIONS_DEFAULT_ON_ONE_MACHINE).await?;
        if let Some(secure) = &self.secure {
            secure.set_up(&self.connections.kafka).await?;
        }
        topics::ensure(&self.kafka_as(Role::Operator)?, partitions, &ordermill_workers::groups()).await?;
        self.open_keyring(&pool).await?;
        self.establish_admin(&pool).await?;
        pool.close().await;
        Ok(())
    }

    /// Has the key in the data directory be that of the administrator who is called `up`.
    async fn establish_admin(&self, pool: &PgPool) -> Result<()> {
        let file = admin_key_file(&self.directory);
        let key = kept_key(&file)?;
        let unusable = || {
            let file = file.display();
            format!(
                "the key in {file} can't be used: put the one of `ordermill keys rotate up` into it; without the file another is \
                 made, which revokes that one"
            )
        };
        let key_hash = ordermill_api::hash_chosen_key(&key).with_context(unusable)?;
        keys::establish(pool, ADMIN, &key_hash, Clock::system().now()).await.with_context(unusable)?;
        Ok(())
    }

    /// Of a PostgreSQL and a secret that are both the data directory's, the secret is right whatever it was before: nobody could
    /// rotate the keys of a database that runs only while this does.
    async fn open_keyring(&self, pool: &PgPool) -> Result<()> {
        let keyring = &self.connections.kafka.keyring;
        let is_own = self.postgres.is_some() && self.wire_secret_file == wire_secret_file(&self.directory);
        match keyring.open(pool).await {
            Err(KeyError::OtherSecret(key)) if is_own => {
                note(&format!(
                    "the wire secret is another one than that of key {key}: what still matters is published again"
                ));
                authenticity::rotate(pool, &keyring.secrets()).await?;
                Ok(keyring.refresh(pool).await?)
            }
            opened => Ok(opened?),
        }
    }

    /// Waits until everything answers, says how to go on, then watches the servers until shutdown.
    async fn announce_and_watch(&self, shutdown: &CancellationToken) -> Result<()> {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ready = self.wait_until_ready() => ready?,
        }
        let Connections { database_url, kafka, gateway_url, .. } = self.connections.clone();
        let file = StackFile {
            api_url: self.api_url.clone(),
            gateway_url: gateway_url.unwrap_or_default(),
            database_url,
            kafka_brokers: kafka.brokers,
            topic_prefix: kafka.prefix,
            admin_key_file: admin_key_file(&self.directory),
            wire_secret_file: self.wire_secret_file.clone(),
            ca_file: self.secure.as_ref().map(|secure| secure.certificates.ca_file()),
            kafka_users: self.secure.as_ref().map(|secure| secure.users.directory().to_owned()),
        };
        let readers = |secure: &Secure| secure.users.write_settings_of_readers(&file.kafka_brokers);
        let readers = self.secure.as_ref().map(readers).transpose()?;
        file.write(&self.directory)?;
        announce(&file, readers.as_deref())?;
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.check()?;
        }
        Ok(())
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(READY_WITHIN).build()?;
        let started = Instant::now();
        let mut last = String::new();
        while started.elapsed() < READY_WITHIN {
            self.check()?;
            match client.get(format!("{}/readyz", self.api_url)).send().await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => last = response.text().await.unwrap_or_default(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("the pipeline is not ready after {} s: {last}", READY_WITHIN.as_secs())
    }

    /// Fails where a server runs no more.
    fn check(&self) -> Result<()> {
        let servers: [Option<&Server>; 3] =
            [self.postgres.as_deref(), self.kafka.as_deref(), self.gateway.as_deref()];
        let Some(server) = servers.into_iter().flatten().find(|server| !server.is_alive()) else {
            return Ok(());
        };
        let (name, log) = (server.name(), server.log().display());
        bail!("{name} has stopped; its log is {log}. Nothing is lost: run `ordermill up` again")
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
            note(&format!("ordermill: {error}"));
        }
    }
}

/// The key in that file, made where there is none.
fn kept_key(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(key) => return Ok(key.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // A key that is there must not be replaced.
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    }
    let (key, _) = ordermill_api::new_api_key()?;
    write_private(path, &format!("{key}\n"))?;
    Ok(key)
}

/// The file with the wire secret in the data directory, made where there is none.
fn kept_wire_secret(directory: &Path) -> Result<PathBuf> {
    let file = wire_secret_file(directory);
    if !file.exists() {
        write_private(&file, &RootSecret::generate()?.file())?;
    }
    Ok(file)
}

/// The address, the lines that place an order and follow it, and how those read along who have to log in.
fn announce(file: &StackFile, readers: Option<&Path>) -> Result<()> {
    let key = file.admin_key_file.display().to_string();
    let readers = readers.map(|settings| {
        let settings = settings.display();
        format!(
            "It is secure: PostgreSQL, Kafka and the gateway answer by TLS alone; the API speaks plain HTTP on this machine.\n\
             Who reads along (this line needs kcat):\nkcat -F {settings} -C -t {}orders -e\n\n",
            file.topic_prefix
        )
    });
    let text = include_str!("up.txt").replace("{readers}", &readers.unwrap_or_default());
    print(text.replace("{api}", &file.api_url).replace("{key}", &key).trim_end())
}
