//! The routes, one file for each noun.

pub(crate) mod balances;
mod coupons;
mod dead_letters;
mod docs;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod operations;
pub(crate) mod orders;
mod payments;
mod prelude;
mod products;
mod sales;
mod shipments;
mod stock;
mod users;
mod verification;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::app::Api;
use crate::observe;
use crate::openapi::{group, without_routes};
use crate::rate_limits;

macro_rules! of_capabilities {
    ($($noun:ident $Name:ident $(($($part:ident $Part:ident),+))?;)+) => {
        OpenApiRouter::new()$(.merge($noun::routes())$($(.merge($part::routes()))+)?)+
    };
}

/// Every route that the document describes. The full path stands at each, since nested routers of one prefix lose
/// paths (utoipa issue 1459).
fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(without_routes())
        .merge(ordermill_schemas::capabilities!(of_capabilities))
        .merge(group("Users and balances", users::routes()))
        .merge(group("Products", sales::popular::routes()))
        .merge(group("Statistics", sales::statistics::routes()))
        .merge(group("Orders", shipments::routes()))
        .merge(group("Dead letters", dead_letters::routes()))
        .merge(group("Operating", operations::routes().merge(verification::routes())))
}

/// The OpenAPI 3.1 document of every route, made from the routes themselves.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

/// The routes with everything around them. Whoever serves them tells them by `ConnectInfo<SocketAddr>` who is at the other end; where
/// nobody has, the request is not taken for one of this machine.
pub fn router(api: Api) -> Router {
    let (router, document) = documented().split_for_parts();
    surround(router.merge(docs::routes(&document)), api)
}

/// What is around every route: answers where there is no route, and the layers.
fn surround(router: Router<Api>, api: Api) -> Router {
    router
        .fallback(observe::unknown_path)
        .method_not_allowed_fallback(observe::unknown_method)
        .layer(from_fn_with_state(api.clone(), rate_limits::limit))
        .layer(CatchPanicLayer::custom(observe::after_panic))
        .layer(from_fn_with_state(api.clone(), observe::observe))
        .with_state(api)
}

#[cfg(test)]
mod document_tests;

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;
    use crate::testing::{api_without_database, ask};

    async fn panics() {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_its_text_stays_here() {
        let router = surround(Router::new().route("/panics", get(panics)), api_without_database());
        let answer = ask(&router, "GET", "/panics", &[], "").await;
        assert_eq!((answer.status, answer.code()), (500, "INTERNAL"));
        assert!(!answer.text().contains("on purpose"));
    }
}
