//! PostgreSQL: a private cluster in the data directory, its server as a child process.

mod cluster;
mod installation;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use derive_more::Deref;
use nix::sys::signal::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::Progress;
use crate::certificates::ServerTls;
use crate::child::Program;
use crate::claim::Claim;
use crate::error::{Result, StackError};
use crate::processes::Identity;
use crate::server::Server;
use crate::{ports, processes, programs, runtime, wait};
use cluster::Cluster;
use installation::Installation;

const NAME: &str = "PostgreSQL";

/// The database that [`Postgres::start`] creates.
const DATABASE: &str = "ordermill";

/// How long the server may take to become ready, recovery after a crash included.
const READY: Duration = Duration::from_secs(120);

/// A fast shutdown writes a checkpoint, which may be gigabytes.
const FAST_SHUTDOWN: Duration = Duration::from_secs(30);

/// An immediate shutdown writes nothing.
const IMMEDIATE_SHUTDOWN: Duration = Duration::from_secs(10);

/// What the server is told on its command line, before [`PostgresOptions::settings`].
const SETTINGS: [(&str, &str); 13] = [
    ("listen_addresses", "127.0.0.1"),
    // None: everything goes over the loopback address with a password.
    ("unix_socket_directories", ""),
    ("logging_collector", "off"),
    // Its log would show the rows that a constraint refuses, names and addresses among them.
    ("log_error_verbosity", "terse"),
    ("max_connections", "500"),
    // What is acknowledged stays, and what is measured is measured so, whatever else is configured.
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "4GB"),
    ("wal_compression", "lz4"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// Counts statements, for who creates the extension of that name. It can be loaded at the start of a server only.
const STATEMENT_COUNTER: &str = "pg_stat_statements";

/// How to start [`Postgres`].
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// The port on 127.0.0.1; by default that of the last run, else any free one.
    pub port: Option<u16>,
    /// With what it answers by TLS alone; by default it has none.
    pub tls: Option<ServerTls>,
    /// Settings of `postgresql.conf`, name and value; they win over ours.
    pub settings: Vec<(String, String)>,
}

/// A running PostgreSQL server with a cluster of its own. Dropping it stops the server at once, as a crash would;
/// [`Postgres::stop`] is the orderly way.
#[derive(Debug, Deref)]
pub struct Postgres {
    #[deref]
    server: Server,
    cluster: Cluster,
    options: PostgresOptions,
}

impl Postgres {
    /// Starts a server on the cluster in `dir`, which is made if it is missing, with the role and the database
    /// `ordermill`; returns when it answers.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, its port or its data is in use, or it does not become ready.
    pub fn start(dir: &Path, options: PostgresOptions, progress: &Progress) -> Result<Postgres> {
        let claim = Claim::take(dir, "postgres")?;
        let dir = &dir.canonicalize().map_err(StackError::io("find", dir))?;
        let port = ports::choose(NAME, options.port, claim.last_ports().first().copied())?;
        if !Cluster::exists(dir) {
            progress.begin("creating a PostgreSQL cluster").end(Cluster::create(dir))?;
        }
        let cluster = Cluster::open(dir)?;
        let server = Server::new(NAME, dir.join("postgres.log"), vec![port], FAST_SHUTDOWN, claim);
        let postgres = Postgres { server, cluster, options };
        progress.begin("starting PostgreSQL").end(postgres.launch())?;
        Ok(postgres)
    }

    /// The URL of a database, with the role `ordermill`, who owns the cluster, and its password; where the server has a certificate, by TLS
    /// that is verified in full.
    pub fn url(&self, database: &str) -> String {
        let (password, port) = (&self.cluster.password, self.port());
        let url = format!("postgres://ordermill:{password}@127.0.0.1:{port}/{database}");
        match &self.options.tls {
            Some(ServerTls { ca, .. }) => {
                format!("{url}?sslmode=verify-full&sslrootcert={}", url_text(&ca.to_string_lossy()))
            }
            None => url,
        }
    }

    /// The cluster on disk.
    pub fn data_dir(&self) -> &Path {
        &self.cluster.data
    }

    /// Stops the server: open transactions are rolled back, everything is written to disk. If that takes too long it
    /// is stopped at once, and recovers when it is next started. Nothing if it does not run.
    ///
    /// # Errors
    /// If it does not end even so.
    pub fn stop(&self) -> Result<()> {
        self.resume();
        let mut server = self.server.lock();
        if let Some(child) = server.as_ref()
            && child.stop(Signal::SIGINT, FAST_SHUTDOWN).is_err()
        {
            child.stop(Signal::SIGQUIT, IMMEDIATE_SHUTDOWN)?;
        }
        *server = None;
        Ok(())
    }

    /// Kills the server and all its backends in one go, as a power cut would.
    pub fn kill9(&self) {
        let mut server = self.server.lock();
        if let Some(child) = server.take() {
            // A stopped server starts no new backends while we go through them.
            child.signal(Signal::SIGSTOP);
            wait::until(Duration::from_secs(10), || {
                let mut backends = processes::working_in(&self.cluster.data);
                backends.retain(|process| process.pid != child.pid());
                backends.iter().for_each(|backend| backend.signal(Signal::SIGKILL));
                backends.is_empty().then_some(())
            });
            child.kill9();
        }
        self.see_off_backends();
    }

    /// Freezes the server and all its backends, until [`Postgres::resume`].
    pub fn pause(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Undoes [`Postgres::pause`].
    pub fn resume(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// Starts the server again on the same port, after stopping it if it still runs; returns when it answers.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.check_ports()?;
        self.launch()
    }

    fn signal_all(&self, signal: Signal) {
        for process in processes::working_in(&self.cluster.data) {
            process.signal(signal);
        }
    }

    fn launch(&self) -> Result<()> {
        self.clear_stale_lock()?;
        self.see_off_backends();
        if let Some(tls) = &self.options.tls {
            self.cluster.take_in(tls)?;
        }
        let url = self.url("postgres");
        self.server
            .launch(self.program(), |child| child.wait_until_ready(READY, || runtime::block_on(set_up(&url))))
    }

    fn program(&self) -> Program {
        let counts = self.cluster.installation.has_library(STATEMENT_COUNTER);
        let counter = counts.then_some(("shared_preload_libraries", STATEMENT_COUNTER));
        let tls = self.options.tls.as_ref().map(|_| self.cluster.tls_settings()).unwrap_or_default();
        let theirs = tls.iter().chain(&self.options.settings);
        let theirs = theirs.map(|(name, value)| (name.as_str(), value.as_str()));
        let settings = SETTINGS.into_iter().chain(counter).chain(theirs);
        Program::new(NAME, self.cluster.installation.program("postgres"), self.log())
            .without_env_prefix("PG")
            .env("LC_ALL", "C")
            .directory(&self.cluster.data)
            .user(self.cluster.user)
            // The fast shutdown's checkpoint may take long; recovery at the next start makes up for it.
            .death_signal(Signal::SIGQUIT)
            .telling(|line| line.contains("FATAL:") || line.contains("PANIC:"))
            .arg("-D")
            .arg(&self.cluster.data)
            .args(["-p", &self.port().to_string()])
            .args(settings.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]))
    }

    /// PostgreSQL refuses to start while the process that `postmaster.pid` names is alive, though after a restart of
    /// the machine that may be any program. A server works in its data directory, so there it can be told.
    fn clear_stale_lock(&self) -> Result<()> {
        let path = self.cluster.data.join("postmaster.pid");
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
        let pid: Option<u32> = text.lines().next().and_then(|line| line.trim().parse().ok());
        let server =
            processes::working_in(&self.cluster.data).into_iter().find(|process| Some(process.pid) == pid);
        match server {
            Some(Identity { pid, .. }) => {
                let reason =
                    format!("another server, process {pid}, runs on it: stop that one (kill -INT {pid})");
                Err(StackError::unusable_data(&self.cluster.data, reason))
            }
            None => std::fs::remove_file(&path).map_err(StackError::io("remove", &path)),
        }
    }

    /// Backends of a server that was killed end by themselves, but a new server can't start before.
    fn see_off_backends(&self) {
        for backend in processes::working_in(&self.cluster.data) {
            backend.see_off(Duration::from_secs(5));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Backends that are paused could not end with their server.
        self.resume();
    }
}

/// A program of the newest PostgreSQL that is installed, like `pgbench`: that of the version which makes new clusters.
///
/// # Errors
/// If PostgreSQL, or that program of it, is not installed.
pub fn postgres_program(name: &str) -> Result<PathBuf> {
    let program = Installation::newest()?.program(name);
    if programs::is_executable(&program) {
        return Ok(program);
    }
    Err(StackError::not_installed(program.display(), programs::INSTALL))
}

/// A text as a part of a URL.
fn url_text(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let part = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(part).collect()
}

/// Connects by the URL alone: neither the environment nor a password file of the user has a say.
pub(crate) async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
    let attempt = PgConnection::connect_with(&options);
    match tokio::time::timeout(Duration::from_secs(5), attempt).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Creates the database of a server that answers; `None` where it does not yet.
async fn set_up(url: &str) -> Option<Result<()>> {
    match connect(url).await {
        Ok(connection) => Some(create_database_if_missing(connection).await),
        Err(error) if is_final(&error) => {
            Some(Err(StackError::database("connect to the cluster that was just started")(error)))
        }
        Err(_) => None,
    }
}

/// A wrong password or role does not mend by waiting; "starting up" does.
fn is_final(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code.starts_with("28"))
}

async fn create_database_if_missing(mut connection: PgConnection) -> Result<()> {
    let doing = format!("create the database {DATABASE}");
    let error = || StackError::database(&doing);
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await
        .map_err(error())?;
    if !exists {
        create_database(&mut connection, DATABASE, "").await.map_err(error())?;
    }
    connection.close().await.map_err(error())
}

/// Creates a database, with further options of the statement. They and `name` are ours, never a user's: they go into the statement as
/// they are.
pub(crate) async fn create_database(
    connection: &mut PgConnection,
    name: &str,
    options: &str,
) -> sqlx::Result<()> {
    // template1 can't be copied while anyone is connected to it; nobody can be to template0.
    let statement = format!("CREATE DATABASE {name} TEMPLATE template0 {options}");
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_url_reads_back_as_it_was() {
        let path = "/home/Kim Lee/a&b=c?d#e%f+가/ca.pem";
        let url = format!("postgres://u@127.0.0.1/d?sslmode=verify-full&sslrootcert={}", url_text(path));
        let shown = format!("{:?}", PgConnectOptions::from_str(&url).unwrap());
        assert!(shown.contains(&format!("{path:?}")), "{shown}");
    }
}
