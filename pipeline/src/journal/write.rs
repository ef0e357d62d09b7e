//! The write: documents, events, projections and offsets, in one statement.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::statement::{Shortfall, Statement};

/// A document that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: &'static str,
    /// The key.
    pub key: Uuid,
    /// How often the row had been written when it was loaded; `None` where it was not found, so it is new.
    pub version: Option<i32>,
    /// The document as JSON.
    pub state: String,
    /// What stands apart; absent where it stays as it is.
    pub bulk: Option<String>,
}

/// What is made of the events that a statement writes, beside the documents: rows that no decision reads.
pub trait Projection: Send + Sync {
    /// Adds its parts.
    fn add(&self, statement: &mut Statement);
}

/// Adds the documents, table by table. Their rows are locked by the load; new ones come after whatever was locked.
pub(super) fn add_changes(statement: &mut Statement, changes: &[Change]) {
    let mut tables: BTreeMap<&str, (Vec<&Change>, Vec<&Change>)> = BTreeMap::new();
    for change in changes {
        let (new, known) = tables.entry(change.table).or_default();
        if change.version.is_some() { known.push(change) } else { new.push(change) }
    }
    for (table, (new, known)) in tables {
        if !known.is_empty() {
            let sql = update(statement, table, &known);
            statement.must(&format!("updated_{table}"), sql, known.len(), Shortfall::Conflict);
        }
        if !new.is_empty() {
            let sql = insert(statement, table, &new);
            statement.must(&format!("inserted_{table}"), sql, new.len(), Shortfall::Conflict);
        }
    }
}

fn update(statement: &mut Statement, table: &str, changes: &[&Change]) -> String {
    let (keys, states) = documents(statement, changes);
    let versions: Vec<i32> = changes.iter().map(|change| change.version.unwrap_or_default()).collect();
    let versions = statement.bind(versions);
    // A bulk that stays is the column itself, so that what is stored out of line is not written anew. Where all stay, nothing is
    // said of it: what is generated from it is not computed, either.
    let (set, of_bulks, named) = match bulks(statement, changes) {
        Some(bulks) => (", bulk = coalesce(i.bulk::jsonb, t.bulk)", format!(", {bulks}"), ", bulk"),
        None => ("", String::new(), ""),
    };
    format!(
        "UPDATE {table} AS t SET version = t.version + 1, state = i.state::jsonb{set}
         FROM unnest({keys}, {states}, {versions}::integer[]{of_bulks}) AS i (key, state, version{named})
         WHERE t.key = i.key AND t.version = i.version RETURNING 1"
    )
}

/// Without ON CONFLICT, which looks each key up first and writes a record more to the WAL: that somebody was faster is an error that
/// [`Unwritten::is_conflict`](super::Unwritten::is_conflict) knows.
fn insert(statement: &mut Statement, table: &str, changes: &[&Change]) -> String {
    let (keys, states) = documents(statement, changes);
    let bulks = bulks(statement, changes).unwrap_or_else(|| "NULL::text[]".to_owned());
    format!(
        "INSERT INTO {table} (key, version, state, bulk)
         SELECT key, 1, state::jsonb, bulk::jsonb FROM unnest({keys}, {states}, {bulks}) AS i (key, state, bulk)
         ORDER BY key RETURNING 1"
    )
}

fn documents(statement: &mut Statement, changes: &[&Change]) -> (String, String) {
    let keys: Vec<Uuid> = changes.iter().map(|change| change.key).collect();
    let states: Vec<&str> = changes.iter().map(|change| change.state.as_str()).collect();
    (format!("{}::uuid[]", statement.bind(keys)), format!("{}::text[]", statement.bind(states)))
}

/// Their bulks; `None` where no bulk is to be written.
fn bulks(statement: &mut Statement, changes: &[&Change]) -> Option<String> {
    let bulks: Vec<Option<&str>> = changes.iter().map(|change| change.bulk.as_deref()).collect();
    bulks.iter().any(Option::is_some).then(|| format!("{}::text[]", statement.bind(bulks)))
}
