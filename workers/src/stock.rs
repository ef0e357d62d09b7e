//! The stock worker: reserves what is ordered, deducts what is paid, gives back what is refused.

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::stock::{Reservation, Shelf, Stock};
use ordermill_pipeline::journal::Keys;
use ordermill_schemas::{Event, Topic};

use crate::participant::Participant;

/// The stock worker.
pub struct StockWorker;

impl Participant for StockWorker {
    const GROUP: &'static str = "stock";
    const TOPICS: &'static [Topic] = &[Topic::Orders, Topic::Payments];
    type State = Stock;

    /// The shelves of what is reserved follow from the reservation.
    fn keys(event: &Event, keys: &mut Keys) {
        let lines = match event {
            Event::OrderPlaced(order) => order.lines.as_slice(),
            Event::OrderModifying(order) => order.lines.as_slice(),
            Event::PaymentCompleted(_)
            | Event::OrderRejecting(_)
            | Event::OrderCancelling(_)
            | Event::OrderModificationApplying(_)
            | Event::OrderModificationRefusing(_) => &[],
            _ => return,
        };
        keys.extend(Reservation::NOUN, event.order_id());
        keys.extend(Shelf::NOUN, lines.iter().map(|line| line.product_id));
    }
}
