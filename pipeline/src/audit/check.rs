//! What a check found.

use serde::Serialize;

/// How many violations of one check are told; the rest is counted.
pub const SHOWN_MAX: usize = 100;

/// One question to the system, with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether everything was as it should be.
    pub ok: bool,
    /// How many things were looked at.
    pub checked: u64,
    /// How many of them are not as they should be.
    pub violation_count: u64,
    /// The first of those, [`SHOWN_MAX`] at most: one line each, which names the row and both figures.
    pub violations: Vec<String>,
    /// What else is worth knowing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Violations as a query finds them: each row has a text and how many there are in all, so that the query
/// can be cut off at [`SHOWN_MAX`].
#[derive(Debug)]
pub struct Found {
    /// One violation.
    pub text: String,
    /// How many the query found.
    pub total: i64,
}

impl Check {
    /// A check that has not looked at anything yet.
    #[must_use]
    pub fn new(name: &'static str) -> Check {
        Check { name, ok: true, checked: 0, violation_count: 0, violations: Vec::new(), note: None }
    }

    /// Counts a violation, and keeps its text if there is still room.
    pub fn violation(&mut self, text: impl Into<String>) {
        self.violations_beyond(1);
        if self.violations.len() < SHOWN_MAX {
            self.violations.push(text.into());
        }
    }

    /// Counts what a query has found.
    pub fn found(&mut self, found: Vec<Found>) {
        let total = found.first().map_or(0, |found| u64::try_from(found.total).unwrap_or(0));
        let told = found.len() as u64;
        for Found { text, .. } in found {
            self.violation(text);
        }
        self.violations_beyond(total.saturating_sub(told));
    }

    /// Counts violations whose texts are not told.
    pub fn violations_beyond(&mut self, count: u64) {
        self.violation_count += count;
        self.ok = self.violation_count == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_counted_but_only_the_first_hundred_are_told() {
        let mut check = Check::new("cups");
        for n in 0..250 {
            check.violation(n.to_string());
        }
        assert_eq!((check.ok, check.violation_count, check.violations.len()), (false, 250, SHOWN_MAX));
        assert_eq!(check.violations[99], "99");
    }

    #[test]
    fn what_a_query_found_beyond_its_limit_is_counted() {
        let mut check = Check::new("cups");
        check.found(Vec::new());
        assert!(check.ok);
        check.found(vec![
            Found { text: "one".to_owned(), total: 7 },
            Found { text: "two".to_owned(), total: 7 },
        ]);
        assert_eq!((check.ok, check.violation_count), (false, 7));
        assert_eq!(check.violations, ["one", "two"]);
    }

    #[test]
    fn a_check_reads_as_the_api_says() {
        let mut check = Check::new("cups");
        check.checked = 3;
        let json = serde_json::to_value(&check).unwrap();
        let expected = serde_json::json!({
            "name": "cups", "ok": true, "checked": 3, "violation_count": 0, "violations": [],
        });
        assert_eq!(json, expected);
    }
}
