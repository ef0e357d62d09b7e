//! Stock: reserved for an order, then deducted or released, all lines or none.

mod goods;

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_schemas::orders::{
    Failure, FailureCode, OrderLine, OrderModificationApplying, OrderModificationRefusing, OrderModifying,
    OrderPlaced,
};
use ordermill_schemas::stock::{
    StockChangeRefused, StockChangeReleased, StockChangeReserved, StockChanged, StockDeducted, StockLine,
    StockRefused, StockReleased, StockReserved,
};
use ordermill_schemas::{Event, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aggregate::{Aggregate, Follows, Kind, MadeOf, documents, is_default};
use crate::capability::{Capability, Decided, Reacts};
use crate::products::Product;

pub use goods::TooFew;

/// Where the units of one product are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelf {
    /// Units that can still be ordered.
    pub on_hand: i64,
    /// Units that are held for orders.
    pub reserved: i64,
    /// Units that were sold.
    pub deducted: i64,
    /// Units that came from outside, less those that went there: the sum of the others.
    pub received: i64,
    /// How many adjustments its history has.
    pub sequence: i32,
}

impl Aggregate for Shelf {
    const KIND: Kind = Kind {
        follows: Some(Follows::Lines {
            of: Reservation::NOUN,
            member: "product_id",
            further: "change,taken",
        }),
        made_of: MadeOf::Sums,
        sums: &["on_hand", "reserved", "deducted", "received"],
        ..Kind::new("stock", "stock")
    };
    type Bulk = ();

    fn check(&self, _before: Option<&Shelf>) -> Result<(), &'static str> {
        if self.on_hand < 0 || self.reserved < 0 || self.deducted < 0 {
            return Err("fewer than no units would be left");
        }
        let units =
            self.on_hand.checked_add(self.reserved).and_then(|units| units.checked_add(self.deducted));
        if units == Some(self.received) {
            Ok(())
        } else {
            Err("its units do not add up to what was received")
        }
    }
}

/// A place of a shelf where units can be.
type Place = fn(&mut Shelf) -> &mut i64;
const ON_HAND: Place = |shelf| &mut shelf.on_hand;
const RESERVED: Place = |shelf| &mut shelf.reserved;
const DEDUCTED: Place = |shelf| &mut shelf.deducted;

/// What became of an order's request for stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReservationState {
    /// All lines are held.
    Reserved,
    /// Nothing was ever held.
    Refused,
    /// All lines were sold.
    Deducted,
    /// The lines were held but were not all there in the end; what is there is still held.
    Short,
    /// All lines were given back.
    Released,
}

/// What a modification does to an order's stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockChange {
    /// The modification.
    pub round: i32,
    /// What is needed in addition; held until it is carried out.
    pub taken: Vec<StockLine>,
    /// What will not be needed any more; still the order's.
    pub returning: Vec<StockLine>,
    /// What the order will have.
    pub lines: Vec<StockLine>,
}

/// An order's hold on stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// What became of it.
    pub state: ReservationState,
    /// What is or was held.
    #[serde(skip_serializing)]
    pub lines: Vec<StockLine>,
    /// The modification that is held for, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<StockChange>,
    /// The last modification that was answered; 0 before any.
    #[serde(default, skip_serializing_if = "is_default")]
    pub round: i32,
    /// How many events its history has.
    pub sequence: i32,
}

impl Aggregate for Reservation {
    const KIND: Kind = Kind {
        bulk: Some("lines"),
        part_of: Some(Topic::Orders.name()),
        counted_by: Some("state"),
        ..Kind::new("stock_reservations", "reservation")
    };
    type Bulk = Vec<StockLine>;

    fn bulk(&self) -> Option<&Vec<StockLine>> {
        Some(&self.lines)
    }
}

/// Products, where their units are, and what is held for orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// The time at which is decided.
    pub now: Timestamp,
    /// The reservations, by order id.
    pub reservations: BTreeMap<Uuid, Reservation>,
    /// The products, by product id.
    pub products: BTreeMap<Uuid, Product>,
    /// The shelves, by product id.
    pub shelves: BTreeMap<Uuid, Shelf>,
}

documents! { Stock { reservations: Reservation, products: Product, shelves: Shelf } }

/// Who is told to give back and was never asked, since the question was discarded as a dead letter, refuses: somebody waits for
/// an answer.
impl Reacts for Stock {
    const READS: &'static [Topic] = &[Topic::Orders, Topic::Payments];

    /// The shelves of what is reserved follow from the reservation.
    fn keys(event: &Event) -> Vec<(&'static str, Uuid)> {
        let lines = match event {
            Event::OrderPlaced(order) => order.lines.as_slice(),
            Event::OrderModifying(order) => order.lines.as_slice(),
            Event::PaymentCompleted(_)
            | Event::OrderRejecting(_)
            | Event::OrderCancelling(_)
            | Event::OrderModificationApplying(_)
            | Event::OrderModificationRefusing(_) => &[],
            _ => return Vec::new(),
        };
        let reservation = event.order_id().map(|order_id| (Reservation::NOUN, order_id));
        reservation.into_iter().chain(lines.iter().map(|line| (Shelf::NOUN, line.product_id))).collect()
    }

    fn react(&mut self, event: &Event, _at: Timestamp) -> Vec<Decided> {
        let decision = match event {
            Event::OrderPlaced(order) => self.reserve(order),
            Event::PaymentCompleted(payment) if payment.charge_number == FIRST_CHARGE => {
                self.deduct(payment.order_id)
            }
            Event::OrderRejecting(order) if !self.reservations.contains_key(&order.order_id) => {
                Some(StockRefused { order_id: order.order_id, failure: order.failure.clone() }.into())
            }
            Event::OrderRejecting(order) => self.release(order.order_id),
            Event::OrderCancelling(order) => self.release(order.order_id),
            Event::OrderModifying(order) => self.reserve_change(order),
            Event::OrderModificationApplying(order) => self.apply_change(order),
            Event::OrderModificationRefusing(order) => self.release_change(order),
            _ => None,
        };
        self.record(decision)
    }
}

/// The charge that pays for what was ordered first; further ones pay for modifications.
const FIRST_CHARGE: i32 = 1;

impl Stock {
    fn reserve(&self, order: &OrderPlaced) -> Option<Event> {
        if self.reservations.contains_key(&order.order_id) {
            return None;
        }
        let (order_id, lines) = (order.order_id, wanted(&order.lines));
        Some(match self.short(&lines, &order.lines) {
            Some(failure) => StockRefused { order_id, failure }.into(),
            None => StockReserved { order_id, lines }.into(),
        })
    }

    /// Why not all of these lines can be held, if they can't; `order` knows the products' names.
    fn short(&self, lines: &[StockLine], order: &[OrderLine]) -> Option<Failure> {
        let on_hand = |line: &StockLine| self.shelves.get(&line.product_id).map(|shelf| shelf.on_hand);
        let short =
            lines.iter().find(|line| on_hand(line).is_none_or(|units| units < i64::from(line.quantity)))?;
        let named = order.iter().find(|line| line.product_id == short.product_id);
        Some(fewer_left(named.map_or("a product", |line| &line.name)))
    }

    /// The final check: what is not held any more can't be sold.
    fn deduct(&self, order_id: Uuid) -> Option<Event> {
        let reservation = self.reservations.get(&order_id)?;
        if reservation.state != ReservationState::Reserved {
            return None;
        }
        let held = |line: &StockLine| {
            self.shelves.get(&line.product_id).is_some_and(|shelf| shelf.reserved >= i64::from(line.quantity))
        };
        Some(match reservation.lines.iter().find(|line| !held(line)) {
            Some(line) => StockRefused { order_id, failure: fewer_left(&line.product_id.to_string()) }.into(),
            None => StockDeducted { order_id, lines: reservation.lines.clone() }.into(),
        })
    }

    fn release(&self, order_id: Uuid) -> Option<Event> {
        let reservation = self.reservations.get(&order_id)?;
        let lines = match reservation.state {
            ReservationState::Reserved | ReservationState::Deducted => reservation.lines.clone(),
            ReservationState::Short => self.still_reserved(&reservation.lines),
            ReservationState::Refused | ReservationState::Released => return None,
        };
        Some(StockReleased { order_id, lines }.into())
    }

    /// As much of the lines as the shelves say is reserved.
    fn still_reserved(&self, lines: &[StockLine]) -> Vec<StockLine> {
        let still = |line: &StockLine| {
            let reserved = self.shelves.get(&line.product_id).map_or(0, |shelf| shelf.reserved);
            let quantity = line.quantity.min(i32::try_from(reserved).unwrap_or(i32::MAX));
            (quantity > 0).then_some(StockLine { product_id: line.product_id, quantity })
        };
        lines.iter().filter_map(still).collect()
    }

    /// Holds what a modification needs more of. What it needs less of stays, so that it can still be refused.
    fn reserve_change(&self, order: &OrderModifying) -> Option<Event> {
        let reservation = self.reservations.get(&order.order_id)?;
        let (order_id, round) = (order.order_id, order.round);
        if reservation.state != ReservationState::Deducted || round <= reservation.round {
            return None;
        }
        let lines = wanted(&order.lines);
        let taken = difference(&lines, &reservation.lines);
        Some(match self.short(&taken, &order.lines) {
            Some(failure) => StockChangeRefused { order_id, round, failure }.into(),
            None => {
                let returning = difference(&reservation.lines, &lines);
                StockChangeReserved { order_id, round, taken, returning, lines }.into()
            }
        })
    }

    fn apply_change(&self, order: &OrderModificationApplying) -> Option<Event> {
        let (order_id, round) = (order.order_id, order.round);
        let StockChange { taken, returning: returned, lines, .. } =
            self.open_change(order_id, round)?.clone();
        Some(StockChanged { order_id, round, taken, returned, lines }.into())
    }

    fn release_change(&self, order: &OrderModificationRefusing) -> Option<Event> {
        let (order_id, round) = (order.order_id, order.round);
        if self.reservations.get(&order_id)?.round < round {
            return Some(StockChangeRefused { order_id, round, failure: order.failure.clone() }.into());
        }
        let lines = self.open_change(order_id, round)?.taken.clone();
        Some(StockChangeReleased { order_id, round, lines }.into())
    }

    fn open_change(&self, order_id: Uuid, round: i32) -> Option<&StockChange> {
        self.reservations.get(&order_id)?.change.as_ref().filter(|change| change.round == round)
    }
}

impl Capability for Stock {
    const TOPIC: Topic = Topic::Stock;

    fn now(&mut self) -> &mut Timestamp {
        &mut self.now
    }

    fn sequence(&self, event: &Event) -> i32 {
        let key = event.key();
        match event {
            Event::ProductCreated(_) | Event::ProductChanged(_) => {
                self.products.get(&key).map_or(0, |product| product.sequence)
            }
            Event::StockAdjusted(_) => self.shelves.get(&key).map_or(0, |shelf| shelf.sequence),
            _ => self.reservations.get(&key).map_or(0, |reservation| reservation.sequence),
        }
    }

    fn evolve(&mut self, event: &Event, at: Timestamp) {
        self.evolve_products(event, at);
        self.evolve_stock(event);
    }
}

impl Stock {
    fn evolve_stock(&mut self, event: &Event) {
        match event {
            Event::StockReserved(StockReserved { order_id, lines }) => {
                self.shift(lines, ON_HAND, RESERVED);
                self.advance(*order_id, ReservationState::Reserved, lines);
            }
            Event::StockRefused(StockRefused { order_id, .. }) => {
                let was_held = self.reservations.contains_key(order_id);
                let state = if was_held { ReservationState::Short } else { ReservationState::Refused };
                self.advance(*order_id, state, &[]);
            }
            Event::StockDeducted(StockDeducted { order_id, lines }) => {
                self.shift(lines, RESERVED, DEDUCTED);
                self.advance(*order_id, ReservationState::Deducted, lines);
            }
            Event::StockReleased(StockReleased { order_id, lines }) => {
                let state = self.reservations.get(order_id).map(|reservation| reservation.state);
                let were_in = if state == Some(ReservationState::Deducted) { DEDUCTED } else { RESERVED };
                self.shift(lines, were_in, ON_HAND);
                self.advance(*order_id, ReservationState::Released, lines);
            }
            Event::StockChangeReserved(e) => {
                self.shift(&e.taken, ON_HAND, RESERVED);
                let (taken, returning, lines) = (e.taken.clone(), e.returning.clone(), e.lines.clone());
                let change = StockChange { round: e.round, taken, returning, lines };
                self.change(e.order_id, e.round, Some(change));
            }
            Event::StockChangeRefused(e) => self.change(e.order_id, e.round, None),
            Event::StockChangeReleased(e) => {
                self.shift(&e.lines, RESERVED, ON_HAND);
                self.change(e.order_id, e.round, None);
            }
            Event::StockChanged(e) => {
                self.shift(&e.taken, RESERVED, DEDUCTED);
                self.shift(&e.returned, DEDUCTED, ON_HAND);
                self.change(e.order_id, e.round, None);
                if let Some(reservation) = self.reservations.get_mut(&e.order_id) {
                    reservation.lines.clone_from(&e.lines);
                }
            }
            Event::StockAdjusted(adjusted) => {
                let shelf = self.shelves.entry(adjusted.product_id).or_default();
                shelf.on_hand += adjusted.delta;
                shelf.received += adjusted.delta;
                shelf.sequence += 1;
            }
            _ => {}
        }
    }

    /// Units go from one place of their shelves to another.
    fn shift(&mut self, lines: &[StockLine], from: Place, to: Place) {
        for line in lines {
            let shelf = self.shelves.entry(line.product_id).or_default();
            *from(shelf) -= i64::from(line.quantity);
            *to(shelf) += i64::from(line.quantity);
        }
    }

    fn advance(&mut self, order_id: Uuid, state: ReservationState, lines: &[StockLine]) {
        let reservation = self.reservations.entry(order_id).or_insert_with(|| Reservation {
            state,
            lines: lines.to_vec(),
            change: None,
            round: 0,
            sequence: 0,
        });
        reservation.state = state;
        reservation.sequence += 1;
    }

    fn change(&mut self, order_id: Uuid, round: i32, change: Option<StockChange>) {
        if let Some(reservation) = self.reservations.get_mut(&order_id) {
            (reservation.round, reservation.change) = (round, change);
            reservation.sequence += 1;
        }
    }
}

fn wanted(lines: &[OrderLine]) -> Vec<StockLine> {
    lines.iter().map(|line| StockLine { product_id: line.product_id, quantity: line.quantity }).collect()
}

/// What `more` has above `less`, line by line.
fn difference(more: &[StockLine], less: &[StockLine]) -> Vec<StockLine> {
    let above = |line: &StockLine| {
        let same = less.iter().find(|other| other.product_id == line.product_id);
        let quantity = line.quantity - same.map_or(0, |other| other.quantity);
        (quantity > 0).then_some(StockLine { product_id: line.product_id, quantity })
    };
    more.iter().filter_map(above).collect()
}

fn fewer_left(product: &str) -> Failure {
    Failure { code: FailureCode::OutOfStock, detail: format!("fewer left than were ordered of: {product}") }
}
