//! The capabilities of the shop, as a replay goes by them.

use jiff::Timestamp;
use ordermill_domain::aggregate::{Document, DocumentError, Documents as _};
use ordermill_domain::capability::Capability as _;
use ordermill_schemas::{Event, Topic};

macro_rules! rebuilt {
    ($($noun:ident $Name:ident $(($($part:ident $Part:ident),+))?;)+) => {
        /// Everything that an aggregate's events have made so far. What they moved on shelves of products is counted
        /// from 0.
        #[derive(Debug, Default)]
        pub(super) struct Rebuilt {
            $(pub(super) $noun: ordermill_domain::$noun::$Name,)+
        }

        impl Rebuilt {
            /// The state after the next event, which happened `at` that time. `seen_by_orders`: the worker that writes
            /// orders has applied it; an answer that is still on its way there shows in no order yet. An order's
            /// own events are written with its row, so they always show.
            pub(super) fn evolve(&mut self, event: &Event, at: Timestamp, seen_by_orders: bool) {
                match event.topic() {
                    $(Topic::$Name $($(| Topic::$Part)+)? => self.$noun.evolve(event, at),)+
                }
                if seen_by_orders && event.topic() != Topic::Orders {
                    self.orders.evolve(event, at);
                }
            }

            /// All documents that there are.
            pub(super) fn documents(&self) -> Result<Vec<Document>, DocumentError> {
                let mut documents = Vec::new();
                $(documents.extend(self.$noun.changes(&ordermill_domain::$noun::$Name::default())?);)+
                Ok(documents)
            }
        }
    };
}

ordermill_schemas::capabilities!(rebuilt);

#[cfg(test)]
mod tests {
    use ordermill_domain::kinds;

    #[test]
    fn orders_keep_their_purchase_apart_reservations_their_lines_and_others_nothing() {
        let bulks: Vec<_> = kinds().filter_map(|kind| Some((kind.noun, kind.bulk?))).collect();
        assert_eq!(bulks, [("orders", "purchase"), ("stock_reservations", "lines")]);
    }
}
