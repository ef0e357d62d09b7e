//! Which request it is: its id, the key that it may be repeated by, its place in a trace.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use ordermill_pipeline::log::{Origin, RequestRef};
use ordermill_pipeline::trace::TraceContext;
use uuid::Uuid;

/// The header with the trace that the request belongs to.
const TRACEPARENT: &str = "traceparent";

/// Which request this is. The id is ours, never the client's, so that no two requests share one.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    /// The request's id.
    pub(crate) request_id: Uuid,
    /// The key under which it may be repeated, on a route that takes one.
    idempotency_key: Option<String>,
    /// The span that the request is, a child of the client's where it sent one.
    pub(crate) trace: TraceContext,
}

impl RequestContext {
    pub(crate) fn of(headers: &HeaderMap) -> RequestContext {
        let traceparent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let trace = TraceContext::child_of(traceparent);
        RequestContext { request_id: Uuid::now_v7(), idempotency_key: None, trace }
    }

    /// The same for a route that lets the request be repeated under `key`.
    pub(crate) fn keyed(self, key: &str) -> RequestContext {
        RequestContext { idempotency_key: Some(key.into()), ..self }
    }

    /// Where an event comes from that this request causes.
    pub(crate) fn origin(&self, actor: String) -> Origin {
        let request = RequestRef { id: self.request_id, idempotency_key: self.idempotency_key.clone() };
        Origin { cause_id: None, actor, request: Some(request), trace: self.trace }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<RequestContext, Infallible> {
        let known = parts.extensions.get::<RequestContext>().cloned();
        Ok(known.unwrap_or_else(|| RequestContext::of(&parts.headers)))
    }
}
