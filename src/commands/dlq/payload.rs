//! A payload as lines, with the failing place marked.

use ordermill_api::dead_letters::SchemaView;
use serde_json::Value;
use uuid::Uuid;

use crate::printable::printable;

/// What stands behind or below the failing place.
const MARK: &str = "<-- here";

/// The payload as lines that a terminal may show: JSON spread out, else as it is.
pub(super) fn lines(payload: &str, schema: &SchemaView) -> Vec<String> {
    if let Ok(value) = serde_json::from_str::<Value>(payload) {
        let mut lines: Vec<String> = format!("{value:#}").lines().map(printable).collect();
        if let Some(line) = schema.place.as_deref().and_then(|place| lines.get_mut(line_of(value, place)?)) {
            *line = format!("{line}  {MARK}");
        }
        return lines;
    }
    let mut lines: Vec<String> = payload.lines().map(printable).collect();
    if let (Some(line), Some(column)) = (schema.line, schema.column) {
        let text = payload.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let before = text.get(..column.saturating_sub(1)).unwrap_or(text);
        let indent = " ".repeat(printable(before).chars().count());
        lines.insert(line.min(lines.len()), format!("{indent}^ {MARK}"));
    }
    lines
}

/// The line on which a member begins when JSON is spread out, or where it is not there, the nearest that contains it.
fn line_of(mut value: Value, place: &str) -> Option<usize> {
    let mut member = &mut value;
    for part in place.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        let pointer = format!("/{part}");
        if member.pointer(&pointer).is_none() {
            break;
        }
        member = member.pointer_mut(&pointer)?;
    }
    // What stands before it stays, so the line does, too.
    let sign = Uuid::new_v4().to_string();
    *member = Value::from(sign.as_str());
    format!("{value:#}").lines().position(|line| line.contains(&sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(place: Option<&str>, line: Option<usize>, column: Option<usize>) -> SchemaView {
        let place = place.map(str::to_owned);
        SchemaView { ok: false, code: None, error: None, place, line, column }
    }

    fn marked(payload: &str, place: &str) -> String {
        let lines = lines(payload, &failing(Some(place), None, None));
        let marked: Vec<&String> = lines.iter().filter(|line| line.ends_with(MARK)).collect();
        assert_eq!(marked.len(), 1, "{lines:?}");
        marked[0].trim_end_matches(MARK).trim().to_owned()
    }

    #[test]
    fn json_is_spread_out_and_reads_back() {
        let payload = r#"{"lines":[{"quantity":2},{}],"empty":[],"name":"a\"b","total":1.5}"#;
        let whole = failing(None, None, None);
        let text = lines(payload, &whole).join("\n");
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(payload).unwrap());
        assert!(text.lines().count() > 5, "{text}");
        assert_eq!(lines("null", &whole), ["null"]);
    }

    #[test]
    fn the_failing_member_is_marked_or_what_it_is_missing_from() {
        let payload = r#"{"lines":[{"quantity":"two"},{"quantity":3}],"quantity":1}"#;
        assert_eq!(marked(payload, "lines[0].quantity"), r#""quantity": "two""#);
        assert_eq!(marked(payload, "quantity"), r#""quantity": 1"#);
        assert_eq!(marked(payload, "lines[1].product_id"), "{");
        assert_eq!(marked(payload, "."), "{");
        assert_eq!(marked(payload, "discount.PERCENT.value"), "{");
    }

    #[test]
    fn where_text_stops_being_json_a_caret_points() {
        let shown = lines("{\n  \"a\": oops}\n", &failing(None, Some(2), Some(8)));
        assert_eq!(shown, ["{", "  \"a\": oops}", &format!("       ^ {MARK}")]);
        assert_eq!(lines("", &failing(None, Some(1), Some(0))), [format!("^ {MARK}")]);
        let cut = lines("{\"후\":", &failing(None, Some(1), Some(99)));
        assert_eq!(cut.len(), 2);
    }

    #[test]
    fn nothing_in_a_payload_reaches_the_terminal_raw() {
        for payload in ["{\"\\u001b[2J\": \"\u{9b}31m\"}", "\u{1b}]0;title\u{7}"] {
            let shown = lines(payload, &failing(None, None, None));
            assert!(!shown.iter().any(|line| line.chars().any(char::is_control)), "{shown:?}");
        }
    }
}
