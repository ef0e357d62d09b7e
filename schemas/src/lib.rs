//! Every event of Ordermill, declared once.
//!
//! An event type is one declaration in its noun's file. From it come its struct, its Kafka topic and
//! key, its place in an aggregate's history, its JSON Schema, and the public documents. The JSON files
//! and `docs/EVENTS.md` are written by the program `generate` of this crate and are never edited.
//!
//! [`capabilities!`] is the one list of what the shop can do. Every crate that has something for each capability makes it from
//! this list.
//!
//! Architecture Invariant: an event says what happened, in the past tense, and carries no name and no
//! e-mail address of a person, nor what people say in words of their own about what belongs to a user. Whoever reads it
//! needs no database.

/// Calls a macro with every capability of the shop: the noun that names its file in every crate, and the name of its topic in
/// [`Topic`] and of its rules in `domain`. In parentheses stand nouns with topics of their own that the same rules change.
///
/// Rows of state are locked in this order, and topics are told in it.
#[macro_export]
macro_rules! capabilities {
    ($macro:ident) => {
        $macro! {
            orders Orders;
            coupons Coupons;
            stock Stock (products Products);
            payments Payments (balances Balances);
        }
    };
}

/// Declares the events of a noun: the topic's description, then each type with its name, version, struct, the field that is the
/// Kafka key, `of` the field that names the order, `in` the field that names the aggregate where it is not the key, and the payload.
macro_rules! events {
    (@ ($d:tt) $(#![$topic:meta])+ $(
        $(#[$doc:meta])+
        $name:literal v $version:literal $Type:ident
            key $key:ident $(of $order:ident)? $(in $aggregate:ident)? { $($fields:tt)+ }
    )+) => {
        $(
            $(#[$doc])+
            #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
            pub struct $Type { $($fields)+ }
        )+

        /// Hands the events on to the macro that collects them.
        macro_rules! declared {
            ($d next:ident $d($d passed:tt)*) => {
                $d next! {
                    { $(#[$topic])+ $($name v $version $Type key $key $(of $order)? $(in $aggregate)?;)+ }
                    $d($d passed)*
                }
            };
        }
        pub(crate) use declared;
    };
    ($($events:tt)+) => { events! { @ ($) $($events)+ } };
}

pub mod balances;
mod catalogue;
pub mod coupons;
pub mod dead_letters;
pub mod documents;
pub mod failure;
pub mod generated;
pub mod orders;
pub mod payments;
pub mod products;
pub mod stock;

pub use catalogue::{CATALOGUE, Event, EventKind, EventType, Topic};
pub use ordermill_wire::{DecodeError, headers};

/// An amount of money in the minor unit of the one configured currency (KRW has no decimals).
pub type Money = i64;
