//! Accepting orders, many in one statement.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::aggregate::{self, DocumentError};
use ordermill_domain::orders::Order;
use ordermill_pipeline::journal::{Journal, JournalError, Loaded, Statement, Unwritten, Writes};
use ordermill_pipeline::log::Entry;
use ordermill_schemas::Money;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::idempotency::Request;

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
           SELECT key, false, state ->> 'name', category, price, withdrawn FROM products WHERE key = ANY($2)"#,
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

/// A submission that has passed every check.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// The order as it is accepted.
    pub order: Order,
    /// The event's row in the log.
    pub entry: Entry,
}

/// Accepts submissions in one statement and one commit: key, order and event of each. Answers whether it has; where a key
/// has been used since it was looked for, nothing is accepted.
///
/// # Errors
/// Where the database fails, or an order can't be written as JSON; then none was accepted.
pub async fn accept(
    journal: &Journal,
    submissions: &[Submission],
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let new = Loaded::default();
    let change = |submission: &Submission| {
        let document = aggregate::write(submission.order.purchase.order_id, &submission.order, None)?;
        Ok(new.change(document.kind.noun, document.key, document.state, document.bulk))
    };
    let changes = submissions.iter().map(change).collect::<Result<_, DocumentError>>();
    let changes = changes.map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let entries = submissions.iter().map(|s| s.entry.clone()).collect();
    let placed = Writes { changes, entries, ..Writes::default() };
    journal.learn_words_of(&placed.entries).await?;
    let mut statement = Statement::default();
    let kept = statement
        .rows(submissions)
        .column("request", "uuid", |s| s.request.id())
        .column("body_hash", "bytea", |s| s.request.body_hash.as_slice())
        .column("order_id", "uuid", |s| s.order.purchase.order_id)
        .relation("input");
    let at = statement.bind(now.to_sqlx());
    // Keys are inserted in one order by all, so that two batches can't wait for each other in a circle.
    statement.part(
        "kept",
        format!(
            "INSERT INTO idempotency_keys (request, body_hash, status, order_id, created_at)
             SELECT request, body_hash, 202, order_id, {at} FROM {kept} ORDER BY request"
        ),
    );
    match journal.write_alone(statement, new, placed, now).await {
        Ok(stored) => {
            journal.committed(stored);
            Ok(true)
        }
        Err(error) if error.is_conflict() => Ok(false),
        Err(JournalError::Unwritten(Unwritten::Database(error)) | JournalError::Database(error)) => {
            Err(error)
        }
        Err(error) => Err(sqlx::Error::Encode(Box::new(error))),
    }
}
