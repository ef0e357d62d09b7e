//! Events of a user's balance, the wallet that orders are paid from.
//!
//! Each says what the balance is after it, so that a reader needs no history.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Money;

events! {
    /// Changes of a user's balance, keyed by user id.
    "balance.opened" v 1 BalanceOpened key user_id;
    "balance.charged" v 1 BalanceCharged key user_id;
    "balance.held" v 1 BalanceHeld key user_id of order_id;
    "balance.captured" v 1 BalanceCaptured key user_id of order_id;
    "balance.released" v 1 BalanceReleased key user_id of order_id;
    "balance.refunded" v 1 BalanceRefunded key user_id of order_id;
}

/// A user signed up; the balance starts at 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BalanceOpened {
    /// The user.
    pub user_id: Uuid,
}

/// The user put money in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BalanceCharged {
    /// The user.
    pub user_id: Uuid,
    /// How much, in the minor unit; above 0.
    pub amount: Money,
    /// What can be spent after it.
    pub available: Money,
    /// What is held for orders after it.
    pub held: Money,
}

/// Money was set aside for an order that is being paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BalanceHeld {
    /// The user.
    pub user_id: Uuid,
    /// The order.
    pub order_id: Uuid,
    /// How much, in the minor unit; above 0.
    pub amount: Money,
    /// What can be spent after it.
    pub available: Money,
    /// What is held for orders after it.
    pub held: Money,
}

/// Money that was held for an order has been spent on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BalanceCaptured {
    /// The user.
    pub user_id: Uuid,
    /// The order.
    pub order_id: Uuid,
    /// How much, in the minor unit; above 0.
    pub amount: Money,
    /// What can be spent after it.
    pub available: Money,
    /// What is held for orders after it.
    pub held: Money,
}

/// Money that was held for an order can be spent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BalanceReleased {
    /// The user.
    pub user_id: Uuid,
    /// The order.
    pub order_id: Uuid,
    /// How much, in the minor unit; above 0.
    pub amount: Money,
    /// What can be spent after it.
    pub available: Money,
    /// What is held for orders after it.
    pub held: Money,
}

/// Money that was spent on an order came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BalanceRefunded {
    /// The user.
    pub user_id: Uuid,
    /// The order.
    pub order_id: Uuid,
    /// How much, in the minor unit; above 0.
    pub amount: Money,
    /// What can be spent after it.
    pub available: Money,
    /// What is held for orders after it.
    pub held: Money,
}
