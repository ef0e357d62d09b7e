//! The rules of the shop, pure: state and input in, events out.
//!
//! One file per capability. A decider never fails, waits or looks at the clock; it accepts any event
//! twice, late or after a replay, since it decides by what its state says about the business key (the
//! order, the charge) and not by how often it was asked.
//!
//! Architecture Invariant: this crate depends on nothing that could do input or output.

pub mod aggregate;
pub mod capability;
pub mod coupons;
pub mod orders;
pub mod payments;
pub mod pricing;
pub mod products;
pub mod sales;
pub mod shipments;
pub mod stock;
mod times;

use aggregate::{Documents, Kind};

/// Every kind of aggregate, in the order in which their rows are locked.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    macro_rules! kinds {
        ($($noun:ident $Name:ident $(($($parts:tt)+))?;)+) => {
            [$(<crate::$noun::$Name as Documents>::KINDS),+]
        };
    }
    ordermill_schemas::capabilities!(kinds).into_iter().flatten()
}

#[cfg(test)]
mod saga_tests;
