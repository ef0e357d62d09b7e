//! What was sold by day, week or month.

use jiff::civil::Date;
use ordermill_domain::sales::Figures;
use ordermill_domain::sales::calendar::{Days, Period};
use ordermill_store::sales::{self, StatisticsOf};

use super::{choice, date, days, out_of_the_calendar};
use crate::routes::prelude::*;

/// How many buckets there are unless the client says otherwise.
const BUCKETS_DEFAULT: i64 = 30;
/// How many buckets there are at most.
const BUCKETS_MAX: usize = 1_000;

/// The route of the statistics.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(sales_statistics))
}

const BUCKETS: [(&str, Period); 3] = [("day", Period::Day), ("week", Period::Week), ("month", Period::Month)];

/// What statistics are to be of.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatisticsQuery {
    /// How long a bucket is; weeks begin on Monday.
    #[param(schema_with = bucket_schema)]
    bucket: Option<String>,
    /// The first day that counts, in the configured time zone; by default that of the 30th bucket up to `to`'s.
    #[param(value_type = Option<Date>)]
    from: Option<String>,
    /// The last day that counts; today by default.
    #[param(value_type = Option<Date>)]
    to: Option<String>,
    /// Only this product; together with `category`, only what was of that category when it was sold.
    #[param(value_type = Option<Uuid>)]
    product_id: Option<String>,
    /// Only what was of this category when it was sold; in any case.
    #[param(min_length = 1, max_length = 64)]
    category: Option<String>,
}

fn bucket_schema() -> ObjectBuilder {
    choice(&BUCKETS)
}

query!(StatisticsQuery, |parts| paging::parameters(
    parts,
    "bucket",
    "each parameter may stand in the query once"
));

/// What is asked for, with nothing wrong in it.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    days: Days,
    starts: Vec<Date>,
    of: StatisticsOf,
}

impl StatisticsQuery {
    fn check(&self, today: Date) -> Result<Asked, Problem> {
        let (period, from, to, of) = Checks::all(|checks| {
            (
                checks.choice("bucket", self.bucket.as_deref(), &BUCKETS),
                date("from", self.from.as_deref(), checks),
                date("to", self.to.as_deref(), checks),
                self.subject(checks),
            )
        })?;
        let days = days(from, to, today, |to| period.before(to, BUCKETS_DEFAULT - 1))?;
        let starts = days.periods(period, BUCKETS_MAX).map_err(out_of_the_calendar)?.ok_or_else(|| {
            let detail = format!("must be nearer to `to`: there are at most {BUCKETS_MAX} buckets");
            Checks::refusal("from", "OUT_OF_RANGE", detail)
        })?;
        Ok(Asked { days, starts, of })
    }

    fn subject(&self, checks: &mut Checks) -> StatisticsOf {
        let product_id = self.product_id.as_deref().map(path::parse);
        if product_id == Some(None) {
            checks.refuse("product_id", "MALFORMED", "must be the id of a product");
        }
        let category = checks.category(self.category.as_deref());
        match (product_id.flatten(), category) {
            (Some(product_id), category) => StatisticsOf::Product { product_id, category },
            (None, Some(category)) => StatisticsOf::Category(category),
            (None, None) => StatisticsOf::All,
        }
    }
}

/// What was sold in a bucket.
#[derive(Debug, Serialize, ToSchema)]
struct SalesBucket {
    /// The day that the bucket begins on. Of the first bucket only the days from `from` on count.
    start: Date,
    /// How many units were sold.
    #[schema(example = 17)]
    quantity: i64,
    /// What was paid for them after all discounts, in the minor unit.
    #[schema(value_type = i64, example = 153_000)]
    revenue: Money,
    /// In how many orders.
    #[schema(example = 9)]
    orders: i64,
}

/// Statistics.
#[derive(Debug, Serialize, ToSchema)]
struct Statistics {
    /// The buckets, oldest first, empty ones included.
    items: Vec<SalesBucket>,
}

/// Show what was sold by day, week or month
///
/// By the days on which the sales were confirmed. What was cancelled or modified since is not counted any more. New
/// sales show within 2 seconds.
#[utoipa::path(
    get,
    path = "/v1/statistics/sales",
    params(StatisticsQuery),
    responses(
        (status = 200, description = "The buckets", body = Statistics),
        Problems<(Caller, code::ValidationFailed)>,
    ),
)]
async fn sales_statistics(
    State(api): State<Api>,
    _caller: Caller,
    query: StatisticsQuery,
) -> Result<JsonAnswer<Statistics>, Problem> {
    let Asked { days, starts, of } = query.check(api.today())?;
    let (begins, until) = days.cuts(&starts, &api.config.time_zone).map_err(out_of_the_calendar)?;
    let figures = sales::statistics(&api.journal.pool, &of, &begins, until).await?;
    let bucket =
        |(start, Figures { quantity, revenue, orders })| SalesBucket { start, quantity, revenue, orders };
    Ok(JsonAnswer(Statistics { items: starts.into_iter().zip(figures).map(bucket).collect() }))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date as day;

    use super::*;

    /// A Tuesday.
    const TODAY: Date = Date::constant(2026, 3, 10);
    const ID: &str = "0192f0c1-7a3e-7000-8000-0123456789ab";

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn asked(bucket: &str, from: Option<&str>, to: Option<&str>) -> Result<Asked, Problem> {
        let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
        StatisticsQuery { bucket: some(bucket), from, to, ..StatisticsQuery::default() }.check(TODAY)
    }

    #[test]
    fn the_default_is_the_thirty_buckets_up_to_todays() {
        assert_eq!(StatisticsQuery::default().check(TODAY), asked("day", None, None));
        for (bucket, first, last) in [
            ("day", day(2026, 2, 9), TODAY),
            ("week", day(2025, 8, 18), day(2026, 3, 9)),
            ("month", day(2023, 10, 1), day(2026, 3, 1)),
        ] {
            let Asked { days, starts, of } = asked(bucket, None, None).unwrap();
            assert_eq!((starts.len(), of), (30, StatisticsOf::All), "{bucket}");
            assert_eq!((days.from, days.to), (first, TODAY), "{bucket}");
            assert_eq!((starts[0], starts[29]), (first, last), "{bucket}");
        }
        let to = asked("month", None, Some("2025-12-24")).unwrap();
        assert_eq!((to.starts.len(), to.days.to), (30, day(2025, 12, 24)));
    }

    #[test]
    fn there_are_at_most_a_thousand_buckets() {
        for (bucket, from, is_fine) in [
            ("day", "2023-06-15", true),
            ("day", "2023-06-14", false),
            ("week", "2007-01-22", true),
            ("month", "1970-01-01", true),
        ] {
            assert_eq!(asked(bucket, Some(from), None).is_ok(), is_fine, "{bucket} from {from}");
        }
        assert_eq!(asked("day", Some("2023-06-15"), None).unwrap().starts.len(), BUCKETS_MAX);
    }

    #[test]
    fn statistics_are_of_all_of_a_category_of_a_product_or_of_both() {
        let of = |product_id: Option<&str>, category: Option<&str>| {
            let (product_id, category) = (product_id.map(str::to_owned), category.map(str::to_owned));
            let query = StatisticsQuery { product_id, category, ..StatisticsQuery::default() };
            query.check(TODAY).map(|asked| asked.of)
        };
        let product = |category| Ok(StatisticsOf::Product { product_id: ID.parse().unwrap(), category });
        assert_eq!(of(Some(ID), None), product(None));
        assert_eq!(of(Some(ID), Some("food")), product(some("FOOD")));
        assert_eq!(of(None, Some("food")), Ok(StatisticsOf::Category("FOOD".to_owned())));
        assert_eq!(of(None, None), Ok(StatisticsOf::All));
        assert!(of(Some("x"), None).is_err());
    }

    #[test]
    fn every_parameter_that_is_out_of_range_is_named() {
        let wrong = StatisticsQuery {
            bucket: some("year"),
            from: some("2026-13-01"),
            to: some(""),
            product_id: some("1"),
            category: some("\0"),
        };
        let problem = format!("{:?}", wrong.check(TODAY).unwrap_err());
        let named = "out of range: bucket, from, to, product_id, category";
        assert!(problem.contains(named), "{problem}");
        assert!(asked("week", Some("2026-03-02"), Some("2026-03-01")).is_err());
    }
}
