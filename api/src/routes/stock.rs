//! Goods that came or went.

use axum::extract::State;
use axum::response::Response;
use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::products::Product;
use ordermill_domain::stock::{Shelf, Stock, TooFew};
use ordermill_pipeline::journal::Keys;
use ordermill_schemas::stock::StockAdjusted;
use ordermill_store::Written;
use ordermill_store::products::StockedProduct;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::products::ProductView;
use crate::app::Api;
use crate::auth::Admin;
use crate::body::whole;
use crate::idempotency::{Answer, first_answer};
use crate::keyed::{FirstTurn, Keyed};
use crate::path::{self, Id};
use crate::problem::{Code, Problem};
use crate::problem_responses::problems;
use crate::request::RequestContext;
use crate::validation::{Checks, limits};

/// The route of adjustments.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(adjust))
}

/// Goods that came or went.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Adjustment {
    /// How many came (above 0) or went (below 0); not 0.
    #[serde(deserialize_with = "whole")]
    #[schema(example = 50, minimum = -1_000_000_000, maximum = 1_000_000_000)]
    delta: i64,
    /// Why.
    #[schema(example = "delivery of May 3rd", min_length = 1, max_length = 500)]
    reason: String,
}

impl Adjustment {
    fn check(self) -> Result<Adjustment, Problem> {
        let mut checks = Checks::default();
        if self.delta == 0 {
            checks.refuse("delta", "OUT_OF_RANGE", "must not be 0");
        }
        checks.number("delta", self.delta, &limits::STOCK_DELTA);
        checks.text("reason", &self.reason, &limits::REASON_LENGTH);
        checks.finish()?;
        Ok(self)
    }
}

problems! {
    AdjustProblems: InvalidJson, IdempotencyKeyMissing, Unauthenticated, Forbidden, ProductNotFound, RequestTimeout,
    OutOfStock, IdempotencyKeyInUse, PayloadTooLarge, UnsupportedMediaType, ValidationFailed, IdempotencyKeyReused
}

/// Add to a product's stock, or take from it (administrators)
///
/// Only what can still be ordered can be taken away, not what is held for orders.
#[utoipa::path(
    post,
    path = "/v1/products/{product_id}/stock",
    operation_id = "adjust_stock",
    tag = "Products",
    params(
        ("product_id" = Uuid, Path, description = "The product"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters, the same when the \
                                                            request is repeated", min_length = 1, max_length = 255),
    ),
    request_body = Adjustment,
    responses(
        (status = 200, description = "The product as it is now", body = ProductView, headers(
            ("Idempotency-Replayed" = String, description = "`true` where the request was repeated"),
        )),
        AdjustProblems,
    ),
    security(("api_key" = [])),
)]
async fn adjust(
    State(api): State<Api>,
    Keyed { path: Id(product_id, _), context, request, body, .. }: Keyed<
        Admin,
        Id<path::Product>,
        Adjustment,
    >,
) -> Result<Response, Problem> {
    let Adjustment { delta, reason } = body.check()?;
    let adjusted = StockAdjusted { product_id, delta, reason };
    let answer = api.once(request, |api, turn| store(api, turn, context, adjusted)).await?;
    Ok(answer.into_response())
}

/// Stores the adjustment, its event and the answer, or nothing.
async fn store(
    api: Api,
    turn: FirstTurn,
    context: RequestContext,
    adjusted: StockAdjusted,
) -> Result<Answer, Problem> {
    let StockAdjusted { product_id, delta, reason } = adjusted;
    let (mut keys, origin) = (Keys::of(Shelf::NOUN, product_id), context.origin("admin".to_owned()));
    keys.add(Product::NOUN, product_id);
    api.decide_once(turn, &keys, |state: &mut Stock| {
        StockedProduct::in_state(state, product_id).ok_or_else(path::unknown::<path::Product>)?;
        let decided = state.adjust(product_id, delta, reason.clone()).map_err(|TooFew { on_hand }| {
            Problem::new(Code::OutOfStock, format!("only {on_hand} can be taken away"))
        })?;
        let adjusted = StockedProduct::in_state(state, product_id).ok_or_else(Problem::internal)?;
        let answer = first_answer(200, None, &ProductView::from(adjusted))?;
        Ok((Written::asked_for(decided, &origin), answer))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_with(delta: i64, reason: &str) -> Option<String> {
        let adjustment = Adjustment { delta, reason: reason.to_owned() };
        adjustment.check().err().map(|problem| format!("{problem:?}"))
    }

    #[test]
    fn units_come_or_go_and_somebody_says_why() {
        for delta in [1, -1, 1_000_000_000, -1_000_000_000] {
            assert_eq!(wrong_with(delta, "counted"), None, "{delta}");
        }
        for delta in [0, 1_000_000_001, -1_000_000_001, i64::MAX, i64::MIN] {
            assert!(wrong_with(delta, "counted").unwrap().contains("out of range: delta\""), "{delta}");
        }
        for reason in ["", " ", "a\0b", &"r".repeat(501)] {
            assert!(wrong_with(1, reason).unwrap().contains("out of range: reason\""), "{reason}");
        }
    }
}
