//! What is fuzzed here: any bytes as the payload of an event, and as a record. Nothing that is shipped has this module: it is there for tests, and behind
//! the feature `fuzzing`, which only `fuzz/` turns on.
//!
//! Each function panics where a promise does not hold. cargo-fuzz calls it with bytes that it makes up, the tests below with those that it has found
//! worth keeping (`fuzz/corpus`).

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use ordermill_wire::headers::{COVERED, KEY, MAC};
use ordermill_wire::{Event, Topic as _};
use uuid::Uuid;

use crate::authenticity::{Authenticity, Covered, Flaw, Key, KeyId, Keyring, Keys, Secrets};
use crate::dead_letters::Code;
use crate::headers::Headers;
use crate::label::Label;
use crate::log::RecordPlace;
use crate::raw_record::{RawRecord, Stamp};
use crate::record::{Mismatch, Received, Record};
use crate::stored_header::StoredHeader;
use crate::trace::TraceContext;

/// The key that signs, of era 1. Records of the corpus are signed by it.
const SIGNS: &str = "1-1-0123456789abcdef";
/// A key that is revoked.
const REVOKED: &str = "1-2-0123456789abcdef";

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    let file = format!("secret {}\nrevoked {REVOKED}\n", "07".repeat(32));
    Secrets::parse(&file).expect("the file of a secret")
});
static KEYS: LazyLock<Arc<Keys>> = LazyLock::new(|| Keyring::new(SECRETS.clone()).keys());

/// Takes bytes for the payload of an event of each of these types and versions. What is one says of which type it is, reads back as it was
/// encoded, and is what a record brings that has its key.
pub fn event<E: Event + PartialEq>(types: impl IntoIterator<Item = (&'static str, i16)>, payload: &[u8]) {
    for (name, version) in types {
        let event = match E::decode(name, version, payload) {
            Ok(event) => event,
            Err(error) => {
                assert!(error.to_string().contains(name), "{error}");
                continue;
            }
        };
        assert_eq!((event.name(), event.version()), (name, version));
        let encoded = event.encode().expect("plain data can be written");
        let again = E::decode(name, version, &encoded).expect("what was encoded decodes");
        assert_eq!(again, event);
        let key = event.key().to_string();
        let raw = RawRecord {
            topic: event.topic().name(),
            partition: 0,
            offset: 0,
            key: Some(key.as_bytes()),
            headers: Headers::default(),
            payload: Some(payload),
            authenticity: Authenticity::Authentic,
        };
        let received = raw.decode_stamped::<E>(&stamp(name, version));
        assert_eq!(received.map(|received| received.event), Ok(Arc::new(event)));
    }
}

fn stamp(event_type: &str, version: i16) -> Stamp<'_> {
    Stamp {
        label: Label { era: 1, position: 1 },
        previous: Label::START,
        event_id: Uuid::nil(),
        event_type,
        version,
        at: Timestamp::UNIX_EPOCH,
        sequence: 1,
    }
}

/// Takes bytes for a record, as the files of the corpus write one. Whoever has no key makes none that is believed; of one that is, nothing can be
/// changed; and whoever reads it, from Kafka or from the row of a dead letter, reads the same.
pub fn record<E: Event + PartialEq>(bytes: &[u8]) {
    let written = Written::of(bytes);
    for (_, value) in &written.headers {
        reads_back(value);
    }
    let headers = Headers::of(written.headers.iter().copied());
    order_is_of_no_matter(&written, &headers);
    let covered = written.covered(&headers);
    mac_fits_nothing_else(&covered);
    whoever_signs_is_believed(&covered);
    let raw = written.raw(headers);
    only_who_has_the_secret_is_believed(&covered, &raw);
    every_reader_reads_the_same::<E>(&written, &raw);
}

/// A record as the files of the corpus write one: topic, partition and key in the first line, a header in each line after it, an empty line, and the
/// payload, to the end.
struct Written<'a> {
    topic: &'a str,
    partition: i16,
    key: Option<&'a [u8]>,
    headers: Vec<(&'a [u8], &'a [u8])>,
    payload: Option<&'a [u8]>,
}

impl<'a> Written<'a> {
    fn of(bytes: &'a [u8]) -> Written<'a> {
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap_or_default();
        let (first, mut rest) = split(bytes, b"\n");
        let (topic, behind) = split(first, b" ");
        let (partition, key) = behind.map_or((b"".as_slice(), None), |behind| split(behind, b" "));
        let mut headers = Vec::new();
        while let Some(lines) = rest {
            let (line, behind) = split(lines, b"\n");
            rest = behind;
            if line.is_empty() {
                break;
            }
            let (name, value) = split(line, b": ");
            headers.push((name, value.unwrap_or_default()));
        }
        let partition = text(partition).parse::<i16>().unwrap_or_default();
        Written { topic: text(topic), partition, key, headers, payload: rest }
    }

    fn covered(&self, headers: &Headers<'a>) -> Covered<'a> {
        Covered {
            topic: self.topic,
            partition: i32::from(self.partition),
            key: self.key,
            payload: self.payload,
            headers: headers.covered(),
        }
    }

    /// The record, judged as it is where it is read from Kafka.
    fn raw(&self, headers: Headers<'a>) -> RawRecord<'a> {
        RawRecord {
            topic: self.topic,
            partition: self.partition,
            offset: 0,
            key: self.key,
            headers,
            payload: self.payload,
            authenticity: KEYS.judge(&self.covered(&headers), headers.key, headers.mac),
        }
    }
}

/// What stands before a separator, and what behind it, if it is there.
fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let found = bytes.windows(separator.len()).position(|window| window == separator);
    found.map_or((bytes, None), |at| (&bytes[..at], Some(&bytes[at + separator.len()..])))
}

/// What is taken for a label, for the id of a key or for a trace is written so that it reads back as the same.
fn reads_back(value: &[u8]) {
    let Ok(text) = std::str::from_utf8(value) else { return };
    if let Ok(label) = text.parse::<Label>() {
        assert!(label > Label::START, "{label}");
        assert_eq!(label.to_string().parse(), Ok(label));
    }
    if let Ok(id) = text.parse::<KeyId>() {
        assert_eq!(id.to_string(), text);
        assert!(text.starts_with(&format!("{}-{}-", id.era(), id.number())), "{text}");
    }
    if let Ok(trace) = text.parse::<TraceContext>() {
        assert_eq!(trace.to_string(), text);
        assert_eq!(TraceContext::from_bytes(&trace.to_bytes()), Some(trace));
    }
}

/// In whichever order headers stand, they say the same, unless one that is read stands there twice; which is told.
fn order_is_of_no_matter(written: &Written<'_>, headers: &Headers<'_>) {
    let backwards = Headers::of(written.headers.iter().rev().copied());
    assert_eq!(headers.repeated, backwards.repeated);
    if !headers.repeated {
        assert_eq!(headers.covered(), backwards.covered());
        assert_eq!((headers.key, headers.mac), (backwards.key, backwards.mac));
    }
}

fn derived(id: &str) -> Key {
    Key::derive(SECRETS.signing(), &id.parse().expect("the id of a key"))
}

fn mac_fits_nothing_else(record: &Covered<'_>) {
    let key = derived(SIGNS);
    let mac = key.sign(record);
    assert!(key.verifies(record, mac.as_bytes()));
    each_change(record, |changed| {
        assert!(changed == record || !key.verifies(changed, mac.as_bytes()), "{changed:?}");
    });
    let mut other = mac.as_bytes().to_vec();
    other[0] ^= 1;
    assert!(!key.verifies(record, &other));
}

/// How many parts of a record, but for topic and partition, a MAC covers.
const PARTS: usize = COVERED.len() + 2;

fn part<'a>(record: &Covered<'a>, at: usize) -> Option<&'a [u8]> {
    match at {
        0 => record.key,
        1 => record.payload,
        _ => record.headers[at - 2],
    }
}

fn with_part<'a>(record: &Covered<'a>, at: usize, part: Option<&'a [u8]>) -> Covered<'a> {
    let mut changed = *record;
    match at {
        0 => changed.key = part,
        1 => changed.payload = part,
        _ => changed.headers[at - 2] = part,
    }
    changed
}

/// Tells of the record with one thing changed: it lies elsewhere; or a part is away, empty, longer, shorter or has another bit; or it has changed places
/// with the next one, or given its first byte to it.
fn each_change(record: &Covered<'_>, told: impl Fn(&Covered<'_>)) {
    let other_topic = format!("{}.", record.topic);
    let mut elsewhere = *record;
    elsewhere.topic = &other_topic;
    told(&elsewhere);
    let mut elsewhere = *record;
    elsewhere.partition ^= 1;
    told(&elsewhere);
    for at in 0..PARTS {
        let next = (at + 1) % PARTS;
        let (here, there) = (part(record, at), part(record, next));
        let bytes = here.unwrap_or_default();
        let longer = [bytes, b"0"].concat();
        let shorter = bytes.split_last().map(|(_, shorter)| shorter);
        let mut flipped = bytes.to_vec();
        if let Some(last) = flipped.last_mut() {
            *last ^= 1;
        }
        for part in [None, Some(b"".as_slice()), Some(&*longer), Some(&*flipped), shorter] {
            told(&with_part(record, at, part));
        }
        told(&with_part(&with_part(record, at, there), next, here));
        if let Some((first, rest)) = bytes.split_first() {
            let given = [there.unwrap_or_default(), &[*first]].concat();
            told(&with_part(&with_part(record, at, Some(rest)), next, Some(&given)));
        }
    }
}

/// What a key signs of its era is believed, or known to be of a key that is revoked.
fn whoever_signs_is_believed(record: &Covered<'_>) {
    for (id, verdict) in [(SIGNS, Authenticity::Authentic), (REVOKED, Authenticity::Revoked)] {
        let key = derived(id);
        let mac = key.sign(record);
        let judge = |id: Option<&str>, mac| KEYS.judge(record, id.map(str::as_bytes), mac);
        let expected = if key.is_of_era_of(record) { verdict } else { Authenticity::Foreign(Flaw::OtherEra) };
        assert_eq!(judge(Some(id), Some(mac.as_bytes())), expected);
        assert_eq!(judge(Some(id), None), Authenticity::Foreign(Flaw::Unsigned));
        assert_eq!(judge(None, Some(mac.as_bytes())), Authenticity::Foreign(Flaw::Unsigned));
    }
}

/// A record of which anything is believed has the MAC that its key makes, and is of its key's era. Nothing is believed of any other.
fn only_who_has_the_secret_is_believed(covered: &Covered<'_>, raw: &RawRecord<'_>) {
    if raw.authenticity != Authenticity::Authentic {
        assert!(raw.stamp().is_err() && raw.canary().is_none(), "{raw:?}");
    }
    if matches!(raw.authenticity, Authenticity::Foreign(_)) {
        return;
    }
    let id: Option<KeyId> = raw.headers.key.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    let id = id.expect("a key that is named");
    let mac = Key::derive(SECRETS.signing(), &id).sign(covered);
    assert_eq!(raw.headers.mac, Some(mac.as_bytes()));
    assert_eq!(raw.authenticity == Authenticity::Revoked, id.as_str() == REVOKED);
    if let Some(label) = raw.headers.label() {
        assert_eq!(label.era, id.era());
    }
}

/// What is read of a record that is the relay's: the same from the row of a dead letter as from Kafka, and nothing where a header stands there twice.
fn every_reader_reads_the_same<E: Event + PartialEq>(written: &Written<'_>, raw: &RawRecord<'_>) {
    let trusted = RawRecord { authenticity: Authenticity::Authentic, ..*raw };
    let read = told(trusted.decode::<E>());
    if let Ok((_, event, _)) = &read {
        assert_eq!(raw.key, Some(event.key().to_string().as_bytes()));
    }
    let twice = written.headers.iter().chain(written.headers.last());
    let twice = Headers::of(twice.copied());
    let last_is_read = written.headers.last().is_some_and(|(name, _)| is_read(name));
    assert_eq!(twice.repeated, raw.headers.repeated || last_is_read);
    if twice.repeated {
        let mut repeated = trusted;
        repeated.headers = twice;
        assert_eq!(code_of(repeated.decode::<E>()), Some(Code::Foreign));
    }

    let stored: Vec<StoredHeader> = written.headers.iter().map(stored).collect();
    let place = RecordPlace { topic: raw.topic.to_owned(), partition: raw.partition, offset: raw.offset };
    let (key, payload) = (raw.key.map(<[u8]>::to_vec), raw.payload.map(<[u8]>::to_vec));
    let record = |authentic| Record::stored(place.clone(), key.clone(), &stored, payload.clone(), authentic);
    assert_eq!(told(record(true).decode::<E>()), read);
    assert_eq!(code_of(record(false).decode::<E>()), Some(Code::Foreign), "what was foreign stays foreign");
}

fn is_read(header: &[u8]) -> bool {
    COVERED.iter().chain([&KEY, &MAC]).any(|read| read.as_bytes() == header)
}

fn code_of<E>(decoded: Result<Received<E>, Mismatch>) -> Option<Code> {
    decoded.err().map(|mismatch| mismatch.code)
}

/// What a dead letter keeps of a header. The value is all there, also after it was JSON.
fn stored((name, value): &(&[u8], &[u8])) -> StoredHeader {
    let stored = StoredHeader::new(&String::from_utf8_lossy(name), value);
    let json = serde_json::to_string(&stored).expect("texts can be written");
    let again: StoredHeader = serde_json::from_str(&json).expect("what was written reads");
    assert_eq!((again.bytes().as_slice(), &again), (*value, &stored));
    stored
}

/// What was decoded, but for the span that it begins, which is a new one each time.
fn told<E>(decoded: Result<Received<E>, Mismatch>) -> Result<(Uuid, Arc<E>, Timestamp), Mismatch> {
    decoded.map(|received| (received.event_id, received.event, received.at))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ordermill_schemas::CATALOGUE;

    use super::*;

    /// What the corpus of a target has. Each file is named before it is tried, so that the last one named is the one that failed.
    fn corpus(target: &str) -> impl Iterator<Item = Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        std::fs::read_dir(directory).unwrap().map(|file| {
            let path = file.unwrap().path();
            println!("{}", path.display());
            std::fs::read(path).unwrap()
        })
    }

    #[test]
    fn an_event_of_the_corpus_reads_back_and_all_else_is_refused() {
        for payload in corpus("events") {
            let types = CATALOGUE.iter().map(|known| (known.name, known.version));
            event::<ordermill_schemas::Event>(types, &payload);
        }
    }

    #[test]
    fn the_corpus_has_an_event_of_every_type() {
        let payloads = Vec::from_iter(corpus("events"));
        for known in CATALOGUE {
            let decodes = |payload: &Vec<u8>| {
                ordermill_schemas::Event::decode(known.name, known.version, payload).is_ok()
            };
            assert!(payloads.iter().any(decodes), "{}", known.name);
        }
    }

    #[test]
    fn of_the_records_of_the_corpus_those_that_the_relay_signed_are_believed_and_no_change_of_one() {
        for bytes in corpus("records") {
            record::<ordermill_schemas::Event>(&bytes);
        }
    }

    #[test]
    fn the_corpus_has_a_record_of_every_kind() {
        let mut verdicts = Vec::new();
        let mut codes = Vec::new();
        for bytes in corpus("records") {
            let written = Written::of(&bytes);
            let raw = written.raw(Headers::of(written.headers.iter().copied()));
            verdicts.push(raw.authenticity);
            let decoded = raw.decode::<ordermill_schemas::Event>();
            codes.push(decoded.map_or_else(|mismatch| mismatch.code.name(), |_| "APPLIED"));
        }
        for flaw in [Flaw::Unsigned, Flaw::NoKey, Flaw::WrongMac, Flaw::OtherEra] {
            assert!(verdicts.contains(&Authenticity::Foreign(flaw)), "{flaw:?}");
        }
        assert!(verdicts.contains(&Authenticity::Revoked));
        for code in ["APPLIED", "FOREIGN", "UNKNOWN_TYPE", "UNDECODABLE", "SCHEMA", "KEY_MISMATCH"] {
            assert!(codes.contains(&code), "{code}");
        }
    }
}
