use jiff::SignedDuration;
use ordermill_domain::coupons::WELCOME;
use ordermill_schemas::Event;
use ordermill_schemas::balances::{BalanceCharged, BalanceOpened};
use ordermill_schemas::coupons::{CouponDiscount, CouponIssued};
use ordermill_schemas::orders::{OrderPlaced, PaymentMethod};
use ordermill_schemas::products::ProductCreated;
use ordermill_schemas::stock::{StockAdjusted, StockLine, StockReleased, StockReserved};
use serde_json::Value;

use super::*;

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

/// What each row of a table has there, in the order of their keys.
fn column(page: &Page, table: &str, path: &str) -> Vec<Value> {
    page.rows(table).unwrap().values().map(|row| row.pointer(path).cloned().unwrap_or_default()).collect()
}

fn keys(page: &Page, table: &str) -> Vec<Uuid> {
    page.rows(table).unwrap().into_keys().collect()
}

#[test]
fn a_history_becomes_a_row_when_it_ends() {
    let applied = Applied::default();
    let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
    take(&mut fold, [logged(1, BalanceOpened { user_id: id(7) }), charged(2, 7, 5)]);
    let first = fold.page();
    assert_eq!((first.upto, keys(&first, "balances").len()), (Some(id(6)), 0));
    take(&mut fold, [charged(3, 7, 10), logged(4, BalanceOpened { user_id: id(9) })]);
    let second = fold.page();
    assert_eq!(second.upto, Some(id(8)));
    assert_eq!(column(&second, "balances", "/state/available"), [10]);
    let last = fold.last_page();
    assert_eq!(last.upto, Some(Uuid::max()));
    assert_eq!(keys(&last, "balances"), [id(9)]);
}

#[test]
fn however_long_the_log_is_no_more_is_kept_than_its_last_page_has() {
    let applied = Applied::default();
    let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
    for page in 0..50_u128 {
        let users = (1 + page * 100)..=(page * 100 + 100);
        take(&mut fold, users.map(|user| logged(1, BalanceOpened { user_id: id(user) })));
        assert!(keys(&fold.page(), "balances").len() <= 100);
        assert!(fold.page.documents.is_empty());
        let Totals { shelves, coupons, issued } = &fold.totals;
        assert_eq!((shelves.len(), coupons.len(), issued.len()), (0, 0, 0));
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
    assert_eq!(fold.first_at, Some(at(1)));
    let page = fold.last_page();
    assert_eq!(keys(&page, "balances"), [id(7), id(9)]);
    assert_eq!(column(&page, "balances", "/state/available"), [5, 0]);
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
        fold.last_page();
        totals.add(fold.into_totals());
    }
    let expected =
        serde_json::json!({"on_hand": 6, "reserved": 2, "deducted": 0, "received": 8, "sequence": 2});
    assert_eq!(column(&totals.into_page().unwrap(), "stock", "/state"), [expected]);
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
        fold.last_page();
        totals.add(fold.into_totals());
    }
    assert_eq!(column(&totals.into_page().unwrap(), "coupons", "/state/issued"), [4]);
}

#[test]
fn an_answer_shows_in_its_order_only_if_the_worker_of_orders_has_applied_it() {
    let placed = OrderPlaced {
        order_id: id(21),
        user_id: id(7),
        lines: Vec::new(),
        payment_method: PaymentMethod::Balance,
        user_coupon_id: None,
        subtotal: 700,
        discounts: Vec::new(),
        total: 700,
        deadline_at: NOW,
    };
    let lines = vec![StockLine { product_id: id(5), quantity: 2 }];
    for (upto, stock) in [(2, "RESERVED"), (1, "ASKED")] {
        let applied = Applied::default().and_upto("stock", 0, upto);
        let mut fold = Fold::of_aggregates(Slice::ALL, &applied);
        let reserved = StockReserved { order_id: id(21), lines: lines.clone() };
        take(&mut fold, [logged(1, placed.clone()), logged(2, reserved)]);
        let page = fold.last_page();
        assert_eq!(column(&page, "orders", "/state/stock"), [stock]);
        assert_eq!(column(&page, "stock_reservations", "/bulk/0/quantity"), [2]);
    }
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
