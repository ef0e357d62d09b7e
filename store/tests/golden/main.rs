//! A log with the documents that it makes, both checked in: what is folded is compared with something else than itself.
//!
//! `log.jsonl` has an event a line, `documents.json` a row a line: documents by noun and key, entries of balances, sums
//! of sales, and up to which position the worker of orders has read. Both were written once by `story.rs`, which drives the
//! deciders through a shop's day, and then read through. The documents are those that the deciders had in memory when
//! they decided, with answers read in another order than the log's; a replay had no part in them.
//!
//! A log that was written once is there for good. So a failure here means that a program of today makes other state of
//! it than the one that decided. Where that is wanted, existing tables have to be migrated as well; then, and for new
//! kinds of events, write both anew and look at what differs:
//! `cargo test -p ordermill-store --test golden -- --ignored write_the_golden_files`

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;
mod leases;
mod story;
mod tables;

use ordermill_schemas::{CATALOGUE, Event};
use ordermill_store::replay::Difference;
use serde_json::{Value, json};

use golden::{Golden, leaves};
use story::Told;

#[test]
fn the_golden_log_makes_the_golden_documents_field_by_field() {
    let golden = Golden::read();
    let made = golden.fold();
    assert!(made.undecodable.is_empty(), "{:?}", made.undecodable);
    let mut differences = Vec::new();
    for table in ordermill_store::replay::tables().filter(|table| table.name != "sales") {
        let (expected, made) = (golden.rows(table.name), made.rows(table.name));
        assert!(!expected.is_empty(), "the golden log has no {}", table.name);
        for key in expected.keys().chain(made.keys().filter(|key| !expected.contains_key(*key))) {
            differences.extend(Difference::between(table.name, key, expected.get(key), made.get(key)));
        }
    }
    let told: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:#?}");
    assert_eq!(made.sales, golden.sales);
}

#[test]
fn whatever_is_changed_in_a_golden_document_is_named_with_its_row_and_its_path() {
    let golden = Golden::read();
    for (table, key, row) in golden.all_rows() {
        for leaf in leaves(row) {
            let mut forged = row.clone();
            *forged.pointer_mut(&leaf.pointer).unwrap() = leaf.forged;
            let difference = Difference::between("forged", key, Some(&forged), Some(row)).unwrap();
            let told = serde_json::to_value(&difference).unwrap();
            assert_eq!(told["columns"].as_array().map(Vec::len), Some(1), "{table}: {difference}");
            assert_eq!((&told["row"], &told["columns"][0]["column"]), (&json!(key), &Value::from(leaf.path)));
        }
    }
}

/// Workers may be handed an event as it was decided upon.
#[test]
fn an_event_is_read_as_it_was_written() {
    for Told { event, .. } in story::tell().log {
        let data = event.encode().unwrap();
        assert_eq!(Event::decode(event.name(), event.version(), &data).unwrap(), event);
    }
}

#[test]
fn the_golden_log_has_an_event_of_every_type() {
    let golden = Golden::read();
    for known in CATALOGUE {
        let is_there = golden.log.iter().any(|logged| logged.event_type == known.name);
        assert!(is_there, "the golden log has no {}", known.name);
    }
}

#[test]
#[ignore = "writes both files anew"]
fn write_the_golden_files() {
    Golden::write(&story::tell());
}
