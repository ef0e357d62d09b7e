//! Health, readiness and figures.

use prometheus_client::encoding::text::encode;

use crate::routes::prelude::*;

/// What the figures are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes of operation.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(readiness)).routes(routes!(metrics))
}

/// One word on how it is.
#[derive(Debug, Serialize, ToSchema)]
struct Condition {
    /// `ok` or `ready`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
}

/// Does the process live?
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It does", body = Condition)),
)]
async fn health() -> JsonAnswer<Condition> {
    JsonAnswer(Condition { status: "ok" })
}

/// Does everything answer that an order needs?
///
/// Database, broker, relay and workers. What does not is named in `errors`.
#[utoipa::path(
    get,
    path = "/readyz",
    responses((status = 200, description = "It does", body = Condition), Problems<code::NotReady>),
)]
async fn readiness(State(api): State<Api>) -> Result<JsonAnswer<Condition>, Problem> {
    let missing = api.readiness.missing().await;
    if missing.is_empty() {
        return Ok(JsonAnswer(Condition { status: "ready" }));
    }
    let names: Vec<&str> = missing.iter().map(|error| &*error.field).collect();
    let detail = format!("no answer from {}", names.join(", "));
    Err(Problem::new(Code::NotReady, detail).with_errors(missing))
}

/// The figures, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "The figures", body = String,
            content_type = "application/openmetrics-text"),
        Problems<()>,
    ),
)]
async fn metrics(State(api): State<Api>) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    let mut text = String::new();
    encode(&mut text, &api.registry).map_err(|error| {
        tracing::error!(%error, "the figures could not be written");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}
