//! Accepting orders, many in one statement.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::pricing::Quote;
use ordermill_pipeline::log::{Columns, Entry};
use ordermill_schemas::Money;
use ordermill_schemas::orders::{Discount, OrderLine, OrderPlaced};
use sqlx::types::Json;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::idempotency::{FirstAnswer, Request};
use crate::text::Word as _;

/// What an order line needs to know of its product.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The name.
    pub name: String,
    /// The category.
    pub category: String,
    /// The price.
    pub price: Money,
    /// It can't be ordered any more.
    pub withdrawn: bool,
}

/// What a batch of submissions refers to.
#[derive(Debug, Default)]
pub struct References {
    /// The users that exist.
    pub users: HashSet<Uuid>,
    /// The products that exist.
    pub offers: HashMap<Uuid, Offer>,
}

/// Reads what a batch of submissions refers to.
///
/// # Errors
/// Where the database fails.
pub async fn references(
    executor: impl PgExecutor<'_>,
    user_ids: &[Uuid],
    product_ids: &[Uuid],
) -> Result<References, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT user_id AS "id!", true AS "is_user!", '' AS "name!", '' AS "category!", 0::bigint AS "price!",
               false AS "withdrawn!"
           FROM users WHERE user_id = ANY($1) AND erased_at IS NULL
           UNION ALL
           SELECT product_id, false, name, category, price, withdrawn FROM products WHERE product_id = ANY($2)"#,
        user_ids,
        product_ids,
    )
    .fetch_all(executor)
    .await?;
    let mut references = References::default();
    for row in rows {
        if row.is_user {
            references.users.insert(row.id);
        } else {
            let offer =
                Offer { name: row.name, category: row.category, price: row.price, withdrawn: row.withdrawn };
            references.offers.insert(row.id, offer);
        }
    }
    Ok(references)
}

/// A submission that has passed every check, with the answer to be given if it is the first of its key.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// The answer that repetitions get as well.
    pub answer: FirstAnswer,
    /// The event.
    pub placed: OrderPlaced,
    /// The event's row in the log.
    pub entry: Entry,
}

impl Submission {
    /// The event of an accepted order.
    #[must_use]
    pub fn placed(
        order_id: Uuid,
        user_id: Uuid,
        lines: Vec<OrderLine>,
        payment_method: ordermill_schemas::orders::PaymentMethod,
        user_coupon_id: Option<Uuid>,
        quote: Quote,
        deadline_at: Timestamp,
    ) -> OrderPlaced {
        OrderPlaced {
            order_id,
            user_id,
            lines,
            payment_method,
            user_coupon_id,
            subtotal: quote.subtotal,
            discounts: quote.discounts,
            total: quote.total,
            deadline_at,
        }
    }
}

/// Accepts submissions in one statement and one commit: key, order and event of each, or nothing of it where
/// its key has been used before. Answers the orders that were accepted.
///
/// # Errors
/// Where the database fails; then none was accepted.
pub async fn accept(
    pool: &PgPool,
    submissions: &[Submission],
    now: Timestamp,
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let of = |text: fn(&Submission) -> &str| submissions.iter().map(text).collect::<Vec<&str>>();
    let callers = of(|s| &s.request.caller);
    let routes = of(|s| &s.request.route);
    let keys = of(|s| &s.request.key);
    let bodies = of(|s| &s.answer.body);
    let locations: Vec<Option<&str>> = submissions.iter().map(|s| s.answer.location.as_deref()).collect();
    let hashes: Vec<&[u8]> = submissions.iter().map(|s| s.request.body_hash.as_slice()).collect();
    let order_ids: Vec<Uuid> = submissions.iter().map(|s| s.placed.order_id).collect();
    let user_ids: Vec<Uuid> = submissions.iter().map(|s| s.placed.user_id).collect();
    let lines: Vec<Json<&Vec<OrderLine>>> = submissions.iter().map(|s| Json(&s.placed.lines)).collect();
    let subtotals: Vec<i64> = submissions.iter().map(|s| s.placed.subtotal).collect();
    let discounts: Vec<Json<&Vec<Discount>>> =
        submissions.iter().map(|s| Json(&s.placed.discounts)).collect();
    let totals: Vec<i64> = submissions.iter().map(|s| s.placed.total).collect();
    let methods: Vec<&str> = submissions.iter().map(|s| s.placed.payment_method.word()).collect();
    let deadlines: Vec<jiff_sqlx::Timestamp> =
        submissions.iter().map(|s| s.placed.deadline_at.to_sqlx()).collect();
    let has_coupon: Vec<bool> = submissions.iter().map(|s| s.placed.user_coupon_id.is_some()).collect();
    let log: Columns = submissions.iter().map(|s| s.entry.clone()).collect();
    // Keys are inserted in one order by all, so that two batches can't wait for each other in a circle.
    let accepted = sqlx::query_scalar!(
        r#"WITH input AS (
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[],
                   $7::uuid[], $8::uuid[], $9::jsonb[], $10::bigint[], $11::jsonb[], $12::bigint[],
                   $13::text[], $14::timestamptz[], $15::uuid[], $16::smallint[], $17::text[], $18::text[],
                   $19::bytea[], $21::bool[], $22::uuid[])
                   WITH ORDINALITY AS input (caller, route, key, body_hash, location, body, order_id, user_id,
                       lines, subtotal, discounts, total, payment_method, deadline_at, event_id, partition,
                       actor, traceparent, data, has_coupon, request_id, ordinal)
           ), won AS (
               INSERT INTO idempotency_keys (caller, route, key, body_hash, status, location, body, created_at)
               SELECT caller, route, key, body_hash, 202, location, body, $20 FROM input
               ORDER BY caller, route, key
               ON CONFLICT DO NOTHING RETURNING caller, route, key
           ), accepted AS MATERIALIZED (
               SELECT input.* FROM input JOIN won USING (caller, route, key)
           ), placed AS (
               INSERT INTO orders (order_id, user_id, status, lines, subtotal, discounts, total,
                   payment_method, stock_step, payment_step, coupon_step, version, sequence, deadline_at,
                   created_at, updated_at)
               SELECT order_id, user_id, 'PENDING', lines, subtotal, discounts, total,
                   payment_method, 'ASKED', 'NOT_DUE', CASE WHEN has_coupon THEN 'ASKED' ELSE 'NOT_USED' END, 1, 1,
                   deadline_at, $20, $20
               FROM accepted
           ), logged AS (
               INSERT INTO event_log (event_id, topic, partition, key, aggregate_id, sequence, type, version,
                   correlation_id, actor, request_id, idempotency_key, traceparent, at, data)
               SELECT event_id, 'orders', partition, order_id, order_id, 1, 'order.placed', 1,
                   order_id, actor, request_id, key, traceparent, $20, data
               FROM accepted ORDER BY ordinal
           )
           SELECT order_id AS "order_id!" FROM accepted"#,
        callers as _,
        routes as _,
        keys as _,
        hashes as _,
        locations as _,
        bodies as _,
        &order_ids,
        &user_ids,
        lines as _,
        &subtotals,
        discounts as _,
        &totals,
        methods as _,
        deadlines as _,
        &log.event_ids,
        &log.partitions,
        &log.actors,
        &log.traceparents,
        &log.data,
        now.to_sqlx() as _,
        &has_coupon,
        log.request_ids as _,
    )
    .fetch_all(pool)
    .await?;
    Ok(accepted.into_iter().collect())
}
