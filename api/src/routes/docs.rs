//! The OpenAPI document and its page, which asks no other host for anything.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::Api;

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";
/// Where its page is.
const PAGE: &str = "/docs";
/// What the page may load: nothing from another host. It styles its elements one by one.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
);

/// The routes of the documents.
pub(crate) fn routes(document: &OpenApi) -> Router<Api> {
    // The document never changes while the process lives, so it is written once. It is plain data.
    let document = Bytes::from(document.to_pretty_json().unwrap_or_default());
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    // "none" keeps the page from asking swagger.io to validate the document.
    let page: Router<Api> = SwaggerUi::new(PAGE).config(Config::from(DOCUMENT).validator_url("none")).into();
    Router::new().route(DOCUMENT, get(answer)).merge(page.layer(map_response(keep_at_home)))
}

async fn keep_at_home(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    response
}

#[cfg(test)]
mod tests {
    use crate::router;
    use crate::testing::{api_without_database, ask};

    #[tokio::test]
    async fn the_document_is_there_without_a_key() {
        let answer = ask(&router(api_without_database()), "GET", "/openapi.json", &[], "").await;
        assert_eq!(
            (answer.status, &answer.headers["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        assert!(answer.json()["paths"]["/v1/orders"]["post"].is_object());
    }

    #[tokio::test]
    async fn the_page_shows_the_document_and_asks_no_other_host() {
        let router = router(api_without_database());
        assert_eq!(ask(&router, "GET", "/docs", &[], "").await.headers["location"], "/docs/");
        let page = ask(&router, "GET", "/docs/", &[], "").await;
        assert_eq!(page.status, 200);
        assert!(!page.text().contains("//"), "{}", page.text());
        assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self'"));
        let start = ask(&router, "GET", "/docs/swagger-initializer.js", &[], "").await;
        assert!(start.text().contains("\"/openapi.json\""), "{}", start.text());
        assert!(start.text().contains("\"validatorUrl\": \"none\""), "{}", start.text());
        for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"] {
            assert_eq!(ask(&router, "GET", &format!("/docs/{file}"), &[], "").await.status, 200, "{file}");
        }
    }
}
