//! Who may do what, and what is not there.

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::{ask, charges, post_as};
use crate::support::{in_open_shop, order_of};

#[test]
fn without_a_valid_key_nobody_gets_in() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(500).await, shop.product(100, 5).await);
        let order = shop.order(&user, &[(lamp, 1)]).await;
        let order = format!("/v1/orders/{}", order["order_id"].as_str().unwrap());
        for (method, path) in [
            (Method::GET, format!("/v1/users/{}", user.id)),
            (Method::DELETE, format!("/v1/users/{}", user.id)),
            (Method::GET, format!("/v1/users/{}/balance", user.id)),
            (Method::GET, format!("/v1/users/{}/balance/entries", user.id)),
            (Method::POST, format!("/v1{}", charges(&user))),
            (Method::POST, "/v1/products".to_owned()),
            (Method::PATCH, format!("/v1/products/{lamp}")),
            (Method::POST, format!("/v1/products/{lamp}/stock")),
            (Method::POST, "/v1/orders".to_owned()),
            (Method::GET, format!("/v1/users/{}/orders", user.id)),
            (Method::GET, "/v1/orders".to_owned()),
            (Method::GET, format!("{order}/events")),
            (Method::GET, format!("{order}/stream")),
            (Method::GET, order),
        ] {
            let request = || {
                let request = shop.request_as_nobody(method.clone(), &path);
                request.header("Idempotency-Key", Uuid::new_v4().to_string())
            };
            for request in [
                request(),
                request().bearer_auth("om_nobody_s"),
                request().bearer_auth(""),
                request().bearer_auth(&user.key[1..]),
                request().header("Authorization", &user.key),
                request().basic_auth(&user.key, Some("")),
            ] {
                let answer = ask(request).await;
                answer.refused(401, "UNAUTHENTICATED");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
    });
}

#[test]
fn what_belongs_to_another_user_is_not_there() {
    in_open_shop(async |shop| {
        let (owner, other, lamp) = (shop.user(500).await, shop.user(500).await, shop.product(100, 5).await);
        let order = shop.order(&owner, &[(lamp, 1)]).await;
        let order = format!("/orders/{}", order["order_id"].as_str().unwrap());
        for path in ["", "/balance", "/balance/entries", "/orders"] {
            let path = format!("/users/{}{path}", owner.id);
            ask(shop.request_as(&other.key, Method::GET, &path)).await.refused(404, "USER_NOT_FOUND");
            ask(shop.request_as(&owner.key, Method::GET, &path)).await.with(200);
            ask(shop.request(Method::GET, &path)).await.with(200);
        }
        for path in [order.clone(), format!("{order}/events")] {
            let request = || shop.request_as(&other.key, Method::GET, &path);
            ask(request()).await.refused(404, "ORDER_NOT_FOUND");
            ask(request().header("If-None-Match", "*")).await.refused(404, "ORDER_NOT_FOUND");
            ask(shop.request_as(&owner.key, Method::GET, &path)).await.with(200);
            ask(shop.request(Method::GET, &path)).await.with(200);
        }
        let charge = ask(post_as(shop, &other.key, &charges(&owner), r#"{"amount": 5}"#)).await;
        charge.refused(404, "USER_NOT_FOUND");
        let theirs = order_of(&owner, &[(lamp, 1)]).to_string();
        ask(post_as(shop, &other.key, "/orders", theirs)).await.refused(404, "USER_NOT_FOUND");
        assert_eq!((shop.balance(&owner).await, shop.balance(&other).await), ((400, 0), (500, 0)));
    });
}

#[test]
fn a_customer_adds_no_products() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let lamp = json!({"name": "Lamp", "description": "", "category": "x", "price": 1, "stock": 1});
        let answer = ask(post_as(shop, &user.key, "/products", lamp.to_string())).await;
        answer.refused(403, "FORBIDDEN");
    });
}

#[test]
fn what_nobody_has_is_not_found_by_its_noun() {
    in_open_shop(async |shop| {
        let unknown = Uuid::now_v7().to_string();
        for id in [unknown.as_str(), "none", "%00", "..%2f..", "0"] {
            for (path, code) in [
                (format!("/users/{id}"), "USER_NOT_FOUND"),
                (format!("/users/{id}/balance"), "USER_NOT_FOUND"),
                (format!("/users/{id}/balance/entries"), "USER_NOT_FOUND"),
                (format!("/users/{id}/orders"), "USER_NOT_FOUND"),
                (format!("/products/{id}"), "PRODUCT_NOT_FOUND"),
                (format!("/orders/{id}"), "ORDER_NOT_FOUND"),
                (format!("/orders/{id}/events"), "ORDER_NOT_FOUND"),
                (format!("/orders/{id}/stream"), "ORDER_NOT_FOUND"),
            ] {
                ask(shop.request(Method::GET, &path)).await.refused(404, code);
            }
            let charge = shop.request(Method::POST, &format!("/users/{id}/balance/charges"));
            let charge = charge.header("Idempotency-Key", "key").json(&json!({"amount": 5}));
            ask(charge).await.refused(404, "USER_NOT_FOUND");
        }
        let lamp = shop.product(100, 5).await;
        let order = json!({"user_id": unknown, "lines": [{"product_id": lamp, "quantity": 1}]});
        let order = shop.request(Method::POST, "/orders").header("Idempotency-Key", unknown).json(&order);
        ask(order).await.refused(404, "USER_NOT_FOUND");
    });
}

#[test]
fn a_path_or_a_method_that_no_route_has_is_a_problem_too() {
    in_open_shop(async |shop| {
        for path in ["/", "/v1", "/v1/", "/v1/cups", "/v2/orders", "/v1/orders/", "/metrics/x"] {
            ask(shop.request_as_nobody(Method::GET, path)).await.refused(404, "NOT_FOUND");
        }
        for (method, path, allowed) in [
            (Method::PUT, "/v1/orders", "POST"),
            (Method::GET, "/v1/users", "POST"),
            (Method::DELETE, "/healthz", "GET"),
            (Method::POST, "/openapi.json", "GET"),
        ] {
            let answer = ask(shop.request_as_nobody(method, path)).await;
            answer.refused(405, "METHOD_NOT_ALLOWED");
            assert!(answer.header("allow").unwrap().contains(allowed), "{answer:?}");
        }
    });
}
