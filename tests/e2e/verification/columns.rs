//! Every column of every state table is checked, whichever there are.

use std::collections::BTreeMap;

use ordermill::replay::{Options, Progress, rebuild};
use ordermill_pipeline::database;
use ordermill_store::replay::{NOT_IN_THE_LOG, TABLES};
use ordermill_store::verification;
use sqlx::AssertSqlSafe;

use super::violations;
use crate::replay::Traded;
use crate::support::Shop;

/// A column of a table.
#[derive(sqlx::FromRow)]
struct Column {
    table: String,
    column: String,
    data_type: String,
}

impl Column {
    /// Another value than the column has, as SQL.
    fn forged(&self) -> String {
        let column = &self.column;
        match self.data_type.as_str() {
            "integer" | "bigint" => format!("coalesce({column}, 0) - 1"),
            "text" => format!("coalesce({column}, '') || 'x'"),
            "boolean" => format!("NOT {column}"),
            "uuid" => "gen_random_uuid()".to_owned(),
            "timestamp with time zone" => format!("coalesce({column}, 'epoch') + interval '1 second'"),
            "jsonb" => format!(
                "CASE jsonb_typeof({column}) WHEN 'array' THEN {column} || '[{{\"forged\": 1}}]'
                     WHEN 'object' THEN {column} || '{{\"forged\": 1}}' ELSE '{{\"forged\": 1}}' END"
            ),
            other => panic!("{}.{column}: nothing is known of the type {other}", self.table),
        }
    }

    fn is_in_the_log(&self) -> bool {
        !NOT_IN_THE_LOG
            .iter()
            .any(|(table, column, _)| (self.table.as_str(), self.column.as_str()) == (*table, *column))
    }
}

/// A row whose columns are forged one after the other.
struct Victim {
    /// How a violation names it.
    name: String,
    /// Where it lies: as long as nobody else writes, that finds it whatever is forged.
    place: String,
}

async fn text(shop: &Shop, sql: String) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&shop.pool).await.unwrap()
}

/// The rules of the tables would refuse most forgeries.
async fn drop_rules(shop: &Shop) {
    let rules: Vec<String> = sqlx::query_scalar(
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
         FROM pg_constraint WHERE conrelid::regclass::text = ANY($1) AND contype IN ('c', 'f', 'u')",
    )
    .bind(TABLES.map(|table| table.name))
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    for rule in rules {
        // One may have gone with another.
        sqlx::query(AssertSqlSafe(rule.replace("CONSTRAINT", "CONSTRAINT IF EXISTS")))
            .execute(&shop.pool)
            .await
            .unwrap();
    }
}

async fn columns(shop: &Shop) -> BTreeMap<String, Vec<Column>> {
    let columns: Vec<Column> = sqlx::query_as(
        "SELECT table_name::text AS table, column_name::text AS column, data_type::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = ANY($1) ORDER BY table_name, ordinal_position",
    )
    .bind(TABLES.map(|table| table.name))
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let mut by_table: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for column in columns {
        by_table.entry(column.table.clone()).or_default().push(column);
    }
    by_table
}

impl Victim {
    async fn of(shop: &Shop, table: &str, key: &str) -> Victim {
        let (name, which) = match table {
            "sales" => ("'sales ALL at ' || bucket".to_owned(), "level = 'ALL'"),
            _ => (format!("'{table} ' || {key} || ': '"), "true"),
        };
        let of = |what: &str| format!("SELECT {what} FROM {table} WHERE {which} ORDER BY {key} LIMIT 1");
        Victim { name: text(shop, of(&name)).await, place: text(shop, of("ctid::text")).await }
    }

    /// Sets one column, and answers what it was, as SQL.
    async fn set(&mut self, shop: &Shop, column: &Column, value: &str) -> String {
        let Column { table, column, data_type } = column;
        let place = format!("ctid = '{}'", self.place);
        let was = format!(
            "SELECT coalesce(quote_literal({column}::text) || '::{data_type}', 'NULL') FROM {table} WHERE {place}"
        );
        let was = text(shop, was).await;
        let set = format!("UPDATE {table} SET {column} = {value} WHERE {place} RETURNING ctid::text");
        self.place = text(shop, set).await;
        was
    }
}

/// What `verify` and `replay --check` say of the shop, each difference with the row's name before it.
async fn told(shop: &Shop) -> [Vec<String>; 2] {
    let mut snapshot = database::begin(&shop.pool).await.unwrap();
    let now = jiff::Timestamp::now();
    let checks = verification::check_all(&mut snapshot, ordermill::verify::groups(), now).await.unwrap();
    snapshot.rollback().await.unwrap();
    let of_rebuild = checks.into_iter().filter(|check| ["rebuild", "sales"].contains(&check.name));
    let verified = of_rebuild.flat_map(|check| check.violations).collect();
    let options = Options { jobs: 2, check: true, until: None };
    let rebuilt = rebuild(&shop.connections.database_url, options, &Progress::default()).await.unwrap();
    [verified, rebuilt.found.differences.iter().map(ToString::to_string).collect()]
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_column_of_a_state_table_is_changed_by_hand_verify_and_replay_name_the_row() {
    let shop = Shop::new().await;
    Traded::in_shop(&shop).await;
    drop_rules(&shop).await;
    let columns = columns(&shop).await;
    assert_eq!(columns.len(), TABLES.len());
    for (table, column, _) in NOT_IN_THE_LOG {
        assert!(columns[table].iter().any(|known| known.column == column), "{table}.{column} is gone");
    }
    let mut victims = BTreeMap::new();
    for table in TABLES {
        victims.insert(table.name, Victim::of(&shop, table.name, table.key[0]).await);
    }
    let rounds = columns.values().map(Vec::len).max().unwrap();
    // A round forges one column of each table.
    for round in 0..rounds {
        let forged: Vec<&Column> = columns
            .values()
            .filter_map(|of_table| of_table.get(round))
            .filter(|c| c.is_in_the_log())
            .collect();
        let mut originals = Vec::new();
        for column in &forged {
            let victim = victims.get_mut(column.table.as_str()).unwrap();
            originals.push(victim.set(&shop, column, &column.forged()).await);
        }
        let told = told(&shop).await;
        for Column { table, column, .. } in &forged {
            let name = &victims[table.as_str()].name;
            // A row whose key was forged is missing under its own; so are the figures of a sum.
            let names = |line: &String| {
                line.starts_with(name)
                    && (line.contains(&format!("{column} is "))
                        || line.contains("not in the")
                        || table == "sales")
            };
            for told in &told {
                assert!(told.iter().any(names), "{table}.{column} of {name}: {told:#?}");
            }
        }
        for (column, original) in forged.into_iter().zip(originals) {
            victims.get_mut(column.table.as_str()).unwrap().set(&shop, column, &original).await;
        }
    }
    assert_eq!(told(&shop).await, [Vec::<String>::new(), Vec::new()]);
    let report = shop.verify().await;
    assert!(report.ok, "{:#?}", violations(&report.checks));
}
