//! The tables of state, in the one order in which their rows are locked.
//!
//! Architecture Invariant: nobody locks rows of state but by a load of these [`tables`], or, where work is chosen by a query, with
//! SKIP LOCKED. `sales` is locked alone, by its keys in the order of `domain`.

use std::sync::LazyLock;

use ordermill_domain::aggregate::{Follows, Kind};
use ordermill_domain::kinds;
use ordermill_pipeline::journal::{Follows as TableFollows, KeysOf, StoredDocument, Table};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

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
    Table { name: kind.noun, follows: kind.follows.map(follows), part_of: kind.part_of }
}

/// The same in SQL, for loads, and in memory, for documents that need not be loaded.
fn follows(follows: Follows) -> TableFollows {
    match follows {
        Follows::Member { of, member, given } => {
            let condition = given.map(|(other, value)| format!(" WHERE state ->> '{other}' = '{value}'"));
            let condition = condition.unwrap_or_default();
            let select = format!("SELECT (state ->> '{member}')::uuid FROM {{rows}}{condition}").into();
            let keys = move |document: &StoredDocument| {
                let state = parsed(Some(&document.state));
                let is_given = given.is_none_or(|(other, value)| state[other] == value);
                key(&state[member]).filter(|_| is_given).into_iter().collect()
            };
            TableFollows { of, select, keys: KeysOf(Box::new(keys)) }
        }
        Follows::Lines { of, member, further } => {
            let select = format!(
                "SELECT (line ->> '{member}')::uuid
                 FROM {{rows}}, jsonb_array_elements(bulk::jsonb || coalesce(state #> '{{{further}}}', '[]')) AS line"
            );
            let path = format!("/{}", further.replace(',', "/"));
            let keys = move |document: &StoredDocument| {
                let (state, bulk) = (parsed(Some(&document.state)), parsed(document.bulk.as_deref()));
                let lines =
                    [Some(&bulk), state.pointer(&path)].into_iter().flatten().filter_map(Value::as_array);
                lines.flatten().filter_map(|line| key(&line[member])).collect()
            };
            TableFollows { of, select: select.into(), keys: KeysOf(Box::new(keys)) }
        }
    }
}

/// A document that can't be read names no keys; whoever decides from it says what is wrong with it.
fn parsed(document: Option<&str>) -> Value {
    document.and_then(|document| serde_json::from_str(document).ok()).unwrap_or_default()
}

fn key(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}
