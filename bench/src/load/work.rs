//! The orders to be placed, ready for the wire.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::load::args::LoadArgs;
use crate::load::claims;
use crate::orders::Orders;
use crate::shop::Shop;

/// The orders, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) address: SocketAddr,
    pub(super) requests: Vec<Vec<u8>>,
    /// Nothing is sent after this.
    pub(super) end: Instant,
    /// Of so many orders one is held until it rests; 0 for none.
    held_every: usize,
}

impl Work {
    /// Writes all requests, before the clock starts.
    ///
    /// # Errors
    /// Where the shop has too few products for orders of so many lines, or too few users for so many claims.
    pub(super) fn prepare(args: &LoadArgs, address: SocketAddr, shop: Shop) -> Result<Work> {
        let end = || Instant::now() + Duration::from_secs(args.within_s);
        if let Some(coupon_id) = args.claim {
            let requests = claims::requests(&shop, &args.address, coupon_id, args.orders)?;
            return Ok(Work { address, requests, end: end(), held_every: 0 });
        }
        if shop.products.len() < args.lines.unwrap_or(1) {
            bail!("an order has each product once, and the shop has only {}", shop.products.len());
        }
        let held_every = args.held_every;
        let mut orders = Orders::new(shop, &args.address, &args.label, args.seed, args.lines);
        let requests = (0..args.orders).map(|number| orders.request(number, is_held(number, held_every)));
        Ok(Work { address, requests: requests.collect(), end: end(), held_every })
    }

    /// Whether the API is asked to hold that order's answer until the order rests.
    pub(super) fn is_held(&self, number: usize) -> bool {
        is_held(number, self.held_every)
    }
}

fn is_held(number: usize, held_every: usize) -> bool {
    held_every > 0 && number.is_multiple_of(held_every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_order_in_ten_is_held_or_none() {
        let held = |held_every| (0..1_000).filter(|number| is_held(*number, held_every)).count();
        assert_eq!((held(10), held(0)), (100, 0));
    }
}
