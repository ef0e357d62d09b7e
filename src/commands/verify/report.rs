//! What was found, as a table.

use ordermill_pipeline::audit::Report;

use crate::output::{first_lines, table};

/// A table of the checks, then each violation on a line of its own.
pub(super) fn text(report: &Report) -> String {
    let mut text = table(
        &report.checks,
        &[
            ("check", |check| check.name.to_owned()),
            ("ok", |check| if check.ok { "yes" } else { "NO" }.to_owned()),
            ("checked", |check| check.checked.to_string()),
            ("violations", |check| check.violation_count.to_string()),
            ("note", |check| check.note.clone().unwrap_or_default()),
        ],
    );
    for check in report.checks.iter().filter(|check| !check.ok) {
        text +=
            &format!("\n\n{}:{}", check.name, first_lines(check.violations.iter(), check.violation_count));
    }
    text
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
        let text = text(&report());
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
