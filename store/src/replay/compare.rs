//! What the log makes, against the live tables.

use futures_util::TryStreamExt as _;
use ordermill_domain::aggregate::MadeOf;
use ordermill_domain::kinds;
use ordermill_pipeline::audit::{Check, SHOWN_MAX, Slice};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::difference::Difference;
use super::page::Page;

/// What was compared, and what differs.
#[derive(Debug, Default)]
pub struct Found {
    /// How many rows of the tables were looked at.
    pub rows: u64,
    /// How many of them differ, or are in the log only.
    pub count: u64,
    /// The first of those, [`SHOWN_MAX`] at most.
    pub differences: Vec<Difference>,
}

impl Found {
    pub(super) fn add(&mut self, difference: Difference) {
        self.count += 1;
        if self.differences.len() < SHOWN_MAX {
            self.differences.push(difference);
        }
    }

    /// Adds what was found elsewhere.
    pub fn extend(&mut self, other: Found) {
        self.rows += other.rows;
        self.count += other.count;
        let room = SHOWN_MAX.saturating_sub(self.differences.len());
        self.differences.extend(other.differences.into_iter().take(room));
    }

    /// The same as violations of a check.
    pub(crate) fn tell(self, check: &mut Check) {
        check.checked += self.rows;
        let untold = self.count - self.differences.len() as u64;
        self.differences.iter().for_each(|difference| check.violation(difference.to_string()));
        check.violations_beyond(untold);
    }
}

/// Compares the pages of one slice, in their order, with the rows of the tables in the range of ids that each of them
/// brings to an end. So rows that are in a table and not in the log are met, too.
#[derive(Debug)]
pub(super) struct Comparison {
    made_of: MadeOf,
    /// Where the next page begins; absent behind the last id.
    from: Option<Uuid>,
    pub(super) found: Found,
}

impl Comparison {
    /// Compares the tables whose rows are made of that.
    pub(super) fn new(made_of: MadeOf, slice: Slice) -> Comparison {
        Comparison { made_of, from: Some(slice.from), found: Found::default() }
    }

    /// Compares the next page with the tables as `live` sees them.
    pub(super) async fn page(&mut self, live: &mut PgConnection, page: &Page) -> Result<(), sqlx::Error> {
        if let Some((from, upto)) = self.from.zip(page.upto) {
            let made_of = self.made_of;
            for kind in kinds().filter(|kind| kind.made_of == made_of) {
                let within = format!("{0} >= '{from}' AND {0} <= '{upto}'", kind.owner);
                self.rows(&mut *live, kind.noun, page, &within).await?;
            }
            self.from = upto.as_u128().checked_add(1).map(Uuid::from_u128);
        }
        Ok(())
    }

    /// The live rows are not collected: however many of them the log does not know, there is one at a time.
    async fn rows(
        &mut self,
        live: &mut PgConnection,
        table: &'static str,
        page: &Page,
        within: &str,
    ) -> Result<(), sqlx::Error> {
        let mut made = page.rows(table).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        // Table, columns and condition are ours: names and ids.
        let select = format!(
            "SELECT key, jsonb_build_object('state', state, 'bulk', bulk) FROM {table} WHERE {within}"
        );
        let mut rows =
            sqlx::query_as::<_, (Uuid, Json<Value>)>(AssertSqlSafe(select)).persistent(false).fetch(live);
        while let Some((key, Json(row))) = rows.try_next().await? {
            self.found.rows += 1;
            let made = made.remove(&key);
            let difference = Difference::between(table, key, Some(&row), made.as_ref());
            difference.into_iter().for_each(|found| self.found.add(found));
        }
        for (key, row) in made {
            let difference = Difference::between(table, key, None, Some(&row));
            difference.into_iter().for_each(|found| self.found.add(found));
        }
        Ok(())
    }
}
