//! The names of the Kafka headers: CloudEvents 1.0 in binary mode, W3C trace context, and our own.

/// The event's id, the same at every repetition.
pub const ID: &str = "ce_id";
/// The event's type, like `order.placed`.
pub const TYPE: &str = "ce_type";
/// Who sent it: `/ordermill/<topic>`.
pub const SOURCE: &str = "ce_source";
/// Always `1.0`.
pub const SPEC_VERSION: &str = "ce_specversion";
/// When it happened, RFC 3339 in UTC.
pub const TIME: &str = "ce_time";
/// The id of the aggregate that it happened to.
pub const SUBJECT: &str = "ce_subject";
/// `urn:ordermill:schema:<type>:<version>`, which names the JSON Schema of the payload.
pub const DATA_SCHEMA: &str = "ce_dataschema";
/// The event's ordinal among those of its aggregate on this topic, from 1, without gap.
pub const SEQUENCE: &str = "ce_sequence";
/// The order that the event belongs to, where there is one.
pub const CORRELATION: &str = "ce_correlationid";
/// The id of the event that caused this one, where there is one.
pub const CAUSATION: &str = "ce_causationid";
/// Who caused it: `user:<id>`, `admin`, `worker:<group>`, `gateway`.
pub const ACTOR: &str = "ce_actor";
/// The payload's media type.
pub const CONTENT_TYPE: &str = "content-type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// `<era>-<position>`: the place in the log. Skip a record whose label is not above the last seen.
pub const LABEL: &str = "ordermill-label";
/// The label of the record before this one in its partition; absent on the first.
pub const PREVIOUS: &str = "ordermill-previous";
/// The id of the key that [`MAC`] was made with.
pub const KEY: &str = "ordermill-key";
/// What shows that the record is the relay's, and as the relay sent it: 16 bytes as hexadecimal digits.
pub const MAC: &str = "ordermill-mac";
/// The headers that [`MAC`] covers, in the order in which it does: all that anything here reads.
pub const COVERED: [&str; 12] = [
    LABEL,
    PREVIOUS,
    ID,
    TYPE,
    DATA_SCHEMA,
    TIME,
    SEQUENCE,
    SUBJECT,
    ACTOR,
    CORRELATION,
    CAUSATION,
    TRACEPARENT,
];
/// What [`DATA_SCHEMA`] begins with.
pub const SCHEMA_URN: &str = "urn:ordermill:schema:";
