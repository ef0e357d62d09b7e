//! An order as a client sees it.

use jiff::Timestamp;
use ordermill_domain::orders::{LastModification, Order, OrderStatus, PaymentStep};
use ordermill_schemas::Money;
use ordermill_schemas::orders::{Discount, DiscountKind, Failure, OrderLine, PaymentMethod};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::view::view;

view! {
    /// An order.
    #[schema(as = Order)]
    pub struct OrderView of(order: Order, now: Timestamp)
    where
        status = order.status.shown();
        (payment, overdue) = (PaymentView::of(&order), order.is_overdue(now));
        line = |line: &OrderLine| LineView::of(line, order.shipped_quantity(line.product_id));
        lines = order.purchase.lines.iter().map(line).collect();
    {
        /// The order.
        order_id: Uuid = order.purchase.order_id,
        /// Who buys.
        user_id: Uuid = order.purchase.user_id,
        /// Where it is in its life. All but `PENDING`, `MODIFYING` and `CANCELLING` are resting.
        #[schema(value_type = StatusName)]
        status: OrderStatus = status,
        /// Why it was refused, if it was.
        failure?: Failure = order.failure.filter(|_| status == OrderStatus::Rejected),
        /// What was ordered.
        lines: Vec<LineView> = lines,
        /// The sum of the lines.
        #[schema(value_type = i64, example = 18_000)]
        subtotal: Money = order.purchase.subtotal,
        /// What is taken off, and what for.
        #[schema(value_type = Vec<DiscountSchema>)]
        discounts: Vec<Discount> = order.purchase.discounts,
        /// What is to be paid.
        #[schema(value_type = i64, example = 18_000)]
        total: Money = order.purchase.total,
        /// How and how far it is paid.
        payment: PaymentView = payment,
        /// What became of the last modification, where there was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        last_modification: Option<LastModificationView> = order.last_modification.map(Into::into),
        /// Whether its deadline had passed, as of this answer, while it did not rest.
        overdue: bool = overdue,
        /// Counts what is visible here, but for `overdue`, which time alone changes; the `ETag`.
        #[schema(example = 1)]
        version: i32 = order.visible_version,
        /// When it was accepted.
        created_at: Timestamp = order.purchase.created_at,
        /// When it last changed visibly.
        updated_at: Timestamp,
    }
}

/// Where an order is in its life.
#[derive(ToSchema)]
#[schema(as = OrderStatus, rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "the document's name for the statuses that are shown")]
enum StatusName {
    /// Accepted; stock and payment are being arranged, or what was arranged is being given back.
    Pending,
    /// Paid and deducted from stock.
    Confirmed,
    /// Refused, and nothing is held for it.
    Rejected,
    /// Other lines are being put in the place of its lines, or given up.
    Modifying,
    /// Cancelled; stock and money are being given back.
    Cancelling,
    /// Cancelled, and stock and money are back.
    Cancelled,
    /// A part of it was shipped.
    PartiallyShipped,
    /// All of it was shipped.
    Shipped,
    /// All of it has arrived.
    Delivered,
}

view! {
    /// What became of a modification.
    #[schema(as = LastModification)]
    struct LastModificationView from last: LastModification
    where
        (status, failure) = match last {
            LastModification::Applied => (ModificationStatus::Applied, None),
            LastModification::Refused { failure } => (ModificationStatus::Refused, Some(failure)),
        };
    {
        /// Whether the order has the lines that were wanted.
        status: ModificationStatus = status,
        /// Why not, where it has not.
        failure?: Failure = failure,
    }
}

/// Whether a modification was carried out.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ModificationStatus {
    /// It was.
    Applied,
    /// It was not, and the order is as it was before.
    Refused,
}

view! {
    /// A line of an order.
    #[schema(as = OrderLine)]
    struct LineView of(line: &OrderLine, shipped_quantity: i32) {
        /// The product.
        product_id: Uuid,
        /// Its name when it was ordered.
        #[schema(example = "Green tea")]
        name: String = line.name.clone(),
        /// Its price when it was ordered.
        #[schema(value_type = i64, example = 9_000)]
        unit_price: Money,
        /// How many were ordered.
        #[schema(example = 2)]
        quantity: i32,
        /// How many of them were shipped.
        #[schema(example = 0)]
        shipped_quantity: i32 = shipped_quantity,
    }
}

view! {
    /// How and how far an order is paid.
    #[schema(as = OrderPayment)]
    struct PaymentView of(order: &Order)
    where
        status = match order.payment {
            PaymentStep::Refunded => PaymentStatusView::Refunded,
            PaymentStep::Completed if order.refunded > 0 => PaymentStatusView::PartiallyRefunded,
            PaymentStep::Completed => PaymentStatusView::Completed,
            PaymentStep::Failed => PaymentStatusView::Failed,
            // Refused before it came to paying: it will never be paid.
            PaymentStep::NotDue | PaymentStep::Due if order.status == OrderStatus::Rejected => {
                PaymentStatusView::Failed
            }
            PaymentStep::NotDue | PaymentStep::Due => PaymentStatusView::Pending,
        };
    {
        /// How.
        method: PaymentMethod = order.purchase.payment_method,
        /// How far.
        status: PaymentStatusView = status,
        /// What was paid.
        #[schema(value_type = i64, example = 0)]
        paid: Money,
        /// What was paid back.
        #[schema(value_type = i64, example = 0)]
        refunded: Money,
    }
}

/// How far an order is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = PaymentStatus)]
enum PaymentStatusView {
    /// It is not decided yet.
    Pending,
    /// Paid.
    Completed,
    /// Not paid, and it will not be.
    Failed,
    /// Paid, and a part of it paid back.
    PartiallyRefunded,
    /// Paid, and all of it paid back.
    Refunded,
}

/// A part of the discount.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderDiscount)]
struct DiscountSchema {
    /// What it is given for.
    kind: DiscountKind,
    /// How much.
    #[schema(value_type = i64)]
    amount: Money,
    /// The coupon, where it is given for one.
    #[schema(nullable = false)]
    user_coupon_id: Option<Uuid>,
}

#[cfg(test)]
mod tests {
    use ordermill_schemas::orders::{DiscountKind, FailureCode, OrderPlaced};
    use serde_json::json;

    use super::*;

    const DEADLINE: Timestamp = Timestamp::constant(60, 0);

    fn order(status: OrderStatus, payment: PaymentStep) -> Order {
        let failure = Failure { code: FailureCode::OutOfStock, detail: "none left".to_owned() };
        let is_refused = matches!(status, OrderStatus::Rejecting | OrderStatus::Rejected);
        let placed = OrderPlaced {
            order_id: Uuid::from_u128(1),
            user_id: Uuid::from_u128(2),
            lines: vec![OrderLine {
                product_id: Uuid::from_u128(3),
                name: "Green tea".to_owned(),
                category: "FOOD".to_owned(),
                unit_price: 1_000,
                quantity: 2,
            }],
            payment_method: PaymentMethod::BankTransfer,
            user_coupon_id: None,
            subtotal: 2_000,
            discounts: vec![Discount {
                kind: DiscountKind::PaymentMethod,
                amount: 100,
                user_coupon_id: None,
            }],
            total: 1_900,
            deadline_at: DEADLINE,
        };
        Order {
            status,
            failure: is_refused.then_some(failure),
            payment,
            paid: if payment >= PaymentStep::Completed { 1_900 } else { 0 },
            refunded: if payment == PaymentStep::Refunded { 1_900 } else { 0 },
            ..Order::placed(&placed, Timestamp::UNIX_EPOCH)
        }
    }

    fn shown(status: OrderStatus, payment: PaymentStep) -> serde_json::Value {
        shown_at(DEADLINE, status, payment)
    }

    fn shown_at(now: Timestamp, status: OrderStatus, payment: PaymentStep) -> serde_json::Value {
        serde_json::to_value(OrderView::of(order(status, payment), now)).unwrap()
    }

    #[test]
    fn an_order_has_exactly_the_members_of_the_contract() {
        let expected = json!({
            "order_id": Uuid::from_u128(1),
            "user_id": Uuid::from_u128(2),
            "status": "PENDING",
            "failure": null,
            "lines": [{
                "product_id": Uuid::from_u128(3),
                "name": "Green tea",
                "unit_price": 1_000,
                "quantity": 2,
                "shipped_quantity": 0,
            }],
            "subtotal": 2_000,
            "discounts": [{"kind": "PAYMENT_METHOD", "amount": 100}],
            "total": 1_900,
            "payment": {"method": "BANK_TRANSFER", "status": "PENDING", "paid": 0, "refunded": 0},
            "overdue": false,
            "version": 1,
            "created_at": "1970-01-01T00:00:00Z",
            "updated_at": "1970-01-01T00:00:00Z",
        });
        assert_eq!(shown(OrderStatus::Pending, PaymentStep::NotDue), expected);
    }

    #[test]
    fn a_refusal_is_shown_when_everything_has_been_given_back() {
        let rejecting = shown(OrderStatus::Rejecting, PaymentStep::NotDue);
        assert_eq!((&rejecting["status"], &rejecting["failure"]), (&json!("PENDING"), &json!(null)));
        let rejected = shown(OrderStatus::Rejected, PaymentStep::NotDue);
        assert_eq!(rejected["status"], "REJECTED");
        assert_eq!(rejected["failure"], json!({"code": "OUT_OF_STOCK", "detail": "none left"}));
    }

    #[test]
    fn an_order_is_overdue_when_its_deadline_has_passed_and_it_does_not_rest() {
        let late = DEADLINE + jiff::SignedDuration::from_micros(1);
        for (now, status, is_overdue) in [
            (DEADLINE, OrderStatus::Pending, false),
            (late, OrderStatus::Pending, true),
            (late, OrderStatus::Rejecting, true),
            (late, OrderStatus::Rejected, false),
            (late, OrderStatus::Confirmed, false),
        ] {
            let shown = shown_at(now, status, PaymentStep::NotDue);
            assert_eq!(shown["overdue"], is_overdue, "{status:?} at {now}");
        }
    }

    #[test]
    fn what_is_paid_is_shown_as_paid_and_a_refused_order_will_not_be() {
        let payment = |status, step| shown(status, step)["payment"].clone();
        let completed = payment(OrderStatus::Confirmed, PaymentStep::Completed);
        assert_eq!((&completed["status"], &completed["paid"]), (&json!("COMPLETED"), &json!(1_900)));
        assert_eq!(payment(OrderStatus::Pending, PaymentStep::Due)["status"], "PENDING");
        assert_eq!(payment(OrderStatus::Rejecting, PaymentStep::Failed)["status"], "FAILED");
        assert_eq!(payment(OrderStatus::Rejected, PaymentStep::NotDue)["status"], "FAILED");
    }
}
