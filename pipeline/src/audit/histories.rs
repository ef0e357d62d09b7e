//! The log aggregate by aggregate: each one's history as a whole, in the log's order.
//!
//! The database sorts on its disk, so who reads holds a page in memory, however long the log is.

use sqlx::{AssertSqlSafe, FromRow as _, PgConnection, Row as _};
use uuid::Uuid;

use super::log::LoggedEvent;
use crate::log::stretches;

/// How many events are read at once.
pub const PAGE_EVENTS: usize = 5_000;
/// From how many events it is guessed where the ids of the log are to be cut.
const SAMPLE_EVENTS: f64 = 20_000.0;

/// A range of ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first.
    pub from: Uuid,
    /// The last.
    pub to: Uuid,
}

impl Slice {
    /// Every id.
    pub const ALL: Slice = Slice { from: Uuid::nil(), to: Uuid::max() };

    /// One id.
    #[must_use]
    pub fn of(id: Uuid) -> Slice {
        Slice { from: id, to: id }
    }

    /// Slices that touch each other and have every id, each but the first beginning with one of `cuts`.
    fn between(cuts: impl IntoIterator<Item = Uuid>) -> Vec<Slice> {
        let mut slices = vec![Slice::ALL];
        for cut in cuts {
            let Some(last) = slices.last_mut().filter(|last| cut > last.from) else { continue };
            last.to = Uuid::from_u128(cut.as_u128() - 1);
            slices.push(Slice { from: cut, to: Uuid::max() });
        }
        slices
    }

    /// So many slices of the same width: for ids that lie anywhere, as derived ones do.
    #[must_use]
    pub fn even(count: u32) -> Vec<Slice> {
        let width = u128::MAX / u128::from(count.max(1));
        Slice::between((1..count).map(|number| Uuid::from_u128(width * u128::from(number))))
    }
}

/// Slices of the log's aggregates with about as many events each, `count` at most: most ids begin with their time, so
/// they lie close together. Where they are cut is guessed from a sample; a bad guess costs time and nothing else.
///
/// # Errors
/// Where the database fails.
pub async fn slices(connection: &mut PgConnection, count: u32) -> Result<Vec<Slice>, sqlx::Error> {
    let mut ids = sqlx::query_scalar!(
        r#"SELECT unnest(aggregate_id) AS "id!" FROM log_segment TABLESAMPLE SYSTEM (
               (SELECT least(100, 100 * $1::float8 / greatest(sum(events), 1)) FROM log_segment))"#,
        SAMPLE_EVENTS,
    )
    .fetch_all(connection)
    .await?;
    ids.sort_unstable();
    let share = |number: u32| ids.get(ids.len() * number as usize / count.max(1) as usize).copied();
    Ok(Slice::between((1..count).filter_map(share)))
}

/// A cursor over histories: the events of one owner, then those of the next, each in the log's order. A transaction
/// can have one at a time.
#[derive(Debug)]
pub struct Histories {
    _open: (),
}

impl Histories {
    /// Begins to read those events whose aggregates are in the slice.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_aggregates(
        connection: &mut PgConnection,
        slice: Slice,
    ) -> Result<Histories, sqlx::Error> {
        Histories::open(connection, "aggregate_id", "true", slice).await
    }

    /// Begins to read the history of one aggregate, which is found by an index.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_aggregate(
        connection: &mut PgConnection,
        aggregate_id: Uuid,
    ) -> Result<Histories, sqlx::Error> {
        let mut last = 1;
        // A history is without gap, so it ends before the first power of two that is not in it.
        while sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM log_segment WHERE about && $1) AS "exists!""#,
            &stretches(aggregate_id, last..=last),
        )
        .fetch_one(&mut *connection)
        .await?
        {
            let Some(next) = last.checked_mul(2) else { break };
            last = next;
        }
        let stretches: Vec<String> = stretches(aggregate_id, 1..=last).iter().map(Uuid::to_string).collect();
        let condition = format!("about && '{{{}}}'", stretches.join(","));
        Histories::open(connection, "aggregate_id", &condition, Slice::of(aggregate_id)).await
    }

    /// Begins to read the events for which `condition` holds and whose owners are in the slice, sorted by `owner`: both are SQL over a
    /// row of `event_history`, written by us and never taken from outside.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn open(
        connection: &mut PgConnection,
        owner: &str,
        condition: &str,
        slice: Slice,
    ) -> Result<Histories, sqlx::Error> {
        // All of it is read, so the first rows need not come sooner than the rest.
        sqlx::query!("SET LOCAL cursor_tuple_fraction = 1").execute(&mut *connection).await?;
        let Slice { from, to } = slice;
        // Who owns an event may have to be read out of it, hence once.
        let declare = format!(
            "DECLARE histories NO SCROLL CURSOR FOR
             SELECT * FROM (
                 SELECT {owner} AS owner, position, event_id, topic, partition, type, version, at, data
                 FROM event_history WHERE topic NOT LIKE '%.dlt' AND {condition} OFFSET 0
             ) AS e WHERE owner >= '{from}' AND owner <= '{to}' ORDER BY owner, position"
        );
        sqlx::query(AssertSqlSafe(declare)).persistent(false).execute(connection).await?;
        Ok(Histories { _open: () })
    }

    /// The next events, [`PAGE_EVENTS`] at most, each with its owner; none at the end.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn next(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Vec<(Uuid, LoggedEvent)>, sqlx::Error> {
        // Not kept prepared: a later cursor of the name has a plan of its own.
        let fetch = format!("FETCH FORWARD {PAGE_EVENTS} FROM histories");
        let rows = sqlx::query(AssertSqlSafe(fetch)).persistent(false).fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get("owner")?, LoggedEvent::from_row(row)?))).collect()
    }

    /// Ends the reading, so that the transaction can begin another.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn close(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("CLOSE histories").persistent(false).execute(connection).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Each begins behind the one before it, and together they are everything.
    fn assert_whole(slices: &[Slice]) {
        assert_eq!((slices[0].from, slices[slices.len() - 1].to), (Uuid::nil(), Uuid::max()));
        for pair in slices.windows(2) {
            assert_eq!(pair[0].to.as_u128() + 1, pair[1].from.as_u128());
        }
    }

    #[test]
    fn slices_touch_each_other_and_have_every_id() {
        for cuts in [vec![], vec![id(5)], vec![id(5), id(9), id(40)], vec![Uuid::nil(), id(5), Uuid::max()]] {
            assert_whole(&Slice::between(cuts));
        }
        for count in [1, 2, 3, 7, 64] {
            let slices = Slice::even(count);
            assert_eq!(slices.len(), count as usize);
            assert_whole(&slices);
        }
    }

    #[test]
    fn a_cut_that_comes_twice_or_at_the_beginning_makes_no_empty_slice() {
        assert_eq!(Slice::between([Uuid::nil()]), [Slice::ALL]);
        let slices = Slice::between([id(5), id(5), id(3)]);
        assert_eq!(slices, [Slice { from: id(0), to: id(4) }, Slice { from: id(5), to: Uuid::max() }]);
    }
}
