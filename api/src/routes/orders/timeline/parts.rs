//! What an event of a timeline is shown with: its request, its note, its place, its balance entry, its dead letter.

use jiff::Timestamp;
use ordermill_pipeline::log::RecordPlace;
use ordermill_schemas::Money;
use ordermill_store::notes::NoteRow;
use ordermill_store::timeline::{BalanceEntryRow, DeadLetterRow};
use serde_json::Value;
use uuid::Uuid;

use crate::view::view;

view! {
    /// The HTTP request that wrote an event.
    #[schema(as = TimelineRequest)]
    pub struct RequestView of(request_id: Uuid, event_type: &str) {
        /// Its id, as its answer said in `X-Request-Id`.
        pub request_id: Uuid = request_id,
        /// Its method and route.
        #[schema(example = "POST /v1/orders")]
        pub route?: &'static str = route(event_type),
    }
}

/// The route that writes events of that type. Each is written by one route alone, so the log need not keep it.
fn route(event_type: &str) -> Option<&'static str> {
    Some(match event_type {
        "order.placed" => "POST /v1/orders",
        "order.cancelling" => "POST /v1/orders/{order_id}/cancellation",
        "order.modifying" => "PATCH /v1/orders/{order_id}",
        "order.partially_shipped" | "order.shipped" => "POST /v1/orders/{order_id}/shipments",
        "order.shipment_delivered" | "order.delivered" => "POST /v1/shipments/{shipment_id}/delivery",
        _ => return None,
    })
}

view! {
    /// A place in Kafka.
    pub struct KafkaPlace from place: RecordPlace {
        /// The topic, without the installation's prefix.
        #[schema(example = "orders")]
        pub topic: String,
        /// The partition.
        #[schema(example = 3)]
        pub partition: i16,
        /// The offset.
        #[schema(example = 128)]
        pub offset: i64,
    }
}

view! {
    /// An entry of the balance's history.
    #[schema(as = TimelineBalanceEntry)]
    pub struct BalanceEntry from row: BalanceEntryRow {
        /// The entry.
        pub entry_id: Uuid,
        /// `USED` or `REFUNDED`.
        #[schema(example = "USED")]
        pub kind: String,
        /// How much, above 0.
        #[schema(value_type = i64, example = 12_000)]
        pub amount: Money,
        /// Available and held after it.
        #[schema(value_type = i64, example = 38_000)]
        pub balance_after: Money,
        /// When.
        pub created_at: Timestamp,
    }
}

view! {
    /// A message that a group could not apply.
    #[schema(as = TimelineDeadLetter)]
    pub struct DeadLetter from row: DeadLetterRow {
        /// The dead letter.
        pub dead_letter_id: Uuid,
        /// The group.
        #[schema(example = "stock")]
        pub group: String,
        /// Where the message lies.
        pub kafka: KafkaPlace = row.place.into(),
        /// Its type, as its headers say.
        #[schema(example = "order.placed")]
        pub event_type?: String,
        /// Why it was not applied, for programs; a message that only waits has not failed.
        #[schema(example = "RULE")]
        pub code?: String,
        /// The same for operators.
        pub error?: String,
        /// How many attempts were made.
        #[schema(example = 1)]
        pub attempts: i32,
        /// When the first attempt failed.
        pub first_failed_at?: Timestamp,
        /// When the last attempt failed.
        pub last_failed_at?: Timestamp,
        /// What became of it.
        #[schema(example = "PARKED")]
        pub state: String,
    }
}

/// The payload as JSON. Only a dead letter's can be something else; then its text has to do.
pub(super) fn payload(data: &[u8]) -> Value {
    serde_json::from_slice(data).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(data).into_owned()))
}

/// The payload with what was said with the event, which the log does not have.
pub(super) fn with_note(mut payload: Value, note: Option<NoteRow>) -> Value {
    if let (Value::Object(members), Some(NoteRow { kind, words })) = (&mut payload, note) {
        members.insert(kind, words.into());
    }
    payload
}
