//! Orders: what the saga loads and writes, and what a client reads.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::orders::{
    Change, CouponStep, LastModification, Order, OrderStatus, Orders, PaymentStep, StockStep,
};
use ordermill_pipeline::consumer::HandlerError;
use ordermill_schemas::Money;
use ordermill_schemas::coupons::CouponTerms;
use ordermill_schemas::orders::{Discount, Failure, FailureCode, OrderLine, PaymentMethod};
use ordermill_schemas::stock::StockLine;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::CorruptText;
use crate::text::Word as _;

/// Locks and loads orders.
///
/// # Errors
/// Where the database fails.
pub async fn load(connection: &mut PgConnection, order_ids: &[Uuid]) -> Result<Orders, HandlerError> {
    let rows = sqlx::query!(
        r#"SELECT order_id, user_id, status, lines AS "lines: Json<Vec<OrderLine>>", subtotal,
               discounts AS "discounts: Json<Vec<Discount>>", total, payment_method, stock_step, payment_step,
               coupon_step, coupon AS "coupon: Json<CouponTerms>", paid, refunded, failure_code,
               failure_detail, round, change AS "change: Json<Change>",
               last_modification AS "last_modification: Json<LastModification>",
               shipped AS "shipped: Json<Vec<StockLine>>", in_transit, confirmed_at, deadline_at, version,
               sequence
           FROM orders WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE"#,
        order_ids,
    )
    .fetch_all(connection)
    .await?;
    let mut orders = BTreeMap::new();
    for row in rows {
        let order = Order {
            order_id: row.order_id,
            user_id: row.user_id,
            lines: row.lines.0,
            payment_method: PaymentMethod::parse(&row.payment_method)?,
            subtotal: row.subtotal,
            discounts: row.discounts.0,
            total: row.total,
            status: OrderStatus::parse(&row.status)?,
            stock: StockStep::parse(&row.stock_step)?,
            payment: PaymentStep::parse(&row.payment_step)?,
            coupon_step: CouponStep::parse(&row.coupon_step)?,
            coupon: row.coupon.map(|coupon| coupon.0),
            paid: row.paid,
            refunded: row.refunded,
            failure: failure(row.failure_code, row.failure_detail)?,
            round: row.round,
            change: row.change.map(|change| change.0),
            last_modification: row.last_modification.map(|last| last.0),
            shipped: row.shipped.0,
            in_transit: row.in_transit,
            confirmed_at: row.confirmed_at.map(|at| at.to_jiff()),
            deadline_at: row.deadline_at.to_jiff(),
            version: row.version,
            sequence: row.sequence,
        };
        orders.insert(row.order_id, order);
    }
    Ok(Orders { orders })
}

fn failure(code: Option<String>, detail: Option<String>) -> Result<Option<Failure>, CorruptText> {
    let Some(code) = code else { return Ok(None) };
    let code = FailureCode::parse(&code)?;
    Ok(Some(Failure { code, detail: detail.unwrap_or_default() }))
}

/// Writes what differs between `before` and `after`.
///
/// # Errors
/// Where the database fails or a rule of it is broken, or where a status would follow another that it can't follow.
pub async fn apply(
    connection: &mut PgConnection,
    before: &Orders,
    after: &Orders,
    now: Timestamp,
) -> Result<(), HandlerError> {
    let mut progressed = Vec::new();
    let mut rewritten = Vec::new();
    for (order_id, order) in &after.orders {
        let Some(known) = before.orders.get(order_id).filter(|known| *known != order) else { continue };
        if !known.status.reaches(order.status) {
            let (from, to) = (known.status, order.status);
            return Err(HandlerError::Corrupt(format!("order {order_id}: {to:?} can't follow {from:?}")));
        }
        if is_same_sale(known, order) { progressed.push(order) } else { rewritten.push(order) }
    }
    update_progress(&mut *connection, &progressed, now).await?;
    update_all(connection, &rewritten, now).await
}

/// Whether only the saga's progress differs: so it is at every step of a placing, and then less is written.
fn is_same_sale(before: &Order, after: &Order) -> bool {
    (before.round, before.in_transit, before.deadline_at)
        == (after.round, after.in_transit, after.deadline_at)
        && before.change == after.change
        && before.last_modification == after.last_modification
        && before.shipped == after.shipped
        && before.lines == after.lines
        && (before.total, &before.coupon) == (after.total, &after.coupon)
}

/// The columns of the saga's progress.
struct Progress<'a> {
    order_ids: Vec<Uuid>,
    statuses: Vec<&'a str>,
    stock_steps: Vec<&'a str>,
    payment_steps: Vec<&'a str>,
    coupon_steps: Vec<&'a str>,
    paid: Vec<Money>,
    refunded: Vec<Money>,
    failure_codes: Vec<Option<&'a str>>,
    failure_details: Vec<Option<&'a str>>,
    versions: Vec<i32>,
    sequences: Vec<i32>,
}

impl<'a> Progress<'a> {
    fn of(orders: &[&'a Order]) -> Progress<'a> {
        let code = |order: &&'a Order| order.failure.as_ref().map(|failure| failure.code.word());
        let detail = |order: &&'a Order| order.failure.as_ref().map(|failure| failure.detail.as_str());
        Progress {
            order_ids: orders.iter().map(|order| order.order_id).collect(),
            statuses: orders.iter().map(|order| order.status.word()).collect(),
            stock_steps: orders.iter().map(|order| order.stock.word()).collect(),
            payment_steps: orders.iter().map(|order| order.payment.word()).collect(),
            coupon_steps: orders.iter().map(|order| order.coupon_step.word()).collect(),
            paid: orders.iter().map(|order| order.paid).collect(),
            refunded: orders.iter().map(|order| order.refunded).collect(),
            failure_codes: orders.iter().map(code).collect(),
            failure_details: orders.iter().map(detail).collect(),
            versions: orders.iter().map(|order| order.version).collect(),
            sequences: orders.iter().map(|order| order.sequence).collect(),
        }
    }
}

async fn update_progress(
    connection: &mut PgConnection,
    orders: &[&Order],
    now: Timestamp,
) -> Result<(), HandlerError> {
    if orders.is_empty() {
        return Ok(());
    }
    let columns = Progress::of(orders);
    sqlx::query!(
        "UPDATE orders o
         SET status = t.status, stock_step = t.stock_step, payment_step = t.payment_step, paid = t.paid,
             refunded = t.refunded, failure_code = t.failure_code, failure_detail = t.failure_detail,
             sequence = t.sequence, coupon_step = t.coupon_step,
             confirmed_at = CASE WHEN t.status = 'CONFIRMED' THEN coalesce(o.confirmed_at, $11)
                 ELSE o.confirmed_at END,
             updated_at = CASE WHEN o.version = t.version THEN o.updated_at ELSE $11 END, version = t.version
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[],
             $8::text[], $9::int[], $10::int[], $12::text[]) AS t (order_id, status, stock_step, payment_step, paid,
             refunded, failure_code, failure_detail, version, sequence, coupon_step)
         WHERE o.order_id = t.order_id",
        &columns.order_ids,
        columns.statuses as _,
        columns.stock_steps as _,
        columns.payment_steps as _,
        &columns.paid,
        &columns.refunded,
        columns.failure_codes as _,
        columns.failure_details as _,
        &columns.versions,
        &columns.sequences,
        now.to_sqlx() as _,
        columns.coupon_steps as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn update_all(
    connection: &mut PgConnection,
    orders: &[&Order],
    now: Timestamp,
) -> Result<(), HandlerError> {
    if orders.is_empty() {
        return Ok(());
    }
    let columns = Progress::of(orders);
    let lines: Vec<Json<&Vec<OrderLine>>> = orders.iter().map(|order| Json(&order.lines)).collect();
    let subtotals: Vec<Money> = orders.iter().map(|order| order.subtotal).collect();
    let discounts: Vec<Json<&Vec<Discount>>> = orders.iter().map(|order| Json(&order.discounts)).collect();
    let totals: Vec<Money> = orders.iter().map(|order| order.total).collect();
    let rounds: Vec<i32> = orders.iter().map(|order| order.round).collect();
    let changes: Vec<Option<Json<&Change>>> =
        orders.iter().map(|order| order.change.as_ref().map(Json)).collect();
    let last_modifications: Vec<Option<Json<&LastModification>>> =
        orders.iter().map(|order| order.last_modification.as_ref().map(Json)).collect();
    let coupons: Vec<Option<Json<&CouponTerms>>> =
        orders.iter().map(|order| order.coupon.as_ref().map(Json)).collect();
    let shipped: Vec<Json<&Vec<StockLine>>> = orders.iter().map(|order| Json(&order.shipped)).collect();
    let in_transit: Vec<i32> = orders.iter().map(|order| order.in_transit).collect();
    let deadlines: Vec<jiff_sqlx::Timestamp> = orders.iter().map(|o| o.deadline_at.to_sqlx()).collect();
    sqlx::query!(
        "UPDATE orders o
         SET status = t.status, stock_step = t.stock_step, payment_step = t.payment_step, paid = t.paid,
             refunded = t.refunded, failure_code = t.failure_code, failure_detail = t.failure_detail,
             sequence = t.sequence, coupon_step = t.coupon_step, coupon = t.coupon,
             confirmed_at = CASE WHEN t.status = 'CONFIRMED' THEN coalesce(o.confirmed_at, $11)
                 ELSE o.confirmed_at END,
             updated_at = CASE WHEN o.version = t.version THEN o.updated_at ELSE $11 END, version = t.version,
             lines = t.lines, subtotal = t.subtotal, discounts = t.discounts, total = t.total,
             round = t.round, change = t.change, last_modification = t.last_modification,
             shipped = t.shipped, in_transit = t.in_transit, deadline_at = t.deadline_at
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[],
             $8::text[], $9::int[], $10::int[], $12::jsonb[], $13::bigint[], $14::jsonb[], $15::bigint[],
             $16::int[], $17::jsonb[], $18::jsonb[], $19::jsonb[], $20::int[], $21::timestamptz[],
             $22::text[], $23::jsonb[])
             AS t (order_id, status, stock_step, payment_step, paid, refunded, failure_code, failure_detail,
             version, sequence, lines, subtotal, discounts, total, round, change, last_modification, shipped,
             in_transit, deadline_at, coupon_step, coupon)
         WHERE o.order_id = t.order_id",
        &columns.order_ids,
        columns.statuses as _,
        columns.stock_steps as _,
        columns.payment_steps as _,
        &columns.paid,
        &columns.refunded,
        columns.failure_codes as _,
        columns.failure_details as _,
        &columns.versions,
        &columns.sequences,
        now.to_sqlx() as _,
        lines as _,
        &subtotals,
        discounts as _,
        &totals,
        &rounds,
        changes as _,
        last_modifications as _,
        shipped as _,
        &in_transit,
        deadlines as _,
        columns.coupon_steps as _,
        coupons as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks and loads orders that have not got through their steps in time and can still be given up, the most overdue
/// first; those that another process is busy with are left to it.
///
/// # Errors
/// Where the database fails.
pub async fn load_expired(
    connection: &mut PgConnection,
    now: Timestamp,
    at_most: i64,
) -> Result<Orders, HandlerError> {
    let order_ids = sqlx::query_scalar!(
        "SELECT order_id FROM orders
         WHERE status IN ('PENDING', 'MODIFYING') AND deadline_at < $1
         ORDER BY deadline_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        now.to_sqlx() as _,
        at_most,
    )
    .fetch_all(&mut *connection)
    .await?;
    load(connection, &order_ids).await
}

/// How many orders do not rest although their deadline has passed.
///
/// # Errors
/// Where the database fails.
pub async fn count_overdue(pool: &PgPool, now: Timestamp) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "overdue!" FROM orders
           WHERE status IN ('PENDING', 'REJECTING', 'MODIFYING', 'MODIFICATION_APPLYING',
                   'MODIFICATION_REFUSING', 'CANCELLING')
               AND deadline_at < $1"#,
        now.to_sqlx() as _,
    )
    .fetch_one(pool)
    .await
}

/// An order as a client reads it.
#[derive(Clone, Debug)]
pub struct OrderRow {
    /// The order.
    pub order_id: Uuid,
    /// Who ordered.
    pub user_id: Uuid,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// Why it is refused, if it is.
    pub failure: Option<Failure>,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// The sum of the lines.
    pub subtotal: Money,
    /// What was taken off.
    pub discounts: Vec<Discount>,
    /// What is to be paid.
    pub total: Money,
    /// How.
    pub payment_method: PaymentMethod,
    /// How far payment has got.
    pub payment: PaymentStep,
    /// What was paid in its life.
    pub paid: Money,
    /// What was paid back in its life.
    pub refunded: Money,
    /// What became of the last modification.
    pub last_modification: Option<LastModification>,
    /// What was shipped of each product.
    pub shipped: Vec<StockLine>,
    /// Counts its placing, modifications and cancellation.
    pub round: i32,
    /// Counts what a client can see change.
    pub version: i32,
    /// When it should have come to rest.
    pub deadline_at: Timestamp,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed visibly.
    pub updated_at: Timestamp,
}

impl OrderRow {
    /// Whether its deadline has passed while it does not rest.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.status.is_resting() && self.deadline_at < now
    }
}

/// The same as it stands in the table.
#[derive(Debug)]
pub(crate) struct OrderRecord {
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) status: String,
    pub(crate) failure_code: Option<String>,
    pub(crate) failure_detail: Option<String>,
    pub(crate) lines: Json<Vec<OrderLine>>,
    pub(crate) subtotal: Money,
    pub(crate) discounts: Json<Vec<Discount>>,
    pub(crate) total: Money,
    pub(crate) payment_method: String,
    pub(crate) payment_step: String,
    pub(crate) paid: Money,
    pub(crate) refunded: Money,
    pub(crate) last_modification: Option<Json<LastModification>>,
    pub(crate) shipped: Json<Vec<StockLine>>,
    pub(crate) round: i32,
    pub(crate) version: i32,
    pub(crate) deadline_at: jiff_sqlx::Timestamp,
    pub(crate) created_at: jiff_sqlx::Timestamp,
    pub(crate) updated_at: jiff_sqlx::Timestamp,
}

impl TryFrom<OrderRecord> for OrderRow {
    type Error = CorruptText;

    fn try_from(record: OrderRecord) -> Result<OrderRow, CorruptText> {
        Ok(OrderRow {
            order_id: record.order_id,
            user_id: record.user_id,
            status: OrderStatus::parse(&record.status)?,
            failure: failure(record.failure_code, record.failure_detail)?,
            lines: record.lines.0,
            subtotal: record.subtotal,
            discounts: record.discounts.0,
            total: record.total,
            payment_method: PaymentMethod::parse(&record.payment_method)?,
            payment: PaymentStep::parse(&record.payment_step)?,
            paid: record.paid,
            refunded: record.refunded,
            last_modification: record.last_modification.map(|last| last.0),
            shipped: record.shipped.0,
            round: record.round,
            version: record.version,
            deadline_at: record.deadline_at.to_jiff(),
            created_at: record.created_at.to_jiff(),
            updated_at: record.updated_at.to_jiff(),
        })
    }
}

/// A statement that reads [`OrderRecord`]s: what stands after its columns, and its parameters. So the columns stand
/// in one place, whichever way the orders are found.
macro_rules! read_orders {
    ($source:literal, $($parameter:expr),+ $(,)?) => {
        sqlx::query_as!(
            OrderRecord,
            r#"SELECT order_id, user_id, status, failure_code, failure_detail,
                   lines AS "lines: Json<Vec<OrderLine>>", subtotal,
                   discounts AS "discounts: Json<Vec<Discount>>", total, payment_method, payment_step, paid,
                   refunded, last_modification AS "last_modification: Json<LastModification>",
                   shipped AS "shipped: Json<Vec<StockLine>>", round, version, deadline_at, created_at,
                   updated_at "# + $source,
            $($parameter),+
        )
    };
}
pub(crate) use read_orders;

/// An order; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find(executor: impl PgExecutor<'_>, order_id: Uuid) -> Result<Option<OrderRow>, sqlx::Error> {
    let record = read_orders!("FROM orders WHERE order_id = $1", order_id).fetch_optional(executor).await?;
    Ok(record.map(OrderRow::try_from).transpose()?)
}

/// Which of `order_ids` have come to rest.
///
/// # Errors
/// Where the database fails.
pub async fn resting(pool: &PgPool, order_ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT order_id FROM orders WHERE order_id = ANY($1) AND status NOT IN (
             'PENDING', 'REJECTING', 'MODIFYING', 'MODIFICATION_APPLYING', 'MODIFICATION_REFUSING', 'CANCELLING')",
        order_ids,
    )
    .fetch_all(pool)
    .await
}

/// Which of `order_ids` may still be charged: those that are under way, and those that can be modified.
///
/// # Errors
/// Where the database fails.
pub async fn chargeable(pool: &PgPool, order_ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT order_id FROM orders WHERE order_id = ANY($1) AND status NOT IN (
             'REJECTED', 'CANCELLED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED')",
        order_ids,
    )
    .fetch_all(pool)
    .await
}

/// The oldest order that has not come to rest, of those whose id is `from` or later; `None` where all have.
///
/// Ids grow with time, so whoever asks again and again passes the last answer as `from`, and the database looks only
/// at what is newer: cheap while thousands of orders are under way.
///
/// # Errors
/// Where the database fails.
pub async fn oldest_unsettled(pool: &PgPool, from: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT order_id FROM orders WHERE order_id >= $1 AND status IN ('PENDING', 'REJECTING')
         ORDER BY order_id LIMIT 1",
        from,
    )
    .fetch_optional(pool)
    .await
}

/// How many orders there are in each status that any has. Reads the whole table.
///
/// # Errors
/// Where the database fails.
pub async fn count_by_status(pool: &PgPool) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows =
        sqlx::query!(r#"SELECT status, count(*) AS "orders!" FROM orders GROUP BY status ORDER BY status"#)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|row| (row.status, row.orders)).collect())
}
