//! What surrounds every request: its id, its trace, its log lines, its figures, its end.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;

use crate::app::Api;
use crate::metrics::{CodeLabel, RouteLabel};
use crate::problem::{Code, Problem, RETRY_AFTER_S};
use crate::request::RequestContext;

/// The header with the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long a request may take: what `Prefer: wait` may ask for, and some.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(crate::prefer::WAIT_MAX_S + 15);

/// The outermost layer: gives the request its id, trace and span, bounds its time, writes problems out, counts.
pub(crate) async fn observe(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let context = RequestContext::of(request.headers());
    let label = route_label(&request);
    let span = tracing::info_span!(
        "request",
        request_id = %context.request_id,
        trace_id = %context.trace.trace_id(),
        method = label.method,
        route = label.route,
        order_id = tracing::field::Empty,
    );
    request.extensions_mut().insert(context.clone());
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).instrument(span.clone()).await;
    let mut response = answer.unwrap_or_else(|_| {
        span.in_scope(|| tracing::error!("no answer within {REQUEST_TIMEOUT:?}"));
        Problem::overloaded().into_response()
    });
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let code = problem.code();
        api.metrics.problems.get_or_create(&CodeLabel { code: code.text() }).inc();
        span.in_scope(|| match code {
            Code::Internal => tracing::error!(code = code.text(), "failed"),
            _ => tracing::debug!(code = code.text(), "refused"),
        });
        response = problem.write_to(response, context.request_id);
    }
    // What is only accepted is to be asked for again.
    if response.status() == StatusCode::ACCEPTED {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
    }
    if let Ok(request_id) = HeaderValue::try_from(context.request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
    let elapsed = started.elapsed();
    api.metrics.request_seconds.get_or_create(&label).observe(elapsed.as_secs_f64());
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), ?elapsed, "answered"));
    response
}

/// Only what is known becomes a label: a stranger can't fill the figures with names.
fn route_label(request: &Request) -> RouteLabel {
    let method = match *request.method() {
        Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::HEAD => {
            request.method().as_str()
        }
        _ => "other",
    };
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    RouteLabel { method: method.to_owned(), route: route.to_owned() }
}

/// The answer where a handler has panicked.
pub(crate) fn after_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(|s| &**s));
    tracing::error!(panic = text.unwrap_or("no text"), "a handler panicked");
    Problem::internal().into_response()
}

/// The answer where no route has the path.
pub(crate) async fn unknown_path() -> Problem {
    Problem::new(Code::NotFound, "no route has this path; see /docs")
}

/// The answer where the path is known but not with that method.
pub(crate) async fn unknown_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this path does not take this method; see the header Allow")
}
