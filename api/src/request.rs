//! Which request it is: its id, its place in a trace.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use ordermill_pipeline::log::Origin;
use ordermill_pipeline::trace::TraceContext;
use uuid::Uuid;

/// The header with the trace that the request belongs to.
const TRACEPARENT: &str = "traceparent";

/// Which request this is. The id is ours, never the client's, so that no two requests share one.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    /// The request's id.
    pub(crate) request_id: Uuid,
    /// The span that the request is, a child of the client's where it sent one.
    pub(crate) trace: TraceContext,
}

impl RequestContext {
    pub(crate) fn of(headers: &HeaderMap) -> RequestContext {
        let traceparent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let trace = TraceContext::child_of(traceparent);
        RequestContext { request_id: Uuid::now_v7(), trace }
    }

    /// Where an event comes from that this request causes.
    pub(crate) fn origin(&self, actor: String) -> Origin {
        Origin { cause_id: None, actor, request: Some(self.request_id), trace: self.trace }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<RequestContext, Infallible> {
        let known = parts.extensions.get::<RequestContext>().cloned();
        Ok(known.unwrap_or_else(|| RequestContext::of(&parts.headers)))
    }
}
