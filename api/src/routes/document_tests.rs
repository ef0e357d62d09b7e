//! What the OpenAPI document says of the routes.

use std::collections::{BTreeSet, HashSet};
use std::fs;

use serde_json::{Value, json};

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

/// The routes that the pages in `docs` describe: their headings.
fn described() -> BTreeSet<String> {
    let pages = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap();
    let pages = pages.map(|page| page.unwrap().path()).filter(|page| page.is_file());
    let text: String = pages.map(|page| fs::read_to_string(page).unwrap()).collect();
    let headings = text.lines().filter_map(|line| line.strip_prefix("### `")?.split(['`', '?']).next());
    let routes = headings.filter_map(|heading| heading.split_once(" /"));
    routes.map(|(method, path)| format!("{} /{path}", method.to_lowercase())).collect()
}

#[test]
fn the_document_is_openapi_3_1_and_has_every_route_that_the_pages_describe_and_no_other() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let names = operations(&document).into_iter().map(|(name, _)| name);
    let of_operating = |name: &String| !name.contains(" /v1/");
    let (operating, of_the_shop): (Vec<String>, Vec<String>) = names.partition(of_operating);
    assert_eq!(operating, ["get /healthz", "get /metrics", "get /readyz"]);
    assert_eq!(of_the_shop.into_iter().collect::<BTreeSet<_>>(), described());
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
fn what_operators_are_told_takes_a_key_or_none() {
    let document = document();
    for path in ["/metrics", "/readyz"] {
        let operation = &document["paths"][path]["get"];
        assert_eq!(operation["security"], json!([{}, {"api_key": []}]), "{path}");
    }
    let refused = &document["paths"]["/metrics"]["get"]["responses"];
    assert!(refused["401"].is_object() && refused["403"].is_object(), "{refused}");
}

#[test]
fn every_operation_of_the_shop_or_that_takes_a_key_may_be_refused_since_there_were_too_many_and_no_other() {
    let document = document();
    for (name, operation) in operations(&document) {
        let refused = &operation["responses"]["429"];
        let problem = &refused["content"]["application/problem+json"];
        let is_limited = problem["examples"]["RATE_LIMITED"].is_object();
        assert_eq!(is_limited, name != "get /healthz", "{name}");
        assert_eq!(refused["headers"]["Retry-After"].is_object(), is_limited, "{name}");
    }
}

#[test]
fn a_route_that_takes_a_key_says_so_and_what_it_refuses() {
    let document = document();
    assert_eq!(document["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let has_path_id = name.contains('{');
        let may_do_without = operation["security"].as_array().is_none_or(|any| any.contains(&json!({})));
        let needs_key = !may_do_without;
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
