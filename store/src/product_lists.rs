//! Lists of products: filtered and searched, in four orders.
//!
//! A page is looked for twice. First the index of the order is walked, and no further than [`WALKED_MAX`] products: where
//! many match, the page is full after a few of them. Where few match, all of those are found by what is rare about them
//! and sorted. So neither a frequent word nor a rare one reads the whole table, whatever the planner believes
//! (`docs/adr/0007`).
//!
//! The statements are put together from what is asked for and planned anew each time (not kept prepared): a plan for
//! any word would be a plan for none.

use ordermill_schemas::Money;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::products::{Stocked, StockedProduct};

/// How many products are walked in the list's order before what matches is looked for by itself.
const WALKED_MAX: i64 = 2_000;

/// The order of a list. Products that are equal in it are in the order in which they were added, or against it where
/// the order goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Sort {
    /// The newest first.
    Newest,
    /// The cheapest first.
    PriceAscending,
    /// The dearest first.
    PriceDescending,
    /// By category.
    Category,
}

impl Sort {
    const fn order(self) -> &'static str {
        match self {
            Sort::Newest => "key DESC",
            Sort::PriceAscending => "price, key",
            Sort::PriceDescending => "price DESC, key DESC",
            Sort::Category => "category, key",
        }
    }
}

/// Whether there must be any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Availability {
    /// It does not matter; withdrawn products, too.
    #[default]
    All,
    /// Only what can be ordered.
    InStock,
    /// Only what could be ordered if there were any.
    SoldOut,
}

/// Which products a list is to have; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// A part of the name, in any case.
    pub name_part: Option<String>,
    /// The category, upper-cased.
    pub category: Option<String>,
    /// The lowest price.
    pub price_min: Option<Money>,
    /// The highest price.
    pub price_max: Option<Money>,
    /// Whether there must be any.
    pub availability: Availability,
}

/// Where a page ended: the last product by what its list is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// In a list of the newest.
    Id(Uuid),
    /// In a list by price.
    Price(Money, Uuid),
    /// In a list by category.
    Category(String, Uuid),
}

impl Position {
    /// The product's in a list of that order.
    #[must_use]
    pub fn of(product: &StockedProduct, sort: Sort) -> Position {
        match sort {
            Sort::Newest => Position::Id(product.product_id),
            Sort::PriceAscending | Sort::PriceDescending => {
                Position::Price(product.product.price, product.product_id)
            }
            Sort::Category => Position::Category(product.product.category.clone(), product.product_id),
        }
    }
}

/// A page of the list, beginning behind `after` where that is given.
///
/// # Errors
/// Where the database fails.
pub async fn page(
    pool: &PgPool,
    filter: &Filter,
    sort: Sort,
    after: Option<&Position>,
    limit: i64,
) -> Result<Vec<StockedProduct>, sqlx::Error> {
    let walked = fetch(pool, walk(filter, sort, after, limit)).await?;
    let is_full = i64::try_from(walked.len()).is_ok_and(|found| found >= limit);
    let is_open = *filter == Filter::default();
    if is_full || is_open {
        return Ok(walked);
    }
    fetch(pool, search(filter, sort, after, limit)).await
}

async fn fetch(
    pool: &PgPool,
    mut statement: QueryBuilder<Postgres>,
) -> Result<Vec<StockedProduct>, sqlx::Error> {
    let found: Vec<Stocked> = statement.build_query_as().persistent(false).fetch_all(pool).await?;
    found.iter().map(Stocked::read).collect()
}

/// Walks the order's index. The stock is looked up for one product after the other, and only as far as the page goes.
fn walk(filter: &Filter, sort: Sort, after: Option<&Position>, limit: i64) -> QueryBuilder<Postgres> {
    const ON_HAND: &str = "(SELECT on_hand FROM stock WHERE stock.key = walked.key)";
    let mut statement = QueryBuilder::new(format!(
        "SELECT key, state::text AS state, bulk::text AS bulk, {ON_HAND} AS on_hand
         FROM (SELECT * FROM products WHERE true"
    ));
    push_after(&mut statement, sort, after);
    // What the list is sorted by need not be walked where it is known not to match.
    match sort {
        Sort::PriceAscending | Sort::PriceDescending => push_prices(&mut statement, filter),
        Sort::Category => push_category(&mut statement, filter),
        Sort::Newest => {}
    }
    statement.push(format!(" ORDER BY {} LIMIT ", sort.order())).push_bind(WALKED_MAX.max(limit));
    statement.push(") AS walked WHERE true");
    push_filter(&mut statement, filter, ON_HAND);
    statement.push(format!(" ORDER BY {} LIMIT ", sort.order())).push_bind(limit);
    statement
}

/// Finds all that match, then sorts them. Materialized, so that no index is walked for the sake of the order.
fn search(filter: &Filter, sort: Sort, after: Option<&Position>, limit: i64) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new("WITH found AS MATERIALIZED (SELECT key, price, category FROM ");
    statement.push(match filter.availability {
        Availability::All => "products WHERE true",
        Availability::InStock | Availability::SoldOut => "products JOIN stock USING (key) WHERE true",
    });
    push_after(&mut statement, sort, after);
    push_filter(&mut statement, filter, "on_hand");
    if let Some(name_part) = &filter.name_part {
        statement
            .push(" AND name_grams(search_name) @> name_grams(search_form(")
            .push_bind(name_part.clone());
        statement.push("))");
    }
    statement.push(format!("), page AS (SELECT key FROM found ORDER BY {} LIMIT ", sort.order()));
    statement.push_bind(limit);
    statement.push(
        ") SELECT key, p.state::text AS state, p.bulk::text AS bulk, on_hand
         FROM page JOIN products p USING (key) JOIN stock USING (key)",
    );
    statement.push(format!(" ORDER BY {}", sort.order()));
    statement
}

/// Only what stands behind that position.
fn push_after(statement: &mut QueryBuilder<Postgres>, sort: Sort, after: Option<&Position>) {
    let Some(after) = after else { return };
    let is_behind = match sort {
        Sort::Newest | Sort::PriceDescending => "<",
        Sort::PriceAscending | Sort::Category => ">",
    };
    match after {
        Position::Id(product_id) => {
            statement.push(format!(" AND key {is_behind} ")).push_bind(*product_id);
        }
        Position::Price(price, product_id) => {
            statement.push(format!(" AND (price, key) {is_behind} (")).push_bind(*price);
            statement.push(", ").push_bind(*product_id).push(")");
        }
        Position::Category(category, product_id) => {
            statement.push(format!(" AND (category, key) {is_behind} (")).push_bind(category.clone());
            statement.push(", ").push_bind(*product_id).push(")");
        }
    }
}

/// Only what matches, where `on_hand` says how many there are.
fn push_filter(statement: &mut QueryBuilder<Postgres>, filter: &Filter, on_hand: &str) {
    push_category(statement, filter);
    push_prices(statement, filter);
    if let Some(name_part) = &filter.name_part {
        statement.push(" AND strpos(search_name, search_form(").push_bind(name_part.clone()).push(")) > 0");
    }
    let units = match filter.availability {
        Availability::All => return,
        Availability::InStock => "> 0",
        Availability::SoldOut => "= 0",
    };
    statement.push(format!(" AND NOT withdrawn AND {on_hand} {units}"));
}

fn push_category(statement: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if let Some(category) = &filter.category {
        statement.push(" AND category = ").push_bind(category.clone());
    }
}

fn push_prices(statement: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if let Some(price_min) = filter.price_min {
        statement.push(" AND price >= ").push_bind(price_min);
    }
    if let Some(price_max) = filter.price_max {
        statement.push(" AND price <= ").push_bind(price_max);
    }
}
