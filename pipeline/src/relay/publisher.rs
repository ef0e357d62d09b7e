//! Events of the log as records: for the workers of this process, and for Kafka.

use std::sync::Arc;

use super::core::{Publication, Segment};
use super::sender::{Delivery, Departing, Sender};
use super::{RelayConfig, RelayError};
use crate::authenticity::Keyring;
use crate::kafka_usage::KafkaUsage;

use crate::label::Label;
use crate::log::{Appended, Entry};
use crate::loopback::{Loopback, LoopedBack};

/// About how many bytes the headers of a record take.
const HEADERS_BYTES: usize = 700;

impl Segment for Appended {
    fn number(&self) -> i64 {
        self.number
    }

    fn events(&self) -> usize {
        self.entries.len()
    }

    fn place(&self, index: usize) -> (&str, i16) {
        self.entries.get(index).map_or(("", 0), |entry| (&entry.topic, entry.partition))
    }

    fn bytes(&self, index: usize) -> usize {
        self.entries.get(index).map_or(0, bytes)
    }
}

fn bytes(entry: &Entry) -> usize {
    entry.data.len() + HEADERS_BYTES
}

/// Hands over what is published in one era.
pub(super) struct Publisher {
    sender: Sender,
    loopback: Loopback,
    keyring: Keyring,
    era: i32,
}

impl Publisher {
    pub(super) fn new(
        config: &RelayConfig,
        era: i32,
        usage: &KafkaUsage,
        loopback: Loopback,
    ) -> Result<Publisher, RelayError> {
        let sender = Sender::start(config, era, usage, loopback.clone())?;
        Ok(Publisher { sender, loopback, keyring: config.kafka.keyring.clone(), era })
    }

    /// What became of records since this was last asked. It does not wait.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        self.sender.deliveries()
    }

    /// Has the canary of that number sent.
    pub(super) fn send_canary(&self, number: i64) {
        self.sender.send_canary(Label { era: self.era, position: number });
    }

    /// Hands the records over, in their order.
    pub(super) fn publish(&self, publication: Publication<Appended>) -> Result<(), RelayError> {
        // What can't be signed is not handed to workers either.
        self.keyring.keys().signing(self.era)?;
        let Publication { segment: Appended { at, entries, .. }, records } = publication;
        let label_at = |position| Label { era: self.era, position };
        // In the order of the entries; some may be left out.
        let mut records = records.into_iter().peekable();
        let (mut looped_back, mut departing) = (Vec::new(), Vec::new());
        for (index, entry) in entries.into_iter().enumerate() {
            let Some(outgoing) = records.next_if(|record| record.index == index) else { continue };
            let previous = if outgoing.previous > 0 { label_at(outgoing.previous) } else { Label::START };
            let (bytes, entry) = (bytes(&entry), Arc::new(entry));
            let record = LoopedBack { entry, at, label: label_at(outgoing.position), previous };
            looped_back.push(record.clone());
            departing.push(Departing { slot: outgoing.slot, ticket: outgoing.ticket, bytes, record });
        }
        self.loopback.handed_over(&looped_back);
        self.sender.send(departing);
        Ok(())
    }
}
