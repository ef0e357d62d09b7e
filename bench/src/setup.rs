//! Users with money and products in stock, made through the API as anybody makes them.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
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
#[derive(Clone, Debug)]
struct Api {
    client: Client,
    url: String,
    admin_key: String,
}

#[derive(Deserialize)]
struct SignedUp {
    user_id: Uuid,
    api_key: String,
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
    let api = Api { client, url: format!("{api_url}/v1"), admin_key: admin_key.to_owned() };
    let of_products = api.clone();
    Ok(Shop {
        users: side_by_side(users, move |number| customer(api.clone(), number)).await?,
        products: side_by_side(products, move |number| product(of_products.clone(), number)).await?,
    })
}

/// Makes `count` things, a few at a time.
async fn side_by_side<T, F>(count: usize, make: impl Fn(usize) -> F + Send + Sync + 'static) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let make = Arc::new(make);
    let mut tasks = JoinSet::new();
    for first in 0..AT_ONCE {
        let make = make.clone();
        tasks.spawn(async move {
            let mut made = Vec::new();
            for number in (first..count).step_by(AT_ONCE) {
                made.push(make(number).await?);
            }
            anyhow::Ok(made)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(made) = tasks.join_next().await {
        all.extend(made??);
    }
    Ok(all)
}

async fn customer(api: Api, number: usize) -> Result<Customer> {
    let body = json!({ "name": format!("User {number}"), "email": format!("user-{number}@example.com") });
    let SignedUp { user_id, api_key } = send(api.client.post(format!("{}/users", api.url)), &body).await?;
    let charge = api
        .client
        .post(format!("{}/users/{user_id}/balance/charges", api.url))
        .bearer_auth(&api_key)
        .header("idempotency-key", format!("money-{number}"));
    send::<serde_json::Value>(charge, &json!({ "amount": MONEY })).await?;
    Ok(Customer { user_id, api_key })
}

async fn product(api: Api, number: usize) -> Result<Uuid> {
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
