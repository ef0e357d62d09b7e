//! Who can order, and what.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who orders what: the users with their keys, and the products.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shop {
    /// The users.
    pub users: Vec<Customer>,
    /// The products.
    pub products: Vec<Uuid>,
}

/// A user with the key that orders are sent with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// The user.
    pub user_id: Uuid,
    /// The user's own key.
    pub api_key: String,
}
