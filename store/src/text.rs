//! The words that the tables use for the domain's states.

use ordermill_domain::coupons::{ClaimState, UseState, UserCouponState};
use ordermill_domain::orders::{CouponStep, OrderStatus, PaymentStep, StockStep};
use ordermill_domain::payments::ChargeState;
use ordermill_domain::stock::ReservationState;
use ordermill_pipeline::consumer::HandlerError;
use ordermill_schemas::coupons::ClaimFailureCode;
use ordermill_schemas::orders::{FailureCode, PaymentMethod};

/// A row holds a word that no version of this program writes there.
#[derive(Debug, thiserror::Error)]
#[error("{column} holds the unknown word {word:?}")]
pub struct CorruptText {
    /// The column.
    pub column: &'static str,
    /// What it holds.
    pub word: String,
}

impl From<CorruptText> for sqlx::Error {
    fn from(error: CorruptText) -> sqlx::Error {
        sqlx::Error::Decode(Box::new(error))
    }
}

impl From<CorruptText> for HandlerError {
    fn from(error: CorruptText) -> HandlerError {
        HandlerError::Corrupt(error.to_string())
    }
}

/// A state that is kept as a word.
pub(crate) trait Word: Sized + Copy + PartialEq + 'static {
    /// Where it is kept, for the message when it can't be read.
    const COLUMN: &'static str;
    /// Every state with its word.
    const WORDS: &'static [(Self, &'static str)];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    fn parse(word: &str) -> Result<Self, CorruptText> {
        let found = Self::WORDS.iter().find(|(_, known)| *known == word).map(|(state, _)| *state);
        found.ok_or_else(|| CorruptText { column: Self::COLUMN, word: word.to_owned() })
    }
}

macro_rules! words {
    ($($Type:ident in $column:literal { $($State:ident $word:literal),* $(,)? })*) => {
        $(
            impl Word for $Type {
                const COLUMN: &'static str = $column;
                const WORDS: &'static [(Self, &'static str)] = &[$(($Type::$State, $word)),*];
            }
        )*

        #[cfg(test)]
        mod tests {
            use super::*;

            #[test]
            fn every_state_reads_back_from_its_word() {
                $(
                    for (state, word) in $Type::WORDS {
                        assert_eq!($Type::parse(word).unwrap(), *state);
                        assert_eq!(state.word(), *word);
                    }
                    assert!($Type::parse("NONSENSE").is_err());
                )*
            }
        }
    };
}

words! {
    OrderStatus in "orders.status" {
        Pending "PENDING", Rejecting "REJECTING", Rejected "REJECTED", Confirmed "CONFIRMED",
        Modifying "MODIFYING", ModificationApplying "MODIFICATION_APPLYING",
        ModificationRefusing "MODIFICATION_REFUSING", Cancelling "CANCELLING", Cancelled "CANCELLED",
        PartiallyShipped "PARTIALLY_SHIPPED", Shipped "SHIPPED", Delivered "DELIVERED",
    }
    StockStep in "orders.stock_step" {
        Asked "ASKED", Reserved "RESERVED", Deducted "DEDUCTED", Short "SHORT", Refused "REFUSED",
        Released "RELEASED",
    }
    PaymentStep in "orders.payment_step" {
        NotDue "NOT_DUE", Due "DUE", Completed "COMPLETED", Failed "FAILED",
        Refunded "REFUNDED",
    }
    CouponStep in "orders.coupon_step" {
        NotUsed "NOT_USED", Asked "ASKED", Applied "APPLIED", Refused "REFUSED", Returned "RETURNED",
    }
    ClaimState in "coupon_claims.state" {
        Pending "PENDING", Issued "ISSUED", Rejected "REJECTED",
    }
    ClaimFailureCode in "coupon_claims.failure_code" {
        CouponSoldOut "COUPON_SOLD_OUT", CouponNotClaimable "COUPON_NOT_CLAIMABLE",
    }
    UserCouponState in "user_coupons.state" {
        Issued "ISSUED", Used "USED", Expired "EXPIRED", Revoked "REVOKED",
    }
    UseState in "coupon_uses.state" {
        Applied "APPLIED", Refused "REFUSED", Returned "RETURNED",
    }
    PaymentMethod in "payment_method" {
        Balance "BALANCE", Card "CARD", BankTransfer "BANK_TRANSFER",
    }
    FailureCode in "orders.failure_code" {
        OutOfStock "OUT_OF_STOCK", InsufficientBalance "INSUFFICIENT_BALANCE",
        CouponNotUsable "COUPON_NOT_USABLE", PaymentDeclined "PAYMENT_DECLINED",
        PaymentUnavailable "PAYMENT_UNAVAILABLE", DeadlineExceeded "DEADLINE_EXCEEDED",
    }
    ChargeState in "payments.state" {
        Requested "REQUESTED", Voiding "VOIDING", Completed "COMPLETED", Failed "FAILED",
    }
    ReservationState in "stock_reservations.state" {
        Reserved "RESERVED", Refused "REFUSED", Deducted "DEDUCTED", Short "SHORT", Released "RELEASED",
    }
}
