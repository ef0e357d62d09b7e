//! Tests of the routes, on a router in this process.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::app::Unanswered;
use crate::ledger::Ledger;

/// A gateway with the default faults (none) and no latency.
struct Gateway {
    router: Router,
    _dir: TempDir,
}

struct Answer {
    status: u16,
    body: Value,
    is_sent: bool,
    content_type: String,
}

impl Gateway {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _writer_end) = Ledger::open(&dir.path().join("ledger"), false).unwrap();
        let app = App::new(ledger, None);
        app.set_behaviour(Behaviour { latency_ms: [0, 0], ..Behaviour::default() });
        Self { router: router(Arc::new(app)), _dir: dir }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map_or("", |value| value.to_str().unwrap());
        Answer {
            status: response.status().as_u16(),
            is_sent: response.extensions().get::<Unanswered>().is_none(),
            content_type: content_type.to_owned(),
            body: {
                let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
                serde_json::from_slice(&bytes).unwrap_or_default()
            },
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, body.to_string()).await
    }

    async fn charge(&self, id: &str) -> Answer {
        self.post("/charges", order(id)).await
    }

    async fn behave(&self, mut behaviour: Value) -> Answer {
        behaviour["latency_ms"] = json!([0, 0]);
        self.send(Method::PUT, "/behaviour", behaviour.to_string()).await
    }
}

impl Answer {
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["code"], code);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.content_type, "application/problem+json");
    }

    fn is(&self, body: Value) {
        assert_eq!((self.status, &self.body), (200, &body));
    }

    fn ids(&self) -> Vec<&str> {
        let items = self.body["items"].as_array().unwrap();
        let ids = items.iter().map(|item| item["charge_id"].as_str().unwrap());
        ids.collect()
    }
}

fn order(id: &str) -> Value {
    json!({"charge_id": id, "amount": 1000, "method": "CARD", "reference": "order-1"})
}

#[tokio::test]
async fn a_charge_is_approved_and_can_be_read() {
    let gateway = Gateway::open();
    let approved = json!({"charge_id": "a", "status": "APPROVED", "approved_amount": 1000});
    gateway.charge("a").await.is(approved.clone());
    gateway.charge("a").await.is(approved);

    let mut shown = gateway.get("/charges/a").await;
    assert!(shown.body["created_at"].take().is_string());
    shown.is(json!({
        "charge_id": "a", "reference": "order-1", "amount": 1000, "approved_amount": 1000,
        "refunded": 0, "status": "APPROVED", "method": "CARD", "created_at": null,
    }));
    gateway.get("/charges/b").await.is_problem(404, "CHARGE_NOT_FOUND");
}

#[tokio::test]
async fn a_charge_id_with_other_contents_is_refused() {
    let gateway = Gateway::open();
    gateway.charge("a").await;
    let mut other = order("a");
    other["amount"] = json!(1001);
    let answer = gateway.post("/charges", other).await;
    answer.is_problem(422, "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test]
async fn refunds_add_up_to_the_charge_at_most() {
    let gateway = Gateway::open();
    gateway.charge("a").await;
    let refund = json!({"refund_id": "r", "amount": 700});
    let refunded = json!({"refund_id": "r", "charge_id": "a", "amount": 700});
    for _ in 0..2 {
        let answer = gateway.post("/charges/a/refunds", refund.clone()).await;
        answer.is(refunded.clone());
    }
    let too_much = json!({"refund_id": "s", "amount": 301});
    let answer = gateway.post("/charges/a/refunds", too_much.clone()).await;
    answer.is_problem(409, "REFUND_EXCEEDS_CHARGE");
    let answer = gateway.post("/charges/b/refunds", too_much).await;
    answer.is_problem(404, "CHARGE_NOT_FOUND");
    assert_eq!(gateway.get("/charges/a").await.body["refunded"], 700);
}

#[tokio::test]
async fn a_void_comes_before_or_after_its_charge() {
    let gateway = Gateway::open();
    gateway.charge("after").await;
    for id in ["after", "before"] {
        let voided = json!({"charge_id": id, "status": "VOIDED", "approved_amount": 0});
        let path = format!("/charges/{id}/void");
        for _ in 0..2 {
            gateway.post(&path, Value::Null).await.is(voided.clone());
        }
        gateway.charge(id).await.is(voided);
        let shown = gateway.get(&format!("/charges/{id}")).await;
        assert_eq!(shown.body["status"], "VOIDED");
    }
    let refund = json!({"refund_id": "r", "amount": 1});
    let answer = gateway.post("/charges/after/refunds", refund).await;
    answer.is_problem(409, "CHARGE_NOT_REFUNDABLE");
}

#[tokio::test]
async fn a_list_holds_one_reference_or_the_whole_ledger_in_pages() {
    let gateway = Gateway::open();
    for id in ["a", "b", "c", "d", "e"] {
        let mut order = order(id);
        order["reference"] = json!(if id == "b" { "other" } else { "order-1" });
        gateway.post("/charges", order).await;
    }
    let listed = gateway.get("/charges?reference=order-1").await;
    assert_eq!(listed.ids(), ["a", "c", "d", "e"]);
    assert_eq!(gateway.get("/charges?reference=none").await.ids().len(), 0);

    let mut seen = Vec::new();
    let mut path = "/charges?limit=2".to_owned();
    loop {
        let page = gateway.get(&path).await;
        seen.extend(page.ids().into_iter().map(str::to_owned));
        let Some(cursor) = page.body["next_cursor"].as_str() else {
            break;
        };
        path = format!("/charges?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_says_why() {
    let gateway = Gateway::open();
    for body in ["", "{", "[]", r#"{"charge_id":"a"}"#] {
        let answer = gateway.send(Method::POST, "/charges", body).await;
        answer.is_problem(400, "INVALID_JSON");
    }
    let mut unknown = order("a");
    unknown["tip"] = json!(1);
    let answer = gateway.post("/charges", unknown).await;
    answer.is_problem(400, "INVALID_JSON");

    let wrong = json!({"charge_id": "", "amount": 0, "method": "CASH", "reference": "a\0"});
    let answer = gateway.post("/charges", wrong).await;
    answer.is_problem(422, "VALIDATION_FAILED");
    let errors = answer.body["errors"].as_array().unwrap();
    let fields: Vec<_> = errors.iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["charge_id", "amount", "method", "reference"]);

    let wrong = json!({"refund_id": "r", "amount": -1});
    let answer = gateway.post("/charges/a/refunds", wrong).await;
    answer.is_problem(422, "VALIDATION_FAILED");
    let long = format!("/charges/{}/void", "x".repeat(65));
    let answer = gateway.post(&long, Value::Null).await;
    answer.is_problem(422, "VALIDATION_FAILED");
    for query in ["limit=0", "limit=10001", "cursor=x", "sort=newest"] {
        let answer = gateway.get(&format!("/charges?{query}")).await;
        answer.is_problem(422, "VALIDATION_FAILED");
    }
    let large = " ".repeat(BODY_BYTES_MAX + 1);
    let answer = gateway.send(Method::POST, "/charges", large).await;
    answer.is_problem(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(gateway.get("/charges").await.ids().len(), 0);
}

#[tokio::test]
async fn an_unknown_path_or_method_is_a_problem_too() {
    let gateway = Gateway::open();
    gateway.get("/nothing").await.is_problem(404, "NOT_FOUND");
    let answer = gateway.send(Method::DELETE, "/charges/a", "").await;
    answer.is_problem(405, "METHOD_NOT_ALLOWED");
    gateway.get("/healthz").await.is(json!({"status": "ok"}));
}

#[tokio::test]
async fn timeout_before_neither_answers_nor_charges() {
    let gateway = Gateway::open();
    gateway.behave(json!({"timeout_before": 1})).await;
    assert!(!gateway.charge("a").await.is_sent);
    assert_eq!(gateway.get("/charges/a").await.status, 404);
}

#[tokio::test]
async fn timeout_after_charges_refunds_and_voids_without_an_answer() {
    let gateway = Gateway::open();
    gateway.behave(json!({"timeout_after": 1})).await;
    assert!(!gateway.charge("a").await.is_sent);
    assert_eq!(gateway.get("/charges/a").await.body["status"], "APPROVED");

    let refund = json!({"refund_id": "r", "amount": 1});
    assert!(!gateway.post("/charges/a/refunds", refund).await.is_sent);
    assert_eq!(gateway.get("/charges/a").await.body["refunded"], 1);

    assert!(!gateway.post("/charges/a/void", Value::Null).await.is_sent);
    assert_eq!(gateway.get("/charges/a").await.body["status"], "VOIDED");
}

#[tokio::test]
async fn an_error_has_no_effect_on_charge_refund_or_void() {
    let gateway = Gateway::open();
    gateway.charge("a").await;
    let before = gateway.get("/charges").await.body;
    gateway.behave(json!({"error": 1})).await;
    let refund = json!({"refund_id": "r", "amount": 1});
    for answer in [
        gateway.charge("b").await,
        gateway.post("/charges/a/refunds", refund).await,
        gateway.post("/charges/a/void", Value::Null).await,
    ] {
        answer.is_problem(500, "INJECTED_FAULT");
    }
    assert_eq!(gateway.get("/charges").await.body, before);
}

#[tokio::test]
async fn a_declined_or_partial_charge_is_recorded_and_repeated_as_such() {
    let gateway = Gateway::open();
    gateway.behave(json!({"decline": 1})).await;
    gateway.charge("a").await;
    gateway.behave(json!({"partial": 1})).await;
    gateway.charge("b").await;
    gateway.behave(json!({})).await;
    let declined = json!({"charge_id": "a", "status": "DECLINED", "approved_amount": 0});
    gateway.charge("a").await.is(declined);
    let partial = json!({"charge_id": "b", "status": "APPROVED", "approved_amount": 500});
    gateway.charge("b").await.is(partial);
}

#[tokio::test]
async fn a_behaviour_is_replaced_as_a_whole_and_reset_to_the_default() {
    let gateway = Gateway::open();
    let none = json!({
        "latency_ms": [0, 5], "decline": 0.0, "error": 0.0, "timeout_before": 0.0,
        "timeout_after": 0.0, "partial": 0.0, "duplicate_callback": 0.0, "drop_callback": 0.0,
    });
    gateway.behave(json!({"error": 0.5})).await;
    let mut expected = none.clone();
    expected["latency_ms"] = json!([0, 0]);
    expected["decline"] = json!(1.0);
    gateway.behave(json!({"decline": 1})).await.is(expected.clone());
    gateway.get("/behaviour").await.is(expected.clone());

    for (body, status) in [(r#"{"decline":2}"#, 422), (r#"{"declined":1}"#, 400)] {
        let answer = gateway.send(Method::PUT, "/behaviour", body).await;
        assert_eq!(answer.status, status);
    }
    gateway.get("/behaviour").await.is(expected);

    gateway.charge("kept").await;
    gateway.post("/reset", Value::Null).await.is(none.clone());
    gateway.get("/behaviour").await.is(none);
    assert_eq!(gateway.get("/charges").await.ids(), ["kept"]);
}
