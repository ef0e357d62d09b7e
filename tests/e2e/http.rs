//! The contract of the routes, as a client on the other side of the network sees it.

mod access;
mod balances;
mod documented;
mod idempotency;
mod operating;
mod order_lists;
mod orders;
mod product_lists;
mod products;
mod streams;
mod users;
mod verification;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Shop, User};

/// An answer with everything that a client sees of it.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of an answer with that status.
    fn with(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// A problem in every member of the contract, with that status and code. Answers it.
    fn refused(&self, status: u16, code: &str) -> Value {
        let problem = self.with(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()), "{problem}");
        assert_eq!(problem["instance"].as_str(), self.header("x-request-id"), "{self:?}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        problem
    }

    /// A `VALIDATION_FAILED` that names exactly these fields.
    fn refused_for(&self, fields: &[&str]) {
        let problem = self.refused(422, "VALIDATION_FAILED");
        let named: Vec<&str> = problem["errors"].as_array().unwrap().iter().map(field).collect();
        assert_eq!(named, fields, "{problem}");
        for error in problem["errors"].as_array().unwrap() {
            assert!(error["code"].is_string() && error["detail"].is_string(), "{error}");
        }
    }
}

fn field(error: &Value) -> &str {
    error["field"].as_str().unwrap()
}

/// Sends a request.
async fn ask(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.text().await.unwrap(),
    }
}

/// A POST of exactly these bytes with a fresh idempotency key.
fn post_as(shop: &Shop, key: &str, path: &str, body: impl Into<String>) -> RequestBuilder {
    post_again(shop, key, path, &Uuid::new_v4().to_string(), body)
}

/// A POST of exactly these bytes with that idempotency key.
fn post_again(
    shop: &Shop,
    key: &str,
    path: &str,
    idempotency_key: &str,
    body: impl Into<String>,
) -> RequestBuilder {
    shop.request_as(key, Method::POST, path)
        .header("Idempotency-Key", idempotency_key)
        .header("Content-Type", "application/json")
        .body(body.into())
}

fn charges(user: &User) -> String {
    format!("/users/{}/balance/charges", user.id)
}

fn new_email() -> String {
    format!("{}@example.com", Uuid::new_v4().simple())
}
