//! Ids in paths. What is no id names nothing: 404 of the noun, like an id that nobody has.

use std::marker::PhantomData;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{RefOr, Required};
use uuid::Uuid;

use crate::problem::{Code, Problem, Refuses};

/// How long an id is in the one form that is accepted: five groups with hyphens.
const ID_LENGTH: usize = 36;

/// A kind of thing that paths name by id.
pub(crate) trait Noun: Send {
    /// The answer where there is none of that id.
    const UNKNOWN: Code;
    /// The same for people.
    const DETAIL: &'static str;
    /// The parameter in the paths.
    const PARAMETER: &'static str;
}

macro_rules! nouns {
    ($($Noun:ident $Code:ident $detail:literal $name:literal $title:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($Noun), "`s, by their ids in paths.")]
            #[derive(Debug)]
            pub(crate) struct $Noun;

            impl Noun for $Noun {
                const UNKNOWN: Code = Code::$Code;
                const DETAIL: &'static str = $detail;
                const PARAMETER: &'static str = $name;
            }
        )*

        /// The parameters of all nouns, and what they name.
        const PARAMETERS: &[(&str, &str)] = &[$(($name, $title)),*];
    };
}

nouns! {
    User UserNotFound "there is no user of this id" "user_id" "The user";
    Product ProductNotFound "there is no product of this id" "product_id" "The product";
    Order OrderNotFound "there is no order of this id" "order_id" "The order";
    Shipment ShipmentNotFound "there is no shipment of this id" "shipment_id" "The shipment";
    Coupon CouponNotFound "there is no coupon of this id" "coupon_id" "The coupon";
    Claim ClaimNotFound "the coupon has no claim of this id" "claim_id" "The claim";
    UserCoupon UserCouponNotFound "no user has a coupon of this id" "user_coupon_id" "The user's coupon";
    DeadLetter DeadLetterNotFound "there is no dead letter of this id" "dead_letter_id" "The dead letter";
    Replay ReplayNotFound "there is no replay of this id" "replay_id" "The replay";
}

/// The answer where there is none of that noun.
pub(crate) fn unknown<N: Noun>() -> Problem {
    Problem::new(N::UNKNOWN, N::DETAIL)
}

/// The id of such a thing in the path.
#[derive(Debug)]
pub(crate) struct Id<N>(pub(crate) Uuid, pub(crate) PhantomData<N>);

impl<N: Noun, S: Send + Sync> FromRequestParts<S> for Id<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id<N>, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| unknown::<N>())?;
        let id = params.iter().find(|(name, _)| *name == N::PARAMETER).and_then(|(_, text)| parse(text));
        id.map(|id| Id(id, PhantomData)).ok_or_else(unknown::<N>)
    }
}

impl<N: Noun> Refuses for Id<N> {
    fn add_codes(codes: &mut Vec<Code>) {
        codes.push(N::UNKNOWN);
    }
}

/// The ids that a path names, as the document shows them.
pub(crate) fn parameters(path: &str) -> impl Iterator<Item = RefOr<Parameter>> {
    let names = path.split(['{', '}']).skip(1).step_by(2);
    let known = names.filter_map(|name| PARAMETERS.iter().find(|(known, _)| *known == name));
    known.map(|(name, title)| {
        let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Path);
        let parameter = parameter.required(Required::True).description(Some(*title));
        parameter.schema(Some(utoipa::schema!(Uuid))).build().into()
    })
}

/// An id in the one form that is accepted.
pub(crate) fn parse(text: &str) -> Option<Uuid> {
    if text.len() == ID_LENGTH { Uuid::try_parse(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_form() {
        let id = "0192f0c1-7a3e-7000-8000-0123456789ab";
        assert_eq!(parse(id).map(|id| id.to_string()).as_deref(), Some(id));
        assert!(parse(&id.to_uppercase()).is_some());
        for wrong in ["", "1", "me", &id.replace('-', ""), &format!("{{{id}}}"), &id.replace('a', "g")] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
