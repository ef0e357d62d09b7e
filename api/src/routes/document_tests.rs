//! What the OpenAPI document says of the routes.

use std::collections::HashSet;

use serde_json::Value;

use super::openapi;

fn document() -> Value {
    serde_json::to_value(openapi()).unwrap()
}

/// Every operation with its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((format!("{method} {path}"), operation));
        }
    }
    operations
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_openapi_3_1_and_has_every_route() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let names: Vec<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "get /healthz",
        "get /metrics",
        "get /readyz",
        "post /v1/coupons",
        "get /v1/coupons/{coupon_id}",
        "post /v1/coupons/{coupon_id}/claims",
        "get /v1/coupons/{coupon_id}/claims/{claim_id}",
        "get /v1/dead-letters",
        "get /v1/dead-letters/groups",
        "get /v1/dead-letters/halts",
        "post /v1/dead-letters/halts/{group}/resume",
        "get /v1/dead-letters/replays",
        "post /v1/dead-letters/replays",
        "get /v1/dead-letters/replays/{replay_id}",
        "get /v1/dead-letters/{dead_letter_id}",
        "post /v1/dead-letters/{dead_letter_id}/discard",
        "put /v1/dead-letters/{dead_letter_id}/payload",
        "get /v1/orders",
        "post /v1/orders",
        "get /v1/orders/{order_id}",
        "patch /v1/orders/{order_id}",
        "post /v1/orders/{order_id}/cancellation",
        "get /v1/orders/{order_id}/events",
        "post /v1/orders/{order_id}/shipments",
        "get /v1/orders/{order_id}/stream",
        "post /v1/payments/callbacks",
        "get /v1/products",
        "post /v1/products",
        "get /v1/products/popular",
        "get /v1/products/{product_id}",
        "patch /v1/products/{product_id}",
        "post /v1/products/{product_id}/stock",
        "post /v1/shipments/{shipment_id}/delivery",
        "get /v1/statistics/sales",
        "post /v1/user-coupons/{user_coupon_id}/revocation",
        "post /v1/users",
        "delete /v1/users/{user_id}",
        "get /v1/users/{user_id}",
        "get /v1/users/{user_id}/balance",
        "post /v1/users/{user_id}/balance/charges",
        "get /v1/users/{user_id}/balance/entries",
        "get /v1/users/{user_id}/coupons",
        "get /v1/users/{user_id}/orders",
        "get /v1/verification",
    ];
    assert_eq!(names, expected);
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn operations_are_told_apart_by_their_ids() {
    let document = document();
    let operations = operations(&document);
    let ids: HashSet<&str> = operations.iter().map(|(_, o)| o["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
}

#[test]
fn a_list_says_what_its_parameters_may_be_and_a_stream_what_it_is() {
    let document = document();
    let parameters = document["paths"]["/v1/orders"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<&Value> = parameters.iter().map(|parameter| &parameter["name"]).collect();
    assert_eq!(names, ["status", "overdue", "limit", "cursor"]);
    assert!(parameters.iter().all(|parameter| parameter["required"] == false), "{parameters:?}");
    assert_eq!(parameters[0]["schema"]["enum"].as_array().unwrap().len(), 9);
    assert!(parameters[1]["schema"].to_string().contains("boolean"), "{}", parameters[1]);
    let stream = &document["paths"]["/v1/orders/{order_id}/stream"]["get"]["responses"]["200"];
    assert!(stream["content"]["text/event-stream"]["example"].is_string(), "{stream}");
}

#[test]
fn rankings_and_statistics_say_what_their_parameters_may_be() {
    let document = document();
    for (path, expected) in [
        ("/v1/products/popular", "by days from to category availability limit"),
        ("/v1/statistics/sales", "bucket from to product_id category"),
    ] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        let names: Vec<&str> = parameters.iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), expected);
        assert!(parameters.iter().all(|p| p["required"] == false), "{parameters:?}");
        // The first is a choice, of which one is what an absent one means.
        let choice = &parameters[0]["schema"];
        assert_eq!(choice["default"], choice["enum"][0], "{choice}");
        let date = parameters.iter().find(|p| p["name"] == "from").unwrap();
        assert!(date["schema"].to_string().contains(r#""format":"date""#), "{date}");
    }
}

#[test]
fn a_route_that_takes_a_key_says_so_and_what_it_refuses() {
    let document = document();
    assert_eq!(document["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let has_path_id = name.contains('{');
        let needs_key = operation.get("security").is_some();
        let takes_body = operation.get("requestBody").is_some();
        let is_repeatable = operation["parameters"]
            .as_array()
            .is_some_and(|parameters| parameters.iter().any(|p| p["name"] == "Idempotency-Key"));
        assert!(!needs_key || responses.contains_key("401"), "{name}");
        assert!(!has_path_id || responses.contains_key("404"), "{name}");
        assert!(!takes_body || responses.contains_key("400") && responses.contains_key("413"), "{name}");
        assert!(!is_repeatable || responses.contains_key("409"), "{name}");
    }
}
