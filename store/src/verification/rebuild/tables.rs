//! The state tables, page by page, beside what the log makes of them.

use std::collections::BTreeMap;

use ordermill_domain::orders::{Change, LastModification, Order};
use ordermill_domain::payments::{Balance, Charge, Payment, Refund};
use ordermill_domain::stock::{Reservation, Shelf, StockChange};
use ordermill_pipeline::audit::Check;
use ordermill_schemas::coupons::CouponTerms;
use ordermill_schemas::orders::{Discount, OrderLine};
use ordermill_schemas::stock::StockLine;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::PAGE_ROWS;
use super::difference::{Difference, left_over, take};
use super::fold::Product;
use crate::shipments::ShipmentRow;
use crate::text::Word as _;

pub(super) async fn products(
    connection: &mut PgConnection,
    rebuilt: &mut BTreeMap<Uuid, Product>,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            "SELECT product_id, name, description, category, price, withdrawn, sequence FROM products
             WHERE product_id > $1 ORDER BY product_id LIMIT $2",
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.product_id;
        for row in rows {
            let Some(product) = take("products", row.product_id, rebuilt, check) else { continue };
            Difference::of("products", row.product_id)
                .field("name", row.name, product.described.name)
                .field("description", row.description, product.described.description)
                .field("category", row.category, product.described.category)
                .field("price", row.price, product.described.price)
                .field("withdrawn", row.withdrawn, product.described.withdrawn)
                .field("sequence", row.sequence, product.sequence)
                .tell(check);
        }
    }
    left_over("products", rebuilt, check);
    Ok(())
}

pub(super) async fn stock(
    connection: &mut PgConnection,
    rebuilt: &mut BTreeMap<Uuid, Shelf>,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            "SELECT product_id, on_hand, reserved, deducted FROM stock
             WHERE product_id > $1 ORDER BY product_id LIMIT $2",
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.product_id;
        for row in rows {
            let Some(shelf) = take("stock", row.product_id, rebuilt, check) else { continue };
            Difference::of("stock", row.product_id)
                .field("on_hand", row.on_hand, shelf.on_hand)
                .field("reserved", row.reserved, shelf.reserved)
                .field("deducted", row.deducted, shelf.deducted)
                .tell(check);
        }
    }
    left_over("stock", rebuilt, check);
    Ok(())
}

pub(super) async fn reservations(
    connection: &mut PgConnection,
    rebuilt: &mut BTreeMap<Uuid, Reservation>,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let table = "stock_reservations";
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"SELECT order_id, state, lines AS "lines: Json<Vec<StockLine>>",
                   change AS "change: Json<StockChange>", round, sequence
               FROM stock_reservations WHERE order_id > $1 ORDER BY order_id LIMIT $2"#,
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.order_id;
        for row in rows {
            let Some(reservation) = take(table, row.order_id, rebuilt, check) else { continue };
            Difference::of(table, row.order_id)
                .field("state", row.state.as_str(), reservation.state.word())
                .field("lines", row.lines.0, reservation.lines)
                .field("change", row.change.map(|change| change.0), reservation.change)
                .field("round", row.round, reservation.round)
                .field("sequence", row.sequence, reservation.sequence)
                .tell(check);
        }
    }
    left_over(table, rebuilt, check);
    Ok(())
}

pub(super) async fn balances(
    connection: &mut PgConnection,
    rebuilt: &mut BTreeMap<Uuid, Balance>,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            "SELECT user_id, available, held, sequence FROM balances
             WHERE user_id > $1 ORDER BY user_id LIMIT $2",
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.user_id;
        for row in rows {
            let Some(balance) = take("balances", row.user_id, rebuilt, check) else { continue };
            Difference::of("balances", row.user_id)
                .field("available", row.available, balance.available)
                .field("held", row.held, balance.held)
                .field("sequence", row.sequence, balance.sequence)
                .tell(check);
        }
    }
    left_over("balances", rebuilt, check);
    Ok(())
}

pub(super) async fn payments(
    connection: &mut PgConnection,
    rebuilt: &mut BTreeMap<Uuid, Payment>,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"SELECT order_id, user_id, method, charge_id, charge_number, amount, refunded, state,
                   earlier AS "earlier: Json<Vec<Charge>>", refund AS "refund: Json<Refund>", refund_round, sequence
               FROM payments WHERE order_id > $1 ORDER BY order_id LIMIT $2"#,
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.order_id;
        for row in rows {
            let Some(mut payment) = take("payments", row.order_id, rebuilt, check) else { continue };
            // A payment begins with a charge, so there is one.
            let Some(newest) = payment.charges.pop() else { continue };
            Difference::of("payments", row.order_id)
                .field("user_id", row.user_id, payment.user_id)
                .field("method", row.method.as_str(), payment.method.word())
                .field("charge_id", row.charge_id, newest.charge_id)
                .field("charge_number", row.charge_number, newest.number)
                .field("amount", row.amount, newest.amount)
                .field("refunded", row.refunded, newest.refunded)
                .field("state", row.state.as_str(), newest.state.word())
                .field("earlier", row.earlier.0, payment.charges)
                .field("refund", row.refund.map(|refund| refund.0), payment.refund)
                .field("refund_round", row.refund_round, payment.refund_round)
                .field("sequence", row.sequence, payment.sequence)
                .tell(check);
        }
    }
    left_over("payments", rebuilt, check);
    Ok(())
}

pub(super) async fn orders(
    connection: &mut PgConnection,
    rebuilt: &mut BTreeMap<Uuid, Order>,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"SELECT order_id, user_id, status, lines AS "lines: Json<Vec<OrderLine>>", subtotal,
                   discounts AS "discounts: Json<Vec<Discount>>", total, payment_method, stock_step, payment_step,
                   coupon_step, coupon AS "coupon: Json<CouponTerms>", paid, refunded, failure_code,
                   failure_detail, round, change AS "change: Json<Change>",
                   last_modification AS "last_modification: Json<LastModification>",
                   shipped AS "shipped: Json<Vec<StockLine>>", in_transit, confirmed_at, deadline_at, version,
                   sequence
               FROM orders WHERE order_id > $1 ORDER BY order_id LIMIT $2"#,
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.order_id;
        for row in rows {
            let Some(order) = take("orders", row.order_id, rebuilt, check) else { continue };
            let (code, detail) = order.failure.map(|failure| (failure.code.word(), failure.detail)).unzip();
            let last_modification = row.last_modification.map(|last| last.0);
            Difference::of("orders", row.order_id)
                .field("user_id", row.user_id, order.user_id)
                .field("status", row.status.as_str(), order.status.word())
                .field("lines", row.lines.0, order.lines)
                .field("subtotal", row.subtotal, order.subtotal)
                .field("discounts", row.discounts.0, order.discounts)
                .field("total", row.total, order.total)
                .field("payment_method", row.payment_method.as_str(), order.payment_method.word())
                .field("stock_step", row.stock_step.as_str(), order.stock.word())
                .field("payment_step", row.payment_step.as_str(), order.payment.word())
                .field("coupon_step", row.coupon_step.as_str(), order.coupon_step.word())
                .field("coupon", row.coupon.map(|coupon| coupon.0), order.coupon)
                .field("paid", row.paid, order.paid)
                .field("refunded", row.refunded, order.refunded)
                .field("failure_code", row.failure_code.as_deref(), code)
                .field("failure_detail", row.failure_detail, detail)
                .field("round", row.round, order.round)
                .field("change", row.change.map(|change| change.0), order.change)
                .field("last_modification", last_modification, order.last_modification)
                .field("shipped", row.shipped.0, order.shipped)
                .field("in_transit", row.in_transit, order.in_transit)
                .field("confirmed_at", row.confirmed_at.map(|at| at.to_jiff()), order.confirmed_at)
                .field("deadline_at", row.deadline_at.to_jiff(), order.deadline_at)
                .field("version", row.version, order.version)
                .field("sequence", row.sequence, order.sequence)
                .tell(check);
        }
    }
    left_over("orders", rebuilt, check);
    Ok(())
}

pub(super) async fn shipments(
    connection: &mut PgConnection,
    rebuilt: &mut BTreeMap<Uuid, ShipmentRow>,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"SELECT shipment_id, order_id, lines AS "lines: Json<Vec<StockLine>>", tracking_number, created_at,
                   delivered_at
               FROM shipments WHERE shipment_id > $1 ORDER BY shipment_id LIMIT $2"#,
            after,
            PAGE_ROWS,
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.shipment_id;
        for row in rows {
            let Some(shipment) = take("shipments", row.shipment_id, rebuilt, check) else { continue };
            Difference::of("shipments", row.shipment_id)
                .field("order_id", row.order_id, shipment.order_id)
                .field("lines", row.lines.0, shipment.lines)
                .field("tracking_number", row.tracking_number, shipment.tracking_number)
                .field("created_at", row.created_at.to_jiff(), shipment.created_at)
                .field("delivered_at", row.delivered_at.map(|at| at.to_jiff()), shipment.delivered_at)
                .tell(check);
        }
    }
    left_over("shipments", rebuilt, check);
    Ok(())
}
