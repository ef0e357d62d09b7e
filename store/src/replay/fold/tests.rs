use jiff::SignedDuration;
use ordermill_schemas::balances::{BalanceCharged, BalanceOpened};
use ordermill_schemas::coupons::{CouponDiscount, CouponIssued};
use ordermill_schemas::products::ProductCreated;
use ordermill_schemas::stock::{StockAdjusted, StockLine, StockReleased, StockReserved};
use serde_json::Value;

use super::*;
use crate::replay::difference::Row;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn at(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

fn logged(position: i64, event: impl Into<Event>) -> (Uuid, LoggedEvent) {
    let event = event.into();
    let logged = LoggedEvent {
        position,
        event_id: id(1_000 + position.unsigned_abs() as u128),
        topic: event.topic().name().to_owned(),
        partition: 0,
        event_type: event.name().to_owned(),
        version: event.version(),
        at: at(position),
        data: event.encode().unwrap(),
    };
    (event.aggregate_id(), logged)
}

fn charged(position: i64, user: u128, available: i64) -> (Uuid, LoggedEvent) {
    logged(position, BalanceCharged { user_id: id(user), amount: 5, available, held: 0 })
}

fn take(fold: &mut Fold<'_>, events: impl IntoIterator<Item = (Uuid, LoggedEvent)>) {
    for (owner, event) in events {
        fold.take(owner, &event);
    }
}

fn column(rows: &[Row], column: &str) -> Vec<Value> {
    rows.iter().map(|row| row.get(column).cloned().unwrap_or_default()).collect()
}

#[test]
fn a_history_becomes_a_row_when_it_ends_but_its_entries_do_not_wait_for_that() {
    let applied = Applied::default();
    let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
    take(&mut fold, [logged(1, BalanceOpened { user_id: id(7) }), charged(2, 7, 5)]);
    let first = fold.page();
    assert_eq!((first.upto, first.entries_upto), (Some(id(6)), (id(7), 2)));
    assert_eq!((first.rows.of(&BALANCES).len(), first.rows.of(&BALANCE_ENTRIES).len()), (0, 1));
    take(&mut fold, [charged(3, 7, 10), logged(4, BalanceOpened { user_id: id(9) })]);
    let second = fold.page();
    assert_eq!((second.upto, second.entries_upto), (Some(id(8)), (id(9), 1)));
    assert_eq!(column(second.rows.of(&BALANCES), "available"), [10]);
    assert_eq!(column(second.rows.of(&BALANCE_ENTRIES), "sequence"), [3]);
    let (last, _) = fold.finish();
    assert_eq!((last.upto, last.entries_upto), (Some(Uuid::max()), (Uuid::max(), i32::MAX)));
    assert_eq!(column(last.rows.of(&BALANCES), "user_id"), [id(9).to_string()]);
}

#[test]
fn however_long_the_log_is_no_more_is_kept_than_its_last_page_has() {
    let applied = Applied::default();
    let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
    for page in 0..50_u128 {
        let users = (1 + page * 100)..=(page * 100 + 100);
        take(&mut fold, users.map(|user| logged(1, BalanceOpened { user_id: id(user) })));
        assert!(fold.page().rows.of(&BALANCES).len() <= 100);
        assert!(fold.page.rows.of(&BALANCES).is_empty());
        assert_eq!((fold.totals.units.len(), fold.totals.coupons.len(), fold.totals.issued.len()), (0, 0, 0));
    }
}

#[test]
fn a_history_is_left_at_its_first_event_that_is_too_late_and_others_are_not() {
    let applied = Applied::default();
    let mut fold = Fold::of_aggregates(Slice::ALL, &applied).until(Some(at(2)));
    let (_, mut earlier_clock) = charged(4, 7, 15);
    earlier_clock.at = at(1);
    take(&mut fold, [logged(1, BalanceOpened { user_id: id(7) }), charged(2, 7, 5), charged(3, 7, 10)]);
    take(&mut fold, [(id(7), earlier_clock), logged(9, BalanceOpened { user_id: id(8) })]);
    take(&mut fold, [logged(2, BalanceOpened { user_id: id(9) })]);
    assert_eq!(fold.first_at(), Some(at(1)));
    let (page, _) = fold.finish();
    assert_eq!(column(page.rows.of(&BALANCES), "user_id"), [id(7).to_string(), id(9).to_string()]);
    assert_eq!(column(page.rows.of(&BALANCES), "available"), [5, 0]);
}

#[test]
fn a_shelf_is_the_sum_of_what_orders_and_adjustments_in_any_slice_moved() {
    let applied = Applied::default();
    let lines = |quantity| vec![StockLine { product_id: id(5), quantity }];
    let slices = [
        vec![
            logged(
                1,
                ProductCreated {
                    product_id: id(5),
                    name: "Cup".to_owned(),
                    description: String::new(),
                    category: "KITCHEN".to_owned(),
                    price: 300,
                },
            ),
            logged(2, StockAdjusted { product_id: id(5), delta: 9, reason: String::new() }),
            logged(6, StockAdjusted { product_id: id(5), delta: -1, reason: String::new() }),
        ],
        vec![
            logged(3, StockReserved { order_id: id(21), lines: lines(2) }),
            logged(4, StockReserved { order_id: id(22), lines: lines(4) }),
            logged(5, StockReleased { order_id: id(22), lines: lines(4) }),
        ],
    ];
    let mut totals = Totals::default();
    for events in slices {
        let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
        take(&mut fold, events);
        totals.add(fold.finish().1);
    }
    let page = totals.into_page();
    let shelf =
        ["on_hand", "reserved", "deducted", "received", "sequence"].map(|c| column(page.rows.of(&STOCK), c));
    assert_eq!(shelf, [[6], [2], [0], [8], [2]]);
}

#[test]
fn a_coupon_counts_the_highest_place_that_any_slice_has_seen() {
    let applied = Applied::default();
    let issued = |position: i32| CouponIssued {
        claim_id: id(30 + position.unsigned_abs() as u128),
        coupon_id: WELCOME,
        user_id: id(7),
        user_coupon_id: id(40),
        position,
        issued_at: NOW,
        expires_at: NOW,
        discount: CouponDiscount::Percent(5),
        min_subtotal: 0,
    };
    let mut totals = Totals::default();
    for places in [[1, 4], [2, 3]] {
        let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
        take(&mut fold, places.map(|place| logged(place.into(), issued(place))));
        totals.add(fold.finish().1);
    }
    assert_eq!(column(totals.into_page().rows.of(&COUPONS), "issued"), [4]);
}

#[test]
fn an_event_that_can_not_be_decoded_is_told_with_its_position() {
    let applied = Applied::default();
    let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
    let (owner, mut event) = charged(17, 7, 5);
    event.data = b"{}".to_vec();
    fold.take(owner, &event);
    let undecodable = fold.page().undecodable;
    assert!(undecodable.len() == 1 && undecodable[0].starts_with("log position 17: "), "{undecodable:?}");
}
