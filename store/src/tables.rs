//! The tables of state, in the one order in which their rows are locked.
//!
//! Architecture Invariant: nobody locks rows of state but by a load of these [`tables`], or, where work is chosen by a query, with
//! SKIP LOCKED. `sales` is locked alone, by its keys in the order of `domain`.

use std::sync::LazyLock;

use ordermill_domain::aggregate::{Follows, Kind};
use ordermill_domain::kinds;
use ordermill_pipeline::journal::Table;
use sqlx::{AssertSqlSafe, PgConnection};

/// Every table of state, in the order of locks: that of the capabilities.
pub fn tables() -> &'static [Table] {
    static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| kinds().map(table).collect());
    &TABLES
}

/// How many rows a table has.
pub(crate) async fn count(connection: &mut PgConnection, table: &str) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
    count.fetch_one(connection).await.map(i64::unsigned_abs)
}

fn table(kind: &Kind) -> Table {
    let follows = kind.follows.map(|follows| match follows {
        Follows::Member { of, member, given } => {
            let given = given.map(|(other, value)| format!(" WHERE state ->> '{other}' = '{value}'"));
            let given = given.unwrap_or_default();
            (of, format!("SELECT (state ->> '{member}')::uuid FROM {{rows}}{given}").into())
        }
        Follows::Lines { of, member, further } => (
            of,
            format!(
                "SELECT (line ->> '{member}')::uuid
                 FROM {{rows}}, jsonb_array_elements(bulk::jsonb || coalesce(state #> '{{{further}}}', '[]')) AS line"
            )
            .into(),
        ),
    });
    Table { name: kind.noun, follows }
}
