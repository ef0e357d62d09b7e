//! Rows as the log makes them: documents and sums of sales.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_domain::aggregate::Document;
use ordermill_domain::sales::Sums;
use serde_json::{Value, json};
use uuid::Uuid;

/// What a page of events has brought to an end.
#[derive(Debug, Default)]
pub struct Page {
    /// How many events it is of.
    pub events: u64,
    /// Events that can't be decoded, in words.
    pub undecodable: Vec<String>,
    pub(super) documents: BTreeMap<&'static str, Vec<Document>>,
    /// What was sold; where sales are asked for.
    pub(super) sums: Sums,
    /// Every history up to this id has ended; none has yet where it is absent.
    pub(super) upto: Option<Uuid>,
}

impl Page {
    pub(super) fn add(&mut self, documents: impl IntoIterator<Item = Document>) {
        for document in documents {
            self.documents.entry(document.kind.noun).or_default().push(document);
        }
    }

    /// The rows of a table by their keys, each with the columns that are compared.
    ///
    /// # Errors
    /// Where a document is no JSON.
    pub fn rows(&self, table: &str) -> Result<BTreeMap<Uuid, Value>, serde_json::Error> {
        self.documents
            .get(table)
            .into_iter()
            .flatten()
            .map(|document| Ok((document.key, row(document)?)))
            .collect()
    }

    /// What was sold, as rows of sales.
    pub fn sales(&self) -> impl Iterator<Item = Value> {
        sales_rows(&self.sums)
    }
}

fn row(document: &Document) -> Result<Value, serde_json::Error> {
    let bulk = document.bulk.as_deref().unwrap_or("null");
    serde_json::from_str(&format!(r#"{{"state":{},"bulk":{bulk}}}"#, document.state))
}

pub(super) fn sales_rows(sums: &Sums) -> impl Iterator<Item = Value> {
    sums.changes().map(|(key, figures)| {
        let (level, category, product_id) = crate::sales::columns(&key.subject);
        json!({
            "level": level,
            "bucket": time(key.bucket),
            "category": category,
            "product_id": product_id,
            "quantity": figures.quantity,
            "revenue": figures.revenue,
            "orders": figures.orders,
        })
    })
}

/// A time as PostgreSQL writes it as JSON, in UTC.
fn time(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}+00:00", text.strip_suffix('Z').unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_postgresql_writes_them_as_json() {
        for (given, written) in [
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00+00:00"),
            ("2026-11-21T10:00:00.12Z", "2026-11-21T10:00:00.12+00:00"),
            ("2026-11-21T10:00:00.123456Z", "2026-11-21T10:00:00.123456+00:00"),
        ] {
            assert_eq!(time(given.parse().unwrap()), written);
        }
    }
}
