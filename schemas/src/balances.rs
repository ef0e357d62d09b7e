//! Events of a user's balance, the wallet that orders are paid from.
//!
//! Each says what the balance is after it, so that a reader needs no history.

use uuid::Uuid;

use crate::Money;

events! {
    //! Changes of a user's balance, keyed by user id.

    /// A user signed up; the balance starts at 0.
    "balance.opened" v 1 BalanceOpened key user_id {
        /// The user.
        pub user_id: Uuid,
    }

    /// The user put money in.
    "balance.charged" v 1 BalanceCharged key user_id {
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
    "balance.held" v 1 BalanceHeld key user_id of order_id {
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
    "balance.captured" v 1 BalanceCaptured key user_id of order_id {
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
    "balance.released" v 1 BalanceReleased key user_id of order_id {
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
    "balance.refunded" v 1 BalanceRefunded key user_id of order_id {
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
}
