//! Who calls, and for whom they may act.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use ordermill_store::keys::Identity;
use uuid::Uuid;

use crate::app::Api;
use crate::identities::{Identities, Unidentified};
use crate::keys::{KEY_LENGTH_MAX, digest};
use crate::path;
use crate::peer;
use crate::problem::{Code, Problem, Refuses};
use crate::refusals::Reason;

/// How long it may take to see whether an operator asks: the database that would say so may be what does not answer.
pub(crate) const OPERATOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Whose key the request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    identity: Identity,
}

impl Caller {
    /// The name by which events, audits and idempotency keys know the caller. It stays the same where the key is rotated.
    pub(crate) fn name(self) -> String {
        match self.identity {
            Identity::Customer(user_id) => format!("user:{user_id}"),
            Identity::Admin(name) => format!("admin:{name}"),
        }
    }

    /// Who that is.
    pub(crate) fn identity(self) -> Identity {
        self.identity
    }

    /// Whether everything may be seen and changed.
    pub(crate) fn is_admin(self) -> bool {
        matches!(self.identity, Identity::Admin(_))
    }

    /// Whether what belongs to that user may be seen and changed.
    pub(crate) fn may_act_for(self, user_id: Uuid) -> bool {
        match self.identity {
            Identity::Customer(own_id) => own_id == user_id,
            Identity::Admin(_) => true,
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
        let key = bearer(&parts.headers).map_err(|reason| api.refusals.refuse(reason, None))?;
        match api.identities.of(key).await {
            Ok(identity) => {
                api.rate_limits.draw_of_caller(identity, &parts.extensions)?;
                Ok(Caller { identity })
            }
            Err(Unidentified::Refused(reason)) => Err(api.refusals.refuse(reason, Some(key))),
            Err(Unidentified::TooMany) => Err(Problem::overloaded()),
            Err(Unidentified::Database(error)) => Err(Problem::from(&*error)),
        }
    }
}

/// The hash of the key that a request carries, for who stays when the request is answered and may lose the key meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHash(pub(crate) [u8; 32]);

impl KeyHash {
    /// That of the key in the headers; `None` where there is nothing that could be one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<KeyHash> {
        bearer(headers).ok().map(|key| KeyHash(digest(key)))
    }

    /// Whether the key is an administrator's and lets them in.
    pub(crate) async fn is_administrators(self, identities: &Identities) -> bool {
        identities.is_administrators(&self.0).await
    }

    /// Whether the key lets nobody in any more. Where that can't be seen just now, it does.
    pub(crate) async fn is_refused(self, identities: &Identities) -> bool {
        matches!(identities.of_hash(self.0).await, Err(Unidentified::Refused(_)))
    }
}

impl FromRequestParts<Api> for KeyHash {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<KeyHash, Problem> {
        let key = bearer(&parts.headers).map_err(|reason| api.refusals.refuse(reason, None))?;
        Ok(KeyHash(digest(key)))
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
            Identity::Admin(_) => Ok(Admin(caller)),
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

/// Whoever runs this: a program on the same machine, or an administrator. Others are refused as where only administrators may ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator;

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Operator, Problem> {
        if !peer::is_this_machine(parts) {
            Admin::from_request_parts(parts, api).await?;
        }
        Ok(Operator)
    }
}

impl Refuses for Operator {
    fn add_codes(codes: &mut Vec<Code>) {
        Admin::add_codes(codes);
    }
}

/// Whether an operator asks, where everybody may and operators are told more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsOperator(pub(crate) bool);

impl FromRequestParts<Api> for IsOperator {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<IsOperator, Infallible> {
        // Who shows no key need not: that is no refusal to be counted.
        if !peer::is_this_machine(parts) && !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(IsOperator(false));
        }
        let operator = tokio::time::timeout(OPERATOR_TIMEOUT, Operator::from_request_parts(parts, api)).await;
        Ok(IsOperator(matches!(operator, Ok(Ok(Operator)))))
    }
}

/// The key after `Bearer `, a word whose case does not matter.
fn bearer(headers: &HeaderMap) -> Result<&str, Reason> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Reason::Missing)?;
    let (scheme, key) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Reason::Malformed)?;
    let key = key.trim();
    let is_key = scheme.eq_ignore_ascii_case("bearer") && (1..=KEY_LENGTH_MAX).contains(&key.len());
    if is_key { Ok(key) } else { Err(Reason::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Caller {
        Caller { identity: Identity::Admin("minji".parse().unwrap()) }
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
        let too_long = format!("Bearer {}", "k".repeat(257));
        for wrong in ["om_1", "Basic om_1", "Bearer", "Bearer ", "", &too_long] {
            assert_eq!(bearer(&with(wrong)), Err(Reason::Malformed), "{wrong:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), Err(Reason::Missing));
    }

    #[test]
    fn a_customer_acts_for_nobody_else_and_an_admin_for_anybody() {
        let (own_id, other_id) = (Uuid::now_v7(), Uuid::now_v7());
        let customer = Caller { identity: Identity::Customer(own_id) };
        assert_eq!(customer.acting_for(own_id), Ok(()));
        assert_eq!(customer.acting_for(other_id).unwrap_err().code(), Code::UserNotFound);
        assert_eq!(admin().acting_for(other_id), Ok(()));
    }

    #[test]
    fn an_administrator_is_known_by_the_name_of_the_key() {
        assert_eq!((admin().name(), admin().is_admin()), ("admin:minji".to_owned(), true));
    }
}
