//! Users with money and products in stock, made through the API as anybody makes them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::shop::{Customer, Shop};

/// Requests under way at the same time.
const AT_ONCE: usize = 32;
/// What every user has: the most that one charge may be, far more than the orders cost.
const MONEY: u64 = 1_000_000_000;
/// Units of every product: more than can be ordered.
const STOCK: u64 = 100_000_000;
/// Prices go from the first in steps of the second; the most expensive order is far below what a user has.
const PRICES: (usize, usize) = (1_000, 10);

/// Of so many users who signed up last it is looked whether they have the welcome coupon.
const LAST_LOOKED_AT: usize = 100;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the coupons may take.
const WELCOMED_WITHIN: Duration = Duration::from_secs(120);

/// The API, and the key of the admin.
#[derive(Debug)]
struct Api {
    client: Client,
    url: String,
    admin_key: String,
}

#[derive(Deserialize)]
struct Product {
    product_id: Uuid,
}

#[derive(Deserialize)]
struct Coupon {
    coupon_id: Uuid,
}

#[derive(Deserialize)]
struct Coupons {
    items: Vec<serde_json::Value>,
}

impl Api {
    fn new(url: &str, admin_key: &str) -> Result<Api> {
        let client = Client::builder().no_proxy().build()?;
        Ok(Api { client, url: format!("{url}/v1"), admin_key: admin_key.to_owned() })
    }

    async fn has_coupon(&self, user: &Customer) -> Result<bool> {
        let url = format!("{}/users/{}/coupons", self.url, user.user_id);
        let answer = self.client.get(url).bearer_auth(&user.api_key).send().await?.error_for_status()?;
        Ok(!answer.json::<Coupons>().await?.items.is_empty())
    }
}

/// Signs users up, gives them money, and puts products on sale.
///
/// # Errors
/// Where the API refuses or does not answer.
pub async fn shop(api_url: &str, admin_key: &str, users: usize, products: usize) -> Result<Shop> {
    let api = &Api::new(api_url, admin_key)?;
    Ok(Shop {
        users: side_by_side(users, |number| customer(api, number)).await?,
        products: side_by_side(products, |number| product(api, number)).await?,
    })
}

/// Signs users up who have no money, and returns once each has got the welcome coupon, so that nothing is left to do.
///
/// # Errors
/// Where the API refuses or does not answer, or no coupon comes.
pub async fn claimants(api_url: &str, admin_key: &str, count: usize) -> Result<Shop> {
    let api = &Api::new(api_url, admin_key)?;
    let users = side_by_side(count, |number| sign_up(api, "claimant", number)).await?;
    // Those of a partition come in order, so none of those before is left once the last ones have theirs.
    let last = &users[users.len().saturating_sub(LAST_LOOKED_AT)..];
    let welcomed = async {
        for user in last {
            while !api.has_coupon(user).await? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(WELCOMED_WITHIN, welcomed).await.context("the welcome coupons don't come")??;
    Ok(Shop { users, products: Vec::new() })
}

/// Puts up a coupon that `quantity` users can get.
///
/// # Errors
/// Where the API refuses or does not answer.
pub async fn coupon(api_url: &str, admin_key: &str, quantity: usize) -> Result<Uuid> {
    let api = Api::new(api_url, admin_key)?;
    let discount = json!({ "type": "PERCENT", "value": 10 });
    let body = json!({ "name": "Few", "discount": discount, "quantity": quantity });
    let request = api
        .client
        .post(format!("{}/coupons", api.url))
        .bearer_auth(&api.admin_key)
        .header("idempotency-key", "coupon-of-few");
    Ok(send::<Coupon>(request, &body).await?.coupon_id)
}

/// Makes `count` things, a few at a time.
async fn side_by_side<T, F: Future<Output = Result<T>>>(
    count: usize,
    make: impl Fn(usize) -> F,
) -> Result<Vec<T>> {
    stream::iter((0..count).map(make)).buffered(AT_ONCE).try_collect().await
}

async fn sign_up(api: &Api, name: &str, number: usize) -> Result<Customer> {
    let body = json!({ "name": format!("{name} {number}"), "email": format!("{name}-{number}@example.com") });
    send(api.client.post(format!("{}/users", api.url)), &body).await
}

async fn customer(api: &Api, number: usize) -> Result<Customer> {
    let customer = sign_up(api, "user", number).await?;
    let charge = api
        .client
        .post(format!("{}/users/{}/balance/charges", api.url, customer.user_id))
        .bearer_auth(&customer.api_key)
        .header("idempotency-key", format!("money-{number}"));
    send::<serde_json::Value>(charge, &json!({ "amount": MONEY })).await?;
    Ok(customer)
}

async fn product(api: &Api, number: usize) -> Result<Uuid> {
    let body = json!({
        "name": format!("Product {number}"),
        "description": "One of many that are all alike",
        "category": format!("CATEGORY {}", number % 20),
        "price": PRICES.0 + PRICES.1 * number,
        "stock": STOCK,
    });
    let request = api
        .client
        .post(format!("{}/products", api.url))
        .bearer_auth(&api.admin_key)
        .header("idempotency-key", format!("product-{number}"));
    Ok(send::<Product>(request, &body).await?.product_id)
}

async fn send<T: DeserializeOwned>(request: RequestBuilder, body: &impl Serialize) -> Result<T> {
    let response = request.json(body).send().await?;
    let status = response.status();
    if !status.is_success() {
        bail!("the shop can't be set up: {status}: {}", response.text().await.unwrap_or_default());
    }
    response.json().await.context("the API's answer is not of the shape that it promises")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_one_of_many_is_made_once() {
        let mut made = side_by_side(100, |number| async move { Ok(number) }).await.unwrap();
        made.sort_unstable();
        assert_eq!(made, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn one_that_can_not_be_made_ends_it() {
        let make = |number| async move { if number == 3 { bail!("no luck") } else { Ok(number) } };
        assert!(side_by_side(10, make).await.is_err());
    }
}
