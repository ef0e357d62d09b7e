//! The two files, and what a replay makes of the first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use ordermill_domain::sales::Sums;
use ordermill_pipeline::audit::{Applied, LoggedEvent, Slice};
use ordermill_schemas::{Event, Topic};
use ordermill_store::replay::{Fold, Page, tables};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::story::{Story, Told};

pub(crate) type Rows = BTreeMap<String, Value>;

/// What stands in the files.
pub(crate) struct Golden {
    pub(crate) log: Vec<LoggedEvent>,
    tables: BTreeMap<String, Rows>,
    /// What clients read of balances, oldest first.
    pub(crate) entries: Vec<Value>,
    pub(crate) sales: Vec<Value>,
    /// Up to which position the worker of orders has read.
    pub(crate) seen_by_orders: i64,
}

/// What a replay makes of the log.
#[derive(Default)]
pub(crate) struct Made {
    tables: BTreeMap<&'static str, Rows>,
    pub(crate) sales: Vec<Value>,
    pub(crate) undecodable: Vec<String>,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The position of an event of the golden log in a database, where each event is a segment of its own: its number is the position that
/// the golden log says.
fn first_of(segment: i64) -> i64 {
    segment * 100_000 + 1
}

impl Golden {
    pub(crate) fn read() -> Golden {
        let log = fs::read_to_string(path("log.jsonl")).unwrap();
        let documents: Value =
            serde_json::from_str(&fs::read_to_string(path("documents.json")).unwrap()).unwrap();
        Golden {
            log: log.lines().map(logged).collect(),
            tables: serde_json::from_value(documents["tables"].clone()).unwrap(),
            entries: serde_json::from_value(documents["entries"].clone()).unwrap(),
            sales: serde_json::from_value(documents["sales"].clone()).unwrap(),
            seen_by_orders: first_of(documents["seen_by_orders"].as_i64().unwrap()),
        }
    }

    pub(crate) fn write(story: &Story) {
        let mut log = String::new();
        for Told { position, event_id, at, event } in &story.log {
            let data: Value = serde_json::from_slice(&event.encode().unwrap()).unwrap();
            let (topic, name, version) = (event.topic().name(), event.name(), event.version());
            writeln!(
                log,
                r#"{{"position": {position}, "event_id": "{event_id}", "topic": "{topic}", "type": "{name}", "version": {version}, "at": "{at}", "data": {data}}}"#
            )
            .unwrap();
        }
        fs::write(path("log.jsonl"), log).unwrap();
        fs::write(path("documents.json"), documents(story)).unwrap();
    }

    /// What the worker of orders has applied.
    pub(crate) fn applied(&self) -> Applied {
        let topics = ["stock", "payments", "coupons", "products", "balances"];
        topics
            .into_iter()
            .fold(Applied::default(), |applied, topic| applied.and_upto(topic, 0, self.seen_by_orders))
    }

    /// A replay of the log without a database.
    pub(crate) fn fold(&self) -> Made {
        let (applied, all_sales) = (self.applied(), Applied::default().and_upto("orders", 0, i64::MAX));
        let mut made = Made::default();
        let fold = Fold::of_aggregates(Slice::ALL, &applied).with_sales(&all_sales);
        let fold =
            self.histories(fold, &mut made, |logged| Some(logged.event::<Event>().unwrap().aggregate_id()));
        made.add(&fold.into_totals().into_page().unwrap());
        self.histories(Fold::of_user_coupons(Slice::ALL, &applied), &mut made, user_coupon);
        made
    }

    fn histories<'a>(
        &self,
        mut fold: Fold<'a>,
        made: &mut Made,
        owner: impl Fn(&LoggedEvent) -> Option<Uuid>,
    ) -> Fold<'a> {
        let owned = self.log.iter().filter_map(|logged| Some((owner(logged)?, logged)));
        let mut owned: Vec<(Uuid, &LoggedEvent)> = owned.collect();
        owned.sort_by_key(|(owner, logged)| (*owner, logged.position));
        for (owner, logged) in owned {
            fold.take(owner, logged);
        }
        made.add(&fold.last_page());
        fold
    }

    pub(crate) fn rows(&self, table: &str) -> &Rows {
        &self.tables[table]
    }

    pub(crate) fn all_rows(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.tables
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(move |(key, row)| (table.as_str(), key.as_str(), row)))
    }
}

impl Made {
    fn add(&mut self, page: &Page) {
        for table in tables() {
            let rows = page.rows(table.name).unwrap().into_iter().map(|(key, row)| (key.to_string(), row));
            self.tables.entry(table.name).or_default().extend(rows);
        }
        self.sales.extend(page.sales());
        self.undecodable.extend(page.undecodable.iter().cloned());
    }

    pub(crate) fn rows(&self, table: &str) -> &Rows {
        &self.tables[table]
    }
}

/// The user's coupon whose history the event is of.
fn user_coupon(logged: &LoggedEvent) -> Option<Uuid> {
    let data: Value = serde_json::from_slice(&logged.data).unwrap();
    let is_of_one =
        ["coupon.issued", "coupon.applied", "coupon.returned", "coupon.expired", "coupon.revoked"];
    let id = [&data["user_coupon_id"], &data["terms"]["user_coupon_id"]].into_iter().find_map(Value::as_str);
    id.filter(|_| is_of_one.contains(&logged.event_type.as_str())).map(|id| id.parse().unwrap())
}

fn logged(line: &str) -> LoggedEvent {
    let line: Value = serde_json::from_str(line).unwrap();
    let text = |member: &str| line[member].as_str().unwrap().to_owned();
    LoggedEvent {
        position: first_of(line["position"].as_i64().unwrap()),
        event_id: text("event_id").parse().unwrap(),
        topic: text("topic"),
        partition: 0,
        event_type: text("type"),
        version: line["version"].as_i64().unwrap().try_into().unwrap(),
        at: text("at").parse().unwrap(),
        data: line["data"].to_string().into_bytes(),
    }
}

/// A row a line.
fn documents(story: &Story) -> String {
    let mut tables: BTreeMap<&str, Rows> = BTreeMap::new();
    for (noun, documents) in story.documents() {
        let parse = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let row = |(state, bulk): (String, Option<String>)| json!({"state": parse(&state), "bulk": bulk.as_deref().map(parse)});
        let rows = documents.into_iter().map(|(key, document)| (key.to_string(), row(document)));
        tables.insert(noun, rows.collect());
    }
    let time = |at: jiff::Timestamp| at.to_string().replace('Z', "+00:00");
    let mut sums = Sums::default();
    let of_orders = story.log.iter().filter(|told| told.event.topic() == Topic::Orders);
    of_orders.for_each(|told| sums.observe(&told.event, told.at));
    let sales = sums.changes().map(|(key, figures)| {
        let (level, category, product_id) = match &key.subject {
            ordermill_domain::sales::Subject::All => ("ALL", "", Uuid::nil()),
            ordermill_domain::sales::Subject::Category(category) => {
                ("CATEGORY", category.as_str(), Uuid::nil())
            }
            ordermill_domain::sales::Subject::Product { category, product_id } => {
                ("PRODUCT", category.as_str(), *product_id)
            }
        };
        json!({
            "level": level, "bucket": time(key.bucket), "category": category, "product_id": product_id,
            "quantity": figures.quantity, "revenue": figures.revenue, "orders": figures.orders,
        })
    });
    let of_table = |(name, rows): (&str, Rows)| {
        let rows: Vec<String> = rows.iter().map(|(key, row)| format!("\"{key}\": {row}")).collect();
        format!("\"{name}\": {{\n{}\n}}", rows.join(",\n"))
    };
    format!(
        "{{\"seen_by_orders\": {},\n\"tables\": {{\n{}\n}},\n\"entries\": [\n{}\n],\n\"sales\": [\n{}\n]}}\n",
        story.seen_by_orders,
        tables.into_iter().map(of_table).collect::<Vec<_>>().join(",\n"),
        story.entries.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n"),
        sales.map(|row| row.to_string()).collect::<Vec<_>>().join(",\n"),
    )
}

/// A value in a row that is no object and no list, and another one of its kind.
pub(crate) struct Leaf {
    /// As a difference names it.
    pub(crate) path: String,
    /// As a JSON pointer.
    pub(crate) pointer: String,
    pub(crate) forged: Value,
}

/// All of a row's.
pub(crate) fn leaves(row: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(row, String::new(), String::new(), &mut found);
    found
}

fn collect(value: &Value, path: String, pointer: String, found: &mut Vec<Leaf>) {
    let forged = match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(value, path, format!("{pointer}/{name}"), found);
            }
            return;
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                collect(value, format!("{path}[{index}]"), format!("{pointer}/{index}"), found);
            }
            return;
        }
        // What is null is the same as what is not there.
        Value::Null => return,
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_i64().unwrap() - 1),
        Value::String(text) if text.parse::<Uuid>().is_ok() => json!(Uuid::new_v4()),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => json!("2026-01-01T00:00:00+00:00"),
        Value::String(text) => json!(format!("{text}x")),
    };
    found.push(Leaf { path, pointer, forged });
}
