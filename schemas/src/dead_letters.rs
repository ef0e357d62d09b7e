//! The contract of the dead-letter topics, `<topic>.<group>.dlt`: headers and codes.

/// The headers that a dead letter has besides those of every record, with what each says. The headers of the message
/// that failed are kept but for those that begin with `ce_` or `ordermill`.
pub const HEADERS: [(&str, &str); 11] = [
    ("dlt-topic", "the topic of the message"),
    ("dlt-partition", "its partition"),
    ("dlt-offset", "its offset"),
    ("dlt-group", "the group that can't apply it"),
    ("dlt-type", "its event type; empty where it has none"),
    ("dlt-code", "why, one of the codes below"),
    ("dlt-error", "why, for people; cut at 8 KiB"),
    ("dlt-attempts", "how often it was tried"),
    ("dlt-first-failed-at", "when it failed first, RFC 3339 in UTC"),
    ("dlt-last-failed-at", "when it failed last"),
    (
        "dlt-payload-bytes",
        "how long its value was; the record's own value is cut at 900 KiB, its key at 8 KiB, headers of the message that go beyond 32 KiB are left out",
    ),
];

/// The values of `dlt-code` with what each means.
pub const CODES: [(&str, &str); 7] = [
    ("FOREIGN", "the relay has not published it; it holds nothing back and can't be replayed"),
    ("UNKNOWN_TYPE", "its type or version is not known to the program that read it"),
    ("UNDECODABLE", "its value is not JSON"),
    ("SCHEMA", "its value does not have the shape that its type promises; the error names the place"),
    ("KEY_MISMATCH", "its key is not the one that its value says"),
    ("RULE", "it breaks a rule, of the shop or of the database"),
    ("BUG", "the program fails over it"),
];
