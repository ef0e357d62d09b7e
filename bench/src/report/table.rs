//! How tables and figures are written.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanCount;

/// A table of figures by name, which stand to the right.
pub(crate) fn table<const N: usize>(
    what: &str,
    columns: [&str; N],
    rows: impl IntoIterator<Item = (impl ToString, [String; N])>,
) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([what].into_iter().chain(columns));
    for (name, cells) in rows {
        table.add_row([name.to_string()].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// With one decimal.
pub(crate) fn one(figure: f64) -> String {
    format!("{figure:.1}")
}

/// With two decimals.
pub(crate) fn two(figure: f64) -> String {
    format!("{figure:.2}")
}

/// A figure without decimals, its thousands set apart: `12,345`.
pub(crate) fn grouped(figure: f64) -> String {
    HumanCount(figure.max(0.0).round_ties_even() as u64).to_string()
}
