//! The capabilities of the shop: the one list of them that a replay goes by.

use jiff::Timestamp;
use ordermill_domain::aggregate::{Document, DocumentError, Documents};
use ordermill_domain::capability::Capability;
use ordermill_domain::coupons::Coupons;
use ordermill_domain::orders::Orders;
use ordermill_domain::payments::Payments;
use ordermill_domain::stock::Stock;
use ordermill_schemas::{Event, Topic};

macro_rules! capabilities {
    ($($member:ident: $Capability:ty, of $($Topic:ident)|+;)+) => {
        /// Everything that an aggregate's events have made so far. What they moved on shelves of products is counted
        /// from 0.
        #[derive(Debug, Default)]
        pub(super) struct Rebuilt {
            $(pub(super) $member: $Capability,)+
        }

        impl Rebuilt {
            /// The state after the next event, which happened `at` that time. `seen_by_orders`: the worker that writes
            /// orders has applied it; an answer that is still on its way there shows in no order yet. An order's
            /// own events are written with its row, so they always show.
            pub(super) fn evolve(&mut self, event: &Event, at: Timestamp, seen_by_orders: bool) {
                match event.topic() {
                    $($(Topic::$Topic)|+ => self.$member.evolve(event, at),)+
                }
                if seen_by_orders && event.topic() != Topic::Orders {
                    self.orders.evolve(event, at);
                }
            }

            /// All documents that there are.
            pub(super) fn documents(&self) -> Result<Vec<Document>, DocumentError> {
                let mut documents = Vec::new();
                $(documents.extend(self.$member.changes(&<$Capability>::default())?);)+
                Ok(documents)
            }
        }

        /// The member of that noun's documents that is kept as their bulk.
        pub(super) fn bulk_member(noun: &str) -> Option<&'static str> {
            None$(.or_else(|| <$Capability>::bulk_member(noun)))+
        }

        /// The nouns of all capabilities.
        #[cfg(test)]
        pub(super) fn nouns() -> Vec<&'static str> {
            [$(<$Capability>::NOUNS),+].concat()
        }
    };
}

capabilities! {
    orders: Orders, of Orders;
    stock: Stock, of Stock | Products;
    payments: Payments, of Payments | Balances;
    coupons: Coupons, of Coupons;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_table_of_state_is_made_by_a_capability() {
        let tables: BTreeSet<&str> = crate::TABLES.iter().map(|table| table.name).collect();
        assert_eq!(nouns().into_iter().collect::<BTreeSet<_>>(), tables);
    }

    #[test]
    fn orders_keep_their_purchase_apart_reservations_their_lines_and_others_nothing() {
        let bulks: Vec<_> = nouns().into_iter().filter_map(|noun| Some((noun, bulk_member(noun)?))).collect();
        assert_eq!(bulks, [("orders", "purchase"), ("stock_reservations", "lines")]);
    }
}
