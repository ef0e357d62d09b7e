//! Writes the generated documents, or with `--check` says which ones are not up to date.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use ordermill_schemas::documents::{self, Document};

fn main() -> ExitCode {
    let check = env::args().any(|argument| argument == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match run(&root, check) {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => {
            for path in stale {
                eprintln!("not up to date: {path}");
            }
            eprintln!("run: cargo run -p ordermill-schemas --bin generate");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("can't generate the documents: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes what differs, or only lists it; also lists schema files whose event type is gone.
fn run(root: &Path, check: bool) -> io::Result<Vec<String>> {
    let documents = documents::all().map_err(io::Error::other)?;
    let mut stale = orphans(root, &documents)?;
    for document in documents {
        let path = root.join(&document.path);
        if fs::read_to_string(&path).is_ok_and(|text| text == document.text) {
            continue;
        }
        if check {
            stale.push(document.path);
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, document.text)?;
    }
    Ok(stale)
}

fn orphans(root: &Path, documents: &[Document]) -> io::Result<Vec<String>> {
    let directory = root.join("schemas/json");
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let known: Vec<PathBuf> = documents.iter().map(|d| root.join(&d.path)).collect();
    let mut orphans = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if !known.contains(&path) {
            orphans.push(format!("{} (no such event type: delete it)", path.display()));
        }
    }
    Ok(orphans)
}
