//! The public documents that are generated from the catalogue.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{CATALOGUE, EventType, Topic, dead_letters, headers};

/// A generated file: where it lies, from the root of the repository, and what is in it.
pub struct Document {
    /// The path from the root of the repository.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// Every generated document.
///
/// # Errors
/// None in practice: schemas are plain JSON values.
pub fn all() -> Result<Vec<Document>, serde_json::Error> {
    let mut documents = Vec::with_capacity(CATALOGUE.len() + 2);
    for event_type in CATALOGUE {
        documents.push(Document { path: schema_path(event_type), text: pretty(&schema(event_type))? });
    }
    documents.push(Document { path: "schemas/asyncapi.json".to_owned(), text: pretty(&asyncapi())? });
    documents.push(Document { path: "docs/EVENTS.md".to_owned(), text: events_page() });
    Ok(documents)
}

/// The JSON Schema of an event type's payload, with its `$id`.
#[must_use]
pub fn schema(event_type: &EventType) -> Value {
    let mut schema = (event_type.schema)().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("$id".to_owned(), schema_urn(event_type).into());
    }
    schema
}

fn schema_urn(event_type: &EventType) -> String {
    format!("{}{}:{}", headers::SCHEMA_URN, event_type.name, event_type.version)
}

fn schema_path(event_type: &EventType) -> String {
    format!("schemas/json/{}.v{}.json", event_type.name, event_type.version)
}

fn pretty(value: &Value) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(value).map(|text| text + "\n")
}

fn asyncapi() -> Value {
    let mut messages: serde_json::Map<String, Value> = CATALOGUE
        .iter()
        .map(|event_type| {
            let file = format!("./json/{}.v{}.json", event_type.name, event_type.version);
            let message = json!({
                "name": event_type.name,
                "contentType": "application/json",
                "headers": {"$ref": "#/components/schemas/headers"},
                "payload": {"$ref": file},
                "bindings": {"kafka": {"key": {
                    "type": "string", "format": "uuid",
                    "description": format!("the payload's {}", event_type.key_field),
                }}},
            });
            (event_type.name.to_owned(), message)
        })
        .collect();
    messages.insert("dead_letter.recorded".to_owned(), dead_letter_message());
    let mut channels: serde_json::Map<String, Value> =
        Topic::ALL.iter().copied().map(|topic| (topic.name().to_owned(), channel(topic))).collect();
    channels.insert("dead_letters".to_owned(), dead_letter_channel());
    let mut operations: serde_json::Map<String, Value> = Topic::ALL
        .iter()
        .copied()
        .map(|topic| {
            let operation = json!({
                "action": "send",
                "channel": {"$ref": format!("#/channels/{topic}")},
            });
            (format!("publish_{topic}"), operation)
        })
        .collect();
    let operation = json!({"action": "send", "channel": {"$ref": "#/channels/dead_letters"}});
    operations.insert("publish_dead_letters".to_owned(), operation);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ordermill events",
            "version": "1",
            "description": "CloudEvents 1.0 in Kafka's binary mode; delivery is at least once, in order for each key.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": {"headers": header_schema()}},
    })
}

fn dead_letter_channel() -> Value {
    json!({
        "address": "{topic}.{group}.dlt",
        "parameters": {
            "topic": {"description": "the topic that the message came from"},
            "group": {"description": "the group that can't apply it"},
        },
        "messages": {"dead_letter.recorded": {"$ref": "#/components/messages/dead_letter.recorded"}},
    })
}

fn dead_letter_message() -> Value {
    let text = |says: &str| json!({"type": "string", "description": says});
    let mut properties: serde_json::Map<String, Value> =
        dead_letters::HEADERS.iter().map(|(name, says)| ((*name).to_owned(), text(says))).collect();
    let codes: Vec<&str> = dead_letters::CODES.iter().map(|(code, _)| *code).collect();
    if let Some(code) = properties.get_mut("dlt-code").and_then(Value::as_object_mut) {
        code.insert("enum".to_owned(), json!(codes));
    }
    json!({
        "name": "dead_letter.recorded",
        "summary": "A message that a group can't apply: its value as it came, cut at 900 KiB.",
        "headers": {"type": "object", "properties": properties},
    })
}

fn channel(topic: Topic) -> Value {
    let messages: serde_json::Map<String, Value> = CATALOGUE
        .iter()
        .filter(|event_type| event_type.topic == topic)
        .map(|event_type| {
            let reference = format!("#/components/messages/{}", event_type.name);
            (event_type.name.to_owned(), json!({"$ref": reference}))
        })
        .collect();
    json!({"address": topic.name(), "messages": messages})
}

/// The headers with what each says, in the order in which the page lists them.
const HEADERS: [(&str, bool, &str); 14] = [
    (headers::ID, true, "the event's id, the same at every repetition"),
    (headers::TYPE, true, "the event's type"),
    (headers::SOURCE, true, "`/ordermill/<topic>`"),
    (headers::SPEC_VERSION, true, "`1.0`"),
    (headers::TIME, true, "when it happened, RFC 3339 in UTC"),
    (headers::SUBJECT, true, "the id of the aggregate that it happened to"),
    (headers::DATA_SCHEMA, true, "`urn:ordermill:schema:<type>:<version>`"),
    (headers::SEQUENCE, true, "its ordinal among the aggregate's events on this topic, from 1, without gap"),
    (headers::CORRELATION, false, "the order it belongs to"),
    (headers::CAUSATION, false, "the id of the event that caused it"),
    (headers::ACTOR, true, "who caused it: `user:<id>`, `admin`, `worker:<group>`, `gateway`"),
    (headers::TRACEPARENT, true, "W3C trace context of the request that it follows from"),
    (headers::LABEL, true, "`<era>-<position>`, its place in the log"),
    (headers::PREVIOUS, false, "the label of the record before it in its partition; absent on the first"),
];

fn header_schema() -> Value {
    let properties: serde_json::Map<String, Value> = HEADERS
        .iter()
        .map(|(name, _, says)| ((*name).to_owned(), json!({"type": "string", "description": says})))
        .collect();
    let required: Vec<&str> =
        HEADERS.iter().filter(|(_, required, _)| *required).map(|(name, _, _)| *name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn events_page() -> String {
    let mut page = String::from(
        "# Events\n\n\
         Generated from `schemas/` by `cargo run -p ordermill-schemas --bin generate`; do not edit.\n\n\
         Every record is a CloudEvent 1.0 in Kafka's binary mode: the value is the payload as JSON, the rest \
         are headers. The key is a UUID as text; records of one key are in order. Topic names are given \
         without the prefix that an installation may set.\n\n\
         ## Reading without repeating\n\n\
         Delivery is at least once: after a failure the relay sends records again, under the same labels. \
         A label is `<era>-<position>`; compare era, then position, as numbers. Keep the label of the last \
         record you applied of each partition, in the same transaction as its effect, and skip a record \
         whose label is not above it. If `ordermill-previous` is above the label you saw last, records \
         between are missing: skip on until they are sent again (the workers of Ordermill ask the relay \
         for that by themselves).\n\n\
         ## A new era\n\n\
         The first number of a label is its era. It changes only when the operator has restored the database from an \
         older copy; `ordermill relay status` then says at which position the eras parted. Positions are the \
         log's: up to that one, the same position is the same event in both eras. What the former era had above it \
         never happened.\n\n\
         When you meet a record of a higher era than your last label, put your label over to the new era before you \
         compare: keep its position if it is not above the one where the eras parted; otherwise take back what you \
         applied above that, and take the one where they parted. The topics are fresh, so read them from their \
         beginning. They need not begin with the log's beginning: if you miss something before, the operator can have it \
         published again (`ordermill relay rewind`). Records of a lower era than your label are never to be applied.\n\n\
         ## Headers\n\n| header | always | says |\n| --- | --- | --- |\n",
    );
    for (name, always, says) in HEADERS {
        let always = if always { "yes" } else { "no" };
        let _ = writeln!(page, "| `{name}` | {always} | {says} |");
    }
    for topic in Topic::ALL.iter().copied() {
        let _ = write!(page, "\n## Topic `{topic}`\n\n");
        let mut types = CATALOGUE.iter().filter(|event_type| event_type.topic == topic).peekable();
        if types.peek().is_none() {
            page.push_str("No event yet.\n");
            continue;
        }
        page.push_str("| type | key | says | schema |\n| --- | --- | --- | --- |\n");
        for event_type in types {
            let schema = schema(event_type);
            let says = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
            let _ = writeln!(
                page,
                "| `{}` | `{}` | {says} | [v{}](../{}) |",
                event_type.name,
                event_type.key_field,
                event_type.version,
                schema_path(event_type),
            );
        }
    }
    page.push_str(&dead_letter_section());
    page
}

fn dead_letter_section() -> String {
    let mut section = String::from(
        "\n## Dead-letter topics\n\n\
         What the group `<group>` can't apply of `<topic>` is told to `<topic>.<group>.dlt`: the value of the message as \
         it came, its key, and as headers besides those above, with the type `dead_letter.recorded`:\n\n\
         | header | says |\n| --- | --- |\n",
    );
    for (name, says) in dead_letters::HEADERS {
        let _ = writeln!(section, "| `{name}` | {says} |");
    }
    section.push_str("\n| code | means |\n| --- | --- |\n");
    for (code, means) in dead_letters::CODES {
        let _ = writeln!(section, "| `{code}` | {means} |");
    }
    section.push_str(
        "\nThese topics tell; nothing reads them back. Letters are worked in the database, by `ordermill dlq` or \
         `/v1/dead-letters`, where they are whole. A letter is told once, however often it fails again.\n",
    );
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_has_one_name_and_a_described_schema() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|t| (t.name, t.version)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        for event_type in CATALOGUE {
            let schema = schema(event_type);
            assert!(schema["description"].is_string(), "{} says nothing", event_type.name);
            assert!(schema["properties"][event_type.key_field].is_object(), "{}", event_type.name);
        }
    }
}
