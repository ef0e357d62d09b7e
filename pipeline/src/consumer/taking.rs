//! Takes records, those of the client and those that loop back: reads each in place, has it judged, and does what the
//! judgement says.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::Offset;

use super::Handler;
use super::assignment::{Anew, Assignment};
use super::batch::Batches;
use super::foreign_cap::{ForeignCap, Room};
use super::gathered::Item;
use super::mark::Mark;
use super::reading::{Fate, Met, Own};
use crate::authenticity::Keys;
use crate::canary;
use crate::dead_letters::Code;
use crate::headers;
use crate::label::Label;
use crate::loopback::LoopedBack;
use crate::partition::Slot;
use crate::raw_record::{NotOurs, RawRecord};
use crate::record::{Mismatch, Received, Record};

/// How long the client may take to read on at another place.
pub(super) const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// What was taken in one go.
pub(super) struct Taken<E> {
    /// What is to be applied, in order.
    pub(super) items: Vec<Item<E>>,
    /// What comes behind may have to wait: one of them can't be applied, or it is not known yet which keys are parked.
    pub(super) may_wait: bool,
    /// The rebalance count under which it was read.
    pub(super) generation: u64,
    /// Everything that the client had at hand was taken.
    pub(super) is_all: bool,
}

/// Judges one message, and takes it where it is to be applied or put aside. Only then it is copied.
///
/// # Errors
/// Where the client can't read on at another place.
pub(super) fn take<H: Handler>(
    consumer: &BaseConsumer<Assignment>,
    batches: &Batches<'_, H>,
    foreign_cap: &mut ForeignCap,
    keys: &Keys,
    message: &BorrowedMessage<'_>,
    taken: &mut Taken<H::Event>,
) -> Result<(), Anew> {
    let context = consumer.context();
    let Some(slot) = context.slot(message.topic(), message.partition()) else { return Ok(()) };
    let raw = RawRecord::of(message, slot.topic, keys);
    let stamp = raw.stamp();
    let own = stamp.as_ref().ok().map(|s| Own { label: s.label, previous: s.previous, event_id: s.event_id });
    let mut received = stamp.as_ref().err().map(|why| Err((Code::Foreign, why.to_string())));
    let decode = || {
        let decoded: Result<Received<H::Event>, Mismatch> = raw.decode_stamped(stamp.as_ref().ok()?);
        Some(decoded.map_err(|Mismatch { code, error, .. }| (code, error)))
    };
    let (mut room, now) = (Room::Counted, Instant::now());
    let fate = context.with_state(|state| {
        let generation = state.reader.generation();
        if taken.generation != generation {
            (taken.items, taken.may_wait) = (Vec::new(), true);
            taken.generation = generation;
        }
        // What is of no interest waits like everything else behind a letter of its key.
        let may_wait = batches.any_parked || taken.may_wait;
        let is_of_interest = || {
            received = decode();
            let known = received.as_ref().and_then(|received| received.as_ref().ok());
            known.is_none_or(|known| may_wait || batches.handler.is_of_interest(&known.event))
        };
        // What a revoked key has signed comes again where it was the relay's; of all that nothing is put aside.
        let is_revoked = stamp.as_ref().is_err_and(|why| *why == NotOurs::Revoked);
        let has_room = || {
            if !is_revoked {
                room = foreign_cap.take(bytes(message), now);
            }
            room == Room::Letter
        };
        state.reader.meet(slot, &Met { offset: raw.offset, own }, is_of_interest, has_room, now)
    });
    let mut keep = |mark: Mark| {
        let Some(received) = received.take() else { return };
        taken.may_wait |= received.as_ref().is_err_and(|(code, _)| code.parks_the_key());
        taken.items.push(Item { record: Record::copy(&raw, message), slot, mark, received });
    };
    match fate {
        None | Some(Fate::Leave | Fate::PassOver) => {}
        Some(Fate::Apply(mark)) => keep(mark),
        Some(Fate::PutAside(mark)) => {
            batches.metrics.foreign.inc();
            keep(mark);
        }
        Some(Fate::Skip) => {
            batches.metrics.skipped.inc();
        }
        Some(Fate::Count) => {
            batches.metrics.foreign.inc();
            if room == Room::Told {
                tracing::warn!(
                    group = H::GROUP,
                    topic = slot.topic,
                    "somebody else writes many records to our topics; further ones of this minute are only counted"
                );
            }
        }
        Some(Fate::AskFor(last)) => {
            tracing::warn!(group = H::GROUP, ?slot, %last, "records are missing; the relay is asked to repeat");
            context.ask_for_repeat(slot, last);
        }
        Some(Fate::BeginAt(offset)) => {
            tracing::warn!(
                group = H::GROUP,
                ?slot,
                offset,
                "not the log that was read; reading from its start"
            );
            let offset = Offset::Offset(offset);
            consumer.seek(message.topic(), message.partition(), offset, SEEK_TIMEOUT)?;
        }
    }
    Ok(())
}

/// Takes a record of none of the group's topics: where it is a canary, the member says that it has met one. None that is not above the
/// last one says anything.
pub(super) fn meet_canary(
    context: &Assignment,
    keys: &Keys,
    message: &BorrowedMessage<'_>,
    last: &mut Label,
) {
    if message.topic() != context.canary {
        return;
    }
    let met = RawRecord::of(message, canary::TOPIC, keys).canary();
    if let Some(label) = met.filter(|label| *label > *last) {
        *last = label;
        context.pulse.canary_at(Some(Instant::now()));
    }
}

/// A record that has looped back can't be told to be applied, or passed over: it is to be fetched.
pub(super) struct ToBeFetched;

/// Has a record judged that has looped back. Answers the event in it, or none where it is of no interest.
///
/// # Errors
/// Where there is more to it.
pub(super) fn take_looped_back<H: Handler>(
    context: &Assignment,
    handler: &H,
    slot: Slot,
    record: &LoopedBack,
    now: Instant,
) -> Result<Option<Received<H::Event>>, ToBeFetched> {
    let LoopedBack { entry, at, label, previous } = record;
    // A key that is not the event's, or further headers: it is not plainly an event.
    if entry.record_key.is_some() || entry.headers.is_some() {
        return Err(ToBeFetched);
    }
    let Ok(event) = entry.event::<H::Event>() else { return Err(ToBeFetched) };
    let own = Own { label: *label, previous: *previous, event_id: entry.event_id };
    let is_of_interest = || handler.is_of_interest(&event);
    match context.with_state(|state| state.reader.meet_looped_back(slot, &own, is_of_interest, now)) {
        Some(Fate::PassOver) => Ok(None),
        Some(Fate::Apply(_)) => {
            let (event_id, trace) = (entry.event_id, entry.trace.child());
            Ok(Some(Received { event_id, event, at: *at, trace }))
        }
        _ => Err(ToBeFetched),
    }
}

/// How much of a message a letter keeps.
fn bytes(message: &BorrowedMessage<'_>) -> usize {
    let headers = headers::all(message).map(|(name, value)| name.len() + value.len());
    message.key_len() + message.payload_len() + headers.sum::<usize>()
}
