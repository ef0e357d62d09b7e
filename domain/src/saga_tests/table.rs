//! Every step of every saga, repeated, delayed, failed, and overtaken by its deadline: the same agreement in the end.

use ordermill_schemas::orders::PaymentMethod;
use uuid::Uuid;

use super::world::{Call, Step, World, coupon, lines, order};
use crate::orders::{Order, OrderStatus, PaymentStep};

/// What a saga is about to do.
struct Scenario {
    name: &'static str,
    begin: fn(&mut World),
    /// How it ends where nothing goes wrong.
    ends: OrderStatus,
}

const METHODS: [PaymentMethod; 3] =
    [PaymentMethod::Balance, PaymentMethod::Card, PaymentMethod::BankTransfer];

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "placing", begin: |_| {}, ends: OrderStatus::Confirmed },
    Scenario {
        name: "cancelling",
        begin: |world| {
            world.settle();
            assert!(world.cancel(order(0)));
        },
        ends: OrderStatus::Cancelled,
    },
    Scenario {
        name: "modifying to more",
        begin: |world| {
            world.settle();
            assert!(world.modify(order(0), lines(&[(0, 3), (1, 1)])));
        },
        ends: OrderStatus::Confirmed,
    },
    Scenario {
        name: "modifying to less",
        begin: |world| {
            world.settle();
            assert!(world.modify(order(0), lines(&[(0, 1)])));
        },
        ends: OrderStatus::Confirmed,
    },
    Scenario {
        name: "modifying to something else of the same price",
        begin: |world| {
            world.settle();
            assert!(world.modify(order(0), lines(&[(2, 2)])));
        },
        ends: OrderStatus::Confirmed,
    },
    Scenario {
        name: "cancelling what was modified twice",
        begin: |world| {
            world.settle();
            assert!(world.modify(order(0), lines(&[(0, 4)])));
            world.settle();
            assert!(world.modify(order(0), lines(&[(0, 1), (1, 2)])));
            world.settle();
            assert!(world.cancel(order(0)));
        },
        ends: OrderStatus::Cancelled,
    },
];

/// What goes wrong at one step.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Repeated,
    /// Everything else that can happen happens first.
    Delayed,
    AnswerLost,
    CallLost,
    Declined,
    Overdue,
    OverdueAndAnswerLost,
}

const FAULTS: [Fault; 7] = [
    Fault::Repeated,
    Fault::Delayed,
    Fault::AnswerLost,
    Fault::CallLost,
    Fault::Declined,
    Fault::Overdue,
    Fault::OverdueAndAnswerLost,
];

fn started(scenario: &Scenario, method: PaymentMethod) -> World {
    started_with(scenario, method, None)
}

fn started_with(scenario: &Scenario, method: PaymentMethod, user_coupon_id: Option<Uuid>) -> World {
    let mut world = World::new(1_000, 5, false);
    world.place_with(order(0), lines(&[(0, 2)]), method, user_coupon_id);
    (scenario.begin)(&mut world);
    world
}

/// Goes so many steps, in the order in which things happened; whether there were that many.
fn walk(world: &mut World, steps: usize) -> bool {
    for _ in 0..steps {
        match world.steps().first() {
            Some(Step::Deliver(reader)) => world.deliver(*reader),
            Some(Step::Gateway(task)) => world.call(*task, Call::Answered, true),
            None => return false,
        }
    }
    !world.steps().is_empty()
}

fn break_step(world: &mut World, fault: Fault) {
    let steps = world.steps();
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    match (fault, first) {
        (Fault::Repeated, Step::Deliver(reader)) => {
            world.deliver(reader);
            world.deliver_again(reader, 0);
        }
        (Fault::Repeated, Step::Gateway(task)) => {
            world.call(task, Call::Answered, false);
            world.call(task, Call::Answered, true);
        }
        (Fault::Delayed, _) => match last {
            Step::Deliver(reader) => world.deliver(reader),
            Step::Gateway(task) => world.call(task, Call::Answered, true),
        },
        (Fault::AnswerLost, Step::Gateway(task)) => world.call(task, Call::AnswerLost, false),
        (Fault::CallLost, Step::Gateway(task)) => world.call(task, Call::Lost, false),
        (Fault::Declined, _) => world.declines = true,
        (Fault::Overdue, _) => {
            world.expire(order(0));
        }
        (Fault::OverdueAndAnswerLost, Step::Gateway(task)) => {
            world.call(task, Call::AnswerLost, false);
            world.expire(order(0));
        }
        _ => {}
    }
}

#[test]
fn every_scenario_ends_as_it_should_where_nothing_goes_wrong() {
    for (scenario, method) in SCENARIOS.iter().flat_map(|s| METHODS.map(|method| (s, method))) {
        let mut world = started(scenario, method);
        world.settle();
        assert_eq!(world.statuses(), [scenario.ends], "{} by {method:?}", scenario.name);
        world.assert_agreement();
    }
}

#[test]
fn every_step_of_every_scenario_may_be_repeated_delayed_or_failed() {
    let mut cases = 0;
    for (scenario, method) in SCENARIOS.iter().flat_map(|s| METHODS.map(|method| (s, method))) {
        for fault in FAULTS {
            for user_coupon_id in [None, Some(coupon(0))] {
                for step in 0.. {
                    let mut world = started_with(scenario, method, user_coupon_id);
                    if !walk(&mut world, step) {
                        break;
                    }
                    break_step(&mut world, fault);
                    world.settle();
                    world.assert_agreement();
                    cases += 1;
                }
            }
        }
    }
    assert!(cases > 1_000, "only {cases} cases");
}

#[test]
fn a_modification_that_is_refused_leaves_the_order_exactly_as_it_was() {
    // More than the balance covers, and more than the shelf has.
    for wanted in [lines(&[(0, 2), (1, 5), (2, 5)]), lines(&[(0, 2), (1, 6)])] {
        let mut world = started(&SCENARIOS[0], PaymentMethod::Balance);
        world.settle();
        let before = world.orders.orders[&order(0)].clone();
        let (stock, payments) = (world.stock.shelves.clone(), world.payments.balances.clone());
        assert!(world.modify(order(0), wanted));
        world.settle();
        world.assert_agreement();
        let after = &world.orders.orders[&order(0)];
        assert_eq!(
            (&after.purchase.lines, after.purchase.total, after.paid),
            (&before.purchase.lines, before.purchase.total, before.paid)
        );
        assert_eq!(after.status, OrderStatus::Confirmed);
        assert!(after.last_modification.is_some());
        assert_eq!(world.stock.shelves, stock);
        assert_eq!(world.payments.balances, payments);
    }
}

#[test]
fn a_modification_below_the_coupons_minimum_is_refused_and_the_coupon_stays_used() {
    let mut world = started_with(&SCENARIOS[0], PaymentMethod::Balance, Some(coupon(0)));
    world.settle();
    assert_eq!(world.orders.orders[&order(0)].purchase.total, 100);
    assert!(world.modify(order(0), lines(&[(0, 1)])));
    world.settle();
    world.assert_agreement();
    let after = &world.orders.orders[&order(0)];
    assert_eq!((after.status, after.purchase.total), (OrderStatus::Confirmed, 100));
    let failure = match &after.last_modification {
        Some(crate::orders::LastModification::Refused { failure }) => failure.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure, ordermill_schemas::orders::FailureCode::CouponNotUsable);
}

#[test]
fn an_order_whose_reserved_stock_has_vanished_is_paid_back_and_gives_back_what_is_left() {
    let mut world = started(&SCENARIOS[0], PaymentMethod::Balance);
    while !world.payments.payments.values().any(|payment| payment.task().is_some()) {
        assert!(walk(&mut world, 1));
    }
    let shelf = world.stock.shelves.get_mut(&super::world::product(0)).unwrap();
    assert_eq!(shelf.reserved, 2);
    shelf.reserved = 1;
    world.settle();
    assert_eq!(world.statuses(), [OrderStatus::Rejected]);
    assert_eq!(world.payments.balances.values().next().unwrap().available, 1_000);
    let shelf = &world.stock.shelves[&super::world::product(0)];
    assert_eq!((shelf.on_hand, shelf.reserved, shelf.deducted), (4, 0, 0));
}

/// A world in which the only order is paid and nobody has read of it, and that order.
fn paid() -> (World, Order) {
    let mut world = started(&SCENARIOS[0], PaymentMethod::Card);
    while !world.log.iter().any(|event| event.name() == "payment.completed") {
        assert!(walk(&mut world, 1));
    }
    let unpaid = world.orders.orders[&order(0)].clone();
    assert_eq!((unpaid.payment, unpaid.paid), (PaymentStep::Due, 0));
    (world, unpaid)
}

#[test]
fn an_order_hears_that_it_is_paid_when_its_stock_is_deducted() {
    let (mut world, unpaid) = paid();
    let payments_of_orders = 1;
    while world.steps().contains(&Step::Deliver(payments_of_orders)) {
        world.deliver(payments_of_orders);
    }
    assert_eq!(world.orders.orders[&order(0)], unpaid);
    world.settle();
    world.assert_agreement();
    let paid = &world.orders.orders[&order(0)];
    assert_eq!((paid.status, paid.payment, paid.paid), (OrderStatus::Confirmed, PaymentStep::Completed, 200));
    assert_eq!(paid.visible_version, unpaid.visible_version + 2);
}

#[test]
fn an_order_that_is_given_up_between_payment_and_deduction_shows_what_was_paid_once_it_is_paid_back() {
    let (mut world, unpaid) = paid();
    let payments_of_stock = 3;
    while !world.discard(payments_of_stock, "payment.completed") {
        world.deliver(payments_of_stock);
    }
    assert!(world.expire(order(0)));
    world.settle();
    world.assert_agreement();
    let refused = &world.orders.orders[&order(0)];
    assert_eq!((refused.status, refused.payment), (OrderStatus::Rejected, PaymentStep::Refunded));
    assert_eq!((refused.paid, refused.refunded), (200, 200));
    assert!(refused.visible_version > unpaid.visible_version);
}

#[test]
fn what_was_asked_of_a_participant_and_discarded_is_given_up_at_the_deadline() {
    let (stock, payments) = (2, 4);
    let (orders_of_payments, stock_of_payments) = (1, 3);
    for (scenario, reader, event) in [
        ("placing", stock, "order.placed"),
        ("placing", payments, "order.payment_due"),
        ("placing", stock_of_payments, "payment.completed"),
        ("modifying to more", stock, "order.modifying"),
        ("modifying to more", payments, "order.payment_due"),
        ("modifying to more", orders_of_payments, "payment.completed"),
    ] {
        let scenario = SCENARIOS.iter().find(|known| known.name == scenario).unwrap();
        let mut world = started(scenario, PaymentMethod::Balance);
        while !world.discard(reader, event) {
            assert!(walk(&mut world, 1), "{event} never came");
        }
        world.settle();
        assert!(!world.statuses()[0].is_resting(), "{event} is needed");
        assert!(world.expire(order(0)), "{event}");
        world.settle();
        world.assert_agreement();
    }
}

/// The worker of coupons reading orders.
const COUPONS_OF_ORDERS: usize = 6;

#[test]
fn an_order_that_is_undone_ends_although_what_its_coupon_was_to_be_told_was_discarded() {
    for (scenario, discarded) in [
        ("placing", &["order.placed"][..]),
        ("placing", &["order.rejecting"]),
        ("placing", &["order.placed", "order.rejecting"]),
        ("cancelling", &["order.cancelling"]),
    ] {
        let scenario = SCENARIOS.iter().find(|known| known.name == scenario).unwrap();
        let mut world = started_with(scenario, PaymentMethod::Balance, Some(coupon(0)));
        world.declines = scenario.name == "placing";
        for event in discarded {
            while !world.discard(COUPONS_OF_ORDERS, event) {
                if !walk(&mut world, 1) {
                    assert!(world.expire(order(0)), "{event} never came");
                }
            }
        }
        world.settle();
        world.expire(order(0));
        world.settle();
        assert!(!world.statuses()[0].is_resting(), "{discarded:?} is needed");
        assert!(world.give_up_coupon(order(0)), "{discarded:?}");
        world.settle();
        let ends = if world.declines { OrderStatus::Rejected } else { scenario.ends };
        assert_eq!(world.statuses(), [ends], "{discarded:?}");
        world.assert_agreement();
    }
}

#[test]
fn a_modification_ends_although_the_worker_of_coupons_hears_nothing() {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.starts_with("modifying")) {
        let mut world = started_with(scenario, PaymentMethod::Balance, Some(coupon(0)));
        let others = |step: &Step| *step != Step::Deliver(COUPONS_OF_ORDERS);
        while let Some(step) = world.steps().into_iter().find(others) {
            match step {
                Step::Deliver(reader) => world.deliver(reader),
                Step::Gateway(task) => world.call(task, Call::Answered, true),
            }
        }
        assert_eq!(world.statuses(), [scenario.ends], "{}", scenario.name);
        world.assert_agreement();
    }
}
