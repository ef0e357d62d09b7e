//! How the golden log was made: the deciders, driven through a shop's day. Time goes on by itself, ids count.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use ordermill_domain::aggregate::{Document, Documents as _};
use ordermill_domain::capability::{Capability as _, Decided, Reacts as _};
use ordermill_domain::coupons::{Coupon, WELCOME, user_coupon_id, welcome_claim_id};
use ordermill_domain::orders::{Order, Refusal, Replacement};
use ordermill_domain::payments::{GatewayResult, GatewayTask, Outcome};
use ordermill_domain::pricing::quote;
use ordermill_domain::products::ProductChange;
use ordermill_schemas::coupons::{CouponCreated, CouponDiscount};
use ordermill_schemas::orders::{Failure, FailureCode, OrderLine, OrderPlaced, PaymentMethod};
use ordermill_schemas::payments::{Attempt, GatewayCall};
use ordermill_schemas::products::ProductCreated;
use ordermill_schemas::stock::StockLine;
use ordermill_schemas::{Event, Topic};
use serde_json::{Value, json};
use uuid::Uuid;

/// An event as it stands in the log.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) position: i64,
    pub(crate) event_id: Uuid,
    pub(crate) at: Timestamp,
    pub(crate) event: Event,
}

macro_rules! deciders {
    ($($noun:ident $Name:ident $(($($parts:tt)+))?;)+) => {
        /// Every capability, in memory.
        #[derive(Default)]
        struct Deciders {
            $($noun: ordermill_domain::$noun::$Name,)+
        }

        impl Deciders {
            fn decide_at(&mut self, now: Timestamp) {
                $(*self.$noun.now() = now;)+
            }

            /// What follows from an event by the rules of all but the orders, which have an order of reading of their own.
            fn participate(&mut self, event: &Event, at: Timestamp) -> Vec<Decided> {
                let mut decided = Vec::new();
                $(if Topic::$Name != Topic::Orders {
                    decided.extend(self.$noun.react(event, at));
                })+
                decided
            }

            fn documents(&self) -> Vec<Document> {
                [$(self.$noun.changes(&Default::default()).unwrap()),+].concat()
            }
        }
    };
}

ordermill_schemas::capabilities!(deciders);

/// A shop and all that has happened in it.
pub(crate) struct Story {
    pub(crate) log: Vec<Told>,
    /// What clients read of balances.
    pub(crate) entries: Vec<Value>,
    now: Timestamp,
    deciders: Deciders,
    /// How much of the log the participants have read.
    participants: usize,
    /// How much of it the worker of orders has read.
    pub(crate) seen_by_orders: usize,
    ids: u128,
    /// What the gateway answers to a charge.
    gateway: Gateway,
}

#[derive(Clone, Copy, PartialEq)]
enum Gateway {
    Approves,
    Declines,
    IsSilent,
}

/// Something of the shop that is named.
struct Shop {
    ann: Uuid,
    bob: Uuid,
    lamp: OrderLine,
    chair: OrderLine,
}

impl Shop {
    fn lines(&self, lamps: i32, chairs: i32) -> Vec<OrderLine> {
        let of = |line: &OrderLine, quantity| OrderLine { quantity, ..line.clone() };
        let lines = [of(&self.lamp, lamps), of(&self.chair, chairs)];
        lines.into_iter().filter(|line| line.quantity > 0).collect()
    }
}

/// All of it.
pub(crate) fn tell() -> Story {
    let mut story = Story::begin();
    let shop = story.open();
    let spring = story.coupons(&shop);
    story.changed(&shop, spring);
    story.shipped(&shop);
    story.cancelled(&shop);
    story.refused(&shop);
    story.given_up(&shop);
    story.tidied_up(&shop);
    story.under_way(&shop);
    story
}

impl Story {
    fn begin() -> Story {
        let mut deciders = Deciders::default();
        deciders.coupons.coupons.insert(WELCOME, Coupon::welcome());
        Story {
            log: Vec::new(),
            entries: Vec::new(),
            now: Timestamp::from_second(1_790_000_000).unwrap(),
            deciders,
            participants: 0,
            seen_by_orders: 0,
            ids: 0,
            gateway: Gateway::Approves,
        }
    }

    /// Two users, one with money; two products, one of them counted again.
    fn open(&mut self) -> Shop {
        let (ann, bob) = (self.id(), self.id());
        for user in [ann, bob] {
            self.tick();
            let opened = self.deciders.payments.open(user);
            self.append(opened);
        }
        self.tick();
        let charged = self.deciders.payments.charge(ann, 100_000);
        self.append(charged);
        let lamp = self.product("Lamp", 1_000, 20);
        let chair = self.product("전등 \"의자\"\n\\", 333, 0);
        for (delta, reason) in [(50, "delivery"), (-1, "counted")] {
            self.tick();
            let adjusted = self.deciders.stock.adjust(chair.product_id, delta, reason.to_owned()).unwrap();
            self.append(adjusted);
        }
        self.settle();
        Shop { ann, bob, lamp, chair }
    }

    fn product(&mut self, name: &str, unit_price: i64, units: i64) -> OrderLine {
        let (product_id, category) = (self.id(), "HOME".to_owned());
        let (name, description) = (name.to_owned(), String::new());
        self.tick();
        let created = ProductCreated {
            product_id,
            name: name.clone(),
            description,
            category: category.clone(),
            price: unit_price,
        };
        let created = self.deciders.stock.create(created, units);
        self.append(created);
        OrderLine { product_id, name, category, unit_price, quantity: 0 }
    }

    /// A coupon of which there is one: the first gets it, the other does not.
    fn coupons(&mut self, shop: &Shop) -> Uuid {
        let coupon_id = self.id();
        self.tick();
        let created = self.deciders.coupons.create(CouponCreated {
            coupon_id,
            name: "Spring".to_owned(),
            discount: CouponDiscount::Fixed(150),
            quantity: 1,
            valid_days: 90,
            claimable_from: Some(self.now),
            claimable_until: None,
            min_subtotal: 1_000,
        });
        self.append(created);
        let claims = [(self.id(), shop.ann), (self.id(), shop.bob)];
        for (claim_id, user) in claims {
            self.tick();
            let coupon = self.deciders.coupons.coupons[&coupon_id].clone();
            let requested = self.deciders.coupons.request(claim_id, coupon_id, user, &coupon).unwrap();
            self.append(requested);
        }
        self.settle();
        user_coupon_id(claims[0].0)
    }

    /// Confirmed with a coupon; made dearer, then cheaper; then there is not enough for a third change.
    fn changed(&mut self, shop: &Shop, coupon: Uuid) {
        let order = self.place(shop.ann, shop.lines(2, 1), PaymentMethod::Balance, Some(coupon));
        self.settle();
        for lines in [shop.lines(3, 2), shop.lines(1, 3), shop.lines(40, 1)] {
            self.modify(order, lines);
            self.settle();
        }
    }

    /// Sent off in two parts, of which both arrive.
    fn shipped(&mut self, shop: &Shop) {
        let order = self.place(shop.bob, shop.lines(2, 4), PaymentMethod::Card, None);
        self.settle();
        let part = |line: &OrderLine, quantity| vec![StockLine { product_id: line.product_id, quantity }];
        let parts = [(self.id(), part(&shop.lamp, 2)), (self.id(), part(&shop.chair, 4))];
        for (shipment_id, lines) in &parts {
            self.command(order, |order| order.ship(*shipment_id, lines.clone()).map(Some));
            self.command(order, |order| order.deliver(*shipment_id).map(Some));
        }
        let third = self.place(shop.bob, shop.lines(3, 0), PaymentMethod::BankTransfer, None);
        self.settle();
        let shipment_id = self.id();
        self.command(third, |order| order.ship(shipment_id, part(&shop.lamp, 1)).map(Some));
    }

    /// Confirmed with the welcome coupon, and cancelled: money, stock and coupon come back.
    fn cancelled(&mut self, shop: &Shop) {
        let welcome = user_coupon_id(welcome_claim_id(shop.ann));
        let order = self.place(shop.ann, shop.lines(4, 1), PaymentMethod::Balance, Some(welcome));
        self.settle();
        let deadline_at = self.deadline();
        self.command(order, |order| order.cancel(deadline_at));
        self.settle();
    }

    /// For want of stock, of money, of a coupon; and by the gateway.
    fn refused(&mut self, shop: &Shop) {
        let stranger = user_coupon_id(welcome_claim_id(shop.ann));
        self.place(shop.ann, shop.lines(40, 0), PaymentMethod::Balance, None);
        self.place(shop.bob, shop.lines(1, 0), PaymentMethod::Balance, None);
        self.place(shop.bob, shop.lines(1, 0), PaymentMethod::Card, Some(stranger));
        self.settle();
        self.gateway = Gateway::Declines;
        self.place(shop.ann, shop.lines(1, 1), PaymentMethod::Balance, None);
        self.settle();
    }

    /// The gateway does not answer in time, and the charge is voided; or it declines what a change costs more.
    fn given_up(&mut self, shop: &Shop) {
        self.gateway = Gateway::IsSilent;
        let order = self.place(shop.ann, shop.lines(0, 5), PaymentMethod::Balance, None);
        self.settle();
        self.command(order, |order| Ok(order.expire(Timestamp::MAX)));
        self.settle();
        self.gateway = Gateway::Approves;
        let order = self.place(shop.bob, shop.lines(0, 1), PaymentMethod::Card, None);
        self.settle();
        self.gateway = Gateway::Declines;
        self.modify(order, shop.lines(1, 1));
        self.settle();
        self.gateway = Gateway::Approves;
    }

    /// A coupon expires, another is taken away; a product is described anew and withdrawn.
    fn tidied_up(&mut self, shop: &Shop) {
        let change = ProductChange { price: Some(1_100), withdrawn: Some(true), ..ProductChange::default() };
        self.tick();
        let described = self.deciders.stock.describe(shop.lamp.product_id, change);
        self.append(described);
        self.tick();
        let own = user_coupon_id(welcome_claim_id(shop.bob));
        let revoked = self.deciders.coupons.revoke(own).unwrap();
        self.append(revoked);
        self.now += SignedDuration::from_hours(24 * 31);
        self.tick();
        let expired = self.deciders.coupons.expire(user_coupon_id(welcome_claim_id(shop.ann)));
        self.append(expired);
        self.settle();
    }

    /// Not at rest: a refund and a charge that the gateway is asked for, a change that is held for, and an answer that
    /// the worker of orders has not read yet.
    fn under_way(&mut self, shop: &Shop) {
        let order = self.place(shop.bob, shop.lines(0, 7), PaymentMethod::Card, None);
        let other = self.place(shop.ann, shop.lines(0, 2), PaymentMethod::Balance, None);
        self.settle();
        self.gateway = Gateway::IsSilent;
        let deadline_at = self.deadline();
        self.command(order, |order| order.cancel(deadline_at));
        self.modify(other, shop.lines(1, 1));
        self.place(shop.bob, shop.lines(0, 6), PaymentMethod::Card, None);
        self.settle();
        self.place(shop.ann, shop.lines(0, 3), PaymentMethod::Balance, None);
        self.participate();
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + self.ids)
    }

    /// Every decision has a time of its own, with microseconds.
    fn tick(&mut self) {
        self.now += SignedDuration::from_micros(1_000_007);
        self.deciders.decide_at(self.now);
    }

    fn deadline(&self) -> Timestamp {
        self.now + SignedDuration::from_secs(30)
    }

    fn append(&mut self, decided: impl IntoIterator<Item = Decided>) {
        for Decided { event, sequence } in decided {
            let position = i64::try_from(self.log.len()).unwrap() + 1;
            let event_id =
                Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0000 + position.unsigned_abs() as u128);
            self.entries.extend(entry(event_id, &event, sequence, self.now));
            self.log.push(Told { position, event_id, at: self.now, event });
        }
    }

    fn place(
        &mut self,
        user_id: Uuid,
        lines: Vec<OrderLine>,
        payment_method: PaymentMethod,
        user_coupon_id: Option<Uuid>,
    ) -> Uuid {
        let order_id = self.id();
        self.tick();
        let quote = quote(&lines, payment_method, None);
        let placed = OrderPlaced {
            order_id,
            user_id,
            lines,
            payment_method,
            user_coupon_id,
            subtotal: quote.subtotal,
            discounts: quote.discounts,
            total: quote.total,
            deadline_at: self.deadline(),
        };
        let decided = self.deciders.orders.record([placed.into()]);
        self.append(decided);
        order_id
    }

    fn modify(&mut self, order: Uuid, lines: Vec<OrderLine>) {
        let deadline_at = self.deadline();
        self.command(order, |order| {
            let quote = quote(&lines, order.purchase.payment_method, order.purchase.coupon.as_ref());
            order.modify(Replacement { lines, quote }, deadline_at).map(Some)
        });
    }

    fn command(&mut self, order: Uuid, command: impl FnOnce(&Order) -> Result<Option<Event>, Refusal>) {
        self.tick();
        let decided = self.deciders.orders.command(order, command).unwrap();
        self.append(decided);
    }

    /// Everybody reads and decides until nobody has anything left.
    fn settle(&mut self) {
        loop {
            self.participate();
            let asked = self.ask_the_gateway();
            if !self.decide_on_orders() && !asked {
                return;
            }
        }
    }

    fn participate(&mut self) {
        while let Some(Told { event, at, .. }) = self.log.get(self.participants).cloned() {
            self.participants += 1;
            self.tick();
            let decided = self.deciders.participate(&event, at);
            self.append(decided);
        }
    }

    /// The worker of orders reads topic by topic, so not in the order of the log. Whether there was anything.
    fn decide_on_orders(&mut self) -> bool {
        let unread = self.log[self.seen_by_orders..].to_vec();
        self.seen_by_orders = self.log.len();
        for topic in [Topic::Coupons, Topic::Payments, Topic::Stock] {
            for Told { event, at, .. } in unread.iter().filter(|told| told.event.topic() == topic) {
                self.tick();
                let decided = self.deciders.orders.react(event, *at);
                self.append(decided);
            }
        }
        !unread.is_empty()
    }

    /// Whether it has answered.
    fn ask_the_gateway(&mut self) -> bool {
        let tasks =
            self.deciders.payments.payments.iter().filter_map(|(id, payment)| Some((*id, payment.task()?)));
        let tasks: Vec<(Uuid, GatewayTask)> = tasks.collect();
        let mut has_answered = false;
        for (order_id, task) in tasks {
            let declined =
                || Failure { code: FailureCode::PaymentDeclined, detail: "the card was declined".to_owned() };
            let (call, result) = match (task, self.gateway) {
                (GatewayTask::Void { number, .. }, _) => (GatewayCall::Void, GatewayResult::Voided(number)),
                (_, Gateway::IsSilent) => continue,
                (GatewayTask::Refund { round, .. }, _) => {
                    (GatewayCall::Refund, GatewayResult::Refunded(round))
                }
                (GatewayTask::Charge { number, .. }, Gateway::Approves) => {
                    (GatewayCall::Charge, GatewayResult::Approved(number))
                }
                (GatewayTask::Charge { number, .. }, Gateway::Declines) => {
                    (GatewayCall::Charge, GatewayResult::Refused(number, declined()))
                }
            };
            self.tick();
            let attempts = vec![Attempt { at: self.now, call, outcome: "ANSWERED".to_owned(), took_ms: 7 }];
            let decided = self.deciders.payments.settle(order_id, &Outcome { result, attempts });
            self.append(decided);
            has_answered = true;
        }
        has_answered
    }

    /// The documents as the deciders have them in memory, by noun and key: state and bulk as JSON.
    pub(crate) fn documents(&self) -> BTreeMap<&'static str, BTreeMap<Uuid, (String, Option<String>)>> {
        let mut documents: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for document in self.deciders.documents() {
            documents
                .entry(document.kind.noun)
                .or_default()
                .insert(document.key, (document.state, document.bulk));
        }
        documents
    }
}

/// The entry of a balance that an event is.
fn entry(event_id: Uuid, event: &Event, sequence: i32, at: Timestamp) -> Option<Value> {
    let (user_id, kind, amount, balance_after, order_id) = match event {
        Event::BalanceCharged(e) => (e.user_id, "CHARGED", e.amount, e.available + e.held, None),
        Event::BalanceCaptured(e) => (e.user_id, "USED", e.amount, e.available + e.held, Some(e.order_id)),
        Event::BalanceRefunded(e) => {
            (e.user_id, "REFUNDED", e.amount, e.available + e.held, Some(e.order_id))
        }
        _ => return None,
    };
    Some(json!({
        "entry_id": event_id, "user_id": user_id, "sequence": sequence, "kind": kind, "amount": amount,
        "balance_after": balance_after, "order_id": order_id, "created_at": at.to_string().replace('Z', "+00:00"),
    }))
}
