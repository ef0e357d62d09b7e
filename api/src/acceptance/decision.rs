//! Whether an order can be taken, and for how much: pure.

use std::collections::HashMap;

use ordermill_domain::pricing::{self, Quote};
use ordermill_schemas::orders::{OrderLine, PaymentMethod};
use ordermill_schemas::stock::StockLine;
use ordermill_store::acceptance::References;
use uuid::Uuid;

use crate::path;
use crate::problem::{Code, FieldError, Problem};

/// An order that somebody wants, of the right shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Who buys.
    pub(crate) user_id: Uuid,
    /// What, each product once.
    pub(crate) lines: Vec<StockLine>,
    /// How it is to be paid.
    pub(crate) payment_method: PaymentMethod,
    /// The coupon to be used, if any.
    pub(crate) user_coupon_id: Option<Uuid>,
}

/// The order's lines at today's prices, and what they cost together.
///
/// # Errors
/// `USER_NOT_FOUND`, or those of [`order_lines`].
pub(crate) fn price(wanted: &Wanted, references: &References) -> Result<(Vec<OrderLine>, Quote), Problem> {
    if !references.users.contains(&wanted.user_id) {
        return Err(path::unknown::<path::User>());
    }
    let lines = order_lines(&wanted.lines, references, &HashMap::new())?;
    let quote = pricing::quote(&lines, wanted.payment_method, None);
    Ok((lines, quote))
}

/// The lines that are wanted: what is `kept` at the price that it has there, the rest at today's. More of a product than is
/// kept must be for sale, too.
///
/// # Errors
/// `PRODUCT_NOT_FOUND`, `PRODUCT_WITHDRAWN`, with every line that can't be had.
pub(crate) fn order_lines(
    wanted: &[StockLine],
    references: &References,
    kept: &HashMap<Uuid, OrderLine>,
) -> Result<Vec<OrderLine>, Problem> {
    let mut errors = Vec::new();
    let mut lines = Vec::with_capacity(wanted.len());
    for (index, line) in wanted.iter().enumerate() {
        let offer = references.offers.get(&line.product_id);
        let is_for_sale = offer.is_some_and(|offer| !offer.withdrawn);
        if let Some(kept) = kept.get(&line.product_id)
            && (line.quantity <= kept.quantity || is_for_sale)
        {
            lines.push(OrderLine { quantity: line.quantity, ..kept.clone() });
            continue;
        }
        let mut refuse = |code: Code, detail: &'static str| {
            let field = format!("lines[{index}].product_id").into();
            errors.push((code, FieldError { field, code: code.text(), detail: detail.into() }));
        };
        match offer {
            None => refuse(Code::OrderedProductNotFound, "there is no such product"),
            Some(offer) if offer.withdrawn => {
                refuse(Code::ProductWithdrawn, "this product is not for sale any more");
            }
            Some(offer) => lines.push(OrderLine {
                product_id: line.product_id,
                name: offer.name.clone(),
                category: offer.category.clone(),
                unit_price: offer.price,
                quantity: line.quantity,
            }),
        }
    }
    if errors.is_empty() { Ok(lines) } else { Err(refusal(errors)) }
}

/// An unknown product is the graver fault: the request as a whole says so, each line what is true of it.
fn refusal(errors: Vec<(Code, FieldError)>) -> Problem {
    let has_unknown = errors.iter().any(|(code, _)| *code == Code::OrderedProductNotFound);
    let code = if has_unknown { Code::OrderedProductNotFound } else { Code::ProductWithdrawn };
    let errors = errors.into_iter().map(|(_, error)| error).collect();
    Problem::new(code, "some lines can't be ordered; see errors").with_errors(errors)
}

#[cfg(test)]
mod tests {
    use ordermill_store::acceptance::Offer;

    use super::*;

    const USER: Uuid = Uuid::from_u128(1);
    const ON_SALE: Uuid = Uuid::from_u128(2);
    const WITHDRAWN: Uuid = Uuid::from_u128(3);
    const UNKNOWN: Uuid = Uuid::from_u128(4);

    fn references() -> References {
        let offer = |withdrawn| Offer { name: "Tea".into(), category: "FOOD".into(), price: 300, withdrawn };
        References {
            users: [USER].into(),
            offers: [(ON_SALE, offer(false)), (WITHDRAWN, offer(true))].into(),
        }
    }

    fn wanted(user_id: Uuid, product_ids: &[Uuid]) -> Wanted {
        let lines = product_ids.iter().map(|id| StockLine { product_id: *id, quantity: 2 }).collect();
        Wanted { user_id, lines, payment_method: PaymentMethod::Balance, user_coupon_id: None }
    }

    #[test]
    fn the_price_is_the_shops_and_is_fixed_with_the_name() {
        let (lines, quote) = price(&wanted(USER, &[ON_SALE]), &references()).unwrap();
        assert_eq!((lines[0].name.as_str(), lines[0].unit_price, lines[0].quantity), ("Tea", 300, 2));
        assert_eq!((quote.subtotal, quote.total), (600, 600));
    }

    #[test]
    fn what_is_kept_keeps_its_price_and_of_what_was_withdrawn_there_is_no_more() {
        let line = |product_id: Uuid| OrderLine {
            product_id,
            name: "Tea".into(),
            category: "FOOD".into(),
            unit_price: 200,
            quantity: 2,
        };
        let kept: HashMap<Uuid, OrderLine> = [ON_SALE, WITHDRAWN].map(|id| (id, line(id))).into();
        let lines = |product_id, quantity| {
            let wanted = [StockLine { product_id, quantity }];
            let lines = order_lines(&wanted, &references(), &kept);
            lines.map(|lines| (lines[0].unit_price, lines[0].quantity)).map_err(|problem| problem.code())
        };
        assert_eq!(lines(ON_SALE, 3), Ok((200, 3)));
        assert_eq!(lines(WITHDRAWN, 1), Ok((200, 1)));
        assert_eq!(lines(WITHDRAWN, 2), Ok((200, 2)));
        assert_eq!(lines(WITHDRAWN, 3), Err(Code::ProductWithdrawn));
    }

    #[test]
    fn who_is_not_there_buys_nothing() {
        let problem = price(&wanted(UNKNOWN, &[ON_SALE]), &references()).unwrap_err();
        assert_eq!(problem.code(), Code::UserNotFound);
    }

    #[test]
    fn every_line_that_cannot_be_had_is_named() {
        let problem = price(&wanted(USER, &[WITHDRAWN, ON_SALE, UNKNOWN]), &references()).unwrap_err();
        assert_eq!(problem.code(), Code::OrderedProductNotFound);
        let text = format!("{problem:?}");
        for named in ["lines[0].product_id", "PRODUCT_WITHDRAWN", "lines[2].product_id", "PRODUCT_NOT_FOUND"]
        {
            assert!(text.contains(named), "{text}");
        }
        assert!(!text.contains("lines[1]"), "{text}");
        let problem = price(&wanted(USER, &[WITHDRAWN]), &references()).unwrap_err();
        assert_eq!(problem.code(), Code::ProductWithdrawn);
    }
}
