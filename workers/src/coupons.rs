//! The coupons worker: decides claims in the order of the log, welcomes new users, and has orders use coupons.

use jiff::Timestamp;
use ordermill_domain::coupons::{Coupons, WELCOME, welcome_claim_id};
use ordermill_pipeline::consumer::{HandlerError, Received};
use ordermill_schemas::{Event, Topic};
use ordermill_store::coupons::Wanted;
use ordermill_store::{Written, coupons};
use sqlx::PgConnection;

use crate::participant::Participant;

/// The coupons worker.
pub struct CouponsWorker;

impl Participant for CouponsWorker {
    const GROUP: &'static str = "coupons";
    const TOPICS: &'static [Topic] = &[Topic::Coupons, Topic::Orders, Topic::Balances];
    type State = Coupons;

    async fn load(
        connection: &mut PgConnection,
        events: &[Received],
        now: Timestamp,
    ) -> Result<Coupons, HandlerError> {
        let mut wanted = Wanted::default();
        for received in events {
            match &received.event {
                Event::CouponClaimRequested(claim) => {
                    wanted.coupon_ids.push(claim.coupon_id);
                    wanted.claim_ids.push(claim.claim_id);
                }
                Event::BalanceOpened(opened) => {
                    wanted.coupon_ids.push(WELCOME);
                    wanted.claim_ids.push(welcome_claim_id(opened.user_id));
                }
                Event::OrderPlaced(order) => {
                    if let Some(user_coupon_id) = order.user_coupon_id {
                        wanted.user_coupon_ids.push(user_coupon_id);
                        wanted.order_ids.push(order.order_id);
                    }
                }
                Event::OrderRejecting(order) => wanted.order_ids.push(order.order_id),
                Event::OrderCancelling(order) => wanted.order_ids.push(order.order_id),
                _ => {}
            }
        }
        coupons::load(connection, wanted, now).await
    }

    async fn apply(
        connection: &mut PgConnection,
        before: &Coupons,
        after: &Coupons,
        _written: &[Written],
        _now: Timestamp,
    ) -> Result<(), HandlerError> {
        coupons::apply(connection, before, after).await
    }
}
