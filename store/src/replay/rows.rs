//! The rows that rebuilt states stand in, column by column as the tables have them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_domain::coupons::{Claim, Coupon, CouponUse, UserCoupon};
use ordermill_domain::orders::Order;
use ordermill_domain::payments::{Balance, Payment};
use ordermill_domain::sales::{Figures, Key};
use ordermill_domain::stock::Reservation;
use ordermill_pipeline::audit::LoggedEvent;
use ordermill_schemas::Event;
use serde_json::{Value, json};
use uuid::Uuid;

use super::difference::{Row, without_nulls};
use super::state::{Product, Times};
use super::tables::Table;
use crate::shipments::ShipmentRow;
use crate::text::Word as _;

/// Rows by table.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<&'static str, Vec<Row>>);

impl Rows {
    pub(super) fn push(&mut self, table: &Table, row: Value) {
        let Value::Object(row) = row else { return };
        self.0.entry(table.name).or_default().push(without_nulls(row));
    }

    pub(super) fn of(&self, table: &Table) -> &[Row] {
        self.0.get(table.name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn take(&mut self, table: &Table) -> Vec<Row> {
        self.0.remove(table.name).unwrap_or_default()
    }
}

/// A time as PostgreSQL writes it as JSON, in UTC.
pub(super) fn time(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}+00:00", text.strip_suffix('Z').unwrap_or(&text))
}

pub(super) fn order(order: &Order, times: Option<&Times>) -> Value {
    let failure = order.failure.as_ref();
    json!({
        "order_id": order.order_id,
        "user_id": order.user_id,
        "status": order.status.word(),
        "lines": order.lines,
        "subtotal": order.subtotal,
        "discounts": order.discounts,
        "total": order.total,
        "payment_method": order.payment_method.word(),
        "stock_step": order.stock.word(),
        "payment_step": order.payment.word(),
        "coupon_step": order.coupon_step.word(),
        "coupon": order.coupon,
        "paid": order.paid,
        "refunded": order.refunded,
        "failure_code": failure.map(|failure| failure.code.word()),
        "failure_detail": failure.map(|failure| &failure.detail),
        "round": order.round,
        "change": order.change,
        "last_modification": order.last_modification,
        "shipped": order.shipped,
        "in_transit": order.in_transit,
        "confirmed_at": order.confirmed_at.map(time),
        "deadline_at": time(order.deadline_at),
        "version": order.version,
        "sequence": order.sequence,
        "created_at": times.map(|times| time(times.first)),
    })
}

pub(super) fn shipment(shipment: &ShipmentRow) -> Value {
    json!({
        "shipment_id": shipment.shipment_id,
        "order_id": shipment.order_id,
        "lines": shipment.lines,
        "tracking_number": shipment.tracking_number,
        "created_at": time(shipment.created_at),
        "delivered_at": shipment.delivered_at.map(time),
    })
}

pub(super) fn reservation(order_id: Uuid, reservation: &Reservation) -> Value {
    json!({
        "order_id": order_id,
        "state": reservation.state.word(),
        "lines": reservation.lines,
        "change": reservation.change,
        "round": reservation.round,
        "sequence": reservation.sequence,
    })
}

/// `None` where there is no charge, with which every payment begins.
pub(super) fn payment(order_id: Uuid, payment: &Payment, times: Option<&Times>) -> Option<Value> {
    let (newest, earlier) = payment.charges.split_last()?;
    Some(json!({
        "order_id": order_id,
        "user_id": payment.user_id,
        "method": payment.method.word(),
        "charge_id": newest.charge_id,
        "charge_number": newest.number,
        "amount": newest.amount,
        "refunded": newest.refunded,
        "state": newest.state.word(),
        "earlier": earlier,
        "refund": payment.refund,
        "refund_round": payment.refund_round,
        "sequence": payment.sequence,
        "updated_at": times.map(|times| time(times.last)),
    }))
}

pub(super) fn balance(user_id: Uuid, balance: &Balance, times: Option<&Times>) -> Value {
    json!({
        "user_id": user_id,
        "available": balance.available,
        "held": balance.held,
        "sequence": balance.sequence,
        "updated_at": times.map(|times| time(times.last)),
    })
}

/// The entry that an event makes in the history of a balance, which is `sequence` events long with it. Money leaves the
/// balance when it is captured; a hold moves none.
pub(super) fn balance_entry(logged: &LoggedEvent, event: &Event, sequence: i32) -> Option<Value> {
    let (user_id, kind, amount, balance_after, order_id) = match event {
        Event::BalanceCharged(e) => (e.user_id, "CHARGED", e.amount, e.available + e.held, None),
        Event::BalanceCaptured(e) => (e.user_id, "USED", e.amount, e.available + e.held, Some(e.order_id)),
        Event::BalanceRefunded(e) => {
            (e.user_id, "REFUNDED", e.amount, e.available + e.held, Some(e.order_id))
        }
        _ => return None,
    };
    Some(json!({
        "entry_id": logged.event_id,
        "user_id": user_id,
        "sequence": sequence,
        "kind": kind,
        "amount": amount,
        "balance_after": balance_after,
        "order_id": order_id,
        "created_at": time(logged.at),
    }))
}

pub(super) fn product(product: &Product, times: Option<&Times>) -> Value {
    let described = &product.described;
    json!({
        "product_id": described.product_id,
        "name": described.name,
        "description": described.description,
        "category": described.category,
        "price": described.price,
        "withdrawn": described.withdrawn,
        "sequence": product.sequence,
        "created_at": times.map(|times| time(times.first)),
        "updated_at": times.map(|times| time(times.last)),
    })
}

pub(super) fn claim(claim_id: Uuid, claim: &Claim) -> Value {
    let failure = claim.failure.as_ref();
    json!({
        "claim_id": claim_id,
        "coupon_id": claim.coupon_id,
        "user_id": claim.user_id,
        "state": claim.state.word(),
        "failure_code": failure.map(|failure| failure.code.word()),
        "failure_detail": failure.map(|failure| &failure.detail),
        "position": claim.position,
        "requested_at": time(claim.requested_at),
        "sequence": claim.sequence,
    })
}

pub(super) fn user_coupon(user_coupon_id: Uuid, coupon: &UserCoupon) -> Value {
    json!({
        "user_coupon_id": user_coupon_id,
        "coupon_id": coupon.coupon_id,
        "claim_id": coupon.claim_id,
        "user_id": coupon.user_id,
        "discount": coupon.discount,
        "min_subtotal": coupon.min_subtotal,
        "state": coupon.state.word(),
        "issued_at": time(coupon.issued_at),
        "expires_at": time(coupon.expires_at),
        "used_at": coupon.used_at.map(time),
        "order_id": coupon.order_id,
        "sequence": coupon.sequence,
    })
}

pub(super) fn coupon_use(order_id: Uuid, used: &CouponUse) -> Value {
    json!({
        "order_id": order_id,
        "user_coupon_id": used.user_coupon_id,
        "state": used.state.word(),
        "sequence": used.sequence,
    })
}

pub(super) fn coupon(coupon_id: Uuid, name: &str, coupon: &Coupon, created_at: Timestamp) -> Value {
    json!({
        "coupon_id": coupon_id,
        "name": name,
        "discount": coupon.discount,
        "quantity": coupon.quantity,
        "issued": coupon.issued,
        "valid_days": coupon.valid_days,
        "claimable_from": coupon.claimable_from.map(time),
        "claimable_until": coupon.claimable_until.map(time),
        "min_subtotal": coupon.min_subtotal,
        "created_at": time(created_at),
    })
}

pub(super) fn sale(key: &Key, figures: &Figures) -> Value {
    let (level, category, product_id) = crate::sales::columns(&key.subject);
    json!({
        "level": level,
        "bucket": time(key.bucket),
        "category": category,
        "product_id": product_id,
        "quantity": figures.quantity,
        "revenue": figures.revenue,
        "orders": figures.orders,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_postgresql_writes_them_as_json() {
        for (given, written) in [
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00+00:00"),
            ("2026-11-21T10:00:00.12Z", "2026-11-21T10:00:00.12+00:00"),
            ("2026-11-21T10:00:00.123456Z", "2026-11-21T10:00:00.123456+00:00"),
        ] {
            assert_eq!(time(given.parse().unwrap()), written);
        }
    }
}
