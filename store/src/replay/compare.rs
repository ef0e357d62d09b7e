//! What the log makes, against the live tables.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use ordermill_pipeline::audit::{Check, SHOWN_MAX, Slice};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::difference::{Difference, Row, key};
use super::fold::Page;
use super::tables::{BALANCE_ENTRIES, OF_AGGREGATES, OF_TOTALS, Table, USER_COUPONS};

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
    pub(crate) fn add(&mut self, difference: Difference) {
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

/// Compares the sums of sales with what the log makes of them, as far as the group has applied it.
///
/// # Errors
/// Where the database fails.
pub async fn sales(live: &mut PgConnection, sales_group: &str) -> Result<Found, sqlx::Error> {
    crate::verification::sales::differences(live, sales_group).await
}

/// Compares the pages of one slice, in their order, with the rows of the tables in the range of ids that each of them
/// brings to an end. So rows that are in a table and not in the log are met, too.
#[derive(Debug)]
pub struct Comparison {
    tables: &'static [&'static Table],
    has_entries: bool,
    /// Where the next page begins; absent behind the last id.
    from: Option<Uuid>,
    entries_from: (Uuid, i32),
    found: Found,
}

impl Comparison {
    fn new(tables: &'static [&'static Table], has_entries: bool, slice: Slice) -> Comparison {
        let (from, entries_from) = (Some(slice.from), (slice.from, i32::MIN));
        Comparison { tables, has_entries, from, entries_from, found: Found::default() }
    }

    /// Compares pages of aggregates.
    #[must_use]
    pub fn of_aggregates(slice: Slice) -> Comparison {
        Comparison::new(&OF_AGGREGATES, true, slice)
    }

    /// Compares pages of users' coupons.
    #[must_use]
    pub fn of_user_coupons(slice: Slice) -> Comparison {
        Comparison::new(&[&USER_COUPONS], false, slice)
    }

    /// Compares the page that [`Totals`](super::Totals) make.
    #[must_use]
    pub fn of_totals() -> Comparison {
        Comparison::new(&OF_TOTALS, false, Slice::ALL)
    }

    /// Compares the next page with the tables as `live` sees them.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn page(&mut self, live: &mut PgConnection, page: &Page) -> Result<(), sqlx::Error> {
        if let Some((from, upto)) = self.from.zip(page.upto) {
            for table in self.tables {
                let within = format!("{0} >= '{from}' AND {0} <= '{upto}'", table.owner);
                self.rows(&mut *live, table, page, &within).await?;
            }
            self.from = upto.as_u128().checked_add(1).map(Uuid::from_u128);
        }
        if self.has_entries {
            let ((from, first), (upto, last)) = (self.entries_from, page.entries_upto);
            let within = format!(
                "(user_id, sequence) >= ('{from}', {first}) AND (user_id, sequence) <= ('{upto}', {last})"
            );
            self.rows(live, &BALANCE_ENTRIES, page, &within).await?;
            self.entries_from = (upto, last.saturating_add(1));
        }
        Ok(())
    }

    /// The live rows are not collected: however many of them the log does not know, there is one at a time.
    async fn rows(
        &mut self,
        live: &mut PgConnection,
        table: &Table,
        page: &Page,
        within: &str,
    ) -> Result<(), sqlx::Error> {
        let mut made: BTreeMap<String, &Row> =
            page.rows.of(table).iter().map(|row| (key(table, row), row)).collect();
        // Table, columns and condition are ours: names and ids.
        let select =
            format!("SELECT jsonb_strip_nulls(to_jsonb(t) - $1) FROM {} AS t WHERE {within}", table.name);
        let mut rows = sqlx::query_scalar::<_, Json<Row>>(AssertSqlSafe(select))
            .bind(table.unknown_columns())
            .persistent(false)
            .fetch(live);
        while let Some(Json(row)) = rows.try_next().await? {
            self.found.rows += 1;
            let made = made.remove(&key(table, &row));
            Difference::between(table, Some(&row), made).into_iter().for_each(|found| self.found.add(found));
        }
        for row in made.into_values() {
            Difference::between(table, None, Some(row)).into_iter().for_each(|found| self.found.add(found));
        }
        Ok(())
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Found {
        self.found
    }
}
