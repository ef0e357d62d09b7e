//! The state of one aggregate, from its events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_domain::coupons::Coupons;
use ordermill_domain::orders::Orders;
use ordermill_domain::payments::Payments;
use ordermill_domain::stock::Stock;
use ordermill_schemas::products::ProductChanged;
use ordermill_schemas::stock::StockLine;
use ordermill_schemas::{Event, Topic};
use uuid::Uuid;

use crate::shipments::ShipmentRow;

/// A product as its last event left it, with the number of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) described: ProductChanged,
    pub(super) sequence: i32,
}

/// When an aggregate's history on a topic began, and when it went on last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// The goods that came and went of a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Adjusted {
    pub(super) received: i64,
    pub(super) count: i32,
}

/// Everything that an aggregate's events have made so far. What they moved on shelves of products is counted from 0.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    pub(super) orders: Orders,
    pub(super) shipments: BTreeMap<Uuid, ShipmentRow>,
    pub(super) stock: Stock,
    pub(super) payments: Payments,
    pub(super) coupons: Coupons,
    pub(super) products: BTreeMap<Uuid, Product>,
    pub(super) adjusted: BTreeMap<Uuid, Adjusted>,
    /// The names of coupons, which no rule asks for.
    pub(super) coupon_names: BTreeMap<Uuid, String>,
    pub(super) times: BTreeMap<Topic, Times>,
}

impl Rebuilt {
    /// The state after the next event, which happened `at` that time. `seen_by_orders`: the worker that writes orders
    /// has applied it; an answer that is still on its way there shows in no order yet. An order's own events are
    /// written with its row, so they always show.
    pub(super) fn evolve(&mut self, event: &Event, at: Timestamp, seen_by_orders: bool) {
        self.times.entry(event.topic()).or_insert(Times { first: at, last: at }).last = at;
        match event.topic() {
            Topic::Orders => self.orders.evolve(event),
            Topic::Stock => self.stock.evolve(event),
            Topic::Payments | Topic::Balances => self.payments.evolve(event),
            Topic::Coupons => self.coupons.evolve(event),
            Topic::Products => {}
        }
        if seen_by_orders && matches!(event.topic(), Topic::Stock | Topic::Payments | Topic::Coupons) {
            self.orders.evolve(event);
        }
        match event {
            Event::OrderConfirmed(e) => {
                if let Some(order) = self.orders.orders.get_mut(&e.order_id) {
                    order.confirmed_at = Some(at);
                }
            }
            Event::OrderPartiallyShipped(e) => {
                self.ship(e.shipment_id, e.order_id, &e.lines, e.tracking_number.as_ref(), at);
            }
            Event::OrderShipped(e) => {
                self.ship(e.shipment_id, e.order_id, &e.lines, e.tracking_number.as_ref(), at);
            }
            Event::OrderShipmentDelivered(e) => self.deliver(e.shipment_id, at),
            Event::OrderDelivered(e) => self.deliver(e.shipment_id, at),
            Event::ProductCreated(created) => {
                let described = ProductChanged {
                    product_id: created.product_id,
                    name: created.name.clone(),
                    description: created.description.clone(),
                    category: created.category.clone(),
                    price: created.price,
                    withdrawn: false,
                };
                self.products.insert(created.product_id, Product { described, sequence: 1 });
                // A product that nothing was received of has a shelf, too.
                self.stock.shelves.entry(created.product_id).or_default();
            }
            Event::ProductChanged(changed) => {
                if let Some(product) = self.products.get_mut(&changed.product_id) {
                    product.described = changed.clone();
                    product.sequence += 1;
                }
            }
            Event::StockAdjusted(e) => {
                let adjusted = self.adjusted.entry(e.product_id).or_default();
                adjusted.received += e.delta;
                adjusted.count += 1;
            }
            Event::CouponCreated(e) => {
                self.coupon_names.insert(e.coupon_id, e.name.clone());
            }
            _ => {}
        }
    }

    fn ship(
        &mut self,
        shipment_id: Uuid,
        order_id: Uuid,
        lines: &[StockLine],
        tracking_number: Option<&String>,
        created_at: Timestamp,
    ) {
        let (lines, tracking_number) = (lines.to_vec(), tracking_number.cloned());
        let shipment =
            ShipmentRow { shipment_id, order_id, lines, tracking_number, created_at, delivered_at: None };
        self.shipments.insert(shipment_id, shipment);
    }

    fn deliver(&mut self, shipment_id: Uuid, at: Timestamp) {
        if let Some(shipment) = self.shipments.get_mut(&shipment_id) {
            shipment.delivered_at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use ordermill_domain::orders::StockStep;
    use ordermill_domain::stock::Shelf;
    use ordermill_schemas::orders::{
        OrderConfirmed, OrderDelivered, OrderPartiallyShipped, OrderPlaced, OrderShipmentDelivered,
        OrderShipped, PaymentMethod,
    };
    use ordermill_schemas::products::ProductCreated;
    use ordermill_schemas::stock::StockReserved;

    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);
    const PRODUCT: Uuid = Uuid::from_u128(2);
    const USER: Uuid = Uuid::from_u128(3);
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn placed() -> Event {
        OrderPlaced {
            order_id: ORDER,
            user_id: USER,
            lines: Vec::new(),
            payment_method: PaymentMethod::Balance,
            user_coupon_id: None,
            subtotal: 700,
            discounts: Vec::new(),
            total: 700,
            deadline_at: NOW,
        }
        .into()
    }

    fn reserved() -> Event {
        let lines = vec![StockLine { product_id: PRODUCT, quantity: 4 }];
        StockReserved { order_id: ORDER, lines }.into()
    }

    #[test]
    fn an_answer_shows_in_its_order_only_once_the_orders_worker_has_seen_it() {
        for (seen, step) in [(false, StockStep::Asked), (true, StockStep::Reserved)] {
            let mut rebuilt = Rebuilt::default();
            rebuilt.evolve(&placed(), NOW, false);
            rebuilt.evolve(&reserved(), NOW, seen);
            assert_eq!(rebuilt.orders.orders[&ORDER].stock, step);
            assert_eq!(rebuilt.stock.shelves[&PRODUCT].reserved, 4);
        }
    }

    fn confirmed() -> Event {
        OrderConfirmed { order_id: ORDER, user_id: USER, total: 700, lines: Vec::new() }.into()
    }

    #[test]
    fn an_order_is_confirmed_when_its_event_says() {
        let mut rebuilt = Rebuilt::default();
        rebuilt.evolve(&placed(), NOW, true);
        assert_eq!(rebuilt.orders.orders[&ORDER].confirmed_at, None);
        let at = NOW + SignedDuration::from_secs(5);
        rebuilt.evolve(&confirmed(), at, false);
        assert_eq!(rebuilt.orders.orders[&ORDER].confirmed_at, Some(at));
    }

    #[test]
    fn a_shipment_leaves_and_arrives_when_its_events_say() {
        let at = |seconds| NOW + SignedDuration::from_secs(seconds);
        let (first, second) = (Uuid::from_u128(11), Uuid::from_u128(12));
        let (order_id, user_id) = (ORDER, USER);
        let lines = vec![StockLine { product_id: PRODUCT, quantity: 4 }];
        let tracking_number = Some("T-1".to_owned());
        let events: [Event; 6] = [
            placed(),
            confirmed(),
            OrderPartiallyShipped {
                order_id,
                user_id,
                shipment_id: first,
                lines: lines.clone(),
                tracking_number: tracking_number.clone(),
            }
            .into(),
            OrderShipped {
                order_id,
                user_id,
                shipment_id: second,
                lines: lines.clone(),
                tracking_number: None,
            }
            .into(),
            OrderShipmentDelivered { order_id, user_id, shipment_id: first }.into(),
            OrderDelivered { order_id, user_id, shipment_id: second }.into(),
        ];
        let mut rebuilt = Rebuilt::default();
        for (seconds, event) in (0..).zip(&events) {
            rebuilt.evolve(event, at(seconds), false);
        }
        let shipped = |shipment_id, tracking_number, created, delivered| ShipmentRow {
            shipment_id,
            order_id,
            lines: lines.clone(),
            tracking_number,
            created_at: at(created),
            delivered_at: Some(at(delivered)),
        };
        let expected = BTreeMap::from([
            (first, shipped(first, tracking_number, 2, 4)),
            (second, shipped(second, None, 3, 5)),
        ]);
        assert_eq!(rebuilt.shipments, expected);
        assert_eq!(rebuilt.orders.orders[&ORDER].in_transit, 0);
    }

    fn created() -> Event {
        ProductCreated {
            product_id: PRODUCT,
            name: "Cup".to_owned(),
            description: String::new(),
            category: "KITCHEN".to_owned(),
            price: 300,
        }
        .into()
    }

    #[test]
    fn a_product_is_what_its_last_change_says() {
        let changed = |price, withdrawn| ProductChanged {
            product_id: PRODUCT,
            name: "Mug".to_owned(),
            description: "For tea".to_owned(),
            category: "KITCHEN".to_owned(),
            price,
            withdrawn,
        };
        let mut rebuilt = Rebuilt::default();
        for event in [created(), changed(400, true).into(), changed(500, false).into()] {
            rebuilt.evolve(&event, NOW, false);
        }
        assert_eq!(rebuilt.products[&PRODUCT], Product { described: changed(500, false), sequence: 3 });
    }

    #[test]
    fn a_product_that_nothing_was_received_of_has_an_empty_shelf() {
        let mut rebuilt = Rebuilt::default();
        rebuilt.evolve(&created(), NOW, false);
        assert_eq!(rebuilt.stock.shelves[&PRODUCT], Shelf::default());
        assert_eq!(rebuilt.products[&PRODUCT].sequence, 1);
    }
}
