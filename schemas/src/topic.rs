//! The topics that events travel on.

use std::fmt;

/// A Kafka topic, named like the capability whose events it carries.
///
/// The name here is without the prefix that an installation may put before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// What the saga of an order decided, keyed by order id.
    Orders,
    /// Reservations, keyed by order id, and received goods, keyed by product id.
    Stock,
    /// Charges, keyed by order id.
    Payments,
    /// Coupons, their claims and uses, keyed by coupon id or order id.
    Coupons,
    /// Changes of a user's balance, keyed by user id.
    Balances,
    /// Descriptions and prices, keyed by product id.
    Products,
}

impl Topic {
    /// Every topic, in the order in which documents list them.
    pub const ALL: [Topic; 6] =
        [Topic::Orders, Topic::Stock, Topic::Payments, Topic::Coupons, Topic::Balances, Topic::Products];

    /// The topic's name, without prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Orders => "orders",
            Topic::Stock => "stock",
            Topic::Payments => "payments",
            Topic::Coupons => "coupons",
            Topic::Balances => "balances",
            Topic::Products => "products",
        }
    }

    /// The topic of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
