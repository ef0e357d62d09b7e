//! Who calls, and for whom they may act.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use ordermill_store::keys::Identity;
use uuid::Uuid;

use crate::app::Api;
use crate::keys::digest;
use crate::path;
use crate::problem::{Code, Problem, Refuses};

/// Whose key the request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    identity: Identity,
    /// The first bytes of the key's hash, which tell keys apart and lead to none.
    key_mark: [u8; 4],
}

impl Caller {
    /// The name by which events and idempotency keys know the caller.
    pub(crate) fn name(self) -> String {
        match self.identity {
            Identity::Customer(user_id) => format!("user:{user_id}"),
            Identity::Admin => "admin".to_owned(),
        }
    }

    /// Whether everything may be seen and changed.
    pub(crate) fn is_admin(self) -> bool {
        self.identity == Identity::Admin
    }

    /// The same with what tells the caller's key from others: all administrators have one name, and an audit must say
    /// which of them it was.
    pub(crate) fn name_with_key(self) -> String {
        format!("{}:{}", self.name(), hex::encode(self.key_mark))
    }

    /// Whether what belongs to that user may be seen and changed.
    pub(crate) fn may_act_for(self, user_id: Uuid) -> bool {
        match self.identity {
            Identity::Customer(own_id) => own_id == user_id,
            Identity::Admin => true,
        }
    }

    /// Refuses to act for another user, as if there were no such user.
    ///
    /// # Errors
    /// `USER_NOT_FOUND` where the caller is another customer.
    pub(crate) fn acting_for(self, user_id: Uuid) -> Result<(), Problem> {
        if self.may_act_for(user_id) { Ok(()) } else { Err(path::unknown::<path::User>()) }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Caller, Problem> {
        let key = bearer(&parts.headers)?;
        let identity = api.identities.of(key).await?;
        let [a, b, c, d, ..] = digest(key);
        Ok(Caller { identity, key_mark: [a, b, c, d] })
    }
}

impl Refuses for Caller {
    fn add_codes(codes: &mut Vec<Code>) {
        codes.push(Code::Unauthenticated);
    }
}

/// An administrator's key; a customer's is refused with 403.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin(pub(crate) Caller);

impl From<Admin> for Caller {
    fn from(Admin(caller): Admin) -> Caller {
        caller
    }
}

impl FromRequestParts<Api> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Admin, Problem> {
        let caller = Caller::from_request_parts(parts, api).await?;
        match caller.identity {
            Identity::Admin => Ok(Admin(caller)),
            Identity::Customer(_) => Err(Problem::new(
                Code::Forbidden,
                "this route is for administrators, this key is a customer's",
            )),
        }
    }
}

impl Refuses for Admin {
    fn add_codes(codes: &mut Vec<Code>) {
        codes.extend([Code::Unauthenticated, Code::Forbidden]);
    }
}

/// The key after `Bearer `, a word whose case does not matter.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        Problem::new(
            Code::Unauthenticated,
            "send your API key in the header: Authorization: Bearer <api key>",
        )
    };
    let value =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, key) = value.split_once(' ').ok_or_else(missing)?;
    let key = key.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() { Ok(key) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(identity: Identity) -> Caller {
        Caller { identity, key_mark: [0, 0xab, 0x12, 0xff] }
    }

    fn with(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn the_key_stands_after_the_word_bearer_in_any_case() {
        assert_eq!(bearer(&with("Bearer om_1")), Ok("om_1"));
        assert_eq!(bearer(&with("bEARER  om_1 ")), Ok("om_1"));
        for wrong in ["om_1", "Basic om_1", "Bearer", "Bearer ", ""] {
            assert_eq!(bearer(&with(wrong)).unwrap_err().code(), Code::Unauthenticated, "{wrong:?}");
        }
        assert!(bearer(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_customer_acts_for_nobody_else_and_an_admin_for_anybody() {
        let (own_id, other_id) = (Uuid::now_v7(), Uuid::now_v7());
        let customer = caller(Identity::Customer(own_id));
        assert_eq!(customer.acting_for(own_id), Ok(()));
        assert_eq!(customer.acting_for(other_id).unwrap_err().code(), Code::UserNotFound);
        assert_eq!(caller(Identity::Admin).acting_for(other_id), Ok(()));
    }

    #[test]
    fn administrators_have_one_name_and_their_keys_tell_them_apart() {
        let admin = caller(Identity::Admin);
        assert_eq!((admin.name(), admin.name_with_key()), ("admin".to_owned(), "admin:00ab12ff".to_owned()));
    }
}
