//! What guards money, stock and coupons is refused by the database itself, whoever writes and whatever the program says.

use ordermill_pipeline::database;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::error::DatabaseError;
use uuid::Uuid;

use super::Subjects;
use crate::documents::Forgery;
use crate::support::Shop;

impl Subjects {
    /// Changes of documents that a rule refuses, each with the rule's name.
    fn refused_changes(&self) -> Vec<(Forgery, &'static str)> {
        let balance = || Forgery::of("balances", self.user);
        let stock = || Forgery::of("stock", self.lamp);
        let coupon = || Forgery::of("coupons", self.coupon);
        let order = || Forgery::of("orders", self.confirmed);
        let claim = || Forgery::of("coupon_claims", self.claim);
        let user_coupon = || Forgery::of("user_coupons", self.user_coupon);
        vec![
            (balance().set("available", -1), "balances_not_below_zero"),
            (balance().set("held", -1), "balances_not_below_zero"),
            (
                stock().set("on_hand", -1).set_to("received", "to_jsonb(reserved + deducted - 1)"),
                "stock_adds_up",
            ),
            (
                stock().set("reserved", -1).set_to("received", "to_jsonb(on_hand + deducted - 1)"),
                "stock_adds_up",
            ),
            (
                stock().set("deducted", -1).set_to("received", "to_jsonb(on_hand + reserved - 1)"),
                "stock_adds_up",
            ),
            (stock().add("received", 1), "stock_adds_up"),
            (stock().add("on_hand", -1), "stock_adds_up"),
            (coupon().set_to("issued", "to_jsonb(quantity + 1)"), "coupons_no_more_than_there_are"),
            (coupon().set("issued", -1), "coupons_no_more_than_there_are"),
            (order().set_to("refunded", "to_jsonb(paid + 1)"), "orders_add_up"),
            (order().set("refunded", -1), "orders_add_up"),
            (order().set("status", "LOST"), "orders_add_up"),
            (claim().set("state", "LOST").unset("position"), "coupon_claims_add_up"),
            (claim().unset("position"), "coupon_claims_add_up"),
            (claim().set("state", "REJECTED"), "coupon_claims_add_up"),
            (user_coupon().set("state", "LOST").unset("order_id"), "user_coupons_add_up"),
            (user_coupon().unset("order_id"), "user_coupons_add_up"),
            (user_coupon().set("state", "ISSUED"), "user_coupons_add_up"),
            (Forgery::of("products", self.lamp).set("price", -1), "products_price_check"),
        ]
    }

    /// Documents that can't be there a second time, each with what of it is another and with the rule's name.
    fn refused_copies(&self) -> Vec<(&'static str, Uuid, Value, &'static str)> {
        let other = Uuid::new_v4();
        let (place, user) = (json!({"position": 77}), json!({"user_id": other}));
        let (claim, order) = (json!({"claim_id": other}), json!({"order_id": other}));
        vec![
            ("coupon_claims", self.claim, place, "coupon_claims_coupon_id_user_id_key"),
            ("coupon_claims", self.claim, user, "coupon_claims_coupon_id_position_key"),
            ("user_coupons", self.user_coupon, claim, "user_coupons_order_id_key"),
            ("user_coupons", self.user_coupon, order, "user_coupons_claim_id_key"),
        ]
    }

    /// Members that must be there: a check passes where what it looks at is missing.
    fn needed_members(&self) -> [(&'static str, Uuid, &'static [&'static str]); 6] {
        [
            ("balances", self.user, &["available", "held"]),
            ("stock", self.lamp, &["on_hand", "reserved", "deducted", "received"]),
            ("coupons", self.coupon, &["quantity", "issued"]),
            ("orders", self.confirmed, &["status", "paid", "refunded", "user_id"]),
            ("coupon_claims", self.claim, &["state", "coupon_id", "user_id"]),
            ("user_coupons", self.user_coupon, &["state", "coupon_id", "user_id", "claim_id"]),
        ]
    }

    /// Changes that are as far as the rules let one go.
    fn allowed_changes(&self) -> Vec<Forgery> {
        let stock = Forgery::of("stock", self.lamp);
        vec![
            Forgery::of("balances", self.user).set("available", 0).set("held", 0),
            stock.set("on_hand", 0).set("reserved", 0).set("deducted", 0).set("received", 0),
            Forgery::of("coupons", self.coupon).set_to("issued", "to_jsonb(quantity)"),
            Forgery::of("orders", self.confirmed).set_to("refunded", "to_jsonb(paid)"),
            Forgery::of("coupon_claims", self.claim).set("state", "REJECTED").unset("position"),
            Forgery::of("user_coupons", self.user_coupon).set("state", "REVOKED").unset("order_id"),
        ]
    }
}

/// Tries a statement and takes it back.
async fn attempt(shop: &Shop, statement: &str) -> Result<u64, Box<dyn DatabaseError>> {
    let mut transaction = database::begin(&shop.pool).await.unwrap();
    let done = sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await;
    transaction.rollback().await.unwrap();
    match done {
        Ok(done) => Ok(done.rows_affected()),
        Err(error) => Err(error.into_database_error().unwrap_or_else(|| panic!("{statement}"))),
    }
}

async fn assert_refused(shop: &Shop, statement: &str, rule: &str) {
    let error = attempt(shop, statement).await.expect_err(statement);
    assert_eq!(error.constraint(), Some(rule), "{statement}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_of_money_stock_or_coupons_the_database_refuses_by_the_rules_name() {
    let shop = Shop::new().await;
    let subjects = Subjects::of(&shop).await;
    for (change, rule) in subjects.refused_changes() {
        assert_refused(&shop, &change.statement(), rule).await;
    }
    for (table, key, other, rule) in subjects.refused_copies() {
        let copy = format!(
            "INSERT INTO {table} (key, version, state)
             SELECT gen_random_uuid(), 1, state || '{other}' FROM {table} WHERE key = '{key}'"
        );
        assert_refused(&shop, &copy, rule).await;
    }
    let of_nothing = "INSERT INTO shipments (key, version, state) VALUES (gen_random_uuid(), 1,
        jsonb_build_object('order_id', gen_random_uuid(), 'lines', '[]'::jsonb, 'created_at', 0))";
    assert_refused(&shop, of_nothing, "shipments_order_id_fkey").await;
    for change in subjects.allowed_changes() {
        assert_eq!(attempt(&shop, &change.statement()).await.unwrap(), 1, "{change:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_a_member_that_a_rule_looks_at_the_database_refuses() {
    let shop = Shop::new().await;
    let subjects = Subjects::of(&shop).await;
    for (table, key, members) in subjects.needed_members() {
        for member in members {
            let forgery = Forgery::of(table, key);
            let forgery = match (table, *member) {
                ("orders", "user_id") => forgery.unset_in_bulk(member),
                _ => forgery.unset(member),
            };
            let statement = forgery.statement();
            let error = attempt(&shop, &statement).await.expect_err(&statement);
            let column = if *member == "state" { "status" } else { member };
            assert_eq!(error.code().as_deref(), Some("23502"), "{statement}: {error}");
            assert!(error.message().contains(&format!("\"{column}\"")), "{statement}: {error}");
        }
    }
}
