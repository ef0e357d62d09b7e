//! What an order costs: subtotal, discounts, total, and the revenue of each line.

use ordermill_schemas::Money;
use ordermill_schemas::coupons::{CouponDiscount, CouponTerms};
use ordermill_schemas::orders::{Discount, DiscountKind, OrderLine, PaymentMethod};

/// Percent off for paying by bank transfer.
const BANK_TRANSFER_PERCENT: Money = 5;

/// What an order costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The sum of the lines, before discounts.
    pub subtotal: Money,
    /// What is taken off, and what for.
    pub discounts: Vec<Discount>,
    /// What is to be paid, never below 0.
    pub total: Money,
}

/// The price of an order. The coupon comes first, then what the method of payment earns on what is left. Discounts round
/// down, in the shop's favour.
#[must_use]
pub fn quote(lines: &[OrderLine], method: PaymentMethod, coupon: Option<&CouponTerms>) -> Quote {
    let subtotal = lines.iter().map(|line| line.unit_price * Money::from(line.quantity)).sum();
    let mut discounts = Vec::new();
    let mut total: Money = subtotal;
    if let Some(coupon) = coupon {
        let amount = coupon_amount(coupon.discount, subtotal);
        total -= amount;
        let user_coupon_id = Some(coupon.user_coupon_id);
        discounts.push(Discount { kind: DiscountKind::Coupon, amount, user_coupon_id });
    }
    if method == PaymentMethod::BankTransfer {
        let amount = total * BANK_TRANSFER_PERCENT / 100;
        total -= amount;
        discounts.push(Discount { kind: DiscountKind::PaymentMethod, amount, user_coupon_id: None });
    }
    Quote { subtotal, discounts, total }
}

fn coupon_amount(discount: CouponDiscount, subtotal: Money) -> Money {
    match discount {
        // The product of two amounts needs more than 64 bits; the share is at most the subtotal again.
        CouponDiscount::Percent(percent) => Money::try_from(i128::from(subtotal) * i128::from(percent) / 100)
            .unwrap_or(subtotal)
            .min(subtotal),
        CouponDiscount::Fixed(amount) => amount.min(subtotal),
    }
}

/// What was paid for each line: the total spread by the lines' share of the subtotal, rounded down, the
/// remainder on the largest line (the first of equals).
#[must_use]
pub fn revenues(lines: &[OrderLine], total: Money) -> Vec<Money> {
    let gross: Vec<Money> = lines.iter().map(|line| line.unit_price * Money::from(line.quantity)).collect();
    let subtotal: i128 = gross.iter().map(|amount| i128::from(*amount)).sum();
    if subtotal == 0 {
        return vec![0; lines.len()];
    }
    // The product of two amounts needs more than 64 bits; each share is at most `total` again.
    let share = |amount: &Money| {
        Money::try_from(i128::from(*amount) * i128::from(total) / subtotal).unwrap_or(Money::MAX)
    };
    let mut revenues: Vec<Money> = gross.iter().map(share).collect();
    let remainder = total - revenues.iter().sum::<Money>();
    let largest =
        gross.iter().enumerate().rev().max_by_key(|(_, amount)| **amount).map_or(0, |(index, _)| index);
    if let Some(revenue) = revenues.get_mut(largest) {
        *revenue += remainder;
    }
    revenues
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn line(unit_price: Money, quantity: i32) -> OrderLine {
        OrderLine {
            product_id: Uuid::nil(),
            name: String::new(),
            category: String::new(),
            unit_price,
            quantity,
        }
    }

    fn terms(discount: CouponDiscount) -> CouponTerms {
        CouponTerms { user_coupon_id: Uuid::nil(), discount, min_subtotal: 0 }
    }

    #[test]
    fn the_coupon_comes_first_and_the_bank_transfer_is_off_what_is_left() {
        for (discount, coupon, transfer, total) in [
            (CouponDiscount::Percent(15), 149, 42, 808),
            (CouponDiscount::Percent(100), 999, 0, 0),
            (CouponDiscount::Fixed(500), 500, 24, 475),
            (CouponDiscount::Fixed(5_000), 999, 0, 0),
        ] {
            let quote = quote(&[line(333, 3)], PaymentMethod::BankTransfer, Some(&terms(discount)));
            let amounts: Vec<Money> = quote.discounts.iter().map(|discount| discount.amount).collect();
            assert_eq!((amounts, quote.total), (vec![coupon, transfer], total), "{discount:?}");
        }
    }

    #[test]
    fn a_bank_transfer_takes_five_percent_off_rounded_down() {
        let quote = quote(&[line(333, 3)], PaymentMethod::BankTransfer, None);
        assert_eq!((quote.subtotal, quote.discounts[0].amount, quote.total), (999, 49, 950));
    }

    #[test]
    fn the_remainder_goes_to_the_first_of_the_largest_lines() {
        assert_eq!(revenues(&[line(100, 1), line(200, 1), line(200, 1)], 472), vec![94, 190, 188]);
    }

    proptest! {
        #[test]
        fn revenues_add_up_to_the_total(
            prices in prop::collection::vec((0..1_000_000_000_i64, 1..10_000_i32), 1..50),
            percent in 0..=100_i64,
        ) {
            let lines: Vec<_> = prices.into_iter().map(|(price, quantity)| line(price, quantity)).collect();
            let subtotal = quote(&lines, PaymentMethod::Card, None).subtotal;
            let total = i64::try_from(i128::from(subtotal) * i128::from(percent) / 100).unwrap();
            let revenues = revenues(&lines, total);
            prop_assert_eq!(revenues.iter().sum::<Money>(), total);
            prop_assert!(revenues.iter().all(|revenue| *revenue >= 0));
        }
    }
}
