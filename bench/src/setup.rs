//! Users with money and products in stock, made through the API as anybody makes them.

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::shop::{Customer, Shop};

/// Requests under way at the same time.
const AT_ONCE: usize = 8;
/// What every user has: the most that one charge may be, far more than the orders cost.
const MONEY: u64 = 1_000_000_000;
/// Units of every product: more than can be ordered.
const STOCK: u64 = 100_000_000;
/// Prices go from the first in steps of the second; the most expensive order is far below what a user has.
const PRICES: (usize, usize) = (1_000, 10);

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

/// Signs users up, gives them money, and puts products on sale.
///
/// # Errors
/// Where the API refuses or does not answer.
pub async fn shop(api_url: &str, admin_key: &str, users: usize, products: usize) -> Result<Shop> {
    let client = Client::builder().no_proxy().build()?;
    let api = &Api { client, url: format!("{api_url}/v1"), admin_key: admin_key.to_owned() };
    Ok(Shop {
        users: side_by_side(users, |number| customer(api, number)).await?,
        products: side_by_side(products, |number| product(api, number)).await?,
    })
}

/// Makes `count` things, a few at a time.
async fn side_by_side<T, F: Future<Output = Result<T>>>(
    count: usize,
    make: impl Fn(usize) -> F,
) -> Result<Vec<T>> {
    stream::iter((0..count).map(make)).buffered(AT_ONCE).try_collect().await
}

async fn customer(api: &Api, number: usize) -> Result<Customer> {
    let body = json!({ "name": format!("User {number}"), "email": format!("user-{number}@example.com") });
    let customer: Customer = send(api.client.post(format!("{}/users", api.url)), &body).await?;
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
