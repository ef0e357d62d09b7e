//! What is counted over many histories: where the units of a product are, how many of a coupon are issued.

use std::collections::BTreeMap;
use std::mem;

use ordermill_domain::aggregate::{DocumentError, Documents as _};
use ordermill_domain::coupons::{Coupon, Coupons, WELCOME};
use ordermill_domain::stock::{Shelf, Stock};
use ordermill_pipeline::audit::Slice;
use uuid::Uuid;

use super::capabilities::Rebuilt;
use super::page::Page;

/// What is counted over many histories.
#[derive(Debug, Default)]
pub struct Totals {
    pub(super) shelves: BTreeMap<Uuid, Shelf>,
    pub(super) coupons: BTreeMap<Uuid, Coupon>,
    /// The highest place that a claim was given, by coupon.
    pub(super) issued: BTreeMap<Uuid, i32>,
}

impl Totals {
    /// Takes what a history that has ended adds to the counts out of it.
    pub(super) fn take(&mut self, rebuilt: &mut Rebuilt) {
        let places =
            rebuilt.coupons.claims.values().filter_map(|claim| Some((claim.coupon_id, claim.position?)));
        self.add(Totals {
            issued: places.collect(),
            shelves: mem::take(&mut rebuilt.stock.shelves),
            coupons: mem::take(&mut rebuilt.coupons.coupons),
        });
    }

    /// Adds what another slice has counted.
    pub fn add(&mut self, other: Totals) {
        for (product_id, moved) in other.shelves {
            let shelf = self.shelves.entry(product_id).or_default();
            shelf.on_hand += moved.on_hand;
            shelf.reserved += moved.reserved;
            shelf.deducted += moved.deducted;
            shelf.received += moved.received;
            shelf.sequence += moved.sequence;
        }
        self.coupons.extend(other.coupons);
        for (coupon_id, place) in other.issued {
            let issued = self.issued.entry(coupon_id).or_default();
            *issued = place.max(*issued);
        }
    }

    /// The documents of shelves and coupons, as a page that reaches from the first id to the last.
    ///
    /// # Errors
    /// [`DocumentError::Unwritable`].
    pub fn into_page(self) -> Result<Page, DocumentError> {
        let mut page = Page { upto: Some(Slice::ALL.to), ..Page::default() };
        let stock = Stock { shelves: self.shelves, ..Stock::default() };
        page.add(stock.changes(&Stock::default())?);
        // It stands in the tables from the beginning.
        let welcome = (WELCOME, Coupon::welcome());
        let mut coupons =
            Coupons { coupons: self.coupons.into_iter().chain([welcome]).collect(), ..Coupons::default() };
        for (coupon_id, coupon) in &mut coupons.coupons {
            coupon.issued = self.issued.get(coupon_id).copied().unwrap_or(0);
        }
        page.add(coupons.changes(&Coupons::default())?);
        Ok(page)
    }
}
