//! What was found, as a table.

use std::fmt;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use ordermill_pipeline::audit::Report;

/// A report for people.
pub(super) struct AsText<'a>(pub(super) &'a Report);

/// A table of the checks, then each violation on a line of its own.
impl fmt::Display for AsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header(["check", "ok", "checked", "violations", "note"]);
        for column in [2, 3] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for check in &self.0.checks {
            table.add_row([
                check.name.to_owned(),
                if check.ok { "yes" } else { "NO" }.to_owned(),
                check.checked.to_string(),
                check.violation_count.to_string(),
                check.note.clone().unwrap_or_default(),
            ]);
        }
        write!(f, "{table}")?;
        for check in self.0.checks.iter().filter(|check| !check.ok) {
            write!(f, "\n\n{}:", check.name)?;
            for violation in &check.violations {
                write!(f, "\n  {violation}")?;
            }
            let untold = check.violation_count - check.violations.len() as u64;
            if untold > 0 {
                write!(f, "\n  … and {untold} more")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use ordermill_pipeline::audit::{Check, SHOWN_MAX};

    use super::*;

    fn report() -> Report {
        let mut good = Check::new("balances");
        good.checked = 7;
        let mut bad = Check::new("stock");
        bad.checked = 400;
        for n in 0..SHOWN_MAX + 3 {
            bad.violation(format!("product {n}: on_hand is 1, but it should be 2"));
        }
        bad.note = Some("3 foreign records".to_owned());
        Report::new(vec![good, bad], Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_table_has_a_row_for_each_check_and_then_the_violations() {
        let text = AsText(&report()).to_string();
        let lines: Vec<&str> = text.lines().collect();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(cells(lines[2]), ["", "balances", "yes", "7", "0", "", ""]);
        assert_eq!(cells(lines[3]), ["", "stock", "NO", "400", "103", "3 foreign records", ""]);
        assert_eq!(lines[5..7], ["stock:", "  product 0: on_hand is 1, but it should be 2"]);
        assert_eq!(lines.last(), Some(&"  … and 3 more"));
    }

    #[test]
    fn the_json_has_the_shape_of_the_api() {
        let json: serde_json::Value = serde_json::to_value(report()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["at"], "1970-01-01T00:00:00Z");
        assert_eq!(json["checks"][0]["name"], "balances");
        assert_eq!(json["checks"][1]["checked"], 400);
        assert_eq!(json["checks"][1]["violations"].as_array().unwrap().len(), SHOWN_MAX);
    }
}
