//! Looks now and then whether Kafka still holds what was published last, on a thread of its own: nothing waits for it.
//!
//! A consumer that misses records asks for them by itself; this is for topics that nobody of ours reads or that our
//! groups have read to their end, while others have not.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::cursor::Leadership;
use super::published::{Loss, Published};
use super::tails;
use crate::kafka::KafkaConfig;

/// One look, under way.
struct Look {
    published: Published,
    /// How often the cursor had been moved back when it began.
    rewinds: u64,
    found: Receiver<Result<Vec<tails::Tail>, KafkaError>>,
}

/// When the next look is due, or the one that is under way.
pub(super) struct Watch {
    kafka: KafkaConfig,
    topics: Vec<String>,
    every: Duration,
    due: Instant,
    look: Option<Look>,
}

impl Watch {
    pub(super) fn new(kafka: &KafkaConfig, topics: Vec<String>, every: Duration) -> Watch {
        Watch { kafka: kafka.clone(), topics, every, due: Instant::now() + every, look: None }
    }

    /// Begins a look where one is due, and answers what the last one found missing.
    pub(super) fn turn(&mut self, leadership: &Leadership) -> Vec<Loss> {
        let Some(look) = &self.look else {
            if Instant::now() >= self.due {
                self.look = Some(self.begin(leadership));
            }
            return Vec::new();
        };
        let found = match look.found.try_recv() {
            Err(TryRecvError::Empty) => return Vec::new(),
            found => found.ok().and_then(|found| {
                found.inspect_err(|error| tracing::debug!(%error, "Kafka does not say what it holds")).ok()
            }),
        };
        // Since the cursor was moved back, the last records may be ones that were sent again.
        let is_valid = look.rewinds == leadership.rewinds;
        let found = found.filter(|_| is_valid).unwrap_or_default();
        let losses = look.published.losses(&found);
        (self.look, self.due) = (None, Instant::now() + self.every);
        losses
    }

    fn begin(&self, leadership: &Leadership) -> Look {
        let (send, found) = mpsc::channel();
        let (kafka, topics, partitions) = (self.kafka.clone(), self.topics.clone(), leadership.partitions);
        thread::spawn(move || {
            // Whoever leads no more does not wait for it.
            let _ = send.send(tails::read(&kafka, &topics, partitions));
        });
        Look { published: leadership.published(), rewinds: leadership.rewinds, found }
    }
}
