//! Payments, and the balances that they hold and capture.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::payments::{Balance, Charge, ChargeState, GatewayTask, Payment, Payments, Refund};
use ordermill_pipeline::consumer::HandlerError;
use ordermill_schemas::orders::PaymentMethod;
use ordermill_schemas::{Event, Money, Topic};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::text::Word as _;
use crate::written::Written;

/// How long a process has for what the gateway is to be asked for before another may ask it, too.
pub const LEASE: Duration = Duration::from_secs(15);

/// A payment's row.
struct Row {
    order_id: Uuid,
    user_id: Uuid,
    method: String,
    charge_id: Uuid,
    charge_number: i32,
    amount: Money,
    refunded: Money,
    state: String,
    earlier: Json<Vec<Charge>>,
    refund: Option<Json<Refund>>,
    refund_round: i32,
    sequence: i32,
}

impl Row {
    fn into_payment(self) -> Result<Payment, crate::CorruptText> {
        let newest = Charge {
            number: self.charge_number,
            charge_id: self.charge_id,
            amount: self.amount,
            refunded: self.refunded,
            state: ChargeState::parse(&self.state)?,
        };
        let mut charges = self.earlier.0;
        charges.push(newest);
        Ok(Payment {
            user_id: self.user_id,
            method: PaymentMethod::parse(&self.method)?,
            charges,
            refund: self.refund.map(|refund| refund.0),
            refund_round: self.refund_round,
            sequence: self.sequence,
        })
    }
}

/// Locks and loads the payments of `order_ids`, and the balances of `user_ids` and of those who pay from theirs.
///
/// # Errors
/// Where the database fails.
pub async fn load(
    connection: &mut PgConnection,
    order_ids: &[Uuid],
    mut user_ids: Vec<Uuid>,
) -> Result<Payments, HandlerError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT order_id, user_id, method, charge_id, charge_number, amount, refunded, state,
               earlier AS "earlier: Json<Vec<Charge>>", refund AS "refund: Json<Refund>", refund_round, sequence
           FROM payments WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE"#,
        order_ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut payments = BTreeMap::new();
    for row in rows {
        payments.insert(row.order_id, row.into_payment()?);
    }
    let from_balance = payments.values().filter(|payment| payment.method == PaymentMethod::Balance);
    user_ids.extend(from_balance.map(|payment| payment.user_id));
    user_ids.sort_unstable();
    user_ids.dedup();
    let rows = sqlx::query!(
        "SELECT user_id, available, held, sequence FROM balances
         WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE",
        &user_ids,
    )
    .fetch_all(connection)
    .await?;
    let balances = rows.into_iter().map(|row| {
        (row.user_id, Balance { available: row.available, held: row.held, sequence: row.sequence })
    });
    Ok(Payments { balances: balances.collect(), payments })
}

/// Writes what differs between `before` and `after`, and the balance entries of the events.
///
/// # Errors
/// Where the database fails or a rule of it is broken: no balance below zero, no more paid back than was paid.
pub async fn apply(
    connection: &mut PgConnection,
    before: &Payments,
    after: &Payments,
    written: &[Written],
    now: Timestamp,
) -> Result<(), HandlerError> {
    let changed = |(id, payment): &(&Uuid, &Payment)| before.payments.get(*id) != Some(*payment);
    let (known, new): (Vec<_>, Vec<_>) =
        after.payments.iter().filter(changed).partition(|(id, _)| before.payments.contains_key(*id));
    let asked = Asked::of(written);
    insert_payments(connection, &new, &asked, now).await?;
    let has_new_task = |(id, payment): &(&Uuid, &Payment)| {
        payment.task().is_some() && before.payments.get(*id).is_none_or(|b| b.task() != payment.task())
    };
    update_payments(connection, &known, has_new_task, &asked, now).await?;
    let changed = |id: &Uuid, balance: &Balance| before.balances.get(id) != Some(balance);
    let balances: Vec<_> = after.balances.iter().filter(|(id, balance)| changed(id, balance)).collect();
    update_balances(connection, &balances, now).await?;
    insert_entries(connection, written, now).await
}

/// The last event of each payment, which asks the gateway for something if its task is new.
struct Asked<'a>(BTreeMap<Uuid, &'a Written>);

impl<'a> Asked<'a> {
    fn of(written: &'a [Written]) -> Asked<'a> {
        let of_payments = written.iter().filter(|w| w.event.topic() == Topic::Payments);
        Asked(of_payments.map(|w| (w.event.key(), w)).collect())
    }

    fn cause_id(&self, order_id: Uuid) -> Uuid {
        self.0.get(&order_id).map_or(Uuid::nil(), |written| written.event_id)
    }

    fn traceparent(&self, order_id: Uuid) -> String {
        self.0.get(&order_id).map_or_else(String::new, |written| written.origin.trace.to_string())
    }
}

/// The columns of payments.
#[derive(Default)]
struct Columns<'a> {
    order_ids: Vec<Uuid>,
    user_ids: Vec<Uuid>,
    methods: Vec<&'a str>,
    charge_ids: Vec<Uuid>,
    charge_numbers: Vec<i32>,
    amounts: Vec<Money>,
    refunded: Vec<Money>,
    states: Vec<&'a str>,
    earlier: Vec<Json<&'a [Charge]>>,
    refunds: Vec<Option<Json<&'a Refund>>>,
    refund_rounds: Vec<i32>,
    sequences: Vec<i32>,
}

impl<'a> Columns<'a> {
    fn of(payments: &[(&'a Uuid, &'a Payment)]) -> Columns<'a> {
        let mut columns = Columns::default();
        for (order_id, payment) in payments {
            // A payment begins with a charge, so there is one.
            let Some((newest, earlier)) = payment.charges.split_last() else { continue };
            columns.order_ids.push(**order_id);
            columns.user_ids.push(payment.user_id);
            columns.methods.push(payment.method.word());
            columns.charge_ids.push(newest.charge_id);
            columns.charge_numbers.push(newest.number);
            columns.amounts.push(newest.amount);
            columns.refunded.push(newest.refunded);
            columns.states.push(newest.state.word());
            columns.earlier.push(Json(earlier));
            columns.refunds.push(payment.refund.as_ref().map(Json));
            columns.refund_rounds.push(payment.refund_round);
            columns.sequences.push(payment.sequence);
        }
        columns
    }
}

async fn insert_payments(
    connection: &mut PgConnection,
    payments: &[(&Uuid, &Payment)],
    asked: &Asked<'_>,
    now: Timestamp,
) -> Result<(), HandlerError> {
    if payments.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(payments);
    let causes: Vec<Uuid> = columns.order_ids.iter().map(|id| asked.cause_id(*id)).collect();
    let traces: Vec<String> = columns.order_ids.iter().map(|id| asked.traceparent(*id)).collect();
    sqlx::query!(
        "INSERT INTO payments (order_id, user_id, method, charge_id, charge_number, amount, refunded, state,
             earlier, refund, refund_round, sequence, cause_id, traceparent, leased_until, updated_at)
         SELECT t.*, $15::timestamptz + make_interval(secs => $16), $15
         FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::int[], $6::bigint[], $7::bigint[],
             $8::text[], $9::jsonb[], $10::jsonb[], $11::int[], $12::int[], $13::uuid[], $14::text[]) AS t",
        &columns.order_ids,
        &columns.user_ids,
        columns.methods as _,
        &columns.charge_ids,
        &columns.charge_numbers,
        &columns.amounts,
        &columns.refunded,
        columns.states as _,
        columns.earlier as _,
        columns.refunds as _,
        &columns.refund_rounds,
        &columns.sequences,
        &causes,
        &traces,
        now.to_sqlx() as _,
        LEASE.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn update_payments(
    connection: &mut PgConnection,
    payments: &[(&Uuid, &Payment)],
    has_new_task: impl Fn(&(&Uuid, &Payment)) -> bool,
    asked: &Asked<'_>,
    now: Timestamp,
) -> Result<(), HandlerError> {
    if payments.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(payments);
    let is_new: Vec<bool> = payments.iter().map(has_new_task).collect();
    let causes: Vec<Uuid> = columns.order_ids.iter().map(|id| asked.cause_id(*id)).collect();
    let traces: Vec<String> = columns.order_ids.iter().map(|id| asked.traceparent(*id)).collect();
    sqlx::query!(
        "UPDATE payments p
         SET charge_id = t.charge_id, charge_number = t.charge_number, amount = t.amount,
             refunded = t.refunded, state = t.state, earlier = t.earlier, refund = t.refund,
             refund_round = t.refund_round, sequence = t.sequence,
             cause_id = CASE WHEN t.is_new THEN t.cause_id ELSE p.cause_id END,
             traceparent = CASE WHEN t.is_new THEN t.traceparent ELSE p.traceparent END,
             leased_until = CASE WHEN t.is_new THEN $14::timestamptz + make_interval(secs => $15)
                 ELSE p.leased_until END,
             updated_at = $14
         FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::bigint[], $5::bigint[], $6::text[], $7::jsonb[],
             $8::jsonb[], $9::int[], $10::int[], $11::bool[], $12::uuid[], $13::text[])
             AS t (order_id, charge_id, charge_number, amount, refunded, state, earlier, refund, refund_round,
             sequence, is_new, cause_id, traceparent)
         WHERE p.order_id = t.order_id",
        &columns.order_ids,
        &columns.charge_ids,
        &columns.charge_numbers,
        &columns.amounts,
        &columns.refunded,
        columns.states as _,
        columns.earlier as _,
        columns.refunds as _,
        &columns.refund_rounds,
        &columns.sequences,
        &is_new,
        &causes,
        &traces,
        now.to_sqlx() as _,
        LEASE.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn update_balances(
    connection: &mut PgConnection,
    balances: &[(&Uuid, &Balance)],
    now: Timestamp,
) -> Result<(), HandlerError> {
    if balances.is_empty() {
        return Ok(());
    }
    let user_ids: Vec<Uuid> = balances.iter().map(|(id, _)| **id).collect();
    let available: Vec<i64> = balances.iter().map(|(_, b)| b.available).collect();
    let held: Vec<i64> = balances.iter().map(|(_, b)| b.held).collect();
    let sequences: Vec<i32> = balances.iter().map(|(_, b)| b.sequence).collect();
    sqlx::query!(
        "UPDATE balances b
         SET available = t.available, held = t.held, sequence = t.sequence, updated_at = $5
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::int[])
             AS t (user_id, available, held, sequence)
         WHERE b.user_id = t.user_id",
        &user_ids,
        &available,
        &held,
        &sequences,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An entry of a balance's history that an event makes.
struct Entry {
    entry_id: Uuid,
    user_id: Uuid,
    sequence: i32,
    kind: &'static str,
    amount: Money,
    balance_after: Money,
    order_id: Uuid,
}

impl Entry {
    /// Money leaves the balance when it is captured, and comes back when it is refunded; a hold moves none.
    fn of(written: &Written) -> Option<Entry> {
        let (user_id, order_id, kind, amount, balance_after) = match &written.event {
            Event::BalanceCaptured(e) => (e.user_id, e.order_id, "USED", e.amount, e.available + e.held),
            Event::BalanceRefunded(e) => (e.user_id, e.order_id, "REFUNDED", e.amount, e.available + e.held),
            _ => return None,
        };
        let (entry_id, sequence) = (written.event_id, written.sequence);
        Some(Entry { entry_id, user_id, sequence, kind, amount, balance_after, order_id })
    }
}

async fn insert_entries(
    connection: &mut PgConnection,
    written: &[Written],
    now: Timestamp,
) -> Result<(), HandlerError> {
    let entries: Vec<Entry> = written.iter().filter_map(Entry::of).collect();
    if entries.is_empty() {
        return Ok(());
    }
    let entry_ids: Vec<Uuid> = entries.iter().map(|entry| entry.entry_id).collect();
    let user_ids: Vec<Uuid> = entries.iter().map(|entry| entry.user_id).collect();
    let sequences: Vec<i32> = entries.iter().map(|entry| entry.sequence).collect();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind).collect();
    let amounts: Vec<Money> = entries.iter().map(|entry| entry.amount).collect();
    let balances_after: Vec<Money> = entries.iter().map(|entry| entry.balance_after).collect();
    let order_ids: Vec<Uuid> = entries.iter().map(|entry| entry.order_id).collect();
    sqlx::query!(
        "INSERT INTO balance_entries (entry_id, user_id, sequence, kind, amount, balance_after, order_id,
             created_at)
         SELECT t.*, $8
         FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::bigint[], $6::bigint[], $7::uuid[])
             AS t",
        &entry_ids,
        &user_ids,
        &sequences,
        kinds as _,
        &amounts,
        &balances_after,
        &order_ids,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Something that the gateway is to be asked for.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The order, the gateway's reference.
    pub order_id: Uuid,
    /// What.
    pub task: GatewayTask,
    /// How many events the order's payment had when it was asked for: more, where it was asked for later.
    pub sequence: i32,
    /// The event that asked for it.
    pub cause_id: Uuid,
    /// The span that it was asked in, as a `traceparent`.
    pub traceparent: String,
}

/// Takes over what no process has brought to an end in time.
///
/// # Errors
/// Where the database fails.
pub async fn take_over(pool: &PgPool, now: Timestamp, at_most: i64) -> Result<Vec<Intent>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH due AS (
               SELECT order_id FROM payments
               WHERE (state IN ('REQUESTED', 'VOIDING') OR refund IS NOT NULL) AND leased_until < $1
               ORDER BY leased_until LIMIT $2 FOR UPDATE SKIP LOCKED
           )
           UPDATE payments p SET leased_until = $1::timestamptz + make_interval(secs => $3)
           FROM due WHERE p.order_id = due.order_id
           RETURNING p.order_id, p.user_id, p.method, p.charge_id, p.charge_number, p.amount, p.refunded, p.state,
               p.earlier AS "earlier: Json<Vec<Charge>>", p.refund AS "refund: Json<Refund>", p.refund_round,
               p.sequence, p.cause_id, p.traceparent"#,
        now.to_sqlx() as _,
        at_most,
        LEASE.as_secs_f64(),
    )
    .fetch_all(pool)
    .await?;
    let mut intents = Vec::with_capacity(rows.len());
    for row in rows {
        let (order_id, sequence) = (row.order_id, row.sequence);
        let (cause_id, traceparent) = (row.cause_id, row.traceparent);
        let payment = Row {
            order_id,
            user_id: row.user_id,
            method: row.method,
            charge_id: row.charge_id,
            charge_number: row.charge_number,
            amount: row.amount,
            refunded: row.refunded,
            state: row.state,
            earlier: row.earlier,
            refund: row.refund,
            refund_round: row.refund_round,
            sequence,
        };
        if let Some(task) = payment.into_payment()?.task() {
            intents.push(Intent { order_id, task, sequence, cause_id, traceparent });
        }
    }
    Ok(intents)
}
