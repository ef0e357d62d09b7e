//! Coupons: first come, first served, then used once.
//!
//! "First" is who is first in the log: claims of one coupon have one key, so they are decided in that order.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use ordermill_schemas::balances::BalanceOpened;
use ordermill_schemas::coupons::{
    ClaimFailure, ClaimFailureCode, CouponApplied, CouponClaimRejected, CouponClaimRequested, CouponCreated,
    CouponDiscount, CouponExpired, CouponIssued, CouponRefused, CouponReturned, CouponRevoked, CouponTerms,
};
use ordermill_schemas::orders::{Failure, FailureCode, OrderPlaced};
use ordermill_schemas::{Event, Money, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aggregate::{Aggregate, Follows, Kind, MadeOf, documents};
use crate::capability::{Capability, Decided, Reacts};
use crate::times;

/// The coupon that every new user gets. It stands in the tables from the beginning and can't be claimed.
pub const WELCOME: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);

/// A coupon that can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coupon {
    /// Its name.
    pub name: String,
    /// How much it takes off.
    pub discount: CouponDiscount,
    /// How many there are.
    pub quantity: i32,
    /// How many were issued.
    pub issued: i32,
    /// For how many days it can be used once it is issued.
    pub valid_days: i32,
    /// From when it can be claimed.
    #[serde(default, with = "times::optional", skip_serializing_if = "Option::is_none")]
    pub claimable_from: Option<Timestamp>,
    /// Until when, exclusive.
    #[serde(default, with = "times::optional", skip_serializing_if = "Option::is_none")]
    pub claimable_until: Option<Timestamp>,
    /// The subtotal that an order needs for it.
    pub min_subtotal: Money,
    /// When it was put up.
    #[serde(with = "times::required")]
    pub created_at: Timestamp,
}

impl Aggregate for Coupon {
    const KIND: Kind = Kind { made_of: MadeOf::Sums, sums: &["issued"], ..Kind::new("coupons", "coupon") };
    type Bulk = ();

    fn check(&self, _before: Option<&Coupon>) -> Result<(), &'static str> {
        if (0..=self.quantity).contains(&self.issued) {
            Ok(())
        } else {
            Err("more are issued than there are")
        }
    }
}

impl Aggregate for Claim {
    const KIND: Kind = Kind { counted_by: Some("state"), ..Kind::new("coupon_claims", "claim") };
    type Bulk = ();
}

impl Aggregate for CouponUse {
    const KIND: Kind = Kind {
        part_of: Some(Topic::Orders.name()),
        counted_by: Some("state"),
        ..Kind::new("coupon_uses", "coupon-use")
    };
    type Bulk = ();
}

impl Aggregate for UserCoupon {
    const KIND: Kind = Kind {
        follows: Some(Follows::Member { of: CouponUse::NOUN, member: "user_coupon_id", given: None }),
        made_of: MadeOf::SeveralHistories,
        counted_by: Some("state"),
        ..Kind::new("user_coupons", "user-coupon")
    };
    type Bulk = ();
}

impl Coupon {
    /// The coupon that every new user gets, as it stands in the tables from the beginning.
    #[must_use]
    pub fn welcome() -> Coupon {
        Coupon {
            name: "Welcome".to_owned(),
            discount: CouponDiscount::Percent(5),
            quantity: i32::MAX,
            issued: 0,
            valid_days: 30,
            claimable_from: None,
            claimable_until: Some(Timestamp::UNIX_EPOCH),
            min_subtotal: 0,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// The coupon as it was put up.
    #[must_use]
    pub fn created(event: &CouponCreated, at: Timestamp) -> Coupon {
        Coupon {
            name: event.name.clone(),
            discount: event.discount,
            quantity: event.quantity,
            issued: 0,
            valid_days: event.valid_days,
            claimable_from: event.claimable_from,
            claimable_until: event.claimable_until,
            min_subtotal: event.min_subtotal,
            created_at: at,
        }
    }

    /// Whether it could be claimed then.
    #[must_use]
    pub fn is_claimable_at(&self, time: Timestamp) -> bool {
        self.claimable_from.is_none_or(|from| from <= time)
            && self.claimable_until.is_none_or(|until| time < until)
    }

    /// Whether there is none left.
    #[must_use]
    pub fn is_sold_out(&self) -> bool {
        self.issued >= self.quantity
    }

    /// Whether a claim of that time can be granted, as far as is known.
    ///
    /// # Errors
    /// [`ClaimFailureCode`] where it can't.
    pub fn grants_claim_of(&self, time: Timestamp) -> Result<(), ClaimFailureCode> {
        if !self.is_claimable_at(time) {
            return Err(ClaimFailureCode::CouponNotClaimable);
        }
        if self.is_sold_out() { Err(ClaimFailureCode::CouponSoldOut) } else { Ok(()) }
    }
}

/// How far a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimState {
    /// Asked for, not decided.
    Pending,
    /// The user has got the coupon.
    Issued,
    /// The user has not.
    Rejected,
}

/// A user's claim of a coupon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The coupon.
    pub coupon_id: Uuid,
    /// Who wants it.
    pub user_id: Uuid,
    /// How far it is.
    pub state: ClaimState,
    /// Why it was rejected, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ClaimFailure>,
    /// The place among those issued, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i32>,
    /// When it was asked for.
    #[serde(with = "times::required")]
    pub requested_at: Timestamp,
    /// How many events its history has.
    pub sequence: i32,
}

/// What has become of a user's coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UserCouponState {
    /// It can be used.
    Issued,
    /// It is used for an order, which may still be refused.
    Used,
    /// Its time is over.
    Expired,
    /// It was taken away.
    Revoked,
}

/// A coupon that a user has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCoupon {
    /// The coupon.
    pub coupon_id: Uuid,
    /// The claim that it was got by.
    pub claim_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// How much it takes off.
    pub discount: CouponDiscount,
    /// The subtotal that an order needs for it.
    pub min_subtotal: Money,
    /// What has become of it.
    pub state: UserCouponState,
    /// When it was issued.
    #[serde(with = "times::required")]
    pub issued_at: Timestamp,
    /// Until when it can be used, exclusive.
    #[serde(with = "times::required")]
    pub expires_at: Timestamp,
    /// When it was used, if it is.
    #[serde(default, with = "times::optional", skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
    /// The order that it is used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Uuid>,
    /// How many events of its own its history has: expiry, revocation.
    pub sequence: i32,
}

/// How far a coupon is for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UseState {
    /// It is used.
    Applied,
    /// It could not be used.
    Refused,
    /// It was used and is not any more.
    Returned,
}

/// An order's use of a coupon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouponUse {
    /// The user's coupon.
    pub user_coupon_id: Uuid,
    /// How far it is.
    pub state: UseState,
    /// How many events its history has.
    pub sequence: i32,
}

/// Coupons, claims and what users have, with the time that they are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coupons {
    /// The time at which is decided.
    pub now: Timestamp,
    /// The coupons, by id.
    pub coupons: BTreeMap<Uuid, Coupon>,
    /// The claims, by id.
    pub claims: BTreeMap<Uuid, Claim>,
    /// The orders' uses, by order id.
    pub uses: BTreeMap<Uuid, CouponUse>,
    /// The users' coupons, by id.
    pub user_coupons: BTreeMap<Uuid, UserCoupon>,
}

documents! { Coupons { coupons: Coupon, claims: Claim, uses: CouponUse, user_coupons: UserCoupon } }

/// The id of what a claim brings: derived, so that it is brought once.
#[must_use]
pub fn user_coupon_id(claim_id: Uuid) -> Uuid {
    Uuid::new_v5(&claim_id, b"user-coupon")
}

/// The id of a new user's claim of the welcome coupon: derived, so that it is one for each user.
#[must_use]
pub fn welcome_claim_id(user_id: Uuid) -> Uuid {
    Uuid::new_v5(&user_id, b"welcome")
}

impl Reacts for Coupons {
    const READS: &'static [Topic] = &[Topic::Coupons, Topic::Orders, Topic::Balances];

    /// What an order has used follows from its use.
    fn keys(event: &Event) -> Vec<(&'static str, Uuid)> {
        match event {
            Event::CouponClaimRequested(claim) => {
                vec![(Coupon::NOUN, claim.coupon_id), (Claim::NOUN, claim.claim_id)]
            }
            Event::BalanceOpened(opened) => {
                vec![(Coupon::NOUN, WELCOME), (Claim::NOUN, welcome_claim_id(opened.user_id))]
            }
            Event::OrderPlaced(order) => order.user_coupon_id.map_or_else(Vec::new, |user_coupon_id| {
                vec![(UserCoupon::NOUN, user_coupon_id), (CouponUse::NOUN, order.order_id)]
            }),
            Event::OrderRejecting(_) | Event::OrderCancelling(_) => vec![(CouponUse::NOUN, event.key())],
            _ => Vec::new(),
        }
    }

    fn react(&mut self, event: &Event, _at: Timestamp) -> Vec<Decided> {
        let decision = match event {
            Event::CouponClaimRequested(claim) => self.decide(claim),
            Event::BalanceOpened(opened) => self.welcome(opened),
            Event::OrderPlaced(order) => self.apply(order),
            Event::OrderRejecting(order) => self.give_back(order.order_id),
            Event::OrderCancelling(order) => self.give_back(order.order_id),
            _ => None,
        };
        self.record(decision)
    }
}

impl Coupons {
    fn decide(&self, request: &CouponClaimRequested) -> Option<Event> {
        let CouponClaimRequested { claim_id, coupon_id, user_id, requested_at } = *request;
        self.claims.get(&claim_id).filter(|claim| claim.state == ClaimState::Pending)?;
        let coupon = self.coupons.get(&coupon_id)?;
        let Err(code) = coupon.grants_claim_of(requested_at) else {
            return Some(self.issued(claim_id, coupon_id, user_id, coupon));
        };
        let detail = match code {
            ClaimFailureCode::CouponNotClaimable => "claimed outside of the coupon's dates",
            ClaimFailureCode::CouponSoldOut => "others have claimed the last of these coupons before",
        };
        let failure = ClaimFailure { code, detail: detail.to_owned() };
        Some(CouponClaimRejected { claim_id, coupon_id, user_id, failure }.into())
    }

    fn welcome(&self, opened: &BalanceOpened) -> Option<Event> {
        let claim_id = welcome_claim_id(opened.user_id);
        if self.claims.contains_key(&claim_id) {
            return None;
        }
        let coupon = self.coupons.get(&WELCOME).filter(|coupon| !coupon.is_sold_out())?;
        Some(self.issued(claim_id, WELCOME, opened.user_id, coupon))
    }

    fn issued(&self, claim_id: Uuid, coupon_id: Uuid, user_id: Uuid, coupon: &Coupon) -> Event {
        let valid = SignedDuration::from_hours(24 * i64::from(coupon.valid_days));
        CouponIssued {
            claim_id,
            coupon_id,
            user_id,
            user_coupon_id: user_coupon_id(claim_id),
            position: coupon.issued + 1,
            issued_at: self.now,
            expires_at: self.now.checked_add(valid).unwrap_or(Timestamp::MAX),
            discount: coupon.discount,
            min_subtotal: coupon.min_subtotal,
        }
        .into()
    }

    fn apply(&self, order: &OrderPlaced) -> Option<Event> {
        let user_coupon_id = order.user_coupon_id?;
        if self.uses.contains_key(&order.order_id) {
            return None;
        }
        let (order_id, user_id) = (order.order_id, order.user_id);
        Some(match self.usable(order, user_coupon_id) {
            Ok(coupon) => {
                let (discount, min_subtotal) = (coupon.discount, coupon.min_subtotal);
                let terms = CouponTerms { user_coupon_id, discount, min_subtotal };
                CouponApplied { order_id, user_id, used_at: self.now, terms }.into()
            }
            Err(detail) => {
                let failure = Failure { code: FailureCode::CouponNotUsable, detail };
                CouponRefused { order_id, user_id, user_coupon_id, failure }.into()
            }
        })
    }

    fn usable(&self, order: &OrderPlaced, user_coupon_id: Uuid) -> Result<&UserCoupon, String> {
        let own = self.user_coupons.get(&user_coupon_id).filter(|coupon| coupon.user_id == order.user_id);
        let coupon = own.ok_or("the user has no such coupon")?;
        let is_over = coupon.expires_at <= self.now;
        Err(match coupon.state {
            UserCouponState::Used => "the coupon is used already".to_owned(),
            UserCouponState::Revoked => "the coupon was revoked".to_owned(),
            UserCouponState::Expired => "the coupon's time is over".to_owned(),
            UserCouponState::Issued if is_over => "the coupon's time is over".to_owned(),
            UserCouponState::Issued if order.subtotal < coupon.min_subtotal => {
                below_minimum(coupon.min_subtotal)
            }
            UserCouponState::Issued => return Ok(coupon),
        })
    }

    fn give_back(&self, order_id: Uuid) -> Option<Event> {
        let used = self.uses.get(&order_id).filter(|used| used.state == UseState::Applied)?;
        let user_id = self.user_coupons.get(&used.user_coupon_id)?.user_id;
        Some(CouponReturned { order_id, user_id, user_coupon_id: used.user_coupon_id }.into())
    }

    /// An order that is being undone hears of the coupon that it named, whatever its worker was told and was not, since somebody has discarded
    /// it as a dead letter: the coupon comes back, or was never used and will not be. Nothing where the order was answered.
    pub fn give_up(&mut self, order_id: Uuid, user_id: Uuid, user_coupon_id: Uuid) -> Option<Decided> {
        let event = if self.uses.contains_key(&order_id) {
            self.give_back(order_id)?
        } else {
            let detail = "the order was given up before the coupon was used".to_owned();
            let failure = Failure { code: FailureCode::CouponNotUsable, detail };
            CouponRefused { order_id, user_id, user_coupon_id, failure }.into()
        };
        self.record([event]).pop()
    }

    /// A user's coupon was not used in time; nothing where it is not there to be used.
    pub fn expire(&mut self, user_coupon_id: Uuid) -> Option<Decided> {
        let coupon = self.user_coupons.get(&user_coupon_id)?;
        if coupon.state != UserCouponState::Issued || coupon.expires_at > self.now {
            return None;
        }
        let (coupon_id, user_id) = (coupon.coupon_id, coupon.user_id);
        self.record([CouponExpired { user_coupon_id, coupon_id, user_id }.into()]).pop()
    }

    /// Takes a user's coupon away; nothing where it is not there to be used any more.
    ///
    /// # Errors
    /// [`InUse`] where it is used for an order.
    pub fn revoke(&mut self, user_coupon_id: Uuid) -> Result<Option<Decided>, InUse> {
        let Some(coupon) = self.user_coupons.get(&user_coupon_id) else { return Ok(None) };
        match coupon.state {
            UserCouponState::Used => Err(InUse),
            UserCouponState::Expired | UserCouponState::Revoked => Ok(None),
            UserCouponState::Issued => {
                let (coupon_id, user_id) = (coupon.coupon_id, coupon.user_id);
                Ok(self.record([CouponRevoked { user_coupon_id, coupon_id, user_id }.into()]).pop())
            }
        }
    }

    /// Puts a coupon up to be claimed.
    pub fn create(&mut self, created: CouponCreated) -> Vec<Decided> {
        self.record([created.into()])
    }

    /// A user asks for a coupon. That is only looked at: whether it is still there is certain once the claim is decided.
    ///
    /// # Errors
    /// [`ClaimFailureCode`] where it is known already that there is none for the user.
    pub fn request(
        &mut self,
        claim_id: Uuid,
        coupon_id: Uuid,
        user_id: Uuid,
        coupon: &Coupon,
    ) -> Result<Vec<Decided>, ClaimFailureCode> {
        let requested_at = self.now;
        coupon.grants_claim_of(requested_at)?;
        Ok(self.record([CouponClaimRequested { claim_id, coupon_id, user_id, requested_at }.into()]))
    }

    fn issue(&mut self, issued: &CouponIssued) {
        if let Some(coupon) = self.coupons.get_mut(&issued.coupon_id) {
            coupon.issued = issued.position;
        }
        // A welcome coupon is not asked for, so its claim begins here.
        let claim = self
            .claims
            .entry(issued.claim_id)
            .or_insert_with(|| new_claim(issued.coupon_id, issued.user_id, issued.issued_at));
        claim.state = ClaimState::Issued;
        claim.position = Some(issued.position);
        claim.sequence += 1;
        let coupon = UserCoupon {
            coupon_id: issued.coupon_id,
            claim_id: issued.claim_id,
            user_id: issued.user_id,
            discount: issued.discount,
            min_subtotal: issued.min_subtotal,
            state: UserCouponState::Issued,
            issued_at: issued.issued_at,
            expires_at: issued.expires_at,
            used_at: None,
            order_id: None,
            sequence: 0,
        };
        self.user_coupons.insert(issued.user_coupon_id, coupon);
    }

    fn set_use(&mut self, order_id: Uuid, user_coupon_id: Uuid, state: UseState) {
        let used = self.uses.entry(order_id).or_insert(CouponUse { user_coupon_id, state, sequence: 0 });
        used.state = state;
        used.sequence += 1;
    }

    fn end(&mut self, user_coupon_id: Uuid, state: UserCouponState) {
        if let Some(coupon) = self.user_coupons.get_mut(&user_coupon_id) {
            coupon.state = state;
            coupon.sequence += 1;
        }
    }
}

impl Capability for Coupons {
    const TOPIC: Topic = Topic::Coupons;

    fn now(&mut self) -> &mut Timestamp {
        &mut self.now
    }

    fn sequence(&self, event: &Event) -> i32 {
        match event {
            // A coupon itself has one event.
            Event::CouponCreated(_) => 1,
            Event::CouponClaimRequested(_) | Event::CouponIssued(_) | Event::CouponClaimRejected(_) => {
                self.claims.get(&event.aggregate_id()).map_or(0, |claim| claim.sequence)
            }
            Event::CouponExpired(_) | Event::CouponRevoked(_) => {
                self.user_coupons.get(&event.aggregate_id()).map_or(0, |coupon| coupon.sequence)
            }
            _ => self.uses.get(&event.key()).map_or(0, |used| used.sequence),
        }
    }

    fn evolve(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::CouponCreated(e) => {
                self.coupons.insert(e.coupon_id, Coupon::created(e, at));
            }
            Event::CouponClaimRequested(e) => {
                let claim = new_claim(e.coupon_id, e.user_id, e.requested_at);
                self.claims.insert(e.claim_id, Claim { sequence: 1, ..claim });
            }
            Event::CouponIssued(e) => self.issue(e),
            Event::CouponClaimRejected(e) => {
                if let Some(claim) = self.claims.get_mut(&e.claim_id) {
                    claim.state = ClaimState::Rejected;
                    claim.failure = Some(e.failure.clone());
                    claim.sequence += 1;
                }
            }
            Event::CouponApplied(e) => {
                self.set_use(e.order_id, e.terms.user_coupon_id, UseState::Applied);
                if let Some(coupon) = self.user_coupons.get_mut(&e.terms.user_coupon_id) {
                    coupon.state = UserCouponState::Used;
                    (coupon.used_at, coupon.order_id) = (Some(e.used_at), Some(e.order_id));
                }
            }
            Event::CouponRefused(e) => self.set_use(e.order_id, e.user_coupon_id, UseState::Refused),
            Event::CouponReturned(e) => {
                self.set_use(e.order_id, e.user_coupon_id, UseState::Returned);
                // Where its time is over meanwhile, it expires like any other.
                if let Some(coupon) = self.user_coupons.get_mut(&e.user_coupon_id) {
                    coupon.state = UserCouponState::Issued;
                    (coupon.used_at, coupon.order_id) = (None, None);
                }
            }
            Event::CouponExpired(e) => self.end(e.user_coupon_id, UserCouponState::Expired),
            Event::CouponRevoked(e) => self.end(e.user_coupon_id, UserCouponState::Revoked),
            _ => {}
        }
    }
}

/// A user's coupon can't be taken away: it is used for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse;

/// Why an order of too low a subtotal can't have a coupon.
pub(crate) fn below_minimum(min_subtotal: Money) -> String {
    format!("the coupon needs a subtotal of at least {min_subtotal}")
}

fn new_claim(coupon_id: Uuid, user_id: Uuid, requested_at: Timestamp) -> Claim {
    Claim {
        coupon_id,
        user_id,
        state: ClaimState::Pending,
        failure: None,
        position: None,
        requested_at,
        sequence: 0,
    }
}

#[cfg(test)]
mod tests {
    use ordermill_schemas::orders::PaymentMethod;

    use super::*;

    const COUPON: Uuid = Uuid::from_u128(1);

    fn user(number: u128) -> Uuid {
        Uuid::from_u128(100 + number)
    }

    fn claim_id(number: u128) -> Uuid {
        Uuid::from_u128(1_000 + number)
    }

    fn shop(quantity: i32) -> Coupons {
        let mut coupons = Coupons::default();
        coupons.evolve(
            &CouponCreated {
                coupon_id: COUPON,
                name: "Spring".to_owned(),
                discount: CouponDiscount::Percent(10),
                quantity,
                valid_days: 30,
                claimable_from: None,
                claimable_until: Some(Timestamp::from_second(1_000).unwrap()),
                min_subtotal: 500,
            }
            .into(),
            Timestamp::UNIX_EPOCH,
        );
        coupons
    }

    fn request(coupons: &mut Coupons, number: u128, at: i64) -> Event {
        let requested_at = Timestamp::from_second(at).unwrap();
        let (claim_id, user_id) = (claim_id(number), user(number));
        let event: Event = CouponClaimRequested { claim_id, coupon_id: COUPON, user_id, requested_at }.into();
        coupons.evolve(&event, Timestamp::UNIX_EPOCH);
        event
    }

    fn placed(order: u128, user_id: Uuid, user_coupon_id: Uuid, subtotal: Money) -> Event {
        OrderPlaced {
            order_id: Uuid::from_u128(order),
            user_id,
            lines: Vec::new(),
            payment_method: PaymentMethod::Balance,
            user_coupon_id: Some(user_coupon_id),
            subtotal,
            discounts: Vec::new(),
            total: subtotal,
            deadline_at: Timestamp::UNIX_EPOCH,
        }
        .into()
    }

    fn names(decided: &[Decided]) -> Vec<&'static str> {
        decided.iter().map(|decided| decided.event.name()).collect()
    }

    #[test]
    fn the_first_of_the_log_get_one_each_without_a_gap_and_the_others_are_told() {
        let mut coupons = shop(3);
        let requests: Vec<Event> = (0..5).map(|number| request(&mut coupons, number, 10)).collect();
        for event in &requests {
            coupons.react(event, Timestamp::UNIX_EPOCH);
            // Repeated, it is decided already.
            assert!(coupons.react(event, Timestamp::UNIX_EPOCH).is_empty());
        }
        let positions: Vec<_> = (0..5).map(|n| coupons.claims[&claim_id(n)].position).collect();
        assert_eq!(positions, [Some(1), Some(2), Some(3), None, None]);
        assert_eq!(coupons.coupons[&COUPON].issued, 3);
        let failure = coupons.claims[&claim_id(4)].failure.clone().unwrap();
        assert_eq!(failure.code, ClaimFailureCode::CouponSoldOut);
    }

    #[test]
    fn a_claim_outside_of_the_dates_is_rejected() {
        let mut coupons = shop(3);
        let late = request(&mut coupons, 0, 1_000);
        assert_eq!(names(&coupons.react(&late, Timestamp::UNIX_EPOCH)), ["coupon.claim_rejected"]);
        let in_time = request(&mut coupons, 1, 999);
        assert_eq!(names(&coupons.react(&in_time, Timestamp::UNIX_EPOCH)), ["coupon.issued"]);
    }

    fn with_one_issued() -> (Coupons, Uuid) {
        let mut coupons = shop(3);
        let event = request(&mut coupons, 0, 10);
        coupons.react(&event, Timestamp::UNIX_EPOCH);
        (coupons, user_coupon_id(claim_id(0)))
    }

    #[test]
    fn a_coupon_is_used_once_and_can_be_used_again_after_it_was_returned() {
        let (mut coupons, own) = with_one_issued();
        assert_eq!(
            names(&coupons.react(&placed(1, user(0), own, 500), Timestamp::UNIX_EPOCH)),
            ["coupon.applied"]
        );
        assert!(coupons.react(&placed(1, user(0), own, 500), Timestamp::UNIX_EPOCH).is_empty());
        assert_eq!(
            names(&coupons.react(&placed(2, user(0), own, 500), Timestamp::UNIX_EPOCH)),
            ["coupon.refused"]
        );
        let rejecting = ordermill_schemas::orders::OrderRejecting {
            order_id: Uuid::from_u128(1),
            user_id: user(0),
            failure: Failure { code: FailureCode::OutOfStock, detail: String::new() },
            charge_due: false,
        };
        assert_eq!(
            names(&coupons.react(&rejecting.clone().into(), Timestamp::UNIX_EPOCH)),
            ["coupon.returned"]
        );
        assert!(coupons.react(&rejecting.into(), Timestamp::UNIX_EPOCH).is_empty());
        assert_eq!(
            names(&coupons.react(&placed(3, user(0), own, 500), Timestamp::UNIX_EPOCH)),
            ["coupon.applied"]
        );
    }

    #[test]
    fn a_coupon_of_another_too_low_a_subtotal_expired_or_revoked_is_not_usable() {
        let (mut coupons, own) = with_one_issued();
        assert_eq!(
            names(&coupons.react(&placed(1, user(1), own, 500), Timestamp::UNIX_EPOCH)),
            ["coupon.refused"]
        );
        assert_eq!(
            names(&coupons.react(&placed(2, user(0), own, 499), Timestamp::UNIX_EPOCH)),
            ["coupon.refused"]
        );
        assert_eq!(
            names(&coupons.react(&placed(3, user(0), Uuid::nil(), 500), Timestamp::UNIX_EPOCH)),
            ["coupon.refused"]
        );
        assert_eq!(coupons.expire(own), None);
        coupons.now = coupons.user_coupons[&own].expires_at;
        assert_eq!(
            names(&coupons.react(&placed(4, user(0), own, 500), Timestamp::UNIX_EPOCH)),
            ["coupon.refused"]
        );
        assert_eq!(coupons.expire(own).unwrap().event.name(), "coupon.expired");
        assert_eq!(coupons.expire(own), None);
        let (mut coupons, own) = with_one_issued();
        assert!(coupons.revoke(own).unwrap().is_some());
        assert_eq!(
            names(&coupons.react(&placed(5, user(0), own, 500), Timestamp::UNIX_EPOCH)),
            ["coupon.refused"]
        );
    }

    #[test]
    fn a_coupon_that_is_used_is_not_revoked() {
        let (mut coupons, own) = with_one_issued();
        coupons.react(&placed(1, user(0), own, 500), Timestamp::UNIX_EPOCH);
        assert_eq!(coupons.revoke(own), Err(InUse));
    }

    #[test]
    fn an_order_that_is_undone_hears_of_its_coupon_once_whatever_its_worker_was_told() {
        let (mut coupons, own) = with_one_issued();
        let (never_asked, used) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(coupons.give_up(never_asked, user(0), own).unwrap().event.name(), "coupon.refused");
        assert_eq!(coupons.give_up(never_asked, user(0), own), None);
        let asked = coupons.react(&placed(1, user(0), own, 500), Timestamp::UNIX_EPOCH);
        assert!(asked.is_empty(), "what comes too late does not use it");
        coupons.react(&placed(2, user(0), own, 500), Timestamp::UNIX_EPOCH);
        assert_eq!(coupons.user_coupons[&own].order_id, Some(used));
        assert_eq!(coupons.give_up(used, user(0), own).unwrap().event.name(), "coupon.returned");
        assert_eq!(coupons.give_up(used, user(0), own), None);
        assert_eq!(coupons.user_coupons[&own].state, UserCouponState::Issued);
    }

    #[test]
    fn a_new_user_is_welcomed_once() {
        let mut coupons = Coupons::default();
        coupons.coupons.insert(WELCOME, shop(i32::MAX).coupons[&COUPON].clone());
        let opened: Event = BalanceOpened { user_id: user(0) }.into();
        assert_eq!(names(&coupons.react(&opened, Timestamp::UNIX_EPOCH)), ["coupon.issued"]);
        assert!(coupons.react(&opened, Timestamp::UNIX_EPOCH).is_empty());
        assert_eq!(coupons.claims[&welcome_claim_id(user(0))].sequence, 1);
    }
}
