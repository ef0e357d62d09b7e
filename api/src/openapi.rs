//! What the OpenAPI document says besides the routes.

use serde_json::Value;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi as Written, RefOr};
use utoipa::{IntoParams as _, OpenApi, PartialSchema as _};
use utoipa_axum::router::OpenApiRouter;

use crate::keyed::KeyHeader;
use crate::path;
use crate::problem::{Code, FieldError, MEDIA_TYPE, ProblemBody};
use crate::problem_responses::response;
use crate::rate_limits::LIMITED_PATHS;

/// The name of the security scheme.
const API_KEY: &str = "api_key";

/// What it is, its groups of routes, and what every route may answer with.
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
)]
struct Document;

/// The document without routes.
pub(crate) fn without_routes() -> Written {
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description =
        Some("An API key: a customer's, answered at sign-up, or an administrator's".to_owned());
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(API_KEY, SecurityScheme::Http(bearer));
    document
}

/// Routes that the document shows together under that name.
pub(crate) fn group<S: Clone + Send + Sync + 'static>(
    name: &str,
    mut routes: OpenApiRouter<S>,
) -> OpenApiRouter<S> {
    complete(routes.get_openapi_mut(), name);
    routes
}

/// Puts every operation into that group, and says of each what follows from the rest: what its path names, who may be answered
/// `UNAUTHENTICATED` must show a key, who may be answered `IDEMPOTENCY_KEY_MISSING` must send one and may get a repeated answer, what is only accepted is
/// to be asked for again, and whoever asks too often must wait.
fn complete(document: &mut Written, group: &str) {
    for (path, item) in &mut document.paths.paths {
        let methods = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in methods.into_iter().flatten() {
            operation.tags = Some(vec![group.to_owned()]);
            if may_refuse(operation, Code::Unauthenticated) {
                let a_key = || vec![SecurityRequirement::new(API_KEY, [""; 0])];
                // A route that some may ask without one says so itself.
                operation.security.get_or_insert_with(a_key);
            }
            let is_keyed = may_refuse(operation, Code::IdempotencyKeyMissing);
            let key = is_keyed.then(|| KeyHeader::into_params(|| None)).into_iter().flatten().map(RefOr::T);
            let own = operation.parameters.take().unwrap_or_default();
            let parameters: Vec<_> = path::parameters(path).chain(key).chain(own).collect();
            operation.parameters = (!parameters.is_empty()).then_some(parameters);
            let responses = &mut operation.responses.responses;
            if path.starts_with(LIMITED_PATHS) || operation.security.is_some() {
                responses.insert("429".to_owned(), response(&[Code::RateLimited]).into());
            }
            for (status, response) in responses {
                let RefOr::T(response) = response else { continue };
                let mut add = |name: &str, description: &str| {
                    let header = HeaderBuilder::new().schema(Some(String::schema()));
                    let header = header.description(Some(description)).build();
                    response.headers.insert(name.to_owned(), header.into());
                };
                if is_keyed && status.starts_with('2') {
                    add("Idempotency-Replayed", "`true` where the request was repeated");
                }
                if status == "202" {
                    add("Retry-After", "When to ask how far it is, in seconds");
                }
                if status == "429" {
                    add("Retry-After", "When to send it again, in seconds");
                }
            }
        }
    }
}

/// The schema of a text that is one of some words.
pub(crate) fn words<W: Into<Value>>(words: impl IntoIterator<Item = W>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

fn may_refuse(operation: &Operation, code: Code) -> bool {
    let refused = operation.responses.responses.get(code.status().as_str()).and_then(inline);
    let content = refused.and_then(|refused| refused.content.get(MEDIA_TYPE)).and_then(inline);
    content.is_some_and(|content| content.examples.contains_key(code.text()))
}

fn inline<T>(of: &RefOr<T>) -> Option<&T> {
    match of {
        RefOr::T(inline) => Some(inline),
        RefOr::Ref(_) => None,
    }
}
