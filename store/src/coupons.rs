//! Coupons, their claims, what users have, and what orders use.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::coupons::{
    Claim, ClaimState, Coupon, CouponUse, Coupons, UseState, UserCoupon, UserCouponState,
};
use ordermill_pipeline::consumer::HandlerError;
use ordermill_schemas::Money;
use ordermill_schemas::coupons::{ClaimFailure, ClaimFailureCode, CouponCreated, CouponDiscount};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::CorruptText;
use crate::text::Word as _;

/// What a batch of events is about.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Coupons that may be issued.
    pub coupon_ids: Vec<Uuid>,
    /// Claims.
    pub claim_ids: Vec<Uuid>,
    /// Users' coupons.
    pub user_coupon_ids: Vec<Uuid>,
    /// Orders that may use one.
    pub order_ids: Vec<Uuid>,
}

/// Locks and loads what is wanted, and the users' coupons that the orders use.
///
/// # Errors
/// Where the database fails.
pub async fn load(
    connection: &mut PgConnection,
    wanted: Wanted,
    now: Timestamp,
) -> Result<Coupons, HandlerError> {
    let Wanted { coupon_ids, claim_ids, mut user_coupon_ids, order_ids } = wanted;
    let coupons = load_coupons(&mut *connection, &coupon_ids).await?;
    let claims = load_claims(&mut *connection, &claim_ids).await?;
    let uses = load_uses(&mut *connection, &order_ids).await?;
    user_coupon_ids.extend(uses.values().map(|used| used.user_coupon_id));
    let user_coupons = load_user_coupons(connection, &user_coupon_ids).await?;
    Ok(Coupons { now, coupons, claims, user_coupons, uses })
}

async fn load_coupons(
    connection: &mut PgConnection,
    coupon_ids: &[Uuid],
) -> Result<BTreeMap<Uuid, Coupon>, HandlerError> {
    if coupon_ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT coupon_id, discount AS "discount: Json<CouponDiscount>", quantity, issued, valid_days,
               claimable_from, claimable_until, min_subtotal
           FROM coupons WHERE coupon_id = ANY($1) ORDER BY coupon_id FOR NO KEY UPDATE"#,
        coupon_ids,
    )
    .fetch_all(connection)
    .await?;
    let coupon = rows.into_iter().map(|row| {
        let coupon = Coupon {
            discount: row.discount.0,
            quantity: row.quantity,
            issued: row.issued,
            valid_days: row.valid_days,
            claimable_from: row.claimable_from.map(|at| at.to_jiff()),
            claimable_until: row.claimable_until.map(|at| at.to_jiff()),
            min_subtotal: row.min_subtotal,
        };
        (row.coupon_id, coupon)
    });
    Ok(coupon.collect())
}

async fn load_claims(
    connection: &mut PgConnection,
    claim_ids: &[Uuid],
) -> Result<BTreeMap<Uuid, Claim>, HandlerError> {
    if claim_ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        "SELECT claim_id, coupon_id, user_id, state, failure_code, failure_detail, position, requested_at, sequence
         FROM coupon_claims WHERE claim_id = ANY($1) ORDER BY claim_id FOR UPDATE",
        claim_ids,
    )
    .fetch_all(connection)
    .await?;
    let mut claims = BTreeMap::new();
    for row in rows {
        let claim = Claim {
            coupon_id: row.coupon_id,
            user_id: row.user_id,
            state: ClaimState::parse(&row.state)?,
            failure: failure(row.failure_code, row.failure_detail)?,
            position: row.position,
            requested_at: row.requested_at.to_jiff(),
            sequence: row.sequence,
        };
        claims.insert(row.claim_id, claim);
    }
    Ok(claims)
}

fn failure(code: Option<String>, detail: Option<String>) -> Result<Option<ClaimFailure>, CorruptText> {
    let Some(code) = code else { return Ok(None) };
    let code = ClaimFailureCode::parse(&code)?;
    Ok(Some(ClaimFailure { code, detail: detail.unwrap_or_default() }))
}

async fn load_uses(
    connection: &mut PgConnection,
    order_ids: &[Uuid],
) -> Result<BTreeMap<Uuid, CouponUse>, HandlerError> {
    if order_ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        "SELECT order_id, user_coupon_id, state, sequence FROM coupon_uses
         WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE",
        order_ids,
    )
    .fetch_all(connection)
    .await?;
    let mut uses = BTreeMap::new();
    for row in rows {
        let (user_coupon_id, sequence) = (row.user_coupon_id, row.sequence);
        let used = CouponUse { user_coupon_id, state: UseState::parse(&row.state)?, sequence };
        uses.insert(row.order_id, used);
    }
    Ok(uses)
}

/// Locks and loads users' coupons.
async fn load_user_coupons(
    connection: &mut PgConnection,
    user_coupon_ids: &[Uuid],
) -> Result<BTreeMap<Uuid, UserCoupon>, HandlerError> {
    if user_coupon_ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT user_coupon_id, coupon_id, claim_id, user_id, discount AS "discount: Json<CouponDiscount>",
               min_subtotal, state, issued_at, expires_at, used_at, order_id, sequence
           FROM user_coupons WHERE user_coupon_id = ANY($1) ORDER BY user_coupon_id FOR UPDATE"#,
        user_coupon_ids,
    )
    .fetch_all(connection)
    .await?;
    let mut user_coupons = BTreeMap::new();
    for row in rows {
        let coupon = UserCoupon {
            coupon_id: row.coupon_id,
            claim_id: row.claim_id,
            user_id: row.user_id,
            discount: row.discount.0,
            min_subtotal: row.min_subtotal,
            state: UserCouponState::parse(&row.state)?,
            issued_at: row.issued_at.to_jiff(),
            expires_at: row.expires_at.to_jiff(),
            used_at: row.used_at.map(|at| at.to_jiff()),
            order_id: row.order_id,
            sequence: row.sequence,
        };
        user_coupons.insert(row.user_coupon_id, coupon);
    }
    Ok(user_coupons)
}

/// Locks and loads users' coupons whose time is over and that are not used; those that another process is busy with
/// are left to it.
///
/// # Errors
/// Where the database fails.
pub async fn load_expired(
    connection: &mut PgConnection,
    now: Timestamp,
    at_most: i64,
) -> Result<Coupons, HandlerError> {
    let user_coupon_ids = sqlx::query_scalar!(
        "SELECT user_coupon_id FROM user_coupons WHERE state = 'ISSUED' AND expires_at <= $1
         ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        now.to_sqlx() as _,
        at_most,
    )
    .fetch_all(&mut *connection)
    .await?;
    load(connection, Wanted { user_coupon_ids, ..Wanted::default() }, now).await
}

/// Writes what differs between `before` and `after`.
///
/// # Errors
/// Where the database fails or a rule of it is broken: no more issued than there are, no place twice, one per user.
pub async fn apply(
    connection: &mut PgConnection,
    before: &Coupons,
    after: &Coupons,
) -> Result<(), HandlerError> {
    let coupons: Vec<_> =
        after.coupons.iter().filter(|(id, coupon)| before.coupons.get(id) != Some(coupon)).collect();
    update_coupons(&mut *connection, &coupons).await?;
    let claims: Vec<_> =
        after.claims.iter().filter(|(id, claim)| before.claims.get(id) != Some(claim)).collect();
    write_claims(&mut *connection, &claims).await?;
    let user_coupons: Vec<_> = after
        .user_coupons
        .iter()
        .filter(|(id, coupon)| before.user_coupons.get(id) != Some(coupon))
        .collect();
    write_user_coupons(&mut *connection, &user_coupons).await?;
    let uses: Vec<_> = after.uses.iter().filter(|(id, used)| before.uses.get(id) != Some(used)).collect();
    write_uses(connection, &uses).await
}

async fn update_coupons(
    connection: &mut PgConnection,
    coupons: &[(&Uuid, &Coupon)],
) -> Result<(), HandlerError> {
    if coupons.is_empty() {
        return Ok(());
    }
    let coupon_ids: Vec<Uuid> = coupons.iter().map(|(id, _)| **id).collect();
    let issued: Vec<i32> = coupons.iter().map(|(_, coupon)| coupon.issued).collect();
    sqlx::query!(
        "UPDATE coupons c SET issued = t.issued FROM unnest($1::uuid[], $2::int[]) AS t (coupon_id, issued)
         WHERE c.coupon_id = t.coupon_id",
        &coupon_ids,
        &issued,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_claims(connection: &mut PgConnection, claims: &[(&Uuid, &Claim)]) -> Result<(), HandlerError> {
    if claims.is_empty() {
        return Ok(());
    }
    let claim_ids: Vec<Uuid> = claims.iter().map(|(id, _)| **id).collect();
    let coupon_ids: Vec<Uuid> = claims.iter().map(|(_, claim)| claim.coupon_id).collect();
    let user_ids: Vec<Uuid> = claims.iter().map(|(_, claim)| claim.user_id).collect();
    let states: Vec<&str> = claims.iter().map(|(_, claim)| claim.state.word()).collect();
    let codes: Vec<Option<&str>> =
        claims.iter().map(|(_, claim)| claim.failure.as_ref().map(|failure| failure.code.word())).collect();
    let details: Vec<Option<&str>> =
        claims.iter().map(|(_, claim)| claim.failure.as_ref().map(|f| f.detail.as_str())).collect();
    let positions: Vec<Option<i32>> = claims.iter().map(|(_, claim)| claim.position).collect();
    let requested: Vec<jiff_sqlx::Timestamp> =
        claims.iter().map(|(_, claim)| claim.requested_at.to_sqlx()).collect();
    let sequences: Vec<i32> = claims.iter().map(|(_, claim)| claim.sequence).collect();
    sqlx::query!(
        "INSERT INTO coupon_claims (claim_id, coupon_id, user_id, state, failure_code, failure_detail, position,
             requested_at, sequence)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::int[],
             $8::timestamptz[], $9::int[])
         ON CONFLICT (claim_id) DO UPDATE SET state = excluded.state, failure_code = excluded.failure_code,
             failure_detail = excluded.failure_detail, position = excluded.position, sequence = excluded.sequence",
        &claim_ids,
        &coupon_ids,
        &user_ids,
        states as _,
        codes as _,
        details as _,
        positions as _,
        requested as _,
        &sequences,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_user_coupons(
    connection: &mut PgConnection,
    coupons: &[(&Uuid, &UserCoupon)],
) -> Result<(), HandlerError> {
    if coupons.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = coupons.iter().map(|(id, _)| **id).collect();
    let coupon_ids: Vec<Uuid> = coupons.iter().map(|(_, c)| c.coupon_id).collect();
    let claim_ids: Vec<Uuid> = coupons.iter().map(|(_, c)| c.claim_id).collect();
    let user_ids: Vec<Uuid> = coupons.iter().map(|(_, c)| c.user_id).collect();
    let discounts: Vec<Json<CouponDiscount>> = coupons.iter().map(|(_, c)| Json(c.discount)).collect();
    let min_subtotals: Vec<Money> = coupons.iter().map(|(_, c)| c.min_subtotal).collect();
    let states: Vec<&str> = coupons.iter().map(|(_, c)| c.state.word()).collect();
    let issued: Vec<jiff_sqlx::Timestamp> = coupons.iter().map(|(_, c)| c.issued_at.to_sqlx()).collect();
    let expires: Vec<jiff_sqlx::Timestamp> = coupons.iter().map(|(_, c)| c.expires_at.to_sqlx()).collect();
    let used: Vec<Option<jiff_sqlx::Timestamp>> =
        coupons.iter().map(|(_, c)| c.used_at.map(|at| at.to_sqlx())).collect();
    let order_ids: Vec<Option<Uuid>> = coupons.iter().map(|(_, c)| c.order_id).collect();
    let sequences: Vec<i32> = coupons.iter().map(|(_, c)| c.sequence).collect();
    sqlx::query!(
        "INSERT INTO user_coupons (user_coupon_id, coupon_id, claim_id, user_id, discount, min_subtotal, state,
             issued_at, expires_at, used_at, order_id, sequence)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::jsonb[], $6::bigint[],
             $7::text[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::uuid[], $12::int[])
         ON CONFLICT (user_coupon_id) DO UPDATE SET state = excluded.state, used_at = excluded.used_at,
             order_id = excluded.order_id, sequence = excluded.sequence",
        &ids,
        &coupon_ids,
        &claim_ids,
        &user_ids,
        discounts as _,
        &min_subtotals,
        states as _,
        issued as _,
        expires as _,
        used as _,
        order_ids as _,
        &sequences,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_uses(connection: &mut PgConnection, uses: &[(&Uuid, &CouponUse)]) -> Result<(), HandlerError> {
    if uses.is_empty() {
        return Ok(());
    }
    let order_ids: Vec<Uuid> = uses.iter().map(|(id, _)| **id).collect();
    let user_coupon_ids: Vec<Uuid> = uses.iter().map(|(_, used)| used.user_coupon_id).collect();
    let states: Vec<&str> = uses.iter().map(|(_, used)| used.state.word()).collect();
    let sequences: Vec<i32> = uses.iter().map(|(_, used)| used.sequence).collect();
    sqlx::query!(
        "INSERT INTO coupon_uses (order_id, user_coupon_id, state, sequence)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[])
         ON CONFLICT (order_id) DO UPDATE SET state = excluded.state, sequence = excluded.sequence",
        &order_ids,
        &user_coupon_ids,
        states as _,
        &sequences,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts a coupon up to be claimed.
///
/// # Errors
/// Where the database fails.
pub async fn insert(
    connection: &mut PgConnection,
    coupon: &CouponCreated,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO coupons (coupon_id, name, discount, quantity, valid_days, claimable_from, claimable_until,
             min_subtotal, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        coupon.coupon_id,
        coupon.name,
        Json(coupon.discount) as _,
        coupon.quantity,
        coupon.valid_days,
        coupon.claimable_from.map(|at| at.to_sqlx()) as _,
        coupon.claimable_until.map(|at| at.to_sqlx()) as _,
        coupon.min_subtotal,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A coupon with its name.
#[derive(Clone, Debug)]
pub struct CouponRow {
    /// The coupon.
    pub coupon_id: Uuid,
    /// The name.
    pub name: String,
    /// The rest.
    pub coupon: Coupon,
}

/// A coupon; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find(executor: impl PgExecutor<'_>, coupon_id: Uuid) -> Result<Option<CouponRow>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT name, discount AS "discount: Json<CouponDiscount>", quantity, issued, valid_days, claimable_from,
               claimable_until, min_subtotal
           FROM coupons WHERE coupon_id = $1"#,
        coupon_id,
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|row| CouponRow {
        coupon_id,
        name: row.name,
        coupon: Coupon {
            discount: row.discount.0,
            quantity: row.quantity,
            issued: row.issued,
            valid_days: row.valid_days,
            claimable_from: row.claimable_from.map(|at| at.to_jiff()),
            claimable_until: row.claimable_until.map(|at| at.to_jiff()),
            min_subtotal: row.min_subtotal,
        },
    }))
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

/// Writes a claim down, to be decided by the coupons worker, if its claimant is new.
///
/// # Errors
/// Where the database fails.
pub async fn request(
    connection: &mut PgConnection,
    claim_id: Uuid,
    claim: &Claim,
) -> Result<Claimant, sqlx::Error> {
    let inserted = sqlx::query!(
        "INSERT INTO coupon_claims (claim_id, coupon_id, user_id, state, requested_at, sequence)
         SELECT $1, $2, user_id, 'PENDING', $4, 1 FROM users WHERE user_id = $3 AND erased_at IS NULL
         ON CONFLICT (coupon_id, user_id) DO NOTHING",
        claim_id,
        claim.coupon_id,
        claim.user_id,
        claim.requested_at.to_sqlx() as _,
    )
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Claimant::New);
    }
    // Nothing was written, so it is not a new one's, even if the user has come since.
    Ok(match claimant(connection, claim.coupon_id, claim.user_id).await? {
        Claimant::New => Claimant::NoUser,
        known => known,
    })
}

/// Looks who asks for a coupon; locks nothing.
///
/// # Errors
/// Where the database fails.
pub async fn claimant(
    connection: &mut PgConnection,
    coupon_id: Uuid,
    user_id: Uuid,
) -> Result<Claimant, sqlx::Error> {
    let known = sqlx::query_scalar!(
        r#"SELECT c.claim_id AS "claim_id?" FROM users u
           LEFT JOIN coupon_claims c ON c.user_id = u.user_id AND c.coupon_id = $1
           WHERE u.user_id = $2 AND u.erased_at IS NULL"#,
        coupon_id,
        user_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(match known {
        None => Claimant::NoUser,
        Some(None) => Claimant::New,
        Some(Some(claim_id)) => Claimant::HasClaimed(claim_id),
    })
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
    let row = sqlx::query!(
        "SELECT user_id, state, failure_code, failure_detail, position, requested_at, sequence
         FROM coupon_claims WHERE claim_id = $1 AND coupon_id = $2",
        claim_id,
        coupon_id,
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let claim = Claim {
        coupon_id,
        user_id: row.user_id,
        state: ClaimState::parse(&row.state)?,
        failure: failure(row.failure_code, row.failure_detail)?,
        position: row.position,
        requested_at: row.requested_at.to_jiff(),
        sequence: row.sequence,
    };
    let user_coupon = if claim.state == ClaimState::Issued {
        find_user_coupon(pool, ordermill_domain::coupons::user_coupon_id(claim_id)).await?
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
        "SELECT claim_id FROM coupon_claims WHERE claim_id = ANY($1) AND state <> 'PENDING'",
        claim_ids,
    )
    .fetch_all(pool)
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

/// The same as it stands in the tables.
struct UserCouponRecord {
    user_coupon_id: Uuid,
    name: String,
    coupon_id: Uuid,
    claim_id: Uuid,
    user_id: Uuid,
    discount: Json<CouponDiscount>,
    min_subtotal: Money,
    state: String,
    issued_at: jiff_sqlx::Timestamp,
    expires_at: jiff_sqlx::Timestamp,
    used_at: Option<jiff_sqlx::Timestamp>,
    order_id: Option<Uuid>,
    sequence: i32,
}

impl TryFrom<UserCouponRecord> for UserCouponRow {
    type Error = CorruptText;

    fn try_from(record: UserCouponRecord) -> Result<UserCouponRow, CorruptText> {
        Ok(UserCouponRow {
            user_coupon_id: record.user_coupon_id,
            name: record.name,
            coupon: UserCoupon {
                coupon_id: record.coupon_id,
                claim_id: record.claim_id,
                user_id: record.user_id,
                discount: record.discount.0,
                min_subtotal: record.min_subtotal,
                state: UserCouponState::parse(&record.state)?,
                issued_at: record.issued_at.to_jiff(),
                expires_at: record.expires_at.to_jiff(),
                used_at: record.used_at.map(|at| at.to_jiff()),
                order_id: record.order_id,
                sequence: record.sequence,
            },
        })
    }
}

/// A user's coupon; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find_user_coupon(
    executor: impl PgExecutor<'_>,
    user_coupon_id: Uuid,
) -> Result<Option<UserCouponRow>, sqlx::Error> {
    let record = sqlx::query_as!(
        UserCouponRecord,
        r#"SELECT user_coupon_id, name, coupon_id, claim_id, user_id, u.discount AS "discount: Json<CouponDiscount>",
               u.min_subtotal, state, issued_at, expires_at, used_at, order_id, sequence
           FROM user_coupons u JOIN coupons USING (coupon_id) WHERE user_coupon_id = $1"#,
        user_coupon_id,
    )
    .fetch_optional(executor)
    .await?;
    Ok(record.map(UserCouponRow::try_from).transpose()?)
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
    // A user has few, so they are sorted as they are found.
    let records = sqlx::query_as!(
        UserCouponRecord,
        r#"SELECT user_coupon_id, name, coupon_id, claim_id, user_id, u.discount AS "discount: Json<CouponDiscount>",
               u.min_subtotal, state, issued_at, expires_at, used_at, order_id, sequence
           FROM user_coupons u JOIN coupons USING (coupon_id)
           WHERE user_id = $1 AND ($2::text IS NULL OR state = $2) AND (issued_at, user_coupon_id) < ($3, $4)
           ORDER BY issued_at DESC, user_coupon_id DESC LIMIT $5"#,
        user_id,
        state.map(|state| state.word()),
        issued_before.to_sqlx() as _,
        id_before,
        limit,
    )
    .fetch_all(pool)
    .await?;
    let rows: Result<Vec<UserCouponRow>, CorruptText> =
        records.into_iter().map(UserCouponRow::try_from).collect();
    Ok(rows?)
}

/// The state that clients know by that word; `None` where they know no such state.
#[must_use]
pub fn state_named(word: &str) -> Option<UserCouponState> {
    UserCouponState::parse(word).ok()
}

/// The word that clients know a state by.
#[must_use]
pub fn name_of(state: UserCouponState) -> &'static str {
    state.word()
}
