//! Looks now and then whether Kafka still holds what was published last, on a thread of its own: nothing waits for it.
//!
//! A consumer that misses records asks for them by itself; this is for topics that nobody of ours reads or that our
//! groups have read to their end, while others have not.

use std::thread::{self, JoinHandle};
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
    found: JoinHandle<Result<Vec<tails::Tail>, KafkaError>>,
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
        if self.look.is_none() && Instant::now() >= self.due {
            self.look = Some(self.begin(leadership));
        }
        let Some(look) = self.look.take_if(|look| look.found.is_finished()) else { return Vec::new() };
        self.due = Instant::now() + self.every;
        match look.found.join() {
            // Since the cursor was moved back, the last records may be ones that were sent again.
            Ok(Ok(found)) if look.rewinds == leadership.rewinds => look.published.losses(&found),
            Ok(Err(error)) => {
                tracing::debug!(%error, "Kafka does not say what it holds");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Whoever leads no more does not wait for it.
    fn begin(&self, leadership: &Leadership) -> Look {
        let (kafka, topics, partitions) = (self.kafka.clone(), self.topics.clone(), leadership.partitions);
        let found = thread::spawn(move || tails::read(&kafka, &topics, partitions));
        Look { published: leadership.published(), rewinds: leadership.rewinds, found }
    }
}
