//! Database roles: each may do what is said here, and whatever else it tries is refused by PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod rights;
mod setting_up;

use ordermill_pipeline::database;
use ordermill_stack::TestStack;
use ordermill_store::database_roles::{self, DatabaseRole};
use ordermill_store::migrations;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

/// What PostgreSQL answers to whoever may not do what they try.
const REFUSED: &str = "42501";

async fn migrated(url: &str) -> PgPool {
    let pool = database::connect(url, "test", 12).await.unwrap();
    migrations::run(&pool).await.unwrap();
    pool
}

/// A database with roles.
async fn pool() -> PgPool {
    let pool = migrated(&TestStack::shared().await.fresh_database().await).await;
    database_roles::set_up(&pool).await.unwrap();
    pool
}

/// A connection that may do what the role may.
async fn connection_as(pool: &PgPool, role: DatabaseRole) -> PgConnection {
    let mut connection = pool.acquire().await.unwrap().detach();
    run(&mut connection, &format!("SET ROLE {role}")).await.unwrap();
    connection
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(|_| ())
}

/// Tries something that the role may not do.
async fn assert_refused(connection: &mut PgConnection, role: DatabaseRole, statement: &str) {
    let answer = run(&mut *connection, statement).await;
    let code = answer.as_ref().err().and_then(|error| error.as_database_error()?.code());
    assert_eq!(code.as_deref(), Some(REFUSED), "{role}: {statement}: {answer:?}");
}
