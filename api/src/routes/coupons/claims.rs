//! Claims of coupons, first come, first served.

use ordermill_domain::coupons::ClaimState;
use ordermill_schemas::coupons::ClaimFailure;
use ordermill_store::coupons::{self, ClaimRow};

use super::user_coupons::UserCouponView;
use crate::routes::prelude::*;

/// A claim to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewClaim {
    /// Who wants the coupon.
    user_id: Uuid,
}

/// How far a claim is.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "the document's name for the state")]
enum ClaimStatus {
    /// Asked for, not decided.
    Pending,
    /// The user has got the coupon.
    Issued,
    /// The user has not.
    Rejected,
}

view! {
    /// A claim.
    #[schema(as = Claim)]
    struct ClaimView from row: ClaimRow {
        /// The claim.
        claim_id: Uuid,
        /// The coupon.
        coupon_id: Uuid = row.claim.coupon_id,
        /// Who wants it.
        user_id: Uuid = row.claim.user_id,
        /// How far it is. All but `PENDING` are resting.
        #[schema(value_type = ClaimStatus)]
        status: ClaimState = row.claim.state,
        /// Why it was rejected, if it was: `COUPON_SOLD_OUT`, `COUPON_NOT_CLAIMABLE`.
        #[schema(value_type = Option<Object>)]
        failure?: ClaimFailure = row.claim.failure,
        /// The place among those issued, from 1, if it was.
        position?: i32 = row.claim.position,
        /// What the user has got.
        user_coupon?: UserCouponView = row.user_coupon.map(Into::into),
        /// When it was asked for.
        requested_at: Timestamp = row.claim.requested_at,
    }
}

/// The tag of a claim: of what it shows, and of what has become of the coupon that it brought.
fn tag(row: &ClaimRow) -> HeaderValue {
    let coupon = row.user_coupon.as_ref().map(|row| &row.coupon);
    let state = coupon.map_or_else(String::new, |coupon| ordermill_store::word(coupon.state));
    let order = coupon.and_then(|coupon| coupon.order_id).map_or_else(String::new, |id| id.to_string());
    HeaderValue::try_from(format!("\"{}{state}{order}\"", row.claim.sequence))
        .unwrap_or(HeaderValue::from_static("\"\""))
}

/// Claim a coupon
///
/// Who is accepted first is served first: claims of one coupon are decided in the order of the log. Each user has one
/// claim of a coupon, so a repetition is refused, with `claim_id`.
#[utoipa::path(
    post,
    path = "/v1/coupons/{coupon_id}/claims",
    params(Prefer),
    responses(
        (status = 202, description = "Asked for", body = ClaimView, headers(
            ("Location" = String, description = "The claim"),
            ("ETag" = String, description = "What is shown"),
        )),
        Problems<(
            Caller, Id<path::Coupon>, Json<NewClaim>, code::UserNotFound, code::CouponSoldOut,
            code::CouponNotClaimable, code::CouponAlreadyClaimed,
        )>,
    ),
)]
pub(super) async fn claim_coupon(
    State(api): State<Api>,
    caller: Caller,
    Id(coupon_id, _): Id<path::Coupon>,
    prefer: Prefer,
    context: RequestContext,
    Json { value, .. }: Json<NewClaim>,
) -> Result<Response, Problem> {
    caller.acting_for(value.user_id)?;
    let mut row = api.claiming.claim(coupon_id, value.user_id, context.origin(caller.name())).await?;
    if let Some(wait) = prefer.wait {
        api.waiting_claims.until_rest(row.claim_id, wait).await;
        // The claim stands whatever happens now: where it can't be read, it is shown as it was asked for.
        if let Ok(Some(decided)) = coupons::find_claim(&api.journal.pool, coupon_id, row.claim_id).await {
            row = decided;
        }
    }
    let location = format!("/v1/coupons/{coupon_id}/claims/{}", row.claim_id);
    let headers = [
        (header::LOCATION, HeaderValue::try_from(location).unwrap_or(HeaderValue::from_static("/"))),
        (header::ETAG, tag(&row)),
    ];
    Ok((StatusCode::ACCEPTED, headers, JsonAnswer(ClaimView::from(row))).into_response())
}

/// Show a claim
///
/// With `Prefer: wait=N` the answer is held until the claim is decided or N seconds are over.
#[utoipa::path(
    get,
    path = "/v1/coupons/{coupon_id}/claims/{claim_id}",
    params(
        Prefer,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what the client has"),
    ),
    responses(
        (status = 200, description = "The claim", body = ClaimView,
            headers(("ETag" = String, description = "What is shown"))),
        (status = 304, description = "The client has this",
            headers(("ETag" = String, description = "What is shown"))),
        Problems<(Caller, Id<path::Coupon>, Id<path::Claim>)>,
    ),
)]
pub(super) async fn get_claim(
    State(api): State<Api>,
    caller: Caller,
    Id(coupon_id, _): Id<path::Coupon>,
    Id(claim_id, _): Id<path::Claim>,
    prefer: Prefer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut row = find(&api, caller, coupon_id, claim_id).await?;
    if let Some(wait) = prefer.wait.filter(|_| row.claim.state == ClaimState::Pending) {
        api.waiting_claims.until_rest(claim_id, wait).await;
        row = find(&api, caller, coupon_id, claim_id).await?;
    }
    Ok(etag::answer(&headers, tag(&row), ClaimView::from(row)))
}

/// The claim, where the caller may see it.
async fn find(api: &Api, caller: Caller, coupon_id: Uuid, claim_id: Uuid) -> Result<ClaimRow, Problem> {
    let row = coupons::find_claim(&api.journal.pool, coupon_id, claim_id).await?;
    row.filter(|row| caller.may_act_for(row.claim.user_id)).ok_or_else(path::unknown::<path::Claim>)
}
