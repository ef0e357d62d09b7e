//! One aggregate as it was at some moment.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use ordermill_domain::aggregate::{Aggregate as _, Document, Kind, MadeOf};
use ordermill_domain::coupons::{Coupon, UserCoupon};
use ordermill_domain::kinds;
use ordermill_domain::payments::Balance;
use ordermill_domain::shipments::Shipment;
use ordermill_domain::stock::Shelf;
use ordermill_pipeline::audit::{Applied, Histories, Slice};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

use super::fold::Fold;
use super::page::Page;
use super::pass::{Pass, unwritable, user_coupons};

/// What a balance is asked for by, besides its name: it has the id of its user.
const USER: &str = "user";

/// What can be asked for: a name, and the kind of aggregate.
fn names() -> impl Iterator<Item = (&'static str, &'static Kind)> {
    kinds().flat_map(|kind| {
        let alias = (kind.noun == Balance::NOUN).then_some((USER, kind));
        [(kind.name, kind)].into_iter().chain(alias)
    })
}

/// An aggregate, written `order:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    name: &'static str,
    kind: &'static Kind,
    id: Uuid,
}

/// The text names no aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotASubject {
    /// It has no colon.
    #[error("not of the form KIND:ID, like order:01930000-0000-7000-8000-000000000001")]
    Form,
    /// There is no such kind.
    #[error("there is no kind {0:?}; there are {kinds}", kinds = names().map(|(name, _)| name).collect::<Vec<_>>().join(", "))]
    Kind(String),
    /// The id is none.
    #[error("{0:?} is no id; ids look like 01930000-0000-7000-8000-000000000001")]
    Id(String),
}

impl FromStr for Subject {
    type Err = NotASubject;

    fn from_str(text: &str) -> Result<Subject, NotASubject> {
        let (name, id) = text.split_once(':').ok_or(NotASubject::Form)?;
        let known = names().find(|(known, _)| *known == name);
        let (name, kind) = known.ok_or_else(|| NotASubject::Kind(name.to_owned()))?;
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
    /// The events that it comes from. A history by an aggregate's id is found by an index; a shelf, a coupon's claims and
    /// a shipment's order are looked for in the whole log.
    async fn histories(self, connection: &mut PgConnection) -> Result<Histories, sqlx::Error> {
        let id = self.id;
        let condition = match self.kind.noun {
            UserCoupon::NOUN => return user_coupons(connection, Slice::of(id)).await,
            Shelf::NOUN => format!(
                "(aggregate_id = '{id}' OR topic = 'stock' AND aggregate_id IN (
                     SELECT aggregate_id FROM event_history
                     WHERE topic = 'stock' AND position('{id}'::text::bytea IN data) > 0))"
            ),
            Coupon::NOUN => format!("(aggregate_id = '{id}' OR topic = 'coupons' AND key = '{id}')"),
            Shipment::NOUN => format!(
                "topic = 'orders' AND aggregate_id IN (
                     SELECT aggregate_id FROM event_history
                     WHERE type IN ('order.partially_shipped', 'order.shipped')
                         AND position('{id}'::text::bytea IN data) > 0)"
            ),
            _ => return Histories::of_aggregate(connection, id).await,
        };
        Histories::open(connection, "aggregate_id", &condition, Slice::ALL).await
    }

    /// Its document, where it is on the page.
    fn document_on(self, page: &Page) -> Result<Option<Map<String, Value>>, sqlx::Error> {
        if let Some(text) = page.undecodable.last() {
            return Err(sqlx::Error::Decode(text.as_str().into()));
        }
        let mut documents = page.documents.get(self.kind.noun).into_iter().flatten();
        let document = documents.find(|document| document.key == self.id);
        document.map(whole).transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }
}

/// A document with its bulk as one of its members.
fn whole(document: &Document) -> Result<Map<String, Value>, serde_json::Error> {
    let mut members: Map<String, Value> = serde_json::from_str(&document.state)?;
    if let Some((member, bulk)) = document.kind.bulk.zip(document.bulk.as_deref()) {
        members.insert(member.to_owned(), serde_json::from_str(bulk)?);
    }
    Ok(members)
}

/// What the log says of an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The members of its document.
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
    let histories = subject.histories(&mut *connection).await?;
    let fold = match subject.kind.made_of {
        MadeOf::SeveralHistories => Fold::of_user_coupons(Slice::ALL, applied),
        MadeOf::OneHistory | MadeOf::Sums => Fold::of_aggregates(Slice::ALL, applied),
    };
    let mut pass = Pass::over(histories, fold.until(Some(until)));
    let mut found = None;
    while let Some(page) = pass.next(&mut *connection).await? {
        found = subject.document_on(&page)?.or(found);
    }
    let first_at = pass.fold.first_at;
    let (totals, _) = pass.finish();
    found = subject.document_on(&totals.into_page().map_err(unwritable)?)?.or(found);
    Ok(match (found, first_at) {
        (Some(document), _) => State::Known(document),
        (None, Some(first)) if first > until => State::BeginsAt(first),
        (None, _) => State::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01930000-0000-7000-8000-000000000001";

    #[test]
    fn a_subject_reads_back_as_written() {
        for (name, _) in names() {
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
