//! Claims of a coupon, as requests ready to be sent.

use anyhow::{Result, bail};
use uuid::Uuid;

use crate::shop::{Customer, Shop};

/// Claims of the first `count` users of the shop, each with the user's own key.
///
/// # Errors
/// Where there are fewer users: a user has one claim of a coupon.
pub(super) fn requests(shop: &Shop, host: &str, coupon_id: Uuid, count: usize) -> Result<Vec<Vec<u8>>> {
    if count > shop.users.len() {
        bail!("each user claims once, and the shop has only {}", shop.users.len());
    }
    let request = |Customer { user_id, api_key }: &Customer| {
        let body = format!(r#"{{"user_id":"{user_id}"}}"#);
        let length = body.len();
        format!(
            "POST /v1/coupons/{coupon_id}/claims HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {api_key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    Ok(shop.users[..count].iter().map(request).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_claims_once_with_the_own_key() {
        let customer = |n| Customer { user_id: Uuid::from_u128(n), api_key: format!("om_{n}") };
        let shop = Shop { users: (0..3).map(customer).collect(), products: Vec::new() };
        let claims = requests(&shop, "h:1", Uuid::from_u128(9), 2).unwrap();
        assert_eq!(claims.len(), 2);
        for (claim, user) in claims.iter().zip(&shop.users) {
            let text = String::from_utf8(claim.clone()).unwrap();
            assert!(text.starts_with(&format!("POST /v1/coupons/{}/claims ", Uuid::from_u128(9))), "{text}");
            assert!(text.contains(&format!("authorization: Bearer {}\r\n", user.api_key)), "{text}");
            assert!(text.ends_with(&format!("\r\n\r\n{{\"user_id\":\"{}\"}}", user.user_id)), "{text}");
        }
        assert!(requests(&shop, "h:1", Uuid::from_u128(9), 4).is_err());
    }
}
