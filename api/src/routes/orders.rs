//! Orders: taking them, and showing how far they are.

mod cancellation;
mod list;
mod modification;
mod stream;
pub(crate) mod timeline;
pub(crate) mod view;

use std::time::{Duration, Instant};

use ordermill_domain::orders::{Order, Orders};
use ordermill_schemas::orders::PaymentMethod;
use ordermill_store::idempotency::FirstAnswer;
use ordermill_store::timeline::{self as story, TimelineRow};

use self::timeline::{Reader, Timeline};
use self::view::OrderView;
use crate::acceptance::Wanted;
use crate::idempotency::location_of;
use crate::order_command::order_of;
use crate::routes::prelude::*;

/// Says which preference was followed (RFC 7240).
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a timeline is held at most until what has just happened is published, and how soon that is looked at again.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The routes of orders.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    group(
        "Orders",
        OpenApiRouter::new()
            .routes(routes!(place_order))
            .routes(routes!(get_order))
            .routes(routes!(get_order_events))
            .routes(routes!(cancellation::cancel_order))
            .routes(routes!(stream::stream_order))
            .routes(routes!(list::list_user_orders))
            .routes(routes!(list::list_orders))
            .routes(routes!(modification::modify_order)),
    )
}

/// An order to be placed.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    /// Who buys.
    user_id: Uuid,
    /// What, each product once.
    #[schema(value_type = Vec<NewOrderLine>, min_items = 1, max_items = 50)]
    lines: Vec<Object<NewOrderLine>>,
    /// How it is to be paid; from the balance unless it says otherwise.
    #[schema(value_type = PaymentMethod, required = false, default = "BALANCE")]
    payment_method: Option<PaymentMethod>,
    /// A coupon of the user's to be used.
    user_coupon_id: Option<Uuid>,
}

/// A line of it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrderLine {
    /// The product.
    product_id: Uuid,
    /// How many.
    #[schema(value_type = i64, example = 2, minimum = 1, maximum = 10_000)]
    quantity: Whole,
}

/// The products that the lines name, with how many of each.
fn wanted(lines: &[Object<NewOrderLine>]) -> impl ExactSizeIterator<Item = (Uuid, i64)> {
    lines.iter().map(|Object(line)| (line.product_id, line.quantity.0))
}

impl NewOrder {
    fn check(self) -> Result<Wanted, Problem> {
        let lines = Checks::all(|checks| checks.lines(wanted(&self.lines)))?;
        let payment_method = self.payment_method.unwrap_or(PaymentMethod::Balance);
        let (user_id, user_coupon_id) = (self.user_id, self.user_coupon_id);
        Ok(Wanted { user_id, lines, payment_method, user_coupon_id })
    }
}

type PlaceOrderRequest = Keyed<Caller, (), NewOrder>;

/// Place an order
///
/// Stock and payment are decided by the workers; their refusal is the order's `failure`, not this answer's. With
/// `Prefer: wait=N` the answer is held until the order has come to rest or N seconds are over. An answer that is
/// given again to a repeated key is the first one, without the wait.
#[utoipa::path(
    post,
    path = "/v1/orders",
    params(Prefer),
    request_body = NewOrder,
    responses(
        (status = 202, description = "Accepted", body = OrderView, headers(
            ("Location" = String, description = "The order"),
            ("ETag" = String, description = "The order's version"),
        )),
        Problems<(
            PlaceOrderRequest, code::UserNotFound, code::ValidationFailed, code::OrderedProductNotFound,
            code::ProductWithdrawn,
        )>,
    ),
)]
async fn place_order(
    State(api): State<Api>,
    prefer: Prefer,
    Keyed { caller, context, request, body, .. }: PlaceOrderRequest,
) -> Result<Response, Problem> {
    let wanted = body.check()?;
    caller.acting_for(wanted.user_id)?;
    let running = api.running_keys.claim(&request);
    let accepted = api.acceptance.submit(request, running, wanted, context).await?;
    if let Some(order_id) = accepted.order_id {
        note_order(order_id);
    }
    answer(&api, accepted.order_id, prefer, accepted.answer).await
}

/// The answer to a command, with the order as it is after it.
///
/// # Errors
/// `ORDER_NOT_FOUND`.
fn first_answer_of(state: &Orders, caller: Caller, order_id: Uuid) -> Result<FirstAnswer, Problem> {
    let order = order_of(state, caller, order_id)?.clone();
    first_answer(202, Some(location_of(order_id)), &OrderView::of(order, state.now))
}

/// The answer to what has begun, with the headers of an order. Unless it is given again, it shows the order once that rests, where
/// the client would like to wait for that.
async fn answer(
    api: &Api,
    order_id: Option<Uuid>,
    prefer: Prefer,
    answer: Answer,
) -> Result<Response, Problem> {
    let (version, is_replay) = (version_in(&answer.first.body), answer.is_replay);
    let mut response = answer.into_response();
    response.headers_mut().insert(header::ETAG, etag::of_version(version));
    let (Some(order_id), Some(wait), false) = (order_id, prefer.wait, is_replay) else { return Ok(response) };
    let order = match until_rest(api, order_id, version, wait).await {
        Some(rested) => Ok(Some(rested)),
        None => ordermill_store::find::<Order>(&api.journal.pool, order_id).await,
    };
    // It has begun whatever happens now: where the order can't be read, the first answer stands.
    let Ok(Some(row)) = order else { return Ok(response) };
    response.headers_mut().insert(header::ETAG, etag::of_version(row.visible_version));
    response.headers_mut().insert(PREFERENCE_APPLIED, applied(wait));
    *response.body_mut() = serde_json::to_vec(&OrderView::of(row, api.journal.now()))?.into();
    Ok(response)
}

/// The order once it rests in that version or a later one; `None` where `at_most` is over before. Of two commits the later one
/// may be told first: what is older than the client knows is waited past.
async fn until_rest(api: &Api, order_id: Uuid, version: i32, at_most: Duration) -> Option<Order> {
    let until = Instant::now() + at_most;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let order = api.waiting.until_rest(order_id, left).await?;
        if order.visible_version >= version {
            return Some(order);
        }
    }
}

/// The version that a kept answer shows.
fn version_in(body: &str) -> i32 {
    #[derive(Deserialize)]
    struct Versioned {
        version: i32,
    }
    serde_json::from_str(body).map_or(0, |Versioned { version }| version)
}

/// Has every further log line of the request name the order.
pub(crate) fn note_order(order_id: Uuid) {
    tracing::Span::current().record("order_id", tracing::field::display(order_id));
}

fn applied(wait: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).unwrap_or(HeaderValue::from_static("wait"))
}

/// Show an order
///
/// With `Prefer: wait=N` the answer is held until the order has come to rest or N seconds are over.
#[utoipa::path(
    get,
    path = "/v1/orders/{order_id}",
    params(
        Prefer,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what the client has",
            example = "\"1\""),
    ),
    responses(
        (status = 200, description = "The order", body = OrderView,
            headers(("ETag" = String, description = "The order's version"))),
        (status = 304, description = "The client has this version",
            headers(("ETag" = String, description = "The order's version"))),
        Problems<(Caller, Id<path::Order>)>,
    ),
)]
async fn get_order(
    State(api): State<Api>,
    caller: Caller,
    Id(order_id, _): Id<path::Order>,
    prefer: Prefer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut order = find(&api, caller, order_id).await?;
    if let Some(wait) = prefer.wait.filter(|_| !order.status.is_resting()) {
        order = match until_rest(&api, order_id, order.visible_version, wait).await {
            Some(rested) => rested,
            None => find(&api, caller, order_id).await?,
        };
    }
    let etag = etag::of_version(order.visible_version);
    let mut response = etag::answer(&headers, etag, OrderView::of(order, api.journal.now()));
    response.headers_mut().extend(prefer.wait.map(|wait| (PREFERENCE_APPLIED, applied(wait))));
    Ok(response)
}

/// The order, where the caller may see it.
async fn find(api: &Api, caller: Caller, order_id: Uuid) -> Result<Order, Problem> {
    note_order(order_id);
    let order = ordermill_store::find::<Order>(&api.journal.pool, order_id).await?;
    order.filter(|order| caller.may_act_for(order.purchase.user_id)).ok_or_else(path::unknown::<path::Order>)
}

/// Show an order's timeline, oldest first
///
/// What happened, who or what caused it, where it went, and what it did at the payment gateway and to the balance. Dead
/// letters and the words of errors are shown to administrators only.
#[utoipa::path(
    get,
    path = "/v1/orders/{order_id}/events",
    responses(
        (status = 200, description = "The timeline", body = Timeline),
        Problems<(Caller, Id<path::Order>)>,
    ),
)]
async fn get_order_events(
    State(api): State<Api>,
    caller: Caller,
    Id(order_id, _): Id<path::Order>,
) -> Result<JsonAnswer<Timeline>, Problem> {
    find(&api, caller, order_id).await?;
    let rows = published_story(&api, order_id).await?;
    let reader = if caller.is_admin() { Reader::Admin } else { Reader::Customer(caller.name()) };
    Ok(JsonAnswer(Timeline::of(rows, &reader)))
}

/// The events of an order. What has just happened is told with where Kafka has put it, which is known a moment later.
async fn published_story(api: &Api, order_id: Uuid) -> Result<Vec<TimelineRow>, Problem> {
    let pool = &api.journal.pool;
    let rows = story::of_order(pool, order_id).await?;
    let just_now = api.journal.now() - 2 * PUBLISHED_WITHIN;
    let under_way = rows.iter().filter(|row| !row.published && row.at > just_now);
    let Some(last) = under_way.map(|row| row.log_position).max() else { return Ok(rows) };
    let until = Instant::now() + PUBLISHED_WITHIN;
    while story::published_upto(pool).await? < last {
        if Instant::now() >= until {
            return Ok(rows);
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    Ok(story::of_order(pool, order_id).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    fn line(product: u128, quantity: i64) -> Object<NewOrderLine> {
        Object(NewOrderLine { product_id: Uuid::from_u128(product), quantity: Whole(quantity) })
    }

    #[test]
    fn a_kept_answer_tells_its_version() {
        assert_eq!(version_in(r#"{"order_id":"x","version":7}"#), 7);
        assert_eq!(version_in("[]"), 0);
    }

    fn order(lines: Vec<Object<NewOrderLine>>) -> NewOrder {
        NewOrder { user_id: Uuid::nil(), lines, payment_method: None, user_coupon_id: None }
    }

    fn refusal(order: NewOrder) -> String {
        let problem = order.check().unwrap_err();
        assert_eq!(problem.code(), Code::ValidationFailed);
        format!("{problem:?}")
    }

    #[test]
    fn an_order_is_paid_from_the_balance_unless_it_says_otherwise() {
        let wanted = order(vec![line(1, 1), line(2, 10_000)]).check().unwrap();
        assert_eq!(wanted.payment_method, PaymentMethod::Balance);
        assert_eq!(wanted.lines[1].quantity, 10_000);
        let by_card = NewOrder { payment_method: Some(PaymentMethod::Card), ..order(vec![line(1, 1)]) };
        assert_eq!(by_card.check().unwrap().payment_method, PaymentMethod::Card);
    }

    #[test]
    fn an_order_has_1_to_50_lines() {
        assert!(order((1..=50).map(|product| line(product, 1)).collect()).check().is_ok());
        refusal(order(Vec::new()));
        refusal(order((1..=51).map(|product| line(product, 1)).collect()));
    }

    #[test]
    fn every_line_that_is_out_of_range_is_named() {
        let problem = refusal(order(vec![line(1, 0), line(2, 1), line(1, 10_001), line(3, i64::MAX)]));
        let fields = "lines[0].quantity, lines[2].product_id, lines[2].quantity, lines[3].quantity";
        assert!(problem.contains(fields), "{problem}");
    }
}
