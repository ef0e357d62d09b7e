//! One reading of a slice of the log: folded page by page, and compared with the live tables where that is asked for.

use ordermill_domain::aggregate::{DocumentError, MadeOf};
use ordermill_pipeline::audit::{Histories, Slice};
use sqlx::PgConnection;

use super::compare::{Comparison, Found};
use super::fold::Fold;
use super::page::Page;
use super::totals::Totals;

/// Events of coupons that say which user's coupon they change; applied and returned are events of an order.
const CHANGES_USER_COUPONS: &str = "topics && ARRAY(SELECT code FROM log_word WHERE word = 'coupons') \
     AND topic = 'coupons' AND type IN ('coupon.issued', 'coupon.applied', \
     'coupon.returned', 'coupon.expired', 'coupon.revoked')";
/// Which one that is.
const USER_COUPON: &str = "CASE topic_code WHEN (SELECT code FROM log_word WHERE word = 'coupons') THEN \
     (SELECT coalesce(said ->> 'user_coupon_id', said #>> '{terms,user_coupon_id}')::uuid \
     FROM (SELECT convert_from(data, 'UTF8')::jsonb AS said OFFSET 0) AS event) END";

/// A slice of the log, read once. A transaction can have one at a time.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Absent once all of it was read.
    histories: Option<Histories>,
    pub(super) fold: Fold<'a>,
    comparison: Option<Comparison>,
}

impl<'a> Pass<'a> {
    /// Begins to read what is to be folded.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn begin(connection: &mut PgConnection, fold: Fold<'a>) -> Result<Pass<'a>, sqlx::Error> {
        let histories = match fold.made_of {
            MadeOf::SeveralHistories => user_coupons(connection, fold.slice).await?,
            MadeOf::OneHistory | MadeOf::Sums => Histories::of_aggregates(connection, fold.slice).await?,
        };
        Ok(Pass::over(histories, fold))
    }

    pub(super) fn over(histories: Histories, fold: Fold<'a>) -> Pass<'a> {
        Pass { histories: Some(histories), fold, comparison: None }
    }

    /// Compares each page with the tables as they are at the moment of the connection that the log is read by.
    #[must_use]
    pub fn compared(mut self) -> Pass<'a> {
        self.comparison = Some(Comparison::new(self.fold.made_of, self.fold.slice));
        self
    }

    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn next(&mut self, connection: &mut PgConnection) -> Result<Option<Page>, sqlx::Error> {
        let Some(histories) = &mut self.histories else { return Ok(None) };
        let events = histories.next(&mut *connection).await?;
        events.iter().for_each(|(owner, logged)| self.fold.take(*owner, logged));
        let page = match self.histories.take_if(|_| events.is_empty()) {
            Some(read) => {
                read.close(&mut *connection).await?;
                self.fold.last_page()
            }
            None => self.fold.page(),
        };
        if let Some(comparison) = &mut self.comparison {
            comparison.page(connection, &page).await?;
        }
        Ok(Some(page))
    }

    /// What is counted over all histories, and what differs.
    #[must_use]
    pub fn finish(self) -> (Totals, Found) {
        (self.fold.into_totals(), self.comparison.map(|comparison| comparison.found).unwrap_or_default())
    }
}

/// The page of what is counted over all histories, and what of it differs from the live tables, if it is `compared`.
///
/// # Errors
/// Where the database fails.
pub async fn last_page(
    connection: &mut PgConnection,
    totals: Totals,
    compared: bool,
) -> Result<(Page, Found), sqlx::Error> {
    let page = totals.into_page().map_err(unwritable)?;
    let mut comparison = Comparison::new(MadeOf::Sums, Slice::ALL);
    if compared {
        comparison.page(connection, &page).await?;
    }
    Ok((page, comparison.found))
}

/// Begins to read the histories of users' coupons.
pub(super) async fn user_coupons(
    connection: &mut PgConnection,
    slice: Slice,
) -> Result<Histories, sqlx::Error> {
    Histories::open(connection, USER_COUPON, CHANGES_USER_COUPONS, slice).await
}

pub(super) fn unwritable(error: DocumentError) -> sqlx::Error {
    sqlx::Error::Encode(Box::new(error))
}
