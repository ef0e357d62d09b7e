//! `dlq edit`: another payload for a letter, from a file, from standard input, or from an editor.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ordermill_pipeline::dead_letters::edits;
use ordermill_pipeline::dead_letters::letters::WholeLetter;
use ordermill_stack::write_private;
use serde_json::Value;
use uuid::Uuid;

use super::changes::refused;
use super::desk::{Desk, actor};
use crate::output::print;
use crate::printable::printable;

/// The flags of `dlq edit`.
#[derive(Args, Clone, Debug)]
pub(super) struct EditArgs {
    /// The dead letter.
    dead_letter_id: Uuid,
    /// Takes the payload from this file, byte by byte.
    #[arg(long, conflicts_with = "stdin")]
    file: Option<PathBuf>,
    /// Takes the payload from standard input, byte by byte.
    #[arg(long)]
    stdin: bool,
}

/// Edits a letter.
pub(super) async fn edit(desk: &Desk, args: &EditArgs) -> Result<()> {
    let id = args.dead_letter_id;
    let letter = desk.letter(id).await?;
    let payload = match &args.file {
        Some(path) => std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?,
        None if args.stdin => read_stdin()?,
        None => match in_editor(&letter)? {
            Some(payload) => payload,
            None => return print("nothing was changed"),
        },
    };
    edits::edit(&desk.pool, id, &payload, &actor(), desk.now()).await.map_err(refused)?;
    let shape = match desk.letter(id).await?.mismatch {
        None => "it has the shape that the headers promise".to_owned(),
        Some(mismatch) => {
            format!("but it can't be applied so: {}: {}", mismatch.code.name(), printable(&mismatch.error))
        }
    };
    let told = format!("dead letter {id} has a payload of {} bytes now; {shape}", payload.len());
    desk.changed(id, &format!("{told}\nto apply it: ordermill dlq replay {id}")).await
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    // One byte more than is allowed tells that it is too many.
    let most = edits::PAYLOAD_MAX as u64 + 1;
    std::io::stdin().take(most).read_to_end(&mut payload).context("can't read the payload")?;
    Ok(payload)
}

/// Has somebody edit the payload; `None` where it was left as it is.
fn in_editor(letter: &WholeLetter) -> Result<Option<Vec<u8>>> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal for an editor: give --file or --stdin");
    }
    let editor = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR"));
    let editor = editor.ok().filter(|editor| !editor.trim().is_empty());
    let editor = editor.context("no editor is set: set EDITOR, or give --file or --stdin")?;
    let text = std::str::from_utf8(letter.payload.as_deref().unwrap_or_default())
        .context("the payload is not text: give --file or --stdin")?;
    let path = std::env::temp_dir().join(format!("ordermill-{}.json", Uuid::new_v4()));
    let before = spread_out(text);
    write_private(&path, &before)?;
    let edited = run_editor(&editor, &path);
    let _ = std::fs::remove_file(&path);
    let after = edited?;
    Ok((after != before.as_bytes()).then_some(after))
}

/// JSON in lines, which is easier to edit; what is none stays as it is.
fn spread_out(text: &str) -> String {
    let spread = serde_json::from_str::<Value>(text).and_then(|value| serde_json::to_string_pretty(&value));
    spread.map_or_else(|_| text.to_owned(), |spread| spread + "\n")
}

/// Runs the editor, a command line as a shell reads it, and answers what it has written.
fn run_editor(editor: &str, path: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path);
    let status = command.status().with_context(|| format!("can't run the editor {editor}"))?;
    if !status.success() {
        bail!("the editor {editor} ended with {status}, so nothing was changed");
    }
    std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_is_a_command_line_and_what_it_writes_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a payload.json");
        std::fs::write(&path, "{}").unwrap();
        let edited = run_editor("sed -i -e 's/{/{\"a\":1/'", &path).unwrap();
        assert_eq!(edited, br#"{"a":1}"#);
        assert!(run_editor("false", &path).unwrap_err().to_string().contains("nothing was changed"));
    }

    #[test]
    fn json_is_edited_in_lines_and_other_text_as_it_is() {
        assert_eq!(spread_out(r#"{"a":1}"#), "{\n  \"a\": 1\n}\n");
        assert_eq!(spread_out("{oops"), "{oops");
    }
}
