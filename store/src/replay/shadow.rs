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
use uuid::Uuid;

use super::page::{Page, sales_rows};
use super::tables::{Table, tables};

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

/// Whether others may change what is in the schema, and we have the rights of the owner of the tables: by a trigger there they would have them,
/// too. To take another role on for that time does not help, since the trigger can put it off.
///
/// # Errors
/// Where the database fails.
pub async fn is_a_trap(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let is_a_trap = "SELECT EXISTS (
        SELECT FROM pg_namespace n, pg_class log
        WHERE n.nspname = $1 AND log.oid = 'public.log_segment'::regclass AND n.nspowner <> log.relowner
            AND pg_has_role(log.relowner, 'USAGE'))";
    sqlx::query_scalar(is_a_trap).bind(SCHEMA).fetch_one(connection).await
}

/// The shadow's tables, ready to be written to.
#[derive(Clone, Debug)]
pub struct Shadow {
    _made: (),
}

impl Shadow {
    /// Drops what an earlier replay has left, and makes the tables anew and empty. Where the schema is there it stays, since operators may not
    /// make another one; as its owners they may drop what others have made there.
    ///
    /// # Errors
    /// Where the database fails, or whoever we connect as may not make the schema or tables in it.
    pub async fn make(connection: &mut PgConnection) -> Result<Shadow, sqlx::Error> {
        let mut script = format!(
            "BEGIN;
             DO $$
             DECLARE
                 former text;
             BEGIN
                 IF to_regnamespace('{SCHEMA}') IS NULL THEN
                     CREATE SCHEMA {SCHEMA};
                 END IF;
                 -- A sequence may go with its table, and a view with what it shows.
                 FOR former IN
                     SELECT format('%s IF EXISTS {SCHEMA}.%I CASCADE', kind, relname)
                     FROM pg_class JOIN (VALUES ('r', 'TABLE'), ('p', 'TABLE'), ('f', 'FOREIGN TABLE'), ('v', 'VIEW'),
                         ('m', 'MATERIALIZED VIEW'), ('c', 'TYPE'), ('S', 'SEQUENCE')) AS k (letter, kind)
                         ON letter = relkind::text
                     WHERE relnamespace = to_regnamespace('{SCHEMA}') ORDER BY relkind = 'S'
                 LOOP
                     EXECUTE 'DROP ' || former;
                 END LOOP;
             END $$;"
        );
        // As the live ones are, but without their rules: what the log makes is shown, whether or not it keeps to them.
        for Table { name, key, .. } in tables() {
            script += &format!(
                "CREATE UNLOGGED TABLE {SCHEMA}.{name}
                     (LIKE {name} INCLUDING DEFAULTS INCLUDING GENERATED, PRIMARY KEY ({}));",
                key.join(", ")
            );
        }
        sqlx::raw_sql(AssertSqlSafe(script + "COMMIT;")).execute(connection).await?;
        Ok(Shadow { _made: () })
    }

    /// Writes a page of rows, and adds what was sold to the sums.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn write(&self, connection: &mut PgConnection, page: Page) -> Result<(), sqlx::Error> {
        for (noun, documents) in &page.documents {
            let keys: Vec<Uuid> = documents.iter().map(|document| document.key).collect();
            let states: Vec<&str> = documents.iter().map(|document| document.state.as_str()).collect();
            let bulks: Vec<Option<&str>> =
                documents.iter().map(|document| document.bulk.as_deref()).collect();
            // It costs what COPY costs, and one turn with the server.
            let insert = format!(
                "INSERT INTO {SCHEMA}.{noun} (key, version, state, bulk)
                 SELECT key, 1, state::jsonb, bulk::json
                 FROM unnest($1::uuid[], $2::text[], $3::text[]) AS t (key, state, bulk)"
            );
            let insert = sqlx::query(AssertSqlSafe(insert)).bind(keys).bind(states).bind(bulks);
            insert.execute(&mut *connection).await?;
        }
        self.add_sales(connection, &page.sums).await
    }

    /// Adds to the sums of sales. Those who add at the same time lock in the order of the keys.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn add_sales(&self, connection: &mut PgConnection, sums: &Sums) -> Result<(), sqlx::Error> {
        let sales: Vec<Value> = sales_rows(sums).collect();
        if sales.is_empty() {
            return Ok(());
        }
        let add = format!(
            "INSERT INTO {SCHEMA}.sales AS t (level, bucket, category, product_id, quantity, revenue, orders)
             SELECT level, bucket, category, product_id, quantity, revenue, orders
             FROM jsonb_populate_recordset(NULL::{SCHEMA}.sales, $1)
             ON CONFLICT (level, category, product_id, bucket) DO UPDATE SET
                 quantity = t.quantity + excluded.quantity, revenue = t.revenue + excluded.revenue,
                 orders = t.orders + excluded.orders"
        );
        sqlx::query(AssertSqlSafe(add)).bind(Json(sales)).execute(connection).await?;
        Ok(())
    }
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
    let mut summaries = Vec::new();
    for table in tables() {
        let name = table.name;
        let state = table.state.as_deref().unwrap_or("NULL::text");
        let sums: Vec<String> =
            table.sums.iter().map(|(name, sum)| format!("'{name}', coalesce(sum({sum}), 0)")).collect();
        // A table without sums is counted all the same: the count makes one row of all.
        let select = format!(
            "SELECT (SELECT count(*) FROM {SCHEMA}.{name}),
                 (SELECT coalesce(jsonb_object_agg(state, rows), '{{}}') FROM (
                     SELECT {state} AS state, count(*) AS rows FROM {SCHEMA}.{name} GROUP BY 1
                 ) AS states WHERE state IS NOT NULL),
                 (SELECT jsonb_build_object({}) FROM {SCHEMA}.{name} HAVING count(*) >= 0)",
            sums.join(", ")
        );
        let (rows, Json(by_state), Json(sums)) =
            sqlx::query_as(AssertSqlSafe(select)).fetch_one(&mut *connection).await?;
        summaries.push(TableSummary { table: name, rows, by_state, sums });
    }
    Ok(summaries)
}
