//! All topics and event types, as the nouns' files declare them: what ties a type's name to its struct, topic and key.

use std::fmt;

use ordermill_wire::DecodeError;
use schemars::Schema;
use serde::de::DeserializeOwned;
use uuid::Uuid;

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
    ($( $noun:ident $topic:ident { $(#[$doc:meta])* $(
        $name:literal v $version:literal $Type:ident key $key:ident $(of $order:ident)? $(in $aggregate:ident)? ;
    )* } )*) => {
        $( use crate::$noun::{$($Type),*}; )*

        /// A Kafka topic, named by the noun whose events it carries.
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
                match self { $( Topic::$topic => stringify!($noun), )* }
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

        impl ordermill_wire::Event for Event {
            type Topic = Topic;

            fn topic(&self) -> Topic {
                Event::topic(self)
            }

            fn name(&self) -> &'static str {
                Event::name(self)
            }

            fn version(&self) -> i16 {
                Event::version(self)
            }

            fn key(&self) -> Uuid {
                Event::key(self)
            }

            fn aggregate_id(&self) -> Uuid {
                Event::aggregate_id(self)
            }

            fn correlation_id(&self) -> Option<Uuid> {
                self.order_id()
            }

            fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
                Event::encode(self)
            }

            fn decode(name: &str, version: i16, payload: &[u8]) -> Result<Event, DecodeError> {
                Event::decode(name, version, payload)
            }
        }

        impl ordermill_wire::Topic for Topic {
            const ALL: &'static [Topic] = Topic::ALL;

            fn name(self) -> &'static str {
                Topic::name(self)
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

/// Collects what each noun's file says of its events, noun by noun, then makes the catalogue of it.
macro_rules! collect {
    ([$($collected:tt)*]) => { catalogue! { $($collected)* } };
    ([$($collected:tt)*] $noun:ident $Name:ident; $($rest:tt)*) => {
        crate::$noun::declared! { collect [$($collected)*] $noun $Name; $($rest)* }
    };
    ({ $($events:tt)* } [$($collected:tt)*] $noun:ident $Name:ident; $($rest:tt)*) => {
        collect! { [$($collected)* $noun $Name { $($events)* }] $($rest)* }
    };
    ($($noun:ident $Name:ident $(($($part:ident $Part:ident),+))?;)+) => {
        collect! { [] $( $noun $Name; $($($part $Part;)+)? )+ }
    };
}

crate::capabilities!(collect);
