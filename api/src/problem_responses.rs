//! The problems of a route, as it declares them for the OpenAPI document.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::problem::{Code, MEDIA_TYPE};

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
                $crate::problem_responses::problem_responses(&[$($crate::problem::Code::$Code),*])
            }
        }
    };
}
pub(crate) use problems;
