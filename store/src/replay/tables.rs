//! The tables that are made again from the log, and what of them the log does not know.

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::coupons::{Claim, Coupon, CouponUse, UserCoupon};
use ordermill_domain::orders::Order;
use ordermill_domain::payments::{Balance, Payment};
use ordermill_domain::shipments::Shipment;
use ordermill_domain::stock::{Reservation, Shelf};

use crate::TABLES;

/// What rows are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Each from the history of one aggregate.
    Aggregates,
    /// Each from the history of a user's coupon, which is events of several aggregates.
    UserCoupons,
    /// Each counts what is in many histories.
    Totals,
}

/// A table that is made again from the log.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The columns of its primary key.
    pub key: &'static [&'static str],
    /// The columns that are compared, as one value.
    pub(super) row: &'static str,
    /// The aggregate whose history its rows come from.
    pub(super) owner: &'static str,
    /// What its rows are made from; of projections absent.
    pub(super) source: Option<Source>,
    /// What a summary counts its rows by.
    pub(super) state: Option<&'static str>,
    /// What a summary adds up, by name.
    pub(super) sums: &'static [(&'static str, &'static str)],
}

/// The columns of a table of state that can't be made from the log, with the reason; they are not compared. Generated columns
/// are functions of those that are.
pub const NOT_IN_THE_LOG: [(&str, &str); 1] = [(
    "version",
    "counts how often the row was written, and a batch writes it once however many events it has",
)];

/// The sum of a member of a payment's charges, as SQL.
macro_rules! of_charges {
    ($member:literal) => {
        concat!(
            "(SELECT sum((charge ->> '",
            $member,
            "')::bigint)
              FROM jsonb_array_elements(state -> 'charges') AS charge)"
        )
    };
}

const SALES: Table = Table {
    name: "sales",
    key: &["level", "category", "product_id", "bucket"],
    row: "to_jsonb(t)",
    owner: "product_id",
    source: None,
    state: Some("level"),
    // The other levels say the same once more.
    sums: &[
        ("quantity", "CASE level WHEN 'ALL' THEN quantity END"),
        ("revenue", "CASE level WHEN 'ALL' THEN revenue END"),
        ("orders", "CASE level WHEN 'ALL' THEN orders END"),
    ],
};

/// Every table that is made again: those of state, then the sums of sales.
pub fn tables() -> impl Iterator<Item = Table> {
    TABLES.iter().map(|table| of_state(table.name)).chain([SALES])
}

/// The tables whose rows are made from `source`.
pub(super) fn made_from(source: Source) -> impl Iterator<Item = Table> {
    tables().filter(move |table| table.source == Some(source))
}

/// What of a table of state is not as it mostly is.
pub(super) fn of_state(noun: &'static str) -> Table {
    let table = Table {
        name: noun,
        key: &["key"],
        row: "jsonb_build_object('state', state, 'bulk', bulk)",
        owner: "key",
        source: Some(Source::Aggregates),
        state: None,
        sums: &[],
    };
    match noun {
        Order::NOUN => Table {
            state: Some("status"),
            sums: &[("total", "(bulk ->> 'total')::bigint"), ("paid", "paid"), ("refunded", "refunded")],
            ..table
        },
        Shipment::NOUN => Table { owner: "order_id", ..table },
        Reservation::NOUN | CouponUse::NOUN => Table { state: Some("state ->> 'state'"), ..table },
        Payment::NOUN => Table {
            state: Some("state #>> '{charges,-1,state}'"),
            sums: &[("amount", of_charges!("amount")), ("refunded", of_charges!("refunded"))],
            ..table
        },
        Balance::NOUN => Table { sums: &[("available", "available"), ("held", "held")], ..table },
        Claim::NOUN => Table { state: Some("status"), ..table },
        UserCoupon::NOUN => Table { source: Some(Source::UserCoupons), state: Some("status"), ..table },
        Coupon::NOUN => Table { source: Some(Source::Totals), sums: &[("issued", "issued")], ..table },
        Shelf::NOUN => Table {
            source: Some(Source::Totals),
            sums: &[
                ("on_hand", "on_hand"),
                ("reserved", "reserved"),
                ("deducted", "deducted"),
                ("received", "received"),
            ],
            ..table
        },
        _ => table,
    }
}
