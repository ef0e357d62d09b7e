//! Sums of sales: added to by the sales worker, read by rankings and statistics.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::sales::{Figures, Subject, Sums};
use ordermill_pipeline::journal::{Projection, Statement};
use ordermill_schemas::Money;
use sqlx::PgPool;
use uuid::Uuid;

use crate::product_lists::Availability;

/// The level of a sum, its category and its product, as a row has them.
pub(crate) fn columns(subject: &Subject) -> (&'static str, &str, Uuid) {
    match subject {
        Subject::All => ("ALL", "", Uuid::nil()),
        Subject::Category(category) => ("CATEGORY", category, Uuid::nil()),
        Subject::Product { category, product_id } => ("PRODUCT", category, *product_id),
    }
}

/// What is to be added to the sums. Rows are locked in the order of their keys, so that two workers that add to
/// the same ones wait for each other and not for ever.
pub struct Additions(pub Sums);

impl Projection for Additions {
    fn add(&self, statement: &mut Statement) {
        let changes: Vec<_> =
            self.0.changes().map(|(key, figures)| (columns(&key.subject), key, figures)).collect();
        if changes.is_empty() {
            return;
        }
        let levels = statement.bind(changes.iter().map(|((level, ..), ..)| *level).collect::<Vec<_>>());
        let buckets =
            statement.bind(changes.iter().map(|(_, key, _)| key.bucket.to_sqlx()).collect::<Vec<_>>());
        let categories = statement.bind(changes.iter().map(|((_, name, _), ..)| *name).collect::<Vec<_>>());
        let products =
            statement.bind(changes.iter().map(|((.., product_id), ..)| *product_id).collect::<Vec<_>>());
        let quantities = statement.bind(changes.iter().map(|(.., f)| f.quantity).collect::<Vec<_>>());
        let revenues = statement.bind(changes.iter().map(|(.., f)| f.revenue).collect::<Vec<_>>());
        let orders = statement.bind(changes.iter().map(|(.., f)| f.orders).collect::<Vec<_>>());
        statement.part(
            "sold",
            format!(
                "INSERT INTO sales AS s (level, bucket, category, product_id, quantity, revenue, orders)
                 SELECT level, bucket, category, product_id, quantity, revenue, orders
                 FROM unnest({levels}::text[], {buckets}::timestamptz[], {categories}::text[], {products}::uuid[],
                     {quantities}::bigint[], {revenues}::bigint[], {orders}::bigint[]) WITH ORDINALITY
                     AS change (level, bucket, category, product_id, quantity, revenue, orders, ordinal)
                 ORDER BY ordinal
                 ON CONFLICT (level, category, product_id, bucket) DO UPDATE SET
                     quantity = s.quantity + excluded.quantity, revenue = s.revenue + excluded.revenue,
                     orders = s.orders + excluded.orders"
            ),
        );
    }
}

/// By which figure products are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankedBy {
    /// Units sold.
    Quantity,
    /// What was paid for them.
    Revenue,
}

/// What a ranking is asked for.
#[derive(Clone, Debug)]
pub struct RankingQuery {
    /// From when on; the beginning of a bucket.
    pub since: Timestamp,
    /// Until when, not included; the beginning of a bucket.
    pub until: Timestamp,
    /// The category at the sale; any where there is none.
    pub category: Option<String>,
    /// By which figure.
    pub by: RankedBy,
    /// By stock of today.
    pub availability: Availability,
    /// How many at most.
    pub limit: i64,
}

/// A product as it is today, with what was sold of it.
#[derive(Clone, Debug)]
pub struct RankedProduct {
    /// The product.
    pub product_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its category.
    pub category: String,
    /// Its price.
    pub price: Money,
    /// What can still be ordered.
    pub stock: i64,
    /// It can't be ordered any more.
    pub withdrawn: bool,
    /// Units sold.
    pub quantity: i64,
    /// What was paid for them.
    pub revenue: Money,
}

/// The products that were sold most, best first: by the one figure, then by the other, then by id, so that the order is
/// always the same. What was sold and taken back again is not among them.
///
/// # Errors
/// Where the database fails.
pub async fn ranking(pool: &PgPool, query: &RankingQuery) -> Result<Vec<RankedProduct>, sqlx::Error> {
    let availability = match query.availability {
        Availability::All => "ALL",
        Availability::InStock => "IN_STOCK",
        Availability::SoldOut => "SOLD_OUT",
    };
    sqlx::query_as!(
        RankedProduct,
        r#"SELECT product_id, p.state ->> 'name' AS "name!", p.category, p.price, on_hand AS stock, withdrawn,
               quantity AS "quantity!", revenue AS "revenue!"
           FROM (
               SELECT product_id, sum(quantity)::bigint AS quantity, sum(revenue)::bigint AS revenue
               FROM sales
               WHERE level = 'PRODUCT' AND bucket >= $1 AND bucket < $2
                   AND ($3::text IS NULL OR category = $3)
               GROUP BY product_id HAVING sum(quantity) > 0
           ) AS sold JOIN products p ON p.key = product_id JOIN stock ON stock.key = product_id
           WHERE CASE $4::text
               WHEN 'IN_STOCK' THEN on_hand > 0 AND NOT withdrawn
               WHEN 'SOLD_OUT' THEN on_hand = 0 AND NOT withdrawn
               ELSE true
           END
           ORDER BY CASE WHEN $5 THEN quantity ELSE revenue END DESC,
               CASE WHEN $5 THEN revenue ELSE quantity END DESC, product_id
           LIMIT $6"#,
        query.since.to_sqlx() as _,
        query.until.to_sqlx() as _,
        query.category,
        availability,
        query.by == RankedBy::Quantity,
        query.limit,
    )
    .fetch_all(pool)
    .await
}

/// What statistics are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatisticsOf {
    /// Everything.
    All,
    /// One category, as it was called at the sale.
    Category(String),
    /// One product.
    Product {
        /// The product.
        product_id: Uuid,
        /// Only what was of this category at the sale; of any where there is none.
        category: Option<String>,
    },
}

/// What was sold from each of these times to the next, and from the last of them until the end. All are beginnings of
/// buckets, in order.
///
/// # Errors
/// Where the database fails.
pub async fn statistics(
    pool: &PgPool,
    of: &StatisticsOf,
    begins: &[Timestamp],
    until: Timestamp,
) -> Result<Vec<Figures>, sqlx::Error> {
    let since: Vec<jiff_sqlx::Timestamp> = begins.iter().map(|begin| begin.to_sqlx()).collect();
    let rows = match of {
        StatisticsOf::All => of_level(pool, &Subject::All, since, until).await?,
        StatisticsOf::Category(category) => {
            of_level(pool, &Subject::Category(category.clone()), since, until).await?
        }
        StatisticsOf::Product { product_id, category } => {
            of_product(pool, *product_id, category.as_deref(), since, until).await?
        }
    };
    let mut figures = vec![Figures::default(); begins.len()];
    for Row { ordinal, quantity, revenue, orders } in rows {
        let place = usize::try_from(ordinal - 1).ok().and_then(|index| figures.get_mut(index));
        if let Some(place) = place {
            *place = Figures { quantity, revenue, orders };
        }
    }
    Ok(figures)
}

/// The sums from one of the times to the next.
struct Row {
    /// Which of the times, from 1.
    ordinal: i32,
    quantity: i64,
    revenue: Money,
    orders: i64,
}

/// The sums of all or of a category: one row for each bucket.
async fn of_level(
    pool: &PgPool,
    subject: &Subject,
    since: Vec<jiff_sqlx::Timestamp>,
    until: Timestamp,
) -> Result<Vec<Row>, sqlx::Error> {
    let (level, category, product_id) = columns(subject);
    sqlx::query_as!(
        Row,
        r#"SELECT width_bucket(bucket, $1::timestamptz[]) AS "ordinal!", sum(quantity)::bigint AS "quantity!",
               sum(revenue)::bigint AS "revenue!", sum(orders)::bigint AS "orders!"
           FROM sales
           WHERE level = $3 AND category = $4 AND product_id = $5
               AND bucket >= ($1::timestamptz[])[1] AND bucket < $2
           GROUP BY 1"#,
        since as _,
        until.to_sqlx() as _,
        level,
        category,
        product_id,
    )
    .fetch_all(pool)
    .await
}

/// The sums of a product: one row for each bucket and category.
async fn of_product(
    pool: &PgPool,
    product_id: Uuid,
    category: Option<&str>,
    since: Vec<jiff_sqlx::Timestamp>,
    until: Timestamp,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT width_bucket(bucket, $1::timestamptz[]) AS "ordinal!", sum(quantity)::bigint AS "quantity!",
               sum(revenue)::bigint AS "revenue!", sum(orders)::bigint AS "orders!"
           FROM sales
           WHERE level = 'PRODUCT' AND product_id = $3 AND ($4::text IS NULL OR category = $4)
               AND bucket >= ($1::timestamptz[])[1] AND bucket < $2
           GROUP BY 1"#,
        since as _,
        until.to_sqlx() as _,
        product_id,
        category,
    )
    .fetch_all(pool)
    .await
}
