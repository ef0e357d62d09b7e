//! The public documents that are generated from the catalogue.

use serde_json::{Map, Value, json};

use crate::generated::Document;
use ordermill_wire::headers;

use crate::{CATALOGUE, EventType, Topic, dead_letters};

/// Every generated document.
///
/// # Errors
/// None in practice: schemas are plain JSON values.
pub fn all() -> Result<Vec<Document>, serde_json::Error> {
    let mut documents = Vec::with_capacity(CATALOGUE.len() + 2);
    for event_type in CATALOGUE {
        let path = format!("schemas/{}", schema_file(event_type));
        documents.push(Document { path, text: pretty(&schema(event_type))? });
    }
    documents.push(Document { path: "schemas/asyncapi.json".to_owned(), text: pretty(&asyncapi())? });
    documents.push(Document { path: "docs/EVENTS.md".to_owned(), text: events_page() });
    Ok(documents)
}

/// The JSON Schema of an event type's payload, with its `$id`.
#[must_use]
pub fn schema(event_type: &EventType) -> Value {
    let mut schema = (event_type.schema)().to_value();
    schema["$id"] = format!("{}{}:{}", headers::SCHEMA_URN, event_type.name, event_type.version).into();
    schema
}

/// Where the schema lies, from the folder of this crate.
fn schema_file(event_type: &EventType) -> String {
    format!("json/{}.v{}.json", event_type.name, event_type.version)
}

fn pretty(value: &Value) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(value).map(|text| text + "\n")
}

fn asyncapi() -> Value {
    let mut messages: Map<String, Value> = CATALOGUE.iter().map(message).collect();
    messages.insert("dead_letter.recorded".to_owned(), dead_letter_message());
    let (mut channels, mut operations) = (Map::new(), Map::new());
    let of_topics = Topic::ALL.iter().map(|topic| (topic.name(), channel(*topic)));
    for (name, channel) in of_topics.chain([("dead_letters", dead_letter_channel())]) {
        channels.insert(name.to_owned(), channel);
        let operation = json!({"action": "send", "channel": {"$ref": format!("#/channels/{name}")}});
        operations.insert(format!("publish_{name}"), operation);
    }
    let always = HEADERS.iter().filter(|(_, always, _)| *always);
    let header_schema = json!({
        "type": "object",
        "properties": properties(HEADERS.map(|(name, _, says)| (name, says))),
        "required": always.map(|(name, ..)| *name).collect::<Vec<_>>(),
    });
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
        "components": {"messages": messages, "schemas": {"headers": header_schema}},
    })
}

fn message(event_type: &EventType) -> (String, Value) {
    let message = json!({
        "name": event_type.name,
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"$ref": format!("./{}", schema_file(event_type))},
        "bindings": {"kafka": {"key": {
            "type": "string", "format": "uuid",
            "description": format!("the payload's {}", event_type.key_field),
        }}},
    });
    (event_type.name.to_owned(), message)
}

fn channel(topic: Topic) -> Value {
    let of_topic = CATALOGUE.iter().filter(|event_type| event_type.topic == topic);
    json!({"address": topic.name(), "messages": messages(of_topic.map(|event_type| event_type.name))})
}

/// The messages of a channel.
fn messages(names: impl IntoIterator<Item = &'static str>) -> Map<String, Value> {
    let message = |name: &str| json!({"$ref": format!("#/components/messages/{name}")});
    names.into_iter().map(|name| (name.to_owned(), message(name))).collect()
}

fn dead_letter_channel() -> Value {
    json!({
        "address": "{topic}.{group}.dlt",
        "parameters": {
            "topic": {"description": "the topic that the message came from"},
            "group": {"description": "the group that can't apply it"},
        },
        "messages": messages(["dead_letter.recorded"]),
    })
}

fn dead_letter_message() -> Value {
    let mut properties = properties(dead_letters::HEADERS);
    properties["dlt-code"]["enum"] = json!(dead_letters::CODES.map(|(code, _)| code));
    json!({
        "name": "dead_letter.recorded",
        "summary": "A message that a group can't apply: its value as it came, cut at 900 KiB.",
        "headers": {"type": "object", "properties": properties},
    })
}

/// Headers as members of a JSON Schema.
fn properties<const COUNT: usize>(headers: [(&str, &str); COUNT]) -> Value {
    let property = |says| json!({"type": "string", "description": says});
    headers.into_iter().map(|(name, says)| (name.to_owned(), property(says))).collect()
}

/// The headers with what each says, in the order in which the page lists them.
const HEADERS: [(&str, bool, &str); 16] = [
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
    (
        headers::ACTOR,
        true,
        "who caused it: `user:<id>`, `admin:<name of the key>`, `worker:<group>`, `gateway`",
    ),
    (headers::TRACEPARENT, true, "W3C trace context of the request that it follows from"),
    (headers::LABEL, true, "`<era>-<position>`, its place in the log"),
    (headers::PREVIOUS, false, "the label of the record before it in its partition; absent on the first"),
    (headers::KEY, true, "the id of the key that it is authenticated by"),
    (headers::MAC, true, "the first 16 bytes of an HMAC-SHA-256, as hexadecimal digits"),
];

fn events_page() -> String {
    let header = |(name, always, says)| {
        let always = if always { "yes" } else { "no" };
        format!("| `{name}` | {always} | {says} |\n")
    };
    let told = |(name, says)| format!("| `{name}` | {says} |\n");
    include_str!("events_page.md")
        .replace("{headers}", &HEADERS.map(header).concat())
        .replace("{topics}", &Topic::ALL.iter().map(|topic| topic_section(*topic)).collect::<String>())
        .replace("{dead_letter_headers}", &dead_letters::HEADERS.map(told).concat())
        .replace("{dead_letter_codes}", &dead_letters::CODES.map(told).concat())
}

fn topic_section(topic: Topic) -> String {
    let row = |event_type: &EventType| {
        let EventType { name, key_field, version, .. } = event_type;
        let (schema, file) = (schema(event_type), schema_file(event_type));
        let says = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
        format!("| `{name}` | `{key_field}` | {says} | [v{version}](../schemas/{file}) |\n")
    };
    let rows: String = CATALOGUE.iter().filter(|event_type| event_type.topic == topic).map(row).collect();
    format!("\n## Topic `{topic}`\n\n| type | key | says | schema |\n| --- | --- | --- | --- |\n{rows}")
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
