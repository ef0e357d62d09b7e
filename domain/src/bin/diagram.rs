//! Writes `docs/ORDER_STATES.md` from the table of transitions; with `--check` only compares.

use std::io;
use std::process::ExitCode;

use ordermill_domain::orders::{TRANSITIONS, diagram};
use ordermill_schemas::generated::{Document, write_or_check};

fn main() -> io::Result<ExitCode> {
    let document = Document { path: "docs/ORDER_STATES.md".to_owned(), text: document() };
    write_or_check(vec![document], Vec::new(), "cargo run -p ordermill-domain --bin diagram")
}

fn document() -> String {
    let rows: String = TRANSITIONS
        .iter()
        .map(|(from, event, to)| format!("| {from:?} | `{}` | {to:?} |\n", event.name()))
        .collect();
    format!(
        "# The life of an order\n\n\
         Generated from the one table of transitions in `domain/src/orders/status.rs` by\n\
         `cargo run -p ordermill-domain --bin diagram`; `make check` compares. A thick border means that the order\n\
         rests: nothing happens until somebody asks for it, and stock, balance and gateway are as the status says.\n\n\
         The API shows `Rejecting` as `PENDING`, and `ModificationApplying` and `ModificationRefusing` as `MODIFYING`.\n\n\
         ```mermaid\n{}```\n\n| From | Event | To |\n|---|---|---|\n{rows}",
        diagram()
    )
}
