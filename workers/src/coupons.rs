//! The coupons worker: decides claims, welcomes new users, and has orders use what users have.

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::coupons::{Claim, Coupon, CouponUse, Coupons, UserCoupon, WELCOME, welcome_claim_id};
use ordermill_pipeline::journal::Keys;
use ordermill_schemas::{Event, Topic};

use crate::participant::Participant;

/// The coupons worker.
pub struct CouponsWorker;

impl Participant for CouponsWorker {
    const GROUP: &'static str = "coupons";
    const TOPICS: &'static [Topic] = &[Topic::Coupons, Topic::Orders, Topic::Balances];
    type State = Coupons;

    /// What an order has used follows from its use.
    fn keys(event: &Event, keys: &mut Keys) {
        match event {
            Event::CouponClaimRequested(claim) => {
                keys.add(Coupon::NOUN, claim.coupon_id);
                keys.add(Claim::NOUN, claim.claim_id);
            }
            Event::BalanceOpened(opened) => {
                keys.add(Coupon::NOUN, WELCOME);
                keys.add(Claim::NOUN, welcome_claim_id(opened.user_id));
            }
            Event::OrderPlaced(order) => {
                if let Some(user_coupon_id) = order.user_coupon_id {
                    keys.add(UserCoupon::NOUN, user_coupon_id);
                    keys.add(CouponUse::NOUN, order.order_id);
                }
            }
            Event::OrderRejecting(order) => keys.add(CouponUse::NOUN, order.order_id),
            Event::OrderCancelling(order) => keys.add(CouponUse::NOUN, order.order_id),
            _ => {}
        }
    }
}
