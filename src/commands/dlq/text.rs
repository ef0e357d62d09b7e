//! What a terminal is shown.

use std::io::Write as _;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use jiff::Timestamp;
use serde::Serialize;

use crate::printable::{is_harmful, printable};

/// How much of a text a table shows.
const CELL_LENGTH_MAX: usize = 70;

/// The beginning of a text, for a table.
pub(super) fn cell(text: Option<&str>) -> String {
    let text = text.unwrap_or_default();
    let mut shown = printable(text);
    if let Some((end, _)) = shown.char_indices().nth(CELL_LENGTH_MAX) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// A time to the second.
pub(super) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Prints JSON. It says the same, though harmful characters are written as their numbers.
pub(super) fn print_json(view: &impl Serialize) -> Result<()> {
    writeln!(std::io::stdout(), "{}", harmless_json(&serde_json::to_string_pretty(view)?))?;
    Ok(())
}

/// JSON holds such characters only inside of strings, where they may as well stand as escapes; those below U+0020 do
/// already, and a line feed is its own.
fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && is_harmful(character) {
            // None of them lies beyond U+FFFF.
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A table with that header.
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

/// Prints lines to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Prints a line to standard error, beside what programs read.
pub(super) fn note(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}")?;
    Ok(())
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
}
