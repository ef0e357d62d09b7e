//! What can be forged of the orders of [`Subjects`], by hand.

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::Subjects;
use crate::documents::{DAY, Forgery, SECOND};

impl Subjects {
    /// Documents in which one number or word is another, with what the table's own rules ask for with it.
    pub(super) fn forgeries(&self) -> Vec<Forgery> {
        [
            self.of_balances_and_products(),
            self.of_reservations(),
            self.of_orders(),
            self.of_order_parts(),
            self.of_payments(),
            self.of_coupons(),
        ]
        .concat()
    }

    fn of_balances_and_products(&self) -> Vec<Forgery> {
        let balance = || Forgery::of("balances", self.user);
        let product = || Forgery::of("products", self.lamp);
        let stock = || Forgery::of("stock", self.lamp);
        vec![
            balance().add("available", 1),
            balance().add("held", 1),
            balance().add("available", -1).add("held", 1),
            product().add("price", 1),
            product().set_to("withdrawn", "to_jsonb(NOT withdrawn)"),
            product().add("sequence", 1),
            stock().add("on_hand", 1).add("received", 1),
            stock().add("on_hand", -1).add("reserved", 1),
            stock().add("on_hand", 1).add("deducted", -1),
        ]
    }

    fn of_reservations(&self) -> Vec<Forgery> {
        let reservation = |order| Forgery::of("stock_reservations", order);
        // The stock of a modification that nobody asked for.
        let change = "jsonb_build_object('round', coalesce((state ->> 'round')::int, 0) + 1, 'taken', bulk,
            'returning', '[]'::jsonb, 'lines', bulk)";
        vec![
            reservation(self.confirmed).set("state", "RELEASED"),
            reservation(self.rejected).set("state", "RESERVED"),
            reservation(self.confirmed).set_in_bulk("0,quantity", 7),
            reservation(self.confirmed).set("state", "SHORT"),
            reservation(self.confirmed).set_to("change", change),
            reservation(self.confirmed).add("round", 1),
        ]
    }

    fn of_orders(&self) -> Vec<Forgery> {
        let order = || Forgery::of("orders", self.confirmed);
        let yesterday = Timestamp::now().as_microsecond() - DAY;
        // A modification under way that nobody asked for.
        let change =
            "jsonb_build_object('lines', bulk -> 'lines', 'subtotal', bulk -> 'subtotal', 'discounts', '[]'::jsonb,
            'total', bulk -> 'total', 'stock', 'ASKED', 'payment', 'NOT_DUE', 'failure', NULL)";
        // A cancellation that gave nothing back.
        let cancelled =
            order().set("status", "CANCELLED").set("stock", "RELEASED").set("payment", "REFUNDED");
        vec![
            order().add_in_bulk("total", 1).add("paid", 1),
            order().add_in_bulk("subtotal", 1),
            order().set_in_bulk("lines,0,unit_price", 7),
            order().add("visible_version", 1),
            order().set("status", "PENDING").set("deadline_at", yesterday),
            order().set("status", "CANCELLING").set("deadline_at", yesterday),
            order().set("status", "MODIFYING").set_to("change", change),
            cancelled.set_to("refunded", "state -> 'paid'"),
            order().set("status", "PARTIALLY_SHIPPED"),
            order().set("status", "SHIPPED"),
            order().set("status", "DELIVERED"),
            order().set_to("shipped", "jsonb_build_array(bulk #> '{lines,0}')"),
            order().add("in_transit", 1),
            order().add("paid", 1).add("refunded", 1),
            Forgery::of("orders", self.rejected).add("paid", 1).add("refunded", 1),
        ]
    }

    fn of_order_parts(&self) -> Vec<Forgery> {
        let order = || Forgery::of("orders", self.confirmed);
        vec![
            order().set_in_bulk("discounts", json!([{"kind": "COUPON", "amount": 0}])),
            order().add("round", 1),
            order().set("last_modification", json!({"status": "APPLIED"})),
            order().add("confirmed_at", SECOND),
            order().add("deadline_at", SECOND),
            Forgery::of("orders", self.rejected).set("failure,code", "OUT_OF_STOCK"),
            Forgery::of("orders", self.discounted).set("coupon_step", "NOT_USED"),
            Forgery::of("orders", self.discounted).set_in_bulk("coupon,min_subtotal", 7),
        ]
    }

    fn of_payments(&self) -> Vec<Forgery> {
        let payment = || Forgery::of("payments", self.confirmed);
        // A charge before the first.
        let earlier =
            "jsonb_build_array(jsonb_build_object('number', 0, 'charge_id', key, 'amount', 1, 'refunded', 0,
            'state', 'COMPLETED')) || (state -> 'charges')";
        vec![
            payment().add("charges,0,amount", 1),
            payment().set("charges,0,state", "FAILED"),
            payment().add("charges,0,number", 1),
            payment().set("charges,0,state", "REQUESTED"),
            payment().set("charges,0,state", "VOIDING"),
            payment().set("method", "CARD"),
            payment().set_to("user_id", "to_jsonb(key)"),
            payment().set_to("charges,0,charge_id", "to_jsonb(key)"),
            payment().add("charges,0,refunded", 1),
            payment().set_to("charges", earlier),
            payment().set("refund", json!({"round": 2, "parts": []})),
            payment().add("refund_round", 1),
            payment().set("asked", json!({"sequence": 1, "at": 0})),
        ]
    }

    fn of_coupons(&self) -> Vec<Forgery> {
        let coupon = || Forgery::of("coupons", self.coupon);
        let claim = || Forgery::of("coupon_claims", self.claim);
        let user_coupon = || Forgery::of("user_coupons", self.user_coupon);
        let used = || Forgery::of("coupon_uses", self.discounted);
        vec![
            coupon().add("issued", 1),
            coupon().add("quantity", 1),
            coupon().add("valid_days", 1),
            claim().add("position", 1),
            claim().add("requested_at", SECOND),
            user_coupon().set("state", "ISSUED").unset("order_id").unset("used_at"),
            user_coupon().add("min_subtotal", 1),
            user_coupon().add("expires_at", DAY),
            used().set("state", "RETURNED"),
            used().add("sequence", 1),
        ]
    }

    /// Sums of sales that are not what was sold, each with how the row is named and a figure of it that is wrong.
    pub(super) fn forged_sales(&self) -> Vec<(String, String, &'static str)> {
        let mut forgeries = Vec::new();
        for (row, name) in rows_of_sales(self.lamp) {
            for figure in ["quantity", "revenue", "orders"] {
                let forgery = format!("UPDATE sales SET {figure} = {figure} + 1 WHERE {row}");
                forgeries.push((forgery, name.clone(), figure));
            }
            let earlier = "bucket = bucket - interval '1 hour'";
            forgeries.push((format!("UPDATE sales SET {earlier} WHERE {row}"), name.clone(), "quantity"));
            forgeries.push((format!("DELETE FROM sales WHERE {row}"), name, "orders"));
        }
        let invented = "INSERT INTO sales SELECT level, bucket, 'GHOSTS', product_id, 1, 1, 1 FROM sales
            WHERE level = 'CATEGORY' LIMIT 1";
        forgeries.push((invented.to_owned(), "sales CATEGORY GHOSTS at ".to_owned(), "revenue"));
        // Nobody has counted what was put aside.
        let put_aside = format!(
            "INSERT INTO dead_letter (dead_letter_id, group_name, topic, partition, record_offset, headers, authentic, event_id,
                 code, error, attempts, first_failed_at, last_failed_at)
             SELECT gen_random_uuid(), 'sales', topic, partition, 0, '[]', true, event_id, 'RULE', '', 1, at, at
             FROM event_log WHERE type = 'order.confirmed' AND aggregate_id = '{}'",
            self.confirmed
        );
        forgeries.push((put_aside, format!("sales PRODUCT LIGHT {} at ", self.lamp), "orders"));
        forgeries
    }

    /// Shipments that never left, and what they are said to have done since.
    pub(super) fn forged_shipments(&self) -> [String; 2] {
        let now = Timestamp::now().as_microsecond();
        [json!({"created_at": now}), json!({"created_at": now, "delivered_at": now})].map(|times| {
            format!(
                "INSERT INTO shipments (key, version, state)
                 SELECT gen_random_uuid(), 1,
                     jsonb_build_object('order_id', key, 'lines', jsonb_build_array(bulk #> '{{lines,0}}')) || '{times}'
                 FROM orders WHERE key = '{}'",
                self.confirmed
            )
        })
    }
}

/// The row of all sales, that of their category, and that of the lamp, each with how it is named; of one bucket where
/// there are more.
fn rows_of_sales(lamp: Uuid) -> [(String, String); 3] {
    let first = |level: &str| {
        format!("level = '{level}' AND bucket = (SELECT min(bucket) FROM sales WHERE level = '{level}')")
    };
    [
        (first("ALL"), "sales ALL at ".to_owned()),
        (first("CATEGORY"), "sales CATEGORY LIGHT at ".to_owned()),
        (format!("product_id = '{lamp}'"), format!("sales PRODUCT LIGHT {lamp} at ")),
    ]
}
