//! Health, readiness and figures.

use prometheus_client::encoding::text::encode;

use crate::auth::{IsOperator, Operator};
use crate::readiness::Seen;
use crate::routes::prelude::*;

/// What everybody is told of what does not answer, beside its name. What is behind it is for operators.
const FOR_OPERATORS: &str =
    "operators are told more: ask from the machine itself, or with an administrator's key";
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

/// Does everything answer and work that an order needs?
///
/// Database, broker, relay and workers. What does not is named in `errors`. What that means, and why, is told to operators: to programs
/// on the same machine, and to whoever shows an administrator's key.
#[utoipa::path(
    get,
    path = "/readyz",
    security((), ("api_key" = [])),
    responses((status = 200, description = "It does", body = Condition), Problems<code::NotReady>),
)]
async fn readiness(
    State(api): State<Api>,
    IsOperator(is_operator): IsOperator,
) -> Result<JsonAnswer<Condition>, Problem> {
    let Seen { mut missing, oldest } = api.readiness.seen().await;
    if missing.is_empty() {
        return Ok(JsonAnswer(Condition { status: "ready" }));
    }
    let mut names: Vec<&str> = missing.iter().map(|error| &*error.field).collect();
    names.dedup();
    let mut detail = format!("not ready: {}", names.join(", "));
    if is_operator {
        let oldest = oldest.map(|oldest| oldest.as_secs());
        detail.extend(oldest.map(|age| format!("; the oldest order has been under way for {age} s")));
    } else {
        missing.iter_mut().for_each(|error| error.detail = FOR_OPERATORS.into());
    }
    Err(Problem::new(Code::NotReady, detail).with_errors(missing))
}

/// The figures, for Prometheus (operators)
///
/// For programs on the same machine, and for whoever shows an administrator's key.
#[utoipa::path(
    get,
    path = "/metrics",
    security((), ("api_key" = [])),
    responses(
        (status = 200, description = "The figures", body = String,
            content_type = "application/openmetrics-text"),
        Problems<Operator>,
    ),
)]
async fn metrics(
    State(api): State<Api>,
    _operator: Operator,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    let mut text = String::new();
    encode(&mut text, &api.registry).map_err(|error| {
        tracing::error!(%error, "the figures could not be written");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}
