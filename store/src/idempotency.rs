//! The first answers to requests that may be repeated.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::orders::Order;
use ordermill_pipeline::journal::{Projection, Shortfall, Statement};
use sqlx::PgPool;
use uuid::Uuid;

/// A request that carries an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who asks: `user:<id>` or `admin:<name of the key>`.
    pub caller: String,
    /// Method and concrete path.
    pub route: String,
    /// The key.
    pub key: String,
    /// SHA-256 of the parsed body.
    pub body_hash: Vec<u8>,
}

impl Request {
    /// What tells it from all other requests, whatever their bodies. Neither callers, routes nor keys contain a space but the one after a route's
    /// method.
    #[must_use]
    pub fn id(&self) -> Uuid {
        let Request { caller, route, key, .. } = self;
        Uuid::new_v5(&Uuid::nil(), format!("{caller} {route} {key}").as_bytes())
    }
}

/// An answer that is given again to repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// The HTTP status.
    pub status: i16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// What was answered to the first request of a key.
#[derive(Clone, Debug)]
pub struct Kept {
    /// SHA-256 of the request's body.
    pub body_hash: Vec<u8>,
    /// The HTTP status.
    pub status: i16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: KeptBody,
}

/// The body of an answer that was kept.
#[derive(Clone, Debug)]
pub enum KeptBody {
    /// As it was sent.
    Text(String),
    /// An order as it was accepted: it is not kept twice, but made again from its first event.
    Accepted(Box<Order>),
}

/// The answer to a first request, to be kept with the work. Where the key has been used before, that is
/// [`Shortfall::Repeated`]: nothing of the work is written, and [`find`] knows the first answer.
#[derive(Clone, Debug)]
pub struct Keep {
    /// The request.
    pub request: Request,
    /// The answer.
    pub answer: FirstAnswer,
    /// When.
    pub at: Timestamp,
}

impl Projection for Keep {
    fn add(&self, statement: &mut Statement) {
        let Keep { request, answer, at } = self.clone();
        let (id, hash) = (statement.bind(request.id()), statement.bind(request.body_hash));
        let (status, location) = (statement.bind(answer.status), statement.bind(answer.location));
        let (body, at) = (statement.bind(answer.body), statement.bind(at.to_sqlx()));
        statement.must(
            "kept",
            format!(
                "INSERT INTO idempotency_keys (request, body_hash, status, location, body, created_at)
                 VALUES ({id}, {hash}, {status}, {location}, {body}, {at})
                 ON CONFLICT DO NOTHING RETURNING 1"
            ),
            1,
            Shortfall::Repeated,
        );
    }
}

/// The answer that was kept for a key.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, request: &Request) -> Result<Option<Kept>, sqlx::Error> {
    Ok(find_many(pool, &[request]).await?.pop().map(|(_, kept)| kept))
}

/// The answers that were kept for several keys, each with the index of its request.
///
/// # Errors
/// Where the database fails.
pub async fn find_many(pool: &PgPool, requests: &[&Request]) -> Result<Vec<(usize, Kept)>, sqlx::Error> {
    let ids: Vec<Uuid> = requests.iter().map(|request| request.id()).collect();
    let rows = sqlx::query!(
        r#"SELECT ordinal AS "ordinal!", body_hash, status, location, body, placed.data AS "placed?",
               placed.at AS "placed_at?"
           FROM unnest($1::uuid[]) WITH ORDINALITY AS t (request, ordinal) JOIN idempotency_keys USING (request)
           -- One look at the index for each, also where the planner takes the log for small.
           LEFT JOIN LATERAL (
               SELECT data, at FROM event_history
               WHERE about @> ARRAY[order_id] AND aggregate_id = order_id AND sequence = 1 AND topic = 'orders' LIMIT 1
           ) placed ON true"#,
        &ids,
    )
    .fetch_all(pool)
    .await?;
    let kept = rows.into_iter().map(|row| {
        let index = usize::try_from(row.ordinal - 1).unwrap_or_default();
        let body = match (row.body, row.placed.zip(row.placed_at)) {
            (Some(text), _) => KeptBody::Text(text),
            (None, Some((data, at))) => {
                let placed =
                    serde_json::from_slice(&data).map_err(|error| sqlx::Error::Decode(error.into()))?;
                KeptBody::Accepted(Box::new(Order::placed(&placed, at.to_jiff())))
            }
            (None, None) => return Err(sqlx::Error::RowNotFound),
        };
        let (body_hash, status, location) = (row.body_hash, row.status, row.location);
        Ok((index, Kept { body_hash, status, location, body }))
    });
    kept.collect()
}

/// Forgets answers that are older than `before`; at most `at_most` of them. Answers how many.
///
/// # Errors
/// Where the database fails.
pub async fn forget(pool: &PgPool, before: Timestamp, at_most: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "DELETE FROM idempotency_keys
         WHERE request IN (SELECT request FROM idempotency_keys WHERE created_at < $1 LIMIT $2)",
        before.to_sqlx() as _,
        at_most,
    )
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected())
}
