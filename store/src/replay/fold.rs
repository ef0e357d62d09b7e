//! Histories in, rows out: a page of rows for each page of events.

use jiff::Timestamp;
use ordermill_domain::aggregate::{Document, MadeOf};
use ordermill_pipeline::audit::{Applied, LoggedEvent, Slice};
use ordermill_schemas::Topic;
use uuid::Uuid;

use super::capabilities::Rebuilt;
use super::page::Page;
use super::totals::Totals;

/// One aggregate on its way.
#[derive(Debug)]
struct History {
    owner: Uuid,
    rebuilt: Rebuilt,
    /// An event came that is later than what is asked for.
    is_over: bool,
}

/// Folds the histories of a slice, as they come from [`Histories`](ordermill_pipeline::audit::Histories).
#[derive(Debug)]
pub struct Fold<'a> {
    pub(super) made_of: MadeOf,
    pub(super) slice: Slice,
    /// What the worker that writes orders has applied.
    orders: &'a Applied,
    /// What the worker that counts sales has applied, where that is asked for.
    sales: Option<&'a Applied>,
    until: Option<Timestamp>,
    current: Option<History>,
    page: Page,
    totals: Totals,
    /// When the earliest event happened that was met, whether or not it is later than what is asked for.
    pub(super) first_at: Option<Timestamp>,
}

impl<'a> Fold<'a> {
    /// Folds aggregates; an answer shows in its order if the worker that writes orders has applied it.
    #[must_use]
    pub fn of_aggregates(slice: Slice, orders: &'a Applied) -> Fold<'a> {
        Fold {
            made_of: MadeOf::OneHistory,
            slice,
            orders,
            sales: None,
            until: None,
            current: None,
            page: Page::default(),
            totals: Totals::default(),
            first_at: None,
        }
    }

    /// Folds the histories of users' coupons.
    #[must_use]
    pub fn of_user_coupons(slice: Slice, orders: &'a Applied) -> Fold<'a> {
        Fold { made_of: MadeOf::SeveralHistories, ..Fold::of_aggregates(slice, orders) }
    }

    /// Counts sales as well, as far as their worker has applied the log.
    #[must_use]
    pub fn with_sales(self, applied: &'a Applied) -> Fold<'a> {
        Fold { sales: Some(applied), ..self }
    }

    /// Leaves each history at its first event that is later than `until`.
    #[must_use]
    pub fn until(self, until: Option<Timestamp>) -> Fold<'a> {
        Fold { until, ..self }
    }

    /// The next event of that owner.
    pub fn take(&mut self, owner: Uuid, logged: &LoggedEvent) {
        if self.current.as_ref().is_some_and(|history| history.owner != owner) {
            self.end();
        }
        let history = self.current.get_or_insert_with(|| History {
            owner,
            rebuilt: Rebuilt::default(),
            is_over: false,
        });
        self.page.events += 1;
        self.first_at = Some(self.first_at.map_or(logged.at, |first| first.min(logged.at)));
        history.is_over |= self.until.is_some_and(|until| logged.at > until);
        if history.is_over {
            return;
        }
        let event = match logged.event() {
            Ok(event) => event,
            Err(error) => {
                self.page.undecodable.push(format!("log position {}: {error}", logged.position));
                return;
            }
        };
        history.rebuilt.evolve(&event, logged.at, self.orders.includes(logged));
        if event.topic() == Topic::Orders && self.sales.is_some_and(|applied| applied.includes(logged)) {
            self.page.sums.observe(&event, logged.at);
        }
    }

    /// What has come to an end since the last page.
    pub fn page(&mut self) -> Page {
        if let Some(History { owner, .. }) = &self.current {
            let before = owner.as_u128().checked_sub(1).map(Uuid::from_u128);
            self.page.upto = before.filter(|before| *before >= self.slice.from);
        }
        std::mem::take(&mut self.page)
    }

    /// The last page, which reaches to the end of the slice.
    pub fn last_page(&mut self) -> Page {
        self.end();
        self.page.upto = Some(self.slice.to);
        self.page()
    }

    /// What is counted over all histories that have ended.
    #[must_use]
    pub fn into_totals(self) -> Totals {
        self.totals
    }

    /// The history under way has ended: its states become documents.
    fn end(&mut self) {
        let Some(History { owner, mut rebuilt, .. }) = self.current.take() else { return };
        if self.made_of == MadeOf::OneHistory {
            self.totals.take(&mut rebuilt);
        }
        match rebuilt.documents() {
            Ok(documents) => {
                let of_this = |document: &Document| document.kind.made_of == self.made_of;
                self.page.add(documents.into_iter().filter(of_this));
            }
            Err(error) => self.page.undecodable.push(format!("history of {owner}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests;
