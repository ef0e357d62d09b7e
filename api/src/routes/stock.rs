//! Goods that came or went.

use ordermill_domain::products::Product;
use ordermill_domain::stock::{Shelf, Stock, TooFew};
use ordermill_store::products::StockedProduct;

use super::products::ProductView;
use crate::routes::prelude::*;

/// The route of adjustments.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    group("Products", OpenApiRouter::new().routes(routes!(adjust_stock)))
}

/// Goods that came or went.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Adjustment {
    /// How many came (above 0) or went (below 0); not 0.
    #[schema(value_type = i64, example = 50, minimum = -1_000_000_000, maximum = 1_000_000_000)]
    delta: Whole,
    /// Why.
    #[schema(example = "delivery of May 3rd", min_length = 1, max_length = 500)]
    reason: String,
}

impl Adjustment {
    fn check(self) -> Result<Adjustment, Problem> {
        Checks::all(|checks| {
            if self.delta == Whole(0) {
                checks.refuse("delta", "OUT_OF_RANGE", "must not be 0");
            }
            checks.number("delta", self.delta.0, &limits::STOCK_DELTA);
            checks.text("reason", &self.reason, &limits::REASON_LENGTH);
        })?;
        Ok(self)
    }
}

type AdjustStockRequest = Keyed<Admin, Id<path::Product>, Adjustment>;

/// Add to a product's stock, or take from it (administrators)
///
/// Only what can still be ordered can be taken away, not what is held for orders.
#[utoipa::path(
    post,
    path = "/v1/products/{product_id}/stock",
    request_body = Adjustment,
    responses(
        (status = 200, description = "The product as it is now", body = ProductView),
        Problems<(AdjustStockRequest, code::OutOfStock, code::ValidationFailed)>,
    ),
)]
pub(super) async fn adjust_stock(
    State(api): State<Api>,
    Keyed { path: Id(product_id, _), context, request, body, .. }: AdjustStockRequest,
) -> Result<Answer, Problem> {
    let Adjustment { delta: Whole(delta), reason } = body.check()?;
    let mut keys = Keys::of(Shelf::NOUN, product_id);
    keys.add(Product::NOUN, product_id);
    api.decide_once(request, context, keys, move |state: &mut Stock| {
        StockedProduct::in_state(state, product_id).ok_or_else(path::unknown::<path::Product>)?;
        let decided = state.adjust(product_id, delta, reason.clone()).map_err(|TooFew { on_hand }| {
            Problem::new(Code::OutOfStock, format!("only {on_hand} can be taken away"))
        })?;
        let adjusted = StockedProduct::in_state(state, product_id).ok_or_else(Problem::internal)?;
        Ok((decided, first_answer(200, None, &ProductView::from(adjusted))?))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_with(delta: i64, reason: &str) -> Option<String> {
        let adjustment = Adjustment { delta: Whole(delta), reason: reason.to_owned() };
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
