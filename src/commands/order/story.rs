//! The events of an order as lines of a table, each with what belongs to it below.

use std::fmt::Write as _;

use jiff::Timestamp;
use ordermill_api::{DeadLetter, Gateway, GatewayAttempt, TimelineEvent};
use serde_json::Value;

use crate::printable::printable;

const TITLES: [&str; 8] =
    ["#", "time", "+ms", "event", "actor", "position", "topic/partition@offset", "cause"];
/// The columns of numbers, which stand to the right.
const NUMBERS: [usize; 3] = [0, 2, 5];
/// What stands before a line that belongs to the event above it.
const INDENT: &str = "      ";
/// Members of a payload that say in words why or what.
const WORDS: [&str; 4] = ["reason", "tracking_number", "shipment_id", "user_coupon_id"];

type Cells = [String; TITLES.len()];

/// How much of the story was told.
#[derive(Debug)]
pub(super) struct Story {
    told: usize,
    began_at: Option<Timestamp>,
    widths: [usize; TITLES.len()],
}

impl Default for Story {
    fn default() -> Story {
        Story { told: 0, began_at: None, widths: TITLES.map(str::len) }
    }
}

impl Story {
    /// The lines of what was not told before, with the titles before the first.
    pub(super) fn next(&mut self, items: &[TimelineEvent]) -> String {
        let new = items.get(self.told..).unwrap_or_default();
        let rows: Vec<(Cells, Vec<String>)> =
            new.iter().map(|item| (self.cells(item, items), details(item))).collect();
        for (cells, _) in &rows {
            for (width, cell) in self.widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if self.told == 0 {
            self.line(&mut text, &TITLES.map(str::to_owned));
        }
        self.told += new.len();
        for (cells, details) in rows {
            self.line(&mut text, &cells);
            for detail in details {
                let _ = writeln!(text, "{INDENT}{detail}");
            }
        }
        text
    }

    fn line(&self, text: &mut String, cells: &Cells) {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            let _ = if NUMBERS.contains(&index) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }

    fn cells(&mut self, item: &TimelineEvent, items: &[TimelineEvent]) -> Cells {
        let began_at = *self.began_at.get_or_insert(item.at);
        let place = match &item.kafka {
            Some(kafka) => format!("{}/{}@{}", kafka.topic, kafka.partition, kafka.offset),
            None if item.published => format!("{}/{}@?", item.topic, item.partition),
            None => format!("{}/{}, not yet sent", item.topic, item.partition),
        };
        let cause = item.cause_sequence.and_then(|sequence| items.iter().find(|e| e.sequence == sequence));
        let cause = match (cause, item.cause_id) {
            (Some(cause), _) => format!("#{} {}", cause.sequence, cause.r#type),
            (None, Some(elsewhere)) => elsewhere.to_string(),
            (None, None) => String::new(),
        };
        [
            item.sequence.to_string(),
            item.at.strftime("%Y-%m-%d %H:%M:%S.%3f").to_string(),
            item.at.duration_since(began_at).as_millis().to_string(),
            printable(&item.r#type),
            printable(&item.actor),
            item.log_position.to_string(),
            printable(&place),
            printable(&cause),
        ]
    }
}

/// What belongs to an event, a line each.
fn details(item: &TimelineEvent) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(request) = &item.request {
        let route = request.route.unwrap_or("a request");
        let trace = item.trace_id.as_deref().map(|id| format!(", trace {id}")).unwrap_or_default();
        lines.push(format!("request {}: {route}{trace}", request.request_id));
    }
    lines.extend(words(&item.data));
    if let Some(gateway) = &item.gateway {
        lines.extend(calls(gateway));
    }
    if let Some(entry) = &item.balance_entry {
        lines.push(format!("balance: {} {}, {} after it", entry.kind, entry.amount, entry.balance_after));
    }
    lines.extend(item.dead_letter.iter().chain(&item.put_aside).map(dead));
    if !item.read_by.is_empty() {
        lines.push(format!("done with it: {}", item.read_by.join(", ")));
    }
    lines.iter().map(|line| printable(line)).collect()
}

/// What the payload says for people.
fn words(data: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(failure) = data.get("failure").filter(|failure| failure.is_object()) {
        let text = |name| failure.get(name).and_then(Value::as_str).unwrap_or_default();
        lines.push(format!("failure: {}, {}", text("code"), text("detail")));
    }
    for name in WORDS {
        if let Some(text) = data.get(name).and_then(Value::as_str) {
            lines.push(format!("{}: {text}", name.replace('_', " ")));
        }
    }
    lines
}

fn calls(gateway: &Gateway) -> Vec<String> {
    let ids = |ids: &[uuid::Uuid]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = vec![format!("gateway: charge {}", ids(&gateway.charge_ids))];
    if !gateway.refund_ids.is_empty() {
        lines.push(format!("gateway: refund {}", ids(&gateway.refund_ids)));
    }
    for (number, attempt) in (1..).zip(&gateway.attempts) {
        let GatewayAttempt { at, call, outcome, took_ms } = attempt;
        let at = at.strftime("%H:%M:%S.%3f");
        lines.push(format!("gateway: attempt {number} at {at}: {call} {outcome}, {took_ms} ms"));
    }
    lines
}

fn dead(dead_letter: &DeadLetter) -> String {
    let DeadLetter { dead_letter_id, group, kafka, code, error, attempts, state, .. } = dead_letter;
    let place = format!("{}/{}@{}", kafka.topic, kafka.partition, kafka.offset);
    let why = match (code, error) {
        (Some(code), Some(error)) => format!("{attempts} attempts: {code}, {error}"),
        _ => "it waits behind another".to_owned(),
    };
    format!("dead letter {dead_letter_id}: {state}, {group} has not applied {place}, {why}")
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
