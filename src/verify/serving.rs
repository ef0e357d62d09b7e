//! Verification as the API serves it.

use std::sync::Arc;

use anyhow::Error;
use ordermill_api::{NotVerified, Verifier};
use ordermill_pipeline::database::{Next, next_after};
use ordermill_workers::CallError;
use rdkafka::error::KafkaError;

use super::look;
use crate::connections::Connections;
use crate::one_line::one_line;

/// What the API asks to verify everything there.
#[must_use]
pub fn verifier(connections: Connections) -> Verifier {
    Arc::new(move || {
        let connections = connections.clone();
        Box::pin(async move {
            look(&connections).await.map_err(|error| {
                tracing::error!(error = one_line(&error), "nothing verified");
                not_verified(&error)
            })
        })
    })
}

/// Who did not answer, as far as a client may know it.
fn not_verified(error: &Error) -> NotVerified {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<sqlx::Error>() {
            let is_away = next_after(error) == Next::Retry;
            return Some(if is_away { NotVerified::Unavailable("database") } else { NotVerified::Broken });
        }
        let kafka = cause.is::<KafkaError>().then_some(NotVerified::Unavailable("kafka"));
        kafka.or_else(|| cause.is::<CallError>().then_some(NotVerified::Unavailable("gateway")))
    };
    error.chain().find_map(of).unwrap_or(NotVerified::Broken)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;
    use ordermill_pipeline::audit::AuditError;
    use ordermill_workers::GatewayHttp;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn who_does_not_answer_is_told_from_a_bug() {
        let of = |error: Error| not_verified(&error.context("some words"));
        assert_eq!(of(sqlx::Error::PoolTimedOut.into()), NotVerified::Unavailable("database"));
        let audit = AuditError::from(sqlx::Error::PoolTimedOut);
        assert_eq!(of(audit.into()), NotVerified::Unavailable("database"));
        assert_eq!(of(sqlx::Error::RowNotFound.into()), NotVerified::Broken);
        let kafka = AuditError::from(KafkaError::Canceled);
        assert_eq!(of(kafka.into()), NotVerified::Unavailable("kafka"));
        let (nowhere, soon) = ("http://127.0.0.1:1", Duration::from_secs(10));
        let gateway = GatewayHttp::new(nowhere, None, soon).unwrap().get::<Value>(nowhere, soon).await;
        assert_eq!(of(gateway.unwrap_err().into()), NotVerified::Unavailable("gateway"));
        assert_eq!(of(anyhow!("a bug")), NotVerified::Broken);
    }
}
