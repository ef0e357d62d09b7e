//! A shadow of the state tables, in a schema of its own, that a replay writes to.
//!
//! Every statement is a short transaction, since the relay waits for whoever writes. The tables are unlogged: what a
//! crash of the server takes from them is made again by the next replay.

use std::collections::BTreeMap;

use ordermill_domain::sales::Sums;
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};

use super::fold::Page;
use super::rows::{self, Rows};
use super::tables::{SALES, TABLES, Table};

/// The schema.
pub const SCHEMA: &str = "replay";
/// Says that a replay is at work: "replay" as a number.
const LOCK: i64 = 0x7265_706c_6179;

/// Makes this connection the only one that replays, until it is closed; `false` where another one is at work.
///
/// # Errors
/// Where the database fails.
pub async fn lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, LOCK).fetch_one(connection).await
}

/// The shadow's tables, ready to be written to.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// The columns of each table that can be written.
    columns: BTreeMap<String, String>,
}

impl Shadow {
    /// Drops what an earlier replay has left, and makes the tables anew and empty.
    ///
    /// # Errors
    /// Where the database fails, or the role may not make a schema.
    pub async fn make(connection: &mut PgConnection) -> Result<Shadow, sqlx::Error> {
        let mut script = format!("BEGIN; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA};");
        for table in TABLES {
            script += &definition(table);
        }
        sqlx::raw_sql(AssertSqlSafe(script + "COMMIT;")).execute(&mut *connection).await?;
        let columns = sqlx::query!(
            r#"SELECT table_name AS "table!", string_agg(quote_ident(column_name), ', ') AS "columns!"
               FROM information_schema.columns
               WHERE table_schema = $1 AND is_generated = 'NEVER' GROUP BY table_name"#,
            SCHEMA,
        );
        let columns = columns.fetch_all(connection).await?;
        Ok(Shadow { columns: columns.into_iter().map(|row| (row.table, row.columns)).collect() })
    }

    /// Writes a page of rows, and adds what was sold to the sums.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn write(&self, connection: &mut PgConnection, mut page: Page) -> Result<(), sqlx::Error> {
        for table in TABLES {
            let rows = page.rows.take(table);
            if !rows.is_empty() {
                let insert = self.insert(table);
                sqlx::query(AssertSqlSafe(insert)).bind(Json(rows)).execute(&mut *connection).await?;
            }
        }
        self.add_sales(connection, &page.sums).await
    }

    /// Adds to the sums of sales. Those who add at the same time lock in the order of the keys.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn add_sales(&self, connection: &mut PgConnection, sums: &Sums) -> Result<(), sqlx::Error> {
        let mut sales = Rows::default();
        sums.changes().for_each(|(key, figures)| sales.push(&SALES, rows::sale(key, figures)));
        let sales = sales.take(&SALES);
        if sales.is_empty() {
            return Ok(());
        }
        let add = self.insert(&SALES)
            + " ON CONFLICT (level, category, product_id, bucket) DO UPDATE SET
                 quantity = t.quantity + excluded.quantity, revenue = t.revenue + excluded.revenue,
                 orders = t.orders + excluded.orders";
        sqlx::query(AssertSqlSafe(add)).bind(Json(sales)).execute(connection).await?;
        Ok(())
    }

    fn insert(&self, table: &Table) -> String {
        let (name, columns) = (table.name, self.columns.get(table.name).map_or("", String::as_str));
        format!(
            "INSERT INTO {SCHEMA}.{name} AS t ({columns})
             SELECT {columns} FROM jsonb_populate_recordset(NULL::{SCHEMA}.{name}, $1)"
        )
    }
}

/// The table as the live one is, but without its rules: what the log makes is shown, whether or not it keeps to them.
fn definition(table: &Table) -> String {
    let (name, key) = (table.name, table.key.join(", "));
    let mut script = format!(
        "CREATE UNLOGGED TABLE {SCHEMA}.{name}
             (LIKE {name} INCLUDING DEFAULTS INCLUDING GENERATED, PRIMARY KEY ({key}));"
    );
    for column in table.unknown_columns() {
        script += &format!("ALTER TABLE {SCHEMA}.{name} ALTER COLUMN {column} DROP NOT NULL;");
    }
    script
}

/// A table of the shadow in figures.
#[derive(Clone, Debug, Serialize)]
pub struct TableSummary {
    /// The table.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: i64,
    /// How many of each state, where rows have one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_state: BTreeMap<String, i64>,
    /// What its figures add up to. Of sales, that is the level ALL.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sums: BTreeMap<String, Value>,
}

/// Every table of the shadow in figures.
///
/// # Errors
/// Where the database fails.
pub async fn summary(connection: &mut PgConnection) -> Result<Vec<TableSummary>, sqlx::Error> {
    let mut summaries = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let name = table.name;
        let state = table.state.unwrap_or("NULL::text");
        let sums: Vec<String> =
            table.sums.iter().map(|sum| format!("'{sum}', coalesce(sum({sum}), 0)")).collect();
        // A table without sums is counted all the same: the count makes one row of all.
        let counted = if name == SALES.name { "level = 'ALL'" } else { "true" };
        let select = format!(
            "SELECT (SELECT count(*) FROM {SCHEMA}.{name}),
                 (SELECT coalesce(jsonb_object_agg(state, rows), '{{}}') FROM (
                     SELECT {state} AS state, count(*) AS rows FROM {SCHEMA}.{name} GROUP BY 1
                 ) AS states WHERE state IS NOT NULL),
                 (SELECT jsonb_build_object({}) FROM {SCHEMA}.{name} WHERE {counted} HAVING count(*) >= 0)",
            sums.join(", ")
        );
        let (rows, Json(by_state), Json(sums)) =
            sqlx::query_as(AssertSqlSafe(select)).fetch_one(&mut *connection).await?;
        summaries.push(TableSummary { table: name, rows, by_state, sums });
    }
    Ok(summaries)
}
