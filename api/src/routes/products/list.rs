//! The list of products: filtered, searched, in an order of the client's choice.

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
pub(in crate::routes) const AVAILABILITIES: &[(&str, Availability)] =
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

query!(ProductQuery, |parts| {
    let names = ["q", "category", "min_price", "max_price", "availability", "sort"];
    paging::each_once(parts, &names, "the query can't be read", "may stand in the query once")
});

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

/// Where a page ended, with the list that it is a page of: a cursor leads on in no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::routes) struct Cursor {
    list: String,
    position: Position,
}

/// A list's order and filters in a few characters.
fn fingerprint(filter: &Filter, sort: Sort) -> String {
    // As JSON, so that no two lists are written alike.
    let text = serde_json::json!([sort, filter]).to_string();
    hex::encode(&Sha256::digest(text)[..FINGERPRINT_LENGTH])
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
    let list = fingerprint(&filter, sort);
    let after = page.after.as_ref().map(|cursor| position(cursor, &list)).transpose()?;
    let rows = product_lists::page(&api.journal.pool, &filter, sort, after, page.rows()).await?;
    let cursor = |row: &StockedProduct| Cursor { list, position: Position::of(row, sort) };
    Ok(JsonAnswer(Items::of_rows(rows, page.limit, cursor, ProductView::from)))
}

/// Where the page before ended.
///
/// # Errors
/// `VALIDATION_FAILED` where that was a page of another list.
fn position<'a>(Cursor { list, position }: &'a Cursor, asked: &str) -> Result<&'a Position, Problem> {
    // PostgreSQL's text can't hold NUL, so no category has it.
    let is_no_category = matches!(position, Position::Category(category, _) if category.contains('\0'));
    if list == asked && !is_no_category {
        return Ok(position);
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

    fn cursor(sort: Sort, position: Position) -> Cursor {
        Cursor { list: fingerprint(&open(), sort), position }
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
            let cursor = cursor(sort, position);
            let written = serde_json::to_string(&cursor).unwrap();
            assert_eq!(serde_json::from_str::<Cursor>(&written).ok(), Some(cursor));
        }
    }

    #[test]
    fn a_cursor_that_is_none_is_refused() {
        let id = Uuid::from_u128(7);
        for wrong in [
            String::new(),
            format!(r#""{id}""#),
            format!(r#"{{"list":"00","position":"{id}"}}"#),
            format!(r#"{{"position":{{"Id":"{id}"}}}}"#),
            format!(r#"{{"list":"00","position":{{"Oldest":"{id}"}}}}"#),
            format!(r#"{{"list":"00","position":{{"Price":["x","{id}"]}}}}"#),
            format!(r#"{{"list":"00","position":{{"Price":["{id}"]}}}}"#),
            r#"{"list":"00","position":{"Id":"7"}}"#.to_owned(),
        ] {
            assert!(serde_json::from_str::<Cursor>(&wrong).is_err(), "{wrong:?}");
        }
        let cursor = cursor(Sort::Category, Position::Category("a\0b".to_owned(), id));
        assert!(position(&cursor, &cursor.list).is_err());
    }

    #[test]
    fn a_cursor_leads_on_only_with_its_own_sort_and_filters() {
        let cursor = cursor(Sort::Newest, Position::Id(Uuid::nil()));
        let leads_on = |filter: &Filter, sort| position(&cursor, &fingerprint(filter, sort));
        assert_eq!(leads_on(&open(), Sort::Newest), Ok(&cursor.position));
        assert!(leads_on(&open(), Sort::Category).is_err());
        let dear = Filter { price_min: Some(1), ..open() };
        let cheap = Filter { price_max: Some(1), ..open() };
        assert_ne!(fingerprint(&dear, Sort::Newest), fingerprint(&cheap, Sort::Newest));
        assert!(leads_on(&dear, Sort::Newest).is_err());
    }
}
