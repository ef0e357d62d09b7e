//! What the payment gateway tells us.

use axum::body::Body;

use crate::body;
use crate::routes::prelude::*;
use crate::signature;

/// The header with the gateway's signature.
const SIGNATURE: HeaderName = HeaderName::from_static("ordermill-signature");

/// The routes of payments.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    group("Gateway callbacks", OpenApiRouter::new().routes(routes!(receive_payment_callback)))
}

/// How the gateway decided a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ChargeStatus {
    /// Charged.
    Approved,
    /// Not charged.
    Declined,
    /// Taken back, or never to be charged.
    Voided,
}

/// A decision of the gateway. The ids of charges are the gateway's to choose for charges that are not ours.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Callback {
    /// The same where the callback is sent twice.
    event_id: Uuid,
    /// The charge.
    charge_id: String,
    /// The order that it is for.
    reference: String,
    /// How it was decided.
    status: ChargeStatus,
    /// How much was approved.
    #[schema(value_type = i64)]
    approved_amount: Whole,
    /// When.
    at: Timestamp,
}

/// The callback has arrived.
#[derive(Debug, Serialize, ToSchema)]
struct Received {
    /// Always true.
    received: bool,
}

/// Tell of a charge's decision (the payment gateway)
///
/// A repeated callback has no effect.
#[utoipa::path(
    post,
    path = "/v1/payments/callbacks",
    params(
        ("Ordermill-Signature" = String, Header, description = "`t=<unix seconds>,v1=<hex HMAC-SHA256 of \
                                                                \"t.body\">`, at most 300 seconds off"),
    ),
    request_body = Callback,
    responses(
        (status = 200, description = "Received", body = Received),
        Problems<(code::InvalidJson, code::InvalidSignature, code::RequestTimeout, code::PayloadTooLarge)>,
    ),
)]
async fn receive_payment_callback(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<JsonAnswer<Received>, Problem> {
    let bytes = body::read(body).await?;
    let callback = signed(api.config.callback_secret.as_bytes(), &headers, &bytes, api.journal.now())?;
    api.metrics.payment_callbacks.inc();
    // The executor learns of every decision by the answer to its charge or by asking; a callback only tells it
    // once more. So there is nothing to do here that could be done twice.
    tracing::debug!(
        order_id = callback.reference,
        event_id = %callback.event_id,
        charge_id = callback.charge_id,
        status = ?callback.status,
        approved_amount = callback.approved_amount.0,
        at = %callback.at,
        "callback of the gateway"
    );
    Ok(JsonAnswer(Received { received: true }))
}

/// What a callback says, where the gateway has signed it. The signature is of the bytes, so nothing is read out of them before they
/// are known to be the gateway's.
///
/// # Errors
/// `INVALID_SIGNATURE`, or `INVALID_JSON` where the gateway says something else than a callback.
pub(super) fn signed(
    secret: &[u8],
    headers: &HeaderMap,
    bytes: &[u8],
    now: Timestamp,
) -> Result<Callback, Problem> {
    let header = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    signature::verify(secret, header, bytes, now)
        .map_err(|error| Problem::new(Code::InvalidSignature, error.to_string()))?;
    body::parse(bytes)
}
