//! Every member of every state table is checked, whichever there are.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use ordermill::replay::{Options, Progress, rebuild};
use ordermill_pipeline::database;
use ordermill_store::replay::{NOT_IN_THE_LOG, tables};
use ordermill_store::verification;
use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;
use sqlx::types::Json;
use uuid::Uuid;

use super::violations;
use crate::replay::Traded;
use crate::support::Shop;

/// Another value of a column, in which one member is forged.
#[derive(Debug)]
struct Forgery {
    column: String,
    value: Value,
    /// Where the value is another: `state.charges[0].amount`.
    path: String,
    /// What is said of it.
    told: String,
}

/// All forgeries of a value at that path, which is a column or within one: of itself, and of whatever is in it. `whole`
/// makes the column's value of that at the path.
fn forge(column: &str, path: &str, value: &Value, whole: &dyn Fn(Value) -> Value, found: &mut Vec<Forgery>) {
    let mut add = |path: String, was: &Value, is: Value, value: Value| {
        let told = format!("{path} is {is}, but the log makes {was}");
        found.push(Forgery { column: column.to_owned(), value: whole(value), path, told });
    };
    match value {
        Value::Object(members) => {
            let with = |name: &str, member: Value| {
                let mut members = members.clone();
                members.insert(name.to_owned(), member);
                Value::Object(members)
            };
            add(format!("{path}.forged"), &Value::Null, json!(1), with("forged", json!(1)));
            for (name, member) in members {
                let whole = |member| whole(with(name, member));
                forge(column, &format!("{path}.{name}"), member, &whole, found);
            }
        }
        Value::Array(elements) => {
            let longer = Value::Array(elements.iter().cloned().chain([json!({"forged": 1})]).collect());
            add(path.to_owned(), value, longer.clone(), longer);
            for (index, element) in elements.iter().enumerate() {
                let whole = |element| {
                    let mut elements = elements.clone();
                    elements[index] = element;
                    whole(Value::Array(elements))
                };
                forge(column, &format!("{path}[{index}]"), element, &whole, found);
            }
        }
        Value::Null => add(path.to_owned(), value, json!({"forged": 1}), json!({"forged": 1})),
        Value::Bool(is_so) => add(path.to_owned(), value, json!(!is_so), json!(!is_so)),
        // One more or one less.
        Value::Number(number) => {
            let other = json!(number.as_i64().unwrap() ^ 1);
            add(path.to_owned(), value, other.clone(), other);
        }
        Value::String(text) => {
            let other = json!(another(text));
            add(path.to_owned(), value, other.clone(), other);
        }
    }
}

/// Another text of the same kind: what is cast to a type of the database must still be one.
fn another(text: &str) -> String {
    if text.parse::<Uuid>().is_ok() {
        return Uuid::new_v4().to_string();
    }
    match text.parse::<Timestamp>() {
        // As the database writes it.
        Ok(time) => (time + SignedDuration::from_secs(1)).to_string().replace('Z', "+00:00"),
        Err(_) => format!("{text}x"),
    }
}

/// A row that is forged in one place after the other.
struct Victim {
    table: &'static str,
    /// How a violation names it.
    name: String,
    /// Where it lies: as long as nobody else writes, that finds it whatever is forged.
    place: String,
    row: Map<String, Value>,
    forgeries: Vec<Forgery>,
}

impl Victim {
    /// Of a table's rows the one with the largest document, since it has the most members.
    async fn of(shop: &Shop, table: &'static str, key: &str) -> Victim {
        let (name, which) = match table {
            "sales" => ("'sales ALL at ' || bucket || ': '".to_owned(), "level = 'ALL'"),
            _ => (format!("'{table} ' || {key} || ': '"), "true"),
        };
        let columns = columns(shop, table).await;
        let select = format!(
            "SELECT {name}, ctid::text,
                 (SELECT jsonb_object_agg(key, value) FROM jsonb_each(to_jsonb(t)) WHERE key = ANY($1))
             FROM {table} AS t WHERE {which}
             ORDER BY length(to_jsonb(t)::text) DESC, {key} LIMIT 1"
        );
        let (name, place, Json(row)): (String, String, Json<Map<String, Value>>) =
            sqlx::query_as(AssertSqlSafe(select)).bind(&columns).fetch_one(&shop.pool).await.unwrap();
        assert_eq!(row.len(), columns.len(), "{name}");
        let mut forgeries = Vec::new();
        for (column, value) in &row {
            forge(column, column, value, &|value| value, &mut forgeries);
        }
        let mut victim = Victim { table, name, place, row, forgeries };
        if let Some(state) = victim.row.get("state").and_then(Value::as_object).cloned() {
            victim.add_members_of_others(shop, &state).await;
        }
        victim
    }

    /// Members of documents of the same table that this one has not.
    async fn add_members_of_others(&mut self, shop: &Shop, state: &Map<String, Value>) {
        let select = format!(
            "SELECT DISTINCT ON (name) name, value FROM {}, jsonb_each(state) AS member (name, value)
             WHERE value <> 'null' ORDER BY name",
            self.table
        );
        let members: Vec<(String, Json<Value>)> =
            sqlx::query_as(AssertSqlSafe(select)).fetch_all(&shop.pool).await.unwrap();
        for (name, Json(member)) in members.into_iter().filter(|(name, _)| !state.contains_key(name)) {
            let path = format!("state.{name}");
            let told = format!("{path} is {member}, but the log makes null");
            let mut forged = state.clone();
            forged.insert(name, member);
            self.forgeries.push(Forgery { column: "state".to_owned(), value: forged.into(), path, told });
        }
    }

    async fn set(&mut self, shop: &Shop, column: &str, value: &Value) {
        let table = self.table;
        let set = format!(
            "UPDATE {table} SET {column} = (jsonb_populate_record(NULL::{table}, $1)).{column}
             WHERE ctid = $2::tid RETURNING ctid::text"
        );
        let row = Json(json!({ column: value }));
        self.place = sqlx::query_scalar(AssertSqlSafe(set))
            .bind(row)
            .bind(&self.place)
            .fetch_one(&shop.pool)
            .await
            .unwrap();
    }

    /// Whether what is said in a line is that so much is forged.
    fn is_told(&self, forgery: &Forgery, line: &str) -> bool {
        let Some(told) = line.strip_prefix(&self.name) else { return false };
        match (self.table, forgery.path.as_str()) {
            // A row is looked for where its key says, and is missing there.
            (_, "key") => told.contains("not in the"),
            // Or perhaps met elsewhere.
            ("shipments", "state.order_id") => told == forgery.told || told.contains("not in the"),
            // The figures of a sum are missing under its own key.
            ("sales", "level" | "bucket" | "category" | "product_id") => {
                told.contains(" is 0, but the log makes ")
            }
            _ => told == forgery.told,
        }
    }
}

/// The rules of the tables would refuse most forgeries.
async fn drop_rules(shop: &Shop) {
    let rules: Vec<String> = sqlx::query_scalar(
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
         FROM pg_constraint WHERE conrelid::regclass::text = ANY($1) AND contype IN ('c', 'f', 'u')",
    )
    .bind(tables().map(|table| table.name).collect::<Vec<_>>())
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

/// The columns of a table that can be set and that the log knows; what is generated follows from them.
async fn columns(shop: &Shop, table: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER' AND column_name <> ALL($2)",
    )
    .bind(table)
    .bind(NOT_IN_THE_LOG.map(|(column, _)| column))
    .fetch_all(&shop.pool)
    .await
    .unwrap()
}

/// What `verify` and `replay --check` say of the shop, each difference with the row's name before it.
async fn told(shop: &Shop) -> [Vec<String>; 2] {
    let mut snapshot = database::begin(&shop.pool).await.unwrap();
    let now = Timestamp::now();
    let checks = verification::check_all(&mut snapshot, ordermill::verify::groups(), now).await.unwrap();
    snapshot.rollback().await.unwrap();
    let of_rebuild = checks.into_iter().filter(|check| ["rebuild", "sales"].contains(&check.name));
    let verified = of_rebuild.flat_map(|check| check.violations).collect();
    let options = Options { jobs: 2, check: true, until: None };
    let rebuilt = rebuild(&shop.connections.database_url, options, &Progress::default()).await.unwrap();
    [verified, rebuilt.found.differences.iter().map(ToString::to_string).collect()]
}

/// What is compared is what the tables have: nothing is left out but what is said to be.
async fn assert_all_are_compared(shop: &Shop, victims: &[Victim]) {
    let of_state = "SELECT table_name::text FROM information_schema.columns
        WHERE table_schema = 'public' AND column_name = 'state' AND data_type = 'jsonb' ORDER BY 1";
    let of_state: Vec<String> = sqlx::query_scalar(of_state).fetch_all(&shop.pool).await.unwrap();
    let mut compared: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Victim { table, row, .. } in victims {
        compared.insert(table, row.keys().map(String::as_str).collect());
    }
    assert_eq!(compared.len(), of_state.len() + 1, "sales are made again as well");
    for table in of_state {
        assert_eq!(compared[table.as_str()], ["bulk", "key", "state"], "{table}");
    }
    assert_eq!(NOT_IN_THE_LOG.map(|(column, _)| column), ["version"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_member_of_a_state_table_is_changed_by_hand_verify_and_replay_name_row_and_member() {
    let shop = Shop::new().await;
    Traded::in_shop(&shop).await;
    drop_rules(&shop).await;
    let mut victims = Vec::new();
    for table in tables() {
        victims.push(Victim::of(&shop, table.name, table.key[0]).await);
    }
    assert_all_are_compared(&shop, &victims).await;
    // A round forges one member of each table.
    loop {
        let mut forged: Vec<(&mut Victim, Forgery)> = Vec::new();
        for victim in &mut victims {
            if let Some(forgery) = victim.forgeries.pop() {
                victim.set(&shop, &forgery.column, &forgery.value).await;
                forged.push((victim, forgery));
            }
        }
        if forged.is_empty() {
            break;
        }
        for told in &told(&shop).await {
            for (victim, forgery) in &forged {
                let is_told = told.iter().any(|line| victim.is_told(forgery, line));
                assert!(is_told, "{}{}: {told:#?}", victim.name, forgery.told);
            }
        }
        for (victim, forgery) in forged {
            let original = victim.row[&forgery.column].clone();
            victim.set(&shop, &forgery.column, &original).await;
        }
    }
    assert_eq!(told(&shop).await, [Vec::<String>::new(), Vec::new()]);
    let report = shop.verify().await;
    assert!(report.ok, "{:#?}", violations(&report.checks));
}
