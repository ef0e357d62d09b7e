//! The write: documents, events, projections and offsets, in one statement.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::statement::{Rows, Shortfall, Statement};

/// A document that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: &'static str,
    /// The key.
    pub key: Uuid,
    /// How often the row had been written when it was loaded; `None` where it was not found, so it is new.
    pub version: Option<i32>,
    /// Where that lies in the table.
    pub(super) place: Option<String>,
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

/// Adds the documents, table by table, in the order of their keys. Their rows are locked by the load; new ones come after whatever was
/// locked.
pub(super) fn add_changes(statement: &mut Statement, changes: &[Change]) {
    let mut tables: BTreeMap<&str, (Vec<&Change>, Vec<&Change>)> = BTreeMap::new();
    let mut changes: Vec<&Change> = changes.iter().collect();
    changes.sort_unstable_by_key(|change| change.key);
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
    // A bulk that stays is the column itself, so that what is stored out of line is not written anew. Where all stay, nothing is
    // said of it: what is generated from it is not computed, either.
    let any_bulk = changes.iter().any(|change| change.bulk.is_some());
    let set = if any_bulk { ", bulk = coalesce(i.bulk::json, t.bulk)" } else { "" };
    let rows = documents(statement, changes)
        .column("version", "integer", |c| c.version.unwrap_or_default())
        .column("place", "text", |c| c.place.as_deref());
    let rows = if any_bulk { rows.column("bulk", "text", |c| c.bulk.as_deref()) } else { rows };
    let rows = rows.relation("i");
    format!(
        "UPDATE {table} AS t SET version = t.version + 1, state = i.state::jsonb{set} FROM {rows}
         WHERE t.ctid = i.place::tid AND t.key = i.key AND t.version = i.version RETURNING 1"
    )
}

/// Without ON CONFLICT, which looks each key up first and writes a record more to the WAL: that somebody was faster is an error that
/// [`Unwritten::is_conflict`](super::Unwritten::is_conflict) knows.
fn insert(statement: &mut Statement, table: &str, changes: &[&Change]) -> String {
    let rows = documents(statement, changes).column("bulk", "text", |c| c.bulk.as_deref()).relation("i");
    format!(
        "INSERT INTO {table} (key, version, state, bulk)
         SELECT key, 1, state::jsonb, bulk::json FROM {rows} RETURNING 1"
    )
}

fn documents<'s, 'c>(statement: &'s mut Statement, changes: &'c [&'c Change]) -> Rows<'s, 'c, &'c Change> {
    let rows = statement.rows(changes);
    rows.column("key", "uuid", |c| c.key).column("state", "text", |c| c.state.as_str())
}
