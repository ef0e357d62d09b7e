//! A payload as lines, with the failing place marked.

use ordermill_api::dead_letters::SchemaView;
use serde_json::Value;

use crate::printable::printable;

/// What stands behind or below the failing place.
const MARK: &str = "<-- here";

/// The payload as lines that a terminal may show: JSON spread out, else as it is.
pub(super) fn lines(payload: &str, schema: &SchemaView) -> Vec<String> {
    if let Ok(value) = serde_json::from_str::<Value>(payload) {
        let mut spread = Vec::new();
        spread_out(&value, String::new(), "", 0, &mut spread);
        if let Some(place) = schema.place.as_deref() {
            mark_member(&mut spread, place);
        }
        return spread.into_iter().map(|line| line.text).collect();
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

/// A line and the member that begins on it, named as errors name it; empty for the whole, none for a closing bracket.
struct Line {
    member: Option<String>,
    text: String,
}

/// Writes a value from `lead` on, which is the name of the member, if it is one.
fn spread_out(value: &Value, member: String, lead: &str, depth: usize, lines: &mut Vec<Line>) {
    let indent = "  ".repeat(depth);
    let (open, close, parts): (_, _, Vec<(String, String, &Value)>) = match value {
        Value::Object(members) if !members.is_empty() => {
            let dot = if member.is_empty() { "" } else { "." };
            let part = |(name, value)| {
                let lead = format!("{}: ", Value::from(name as &str));
                (format!("{member}{dot}{name}"), lead, value)
            };
            ('{', '}', members.iter().map(|(name, value)| part((name.as_str(), value))).collect())
        }
        Value::Array(items) if !items.is_empty() => {
            let part = |(index, value)| (format!("{member}[{index}]"), String::new(), value);
            ('[', ']', items.iter().enumerate().map(part).collect())
        }
        _ => {
            let text = printable(&format!("{indent}{lead}{value}"));
            lines.push(Line { member: Some(member), text });
            return;
        }
    };
    lines.push(Line { member: Some(member.clone()), text: printable(&format!("{indent}{lead}{open}")) });
    let last = parts.len() - 1;
    for (index, (member, lead, value)) in parts.into_iter().enumerate() {
        spread_out(value, member, &lead, depth + 1, lines);
        if let Some(line) = lines.last_mut().filter(|_| index < last) {
            line.text.push(',');
        }
    }
    lines.push(Line { member: None, text: format!("{indent}{close}") });
}

/// Marks the line of a member, or where it is not there, of the nearest that contains it.
fn mark_member(lines: &mut [Line], place: &str) {
    let mut wanted = if place == "." { "" } else { place };
    loop {
        if let Some(line) = lines.iter_mut().find(|line| line.member.as_deref() == Some(wanted)) {
            line.text = format!("{}  {MARK}", line.text);
            return;
        }
        if wanted.is_empty() {
            return;
        }
        wanted = wanted.rfind(['.', '[']).map_or("", |end| &wanted[..end]);
    }
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
