//! What a member does with what loops back: applies it, and says to the client what is fetched and what not.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;
use tokio::runtime::Handle;

use super::Member;
use crate::consumer::Handler;
use crate::consumer::assignment::Anew;
use crate::consumer::batch::BatchError;
use crate::consumer::feed::Fed;
use crate::consumer::taking::{SEEK_TIMEOUT, ToBeFetched, take_looped_back};
use crate::pacing::pause_after;
use crate::partition::Slot;
use crate::record::Received;
use crate::retry::Retry;

impl<H: Handler> Member<'_, H> {
    /// Applies what has looped back. What can't be applied is fetched, and handled as it lies in Kafka.
    /// Answers whether there was something.
    pub(super) fn apply_what_loops_back(&mut self, retry: &mut Retry) -> Result<bool, Anew> {
        if self.batches.any_parked {
            // It may have to wait behind a letter.
            self.feed.clear();
            let slots = self.feed.ends_all();
            self.fetch(&slots)?;
            return Ok(false);
        }
        let (context, now) = (self.consumer.context().clone(), Instant::now());
        let (feed, at_most) = (&mut self.feed, self.batch_records_max);
        let Fed { records, pause, fetch } =
            context.with_state(|state| feed.take(at_most, &mut state.reader, now));
        if !pause.is_empty() {
            self.consumer.pause(&context.list(pause))?;
        }
        let mut events = Vec::with_capacity(records.len());
        let mut is_applied = true;
        for (slot, record) in &records {
            match take_looped_back(&context, self.batches.handler, *slot, record, now) {
                Ok(event) => events.extend(event),
                Err(ToBeFetched) => is_applied = false,
            }
        }
        if is_applied && !events.is_empty() {
            is_applied = self.apply_looped_back(&events)?;
        }
        if is_applied {
            self.fetch(&fetch)?;
            if !events.is_empty() {
                self.succeeded(retry);
            }
        } else {
            self.feed.ends_all();
            let slots: Vec<Slot> = self.assignment(|state| state.reader.reread());
            self.fetch(&slots)?;
        }
        self.batches.metrics.looped_back.inc_by(records.len() as u64);
        Ok(!records.is_empty())
    }

    /// Answers whether they are applied.
    fn apply_looped_back(&mut self, events: &[Received<H::Event>]) -> Result<bool, Anew> {
        let progress = self.assignment(|state| state.reader.progress());
        let began = Instant::now();
        let outcome = Handle::current().block_on(self.batches.apply_looped_back(events, &progress));
        let took = began.elapsed();
        self.lasting.watchdog.worked(took);
        match outcome {
            Ok(true) => {
                self.assignment(|state| state.reader.stored(progress.iter().map(|p| (p.slot, p.upto))));
                std::thread::sleep(pause_after(events.len(), took));
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(BatchError::Fenced) => Err(BatchError::Fenced.into()),
            Err(error) => {
                tracing::debug!(group = H::GROUP, %error, "what has looped back is fetched");
                Ok(false)
            }
        }
    }

    /// Has the client fetch partitions from where their reading goes on.
    fn fetch(&self, slots: &[Slot]) -> Result<(), Anew> {
        if slots.is_empty() {
            return Ok(());
        }
        let context = self.consumer.context();
        for slot in slots {
            let next = self.assignment(|state| state.reader.next_offset(*slot));
            let name = context.kafka.full_name(slot.topic);
            if let Some(next) = next {
                self.consumer.seek(&name, i32::from(slot.partition), Offset::Offset(next), SEEK_TIMEOUT)?;
            }
        }
        Ok(self.consumer.resume(&context.list(slots.iter().copied()))?)
    }
}
