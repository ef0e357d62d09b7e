//! The connection to PostgreSQL, and what to do after one of its errors.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, PgPool, Postgres, Transaction};

use crate::database_sockets;

/// How long a connection is waited for before the work is put off.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after its last statement a connection is taken to be alive without being asked.
pub(crate) const ALIVE_FOR: Duration = Duration::from_secs(1);

/// The SQLSTATE of what whoever we connect as may not do.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What to do where whoever we connect as may not do what is to be done.
pub const NOT_ALLOWED: &str = "the user of DATABASE_URL may not do that: give a user who is a member of the role that may, or the owner of the \
    tables; after `ordermill migrate` run `ordermill roles` again (docs/OPERATIONS.md, \"Database roles\")";

/// How a URL names the CA that is to be believed.
const CA: [&str; 3] = ["sslrootcert=", "ssl-root-cert=", "ssl-ca="];

/// What to do after an error of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same again, later: nothing is wrong with the work.
    Retry,
    /// Not again: the work breaks a rule of the database.
    Reject,
    /// Nothing helps but a change of the program or its set-up.
    Bug,
}

/// Opens a pool. `name` shows in `pg_stat_activity`.
///
/// No session may sit idle in a transaction for long: the relay waits for those that have drawn a number of the log.
///
/// # Errors
/// Where the URL is malformed or names a CA that would verify nobody (both are [`sqlx::Error::Configuration`]), or the server does not answer.
pub async fn connect(url: &str, name: &str, connections_max: u32) -> Result<PgPool, sqlx::Error> {
    open(url, name, connections_max, &[]).await
}

/// Opens a pool for a service, whose statements all go by keys and are short: one that takes longer than any should is given up, and so is
/// the wait for a lock. Whoever sent it tries again.
///
/// Their plans are made once, and on a new database while the tables are empty: a scan looks cheap then, and would
/// be kept while the tables grow. So a service plans with indexes and nested loops only. Rows are read in the order of an
/// index, which needs no sort before they are locked; a bitmap is made where an index can't do otherwise.
///
/// # Errors
/// As [`connect`].
pub async fn connect_service(url: &str, name: &str, connections_max: u32) -> Result<PgPool, sqlx::Error> {
    let settings = [
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ];
    open(url, name, connections_max, &settings).await
}

async fn open(
    url: &str,
    name: &str,
    connections_max: u32,
    settings: &[(&str, &str)],
) -> Result<PgPool, sqlx::Error> {
    let options = options_of(url)?.application_name(name);
    let port = options.get_port();
    let ours = [
        ("idle_in_transaction_session_timeout", "30s"),
        // Where this process has vanished, the server lets go of its locks.
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "2"),
        ("tcp_user_timeout", "20s"),
        ("jit", "off"),
    ];
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // One that has just served is taken to be alive: asking costs as much as most statements. If it has died since, the statement
        // fails like one whose connection dies under way, and is tried again.
        .test_before_acquire(false)
        .before_acquire(|connection, of| {
            Box::pin(async move {
                if of.idle_for > ALIVE_FOR {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |_, _| {
            Box::pin(async move {
                if let Err(error) = database_sockets::set_up(port) {
                    tracing::warn!(%error, "it will not be noticed if the database vanishes without a word");
                }
                Ok(())
            })
        })
        .connect_with(options.options(ours).options(settings.iter().copied()))
        .await
}

/// Whether all connections of a pool are out, so that somebody may be waiting for one.
#[must_use]
pub fn is_spent(pool: &PgPool) -> bool {
    pool.num_idle() == 0 && pool.size() >= pool.options().get_max_connections()
}

fn options_of(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?;
    let has_ca = url.split(['?', '&']).skip(1).any(|pair| CA.iter().any(|name| pair.starts_with(name)));
    if has_ca && !matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull) {
        let reason = "a CA is given (sslrootcert), but nobody would be verified: add sslmode=verify-full, or leave the CA out";
        return Err(sqlx::Error::Configuration(reason.into()));
    }
    Ok(options)
}

/// Begins a transaction. The only place that may: a `begin` whose caller goes away returns its connection
/// to the pool with the transaction open (sqlx issue 4385), so it runs in a task that nobody cancels.
///
/// # Errors
/// Where no connection can be had.
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    let begin = tokio::spawn(async move { pool.begin().await });
    begin.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed))
}

/// A database error as it is told: in PostgreSQL's words, and with what to do where we may not do something.
#[derive(Debug)]
pub struct Told<'a>(pub &'a sqlx::Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        if is_not_allowed(self.0) {
            write!(f, "; {NOT_ALLOWED}")?;
        }
        Ok(())
    }
}

/// Whether whoever we connect as may not do that.
#[must_use]
pub fn is_not_allowed(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(INSUFFICIENT_PRIVILEGE)
}

/// What to do after `error`.
#[must_use]
pub fn next_after(error: &sqlx::Error) -> Next {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Next::Retry,
        sqlx::Error::Database(error) => next_after_code(error.code().as_deref().unwrap_or_default()),
        _ => Next::Bug,
    }
}

/// The SQLSTATE's first two characters are its class (PostgreSQL's manual, appendix A).
fn next_after_code(code: &str) -> Next {
    let class = code.get(..2).unwrap_or_default();
    match (class, code) {
        // Lost connection, serialization or deadlock, resources, operator intervention, system error.
        ("08" | "40" | "53" | "57" | "58", _) => Next::Retry,
        // The session sat idle in its transaction; read-only while failing over; lock not available.
        (_, "25P03" | "25006" | "55P03") => Next::Retry,
        // Data out of range, constraint violated.
        ("22" | "23", _) => Next::Reject,
        _ => Next::Bug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_by_which_nobody_would_be_verified_is_refused_with_what_to_do() {
        let of = |query: &str| options_of(&format!("postgres://u:p@h:1/d?{query}"));
        for halves in
            ["sslrootcert=/ca.pem", "sslmode=require&sslrootcert=/ca.pem", "ssl-ca=/ca.pem&sslmode=disable"]
        {
            let error = of(halves).unwrap_err().to_string();
            assert!(error.contains("add sslmode=verify-full"), "{halves}: {error}");
        }
        for whole in ["sslmode=verify-full&sslrootcert=/ca.pem", "sslmode=verify-ca", "sslmode=require", ""] {
            assert!(of(whole).is_ok(), "{whole}");
        }
    }

    #[test]
    fn the_sqlstate_says_what_to_do_next() {
        for (code, next) in [
            ("40P01", Next::Retry),
            ("57P01", Next::Retry),
            ("53300", Next::Retry),
            ("23505", Next::Reject),
            ("22P02", Next::Reject),
            ("42P01", Next::Bug),
            (INSUFFICIENT_PRIVILEGE, Next::Bug),
            ("", Next::Bug),
        ] {
            assert_eq!(next_after_code(code), next, "{code}");
        }
        assert_eq!(next_after(&sqlx::Error::PoolTimedOut), Next::Retry);
    }
}
