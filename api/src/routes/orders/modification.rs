//! Replacing an order's lines.

use ordermill_domain::orders::{Order, Orders, Replacement};
use ordermill_domain::pricing;
use ordermill_store::acceptance;

use super::view::OrderView;
use super::{NewOrderLine, answer, first_answer_of, note_order};
use crate::acceptance::order_lines;
use crate::order_command::{order_of, refusal};
use crate::routes::prelude::*;

/// What an order is to have instead of its lines.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Modification {
    /// The lines, each product once. A product that the order has keeps its price.
    #[schema(value_type = Vec<NewOrderLine>, min_items = 1, max_items = 50)]
    lines: Vec<Object<NewOrderLine>>,
}

/// Replace an order's lines
///
/// Stock and payment are asked for the difference by the workers. Where one of them refuses, the order stays exactly as
/// it was, and `last_modification` says why.
#[utoipa::path(
    patch,
    path = "/v1/orders/{order_id}",
    params(
        ("If-Match" = String, Header, description = "The `ETag` of the order as the client has seen it",
            example = "\"3\""),
        Prefer,
    ),
    responses(
        (status = 202, description = "Being modified", body = OrderView, headers(
            ("Location" = String, description = "The order"),
            ("ETag" = String, description = "The order's version"),
        )),
        Problems<(
            Caller, Id<path::Order>, Json<Modification>, code::OrderBusy, code::OrderShipped,
            code::VersionMismatch, code::ValidationFailed, code::OrderedProductNotFound,
            code::ProductWithdrawn, code::PreconditionRequired,
        )>,
    ),
)]
pub(super) async fn modify_order(
    State(api): State<Api>,
    caller: Caller,
    Id(order_id, _): Id<path::Order>,
    prefer: Prefer,
    context: RequestContext,
    headers: HeaderMap,
    Json { value, .. }: Json<Modification>,
) -> Result<Response, Problem> {
    note_order(order_id);
    let wanted = Checks::all(|checks| checks.lines(super::wanted(&value.lines)))?;
    let product_ids: Vec<Uuid> = wanted.iter().map(|line| line.product_id).collect();
    let references = acceptance::references(&api.journal.pool, &[], &product_ids).await?;
    let (keys, origin) = (Keys::of(Order::NOUN, order_id), context.origin(caller.name()));
    let deadline = api.deadline();
    let modify = move |state: &mut Orders| {
        let order = order_of(state, caller, order_id)?;
        check(order, &headers)?;
        let deadline_at = deadline(state.now);
        // What the order keeps, it keeps at its price.
        let kept = order.purchase.lines.iter().map(|line| (line.product_id, line.clone())).collect();
        let lines = order_lines(&wanted, &references, &kept)?;
        let quote = pricing::quote(&lines, order.purchase.payment_method, order.purchase.coupon.as_ref());
        let replacement = Replacement { lines, quote };
        let decided = state
            .command(order_id, |order| order.modify(replacement, deadline_at).map(Some))
            .map_err(refusal)?;
        Ok((decided, first_answer_of(state, caller, order_id)?))
    };
    let first = api.decide(keys, origin, modify).await?;
    answer(&api, Some(order_id), prefer, Answer { first, is_replay: false }).await
}

/// Refuses where the order can't be modified, or is not as the client has seen it.
fn check(order: &Order, headers: &HeaderMap) -> Result<(), Problem> {
    let expected = etag::is_expected_by_client(headers, &etag::of_version(order.visible_version));
    let is_current = expected.ok_or_else(|| {
        let detail = "send the order's ETag in If-Match, so that nothing is replaced that you have not seen";
        Problem::new(Code::PreconditionRequired, detail)
    })?;
    // What the order can't do at all is told before what the client could do better.
    order.may_modify().map_err(refusal)?;
    if is_current {
        return Ok(());
    }
    let detail = format!("the order is at version {} by now; look at it again", order.visible_version);
    Err(Problem::new(Code::VersionMismatch, detail))
}
