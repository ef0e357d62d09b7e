//! How a row differs from what the log makes of it.

use std::collections::BTreeMap;

use ordermill_pipeline::audit::Check;
use serde::Serialize;
use uuid::Uuid;

/// The fields of one row that are not what they should be.
#[must_use]
pub(super) struct Difference {
    row: (&'static str, Uuid),
    fields: Vec<String>,
}

impl Difference {
    /// Nothing yet, in the row of that key.
    pub(super) fn of(table: &'static str, key: Uuid) -> Difference {
        Difference { row: (table, key), fields: Vec::new() }
    }

    /// Compares a field.
    pub(super) fn field<T: PartialEq + Serialize>(mut self, name: &str, live: T, rebuilt: T) -> Difference {
        if live != rebuilt {
            let text = |value: &T| serde_json::to_string(value).unwrap_or_default();
            self.fields.push(format!("{name} is {}, but the log makes {}", text(&live), text(&rebuilt)));
        }
        self
    }

    /// Tells the row, if a field of it differs.
    pub(super) fn tell(self, check: &mut Check) {
        let (table, key) = self.row;
        if !self.fields.is_empty() {
            check.violation(format!("{table} {key}: {}", self.fields.join("; ")));
        }
    }
}

/// What the log makes of the row of that key; where it makes nothing, that is told.
pub(super) fn take<T>(
    table: &'static str,
    key: Uuid,
    rebuilt: &mut BTreeMap<Uuid, T>,
    check: &mut Check,
) -> Option<T> {
    check.checked += 1;
    let found = rebuilt.remove(&key);
    if found.is_none() {
        check.violation(format!("{table} {key}: is in the table, but not in the log"));
    }
    found
}

/// Tells what the log makes that no row of the table took.
pub(super) fn left_over<T>(table: &'static str, rebuilt: &mut BTreeMap<Uuid, T>, check: &mut Check) {
    for key in std::mem::take(rebuilt).into_keys() {
        check.violation(format!("{table} {key}: is in the log, but not in the table"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Uuid = Uuid::from_u128(7);

    #[test]
    fn a_difference_names_the_row_and_both_values_of_each_field() {
        let mut check = Check::new("rebuild");
        Difference::of("cups", KEY)
            .field("count", 3, 5)
            .field("colour", "red", "red")
            .field("owner", Some("A"), None)
            .tell(&mut check);
        assert_eq!(
            check.violations,
            [format!(r#"cups {KEY}: count is 3, but the log makes 5; owner is "A", but the log makes null"#)]
        );
    }

    #[test]
    fn equal_rows_are_not_told() {
        let mut check = Check::new("rebuild");
        Difference::of("cups", KEY).field("count", 3, 3).tell(&mut check);
        assert!(check.ok);
    }

    #[test]
    fn rows_that_only_one_side_has_are_told() {
        let mut check = Check::new("rebuild");
        let mut rebuilt = BTreeMap::from([(KEY, 3)]);
        assert_eq!(take("cups", Uuid::nil(), &mut rebuilt, &mut check), None);
        left_over("cups", &mut rebuilt, &mut check);
        assert_eq!(check.violation_count, 2);
        assert!(check.violations[0].ends_with("is in the table, but not in the log"));
        assert!(check.violations[1].ends_with("is in the log, but not in the table"));
    }
}
