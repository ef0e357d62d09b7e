//! An order's timeline as a client sees it.
//!
//! An administrator sees everything. A customer sees the order's story without what is internal: no dead letters, no
//! words of errors, no request of anybody else, no names of administrators.

mod gateway;
mod parts;

use std::collections::HashMap;

use jiff::Timestamp;
use ordermill_pipeline::trace::TraceContext;
use ordermill_schemas::Event;
use ordermill_store::timeline::TimelineRow;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

pub use gateway::{Gateway, GatewayAttempt};
pub use parts::{BalanceEntry, DeadLetter, KafkaPlace, RequestView};

use crate::view::view;

/// The whole story of one order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timeline {
    /// What happened, oldest first.
    pub items: Vec<TimelineEvent>,
}

view! {
    /// Something that happened.
    pub struct TimelineEvent of(row: TimelineRow, sequence: u32, cause_sequence: Option<u32>, gateway: Option<Gateway>)
    where
        data = parts::with_note(parts::payload(&row.data), row.note);
        request = row.request.map(|request| RequestView::of(request, &row.event_type));
        trace = row.traceparent.parse::<TraceContext>().ok();
    {
        /// The ordinal on this timeline, from 1.
        #[schema(example = 1)]
        pub sequence: u32 = sequence,
        /// What happened.
        #[schema(example = "order.placed")]
        pub r#type: String = row.event_type,
        /// When.
        pub at: Timestamp,
        /// Who did it: `user:<id>`, `admin:<name of the key>` (to a customer only `admin`), `worker:<group>`, `gateway`.
        #[schema(example = "worker:stock")]
        pub actor: String,
        /// The HTTP request that wrote it, where one did; to a customer only their own.
        pub request?: RequestView = request,
        /// The trace that it belongs to, as in the logs.
        #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
        pub trace_id?: String = trace.map(TraceContext::trace_id),
        /// The event's payload, as its JSON Schema says; with the `reason` of a cancellation or the `tracking_number` of a shipment, where one
        /// was given and the user was not erased since.
        #[schema(value_type = Object)]
        pub data: Value = data,
        /// The place in the log.
        #[schema(example = 4711)]
        pub log_position: i64,
        /// The topic that it goes to, without the installation's prefix.
        #[schema(example = "stock")]
        pub topic: String,
        /// The partition of it.
        #[schema(example = 3)]
        pub partition: i16,
        /// Whether Kafka has acknowledged it.
        pub published: bool,
        /// Where Kafka has put it; known once it is published, but for what was sent twice.
        pub kafka?: KafkaPlace = row.kafka.map(Into::into),
        /// The consumer groups that are done with it: they have applied it, passed it over or put it aside.
        #[schema(example = json!(["orders", "payments"]))]
        pub read_by: Vec<String>,
        /// The event.
        pub event_id: Uuid,
        /// The event that caused it, where one did.
        pub cause_id?: Uuid,
        /// The ordinal of that event, where it is on this timeline.
        #[schema(example = 1)]
        pub cause_sequence?: u32 = cause_sequence,
        /// What the payment gateway was asked for and answered, on events of payments that tell of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        pub gateway: Option<Gateway> = gateway,
        /// The entry that it made in the balance's history, where it made one.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        pub balance_entry: Option<BalanceEntry> = row.balance_entry.map(Into::into),
        /// The message that could not be applied, where it tells of one; to administrators.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        pub dead_letter: Option<DeadLetter> = row.dead_letter.map(Into::into),
        /// Where it was put aside itself: by a group that could not apply it, or in which it waits behind another; to
        /// administrators.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schema(required = false)]
        pub put_aside: Vec<DeadLetter> = row.put_aside.into_iter().map(Into::into).collect(),
    }
}

/// For whom a timeline is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Who sees everything.
    Admin,
    /// The customer of that name, as events name it.
    Customer(String),
}

impl Timeline {
    /// The story that these rows tell that reader.
    #[must_use]
    pub fn of(mut rows: Vec<TimelineRow>, reader: &Reader) -> Timeline {
        if let Reader::Customer(name) = reader {
            rows.retain(|row| !row.is_of_dead_letter());
            rows.iter_mut().for_each(|row| hide_what_is_internal(row, name));
        }
        let sequences: HashMap<Uuid, u32> = rows.iter().map(|row| row.event_id).zip(1..).collect();
        let mut refunds = gateway::Refunds::default();
        let items = (1..).zip(rows).map(|(sequence, row)| {
            let cause_sequence = row.cause_id.and_then(|cause| sequences.get(&cause).copied());
            // What is no event of ours tells nothing of the gateway.
            let event = Event::decode(&row.event_type, row.version, &row.data).ok();
            let gateway = event.and_then(|event| refunds.gateway(event));
            TimelineEvent::of(row, sequence, cause_sequence, gateway)
        });
        Timeline { items: items.collect() }
    }
}

/// Leaves what the customer of that name may see.
fn hide_what_is_internal(row: &mut TimelineRow, name: &str) {
    row.request.take_if(|_| row.actor != name);
    if row.actor.starts_with("admin:") {
        row.actor = "admin".to_owned();
    }
    row.put_aside.clear();
    let mut data = parts::payload(&row.data);
    gateway::keep_words_only(&mut data);
    row.data = data.to_string().into_bytes();
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
