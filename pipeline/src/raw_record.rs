//! A record that lies in somebody's buffer: who it is from, and what it says.

use std::fmt;

use std::sync::Arc;

use jiff::Timestamp;
use ordermill_wire::{DecodeError, Event};
use rdkafka::message::{BorrowedMessage, Message as _};
use uuid::Uuid;

use crate::authenticity::{Authenticity, Covered, Keys};
use crate::dead_letters::Code;
use crate::headers::{self, Headers};
use crate::label::Label;
use crate::log::RecordPlace;
use crate::record::{Mismatch, Place, Received};
use crate::trace::TraceContext;

/// A record with what of it is read, nothing of it copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawRecord<'a> {
    /// The topic, without prefix.
    pub(crate) topic: &'a str,
    pub(crate) partition: i16,
    pub(crate) offset: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
    pub(crate) payload: Option<&'a [u8]>,
    /// Whether it is the relay's, by its MAC.
    pub(crate) authenticity: Authenticity,
}

/// Why nothing that a record says is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    /// It was signed by a key that is revoked. It is passed over; what was the relay's of that is published again.
    Revoked,
    /// It is foreign, and why.
    Foreign(String),
}

/// What the relay has written on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    /// Its place in the log.
    pub(crate) label: Label,
    /// The label of the record before it in its partition; [`Label::START`] on the first.
    pub(crate) previous: Label,
    pub(crate) event_id: Uuid,
    pub(crate) event_type: &'a str,
    /// The version of the payload's schema.
    pub(crate) version: i16,
    /// When the event happened.
    pub(crate) at: Timestamp,
    /// The event's ordinal in its aggregate's history.
    pub(crate) sequence: i32,
}

impl<'a> RawRecord<'a> {
    /// Of a message, whose topic is given without prefix, as these keys judge it.
    pub(crate) fn of(message: &'a BorrowedMessage<'_>, topic: &'a str, keys: &Keys) -> RawRecord<'a> {
        let headers = Headers::of(headers::all(message));
        let covered = Covered {
            topic: message.topic(),
            partition: message.partition(),
            key: message.key(),
            payload: message.payload(),
            headers: headers.covered(),
        };
        RawRecord {
            topic,
            partition: i16::try_from(message.partition()).unwrap_or(i16::MAX),
            offset: message.offset(),
            key: message.key(),
            headers,
            payload: message.payload(),
            authenticity: keys.judge(&covered, headers.key, headers.mac),
        }
    }

    pub(crate) fn place(&self) -> RecordPlace {
        RecordPlace { topic: self.topic.to_owned(), partition: self.partition, offset: self.offset }
    }

    /// Why it is not the relay's, if it is not. This is the one place that judges so, and whoever reads records asks here before
    /// anything else of a record is believed.
    fn judge(&self) -> Result<(), NotOurs> {
        match self.authenticity {
            Authenticity::Authentic => {}
            Authenticity::Revoked => return Err(NotOurs::Revoked),
            Authenticity::Foreign(flaw) => return Err(foreign(&flaw.to_string())),
        }
        // What of it a MAC does not cover could be read differently by others.
        if self.headers.repeated { Err(foreign("a header stands there twice")) } else { Ok(()) }
    }

    /// What the relay has written on it, or why it is not the relay's.
    pub(crate) fn stamp(&self) -> Result<Stamp<'a>, NotOurs> {
        self.judge()?;
        let headers = &self.headers;
        let without = |header| move || foreign(&format!("no {header} header"));
        Ok(Stamp {
            label: headers.label().ok_or_else(without("ordermill-label"))?,
            previous: headers.previous().ok_or_else(without("valid ordermill-previous"))?,
            event_id: headers.event_id().ok_or_else(without("ce_id"))?,
            event_type: headers.event_type().ok_or_else(without("ce_type"))?,
            version: headers.version().ok_or_else(without("ce_dataschema"))?,
            at: headers.time().ok_or_else(without("ce_time"))?,
            sequence: headers.sequence().ok_or_else(without("ce_sequence"))?,
        })
    }

    /// The label of a canary of the relay's.
    pub(crate) fn canary(&self) -> Option<Label> {
        self.judge().ok()?;
        self.headers.label()
    }

    /// The event in it with what came along, or why it can't be applied.
    pub(crate) fn decode<E: Event>(&self) -> Result<Received<E>, Mismatch> {
        let foreign = |why: NotOurs| Mismatch { code: Code::Foreign, error: why.to_string(), place: None };
        let stamp = self.stamp().map_err(foreign)?;
        self.decode_stamped(&stamp)
    }

    /// The same of a record whose stamp has been read.
    pub(crate) fn decode_stamped<E: Event>(&self, stamp: &Stamp<'_>) -> Result<Received<E>, Mismatch> {
        let payload = self.payload.unwrap_or_default();
        let event = E::decode(stamp.event_type, stamp.version, payload).map_err(undecodable)?;
        if self.key != Some(event.key().to_string().as_bytes()) {
            let error = format!("the key is not {}, which the payload says", event.key());
            return Err(Mismatch { code: Code::KeyMismatch, error, place: None });
        }
        let trace = TraceContext::child_of(self.headers.traceparent());
        Ok(Received { event_id: stamp.event_id, event: Arc::new(event), at: stamp.at, trace })
    }
}

fn foreign(what: &str) -> NotOurs {
    NotOurs::Foreign(what.to_owned())
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotOurs::Revoked => f.write_str("signed by a key that is revoked"),
            NotOurs::Foreign(why) => write!(f, "not published by the relay: {why}"),
        }
    }
}

fn undecodable(error: DecodeError) -> Mismatch {
    let told = error.to_string();
    let (code, place) = match error {
        DecodeError::UnknownType { .. } => (Code::UnknownType, None),
        DecodeError::NotJson { source, .. } => {
            (Code::Undecodable, Some(Place::Text { line: source.line(), column: source.column() }))
        }
        DecodeError::Payload { place, .. } => (Code::Schema, Some(Place::Member(place))),
    };
    Mismatch { code, error: told, place }
}
