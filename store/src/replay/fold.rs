//! Histories in, rows out: a page of rows for each page of events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_domain::coupons::{Coupon, WELCOME};
use ordermill_domain::sales::Sums;
use ordermill_pipeline::audit::{Applied, Histories, LoggedEvent, Slice};
use ordermill_schemas::{Event, Topic};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::{self, Rows};
use super::state::{Adjusted, Rebuilt};
use super::tables::{
    BALANCE_ENTRIES, BALANCES, COUPON_CLAIMS, COUPON_USES, COUPONS, ORDERS, PAYMENTS, PRODUCTS, SHIPMENTS,
    STOCK, STOCK_RESERVATIONS, USER_COUPONS,
};

/// Events of coupons that say which user's coupon they change; applied and returned are events of an order.
const CHANGES_USER_COUPONS: &str = "topic = 'coupons' AND type IN ('coupon.issued', 'coupon.applied', \
     'coupon.returned', 'coupon.expired', 'coupon.revoked')";
/// Which one that is.
const USER_COUPON: &str = "coalesce(convert_from(data, 'UTF8')::jsonb ->> 'user_coupon_id', \
     convert_from(data, 'UTF8')::jsonb #>> '{terms,user_coupon_id}')::uuid";

/// Begins to read the histories of users' coupons.
///
/// # Errors
/// Where the database fails.
pub async fn user_coupons(connection: &mut PgConnection, slice: Slice) -> Result<Histories, sqlx::Error> {
    let Slice { from, to } = slice;
    let within = format!("{CHANGES_USER_COUPONS} AND {USER_COUPON} >= '{from}' AND {USER_COUPON} <= '{to}'");
    Histories::open(connection, USER_COUPON, &within).await
}

/// What a page of events has brought to an end.
#[derive(Debug)]
pub struct Page {
    pub(super) rows: Rows,
    /// What was sold; where sales are asked for.
    pub(super) sums: Sums,
    /// Every history up to this id has ended; none has yet where it is absent.
    pub(super) upto: Option<Uuid>,
    /// Every entry of a balance up to this user and ordinal is among the rows: they do not wait for the end.
    pub(super) entries_upto: (Uuid, i32),
    /// Events that can't be decoded, in words.
    pub undecodable: Vec<String>,
}

/// Whose rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Aggregates,
    UserCoupons,
}

/// One aggregate on its way.
#[derive(Debug)]
struct Aggregate {
    id: Uuid,
    rebuilt: Rebuilt,
    /// An event came that is later than what is asked for.
    is_over: bool,
}

/// Folds the histories of a slice, as they come from [`Histories`].
pub struct Fold<'a> {
    subject: Subject,
    slice: Slice,
    /// What the worker that writes orders has applied.
    orders: &'a Applied,
    /// What the worker that counts sales has applied, where that is asked for.
    sales: Option<&'a Applied>,
    until: Option<Timestamp>,
    current: Option<Aggregate>,
    page: Page,
    totals: Totals,
    first_at: Option<Timestamp>,
}

impl<'a> Fold<'a> {
    /// Folds aggregates; an answer shows in its order if the worker that writes orders has applied it.
    #[must_use]
    pub fn of_aggregates(slice: Slice, orders: &'a Applied) -> Fold<'a> {
        Fold {
            subject: Subject::Aggregates,
            slice,
            orders,
            sales: None,
            until: None,
            current: None,
            page: empty_page(slice),
            totals: Totals::default(),
            first_at: None,
        }
    }

    /// Folds the histories of [`user_coupons`].
    #[must_use]
    pub fn of_user_coupons(slice: Slice, orders: &'a Applied) -> Fold<'a> {
        Fold { subject: Subject::UserCoupons, ..Fold::of_aggregates(slice, orders) }
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

    /// When the earliest event happened that was met, whether or not it is later than what is asked for.
    #[must_use]
    pub fn first_at(&self) -> Option<Timestamp> {
        self.first_at
    }

    /// The next event of that owner.
    pub fn take(&mut self, owner: Uuid, logged: &LoggedEvent) {
        if self.current.as_ref().is_none_or(|current| current.id != owner) {
            self.end();
        }
        let current = self.current.get_or_insert_with(|| Aggregate {
            id: owner,
            rebuilt: Rebuilt::default(),
            is_over: false,
        });
        self.first_at = Some(self.first_at.map_or(logged.at, |first| first.min(logged.at)));
        current.is_over |= self.until.is_some_and(|until| logged.at > until);
        if current.is_over {
            return;
        }
        let event = match logged.event() {
            Ok(event) => event,
            Err(error) => {
                self.page.undecodable.push(format!("log position {}: {error}", logged.position));
                return;
            }
        };
        current.rebuilt.evolve(&event, logged.at, self.orders.includes(logged));
        if self.subject == Subject::UserCoupons {
            return;
        }
        if event.topic() == Topic::Balances {
            let sequence =
                current.rebuilt.payments.balances.get(&owner).map_or(0, |balance| balance.sequence);
            if let Some(entry) = rows::balance_entry(logged, &event, sequence) {
                self.page.rows.push(&BALANCE_ENTRIES, entry);
            }
        }
        if event.topic() == Topic::Orders && self.sales.is_some_and(|applied| applied.includes(logged)) {
            self.page.sums.observe(&event, logged.at);
        }
        self.note_issued(&event);
    }

    /// A coupon counts the places that its claims were given.
    fn note_issued(&mut self, event: &Event) {
        if let Event::CouponIssued(e) = event {
            let issued = self.totals.issued.entry(e.coupon_id).or_default();
            *issued = e.position.max(*issued);
        }
    }

    /// What has come to an end since the last page.
    pub fn page(&mut self) -> Page {
        let slice = self.slice;
        if let Some(Aggregate { id, rebuilt, .. }) = &self.current {
            let before = id.as_u128().checked_sub(1).map(Uuid::from_u128);
            self.page.upto = before.filter(|before| *before >= slice.from);
            let entries = rebuilt.payments.balances.get(id).map_or(0, |balance| balance.sequence);
            self.page.entries_upto = (*id, entries);
        }
        std::mem::replace(&mut self.page, empty_page(slice))
    }

    /// The last page, which reaches to the end of the slice, and what is counted over all histories.
    #[must_use]
    pub fn finish(mut self) -> (Page, Totals) {
        self.end();
        self.page.upto = Some(self.slice.to);
        self.page.entries_upto = (self.slice.to, i32::MAX);
        (self.page, self.totals)
    }

    /// The history under way has ended: its states become rows.
    fn end(&mut self) {
        let Some(Aggregate { rebuilt, .. }) = self.current.take() else { return };
        match self.subject {
            Subject::Aggregates => self.push_aggregate(rebuilt),
            Subject::UserCoupons => {
                for (id, coupon) in &rebuilt.coupons.user_coupons {
                    self.page.rows.push(&USER_COUPONS, rows::user_coupon(*id, coupon));
                }
            }
        }
    }

    fn push_aggregate(&mut self, rebuilt: Rebuilt) {
        let (page, times) = (&mut self.page.rows, |topic| rebuilt.times.get(&topic));
        for order in rebuilt.orders.orders.values() {
            page.push(&ORDERS, rows::order(order, times(Topic::Orders)));
        }
        for shipment in rebuilt.shipments.values() {
            page.push(&SHIPMENTS, rows::shipment(shipment));
        }
        for (order_id, reservation) in &rebuilt.stock.reservations {
            page.push(&STOCK_RESERVATIONS, rows::reservation(*order_id, reservation));
        }
        for (order_id, payment) in &rebuilt.payments.payments {
            if let Some(row) = rows::payment(*order_id, payment, times(Topic::Payments)) {
                page.push(&PAYMENTS, row);
            }
        }
        for (order_id, used) in &rebuilt.coupons.uses {
            page.push(&COUPON_USES, rows::coupon_use(*order_id, used));
        }
        for (user_id, balance) in &rebuilt.payments.balances {
            page.push(&BALANCES, rows::balance(*user_id, balance, times(Topic::Balances)));
        }
        for product in rebuilt.products.values() {
            page.push(&PRODUCTS, rows::product(product, times(Topic::Products)));
        }
        for (claim_id, claim) in &rebuilt.coupons.claims {
            page.push(&COUPON_CLAIMS, rows::claim(*claim_id, claim));
        }
        self.totals.take(rebuilt);
    }
}

fn empty_page(slice: Slice) -> Page {
    Page {
        rows: Rows::default(),
        sums: Sums::default(),
        upto: None,
        entries_upto: (slice.from, i32::MIN),
        undecodable: Vec::new(),
    }
}

/// Where the units of a product are, and what of them came from outside.
#[derive(Clone, Copy, Debug, Default)]
struct Units {
    on_hand: i64,
    reserved: i64,
    deducted: i64,
    adjusted: Adjusted,
}

/// A coupon as it was put up.
#[derive(Debug)]
struct PutUp {
    coupon: Coupon,
    name: String,
    at: Timestamp,
}

/// What is counted over many histories: units of products, places of coupons.
#[derive(Debug, Default)]
pub struct Totals {
    units: BTreeMap<Uuid, Units>,
    coupons: BTreeMap<Uuid, PutUp>,
    issued: BTreeMap<Uuid, i32>,
}

impl Totals {
    fn take(&mut self, rebuilt: Rebuilt) {
        for (product_id, shelf) in rebuilt.stock.shelves {
            let units = self.units.entry(product_id).or_default();
            units.on_hand += shelf.on_hand;
            units.reserved += shelf.reserved;
            units.deducted += shelf.deducted;
        }
        for (product_id, Adjusted { received, count }) in rebuilt.adjusted {
            let adjusted = &mut self.units.entry(product_id).or_default().adjusted;
            adjusted.received += received;
            adjusted.count += count;
        }
        let (mut names, times) = (rebuilt.coupon_names, rebuilt.times.get(&Topic::Coupons));
        for (coupon_id, coupon) in rebuilt.coupons.coupons {
            let Some((name, times)) = names.remove(&coupon_id).zip(times) else { continue };
            self.coupons.insert(coupon_id, PutUp { coupon, name, at: times.first });
        }
    }

    /// Adds what another slice has counted.
    pub fn add(&mut self, other: Totals) {
        for (product_id, units) in other.units {
            let sum = self.units.entry(product_id).or_default();
            sum.on_hand += units.on_hand;
            sum.reserved += units.reserved;
            sum.deducted += units.deducted;
            sum.adjusted.received += units.adjusted.received;
            sum.adjusted.count += units.adjusted.count;
        }
        self.coupons.extend(other.coupons);
        for (coupon_id, position) in other.issued {
            let issued = self.issued.entry(coupon_id).or_default();
            *issued = position.max(*issued);
        }
    }

    /// The rows of stock and coupons, as a page that reaches from the first id to the last.
    #[must_use]
    pub fn into_page(self) -> Page {
        let mut page = Page { upto: Some(Uuid::max()), ..empty_page(Slice::ALL) };
        for (product_id, units) in self.units {
            let row = json!({
                "product_id": product_id,
                "on_hand": units.on_hand,
                "reserved": units.reserved,
                "deducted": units.deducted,
                "received": units.adjusted.received,
                "sequence": units.adjusted.count,
            });
            page.rows.push(&STOCK, row);
        }
        // It stands in the tables from the beginning.
        let welcome =
            PutUp { coupon: Coupon::welcome(), name: "Welcome".to_owned(), at: Timestamp::UNIX_EPOCH };
        for (coupon_id, PutUp { coupon, name, at }) in std::iter::once((WELCOME, welcome)).chain(self.coupons)
        {
            let issued = self.issued.get(&coupon_id).copied().unwrap_or(0);
            page.rows.push(&COUPONS, rows::coupon(coupon_id, &name, &Coupon { issued, ..coupon }, at));
        }
        page
    }
}

#[cfg(test)]
mod tests;
