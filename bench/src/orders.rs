//! What is ordered, by whom, as requests ready to be sent.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use crate::shop::{Customer, Shop};

/// How many orders of a hundred have two lines; the others have one.
const TWO_LINES_PERCENT: u32 = 20;
/// How many units a line has at most.
const QUANTITY_MAX: u32 = 3;
/// How long an order waits for its rest where that is measured, in seconds: as long as the API allows.
pub(crate) const WAIT_S: u64 = 30;

/// Orders as bytes for the wire, made before the clock starts.
#[derive(Debug)]
pub(crate) struct Orders {
    random: StdRng,
    shop: Shop,
    host: String,
    label: String,
    /// Of every order; otherwise one, and two in some.
    lines: Option<usize>,
}

impl Orders {
    /// Orders in `shop`, sent to `host`; the same seed and label give the same ones. No two labels share an idempotency
    /// key.
    #[must_use]
    pub(crate) fn new(shop: Shop, host: &str, label: &str, seed: u64, lines: Option<usize>) -> Orders {
        let random = StdRng::seed_from_u64(seed);
        Orders { random, shop, host: host.to_owned(), label: label.to_owned(), lines }
    }

    /// The request that places order `number`; with `held` the answer is held until the order rests.
    pub(crate) fn request(&mut self, number: usize, held: bool) -> Vec<u8> {
        let index = self.random.random_range(0..self.shop.users.len());
        let lines = self.lines();
        let Customer { user_id, api_key } = &self.shop.users[index];
        let body =
            format!(r#"{{"user_id":"{user_id}","lines":[{}],"payment_method":"BALANCE"}}"#, lines.join(","));
        let prefer = if held { format!("prefer: wait={WAIT_S}\r\n") } else { String::new() };
        let (host, label, length) = (&self.host, &self.label, body.len());
        format!(
            "POST /v1/orders HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {api_key}\r\n\
             idempotency-key: {label}-{number}\r\n{prefer}content-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn lines(&mut self) -> Vec<String> {
        let products = &self.shop.products;
        let first = self.random.random_range(0..products.len());
        let chosen: Vec<Uuid> = match self.lines {
            // Those that follow each other from any one on: an order has each product once.
            Some(lines) => (first..first + lines).map(|index| products[index % products.len()]).collect(),
            None if products.len() > 1 && self.random.random_ratio(TWO_LINES_PERCENT, 100) => {
                // Any other one.
                let step = self.random.random_range(1..products.len());
                vec![products[first], products[(first + step) % products.len()]]
            }
            None => vec![products[first]],
        };
        let line = |product_id| {
            let quantity = self.random.random_range(1..=QUANTITY_MAX);
            format!(r#"{{"product_id":"{product_id}","quantity":{quantity}}}"#)
        };
        chosen.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn shop() -> Shop {
        let customer = |n| Customer { user_id: Uuid::from_u128(n), api_key: format!("om_{n}") };
        Shop { users: (0..5).map(customer).collect(), products: (10..20).map(Uuid::from_u128).collect() }
    }

    fn orders(label: &str) -> Orders {
        Orders::new(shop(), "127.0.0.1:1", label, 7, None)
    }

    fn split(request: &[u8]) -> (String, Value) {
        let text = String::from_utf8(request.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_fifth_of_the_orders_has_two_lines_and_the_others_one() {
        let mut orders = orders("x");
        let count = 5_000;
        let bodies = (0..count).map(|n| split(&orders.request(n, false)).1);
        let two = bodies.filter(|body| body["lines"].as_array().unwrap().len() == 2).count();
        assert!((900..1_100).contains(&two), "{two} of {count}");
    }

    #[test]
    fn an_order_is_sent_with_its_users_key_and_has_each_product_once() {
        let mut orders = orders("x");
        for n in 0..1_000 {
            let (head, body) = split(&orders.request(n, false));
            let user_id: Uuid = body["user_id"].as_str().unwrap().parse().unwrap();
            assert!(head.contains(&format!("authorization: Bearer om_{}\r\n", user_id.as_u128())), "{head}");
            let products: Vec<&str> =
                body["lines"].as_array().unwrap().iter().map(|l| l["product_id"].as_str().unwrap()).collect();
            assert_eq!(products.iter().collect::<HashSet<_>>().len(), products.len());
        }
    }

    #[test]
    fn an_order_of_many_lines_has_each_product_once_too() {
        let mut orders = Orders::new(shop(), "127.0.0.1:1", "x", 7, Some(10));
        for n in 0..100 {
            let body = split(&orders.request(n, false)).1;
            let lines = body["lines"].as_array().unwrap();
            let products: HashSet<_> = lines.iter().map(|l| l["product_id"].as_str().unwrap()).collect();
            assert_eq!((lines.len(), products.len()), (10, 10));
        }
    }

    #[test]
    fn every_order_has_a_key_of_its_own() {
        let key = |request: Vec<u8>| {
            let head = split(&request).0;
            head.lines().find(|line| line.starts_with("idempotency-key")).unwrap().to_owned()
        };
        let mut keys = HashSet::new();
        for label in ["warm-up", "closed"] {
            let mut orders = orders(label);
            for n in 0..100 {
                assert!(keys.insert(key(orders.request(n, false))));
            }
        }
    }

    #[test]
    fn only_those_that_are_to_wait_ask_for_it() {
        let mut orders = orders("x");
        assert!(!split(&orders.request(0, false)).0.contains("prefer"));
        assert!(split(&orders.request(1, true)).0.contains("prefer: wait=30\r\n"));
    }

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let (mut one, mut other) = (orders("x"), orders("x"));
        assert!((0..100).all(|n| one.request(n, false) == other.request(n, false)));
    }
}
