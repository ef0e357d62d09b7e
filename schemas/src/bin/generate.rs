//! Writes the generated documents, or with `--check` says which ones are not up to date.

use std::process::ExitCode;
use std::{fs, io};

use ordermill_schemas::documents;
use ordermill_schemas::generated::{Document, root, write_or_check};

fn main() -> io::Result<ExitCode> {
    let documents = documents::all()?;
    let orphans = orphans(&documents)?;
    write_or_check(documents, orphans, "cargo run -p ordermill-schemas --bin generate")
}

/// Schema files whose event type is gone.
fn orphans(documents: &[Document]) -> io::Result<Vec<String>> {
    let mut orphans = Vec::new();
    for entry in fs::read_dir(root().join("schemas/json"))? {
        let path = entry?.path();
        if !documents.iter().any(|document| root().join(&document.path) == path) {
            orphans.push(format!("{} (no such event type: delete it)", path.display()));
        }
    }
    Ok(orphans)
}
