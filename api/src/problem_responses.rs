//! The problems of a route, as it declares them for the OpenAPI document.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::problem::{Code, MEDIA_TYPE, Refuses};

/// The problems that a route may answer: those of what it takes, and its own. One response for each status, in it one
/// example for each code.
pub(crate) struct Problems<R>(PhantomData<R>);

impl<R: Refuses> IntoResponses for Problems<R> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        // These can meet any request.
        let mut codes = vec![Code::Internal, Code::Overloaded];
        R::add_codes(&mut codes);
        codes.sort_unstable();
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in codes {
            by_status.entry(code.status().as_u16()).or_default().push(code);
        }
        by_status.into_iter().map(|(status, codes)| (status.to_string(), response(&codes).into())).collect()
    }
}

/// The response of problems that have one status.
pub(crate) fn response(codes: &[Code]) -> Response {
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
