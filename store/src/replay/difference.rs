//! How a row differs from what the log makes of it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// A row that is not what the log makes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub row: String,
    /// How it differs.
    #[serde(flatten)]
    pub what: What,
}

/// How a row differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The other has no such row.
    OnlyIn(Side),
    /// These values in it differ.
    Columns(Vec<Column>),
}

/// What a row is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The live table.
    Table,
    /// What the log makes.
    Log,
}

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Where it is: the column, and within a document the path, like `state.charges[0].amount`.
    pub column: String,
    /// What the table has.
    pub live: Value,
    /// What the log makes.
    pub log: Value,
}

impl Difference {
    /// What differs between a row of the table and what the log makes of it, both as objects of columns; `None` where
    /// nothing does, or where there is neither. What is null is the same as what is not there.
    #[must_use]
    pub fn between(
        table: &'static str,
        row: impl ToString,
        live: Option<&Value>,
        made: Option<&Value>,
    ) -> Option<Difference> {
        let what = match (live, made) {
            (None, None) => return None,
            (Some(_), None) => What::OnlyIn(Side::Table),
            (None, Some(_)) => What::OnlyIn(Side::Log),
            (Some(live), Some(made)) => {
                let mut columns = Vec::new();
                compare("", live, made, &mut columns);
                if columns.is_empty() {
                    return None;
                }
                What::Columns(columns)
            }
        };
        Some(Difference { table, row: row.to_string(), what })
    }
}

/// Notes each value below `path` that differs.
fn compare(path: &str, live: &Value, log: &Value, found: &mut Vec<Column>) {
    match (live, log) {
        _ if live == log => {}
        (Value::Object(live), Value::Object(log)) => {
            let only_made = log.keys().filter(|name| !live.contains_key(*name));
            for name in live.keys().chain(only_made) {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let of = |members: &serde_json::Map<String, Value>| members.get(name).cloned();
                compare(&below, &of(live).unwrap_or_default(), &of(log).unwrap_or_default(), found);
            }
        }
        // An element that only one has counts even if it is null.
        (Value::Array(live), Value::Array(log)) if live.len() == log.len() => {
            for (index, (live, log)) in live.iter().zip(log).enumerate() {
                compare(&format!("{path}[{index}]"), live, log, found);
            }
        }
        _ => found.push(Column { column: path.to_owned(), live: live.clone(), log: log.clone() }),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.table, self.row)?;
        match &self.what {
            What::OnlyIn(Side::Table) => f.write_str("is in the table, but not in the log"),
            What::OnlyIn(Side::Log) => f.write_str("is in the log, but not in the table"),
            What::Columns(columns) => {
                for (index, Column { column, live, log }) in columns.iter().enumerate() {
                    let separator = if index > 0 { "; " } else { "" };
                    write!(f, "{separator}{column} is {live}, but the log makes {log}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(live: Option<Value>, made: Option<Value>) -> Option<String> {
        Difference::between("cups", 7, live.as_ref(), made.as_ref()).map(|difference| difference.to_string())
    }

    #[test]
    fn a_difference_names_the_row_and_both_values_of_each_member() {
        assert_eq!(
            told(
                Some(json!({"count": 3, "colour": "red", "owner": "A"})),
                Some(json!({"count": 5, "colour": "red", "owner": null, "crack": true})),
            )
            .unwrap(),
            "cups 7: count is 3, but the log makes 5; owner is \"A\", but the log makes null; \
             crack is null, but the log makes true"
        );
    }

    #[test]
    fn what_lies_deeper_is_named_by_its_path() {
        let row = |amount: i32, quantity: i32| {
            Some(json!({
                "state": {"charges": [{"amount": amount, "state": "COMPLETED"}]},
                "bulk": [{"quantity": 1}, {"quantity": quantity}],
            }))
        };
        let told = |live, made| told(live, made).unwrap();
        assert_eq!(told(row(7, 3), row(5, 3)), "cups 7: state.charges[0].amount is 7, but the log makes 5");
        assert_eq!(told(row(5, 2), row(5, 3)), "cups 7: bulk[1].quantity is 2, but the log makes 3");
    }

    #[test]
    fn equal_rows_are_not_told_and_null_is_the_same_as_nothing() {
        let live = json!({"state": {"lines": [{"n": 1, "of": null}], "change": null}, "bulk": null});
        assert_eq!(told(Some(live), Some(json!({"state": {"lines": [{"n": 1}]}}))), None);
    }

    #[test]
    fn a_list_of_another_length_is_told_whole() {
        let (live, made) = (json!({"bulk": [1, null]}), json!({"bulk": [1]}));
        assert_eq!(told(Some(live), Some(made)).unwrap(), "cups 7: bulk is [1,null], but the log makes [1]");
    }

    #[test]
    fn rows_that_only_one_side_has_are_told() {
        let cup = || Some(json!({"n": 1}));
        assert_eq!(told(cup(), None).unwrap(), "cups 7: is in the table, but not in the log");
        assert_eq!(told(None, cup()).unwrap(), "cups 7: is in the log, but not in the table");
    }

    #[test]
    fn a_difference_reads_as_json_with_table_row_column_and_both_values() {
        let (live, made) = (json!({"state": {"n": 1}}), json!({"state": {"n": 2}}));
        let difference = Difference::between("cups", 7, Some(&live), Some(&made)).unwrap();
        let expected =
            json!({"table": "cups", "row": "7", "columns": [{"column": "state.n", "live": 1, "log": 2}]});
        assert_eq!(serde_json::to_value(difference).unwrap(), expected);
        let only = Difference::between("cups", 7, Some(&live), None).unwrap();
        assert_eq!(
            serde_json::to_value(only).unwrap(),
            json!({"table": "cups", "row": "7", "only_in": "table"})
        );
    }
}
