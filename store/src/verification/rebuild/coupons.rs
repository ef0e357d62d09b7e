//! The tables of coupons, page by page, beside what the log makes of them.

use ordermill_domain::coupons::Coupons;
use ordermill_pipeline::audit::Check;
use ordermill_schemas::coupons::CouponDiscount;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::PAGE_ROWS;
use super::difference::{Difference, left_over, take};
use crate::text::Word as _;

pub(super) async fn tables(
    connection: &mut PgConnection,
    rebuilt: &mut Coupons,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    coupons(&mut *connection, rebuilt, check).await?;
    claims(&mut *connection, rebuilt, check).await?;
    user_coupons(&mut *connection, rebuilt, check).await?;
    uses(connection, rebuilt, check).await
}

async fn coupons(
    connection: &mut PgConnection,
    rebuilt: &mut Coupons,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"SELECT coupon_id, discount AS "discount: Json<CouponDiscount>", quantity, issued, valid_days,
                   claimable_from, claimable_until, min_subtotal
               FROM coupons WHERE coupon_id > $1 ORDER BY coupon_id LIMIT $2"#,
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.coupon_id;
        for row in rows {
            let Some(coupon) = take("coupons", row.coupon_id, &mut rebuilt.coupons, check) else { continue };
            Difference::of("coupons", row.coupon_id)
                .field("discount", row.discount.0, coupon.discount)
                .field("quantity", row.quantity, coupon.quantity)
                .field("issued", row.issued, coupon.issued)
                .field("valid_days", row.valid_days, coupon.valid_days)
                .field("claimable_from", row.claimable_from.map(|at| at.to_jiff()), coupon.claimable_from)
                .field("claimable_until", row.claimable_until.map(|at| at.to_jiff()), coupon.claimable_until)
                .field("min_subtotal", row.min_subtotal, coupon.min_subtotal)
                .tell(check);
        }
    }
    left_over("coupons", &mut rebuilt.coupons, check);
    Ok(())
}

async fn claims(
    connection: &mut PgConnection,
    rebuilt: &mut Coupons,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let table = "coupon_claims";
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            "SELECT claim_id, coupon_id, user_id, state, failure_code, failure_detail, position, requested_at,
                 sequence
             FROM coupon_claims WHERE claim_id > $1 ORDER BY claim_id LIMIT $2",
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.claim_id;
        for row in rows {
            let Some(claim) = take(table, row.claim_id, &mut rebuilt.claims, check) else { continue };
            let (code, detail) = claim.failure.map(|failure| (failure.code.word(), failure.detail)).unzip();
            Difference::of(table, row.claim_id)
                .field("coupon_id", row.coupon_id, claim.coupon_id)
                .field("user_id", row.user_id, claim.user_id)
                .field("state", row.state.as_str(), claim.state.word())
                .field("failure_code", row.failure_code.as_deref(), code)
                .field("failure_detail", row.failure_detail, detail)
                .field("position", row.position, claim.position)
                .field("requested_at", row.requested_at.to_jiff(), claim.requested_at)
                .field("sequence", row.sequence, claim.sequence)
                .tell(check);
        }
    }
    left_over(table, &mut rebuilt.claims, check);
    Ok(())
}

async fn user_coupons(
    connection: &mut PgConnection,
    rebuilt: &mut Coupons,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let table = "user_coupons";
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"SELECT user_coupon_id, coupon_id, claim_id, user_id, discount AS "discount: Json<CouponDiscount>",
                   min_subtotal, state, issued_at, expires_at, used_at, order_id, sequence
               FROM user_coupons WHERE user_coupon_id > $1 ORDER BY user_coupon_id LIMIT $2"#,
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.user_coupon_id;
        for row in rows {
            let found = take(table, row.user_coupon_id, &mut rebuilt.user_coupons, check);
            let Some(coupon) = found else { continue };
            Difference::of(table, row.user_coupon_id)
                .field("coupon_id", row.coupon_id, coupon.coupon_id)
                .field("claim_id", row.claim_id, coupon.claim_id)
                .field("user_id", row.user_id, coupon.user_id)
                .field("discount", row.discount.0, coupon.discount)
                .field("min_subtotal", row.min_subtotal, coupon.min_subtotal)
                .field("state", row.state.as_str(), coupon.state.word())
                .field("issued_at", row.issued_at.to_jiff(), coupon.issued_at)
                .field("expires_at", row.expires_at.to_jiff(), coupon.expires_at)
                .field("used_at", row.used_at.map(|at| at.to_jiff()), coupon.used_at)
                .field("order_id", row.order_id, coupon.order_id)
                .field("sequence", row.sequence, coupon.sequence)
                .tell(check);
        }
    }
    left_over(table, &mut rebuilt.user_coupons, check);
    Ok(())
}

async fn uses(
    connection: &mut PgConnection,
    rebuilt: &mut Coupons,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let table = "coupon_uses";
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            "SELECT order_id, user_coupon_id, state, sequence FROM coupon_uses
             WHERE order_id > $1 ORDER BY order_id LIMIT $2",
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.order_id;
        for row in rows {
            let Some(used) = take(table, row.order_id, &mut rebuilt.uses, check) else { continue };
            Difference::of(table, row.order_id)
                .field("user_coupon_id", row.user_coupon_id, used.user_coupon_id)
                .field("state", row.state.as_str(), used.state.word())
                .field("sequence", row.sequence, used.sequence)
                .tell(check);
        }
    }
    left_over(table, &mut rebuilt.uses, check);
    Ok(())
}
