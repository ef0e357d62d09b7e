//! The orders to be placed, ready for the wire.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::load::args::LoadArgs;
use crate::orders::Orders;
use crate::shop::Shop;

/// Of so many orders one is held until it rests.
pub(crate) const HELD_EVERY: usize = 10;

/// The orders, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) address: SocketAddr,
    pub(super) requests: Vec<Vec<u8>>,
    /// Nothing is sent after this.
    pub(super) end: Instant,
}

impl Work {
    /// Writes all requests, before the clock starts.
    ///
    /// # Errors
    /// Where the shop has too few products for orders of so many lines.
    pub(super) fn prepare(args: &LoadArgs, address: SocketAddr, shop: Shop) -> Result<Work> {
        if args.lines.is_some_and(|lines| lines > shop.products.len()) {
            bail!("an order has each product once, and the shop has only {}", shop.products.len());
        }
        let mut orders = Orders::new(shop, &args.address, &args.label, args.seed, args.lines);
        let requests = (0..args.orders).map(|number| orders.request(number, is_held(number)));
        Ok(Work {
            address,
            requests: requests.collect(),
            end: Instant::now() + Duration::from_secs(args.within_s),
        })
    }
}

/// Whether the API is asked to hold that order's answer until the order rests.
pub(super) fn is_held(number: usize) -> bool {
    number.is_multiple_of(HELD_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_order_in_ten_is_held() {
        assert_eq!((0..1_000).filter(|number| is_held(*number)).count(), 100);
    }
}
