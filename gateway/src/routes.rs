//! The HTTP routes.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::behaviour::{Behaviour, Fate};
use crate::book::{Book, Charge, Decision, Entry, Refusal};
use crate::problem::Problem;
use crate::requests::{ChargeId, ChargeQuery, ChargeRequest, JsonBody, RefundRequest};

const BODY_BYTES_MAX: usize = 64 * 1024;

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/charges", post(charge).get(list_charges))
        .route("/charges/{charge_id}", get(show_charge))
        .route("/charges/{charge_id}/refunds", post(refund))
        .route("/charges/{charge_id}/void", post(void))
        .route("/behaviour", get(show_behaviour).put(set_behaviour))
        .route("/reset", post(reset_behaviour))
        .route("/healthz", get(async || Json(json!({"status": "ok"}))))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such path"))
        .method_not_allowed_fallback(async || {
            let detail = "the path doesn't take this method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}

async fn charge(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ChargeRequest>,
) -> Result<Response, Problem> {
    let order = request.check()?;
    let act = async move |app: Arc<App>, fate: Fate| {
        let decide = |book: &Book| book.charge(&order, fate.verdict, Timestamp::now());
        let decision = app.ledger.transact(decide).await?;
        if let (Some(callbacks), Some(Entry::Charge(charge))) = (&app.callbacks, &decision.entry) {
            callbacks.announce(charge, fate.callbacks);
        }
        Ok(decision.answer)
    };
    Ok(app.under_faults(act).await)
}

async fn refund(
    State(app): State<Arc<App>>,
    ChargeId(charge_id): ChargeId,
    JsonBody(request): JsonBody<RefundRequest>,
) -> Result<Response, Problem> {
    let order = request.check(charge_id)?;
    Ok(decided(app, move |book| book.refund(&order, Timestamp::now())).await)
}

/// A void has no body; one that is sent is ignored.
async fn void(State(app): State<Arc<App>>, ChargeId(charge_id): ChargeId) -> Response {
    decided(app, move |book| Ok(book.void(&charge_id, Timestamp::now()))).await
}

/// Has the ledger decide, under the faults that are on.
async fn decided<A: Serialize + Send>(
    app: Arc<App>,
    decide: impl FnOnce(&Book) -> Result<Decision<A>, Refusal> + Send + 'static,
) -> Response {
    app.under_faults(|app, _| async move { Ok(app.ledger.transact(decide).await?.answer) }).await
}

/// A charge that was only voided ahead isn't there: it has no amount and no reference yet.
async fn show_charge(
    State(app): State<Arc<App>>,
    ChargeId(charge_id): ChargeId,
) -> Result<Json<Charge>, Problem> {
    let look = |book: &Book| book.find(&charge_id).cloned();
    let charge = app.ledger.read(look).await?;
    charge.map(Json).ok_or_else(|| Refusal::UnknownCharge(charge_id).into())
}

/// A list of charges, oldest first. The cursor is the position of the next charge in the ledger.
#[derive(Serialize)]
struct ChargeList {
    items: Vec<Charge>,
    next_cursor: Option<String>,
}

async fn list_charges(State(app): State<Arc<App>>, query: ChargeQuery) -> Result<Json<ChargeList>, Problem> {
    let ChargeQuery { reference, cursor, limit } = query;
    let look = |book: &Book| match reference {
        Some(reference) => {
            ChargeList { items: book.of_reference(&reference).cloned().collect(), next_cursor: None }
        }
        None => {
            let items = book.page(cursor, limit);
            let next = cursor.saturating_add(items.len());
            ChargeList { items, next_cursor: (next < book.len()).then(|| next.to_string()) }
        }
    };
    Ok(Json(app.ledger.read(look).await?))
}

async fn show_behaviour(State(app): State<Arc<App>>) -> Json<Behaviour> {
    Json(app.behaviour())
}

async fn set_behaviour(
    State(app): State<Arc<App>>,
    JsonBody(behaviour): JsonBody<Behaviour>,
) -> Result<Json<Behaviour>, Problem> {
    Problem::of_fields(behaviour.check())?;
    app.set_behaviour(behaviour);
    tracing::info!(?behaviour, "the behaviour was set");
    Ok(Json(behaviour))
}

/// Puts the default behaviour back. The ledger stays as it is.
async fn reset_behaviour(State(app): State<Arc<App>>) -> Json<Behaviour> {
    app.set_behaviour(Behaviour::default());
    Json(app.behaviour())
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
