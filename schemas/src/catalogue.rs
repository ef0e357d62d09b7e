//! The list of all topics and event types: the one place that ties a type's name to its struct, topic and key.

use std::fmt;

use schemars::Schema;
use serde::de::DeserializeOwned;
use thiserror::Error;
use uuid::Uuid;

/// Why a payload is not an event.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// No event type of that name and version is known here.
    #[error("unknown event type {name} version {version}")]
    UnknownType {
        /// The name that was met.
        name: String,
        /// The version that was met.
        version: i16,
    },
    /// The payload is not JSON.
    #[error("payload of {name} is not JSON: {source}")]
    NotJson {
        /// The type that was promised.
        name: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The payload does not have the shape that its type and version promise.
    #[error("payload is not a {name}: at {place}: {source}")]
    Payload {
        /// The type that was promised.
        name: &'static str,
        /// The failing place, like `lines[0].quantity`; `.` for the whole.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// What is known of one event type without having an event.
pub struct EventType {
    /// The type.
    pub kind: EventKind,
    /// The name, like `order.placed`.
    pub name: &'static str,
    /// The version of the payload's schema, from 1.
    pub version: i16,
    /// The topic it travels on.
    pub topic: Topic,
    /// The payload's field that is the Kafka key.
    pub key_field: &'static str,
    /// The JSON Schema of the payload.
    pub schema: fn() -> Schema,
}

macro_rules! catalogue {
    ($( $(#[$doc:meta])* $module:ident: $topic:ident $topic_name:literal { $(
        $name:literal v $version:literal $Type:ident key $key:ident $(of $order:ident)? $(in $aggregate:ident)? ;
    )* } )*) => {
        $( use crate::$module::{$($Type),*}; )*

        /// A Kafka topic, named like the capability whose events it carries.
        ///
        /// The name here is without the prefix that an installation may put before it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Topic {
            $( $(#[$doc])* $topic, )*
        }

        impl Topic {
            /// Every topic, in the order in which documents list them.
            pub const ALL: &[Topic] = &[$( Topic::$topic, )*];

            /// The topic's name, without prefix.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Topic::$topic => $topic_name, )* }
            }
        }

        /// Something that happened.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(
                #[doc = concat!("`", $name, "`")]
                $Type($Type),
            )*)*
        }

        /// The type of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind {
            $($(
                #[doc = concat!("`", $name, "`")]
                $Type,
            )*)*
        }

        impl EventKind {
            /// The type's name, like `order.placed`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($( EventKind::$Type => $name, )*)* }
            }

            /// The topic that its events travel on.
            #[must_use]
            pub const fn topic(self) -> Topic {
                match self { $($( EventKind::$Type => Topic::$topic, )*)* }
            }
        }

        /// Every event type, grouped by topic.
        pub const CATALOGUE: &[EventType] = &[
            $($(
                EventType {
                    kind: EventKind::$Type,
                    name: $name,
                    version: $version,
                    topic: Topic::$topic,
                    key_field: stringify!($key),
                    schema: || schemars::schema_for!($Type),
                },
            )*)*
        ];

        impl Event {
            /// Its type.
            #[must_use]
            pub const fn kind(&self) -> EventKind {
                match self { $($( Event::$Type(_) => EventKind::$Type, )*)* }
            }

            /// The type's name, like `order.placed`.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                self.kind().name()
            }

            /// The version of the payload's schema.
            #[must_use]
            pub const fn version(&self) -> i16 {
                match self { $($( Event::$Type(_) => $version, )*)* }
            }

            /// The topic it travels on.
            #[must_use]
            pub const fn topic(&self) -> Topic {
                self.kind().topic()
            }

            /// The Kafka key: events of one key stay in order.
            #[must_use]
            pub const fn key(&self) -> Uuid {
                match self { $($( Event::$Type(data) => data.$key, )*)* }
            }

            /// The aggregate that it happened to. Its events on one topic are numbered without gap.
            #[must_use]
            pub const fn aggregate_id(&self) -> Uuid {
                match self { $($( Event::$Type(data) => catalogue!(@aggregate data $key $($aggregate)?), )*)* }
            }

            /// The order that the event belongs to, where there is one.
            #[must_use]
            pub const fn order_id(&self) -> Option<Uuid> {
                match self { $($( Event::$Type(_data) => catalogue!(@order _data $($order)?), )*)* }
            }

            /// The payload as JSON.
            ///
            /// # Errors
            /// None in practice: every payload is plain data with text keys.
            pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
                match self { $($( Event::$Type(data) => serde_json::to_vec(data), )*)* }
            }

            /// The event of that type and version in that payload.
            ///
            /// # Errors
            /// [`DecodeError`] where type and version are not known or the payload is not theirs.
            pub fn decode(name: &str, version: i16, payload: &[u8]) -> Result<Event, DecodeError> {
                match (name, version) {
                    $($(
                        ($name, $version) => decode_payload($name, payload).map(Event::$Type),
                    )*)*
                    _ => Err(DecodeError::UnknownType { name: name.to_owned(), version }),
                }
            }
        }

        impl Topic {
            /// The topic of that name, if there is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Topic> {
                Topic::ALL.iter().copied().find(|topic| topic.name() == name)
            }
        }

        impl fmt::Display for Topic {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl EventKind {
            /// The type of that name, if there is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<EventKind> {
                CATALOGUE.iter().find(|known| known.name == name).map(|known| known.kind)
            }
        }

        $($(
            impl From<$Type> for Event {
                fn from(data: $Type) -> Event {
                    Event::$Type(data)
                }
            }
        )*)*
    };
    (@aggregate $data:ident $key:ident $aggregate:ident) => { $data.$aggregate };
    (@aggregate $data:ident $key:ident) => { $data.$key };
    (@order $data:ident $order:ident) => { Some($data.$order) };
    (@order $data:ident) => { None };
}

/// Only a payload that fails is read a second time, to name the place.
fn decode_payload<T: DeserializeOwned>(name: &'static str, payload: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(payload).map_err(|source| {
        if source.classify() != serde_json::error::Category::Data {
            return DecodeError::NotJson { name, source };
        }
        let again: Result<T, _> =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(payload));
        let place = again.err().map_or_else(|| ".".to_owned(), |error| error.path().to_string());
        DecodeError::Payload { name, place, source }
    })
}

catalogue! {
    /// What the saga of an order decided, keyed by order id.
    orders: Orders "orders" {
        "order.placed" v 1 OrderPlaced key order_id of order_id;
        "order.payment_due" v 1 OrderPaymentDue key order_id of order_id;
        "order.confirmed" v 1 OrderConfirmed key order_id of order_id;
        "order.rejecting" v 1 OrderRejecting key order_id of order_id;
        "order.rejected" v 1 OrderRejected key order_id of order_id;
        "order.cancelling" v 1 OrderCancelling key order_id of order_id;
        "order.cancelled" v 1 OrderCancelled key order_id of order_id;
        "order.modifying" v 1 OrderModifying key order_id of order_id;
        "order.modification_applying" v 1 OrderModificationApplying key order_id of order_id;
        "order.modification_refusing" v 1 OrderModificationRefusing key order_id of order_id;
        "order.modified" v 1 OrderModified key order_id of order_id;
        "order.modification_refused" v 1 OrderModificationRefused key order_id of order_id;
        "order.partially_shipped" v 1 OrderPartiallyShipped key order_id of order_id;
        "order.shipped" v 1 OrderShipped key order_id of order_id;
        "order.shipment_delivered" v 1 OrderShipmentDelivered key order_id of order_id;
        "order.delivered" v 1 OrderDelivered key order_id of order_id;
    }
    /// Reservations, keyed by order id, and received goods, keyed by product id.
    stock: Stock "stock" {
        "stock.reserved" v 1 StockReserved key order_id of order_id;
        "stock.refused" v 1 StockRefused key order_id of order_id;
        "stock.deducted" v 1 StockDeducted key order_id of order_id;
        "stock.released" v 1 StockReleased key order_id of order_id;
        "stock.change_reserved" v 1 StockChangeReserved key order_id of order_id;
        "stock.change_refused" v 1 StockChangeRefused key order_id of order_id;
        "stock.changed" v 1 StockChanged key order_id of order_id;
        "stock.change_released" v 1 StockChangeReleased key order_id of order_id;
        "stock.adjusted" v 1 StockAdjusted key product_id;
    }
    /// Charges, keyed by order id.
    payments: Payments "payments" {
        "payment.requested" v 1 PaymentRequested key order_id of order_id;
        "payment.completed" v 1 PaymentCompleted key order_id of order_id;
        "payment.failed" v 1 PaymentFailed key order_id of order_id;
        "payment.voiding" v 1 PaymentVoiding key order_id of order_id;
        "payment.refunding" v 1 PaymentRefunding key order_id of order_id;
        "payment.refunded" v 1 PaymentRefunded key order_id of order_id;
    }
    /// Coupons, their claims and uses, keyed by coupon id or order id.
    coupons: Coupons "coupons" {
        "coupon.created" v 1 CouponCreated key coupon_id;
        "coupon.claim_requested" v 1 CouponClaimRequested key coupon_id in claim_id;
        "coupon.issued" v 1 CouponIssued key coupon_id in claim_id;
        "coupon.claim_rejected" v 1 CouponClaimRejected key coupon_id in claim_id;
        "coupon.applied" v 1 CouponApplied key order_id of order_id;
        "coupon.refused" v 1 CouponRefused key order_id of order_id;
        "coupon.returned" v 1 CouponReturned key order_id of order_id;
        "coupon.expired" v 1 CouponExpired key coupon_id in user_coupon_id;
        "coupon.revoked" v 1 CouponRevoked key coupon_id in user_coupon_id;
    }
    /// Changes of a user's balance, keyed by user id.
    balances: Balances "balances" {
        "balance.opened" v 1 BalanceOpened key user_id;
        "balance.charged" v 1 BalanceCharged key user_id;
        "balance.held" v 1 BalanceHeld key user_id of order_id;
        "balance.captured" v 1 BalanceCaptured key user_id of order_id;
        "balance.released" v 1 BalanceReleased key user_id of order_id;
        "balance.refunded" v 1 BalanceRefunded key user_id of order_id;
    }
    /// Descriptions and prices, keyed by product id.
    products: Products "products" {
        "product.created" v 1 ProductCreated key product_id;
        "product.changed" v 1 ProductChanged key product_id;
    }
}
