//! What travels: events as the pipeline carries them, whatever they are about, and the headers of their records.
//!
//! The shop says what its events are by implementing [`Event`] and [`Topic`]; the pipeline knows no more of them than that.

pub mod headers;

use std::fmt;
use std::hash::Hash;

use thiserror::Error;
use uuid::Uuid;

/// A Kafka topic, by its name without the prefix that an installation may put before it.
pub trait Topic: Copy + Eq + Hash + fmt::Debug + Send + Sync + 'static {
    /// Every topic, in the order in which documents list them.
    const ALL: &'static [Self];

    /// The topic's name.
    fn name(self) -> &'static str;
}

/// Something that happened.
pub trait Event: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// The topics that events travel on.
    type Topic: Topic;

    /// The topic it travels on.
    fn topic(&self) -> Self::Topic;

    /// The type's name, like `order.placed`.
    fn name(&self) -> &'static str;

    /// The version of the payload's schema, from 1.
    fn version(&self) -> i16;

    /// The Kafka key: events of one key stay in order.
    fn key(&self) -> Uuid;

    /// The aggregate that it happened to. Its events on one topic are numbered without gap.
    fn aggregate_id(&self) -> Uuid;

    /// What it belongs to, where there is something: the timeline that it shows on.
    fn correlation_id(&self) -> Option<Uuid>;

    /// The payload as JSON.
    ///
    /// # Errors
    /// None in practice: every payload is plain data with text keys.
    fn encode(&self) -> Result<Vec<u8>, serde_json::Error>;

    /// The event of that type and version in that payload.
    ///
    /// # Errors
    /// [`DecodeError`] where type and version are not known or the payload is not theirs.
    fn decode(name: &str, version: i16, payload: &[u8]) -> Result<Self, DecodeError>;
}

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
