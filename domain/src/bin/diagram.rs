//! Writes `docs/ORDER_STATES.md` from the table of transitions; with `--check` only compares.

use std::path::Path;
use std::process::ExitCode;

use ordermill_domain::orders::{TRANSITIONS, diagram};

fn main() -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ORDER_STATES.md");
    let text = document();
    if std::env::args().any(|argument| argument == "--check") {
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return ExitCode::SUCCESS;
        }
        eprintln!("docs/ORDER_STATES.md is not up to date: cargo run -p ordermill-domain --bin diagram");
        return ExitCode::FAILURE;
    }
    match std::fs::write(&path, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("docs/ORDER_STATES.md can't be written: {error}");
            ExitCode::FAILURE
        }
    }
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
