//! The OpenAPI document, made from the routes themselves.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::problem::{Code, FieldError, MEDIA_TYPE, ProblemBody};

/// The OpenAPI 3.1 document of every route.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    crate::routes::documented().into_openapi()
}

/// What the document says besides the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ordermill",
        description = "An order pipeline. Orders are accepted with 202 and decided by workers; follow one with \
                       `Prefer: wait=N`, by its stream or by its `ETag`. Money is a whole number in the minor unit of the one \
                       configured currency. Every error is `application/problem+json` with a stable `code`.",
        version = "1",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "Users and balances", description = "Who buys, and the wallet that orders are paid from"),
        (name = "Products", description = "What is sold"),
        (name = "Statistics", description = "What was sold"),
        (name = "Orders", description = "From acceptance to rest"),
        (name = "Gateway callbacks", description = "What the payment gateway tells"),
        (name = "Dead letters", description = "Messages that could not be applied: look, edit, replay, discard"),
        (name = "Operating", description = "Health, figures, documents"),
    ),
    components(schemas(ProblemBody, FieldError)),
    modifiers(&ApiKey),
)]
pub(crate) struct Document;

/// The name of the security scheme.
pub(crate) struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description =
            Some("An API key: a customer's, answered at sign-up, or an administrator's".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    }
}

/// The problems that a route may answer, as the document shows them: one response for each status, in it one
/// example for each code.
pub(crate) fn problem_responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    // These can meet any request.
    let everywhere = [Code::Internal, Code::Overloaded];
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes.iter().chain(&everywhere) {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), response(&codes).into())).collect()
}

fn response(codes: &[Code]) -> Response {
    let description: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}", code.text(), code.title())).collect();
    let examples = codes.iter().map(|code| {
        let example = json!({
            "type": format!("urn:ordermill:problem:{}", code.text()),
            "title": code.title(),
            "status": code.status().as_u16(),
            "detail": code.title(),
            "code": code.text(),
            "instance": "0192f0c1-7a3e-7000-8000-0123456789ab",
        });
        (code.text(), utoipa::openapi::example::ExampleBuilder::new().value(Some(example)).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .examples_from_iter(examples)
        .build();
    ResponseBuilder::new().description(description.join("; ")).content(MEDIA_TYPE, content).build()
}

/// Declares the problems of a route, for the `responses` of its `utoipa::path`.
macro_rules! problems {
    ($Name:ident: $($Code:ident),* $(,)?) => {
        /// The problems that a route may answer.
        struct $Name;

        impl utoipa::IntoResponses for $Name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                $crate::openapi::problem_responses(&[$($crate::problem::Code::$Code),*])
            }
        }
    };
}
pub(crate) use problems;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

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
}
