//! The products that were sold most.

use jiff::civil::Date;
use ordermill_domain::sales::calendar::Days;
use ordermill_store::product_lists::Availability;
use ordermill_store::sales::{self, RankedBy, RankedProduct, RankingQuery};

use super::{choice, date, days, out_of_the_calendar};
use crate::routes::prelude::*;
use crate::routes::products::{AVAILABILITIES, ProductStatus};

/// How many products a ranking has unless the client says otherwise.
const RANKED_DEFAULT: i64 = 5;
/// How many days it looks back on unless the client says otherwise, today among them.
const DAYS_DEFAULT: i64 = 3;

/// The route of the ranking.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(popular_products))
}

const BY: [(&str, RankedBy); 2] = [("quantity", RankedBy::Quantity), ("revenue", RankedBy::Revenue)];

/// What a ranking is to be of.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PopularQuery {
    /// By units sold or by what was paid for them.
    #[param(schema_with = by_schema)]
    by: Option<String>,
    /// How many days, the last of which is `to`; from 1 to 366. Where `from` is given it does not count.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 366, default = 3)]
    days: Option<String>,
    /// The first day, in the configured time zone.
    #[param(value_type = Option<Date>)]
    from: Option<String>,
    /// The last day; today by default.
    #[param(value_type = Option<Date>)]
    to: Option<String>,
    /// Only what was of this category when it was sold; in any case.
    #[param(min_length = 1, max_length = 64)]
    category: Option<String>,
    /// Only products with this status today: `in_stock` is `ON_SALE`, `sold_out` is `SOLD_OUT`.
    #[param(schema_with = availability_schema)]
    availability: Option<String>,
    /// How many products at most, from 1 to 100.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 100, default = 5)]
    limit: Option<String>,
}

fn by_schema() -> ObjectBuilder {
    choice(&BY)
}

fn availability_schema() -> ObjectBuilder {
    choice(AVAILABILITIES)
}

query!(PopularQuery, |parts| paging::parameters(parts, "by", "each parameter may stand in the query once"));

/// What is asked for, with nothing wrong in it.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    by: RankedBy,
    days: Days,
    category: Option<String>,
    availability: Availability,
    limit: i64,
}

impl PopularQuery {
    fn check(&self, today: Date) -> Result<Asked, Problem> {
        let (by, count, from, to, category, availability, limit) = Checks::all(|checks| {
            (
                checks.choice("by", self.by.as_deref(), &BY),
                number("days", self.days.as_deref(), DAYS_DEFAULT, &limits::DAYS, checks),
                date("from", self.from.as_deref(), checks),
                date("to", self.to.as_deref(), checks),
                checks.category(self.category.as_deref()),
                checks.choice("availability", self.availability.as_deref(), AVAILABILITIES),
                number("limit", self.limit.as_deref(), RANKED_DEFAULT, &limits::PAGE, checks),
            )
        })?;
        let days = days(from, to, today, |to| Ok(Days::up_to(to, count)?.from))?;
        Ok(Asked { by, days, category, availability, limit })
    }
}

/// A number in a range; `default` where there is none.
fn number(
    field: &'static str,
    text: Option<&str>,
    default: i64,
    range: &std::ops::RangeInclusive<i64>,
    checks: &mut Checks,
) -> i64 {
    let number = text.map_or(Some(default), |text| text.parse().ok());
    // What is no number is out of every range.
    checks.number(field, number.unwrap_or(i64::MIN), range);
    number.unwrap_or(default)
}

view! {
    /// A product with its place in the ranking.
    struct PopularProduct of(product: RankedProduct, index: usize) {
        /// The place, from 1. Equals in the one figure are ranked by the other, then by their ids.
        #[schema(example = 1, minimum = 1)]
        rank: usize = index + 1,
        /// The product.
        product_id: Uuid,
        /// Its name today.
        #[schema(example = "Green tea")]
        name: String,
        /// Its category today.
        #[schema(example = "FOOD")]
        category: String,
        /// Its price today, in the minor unit.
        #[schema(value_type = i64, example = 9_000)]
        price: Money,
        /// How many can still be ordered.
        #[schema(example = 100)]
        stock: i64,
        /// Whether it can be ordered.
        status: ProductStatus = ProductStatus::of(product.withdrawn, product.stock),
        /// How many were sold.
        #[schema(example = 17)]
        quantity: i64,
        /// What was paid for them after all discounts, in the minor unit.
        #[schema(value_type = i64, example = 153_000)]
        revenue: Money,
    }
}

/// A ranking with the days that it is of.
#[derive(Debug, Serialize, ToSchema)]
struct Popular {
    /// The first day.
    from: Date,
    /// The last day.
    to: Date,
    /// The products, best first.
    items: Vec<PopularProduct>,
}

/// Show the products that were sold most
///
/// By the days on which the sales were confirmed. What was cancelled or modified since is not counted any more. New
/// sales show within 2 seconds.
#[utoipa::path(
    get,
    path = "/v1/products/popular",
    params(PopularQuery),
    responses((status = 200, description = "The ranking", body = Popular), Problems<code::ValidationFailed>),
)]
async fn popular_products(
    State(api): State<Api>,
    query: PopularQuery,
) -> Result<JsonAnswer<Popular>, Problem> {
    let Asked { by, days, category, availability, limit } = query.check(api.today())?;
    let (since, until) = days.times(&api.config.time_zone).map_err(out_of_the_calendar)?;
    let ranking = RankingQuery { since, until, category, by, availability, limit };
    let products = sales::ranking(&api.journal.pool, &ranking).await?;
    let items = products.into_iter().enumerate().map(|(index, row)| PopularProduct::of(row, index));
    Ok(JsonAnswer(Popular { from: days.from, to: days.to, items: items.collect() }))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date as day;

    use super::*;

    const TODAY: Date = Date::constant(2026, 3, 10);

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_default_is_the_top_five_of_three_days_by_quantity() {
        let asked = PopularQuery::default().check(TODAY).unwrap();
        let expected = Asked {
            by: RankedBy::Quantity,
            days: Days { from: day(2026, 3, 8), to: TODAY },
            category: None,
            availability: Availability::All,
            limit: 5,
        };
        assert_eq!(asked, expected);
    }

    #[test]
    fn dates_win_over_a_number_of_days() {
        let days = |days: &str, from: Option<&str>, to: Option<&str>| {
            let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
            PopularQuery { days: some(days), from, to, ..PopularQuery::default() }.check(TODAY).unwrap().days
        };
        let (first, last) = (day(2026, 1, 5), day(2026, 1, 9));
        assert_eq!(days("7", Some("2026-01-05"), Some("2026-01-09")), Days { from: first, to: last });
        assert_eq!(days("7", Some("2026-01-05"), None), Days { from: first, to: TODAY });
        assert_eq!(days("2", None, Some("2026-01-09")), Days { from: day(2026, 1, 8), to: last });
        assert_eq!(days("366", None, None), Days { from: day(2025, 3, 10), to: TODAY });
    }

    #[test]
    fn a_category_is_looked_for_in_upper_case() {
        let query = PopularQuery { category: some("straße"), ..PopularQuery::default() };
        assert_eq!(query.check(TODAY).unwrap().category.as_deref(), Some("STRASSE"));
    }

    #[test]
    fn every_parameter_that_is_out_of_range_is_named() {
        let wrong = PopularQuery {
            by: some("QUANTITY"),
            days: some("0"),
            from: some("yesterday"),
            to: some("3000-01-01"),
            category: some(" "),
            availability: some("none"),
            limit: some("101"),
        };
        let problem = format!("{:?}", wrong.check(TODAY).unwrap_err());
        let named = "out of range: by, days, from, to, category, availability, limit";
        assert!(problem.contains(named), "{problem}");
        for (days, is_fine) in [("1", true), ("366", true), ("367", false), ("-1", false), ("3.5", false)] {
            let query = PopularQuery { days: some(days), ..PopularQuery::default() };
            assert_eq!(query.check(TODAY).is_ok(), is_fine, "{days}");
        }
    }
}
