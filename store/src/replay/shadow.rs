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

use super::difference::Row;
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
    columns: BTreeMap<String, Vec<String>>,
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
            r#"SELECT table_name AS "table!", array_agg(column_name::text) AS "columns!"
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
                self.copy(&mut *connection, table, &rows).await?;
            }
        }
        self.add_sales(connection, &page.sums).await
    }

    /// By COPY, which takes a third of the time of an INSERT from JSON.
    async fn copy(
        &self,
        connection: &mut PgConnection,
        table: &Table,
        rows: &[Row],
    ) -> Result<(), sqlx::Error> {
        let columns = self.columns.get(table.name).map_or(&[][..], Vec::as_slice);
        let quoted: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
        let copy = format!("COPY {SCHEMA}.{} ({}) FROM STDIN", table.name, quoted.join(", "));
        let mut lines = String::new();
        for row in rows {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    lines.push('\t');
                }
                push_value(&mut lines, row.get(column));
            }
            lines.push('\n');
        }
        let mut copy = connection.copy_in_raw(&copy).await?;
        copy.send(lines.as_bytes()).await?;
        copy.finish().await?;
        Ok(())
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

/// A value as COPY reads it.
fn push_value(line: &mut String, value: Option<&Value>) {
    let text = match value {
        None | Some(Value::Null) => return line.push_str("\\N"),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    for character in text.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            other => line.push(other),
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_so_that_copy_reads_them_back() {
        for (value, written) in [
            (Value::Null, "\\N"),
            (json!(7), "7"),
            (json!(true), "true"),
            (json!("전등 \\ \t\n\r"), "전등 \\\\ \\t\\n\\r"),
            (json!({"name": "a \"b\""}), r#"{"name":"a \\"b\\""}"#),
            (json!("\\N"), "\\\\N"),
        ] {
            let mut line = String::new();
            push_value(&mut line, Some(&value));
            assert_eq!(line, written);
        }
    }
}
