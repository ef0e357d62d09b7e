//! Rankings and statistics say what a recount of the orders says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::civil::{Date, date};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use ordermill_domain::pricing;
use ordermill_pipeline::clock::Clock;
use ordermill_schemas::orders::OrderLine;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use crate::support::{Shop, TIME_ZONE, User, answer, id, lines_of};

/// How soon what is at rest shows, as the contract promises.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
const CATEGORIES: [&str; 3] = ["FOOD", "LIGHT", "PAPER"];

/// A line of an order that is sold.
struct Sold {
    order_id: Uuid,
    day: Date,
    category: String,
    product_id: Uuid,
    quantity: i64,
    revenue: i64,
}

/// What is sold, from the orders as they are.
async fn recount(shop: &Shop) -> Vec<Sold> {
    let orders: Vec<(Uuid, i64, Json<Vec<OrderLine>>, i64)> = sqlx::query_as(
        "SELECT key, (state ->> 'confirmed_at')::bigint, bulk -> 'lines', (bulk ->> 'total')::bigint FROM orders
         WHERE status IN ('CONFIRMED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED')",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let mut sold = Vec::new();
    for (order_id, confirmed_at, Json(lines), total) in orders {
        let confirmed_at = Timestamp::from_microsecond(confirmed_at).unwrap();
        let day = confirmed_at.in_tz(TIME_ZONE).unwrap().date();
        let revenues = pricing::revenues(&lines, total);
        assert_eq!(revenues.iter().sum::<i64>(), total);
        sold.extend(lines.into_iter().zip(revenues).map(|(line, revenue)| Sold {
            order_id,
            day,
            category: line.category,
            product_id: line.product_id,
            quantity: line.quantity.into(),
            revenue,
        }));
    }
    sold
}

/// Products with what was sold of them, best first.
fn ranked<'a>(sold: impl Iterator<Item = &'a Sold>, by: &str) -> Vec<(Uuid, i64, i64)> {
    let mut products: BTreeMap<Uuid, (i64, i64)> = BTreeMap::new();
    for line in sold {
        let (quantity, revenue) = products.entry(line.product_id).or_default();
        *quantity += line.quantity;
        *revenue += line.revenue;
    }
    let mut ranked: Vec<_> = products
        .into_iter()
        .map(|(product_id, (quantity, revenue))| (product_id, quantity, revenue))
        .collect();
    ranked.sort_by_key(|(product_id, quantity, revenue)| {
        let (first, second) = if by == "quantity" { (quantity, revenue) } else { (revenue, quantity) };
        (-first, -second, *product_id)
    });
    ranked
}

/// The day that a bucket begins on.
fn start(bucket: &str, day: Date) -> Date {
    match bucket {
        "day" => day,
        "week" => day - i64::from(day.weekday().to_monday_zero_offset()).days(),
        _ => day.first_of_month(),
    }
}

/// Buckets with what was sold in them.
fn bucketed<'a>(sold: impl Iterator<Item = &'a Sold>, bucket: &str, from: Date, to: Date) -> Value {
    let mut buckets: BTreeMap<Date, (i64, i64, BTreeSet<Uuid>)> = BTreeMap::new();
    for day in from.series(1.day()).take_while(|day| *day <= to) {
        buckets.entry(start(bucket, day)).or_default();
    }
    for line in sold {
        let (quantity, revenue, orders) = buckets.get_mut(&start(bucket, line.day)).unwrap();
        *quantity += line.quantity;
        *revenue += line.revenue;
        orders.insert(line.order_id);
    }
    let item = |(start, (quantity, revenue, orders)): (Date, (i64, i64, BTreeSet<Uuid>))| json!({"start": start, "quantity": quantity, "revenue": revenue, "orders": orders.len()});
    buckets.into_iter().map(item).collect()
}

/// Products, a customer who buys them, and what the customer has bought. The same seed trades the same.
struct Market {
    random: StdRng,
    user: User,
    products: Vec<Uuid>,
    orders: Vec<Uuid>,
}

impl Market {
    async fn open(shop: &Shop, seed: u64) -> Market {
        let mut products = Vec::new();
        for number in 0..8_u8 {
            let category = CATEGORIES[usize::from(number) % CATEGORIES.len()];
            // Prices that leave a remainder of the discount, two of them equal. Some sell out.
            let price = 1_001 + 333 * i64::from(number / 2);
            products.push(shop.product_of(category, price, if number < 3 { 25 } else { 500 }).await);
        }
        Market { random: StdRng::seed_from_u64(seed), user: shop.user(0).await, products, orders: Vec::new() }
    }

    fn lines(&mut self) -> Vec<(Uuid, i32)> {
        let mut lines = BTreeMap::new();
        for _ in 0..self.random.random_range(1..5) {
            let product = self.products[self.random.random_range(0..self.products.len())];
            lines.insert(product, self.random.random_range(1..6));
        }
        lines.into_iter().collect()
    }

    /// Orders with a discount.
    async fn place(&mut self, shop: &Shop, lines: &[(Uuid, i32)]) {
        let order =
            json!({"user_id": self.user.id, "lines": lines_of(lines), "payment_method": "BANK_TRANSFER"});
        let (status, order) = shop.post("/orders", &order).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{order}");
        self.orders.push(id(&order["order_id"]));
    }

    /// Orders all that is left of the first product.
    async fn buy_out(&mut self, shop: &Shop) {
        let product = self.products[0];
        let left = i32::try_from(shop.stock(product).await).unwrap();
        if left > 0 {
            self.place(shop, &[(product, left)]).await;
        }
        shop.until_quiet().await;
        assert_eq!(shop.get(&format!("/products/{product}")).await["status"], "SOLD_OUT");
    }

    /// Some orders at once, then changes of older ones; waits until all of that has come to rest.
    async fn trade(&mut self, shop: &Shop) {
        for _ in 0..self.random.random_range(1..5) {
            let lines = self.lines();
            self.place(shop, &lines).await;
        }
        assert_sales_verified(shop).await;
        for order_id in &self.orders {
            shop.settled(*order_id).await;
        }
        for _ in 0..self.random.random_range(0..3) {
            let order_id = self.orders[self.random.random_range(0..self.orders.len())];
            let order = shop.settled(order_id).await;
            if order["status"] != "CONFIRMED" {
                continue;
            }
            let status = if self.random.random_bool(0.4) {
                shop.ask(&self.user.key, order_id, "cancellation", &json!({})).await.0
            } else {
                let lines = self.lines();
                shop.modify(&self.user, &order, &lines).await.0
            };
            assert_eq!(status, StatusCode::ACCEPTED);
            shop.settled(order_id).await;
        }
    }
}

/// The sums are those of what has been counted, also while more is on its way.
async fn assert_sales_verified(shop: &Shop) {
    let report = shop.verify().await;
    let check = report.checks.iter().find(|check| check.name == "sales").unwrap();
    assert!(check.ok, "{:#?}", check.violations);
}

/// What the API says and a recount does not.
async fn difference(shop: &Shop, products: &[Uuid], from: Date, to: Date) -> Option<String> {
    let all = recount(shop).await;
    let sold = || all.iter().filter(|line| from <= line.day && line.day <= to);
    let mut statuses = BTreeMap::new();
    for product in products {
        statuses.insert(*product, shop.get(&format!("/products/{product}")).await["status"].clone());
    }
    let categories = CATEGORIES.map(Some).into_iter().chain([None]);
    for category in categories.clone() {
        let of_category = || sold().filter(move |line| category.is_none_or(|name| name == line.category));
        let filter = category.map_or(String::new(), |name| format!("&category={}", name.to_lowercase()));
        for by in ["quantity", "revenue"] {
            for (availability, status) in
                [("all", None), ("in_stock", Some("ON_SALE")), ("sold_out", Some("SOLD_OUT"))]
            {
                let path = format!(
                    "/products/popular?by={by}&from={from}&to={to}&limit=4&availability={availability}{filter}"
                );
                let mut expected = ranked(of_category(), by);
                expected.retain(|(product, ..)| status.is_none_or(|status| statuses[product] == status));
                expected.truncate(4);
                let answer = shop.get(&path).await;
                let items: Vec<_> = answer["items"].as_array().unwrap().iter().map(figures).collect();
                if items != expected {
                    return Some(format!("{path}: {answer:#} is not {expected:#?}"));
                }
            }
        }
        for bucket in ["day", "week", "month"] {
            let path = format!("/statistics/sales?bucket={bucket}&from={from}&to={to}{filter}");
            let (answer, expected) = (shop.get(&path).await, bucketed(of_category(), bucket, from, to));
            if answer["items"] != expected {
                return Some(format!("{path}: {answer:#} is not {expected:#}"));
            }
        }
    }
    for product in products {
        let path = format!("/statistics/sales?bucket=week&from={from}&to={to}&product_id={product}");
        let of_product = sold().filter(|line| line.product_id == *product);
        let (answer, expected) = (shop.get(&path).await, bucketed(of_product, "week", from, to));
        if answer["items"] != expected {
            return Some(format!("{path}: {answer:#} is not {expected:#}"));
        }
    }
    None
}

fn figures(item: &Value) -> (Uuid, i64, i64) {
    (id(&item["product_id"]), item["quantity"].as_i64().unwrap(), item["revenue"].as_i64().unwrap())
}

/// Waits until something is as it should be, no longer than the contract promises.
async fn shown(mut differs: impl AsyncFnMut() -> Option<String>) {
    let started = Instant::now();
    loop {
        let asked_at = started.elapsed();
        let Some(difference) = differs().await else { return };
        assert!(asked_at < SHOWN_WITHIN, "{difference}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rankings_and_statistics_equal_a_recount_of_random_orders() {
    let shop = Shop::new().await;
    // The last Sunday of a year, an hour before its end in the zone.
    let clock = Clock::manual("2025-12-28T14:00:00Z".parse().unwrap());
    let running = shop.open_at(clock.clone()).await;
    let mut market = Market::open(&shop, 20_251_228).await;
    for _ in 0..24 {
        market.trade(&shop).await;
        shop.until_applied().await;
        let minutes = market.random.random_range(1..900);
        clock.advance(SignedDuration::from_mins(minutes));
    }
    market.buy_out(&shop).await;
    let (first, last) = (date(2025, 12, 20), date(2026, 1, 12));
    for (from, to) in [(first, last), (date(2025, 12, 29), date(2026, 1, 3)), (first, first)] {
        shown(async || difference(&shop, &market.products, from, to).await).await;
    }
    let statuses: Vec<(String, i64)> =
        sqlx::query_as("SELECT status, count(*) FROM orders GROUP BY 1").fetch_all(&shop.pool).await.unwrap();
    let count = |status| statuses.iter().find(|(name, _)| name == status).map_or(0, |(_, count)| *count);
    assert!(count("CONFIRMED") > 20 && count("CANCELLED") > 2 && count("REJECTED") > 2, "{statuses:?}");
    assert!(shop.count("SELECT count(*) FROM event_log WHERE type = 'order.modified'").await > 5);
    running.stop().await;
    shop.assert_verified().await;
}

/// What each bucket says was sold: when it begins, units, orders.
async fn buckets(shop: &Shop, query: &str) -> Vec<(String, i64, i64)> {
    let statistics = shop.get(&format!("/statistics/sales?{query}")).await;
    let bucket = |item: &Value| {
        let start = item["start"].as_str().unwrap().to_owned();
        (start, item["quantity"].as_i64().unwrap(), item["orders"].as_i64().unwrap())
    };
    statistics["items"].as_array().unwrap().iter().map(bucket).collect()
}

async fn assert_shown(shop: &Shop, query: &str, expected: &[(&str, i64, i64)]) {
    let expected: Vec<_> = expected.iter().map(|(start, q, o)| ((*start).to_owned(), *q, *o)).collect();
    shown(async || {
        let items = buckets(shop, query).await;
        (items != expected).then(|| format!("{query}: {items:?} is not {expected:?}"))
    })
    .await;
}

/// The units that the ranking has of its one product, as anybody sees it.
async fn ranked_units(shop: &Shop, query: &str) -> Value {
    let request = shop.request_as_nobody(Method::GET, &format!("/v1/products/popular?{query}"));
    let (status, ranking) = answer(request).await;
    assert_eq!(status, StatusCode::OK, "{ranking}");
    assert!(ranking["items"].as_array().unwrap().len() <= 1, "{ranking}");
    ranking["items"][0]["quantity"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_counts_on_the_day_of_the_zone_on_which_it_was_confirmed_and_is_taken_back_from_there() {
    let shop = Shop::new().await;
    // A second before a Sunday, the first of a month, begins in the zone; a day later a week begins.
    let clock = Clock::manual("2026-01-31T14:59:59Z".parse().unwrap());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(100_000).await, shop.product(100, 50).await);
    let first = shop.order(&user, &[(lamp, 1)]).await;
    clock.advance(SignedDuration::from_secs(1));
    let second = shop.order(&user, &[(lamp, 2)]).await;
    clock.advance(SignedDuration::from_hours(24));
    shop.order(&user, &[(lamp, 3)]).await;
    let days = "from=2026-01-31&to=2026-02-02";
    let three = [("2026-01-31", 1, 1), ("2026-02-01", 2, 1), ("2026-02-02", 3, 1)];
    assert_shown(&shop, days, &three).await;
    let weeks = [("2026-01-26", 3, 2), ("2026-02-02", 3, 1)];
    assert_shown(&shop, &format!("{days}&bucket=week"), &weeks).await;
    let months = [("2026-01-01", 1, 1), ("2026-02-01", 5, 2)];
    assert_shown(&shop, &format!("{days}&bucket=month&category=light"), &months).await;
    // What is before the first day does not count, though its bucket began earlier.
    let cut = [("2026-01-26", 2, 1), ("2026-02-02", 3, 1)];
    assert_shown(&shop, "from=2026-02-01&bucket=week", &cut).await;
    for (query, units) in [
        ("", json!(6)),
        ("days=2", json!(5)),
        ("days=1", json!(3)),
        ("days=1&to=2026-01-31", json!(1)),
        ("from=2026-02-02&days=3", json!(3)),
        ("from=2026-01-01&to=2026-01-30", Value::Null),
        ("category=dark", Value::Null),
    ] {
        assert_eq!(ranked_units(&shop, query).await, units, "{query}");
    }
    let all = buckets(&shop, "").await;
    assert_eq!((all.len(), &all[0].0[..], &all[29].0[..]), (30, "2026-01-04", "2026-02-02"));
    assert_eq!(shop.modify(&user, &second, &[(lamp, 5)]).await.0, StatusCode::ACCEPTED);
    let (status, _) = shop.ask(&user.key, id(&first["order_id"]), "cancellation", &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    for order in [first, second] {
        shop.settled(id(&order["order_id"])).await;
    }
    assert_shown(&shop, days, &[("2026-01-31", 0, 0), ("2026-02-01", 5, 1), ("2026-02-02", 3, 1)]).await;
    assert_eq!(ranked_units(&shop, "days=1&to=2026-01-31").await, Value::Null);
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_zone_that_there_is_not_is_refused_at_the_start() {
    let shop = Shop::new().await;
    let output = shop.run(&["api", "--time-zone", "Mars/Olympus"]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("there is no time zone \"Mars/Olympus\""), "{error}");
}
