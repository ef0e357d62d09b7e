//! A projection made again from the log and put in the place of the live one, while its worker goes on.
//!
//! First the shadow is made, from what the group had applied at one moment. Then, in one transaction, the table is held
//! against writers and the group's offsets are held; what the group has applied since is added to the shadow, and what
//! differs is written. A batch of the worker changes sums and offsets in one transaction of its own, so it lies
//! before that one, and its events are at or below the offsets, or behind it, and then it adds to the new sums.

use ordermill_domain::sales::Sums;
use ordermill_pipeline::audit::{self, Applied, LoggedEvent, PAGE_EVENTS};
use ordermill_schemas::DecodeError;
use sqlx::{AssertSqlSafe, PgConnection};

use super::shadow::{SCHEMA, Shadow};
use super::tables::tables;

/// A projection: a table that only repeats what the log says, and that nobody decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// The sums of sales.
    Sales,
}

impl Projection {
    /// The projection of that name.
    ///
    /// # Errors
    /// In a sentence, why there is none.
    pub fn named(name: &str) -> Result<Projection, String> {
        match name {
            "sales" => Ok(Projection::Sales),
            state if tables().any(|table| table.name == state) => Err(format!(
                "{state} is no projection: workers decide by its rows, under their locks and with events of their own, so \
                 it can't be put in place behind their backs; see what is wrong by --check, and mend the cause"
            )),
            other => Err(format!("there is no table {other:?}; the one projection is sales")),
        }
    }
}

/// What the shadow was made from.
#[derive(Debug)]
pub struct Basis {
    then: Applied,
    /// Whatever the group had not applied stands here or above, or was put aside.
    from: i64,
    aside: Vec<LoggedEvent>,
}

impl Basis {
    /// Before anything is read: `snapshot` sees the moment that all of the shadow is to be made from.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn begin(snapshot: &mut PgConnection, group: &str) -> Result<Basis, sqlx::Error> {
        let then = audit::applied(&mut *snapshot, group).await?;
        // What is committed after the moment, too, stands above what is published.
        let from = audit::published(snapshot).await? + 1;
        Ok(Basis { then, from, aside: Vec::new() })
    }

    /// Counts an event, or notes that the group has not.
    ///
    /// # Errors
    /// Where it can't be decoded.
    pub fn take(&mut self, logged: LoggedEvent, sums: &mut Sums) -> Result<(), DecodeError> {
        if self.then.includes(&logged) {
            sums.observe(&logged.event()?, logged.at);
        } else if self.then.is_aside(&logged) {
            self.aside.push(logged);
        } else {
            self.from = self.from.min(logged.position);
        }
        Ok(())
    }
}

/// The events that sales are counted from, of the next [`PAGE_EVENTS`] of the log above `after`, and the last position that was
/// read. `None` at the end.
///
/// # Errors
/// Where the database fails.
pub async fn events(
    connection: &mut PgConnection,
    after: i64,
) -> Result<Option<(i64, Vec<LoggedEvent>)>, sqlx::Error> {
    let page = audit::page(connection, after, PAGE_EVENTS).await?;
    let counts = |event: &LoggedEvent| COUNTED.contains(&event.event_type.as_str());
    Ok(page.map(|(reached, events)| (reached, events.into_iter().filter(counts).collect())))
}

/// How many events sales are counted from.
///
/// # Errors
/// Where the database fails.
pub async fn count(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM log_segment s CROSS JOIN LATERAL unnest(s.type) AS e (type)
           WHERE e.type IN (SELECT code FROM log_word WHERE word = ANY($1))"#,
        &COUNTED.map(str::to_owned),
    );
    Ok(count.fetch_one(connection).await?.unsigned_abs())
}

/// The types of those events.
const COUNTED: [&str; 3] = ["order.confirmed", "order.cancelled", "order.modified"];

/// What was put in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swapped {
    /// Rows that the log does not make.
    pub removed: u64,
    /// Rows that were missing or had other figures.
    pub written: u64,
}

/// Brings the shadow up to what the group has applied by now, and puts it in the place of the live sums. All in the
/// caller's transaction, in which nothing must have been read before.
///
/// # Errors
/// Where the database fails, or an event can't be decoded.
pub async fn put_in_place(
    transaction: &mut PgConnection,
    shadow: &Shadow,
    basis: Basis,
    group: &str,
) -> Result<Swapped, sqlx::Error> {
    // Readers go on. Whoever writes comes in before this or behind it: the table first, as the worker does.
    sqlx::query!("SET LOCAL lock_timeout = '10s'").execute(&mut *transaction).await?;
    sqlx::query!("LOCK TABLE sales IN EXCLUSIVE MODE").execute(&mut *transaction).await?;
    audit::hold_offsets(&mut *transaction, group).await?;
    let now = audit::applied(&mut *transaction, group).await?;
    let mut sums = Sums::default();
    for logged in basis.aside.iter().filter(|logged| now.includes(logged)) {
        observe(&mut sums, logged)?;
    }
    let mut after = basis.from - 1;
    while let Some((reached, page)) = events(&mut *transaction, after).await? {
        after = reached;
        let is_new = |logged: &&LoggedEvent| {
            now.includes(logged) && !basis.then.includes(logged) && !basis.then.is_aside(logged)
        };
        for logged in page.iter().filter(is_new) {
            observe(&mut sums, logged)?;
        }
    }
    shadow.add_sales(&mut *transaction, &sums).await?;
    write_differences(transaction).await
}

fn observe(sums: &mut Sums, logged: &LoggedEvent) -> Result<(), sqlx::Error> {
    let event = logged.event().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    sums.observe(&event, logged.at);
    Ok(())
}

/// Rows are removed and written, not the table emptied or renamed: who reads at an older moment still finds its rows.
async fn write_differences(transaction: &mut PgConnection) -> Result<Swapped, sqlx::Error> {
    let remove = format!(
        "DELETE FROM sales s WHERE NOT EXISTS (
             SELECT FROM {SCHEMA}.sales r WHERE (r.level, r.category, r.product_id, r.bucket)
                 = (s.level, s.category, s.product_id, s.bucket))"
    );
    let write = format!(
        "INSERT INTO sales AS s (level, bucket, category, product_id, quantity, revenue, orders)
         SELECT level, bucket, category, product_id, quantity, revenue, orders FROM {SCHEMA}.sales
         ON CONFLICT (level, category, product_id, bucket) DO UPDATE SET
             quantity = excluded.quantity, revenue = excluded.revenue, orders = excluded.orders
             WHERE (s.quantity, s.revenue, s.orders)
                 IS DISTINCT FROM (excluded.quantity, excluded.revenue, excluded.orders)"
    );
    let removed = sqlx::query(AssertSqlSafe(remove)).execute(&mut *transaction).await?;
    let written = sqlx::query(AssertSqlSafe(write)).execute(&mut *transaction).await?;
    Ok(Swapped { removed: removed.rows_affected(), written: written.rows_affected() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_projection_can_be_swapped_and_the_others_are_told_why_not() {
        assert_eq!(Projection::named("sales"), Ok(Projection::Sales));
        for table in tables().filter(|table| table.name != "sales") {
            let error = Projection::named(table.name).unwrap_err();
            assert!(
                error.starts_with(table.name) && error.contains("is no projection: workers decide"),
                "{error}"
            );
        }
        assert!(Projection::named("cups").unwrap_err().contains("the one projection is sales"));
    }
}
