//! Lists of products: filters, search, orders, pages.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, ask};
use crate::support::{Shop, id, in_open_shop, stop, until};

/// Asks for a page as nobody.
async fn ask_for(shop: &Shop, query: &[(&str, &str)]) -> Answer {
    let pairs = query.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    let path = format!("/v1/products?{}", pairs.collect::<Vec<_>>().join("&"));
    ask(shop.request_as_nobody(Method::GET, &path)).await
}

fn encoded(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn page(shop: &Shop, query: &[(&str, &str)]) -> Value {
    ask_for(shop, query).await.with(200)
}

fn ids(page: &Value) -> Vec<Uuid> {
    page["items"].as_array().unwrap().iter().map(|product| id(&product["product_id"])).collect()
}

/// All pages of a list, in order; `between` runs after each.
async fn read_all(shop: &Shop, query: &[(&str, &str)], mut between: impl AsyncFnMut()) -> Vec<Uuid> {
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut query = query.to_vec();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = page(shop, &query).await;
        seen.extend(ids(&page));
        between().await;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return seen,
        }
    }
}

/// A word that no other test's products have.
fn word() -> String {
    Uuid::new_v4().simple().to_string()
}

async fn add(shop: &Shop, name: &str, category: &str, price: i64, stock: i64) -> Uuid {
    let product =
        json!({"name": name, "description": "", "category": category, "price": price, "stock": stock});
    let (status, product) = shop.post("/products", &product).await;
    assert_eq!(status, 201, "{product}");
    id(&product["product_id"])
}

async fn withdraw(shop: &Shop, product_id: Uuid) {
    let request = shop.request(Method::PATCH, &format!("/products/{product_id}"));
    ask(request.json(&json!({"withdrawn": true}))).await.with(200);
}

#[test]
fn a_list_shows_products_as_they_are_in_the_order_that_is_asked_for() {
    in_open_shop(async |shop| {
        let word = word();
        let (a, b) = (format!("A{word}"), format!("B{word}"));
        let dear = add(shop, &word, &a, 900, 3).await;
        let cheap = add(shop, &word, &b, 100, 3).await;
        let middle = add(shop, &word, &a, 500, 0).await;
        let twin = add(shop, &word, &b, 500, 3).await;
        for (sort, expected) in [
            ("newest", [twin, middle, cheap, dear]),
            ("price_asc", [cheap, middle, twin, dear]),
            ("price_desc", [dear, twin, middle, cheap]),
            ("category", [dear, middle, cheap, twin]),
        ] {
            let query = [("q", &*word), ("sort", sort)];
            let listed = page(shop, &query).await;
            assert_eq!((ids(&listed), &listed["next_cursor"]), (expected.to_vec(), &Value::Null), "{sort}");
            for product in listed["items"].as_array().unwrap() {
                let product_id = id(&product["product_id"]);
                assert_eq!(*product, shop.get(&format!("/products/{product_id}")).await, "{sort}");
            }
            let in_pages = [("q", &*word), ("sort", sort), ("limit", "1")];
            assert_eq!(read_all(shop, &in_pages, async || {}).await, expected, "{sort}");
        }
        assert_eq!(ids(&page(shop, &[("q", &word)]).await), [twin, middle, cheap, dear], "newest first");
    });
}

#[test]
fn a_list_has_what_every_filter_lets_through() {
    in_open_shop(async |shop| {
        let (word, category) = (word(), word());
        let cheap = add(shop, &word, &category, 100, 3).await;
        let sold_out = add(shop, &word, &category, 500, 0).await;
        let withdrawn = add(shop, &word, &category, 500, 3).await;
        let empty = add(shop, &word, &category, 900, 0).await;
        for product_id in [withdrawn, empty] {
            withdraw(shop, product_id).await;
        }
        let other = add(shop, &word, "elsewhere", 500, 3).await;
        for (query, expected) in [
            (&[][..], &[other, empty, withdrawn, sold_out, cheap][..]),
            (&[("category", &*category)], &[empty, withdrawn, sold_out, cheap]),
            (&[("min_price", "500")], &[other, empty, withdrawn, sold_out]),
            (&[("max_price", "500")], &[other, withdrawn, sold_out, cheap]),
            (&[("min_price", "101"), ("max_price", "899")], &[other, withdrawn, sold_out]),
            (&[("availability", "in_stock")], &[other, cheap]),
            (&[("availability", "sold_out")], &[sold_out]),
            (&[("availability", "all"), ("max_price", "100")], &[cheap]),
            (&[("category", &*category), ("availability", "in_stock"), ("min_price", "200")], &[]),
        ] {
            for sort in ["newest", "price_desc", "price_asc", "category"] {
                let mut query = query.to_vec();
                query.extend([("q", &*word), ("sort", sort)]);
                let listed = ids(&page(shop, &query).await);
                let as_set = |ids: &[Uuid]| ids.iter().copied().collect::<HashSet<_>>();
                assert_eq!((listed.len(), as_set(&listed)), (expected.len(), as_set(expected)), "{query:?}");
                assert!(sort != "newest" || listed == expected, "{query:?}");
            }
        }
        let listed = page(shop, &[("q", &*word), ("category", &*category), ("limit", "2")]).await;
        assert_eq!(listed["items"][0]["status"], "WITHDRAWN");
    });
}

#[test]
fn a_name_is_found_by_any_part_of_it_in_any_case_and_literally() {
    in_open_shop(async |shop| {
        let category = word();
        let korean = add(shop, "유기농 녹차 세트 100%", &category, 1, 1).await;
        let latin = add(shop, "Green_Tea \\ ÉTÉ", &category, 1, 1).await;
        // The same syllables, taken apart as some systems do.
        let apart = add(shop, "\u{1102}\u{1169}\u{11a8}\u{110e}\u{1161}", &category, 1, 1).await;
        for (q, expected) in [
            ("녹차", &[apart, korean][..]),
            ("차", &[apart, korean]),
            ("차 세", &[korean]),
            ("\u{110e}\u{1161} 세트", &[korean]),
            ("유기농 녹차 세트 100%", &[korean]),
            ("녹 차", &[]),
            ("GREEN", &[latin]),
            ("n_t", &[latin]),
            ("n-t", &[]),
            ("eenxT", &[]),
            ("%", &[korean]),
            ("_", &[latin]),
            ("\\", &[latin]),
            ("0%", &[korean]),
            ("%t", &[]),
            ("été", &[latin]),
            ("'; DROP TABLE products; --", &[]),
        ] {
            let listed = page(shop, &[("q", q), ("category", &category)]).await;
            assert_eq!(ids(&listed), expected, "{q}");
        }
    });
}

#[test]
fn a_product_is_found_by_what_it_is_called_now() {
    in_open_shop(async |shop| {
        let (before, after) = (word(), word());
        let lamp = add(shop, &before, "light", 1, 1).await;
        let request = shop.request(Method::PATCH, &format!("/products/{lamp}"));
        ask(request.json(&json!({"name": after}))).await.with(200);
        assert_eq!(page(shop, &[("q", &before)]).await["items"], json!([]));
        assert_eq!(ids(&page(shop, &[("q", &after)]).await), [lamp]);
    });
}

#[test]
fn pages_skip_and_repeat_nothing_while_products_are_added() {
    in_open_shop(async |shop| {
        for sort in ["newest", "price_asc", "price_desc", "category"] {
            let word = word();
            let mut at_first = HashSet::new();
            for n in 0..12 {
                at_first.insert(add(shop, &word, &format!("{word}{}", n % 3), n % 4, 1).await);
            }
            let mut added = 0;
            let seen = read_all(shop, &[("q", &word), ("sort", sort), ("limit", "3")], async || {
                // Some before the place that was reached, some behind it, some beside it; not for ever.
                added += 1;
                for price in 0..if added < 6 { 4 } else { 0 } {
                    add(shop, &word, &format!("{word}{}", price % 3), price, 1).await;
                }
            })
            .await;
            let once: HashSet<Uuid> = seen.iter().copied().collect();
            assert_eq!(once.len(), seen.len(), "{sort}: nothing comes twice");
            assert!(at_first.is_subset(&once), "{sort}: nothing is left out");
        }
    });
}

#[test]
fn a_list_that_can_not_be_is_refused_with_every_parameter_that_is_wrong() {
    in_open_shop(async |shop| {
        let long = "q".repeat(101);
        for (query, fields) in [
            (&[("q", "")][..], &["q"][..]),
            (&[("q", &*long)], &["q"]),
            (&[("q", "a\u{0}b"), ("category", "\u{0}")], &["q", "category"]),
            (&[("min_price", "6"), ("max_price", "5")], &["min_price"]),
            (&[("min_price", "x"), ("max_price", "1000000001")], &["min_price", "max_price"]),
            (&[("availability", "ALL"), ("sort", "name")], &["availability", "sort"]),
            (&[("limit", "0"), ("cursor", "x")], &["limit", "cursor"]),
            (&[("sort", "newest"), ("sort", "newest")], &["sort"]),
            (&[("max_price", "1"), ("max_price", "1")], &["max_price"]),
        ] {
            ask_for(shop, query).await.refused_for(fields);
        }
    });
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    in_open_shop(async |shop| {
        let word = word();
        for price in 0..3 {
            add(shop, &word, "light", price, 1).await;
        }
        let first = page(shop, &[("q", &word), ("sort", "price_asc"), ("limit", "1")]).await;
        let cursor = ("cursor", first["next_cursor"].as_str().unwrap());
        for other in [
            &[("q", &*word), cursor][..],
            &[("q", &*word), ("sort", "price_desc"), cursor],
            &[("sort", "price_asc"), cursor],
            &[("q", &*word), ("sort", "price_asc"), ("max_price", "2"), cursor],
        ] {
            ask_for(shop, other).await.refused_for(&["cursor"]);
        }
        // The size of a page is not bound.
        let next = page(shop, &[("q", &*word), ("sort", "price_asc"), ("limit", "5"), cursor]).await;
        assert_eq!(next["items"].as_array().unwrap().len(), 2);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_few_that_match_are_found_among_thousands_that_do_not() {
    let shop = Shop::new().await;
    let api = shop.start(&["api"]);
    until("the API listens", async || {
        shop.client.get(shop.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    // More on either side than are walked before the search is made by the name.
    let many = "WITH many AS (
            INSERT INTO products (key, version, state)
            SELECT gen_random_uuid(), 1, jsonb_build_object('name', 'Lamp ' || n, 'description', '', 'category', 'M',
                'price', n, 'withdrawn', false, 'sequence', 1, 'created_at', now, 'updated_at', now)
            FROM generate_series(1, 6000) AS n, (SELECT (extract(epoch FROM now()) * 1e6)::bigint AS now) AS times
            RETURNING key
        )
        INSERT INTO stock (key, version, state)
        SELECT key, 1, jsonb_build_object('on_hand', 5, 'reserved', 0, 'deducted', 0, 'received', 5, 'sequence', 1)
        FROM many";
    sqlx::query(many).execute(&shop.pool).await.unwrap();
    let rare: HashSet<Uuid> = [
        add(&shop, "찻잔 하나", "m", 3_000, 0).await,
        add(&shop, "Teacup 찻잔", "m", 3_001, 0).await,
        add(&shop, "찻잔", "m", 3_002, 0).await,
    ]
    .into();
    for sort in ["newest", "price_asc", "price_desc", "category"] {
        for filter in [("q", "찻잔"), ("q", "잔"), ("availability", "sold_out")] {
            let seen = read_all(&shop, &[filter, ("sort", sort), ("limit", "2")], async || {}).await;
            let once: HashSet<Uuid> = seen.iter().copied().collect();
            assert_eq!((seen.len(), &once), (3, &rare), "{filter:?} {sort}");
        }
        let frequent = [("q", "lamp"), ("availability", "in_stock"), ("sort", sort), ("limit", "100")];
        let seen = read_all(&shop, &frequent, async || {}).await;
        let once: HashSet<Uuid> = seen.iter().copied().collect();
        assert_eq!((seen.len(), once.len()), (6_000, 6_000), "{sort}");
    }
    stop(&api);
}
