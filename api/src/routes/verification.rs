//! Whether everything adds up.

use ordermill_pipeline::audit::{Check, Report};

use crate::routes::prelude::*;

/// The route of verification.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(verify))
}

view! {
    /// What all checks found.
    #[schema(as = Verification)]
    struct VerificationView from report: &Report {
        /// Whether everything is as it should be.
        ok: bool,
        /// The checks.
        checks: Vec<CheckView> = report.checks.iter().map(CheckView::from).collect(),
        /// When the looking began.
        at: Timestamp,
    }
}

view! {
    /// One question to the system, with its answer.
    #[schema(as = VerificationCheck)]
    struct CheckView from check: &Check {
        /// What was looked at.
        #[schema(value_type = String, example = "balances")]
        name: &'static str,
        /// Whether everything was as it should be.
        ok: bool,
        /// How many things were looked at.
        #[schema(example = 4711)]
        checked: u64,
        /// How many of them are not as they should be.
        #[schema(example = 0)]
        violation_count: u64,
        /// The first of those, at most 100: one line each, which names the row and both figures.
        violations: Vec<String> = check.violations.clone(),
        /// What else is worth knowing.
        note?: String = check.note.clone(),
    }
}

/// Verify that money, stock, coupons, sagas and log add up (administrators)
///
/// It reads everything, on the live system. One verification runs at a time in each API process: who asks meanwhile gets
/// what it finds. Where it takes longer than 30 seconds, ask again: it goes on, and its report waits for 5 minutes.
#[utoipa::path(
    get,
    path = "/v1/verification",
    responses(
        (status = 200, description = "What was found", body = VerificationView),
        Problems<(Admin, code::NotReady, code::VerificationRunning)>,
    ),
)]
async fn verify(State(api): State<Api>, _admin: Admin) -> Result<JsonAnswer<VerificationView>, Problem> {
    let report = api.verifications.report().await?;
    Ok(JsonAnswer(VerificationView::from(&*report)))
}
