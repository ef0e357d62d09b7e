//! How a row differs from what the log makes of it.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::tables::Table;

/// A row as the database gives it as JSON: its columns, without those that are NULL.
pub(crate) type Row = Map<String, Value>;

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
    /// These columns differ.
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

/// A column that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Its name.
    pub column: String,
    /// What the table has.
    pub live: Value,
    /// What the log makes.
    pub log: Value,
}

impl Difference {
    /// What differs between a row of the table and what the log makes of it; `None` where nothing does, or where there
    /// is neither.
    pub(super) fn between(table: &Table, live: Option<&Row>, made: Option<&Row>) -> Option<Difference> {
        let what = match (live, made) {
            (None, None) => return None,
            (Some(_), None) => What::OnlyIn(Side::Table),
            (None, Some(_)) => What::OnlyIn(Side::Log),
            (Some(live), Some(made)) => What::Columns(columns(live, made)?),
        };
        let row = live.or(made).map(|row| key(table, row)).unwrap_or_default();
        Some(Difference { table: table.name, row, what })
    }
}

/// The columns that differ, in the order of their names; `None` where there is none.
fn columns(live: &Row, made: &Row) -> Option<Vec<Column>> {
    if live == made {
        return None;
    }
    let of = |row: &Row, column: &String| row.get(column).cloned().unwrap_or_default();
    let only_made = made.keys().filter(|column| !live.contains_key(*column));
    let names = live.keys().chain(only_made).filter(|column| live.get(*column) != made.get(*column));
    Some(
        names
            .map(|name| Column { column: name.clone(), live: of(live, name), log: of(made, name) })
            .collect(),
    )
}

/// The key of a row as text.
pub(super) fn key(table: &Table, row: &Row) -> String {
    let part = |column: &&str| match row.get(*column) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    table.key.iter().map(part).collect::<Vec<_>>().join(" ")
}

/// Leaves out what is null, at any depth: old rows may lack what was added to a type since.
pub(super) fn without_nulls(row: Row) -> Row {
    let strip = |value| match value {
        Value::Object(map) => Value::Object(without_nulls(map)),
        Value::Array(items) => Value::Array(items.into_iter().map(item_without_nulls).collect()),
        other => other,
    };
    row.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, strip(value))).collect()
}

fn item_without_nulls(item: Value) -> Value {
    match item {
        Value::Object(map) => Value::Object(without_nulls(map)),
        Value::Array(items) => Value::Array(items.into_iter().map(item_without_nulls).collect()),
        other => other,
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

    const CUPS: Table = Table { name: "cups", key: &["cup_id"], owner: "cup_id", state: None, sums: &[] };

    fn row(value: Value) -> Row {
        without_nulls(value.as_object().unwrap().clone())
    }

    fn told(live: Option<Value>, made: Option<Value>) -> Option<String> {
        let (live, made) = (live.map(row), made.map(row));
        Difference::between(&CUPS, live.as_ref(), made.as_ref()).map(|difference| difference.to_string())
    }

    #[test]
    fn a_difference_names_the_row_and_both_values_of_each_column() {
        assert_eq!(
            told(
                Some(json!({"cup_id": "7", "count": 3, "colour": "red", "owner": "A"})),
                Some(json!({"cup_id": "7", "count": 5, "colour": "red", "owner": null, "crack": true})),
            )
            .unwrap(),
            "cups 7: count is 3, but the log makes 5; owner is \"A\", but the log makes null; \
             crack is null, but the log makes true"
        );
    }

    #[test]
    fn equal_rows_are_not_told_and_null_is_the_same_as_nothing() {
        let live = json!({"cup_id": "7", "lines": [{"n": 1, "of": null}], "change": null});
        assert_eq!(told(Some(live), Some(json!({"lines": [{"n": 1}], "cup_id": "7"}))), None);
    }

    #[test]
    fn rows_that_only_one_side_has_are_told() {
        let cup = || Some(json!({"cup_id": "7"}));
        assert_eq!(told(cup(), None).unwrap(), "cups 7: is in the table, but not in the log");
        assert_eq!(told(None, cup()).unwrap(), "cups 7: is in the log, but not in the table");
    }

    #[test]
    fn a_difference_reads_as_json_with_table_row_column_and_both_values() {
        let (live, made) = (row(json!({"cup_id": "7", "n": 1})), row(json!({"cup_id": "7", "n": 2})));
        let difference = Difference::between(&CUPS, Some(&live), Some(&made)).unwrap();
        let expected =
            json!({"table": "cups", "row": "7", "columns": [{"column": "n", "live": 1, "log": 2}]});
        assert_eq!(serde_json::to_value(difference).unwrap(), expected);
        let only = Difference::between(&CUPS, Some(&live), None).unwrap();
        assert_eq!(
            serde_json::to_value(only).unwrap(),
            json!({"table": "cups", "row": "7", "only_in": "table"})
        );
    }
}
