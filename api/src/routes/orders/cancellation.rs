//! Cancelling an order.

use ordermill_domain::orders::{Order, Orders};

use super::view::OrderView;
use super::{answer, first_answer_of, note_order};
use crate::order_command::{order_of, refusal};
use crate::routes::prelude::*;

/// A cancellation.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancellation {
    /// Why, for the order's timeline. It is erased with the user.
    #[schema(example = "Ordered by mistake", min_length = 1, max_length = 500)]
    reason: Option<String>,
}

impl Cancellation {
    fn check(self) -> Result<Option<String>, Problem> {
        let reason = self.reason.as_ref();
        Checks::all(|checks| checks.optional_text("reason", reason, &limits::REASON_LENGTH))?;
        Ok(self.reason)
    }
}

type CancelOrderRequest = Keyed<Caller, Id<path::Order>, Cancellation>;

/// Cancel an order
///
/// What was paid is paid back and the stock can be ordered again; then the order is `CANCELLED`. An order that is
/// cancelled already stays as it is, whoever asks again.
#[utoipa::path(
    post,
    path = "/v1/orders/{order_id}/cancellation",
    params(Prefer),
    request_body = Cancellation,
    responses(
        (status = 202, description = "Being cancelled, or cancelled already", body = OrderView, headers(
            ("Location" = String, description = "The order"),
            ("ETag" = String, description = "The order's version"),
        )),
        Problems<(
            CancelOrderRequest, code::OrderBusy, code::OrderShipped, code::OrderNotCancellable,
            code::ValidationFailed,
        )>,
    ),
)]
pub(super) async fn cancel_order(
    State(api): State<Api>,
    prefer: Prefer,
    Keyed { caller, path: Id(order_id, _), context, request, body }: CancelOrderRequest,
) -> Result<Response, Problem> {
    note_order(order_id);
    let reason = body.check()?;
    let deadline = api.deadline();
    let cancel = move |state: &mut Orders| {
        let user_id = order_of(state, caller, order_id)?.purchase.user_id;
        let deadline_at = deadline(state.now);
        let decided = state.command(order_id, |order| order.cancel(deadline_at)).map_err(refusal)?;
        let note =
            reason.clone().map(|words| Note { about: order_id, kind: NoteKind::Reason, user_id, words });
        Ok((Outcome::noted(decided, note), first_answer_of(state, caller, order_id)?))
    };
    let cancelled = api.decide_once(request, context, Keys::of(Order::NOUN, order_id), cancel).await?;
    answer(&api, Some(order_id), prefer, cancelled).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_may_be_missing_but_not_blank_or_endless() {
        let reason = |text: &str| Cancellation { reason: Some(text.to_owned()) }.check();
        assert_eq!(Cancellation::default().check().unwrap(), None);
        assert_eq!(reason("mistake").unwrap().as_deref(), Some("mistake"));
        assert!(reason(" ").is_err() && reason(&"x".repeat(501)).is_err() && reason("a\0b").is_err());
    }
}
