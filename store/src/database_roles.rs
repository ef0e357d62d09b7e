//! Database roles: what each part of the shop may do in the database, by privilege. Nobody has to have them: the owner of the tables may do all.
//!
//! The list is `grants.sql`. What follows from the list of capabilities is added here: their worker may write the tables of their
//! aggregates, API and operators may read all of them.

use std::fmt;

use ordermill_domain::aggregate::{Documents, Kind};
use ordermill_domain::capability::Capability;
use ordermill_domain::kinds;
use ordermill_pipeline::database;
use sqlx::{AssertSqlSafe, PgExecutor, PgPool};
use thiserror::Error;

/// Makes the roles.
const CLUSTER: &str = include_str!("database_roles/cluster.sql");
/// Says what each may do.
const GRANTS: &str = include_str!("database_roles/grants.sql");

/// The workers that are no capability's.
const SALES: &str = "sales";
const TIMERS: &str = "timers";

/// A part of the shop, as the database knows it. Nobody logs in as a role: users are members of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseRole {
    /// The HTTP front.
    Api,
    /// The relay.
    Relay,
    /// The worker of that name.
    Worker(&'static str),
    /// Whoever looks at the shop and mends it by commands.
    Operator,
}

impl DatabaseRole {
    /// All there are.
    pub fn all() -> impl Iterator<Item = DatabaseRole> {
        [DatabaseRole::Api, DatabaseRole::Relay, DatabaseRole::Operator].into_iter().chain(workers())
    }
}

impl fmt::Display for DatabaseRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseRole::Api => f.write_str("ordermill_api"),
            DatabaseRole::Relay => f.write_str("ordermill_relay"),
            DatabaseRole::Worker(name) => write!(f, "ordermill_worker_{name}"),
            DatabaseRole::Operator => f.write_str("ordermill_operator"),
        }
    }
}

/// The roles of the workers.
pub fn workers() -> impl Iterator<Item = DatabaseRole> {
    consumers().chain([DatabaseRole::Worker(TIMERS)])
}

/// Those of them that read topics.
fn consumers() -> impl Iterator<Item = DatabaseRole> {
    capabilities().map(|(role, _)| role).chain([DatabaseRole::Worker(SALES)])
}

/// The worker of each capability, and the kinds of aggregates that it decides about.
fn capabilities() -> impl Iterator<Item = (DatabaseRole, &'static [Kind])> {
    macro_rules! workers {
        ($($noun:ident $Name:ident $(($($parts:tt)+))?;)+) => {
            [$((
                DatabaseRole::Worker(<ordermill_domain::$noun::$Name as Capability>::TOPIC.name()),
                <ordermill_domain::$noun::$Name as Documents>::KINDS,
            )),+]
        };
    }
    ordermill_schemas::capabilities!(workers).into_iter()
}

/// Why nobody was given anything.
#[derive(Debug, Error)]
pub enum RolesError {
    /// The roles can't be made.
    #[error(
        "{user} may not make roles or join them: have a user who may run what `ordermill roles --print` prints, in this database; \
         where it stops at what only the owner of the tables may do, run `ordermill roles` again after that"
    )]
    NotMade {
        /// Whoever we connect as.
        user: String,
        /// What PostgreSQL says.
        source: sqlx::Error,
    },
    /// The roles are there, but may do no more than before.
    #[error(
        "{user} may not say what the roles may do: run this as the owner of the tables and of the database, who runs `ordermill migrate`"
    )]
    NotGranted {
        /// Whoever we connect as.
        user: String,
        /// What PostgreSQL says.
        source: sqlx::Error,
    },
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Makes the roles where they are not there, and gives each in this database what it must have and nothing else. Safe to repeat, and beside
/// services at work. Answers whether operators see the sessions of others, which the owner of a database need not be allowed to
/// grant.
///
/// # Errors
/// [`RolesError`].
pub async fn set_up(pool: &PgPool) -> Result<bool, RolesError> {
    let user = sqlx::query_scalar!(r#"SELECT current_user::text AS "user!""#).fetch_one(pool).await?;
    run(pool, named(CLUSTER)).await.map_err(|source| {
        let is_ours = database::is_not_allowed(&source);
        if is_ours { RolesError::NotMade { user: user.clone(), source } } else { source.into() }
    })?;
    run(pool, grants()).await.map_err(|source| {
        let is_ours = database::is_not_allowed(&source);
        if is_ours { RolesError::NotGranted { user, source } } else { source.into() }
    })?;
    let sees = "SELECT pg_has_role('ordermill_operator'::name, 'pg_read_all_stats'::name, 'USAGE')";
    Ok(sqlx::query_scalar(sees).fetch_one(pool).await?)
}

/// Runs a script: all of it or nothing.
async fn run(pool: &PgPool, script: String) -> Result<(), sqlx::Error> {
    let mut transaction = database::begin(pool).await?;
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// The same as one script for `psql`.
#[must_use]
pub fn script() -> String {
    format!("{}\nBEGIN;\n\n{}\nCOMMIT;\n", named(CLUSTER), grants())
}

/// A script with the names of the roles.
fn named(script: &str) -> String {
    let services = [DatabaseRole::Api, DatabaseRole::Relay].into_iter().chain(workers());
    script
        .replace("{all}", &list(DatabaseRole::all()))
        .replace("{services}", &list(services))
        .replace("{workers}", &list(workers()))
        .replace("{consumers}", &list(consumers()))
}

fn grants() -> String {
    let mut script = named(GRANTS) + "\n-- The tables of state.\n";
    for (worker, own) in capabilities() {
        let tables = list(own.iter().map(|kind| kind.noun));
        script += &format!("GRANT SELECT, INSERT, UPDATE ON {tables} TO {worker};\n");
    }
    let (tables, readers) =
        (list(kinds().map(|kind| kind.noun)), [DatabaseRole::Api, DatabaseRole::Operator]);
    script + &format!("GRANT SELECT ON {tables} TO {};\n", list(readers))
}

fn list(names: impl IntoIterator<Item = impl fmt::Display>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

/// What somebody may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Whoever we connect as.
    pub user: String,
    /// A privilege and its table: `INSERT on orders`.
    pub privilege: String,
}

/// Something that the role may do in this database and whoever we connect as may not; `None` where there is no such thing, as for
/// members of the role and for the owner of the tables, and where the database has no roles.
///
/// # Errors
/// Where the database fails.
pub async fn lacking(
    executor: impl PgExecutor<'_>,
    role: DatabaseRole,
) -> Result<Option<Lacking>, sqlx::Error> {
    sqlx::query_as!(
        Lacking,
        r#"SELECT current_user::text AS "user!", format('%s on %s', given.privilege_type, c.relname) AS "privilege!"
           FROM pg_roles r, pg_class c, aclexplode(c.relacl) AS given
           WHERE r.rolname::text = $1 AND given.grantee = r.oid AND c.relkind IN ('r', 'v')
               AND c.relnamespace = 'public'::regnamespace AND NOT has_table_privilege(c.oid, given.privilege_type)
           ORDER BY c.relname, given.privilege_type LIMIT 1"#,
        role.to_string(),
    )
    .fetch_optional(executor)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_named_in_the_script_and_nothing_is_left_to_be_named() {
        let script = script();
        for role in DatabaseRole::all() {
            assert!(script.contains(&format!("{role},")) || script.contains(&format!("{role};")), "{role}");
        }
        assert!(!script.contains('{') && !script.contains('}'), "{script}");
        assert!(
            script
                .contains("GRANT SELECT, INSERT, UPDATE ON payments, balances TO ordermill_worker_payments;")
        );
    }
}
