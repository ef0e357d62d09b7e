//! T: how many transactions a second PostgreSQL itself does, on the server that the pipeline uses, in the same run.
//!
//! The statements here are about the server; none is about the shop's tables.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ordermill_stack::{Program, postgres_program};
use reqwest::Url;
use sqlx::PgPool;

use crate::server::checkpoint;
use crate::stack::{OwnStack, finish};

/// A row of `pgbench_branches` each, and 100,000 accounts.
pub(crate) const SCALE: u32 = 20;
/// Connections that do transactions at the same time.
pub(crate) const CLIENTS: u32 = 8;
/// Threads of the program that share the connections.
pub(crate) const THREADS: u32 = 2;
/// Prepared once, executed again and again, as the pipeline's statements are.
pub(crate) const PROTOCOL: &str = "prepared";

/// A database of its own.
const DATABASE: &str = "pgbench";
/// How long filling it may take.
const FILL_WITHIN: Duration = Duration::from_secs(300);
/// How much longer than asked for it may run.
const END_WITHIN: Duration = Duration::from_secs(60);

/// `pgbench` with its database.
#[derive(Debug)]
pub(crate) struct Pgbench {
    program: PathBuf,
    log: PathBuf,
    environment: [(&'static str, String); 5],
    pool: PgPool,
}

impl Pgbench {
    /// Makes and fills the database, beside the pipeline's.
    ///
    /// # Errors
    /// Where `pgbench` is not installed or fails.
    pub(crate) async fn prepare(stack: &OwnStack, pool: &PgPool) -> Result<Pgbench> {
        let pgbench = Pgbench {
            program: postgres_program("pgbench")?,
            log: stack.path("pgbench.log"),
            environment: environment(&stack.file.database_url)?,
            pool: pool.clone(),
        };
        // template1 can't be copied while anyone is connected to it; nobody can be to template0.
        sqlx::raw_sql("CREATE DATABASE pgbench TEMPLATE template0")
            .execute(pool)
            .await
            .context("can't make a database for pgbench")?;
        let fill = pgbench.run().args(["--initialize", "--quiet", "--scale", &SCALE.to_string()]);
        finish(fill.start()?, "filling pgbench's database", FILL_WITHIN).await?;
        Ok(pgbench)
    }

    /// Transactions per second, TPC-B-like, for so many seconds. Begins with a checkpoint, so that every run finds the
    /// server in the same state.
    ///
    /// # Errors
    /// Where `pgbench` fails.
    pub(crate) async fn measure(&self, seconds: u64) -> Result<f64> {
        checkpoint(&self.pool).await?;
        let run = self.run().args(["--client", &CLIENTS.to_string(), "--jobs", &THREADS.to_string()]).args([
            "--protocol",
            PROTOCOL,
            "--time",
            &seconds.to_string(),
        ]);
        let output = finish(run.start()?, "pgbench", Duration::from_secs(seconds) + END_WITHIN).await?;
        transactions_per_second(&output).context("pgbench did not say how many transactions it did")
    }

    fn run(&self) -> Program {
        // By the environment, so that the password does not show in the list of processes.
        let program = Program::new("pgbench", &self.program, &self.log).without_env_prefix("PG");
        self.environment.iter().fold(program, |program, (name, value)| program.env(*name, value))
    }
}

/// How programs of PostgreSQL are told where to connect.
fn environment(database_url: &str) -> Result<[(&'static str, String); 5]> {
    let url: Url = database_url.parse().context("the stack's database has no address")?;
    Ok([
        ("PGHOST", url.host_str().unwrap_or_default().to_owned()),
        ("PGPORT", url.port().unwrap_or(5432).to_string()),
        ("PGUSER", url.username().to_owned()),
        ("PGPASSWORD", url.password().unwrap_or_default().to_owned()),
        ("PGDATABASE", DATABASE.to_owned()),
    ])
}

fn transactions_per_second(output: &str) -> Option<f64> {
    let figure = output.lines().find_map(|line| line.strip_prefix("tps = "))?;
    figure.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let output = "number of failed transactions: 0 (0.000%)\nlatency average = 1.4 ms\n\
                      initial connection time = 8.2 ms\ntps = 5711.336402 (without initial connection time)\n";
        assert_eq!(transactions_per_second(output), Some(5_711.336_402));
        assert_eq!(transactions_per_second("pgbench: error: no luck"), None);
    }

    #[test]
    fn the_address_goes_into_the_environment() {
        let environment = environment("postgres://me:secret@127.0.0.1:5433/shop").unwrap();
        let expected = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", "5433"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "secret"),
            ("PGDATABASE", "pgbench"),
        ];
        assert_eq!(environment, expected.map(|(name, value)| (name, value.to_owned())));
    }
}
