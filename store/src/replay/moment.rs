//! One aggregate as it was at some moment.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use ordermill_pipeline::audit::{Applied, Histories, Slice};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

use super::difference::key;
use super::fold::{Fold, Page, user_coupons};
use super::tables::{
    BALANCES, COUPON_CLAIMS, COUPONS, ORDERS, PAYMENTS, PRODUCTS, SHIPMENTS, STOCK, STOCK_RESERVATIONS,
    Table, USER_COUPONS,
};

/// What kind of aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Order,
    Reservation,
    Payment,
    Shipment,
    Balance,
    Product,
    Stock,
    Coupon,
    Claim,
    UserCoupon,
}

/// The names of the kinds, as they are asked for; a balance has that of its user, too.
const KINDS: [(&str, Kind); 11] = [
    ("order", Kind::Order),
    ("reservation", Kind::Reservation),
    ("payment", Kind::Payment),
    ("shipment", Kind::Shipment),
    ("balance", Kind::Balance),
    ("user", Kind::Balance),
    ("product", Kind::Product),
    ("stock", Kind::Stock),
    ("coupon", Kind::Coupon),
    ("claim", Kind::Claim),
    ("user-coupon", Kind::UserCoupon),
];

/// An aggregate, written `order:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    name: &'static str,
    kind: Kind,
    id: Uuid,
}

/// The text names no aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotASubject {
    /// It has no colon.
    #[error("not of the form KIND:ID, like order:01930000-0000-7000-8000-000000000001")]
    Form,
    /// There is no such kind.
    #[error("there is no kind {0:?}; there are {kinds}", kinds = KINDS.map(|(name, _)| name).join(", "))]
    Kind(String),
    /// The id is none.
    #[error("{0:?} is no id; ids look like 01930000-0000-7000-8000-000000000001")]
    Id(String),
}

impl FromStr for Subject {
    type Err = NotASubject;

    fn from_str(text: &str) -> Result<Subject, NotASubject> {
        let (kind, id) = text.split_once(':').ok_or(NotASubject::Form)?;
        let known = KINDS.into_iter().find(|(name, _)| *name == kind);
        let (name, kind) = known.ok_or_else(|| NotASubject::Kind(kind.to_owned()))?;
        let id = id.parse().map_err(|_| NotASubject::Id(id.to_owned()))?;
        Ok(Subject { name, kind, id })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.id)
    }
}

impl Subject {
    /// The table that it stands in.
    fn table(self) -> &'static Table {
        match self.kind {
            Kind::Order => &ORDERS,
            Kind::Reservation => &STOCK_RESERVATIONS,
            Kind::Payment => &PAYMENTS,
            Kind::Shipment => &SHIPMENTS,
            Kind::Balance => &BALANCES,
            Kind::Product => &PRODUCTS,
            Kind::Stock => &STOCK,
            Kind::Coupon => &COUPONS,
            Kind::Claim => &COUPON_CLAIMS,
            Kind::UserCoupon => &USER_COUPONS,
        }
    }

    /// The events that it comes from. A history by an aggregate's id is found by an index; a shelf, a coupon's claims and
    /// a shipment's order are looked for in the whole log.
    async fn histories(self, connection: &mut PgConnection) -> Result<Histories, sqlx::Error> {
        let id = self.id;
        let condition = match self.kind {
            Kind::UserCoupon => return user_coupons(connection, Slice::of(id)).await,
            Kind::Stock => format!(
                "(aggregate_id = '{id}' OR topic = 'stock' AND aggregate_id IN (
                     SELECT aggregate_id FROM event_log
                     WHERE topic = 'stock' AND position('{id}'::text::bytea IN data) > 0))"
            ),
            Kind::Coupon => format!("(aggregate_id = '{id}' OR topic = 'coupons' AND key = '{id}')"),
            Kind::Shipment => format!(
                "topic = 'orders' AND aggregate_id IN (
                     SELECT aggregate_id FROM event_log
                     WHERE type IN ('order.partially_shipped', 'order.shipped')
                         AND position('{id}'::text::bytea IN data) > 0)"
            ),
            Kind::Order | Kind::Reservation | Kind::Payment | Kind::Balance | Kind::Product | Kind::Claim => {
                return Histories::of_aggregates(connection, Slice::of(id)).await;
            }
        };
        Histories::open(connection, "aggregate_id", &condition).await
    }
}

/// What the log says of an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Its columns; those that are NULL are left out.
    Known(Map<String, Value>),
    /// It begins only later.
    BeginsAt(Timestamp),
    /// There is no event of it.
    Unknown,
}

/// An aggregate as of `until`: as its events up to then make it. An answer shows in its order from the time of the
/// answer on, if the worker that writes orders has applied it by now.
///
/// # Errors
/// Where the database fails, or an event of it can't be decoded.
pub async fn state_at(
    connection: &mut PgConnection,
    subject: Subject,
    until: Timestamp,
    applied: &Applied,
) -> Result<State, sqlx::Error> {
    let mut histories = subject.histories(&mut *connection).await?;
    let slice = Slice::ALL;
    let fold = match subject.kind {
        Kind::UserCoupon => Fold::of_user_coupons(slice, applied),
        _ => Fold::of_aggregates(slice, applied),
    };
    let mut fold = fold.until(Some(until));
    let mut found = None;
    loop {
        let events = histories.next(&mut *connection).await?;
        if events.is_empty() {
            break;
        }
        events.iter().for_each(|(owner, logged)| fold.take(*owner, logged));
        found = row_in(subject, fold.page())?.or(found);
    }
    histories.close(connection).await?;
    let first_at = fold.first_at();
    let (page, totals) = fold.finish();
    found = row_in(subject, page)?.or(found);
    found = row_in(subject, totals.into_page())?.or(found);
    Ok(match (found, first_at) {
        (Some(row), _) => State::Known(row),
        (None, Some(first)) if first > until => State::BeginsAt(first),
        (None, _) => State::Unknown,
    })
}

fn row_in(subject: Subject, mut page: Page) -> Result<Option<Map<String, Value>>, sqlx::Error> {
    if let Some(text) = page.undecodable.pop() {
        return Err(sqlx::Error::Decode(text.into()));
    }
    let (table, id) = (subject.table(), subject.id.to_string());
    Ok(page.rows.take(table).into_iter().find(|row| key(table, row) == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01930000-0000-7000-8000-000000000001";

    #[test]
    fn a_subject_reads_back_as_written() {
        for (name, _) in KINDS {
            let text = format!("{name}:{ID}");
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_no_aggregate_is_refused_with_what_there_is() {
        assert_eq!(ID.parse::<Subject>(), Err(NotASubject::Form));
        let kind = format!("cup:{ID}").parse::<Subject>().unwrap_err().to_string();
        assert!(
            kind.contains("\"cup\"") && kind.contains("order, ") && kind.contains("user-coupon"),
            "{kind}"
        );
        assert_eq!("order:7".parse::<Subject>(), Err(NotASubject::Id("7".to_owned())));
    }
}
