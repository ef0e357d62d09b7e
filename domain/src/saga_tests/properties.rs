//! Any order of arrival, any repetition, any fault of the gateway, commands and deadlines at any time.

use ordermill_schemas::orders::PaymentMethod;
use proptest::prelude::*;

use super::world::{Call, PRICE, Step, USER, World, coupon, lines, order, product};
use crate::orders::OrderStatus;

/// One step, chosen by `dice`; `false` once there is nothing left to do.
fn step(world: &mut World, dice: usize) -> bool {
    let steps = world.steps();
    let Some(step) = steps.get(dice % steps.len().max(1)) else { return false };
    match step {
        Step::Deliver(reader) => {
            world.deliver(*reader);
            // What was delivered once may come again at any time.
            if dice.is_multiple_of(3) {
                world.deliver_again(*reader, dice / 3);
            }
        }
        Step::Gateway(task) => match dice % 5 {
            0 => world.call(*task, Call::Lost, false),
            1 => world.call(*task, Call::AnswerLost, false),
            2 => world.call(*task, Call::Answered, false),
            _ => world.call(*task, Call::Answered, true),
        },
    }
    true
}

/// Asks an order for something, chosen by `dice`.
fn command(world: &mut World, dice: usize, orders: usize) {
    let order_id = order(dice / 7 % orders);
    let quantity = i32::try_from(dice / 49 % 4).unwrap() + 1;
    match dice % 7 {
        0 => world.cancel(order_id),
        1 => world.modify(order_id, lines(&[(0, quantity)])),
        2 => world.modify(order_id, lines(&[(1, quantity), (2, 1)])),
        3 => world.ship(order_id, product(0), quantity),
        4 => world.command(order_id, |order| order.deliver(uuid::Uuid::from_u128(7)).map(Some)),
        5 => world.expire(order_id),
        _ => world.give_up_coupon(order_id),
    };
}

fn run(world: &mut World, dice: &[usize], commands: usize, orders: usize) {
    for number in 0..20_000 {
        let mixed = mix(dice[number % dice.len()], number);
        if number < commands && mixed.is_multiple_of(2) {
            command(world, mixed / 2, orders);
        }
        if !step(world, mixed / 2) && number >= commands {
            return;
        }
    }
    panic!("the saga does not come to rest");
}

/// Numbers without a pattern from the case's dice and the step (the finalizer of SplitMix64, by G. Steele et al.).
fn mix(dice: usize, step: usize) -> usize {
    let mut mixed = (dice ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(step);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn method() -> impl Strategy<Value = PaymentMethod> {
    prop::sample::select(vec![PaymentMethod::Balance, PaymentMethod::Card, PaymentMethod::BankTransfer])
}

proptest! {
    #[test]
    fn one_order_ends_the_same_way_in_any_order_of_arrival(
        dice in prop::collection::vec(any::<usize>(), 1..40),
        balance in prop::sample::select(vec![0, 199, 200, 1_000]),
        units in prop::sample::select(vec![0, 1, 2, 9]),
        declines: bool,
    ) {
        let mut world = World::new(balance, units, declines);
        world.place(order(0), lines(&[(0, 2)]), PaymentMethod::Balance);
        run(&mut world, &dice, 0, 1);
        let pays = units >= 2 && balance >= 200 && !declines;
        let expected = if pays { OrderStatus::Confirmed } else { OrderStatus::Rejected };
        prop_assert_eq!(world.statuses(), vec![expected]);
        world.assert_agreement();
    }

    #[test]
    fn orders_that_compete_all_end_and_neither_goods_nor_money_appear_or_vanish(
        dice in prop::collection::vec(any::<usize>(), 1..60),
        quantities in prop::collection::vec(1..4_i32, 1..12),
        balance in 0..2_000_i64,
        units in 0..20_i64,
        declines: bool,
    ) {
        let mut world = World::new(balance, units, declines);
        for (index, quantity) in quantities.iter().enumerate() {
            world.place(order(index), lines(&[(0, *quantity)]), PaymentMethod::Balance);
        }
        run(&mut world, &dice, 0, quantities.len());
        world.assert_agreement();
        let sold = world.stock.shelves[&product(0)].deducted;
        prop_assert_eq!(world.payments.balances[&USER].available, balance - PRICE * sold);
    }

    #[test]
    fn commands_and_deadlines_may_come_at_any_time(
        dice in prop::collection::vec(any::<usize>(), 1..60),
        quantities in prop::collection::vec((1..4_i32, method()), 1..5),
        balance in 0..2_000_i64,
        units in 0..12_i64,
        commands in 0..300_usize,
    ) {
        let mut world = World::new(balance, units, false);
        for (index, (quantity, method)) in quantities.iter().enumerate() {
            // Two coupons for up to four orders, and one that the user does not have.
            let user_coupon_id = [None, Some(coupon(0)), Some(coupon(1)), Some(coupon(2))][dice[0] / 5 % 4];
            world.place_with(order(index), lines(&[(0, *quantity), (1, 1)]), *method, user_coupon_id);
        }
        run(&mut world, &dice, commands, quantities.len());
        world.assert_agreement();
    }
}
