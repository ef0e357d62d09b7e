//! The write: documents, events, projections and offsets, in one statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::load::{Loaded, Version};
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
    pub(super) place: Option<Arc<str>>,
    /// The document as JSON.
    pub state: String,
    /// What stands apart; absent where it stays as it is.
    pub bulk: Option<String>,
}

/// Says that the row `t` is the one of `i`, as it was. It is found by its key: PostgreSQL clears the dead versions of rows from a page when it comes
/// there by an index, and makes room for the next ones. Where it comes there by `ctid` alone it does not, and each version goes to another
/// page, with an entry in every index, which costs more than all else of the update.
const IS_THE_ONE: &str = "t.key = i.key AND t.version = i.version AND (t.ctid = i.place::tid) IS TRUE";

/// What is made of the events that a statement writes, beside the documents: rows that no decision reads.
pub trait Projection: Send + Sync {
    /// Adds its parts.
    fn add(&self, statement: &mut Statement);
}

/// Adds the documents, table by table in the order of locks, and in that of their keys. What was not locked by a load is checked.
pub(super) fn add_changes(statement: &mut Statement, loaded: &Loaded, changes: &[Change]) {
    let rank = |name: &'static str| (loaded.tables.iter().position(|table| table.name == name), name);
    let mut of_tables: BTreeMap<(Option<usize>, &'static str), Vec<&Change>> = BTreeMap::new();
    if loaded.is_recalled {
        for (table, _) in loaded.versions.keys().chain(&loaded.taken_for_absent) {
            of_tables.entry(rank(table)).or_default();
        }
    }
    for change in changes {
        of_tables.entry(rank(change.table)).or_default().push(change);
    }
    for ((_, table), mut changes) in of_tables {
        changes.sort_unstable_by_key(|change| change.key);
        check(statement, loaded, table, &changes);
        let (known, new): (Vec<&Change>, Vec<&Change>) =
            changes.into_iter().partition(|change| change.version.is_some());
        if !known.is_empty() {
            let sql = update(statement, table, &known);
            statement.documents(&format!("updated_{table}"), sql, table, known.len());
        }
        if !new.is_empty() {
            let sql = insert(statement, table, &new);
            statement.documents(&format!("inserted_{table}"), sql, table, new.len());
        }
    }
}

/// Of what was decided from without locks, checks what is not written: that rows are as they are remembered, and that what is taken
/// to be absent is.
fn check(statement: &mut Statement, loaded: &Loaded, table: &'static str, changes: &[&Change]) {
    if !loaded.is_recalled {
        return;
    }
    let is_written = |key: Uuid| changes.binary_search_by_key(&key, |change| change.key).is_ok();
    let mut unchanged: Vec<(Uuid, &Version)> = loaded
        .versions
        .iter()
        .filter(|((of, key), _)| *of == table && !is_written(*key))
        .map(|((_, key), version)| (*key, version))
        .collect();
    unchanged.sort_unstable_by_key(|(key, _)| *key);
    if !unchanged.is_empty() {
        let rows = statement
            .rows(&unchanged)
            .column("key", "uuid", |(key, _)| *key)
            .column("version", "integer", |(_, version)| version.number)
            .column("place", "text", |(_, version)| &*version.place)
            .relation("i");
        let sql = format!("SELECT 1 FROM {rows}, {table} AS t WHERE {IS_THE_ONE} FOR NO KEY UPDATE OF t");
        statement.must(&format!("unchanged_{table}"), sql, unchanged.len(), Shortfall::Conflict);
    }
    let absent: Vec<Uuid> = loaded
        .taken_for_absent
        .iter()
        .filter(|(of, key)| *of == table && !is_written(*key))
        .map(|(_, key)| *key)
        .collect();
    if !absent.is_empty() {
        let absent = statement.bind(absent);
        let sql = format!("SELECT 1 FROM {table} WHERE key = ANY({absent}::uuid[])");
        statement.must(&format!("absent_{table}"), sql, 0, Shortfall::Conflict);
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
         WHERE {IS_THE_ONE} RETURNING t.key, t.ctid"
    )
}

/// Without ON CONFLICT, which looks each key up first and writes a record more to the WAL: that somebody was faster is an error that
/// [`Unwritten::is_conflict`](super::Unwritten::is_conflict) knows.
fn insert(statement: &mut Statement, table: &str, changes: &[&Change]) -> String {
    let rows = documents(statement, changes).column("bulk", "text", |c| c.bulk.as_deref()).relation("i");
    format!(
        "INSERT INTO {table} (key, version, state, bulk)
         SELECT key, 1, state::jsonb, bulk::json FROM {rows} RETURNING key, ctid"
    )
}

fn documents<'s, 'c>(statement: &'s mut Statement, changes: &'c [&'c Change]) -> Rows<'s, 'c, &'c Change> {
    let rows = statement.rows(changes);
    rows.column("key", "uuid", |c| c.key).column("state", "text", |c| c.state.as_str())
}
