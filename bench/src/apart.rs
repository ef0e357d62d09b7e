//! A pipeline apart, of which one part runs at a time: first the API alone, then the relay alone on what waits.
//!
//! It has a database of its own on the server under measurement, and topics of its own, and is done with once it has been
//! measured. The whole pipeline stands by meanwhile, as it does while pgbench runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ordermill::connections::Connections;
use ordermill::database::connect_pool;
use ordermill_pipeline::kafka::security::Security;
use ordermill_pipeline::relay;
use ordermill_stack::{Child, Program, Signal, free_port, sibling_program};
use reqwest::Url;

use crate::args::RunArgs;
use crate::cost::{KAFKA_SETTING, Meter};
use crate::phase::{Ground, WHOLE_SHOP};
use crate::setup;
use crate::stack::{ADDRESSES, OwnStack, finish, last_line};

/// Names its database and its directory, and stands before its topics.
const NAME: &str = "apart";
/// How long setting up may take, and how long starting and stopping.
const WITHIN: Duration = Duration::from_secs(90);
/// How often it is looked whether the API answers.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ADMIN_KEY: &str = "om_admin_of_the_pipeline_apart_0123456789";

/// The pipeline apart.
#[derive(Debug)]
pub(crate) struct Apart {
    pub(crate) ground: Ground,
    pub(crate) partitions: i16,
    connections: Connections,
    wire_secret_file: PathBuf,
    directory: PathBuf,
    api: Option<Child>,
}

impl Apart {
    /// Sets up database and topics, starts the API, and opens a shop.
    ///
    /// # Errors
    /// Where the stack does not answer.
    pub(crate) async fn open(stack: &OwnStack, whole: &Ground, args: &RunArgs) -> Result<Apart> {
        let directory = stack.path(NAME);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("can't make the directory {}", directory.display()))?;
        sqlx::raw_sql("CREATE DATABASE apart TEMPLATE template0").execute(&whole.pool).await?;
        let mut url: Url = stack.file.database_url.parse().context("the stack's database has no address")?;
        url.set_path(NAME);
        let kafka = stack.file.kafka(&format!("{NAME}."))?;
        let connections =
            Connections { database_url: url.into(), kafka, gateway_url: None, gateway_ca_file: None };
        let partitions = relay::partitions(&whole.pool).await?;
        let wire_secret_file = stack.file.wire_secret_file.clone();
        let program = |name: &str| program(&connections, &wire_secret_file, &directory, name);
        let migrate =
            program("migrate")?.args(["migrate", "--partitions", &partitions.to_string()]).start()?;
        finish(migrate, "setting up a database apart", WITHIN).await?;
        finish(program("topics")?.arg("topics").start()?, "making topics apart", WITHIN).await?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let api = program("api")?
            .args(["api", "--listen", &address])
            .env("ORDERMILL_ADMIN_KEY", ADMIN_KEY)
            .env("ORDERMILL_CALLBACK_SECRET", "nobody calls back")
            .start()?;
        let api_url = format!("http://{address}");
        until_healthy(&api, &api_url).await?;
        let pool = connect_pool(&connections.database_url, "bench", 2).await?;
        let meter = Meter::of_api_alone(pool.clone(), &api_url).await?;
        let ground = Ground { api_url, pool, meter, directory: directory.clone(), seed: args.seed };
        let shop = setup::shop(&ground.api_url, ADMIN_KEY, args.users, args.products).await?;
        ground.keep(WHOLE_SHOP, &shop)?;
        Ok(Apart { ground, partitions, connections, wire_secret_file, directory, api: Some(api) })
    }

    /// Where it is. The gateway knows nothing of it.
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Stops the API, and starts a relay.
    ///
    /// # Errors
    /// Where the one does not end, or the other can't be started.
    pub(crate) async fn start_relay(&mut self) -> Result<Child> {
        self.stop_api().await?;
        let Apart { connections, wire_secret_file, directory, .. } = self;
        Ok(program(connections, wire_secret_file, directory, "relay")?.arg("relay").start()?)
    }

    /// Stops what still runs.
    ///
    /// # Errors
    /// Where it does not end.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.stop_api().await?;
        self.ground.pool.close().await;
        Ok(())
    }

    async fn stop_api(&mut self) -> Result<()> {
        match self.api.take() {
            Some(api) => stop(api, "the API").await,
            None => Ok(()),
        }
    }
}

/// Asks a service to end, and waits.
///
/// # Errors
/// Where it does not, or not well.
pub(crate) async fn stop(child: Child, what: &str) -> Result<()> {
    child.signal(Signal::SIGTERM);
    finish(child, what, WITHIN).await.map(drop)
}

/// `ordermill` on the database and the topics apart.
fn program(
    connections: &Connections,
    wire_secret_file: &Path,
    directory: &Path,
    name: &str,
) -> Result<Program> {
    let log = directory.join(format!("{name}.log"));
    let mut program = Program::new(name, sibling_program("ordermill")?, log);
    for address in ADDRESSES {
        program = program.without_env_prefix(address);
    }
    for (name, value) in security(&connections.kafka.security) {
        program = program.env(name, value);
    }
    let (setting, value) = KAFKA_SETTING;
    Ok(program
        .death_signal(Signal::SIGTERM)
        .env("DATABASE_URL", &connections.database_url)
        .env("KAFKA_BROKERS", &connections.kafka.brokers)
        .env("ORDERMILL_TOPIC_PREFIX", &connections.kafka.prefix)
        .env("ORDERMILL_WIRE_SECRET_FILE", wire_secret_file)
        .arg("--data-dir")
        .arg(directory)
        .arg(format!("--kafka-setting={setting}={value}")))
}

/// How a program is told to reach Kafka in this way.
fn security(security: &Security) -> Vec<(&'static str, OsString)> {
    let Security::Tls { ca_file, login } = security else { return Vec::new() };
    let protocol = if login.is_some() { "SASL_SSL" } else { "SSL" };
    let mut variables = vec![("KAFKA_SECURITY_PROTOCOL", protocol.into()), ("KAFKA_CA_FILE", ca_file.into())];
    if let Some(login) = login {
        variables.push(("KAFKA_SASL_MECHANISM", login.mechanism.name().into()));
        variables.push(("KAFKA_USERNAME", login.user.clone().into()));
        variables.push(("KAFKA_PASSWORD", login.password.clone().into()));
    }
    variables
}

async fn until_healthy(api: &Child, api_url: &str) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let healthy = async {
        loop {
            let answer = client.get(format!("{api_url}/healthz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if !api.is_alive() {
                bail!("the API did not start: {}", last_line(api));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(WITHIN, healthy).await.context("the API does not answer")?
}
