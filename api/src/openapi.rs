//! What the OpenAPI document says besides the routes.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::problem::{FieldError, ProblemBody};

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
