//! Coupons, their claims and what users have, as they are read.

use std::collections::HashMap;

use jiff::Timestamp;
use ordermill_domain::coupons::{Claim, ClaimState, Coupon, UserCoupon, UserCouponState, user_coupon_id};
use sqlx::{FromRow, PgExecutor, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::documents;

/// Users' coupons whose time is over and that are not used; those that another process is busy with are left to it.
///
/// # Errors
/// Where the database fails.
pub async fn expired(
    executor: impl PgExecutor<'_>,
    now: Timestamp,
    except: &[Uuid],
    at_most: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT key FROM user_coupons WHERE open_until <= $1 AND key NOT IN (SELECT unnest($2::uuid[]))
         ORDER BY open_until LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED",
        now.as_microsecond(),
        except,
        at_most,
    )
    .fetch_all(executor)
    .await
}

/// An order that is being undone and waits for the coupon that it named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitsCoupon {
    /// The order.
    pub order_id: Uuid,
    /// Who ordered.
    pub user_id: Uuid,
    /// The user's coupon.
    pub user_coupon_id: Uuid,
}

/// Orders that are being undone, are past their deadline and wait for their coupon, of which nobody has told them; the most overdue first.
///
/// Which coupon an order has named says its first event.
///
/// # Errors
/// Where the database fails.
pub async fn overdue(pool: &PgPool, now: Timestamp, at_most: i64) -> Result<Vec<AwaitsCoupon>, sqlx::Error> {
    sqlx::query_as!(
        AwaitsCoupon,
        r#"SELECT o.key AS "order_id!", o.user_id AS "user_id!",
               (convert_from(placed.data, 'UTF8')::jsonb ->> 'user_coupon_id')::uuid AS "user_coupon_id!"
           FROM (
               SELECT o.key, o.user_id, o.open_until FROM orders o LEFT JOIN coupon_uses u ON u.key = o.key
               WHERE o.open_until < $1 AND o.status IN ('REJECTING', 'CANCELLING')
                   AND o.state ->> 'coupon_step' IN ('ASKED', 'APPLIED')
                   AND (u.key IS NULL OR u.state ->> 'state' = 'APPLIED')
               ORDER BY o.open_until LIMIT $2) o
           -- One look at the index for each, also where the planner takes the log for small.
           CROSS JOIN LATERAL (
               SELECT e.data FROM event_log e
               WHERE e.about @> ARRAY[o.key] AND e.aggregate_id = o.key AND e.topic = 'orders' AND e.sequence = 1
               LIMIT 1) placed
           ORDER BY o.open_until"#,
        now.as_microsecond(),
        at_most,
    )
    .fetch_all(pool)
    .await
}

/// Who asks for a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// A user who has not claimed it before.
    New,
    /// A user who has, by this claim.
    HasClaimed(Uuid),
    /// There is no such user.
    NoUser,
}

/// The coupons with these ids, as far as there are any.
///
/// # Errors
/// Where the database fails, or a document can't be read.
pub async fn find_many(pool: &PgPool, coupon_ids: &[Uuid]) -> Result<HashMap<Uuid, Coupon>, sqlx::Error> {
    let mut statement = documents::select();
    statement.push("coupons WHERE key = ANY(").push_bind(coupon_ids).push(")");
    Ok(documents::all(statement, pool).await?.into_iter().collect())
}

/// Looks who asks for coupons, in the order of `wanted`, which are ids of a coupon and a user; locks nothing.
///
/// # Errors
/// Where the database fails.
pub async fn claimants(pool: &PgPool, wanted: &[(Uuid, Uuid)]) -> Result<Vec<Claimant>, sqlx::Error> {
    let (coupon_ids, user_ids): (Vec<Uuid>, Vec<Uuid>) = wanted.iter().copied().unzip();
    let known = sqlx::query!(
        r#"SELECT (SELECT true FROM users u WHERE u.user_id = w.user_id AND u.erased_at IS NULL) AS is_user,
               (SELECT c.key FROM coupon_claims c WHERE c.coupon_id = w.coupon_id AND c.user_id = w.user_id) AS claim_id
           FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS w (coupon_id, user_id, ordinal)
           ORDER BY w.ordinal"#,
        &coupon_ids,
        &user_ids,
    )
    .fetch_all(pool)
    .await?;
    let claimant = |is_user: Option<bool>, claim_id: Option<Uuid>| match (is_user, claim_id) {
        (None, _) => Claimant::NoUser,
        (Some(_), None) => Claimant::New,
        (Some(_), Some(claim_id)) => Claimant::HasClaimed(claim_id),
    };
    Ok(known.into_iter().map(|row| claimant(row.is_user, row.claim_id)).collect())
}

/// A claim as a client reads it, with what it brought.
#[derive(Clone, Debug)]
pub struct ClaimRow {
    /// The claim.
    pub claim_id: Uuid,
    /// How far it is.
    pub claim: Claim,
    /// What the user has got.
    pub user_coupon: Option<UserCouponRow>,
}

/// A claim of that coupon; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find_claim(
    pool: &PgPool,
    coupon_id: Uuid,
    claim_id: Uuid,
) -> Result<Option<ClaimRow>, sqlx::Error> {
    let claim: Option<Claim> = documents::find(pool, claim_id).await?;
    let Some(claim) = claim.filter(|claim| claim.coupon_id == coupon_id) else { return Ok(None) };
    let user_coupon = if claim.state == ClaimState::Issued {
        find_user_coupon(pool, user_coupon_id(claim_id)).await?
    } else {
        None
    };
    Ok(Some(ClaimRow { claim_id, claim, user_coupon }))
}

/// Which of `claim_ids` are decided.
///
/// # Errors
/// Where the database fails.
pub async fn decided(pool: &PgPool, claim_ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT key FROM coupon_claims WHERE key = ANY($1) AND status <> 'PENDING'",
        claim_ids,
    )
    .fetch_all(pool)
    .await
}

/// Whether any claim of the coupon is not decided.
///
/// # Errors
/// Where the database fails.
pub async fn has_undecided(pool: &PgPool, coupon_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM coupon_claims WHERE coupon_id = $1 AND status = 'PENDING') AS "any!""#,
        coupon_id,
    )
    .fetch_one(pool)
    .await
}

/// How many claims of the coupon were decided in favour of their users.
///
/// # Errors
/// Where the database fails.
pub async fn count_issued(pool: &PgPool, coupon_id: Uuid) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "issued!" FROM coupon_claims WHERE coupon_id = $1 AND status = 'ISSUED'"#,
        coupon_id,
    )
    .fetch_one(pool)
    .await
}

/// A user's coupon as a client reads it.
#[derive(Clone, Debug)]
pub struct UserCouponRow {
    /// The user's coupon.
    pub user_coupon_id: Uuid,
    /// Its coupon's name.
    pub name: String,
    /// The rest.
    pub coupon: UserCoupon,
}

/// The same as the statements read it.
#[derive(FromRow)]
struct NamedRow {
    #[sqlx(flatten)]
    row: documents::Row,
    name: String,
}

impl NamedRow {
    fn read(&self) -> Result<UserCouponRow, sqlx::Error> {
        let name = self.name.clone();
        Ok(UserCouponRow { user_coupon_id: self.row.key, name, coupon: self.row.read()? })
    }
}

fn select_named() -> QueryBuilder<Postgres> {
    QueryBuilder::new(
        "SELECT u.key, u.state::text AS state, u.bulk::text AS bulk, c.state ->> 'name' AS name
         FROM user_coupons u JOIN coupons c ON c.key = u.coupon_id WHERE ",
    )
}

/// A user's coupon; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find_user_coupon(
    executor: impl PgExecutor<'_>,
    user_coupon_id: Uuid,
) -> Result<Option<UserCouponRow>, sqlx::Error> {
    let mut statement = select_named();
    statement.push("u.key = ").push_bind(user_coupon_id);
    let row: Option<NamedRow> = statement.build_query_as().fetch_optional(executor).await?;
    row.map(|row| row.read()).transpose()
}

/// A user's coupons, the newest first, below `before` where that is given; in that state where it is given.
///
/// # Errors
/// Where the database fails.
pub async fn of_user(
    pool: &PgPool,
    user_id: Uuid,
    state: Option<UserCouponState>,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<UserCouponRow>, sqlx::Error> {
    let (issued_before, id_before) = before.unwrap_or((Timestamp::MAX, Uuid::max()));
    let mut statement = select_named();
    statement.push("u.user_id = ").push_bind(user_id);
    if let Some(state) = state {
        statement.push(" AND u.status = ").push_bind(documents::word(state));
    }
    // A user has few, so they are sorted as they are found.
    statement
        .push(" AND ((u.state ->> 'issued_at')::bigint, u.key) < (")
        .push_bind(issued_before.as_microsecond());
    statement
        .push(", ")
        .push_bind(id_before)
        .push(") ORDER BY (u.state ->> 'issued_at')::bigint DESC, u.key DESC");
    statement.push(" LIMIT ").push_bind(limit);
    let rows: Vec<NamedRow> = statement.build_query_as().fetch_all(pool).await?;
    rows.iter().map(NamedRow::read).collect()
}
