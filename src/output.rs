//! What commands print.

use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use derive_more::Display;
use jiff::Timestamp;
use serde::Serialize;

use crate::printable::{is_harmful, printable};

/// How much of a text a table shows.
const CELL_LENGTH_MAX: usize = 70;

/// A column of a table: its title, and what it shows of a row.
pub(crate) type Column<T> = (&'static str, fn(&T) -> String);

/// A table with a row for each item. Columns of numbers alone stand to the right.
pub(crate) fn table<T>(items: &[T], columns: &[Column<T>]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(columns.iter().map(|(title, _)| *title));
    for item in items {
        table.add_row(columns.iter().map(|(_, show)| show(item)));
    }
    for (column, (_, show)) in table.column_iter_mut().zip(columns) {
        if items.iter().all(|item| show(item).parse::<i64>().is_ok()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// The beginning of a text, for a table.
pub(crate) fn cell(text: Option<&str>) -> String {
    let text = text.unwrap_or_default();
    let mut shown = printable(text);
    if let Some((end, _)) = shown.char_indices().nth(CELL_LENGTH_MAX) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// A time to the second.
pub(crate) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// The first of some lines, indented, and how many there are besides.
pub(crate) fn first_lines(shown: impl ExactSizeIterator<Item = impl ToString>, count: u64) -> String {
    let untold = count - shown.len() as u64;
    let rest = (untold > 0).then(|| format!("… and {untold} more"));
    shown.map(|line| line.to_string()).chain(rest).map(|line| format!("\n  {line}")).collect()
}

/// Prints what was found, as JSON or as text.
pub(crate) fn show(found: &impl Serialize, json: bool, text: impl FnOnce() -> String) -> Result<()> {
    if json { print_json(found) } else { print(&text()) }
}

/// What a process answers that was to look whether all is well: 0 where it is, else 1.
pub(crate) fn answer(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Prints JSON. It says the same, though harmful characters are written as their numbers.
fn print_json(view: &impl Serialize) -> Result<()> {
    print(&harmless_json(&serde_json::to_string_pretty(view)?))
}

/// JSON holds such characters only inside of strings, where they may as well stand as escapes; those below U+0020 do
/// already, and a line feed is its own.
fn harmless_json(json: &str) -> String {
    let shown = |character: char| match character {
        // None of them lies beyond U+FFFF.
        harmful if harmful != '\n' && is_harmful(harmful) => format!("\\u{:04x}", u32::from(harmful)),
        harmless => harmless.to_string(),
    };
    json.chars().map(shown).collect()
}

/// Prints lines to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// Writes to standard output, in one go: `head` may leave between two writes, and the second one would be a line feed alone. All commands
/// write here.
///
/// # Errors
/// [`ReaderGone`]; or where it can't be written, as on a disk that is full.
pub(crate) fn write(bytes: &[u8]) -> Result<()> {
    let mut out = stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        return Err(ReaderGone.into());
    }
    written.context("standard output can't be written: make room where it goes, or send it elsewhere")
}

/// Who read standard output through a pipe has closed it, as `head` does that has its lines. The command ends at its next write, without a
/// word, as SIGPIPE ends other programs.
#[derive(Debug, Display)]
#[display("nobody reads standard output any more")]
pub(crate) struct ReaderGone;

impl ReaderGone {
    /// 128 + SIGPIPE, as a shell shows a program that was ended so. It is none of the codes that tell what was found, since that was not told.
    pub(crate) const EXIT_CODE: u8 = 141;
}

impl std::error::Error for ReaderGone {}

/// Prints a line to standard error, beside what programs read. Where that is closed, nobody wants to know, and the work goes on.
pub(crate) fn note(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARMFUL: &str = "a\u{1b}[2Jb\nc\u{9b}d\u{202e}e";

    #[test]
    fn json_says_the_same_without_harm() {
        let json = harmless_json(&serde_json::to_string_pretty(&[HARMFUL]).unwrap());
        assert!(!json.replace('\n', "").chars().any(is_harmful), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [HARMFUL]);
    }

    #[test]
    fn a_cell_shows_the_beginning_of_a_long_text() {
        assert_eq!(cell(None), "");
        assert_eq!(cell(Some("후추")), "후추");
        let shown = cell(Some(&"추".repeat(500)));
        assert!(shown.ends_with('…') && shown.chars().count() == CELL_LENGTH_MAX + 1, "{shown}");
    }

    #[test]
    fn numbers_stand_to_the_right_and_texts_to_the_left() {
        let shown = table(
            &[(7, "a"), (100, "b")],
            &[("n", |(n, _)| n.to_string()), ("of", |(_, of)| of.to_string())],
        );
        let rows: Vec<&str> = shown.lines().skip(2).collect();
        assert_eq!(rows, ["|   7 | a  |", "| 100 | b  |"]);
    }
}
