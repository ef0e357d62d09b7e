//! Every route, to whom it answers, and what those get.

use Access::{Admins, AnyKey, Gateway, Operators, Owner, Public};

/// To whom a route answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody, whichever key they show.
    Public,
    /// Everybody with a valid key.
    AnyKey,
    /// The customer whose it is, and administrators. To others it is not there: 404 with this code.
    Owner(&'static str),
    /// Administrators.
    Admins,
    /// Administrators, and programs on the same machine.
    Operators,
    /// Whoever signs as the payment gateway does.
    Gateway,
}

/// A route, and a request to it that is right.
#[derive(Debug)]
pub(crate) struct Route {
    /// The method.
    pub(crate) method: &'static str,
    /// The path as it was registered.
    pub(crate) path: &'static str,
    /// To whom it answers.
    pub(crate) access: Access,
    /// The status that those are answered with.
    pub(crate) status: u16,
    /// What is sent, where anything is; the names in braces stand for ids here as well.
    pub(crate) body: &'static str,
}

impl Route {
    /// Method and path.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An order of one piece.
pub(crate) const ORDER: &str =
    r#"{"user_id":"{user_id}","lines":[{"product_id":"{product_id}","quantity":1}]}"#;
/// A claim of a coupon.
pub(crate) const CLAIM: &str = r#"{"user_id":"{user_id}"}"#;
/// A product of which there is enough.
pub(crate) const PRODUCT: &str =
    r#"{"name":"Lamp","description":"","category":"light","price":9000,"stock":1000000}"#;
/// A coupon of which there is enough.
pub(crate) const COUPON: &str =
    r#"{"name":"Spring","discount":{"type":"PERCENT","value":10},"quantity":1000000}"#;
/// Somebody who signs up.
pub(crate) const USER: &str = r#"{"name":"Kim","email":"{email}"}"#;
const LINES: &str = r#"{"lines":[{"product_id":"{product_id}","quantity":1}]}"#;
const DISCARD: &str = r#"{"reason":"a test","release_waiting":true}"#;
const REASON: &str = r#"{"reason":"a test"}"#;
const CALLBACK: &str = r#"{"event_id":"{user_id}","charge_id":"1","reference":"{user_id}","status":"APPROVED","approved_amount":1,"at":"2026-01-01T00:00:00Z"}"#;

const fn get(path: &'static str, access: Access, status: u16) -> Route {
    send("GET", path, access, status, "")
}

const fn send(
    method: &'static str,
    path: &'static str,
    access: Access,
    status: u16,
    body: &'static str,
) -> Route {
    Route { method, path, access, status, body }
}

/// No worker runs, so orders and claims stay PENDING: whoever may cancel or change an order is told that it is busy. What only
/// administrators name, like shipments and dead letters, is not there: they are told so.
pub(crate) const ROUTES: &[Route] = &[
    // Operating.
    get("/healthz", Public, 200),
    get("/readyz", Public, 200),
    get("/metrics", Operators, 200),
    get("/openapi.json", Public, 200),
    get("/docs", Public, 303),
    get("/docs/", Public, 200),
    get("/docs/{*rest}", Public, 200),
    get("/v1/verification", Admins, 200),
    // Users and balances.
    send("POST", "/v1/users", Public, 201, USER),
    get("/v1/users/{user_id}", Owner("USER_NOT_FOUND"), 200),
    send("DELETE", "/v1/users/{user_id}", Owner("USER_NOT_FOUND"), 204, ""),
    get("/v1/users/{user_id}/balance", Owner("USER_NOT_FOUND"), 200),
    get("/v1/users/{user_id}/balance/entries", Owner("USER_NOT_FOUND"), 200),
    send("POST", "/v1/users/{user_id}/balance/charges", Owner("USER_NOT_FOUND"), 201, r#"{"amount":1}"#),
    get("/v1/users/{user_id}/coupons", Owner("USER_NOT_FOUND"), 200),
    get("/v1/users/{user_id}/orders", Owner("USER_NOT_FOUND"), 200),
    // Products and what was sold.
    get("/v1/products", Public, 200),
    send("POST", "/v1/products", Admins, 201, PRODUCT),
    get("/v1/products/popular", Public, 200),
    get("/v1/products/{product_id}", Public, 200),
    send("PATCH", "/v1/products/{product_id}", Admins, 200, r#"{"price":8000}"#),
    send("POST", "/v1/products/{product_id}/stock", Admins, 200, r#"{"delta":1,"reason":"a test"}"#),
    get("/v1/statistics/sales", AnyKey, 200),
    // Orders.
    get("/v1/orders", Admins, 200),
    send("POST", "/v1/orders", Owner("USER_NOT_FOUND"), 202, ORDER),
    get("/v1/orders/{order_id}", Owner("ORDER_NOT_FOUND"), 200),
    send("PATCH", "/v1/orders/{order_id}", Owner("ORDER_NOT_FOUND"), 409, LINES),
    get("/v1/orders/{order_id}/events", Owner("ORDER_NOT_FOUND"), 200),
    get("/v1/orders/{order_id}/stream", Owner("ORDER_NOT_FOUND"), 200),
    send("POST", "/v1/orders/{order_id}/cancellation", Owner("ORDER_NOT_FOUND"), 409, REASON),
    send("POST", "/v1/orders/{order_id}/shipments", Admins, 409, LINES),
    send("POST", "/v1/shipments/{shipment_id}/delivery", Admins, 404, ""),
    // Coupons.
    send("POST", "/v1/coupons", Admins, 201, COUPON),
    get("/v1/coupons/{coupon_id}", Public, 200),
    send("POST", "/v1/coupons/{coupon_id}/claims", Owner("USER_NOT_FOUND"), 202, CLAIM),
    get("/v1/coupons/{coupon_id}/claims/{claim_id}", Owner("CLAIM_NOT_FOUND"), 200),
    send("POST", "/v1/user-coupons/{user_coupon_id}/revocation", Admins, 404, REASON),
    // Payments.
    send("POST", "/v1/payments/callbacks", Gateway, 200, CALLBACK),
    // Dead letters.
    get("/v1/dead-letters", Admins, 200),
    get("/v1/dead-letters/groups", Admins, 200),
    get("/v1/dead-letters/{dead_letter_id}", Admins, 404),
    send("PUT", "/v1/dead-letters/{dead_letter_id}/payload", Admins, 404, r#"{"payload":"{}"}"#),
    send("POST", "/v1/dead-letters/{dead_letter_id}/discard", Admins, 404, DISCARD),
    get("/v1/dead-letters/replays", Admins, 200),
    send("POST", "/v1/dead-letters/replays", Admins, 202, r#"{"filter":{}}"#),
    get("/v1/dead-letters/replays/{replay_id}", Admins, 404),
    get("/v1/dead-letters/halts", Admins, 200),
    send("POST", "/v1/dead-letters/halts/{group}/resume", Admins, 404, "{}"),
];
