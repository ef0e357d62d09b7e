//! What a replay brought, as tables or as JSON.

use std::fmt;

use jiff::Timestamp;
use ordermill_store::replay::Difference;
use ordermill_store::replay::shadow::TableSummary;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::output::{first_lines, table};
use crate::replay::{Options, Rebuilt};

/// What a replay brought.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether every event could be read, and nothing differs where that was looked at.
    pub(super) ok: bool,
    /// Up to when it was replayed; to the end where that is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    jobs: u32,
    events: u64,
    seconds: f64,
    events_per_s: f64,
    tables: Vec<TableSummary>,
    /// Where it was compared.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
    undecodable_count: u64,
    undecodable: Vec<String>,
}

/// What the comparison with the live tables brought.
#[derive(Debug, Serialize)]
struct Compared {
    rows: u64,
    difference_count: u64,
    differences: Vec<Difference>,
}

impl Report {
    pub(super) fn of(options: Options, rebuilt: Rebuilt) -> Report {
        let Rebuilt { events, took, tables, found, undecodable } = rebuilt;
        let seconds = took.as_secs_f64();
        let events_per_s = events as f64 / seconds.max(f64::EPSILON);
        let compared = options.check.then_some(Compared {
            rows: found.rows,
            difference_count: found.count,
            differences: found.differences,
        });
        Report {
            ok: found.count == 0 && undecodable.count == 0,
            at: options.until,
            jobs: options.jobs,
            events,
            seconds,
            events_per_s,
            tables,
            compared,
            undecodable_count: undecodable.count,
            undecodable: undecodable.shown,
        }
    }
}

/// A table of the tables, the rate, then each difference on a line of its own.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = table(
            &self.tables,
            &[
                ("table", |summary| summary.table.to_owned()),
                ("rows", |summary| summary.rows.to_string()),
                ("by state", |summary| listed(summary.by_state.iter().map(|(state, rows)| (rows, state)))),
                ("sums", |summary| listed(&summary.sums)),
            ],
        );
        writeln!(f, "{table}\n")?;
        let Report { events, seconds, events_per_s, .. } = self;
        write!(f, "{events} events in {seconds:.1} s, {events_per_s:.0}/s")?;
        if let Some(at) = self.at {
            write!(f, "; as of {at}")?;
        }
        if let Some(Compared { rows, difference_count, differences }) = &self.compared {
            write!(f, "\n{rows} rows of the live tables compared, {difference_count} differ")?;
            f.write_str(&first_lines(differences.iter(), *difference_count))?;
        }
        if self.undecodable_count > 0 {
            write!(f, "\n{} events could not be read", self.undecodable_count)?;
            f.write_str(&first_lines(self.undecodable.iter(), self.undecodable_count))?;
        }
        Ok(())
    }
}

fn listed<A: fmt::Display, B: fmt::Display>(pairs: impl IntoIterator<Item = (A, B)>) -> String {
    pairs.into_iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>().join(", ")
}

/// One aggregate as it was.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) at: Timestamp,
    pub(super) aggregate: String,
    pub(super) state: Map<String, Value>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let members: Vec<_> = self.state.iter().map(|(member, value)| (member, text(value))).collect();
        let table = table(
            &members,
            &[("member", |(member, _)| (*member).clone()), ("value", |(_, value)| value.clone())],
        );
        write!(f, "{} as of {}\n\n{table}", self.aggregate, self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ordermill_store::replay::compare::Found;
    use ordermill_store::replay::{Column, What};
    use serde_json::json;

    use super::*;
    use crate::replay::Undecodable;

    fn rebuilt(count: u64) -> Rebuilt {
        let column = Column { column: "total".to_owned(), live: json!(1), log: json!(2) };
        let difference =
            Difference { table: "orders", row: "7".to_owned(), what: What::Columns(vec![column]) };
        Rebuilt {
            events: 900,
            took: Duration::from_secs(3),
            tables: vec![TableSummary {
                table: "orders",
                rows: 5,
                by_state: [("CONFIRMED".to_owned(), 5)].into(),
                sums: [("total".to_owned(), json!(70))].into(),
            }],
            found: Found { rows: 5, count, differences: vec![difference; usize::from(count > 0)] },
            undecodable: Undecodable::default(),
        }
    }

    fn report(check: bool, count: u64) -> Report {
        Report::of(Options { jobs: 2, check, until: None }, rebuilt(count))
    }

    #[test]
    fn the_table_has_a_row_for_each_table_and_the_rate_follows() {
        let text = report(false, 0).to_string();
        assert!(text.contains("| orders | "), "{text}");
        assert!(text.contains("5 CONFIRMED") && text.contains("total 70"), "{text}");
        assert!(text.ends_with("900 events in 3.0 s, 300/s"), "{text}");
    }

    #[test]
    fn each_difference_is_a_line_and_what_is_not_told_is_counted() {
        let text = report(true, 3).to_string();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        assert_eq!(
            lines,
            [
                "  … and 2 more",
                "  orders 7: total is 1, but the log makes 2",
                "5 rows of the live tables compared, 3 differ"
            ]
        );
    }

    #[test]
    fn the_json_says_whether_all_is_well_and_names_both_values() {
        assert_eq!(serde_json::to_value(report(true, 0)).unwrap()["ok"], true);
        let json = serde_json::to_value(report(true, 1)).unwrap();
        assert_eq!((&json["ok"], &json["difference_count"]), (&json!(false), &json!(1)));
        assert_eq!(json["differences"][0]["columns"][0]["log"], 2);
        assert_eq!(json["events_per_s"], 300.0);
        assert!(serde_json::to_value(report(false, 0)).unwrap().get("differences").is_none());
    }
}
