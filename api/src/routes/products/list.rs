//! The list of products: filtered, searched, in an order of the client's choice.

use std::fmt;
use std::str::FromStr;

use ordermill_store::product_lists::{self, Availability, Filter, Position, Sort};
use ordermill_store::products::StockedProduct;
use sha2::{Digest as _, Sha256};

use super::ProductView;
use crate::routes::prelude::*;

/// How many products a page has unless the client says otherwise.
const PRODUCTS_DEFAULT: i64 = 20;
/// How many bytes of the filters' hash a cursor carries.
const FINGERPRINT_LENGTH: usize = 8;

/// The orders, with the words that clients say.
const SORTS: &[(&str, Sort)] = &[
    ("newest", Sort::Newest),
    ("price_asc", Sort::PriceAscending),
    ("price_desc", Sort::PriceDescending),
    ("category", Sort::Category),
];
/// The kinds of availability, with the words that clients say.
const AVAILABILITIES: &[(&str, Availability)] =
    &[("all", Availability::All), ("in_stock", Availability::InStock), ("sold_out", Availability::SoldOut)];

/// Which products a list is to have, and in which order.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ProductQuery {
    /// Only products whose name contains this, in any case.
    #[param(min_length = 1, max_length = 100)]
    q: Option<String>,
    /// Only products of this category, in any case.
    #[param(min_length = 1, max_length = 64)]
    category: Option<String>,
    /// Only products of this price or above.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000)]
    min_price: Option<String>,
    /// Only products of this price or below.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000)]
    max_price: Option<String>,
    /// `in_stock`: only what can be ordered. `sold_out`: only what could be if there were any. `all`: these and what was
    /// withdrawn.
    #[param(value_type = Option<AvailabilityWord>, inline)]
    availability: Option<String>,
    /// The order. What is equal in it is in the order in which it was added, for `price_desc` against it.
    #[param(value_type = Option<SortWord>, inline)]
    sort: Option<String>,
}

/// The words of `availability`, for the document.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the document")]
enum AvailabilityWord {
    All,
    InStock,
    SoldOut,
}

/// The words of `sort`, for the document.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words for the document")]
enum SortWord {
    Newest,
    PriceAsc,
    PriceDesc,
    Category,
}

impl<S: Send + Sync> FromRequestParts<S> for ProductQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<ProductQuery, Problem> {
        let names = ["q", "category", "min_price", "max_price", "availability", "sort"];
        paging::each_once(parts, &names, "the query can't be read", "may stand in the query once")
    }
}

impl ProductQuery {
    /// What is asked for; it counts only where nothing is wrong.
    fn check(self, checks: &mut Checks) -> (Filter, Sort) {
        checks.optional_text("q", self.q.as_ref(), &limits::SEARCH_LENGTH);
        let category = checks.category(self.category.as_deref());
        let price_min = check_price("min_price", self.min_price.as_deref(), checks);
        let price_max = check_price("max_price", self.max_price.as_deref(), checks);
        if let (Some(least), Some(most)) = (price_min, price_max)
            && least > most
        {
            checks.refuse("min_price", "OUT_OF_RANGE", "must not be above max_price");
        }
        let availability = checks.choice("availability", self.availability.as_deref(), AVAILABILITIES);
        let sort = checks.choice("sort", self.sort.as_deref(), SORTS);
        (Filter { name_part: self.q, category, price_min, price_max, availability }, sort)
    }
}

fn check_price(field: &'static str, price: Option<&str>, checks: &mut Checks) -> Option<Money> {
    let price = price?.parse().ok().filter(|price| limits::PRICE.contains(price));
    if price.is_none() {
        let (least, most) = (limits::PRICE.start(), limits::PRICE.end());
        checks.refuse(field, "OUT_OF_RANGE", format!("must be a whole number from {least} to {most}"));
    }
    price
}

/// The word that clients say for it.
fn word_of<T: Copy + PartialEq>(meant: T, known: &[(&'static str, T)]) -> &'static str {
    known.iter().find(|(_, known)| *known == meant).map_or("", |(word, _)| word)
}

/// Where a page ended, with the list that it is a page of: a cursor leads on in no other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    sort: Sort,
    filters: String,
    position: Position,
}

impl Cursor {
    fn of(product: &StockedProduct, sort: Sort, filters: String) -> Cursor {
        Cursor { sort, filters, position: Position::of(product, sort) }
    }
}

/// The filters in a few characters.
fn fingerprint(filter: &Filter) -> String {
    let Filter { name_part, category, price_min, price_max, availability } = filter;
    let availability = word_of(*availability, AVAILABILITIES);
    // As JSON, so that no two filters are written alike.
    let text = serde_json::json!([name_part, category, price_min, price_max, availability]).to_string();
    hex::encode(&Sha256::digest(text)[..FINGERPRINT_LENGTH])
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.", word_of(self.sort, SORTS), self.filters)?;
        match &self.position {
            Position::Id(product_id) => write!(f, "{product_id}."),
            Position::Price(price, product_id) => write!(f, "{product_id}.{price}"),
            Position::Category(category, product_id) => write!(f, "{product_id}.{category}"),
        }
    }
}

/// The text is no cursor of this list.
#[derive(Debug)]
struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Cursor, NotACursor> {
        let mut parts = text.splitn(4, '.');
        let mut part = || parts.next().ok_or(NotACursor);
        let (word, filters, product_id, key) = (part()?, part()?, part()?, part()?);
        let (_, sort) = SORTS.iter().find(|(name, _)| *name == word).ok_or(NotACursor)?;
        let product_id: Uuid = product_id.parse().map_err(|_| NotACursor)?;
        let position = match sort {
            Sort::Newest if key.is_empty() => Position::Id(product_id),
            Sort::PriceAscending | Sort::PriceDescending => {
                Position::Price(key.parse().map_err(|_| NotACursor)?, product_id)
            }
            Sort::Category if !key.contains('\0') => Position::Category(key.to_owned(), product_id),
            Sort::Newest | Sort::Category => return Err(NotACursor),
        };
        Ok(Cursor { sort: *sort, filters: filters.to_owned(), position })
    }
}

/// List products
///
/// A page leads to the next one without a gap and without repeating anything, whatever is added meanwhile. A cursor
/// counts only with the order and the filters that it came with.
#[utoipa::path(
    get,
    path = "/v1/products",
    params(ProductQuery, PageQuery),
    responses(
        (status = 200, description = "A page of products", body = Items<ProductView>),
        Problems<code::ValidationFailed>,
    ),
)]
pub(super) async fn list_products(
    State(api): State<Api>,
    products: ProductQuery,
    query: PageQuery,
) -> Result<JsonAnswer<Items<ProductView>>, Problem> {
    let ((filter, sort), page) =
        Checks::all(|checks| (products.check(checks), query.check::<Cursor>(PRODUCTS_DEFAULT, checks)))?;
    let filters = fingerprint(&filter);
    let after = page.after.as_ref().map(|cursor| position(cursor, sort, &filters)).transpose()?;
    let rows = product_lists::page(&api.journal.pool, &filter, sort, after, page.rows()).await?;
    let cursor = |row: &StockedProduct| Cursor::of(row, sort, filters);
    Ok(JsonAnswer(Items::of_rows(rows, page.limit, cursor, ProductView::from)))
}

/// Where the page before ended.
///
/// # Errors
/// `VALIDATION_FAILED` where that was a page of another list.
fn position<'a>(cursor: &'a Cursor, sort: Sort, filters: &str) -> Result<&'a Position, Problem> {
    if (cursor.sort, cursor.filters.as_str()) == (sort, filters) {
        return Ok(&cursor.position);
    }
    let detail = "must be the next_cursor of an answer with the same sort and filters";
    Err(Checks::refusal("cursor", "INVALID_CURSOR", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(change: impl FnOnce(&mut ProductQuery)) -> Result<(Filter, Sort), Problem> {
        let mut query = ProductQuery::default();
        change(&mut query);
        Checks::all(|checks| query.check(checks))
    }

    fn open() -> Filter {
        query(|_| {}).unwrap().0
    }

    #[test]
    fn without_filters_a_list_has_all_products_newest_first() {
        let (filter, sort) = query(|_| {}).unwrap();
        let expected = Filter {
            name_part: None,
            category: None,
            price_min: None,
            price_max: None,
            availability: Availability::All,
        };
        assert_eq!((filter, sort), (expected, Sort::Newest));
    }

    #[test]
    fn a_category_is_looked_for_in_upper_case_and_a_name_as_it_is_written() {
        let (filter, _) = query(|query| {
            query.category = Some("straße".to_owned());
            query.q = Some("100%_\\".to_owned());
        })
        .unwrap();
        assert_eq!(filter.category.as_deref(), Some("STRASSE"));
        assert_eq!(filter.name_part.as_deref(), Some("100%_\\"));
    }

    #[test]
    fn every_parameter_that_is_out_of_range_is_named() {
        let refused = query(|query| {
            query.q = Some(" ".to_owned());
            query.category = Some("c".repeat(65));
            query.min_price = Some("-1".to_owned());
            query.max_price = Some("1.5".to_owned());
            query.availability = Some("some".to_owned());
            query.sort = Some("price".to_owned());
        });
        let problem = format!("{:?}", refused.unwrap_err());
        let named = "out of range: q, category, min_price, max_price, availability, sort\"";
        assert!(problem.contains(named), "{problem}");
        let range = |least: &str, most: &str| {
            query(|query| {
                query.min_price = Some(least.to_owned());
                query.max_price = Some(most.to_owned());
            })
        };
        assert!(range("5", "5").is_ok());
        let problem = format!("{:?}", range("6", "5").unwrap_err());
        assert!(problem.contains("out of range: min_price\""), "{problem}");
    }

    #[test]
    fn a_cursor_reads_back_as_written_whatever_the_category() {
        let product_id = Uuid::from_u128(7);
        for (sort, position) in [
            (Sort::Newest, Position::Id(product_id)),
            (Sort::PriceAscending, Position::Price(9_000, product_id)),
            (Sort::PriceDescending, Position::Price(0, product_id)),
            (Sort::Category, Position::Category("A.B. 차".to_owned(), product_id)),
        ] {
            let cursor = Cursor { sort, filters: fingerprint(&open()), position };
            assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
        }
    }

    #[test]
    fn a_cursor_that_is_none_is_refused() {
        let id = Uuid::from_u128(7);
        for wrong in [
            String::new(),
            id.to_string(),
            format!("newest.00.{id}"),
            format!("newest.00.{id}.5"),
            format!("oldest.00.{id}."),
            format!("price_asc.00.{id}.x"),
            format!("category.00.{id}.a\0b"),
            "newest.00.7.".to_owned(),
        ] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_cursor_leads_on_only_with_its_own_sort_and_filters() {
        let filters = fingerprint(&open());
        let cursor = Cursor { sort: Sort::Newest, filters, position: Position::Id(Uuid::nil()) };
        assert_eq!(position(&cursor, Sort::Newest, &fingerprint(&open())), Ok(&cursor.position));
        assert!(position(&cursor, Sort::Category, &fingerprint(&open())).is_err());
        let dear = Filter { price_min: Some(1), ..open() };
        let cheap = Filter { price_max: Some(1), ..open() };
        assert_ne!(fingerprint(&dear), fingerprint(&cheap));
        assert!(position(&cursor, Sort::Newest, &fingerprint(&dear)).is_err());
    }
}
