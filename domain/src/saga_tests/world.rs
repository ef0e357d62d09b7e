//! A small shop without a pipeline: each topic is delivered in order, topics in any order among each other,
//! everything possibly twice, and the gateway answers when it likes, if it does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_schemas::coupons::CouponDiscount;
use ordermill_schemas::orders::{Failure, FailureCode, OrderLine, OrderPlaced, PaymentMethod};
use ordermill_schemas::stock::StockLine;
use ordermill_schemas::{Event, Money, Topic};
use uuid::Uuid;

use crate::capability::{Capability as _, Decided, Reacts as _};
use crate::coupons::{Coupons, UserCoupon, UserCouponState};
use crate::orders::{CouponStep, Order, OrderStatus, Orders, Replacement};
use crate::payments::{Balance, GatewayResult, GatewayTask, Outcome, Payments};
use crate::pricing;
use crate::stock::{Shelf, Stock};

pub(super) const USER: Uuid = Uuid::from_u128(1);
/// Time stands still here.
const NOW: Timestamp = Timestamp::UNIX_EPOCH;
/// The price of one unit of everything.
pub(super) const PRICE: Money = 100;

/// A worker's place in its topics.
#[derive(Clone, Copy, Debug)]
enum Worker {
    Orders,
    Stock,
    Payments,
    Coupons,
}

/// Who reads what, as the workers declare it.
const READERS: [(Worker, Topic); 7] = [
    (Worker::Orders, Topic::Stock),
    (Worker::Orders, Topic::Payments),
    (Worker::Stock, Topic::Orders),
    (Worker::Stock, Topic::Payments),
    (Worker::Payments, Topic::Orders),
    (Worker::Orders, Topic::Coupons),
    (Worker::Coupons, Topic::Orders),
];

/// What the gateway has of a charge.
#[derive(Clone, Debug, Default)]
struct Booked {
    order_id: Uuid,
    approved: Money,
    voided: bool,
    refunds: BTreeMap<Uuid, Money>,
}

impl Booked {
    fn kept(&self) -> Money {
        let refunded: Money = self.refunds.values().sum();
        if self.voided { 0 } else { self.approved - refunded }
    }
}

/// Something that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A reader takes its next event.
    Deliver(usize),
    /// The gateway works on a task that it was asked for.
    Gateway(usize),
}

/// How a call to the gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// It is carried out and answered.
    Answered,
    /// It is carried out, and nobody hears of it.
    AnswerLost,
    /// It is not carried out.
    Lost,
}

pub(super) struct World {
    pub(super) orders: Orders,
    pub(super) stock: Stock,
    pub(super) payments: Payments,
    pub(super) coupons: Coupons,
    pub(super) log: Vec<Event>,
    initial: (Stock, Payments, Coupons),
    read: [usize; READERS.len()],
    asked: Vec<(Uuid, GatewayTask)>,
    ledger: BTreeMap<Uuid, Booked>,
    pub(super) declines: bool,
}

pub(super) fn product(number: u8) -> Uuid {
    Uuid::from_u128(1_000 + u128::from(number))
}

/// The id of one of the user's two coupons: half the price, for at least two units.
pub(super) fn coupon(number: u8) -> Uuid {
    Uuid::from_u128(5_000 + u128::from(number))
}

fn new_coupon() -> UserCoupon {
    UserCoupon {
        coupon_id: Uuid::from_u128(4_000),
        claim_id: Uuid::from_u128(4_001),
        user_id: USER,
        discount: CouponDiscount::Percent(50),
        min_subtotal: 2 * PRICE,
        state: UserCouponState::Issued,
        issued_at: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::MAX,
        used_at: None,
        order_id: None,
        sequence: 0,
    }
}

pub(super) fn order(number: usize) -> Uuid {
    Uuid::from_u128(100 + number as u128)
}

/// Lines of (product, quantity).
pub(super) fn lines(wanted: &[(u8, i32)]) -> Vec<OrderLine> {
    let line = |(number, quantity): &(u8, i32)| OrderLine {
        product_id: product(*number),
        name: format!("product {number}"),
        category: "LIGHT".to_owned(),
        unit_price: PRICE,
        quantity: *quantity,
    };
    wanted.iter().map(line).collect()
}

impl World {
    /// A shop with so many units of each of three products, and a user with that balance.
    pub(super) fn new(balance: Money, units: i64, declines: bool) -> World {
        let (mut stock, mut payments) = (Stock::default(), Payments::default());
        for number in 0..3 {
            stock
                .shelves
                .insert(product(number), Shelf { on_hand: units, received: units, ..Shelf::default() });
        }
        payments.balances.insert(USER, Balance { available: balance, sequence: 1, ..Balance::default() });
        let mut coupons = Coupons::default();
        for number in 0..2 {
            coupons.user_coupons.insert(coupon(number), new_coupon());
        }
        World {
            orders: Orders::default(),
            initial: (stock.clone(), payments.clone(), coupons.clone()),
            stock,
            payments,
            coupons,
            log: Vec::new(),
            read: [0; READERS.len()],
            asked: Vec::new(),
            ledger: BTreeMap::new(),
            declines,
        }
    }

    pub(super) fn place(&mut self, order_id: Uuid, lines: Vec<OrderLine>, payment_method: PaymentMethod) {
        self.place_with(order_id, lines, payment_method, None);
    }

    /// Places an order that names a coupon.
    pub(super) fn place_with(
        &mut self,
        order_id: Uuid,
        lines: Vec<OrderLine>,
        payment_method: PaymentMethod,
        user_coupon_id: Option<Uuid>,
    ) {
        let quote = pricing::quote(&lines, payment_method, None);
        let placed = OrderPlaced {
            order_id,
            user_id: USER,
            lines,
            payment_method,
            user_coupon_id,
            subtotal: quote.subtotal,
            discounts: quote.discounts,
            total: quote.total,
            deadline_at: Timestamp::UNIX_EPOCH,
        };
        self.orders.orders.insert(order_id, Order::placed(&placed, NOW));
        self.log.push(placed.into());
    }

    fn append(&mut self, decided: impl IntoIterator<Item = Decided>) {
        self.log.extend(decided.into_iter().map(|decided| decided.event));
        self.assert_orders_wait_for_their_payments();
    }

    /// By the orders that do not rest it is found what the gateway is to be asked for.
    fn assert_orders_wait_for_their_payments(&self) {
        for (order_id, payment) in &self.payments.payments {
            let status = self.orders.orders[order_id].status;
            assert!(payment.task().is_none() || !status.is_resting(), "{status:?}, but {:?}", payment.task());
        }
    }

    /// Has an order do something; whether it did.
    pub(super) fn command<E>(
        &mut self,
        order_id: Uuid,
        command: impl FnOnce(&Order) -> Result<Option<Event>, E>,
    ) -> bool {
        let Ok(decided) = self.orders.command(order_id, command) else { return false };
        let before = self.log.len();
        self.append(decided);
        self.log.len() > before
    }

    pub(super) fn cancel(&mut self, order_id: Uuid) -> bool {
        self.command(order_id, |order| order.cancel(Timestamp::UNIX_EPOCH))
    }

    pub(super) fn modify(&mut self, order_id: Uuid, lines: Vec<OrderLine>) -> bool {
        self.command(order_id, |order| {
            let quote = pricing::quote(&lines, order.purchase.payment_method, order.purchase.coupon.as_ref());
            order.modify(Replacement { lines, quote }, Timestamp::UNIX_EPOCH).map(Some)
        })
    }

    pub(super) fn ship(&mut self, order_id: Uuid, product_id: Uuid, quantity: i32) -> bool {
        let lines = vec![StockLine { product_id, quantity }];
        self.command(order_id, |order| order.ship(Uuid::from_u128(7), lines).map(Some))
    }

    pub(super) fn expire(&mut self, order_id: Uuid) -> bool {
        self.command(order_id, |order| Ok::<_, ()>(order.expire(Timestamp::MAX)))
    }

    /// Has an order that is being undone hear of its coupon, as the timers do once it is overdue; whether there was anything to tell.
    pub(super) fn give_up_coupon(&mut self, order_id: Uuid) -> bool {
        let Order { status, coupon_step, .. } = self.orders.orders[&order_id];
        let is_undone = matches!(status, OrderStatus::Rejecting | OrderStatus::Cancelling);
        if !is_undone || !matches!(coupon_step, CouponStep::Asked | CouponStep::Applied) {
            return false;
        }
        let named = self.log.iter().find_map(|event| match event {
            Event::OrderPlaced(placed) if placed.order_id == order_id => placed.user_coupon_id,
            _ => None,
        });
        let decided = self.coupons.give_up(order_id, USER, named.expect("it waits for the coupon it named"));
        let is_told = decided.is_some();
        self.append(decided);
        is_told
    }

    /// The next event that a reader has not seen.
    fn next(&self, reader: usize) -> Option<usize> {
        let (_, topic) = READERS[reader];
        (self.read[reader]..self.log.len()).find(|index| self.log[*index].topic() == topic)
    }

    /// What can happen next.
    pub(super) fn steps(&self) -> Vec<Step> {
        let readers = (0..READERS.len()).filter(|reader| self.next(*reader).is_some()).map(Step::Deliver);
        readers.chain((0..self.asked.len()).map(Step::Gateway)).collect()
    }

    pub(super) fn deliver(&mut self, reader: usize) {
        let Some(index) = self.next(reader) else { return };
        self.react(reader, index);
        self.read[reader] = index + 1;
    }

    /// Takes an event from a reader for good, as somebody does who discards its dead letter; whether it was the next one.
    pub(super) fn discard(&mut self, reader: usize, event: &str) -> bool {
        let index = self.next(reader).filter(|index| self.log[*index].name() == event);
        self.read[reader] = index.map_or(self.read[reader], |index| index + 1);
        index.is_some()
    }

    /// Delivers again what a reader has had, the n-th of it from behind.
    pub(super) fn deliver_again(&mut self, reader: usize, nth: usize) {
        let (_, topic) = READERS[reader];
        let seen: Vec<usize> = (0..self.read[reader]).filter(|i| self.log[*i].topic() == topic).collect();
        if let Some(index) = seen.iter().rev().nth(nth % seen.len().max(1)) {
            self.react(reader, *index);
        }
    }

    fn react(&mut self, reader: usize, index: usize) {
        let event = self.log[index].clone();
        let decided = match READERS[reader].0 {
            Worker::Orders => self.orders.react(&event, NOW),
            Worker::Stock => self.stock.react(&event, NOW),
            Worker::Payments => self.payments.react(&event, NOW),
            Worker::Coupons => self.coupons.react(&event, NOW),
        };
        for decided in &decided {
            if matches!(
                decided.event,
                Event::PaymentRequested(_) | Event::PaymentVoiding(_) | Event::PaymentRefunding(_)
            ) {
                let order_id = decided.event.key();
                let task = self.payments.payments[&order_id].task().expect("the gateway has a task");
                self.asked.push((order_id, task));
            }
        }
        self.append(decided);
    }

    /// Calls the gateway for a task; `forgets` says whether nobody asks for it again once it is answered.
    pub(super) fn call(&mut self, task: usize, call: Call, forgets: bool) {
        let (order_id, task_wanted) = self.asked[task].clone();
        if call == Call::Lost {
            return;
        }
        let result = self.carry_out(order_id, &task_wanted);
        if call == Call::AnswerLost {
            return;
        }
        if forgets {
            self.asked.remove(task);
        }
        let decided = self.payments.settle(order_id, &Outcome { result, attempts: Vec::new() });
        self.append(decided);
    }

    fn carry_out(&mut self, order_id: Uuid, task: &GatewayTask) -> GatewayResult {
        match task {
            GatewayTask::Charge { number, charge_id, amount, .. } => {
                let approved = if self.declines { 0 } else { *amount };
                let new = Booked { order_id, approved, ..Booked::default() };
                let booked = self.ledger.entry(*charge_id).or_insert(new);
                if booked.voided || booked.approved == 0 {
                    let code = FailureCode::PaymentDeclined;
                    GatewayResult::Refused(*number, Failure { code, detail: "declined".to_owned() })
                } else {
                    GatewayResult::Approved(*number)
                }
            }
            GatewayTask::Void { number, charge_id } => {
                let booked = self.ledger.entry(*charge_id).or_default();
                booked.order_id = order_id;
                booked.voided = true;
                GatewayResult::Voided(*number)
            }
            GatewayTask::Refund { round, parts } => {
                for part in parts {
                    let booked = self.ledger.get_mut(&part.charge_id).expect("only charges are paid back");
                    booked.refunds.insert(part.refund_id, part.amount);
                    assert!(booked.kept() >= 0, "more was paid back than was charged");
                }
                GatewayResult::Refunded(*round)
            }
        }
    }

    pub(super) fn statuses(&self) -> Vec<OrderStatus> {
        self.orders.orders.values().map(|order| order.status).collect()
    }

    /// Runs in the order in which things happened until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            match self.steps().first() {
                Some(Step::Deliver(reader)) => self.deliver(*reader),
                Some(Step::Gateway(task)) => self.call(*task, Call::Answered, true),
                None => return,
            }
        }
        panic!("the saga does not come to rest");
    }

    /// Panics unless orders, stock, balance and gateway agree, and the log makes the same of them.
    pub(super) fn assert_agreement(&self) {
        for order in self.orders.orders.values() {
            assert!(order.status.is_resting(), "{order:?} does not rest\n{:#?}", self.log);
            let kept = self.kept_of(order);
            assert_eq!(order.paid - order.refunded, kept, "{order:?}");
            let booked = self.ledger.values().filter(|booked| booked.order_id == order.purchase.order_id);
            assert_eq!(booked.map(Booked::kept).sum::<Money>(), kept, "the gateway differs: {order:?}");
            assert_eq!(order.change, None);
        }
        let on_balance =
            self.orders.orders.values().filter(|o| o.purchase.payment_method == PaymentMethod::Balance);
        let spent: Money = on_balance.map(|order| self.kept_of(order)).sum();
        let (before, after) = (&self.initial.1.balances[&USER], &self.payments.balances[&USER]);
        assert_eq!((after.available, after.held), (before.available - spent, 0));
        for (product_id, shelf) in &self.stock.shelves {
            let received = self.initial.0.shelves[product_id].on_hand;
            let sold = self.sold(*product_id);
            assert_eq!((shelf.on_hand, shelf.reserved, shelf.deducted), (received - sold, 0, sold));
        }
        self.assert_coupons();
        self.assert_rebuilt();
        self.assert_numbered();
    }

    /// A coupon is used for one sold order, or none.
    fn assert_coupons(&self) {
        for (user_coupon_id, coupon) in &self.coupons.user_coupons {
            let mut sold = self.orders.orders.values().filter(|order| {
                let is_ours = order
                    .purchase
                    .coupon
                    .as_ref()
                    .is_some_and(|terms| terms.user_coupon_id == *user_coupon_id);
                is_ours && !matches!(order.status, OrderStatus::Rejected | OrderStatus::Cancelled)
            });
            let used_for = sold.next().map(|order| order.purchase.order_id);
            assert_eq!(coupon.order_id, used_for);
            assert_eq!(coupon.state == UserCouponState::Used, used_for.is_some());
            assert_eq!(sold.next(), None, "a coupon is used twice");
        }
    }

    fn kept_of(&self, order: &Order) -> Money {
        let is_sold = !matches!(order.status, OrderStatus::Rejected | OrderStatus::Cancelled);
        if is_sold { order.purchase.total } else { 0 }
    }

    fn sold(&self, product_id: Uuid) -> i64 {
        let sold = self
            .orders
            .orders
            .values()
            .filter(|order| !matches!(order.status, OrderStatus::Rejected | OrderStatus::Cancelled));
        let lines = sold.flat_map(|order| &order.purchase.lines).filter(|line| line.product_id == product_id);
        lines.map(|line| i64::from(line.quantity)).sum()
    }

    fn assert_rebuilt(&self) {
        let (mut stock, mut payments, mut coupons) = self.initial.clone();
        let mut orders = Orders::default();
        for event in &self.log {
            orders.evolve(event, NOW);
            stock.evolve(event, NOW);
            payments.evolve(event, NOW);
            coupons.evolve(event, NOW);
        }
        assert_eq!(coupons, self.coupons);
        assert_eq!(orders, self.orders, "{:#?}", self.log);
        assert_eq!(stock, self.stock);
        assert_eq!(payments, self.payments);
    }

    fn assert_numbered(&self) {
        let count = |topic, key| self.log.iter().filter(|e| e.topic() == topic && e.key() == key).count();
        let number = |sequence: i32| usize::try_from(sequence).unwrap();
        for (order_id, order) in &self.orders.orders {
            assert_eq!(number(order.sequence), count(Topic::Orders, *order_id));
        }
        for (order_id, reservation) in &self.stock.reservations {
            assert_eq!(number(reservation.sequence), count(Topic::Stock, *order_id));
        }
        for (order_id, payment) in &self.payments.payments {
            assert_eq!(number(payment.sequence), count(Topic::Payments, *order_id));
        }
    }
}
