//! What routes are written with.

pub(crate) use axum::Json as JsonAnswer;
pub(crate) use axum::extract::State;
pub(crate) use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
pub(crate) use axum::response::{IntoResponse as _, Response};
pub(crate) use jiff::Timestamp;
pub(crate) use ordermill_domain::aggregate::Aggregate as _;
pub(crate) use ordermill_pipeline::journal::Keys;
pub(crate) use ordermill_schemas::Money;
pub(crate) use ordermill_store::notes::{self, Note, NoteKind};

pub(crate) use serde::{Deserialize, Serialize};
pub(crate) use utoipa::openapi::schema::ObjectBuilder;
pub(crate) use utoipa::{IntoParams, ToSchema};
pub(crate) use utoipa_axum::router::OpenApiRouter;
pub(crate) use utoipa_axum::routes;
pub(crate) use uuid::Uuid;

pub(crate) use crate::app::Api;
pub(crate) use crate::auth::{Admin, Caller};
pub(crate) use crate::body::{Json, Object, Whole, present};
pub(crate) use crate::etag;
pub(crate) use crate::idempotency::{Answer, first_answer};
pub(crate) use crate::keyed::Keyed;
pub(crate) use crate::openapi::{group, words};
pub(crate) use crate::outcome::Outcome;
pub(crate) use crate::paging::{self, Items, Page, PageQuery, query};
pub(crate) use crate::path::{self, Id};
pub(crate) use crate::prefer::Prefer;
pub(crate) use crate::problem::{Code, FieldError, Problem, code};
pub(crate) use crate::problem_responses::Problems;
pub(crate) use crate::request::RequestContext;
pub(crate) use crate::validation::{Checks, limits};
pub(crate) use crate::view::view;
