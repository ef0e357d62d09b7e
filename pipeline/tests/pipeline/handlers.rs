//! The consumers of these tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use ordermill_pipeline::consumer::{Batch, Handled, Handler, Received, derived_event_id};
use ordermill_pipeline::journal::{
    JournalError, Keys, Loaded, Projection, Shortfall, Statement, StoredDocument, Table, Writes,
};
use ordermill_pipeline::log::Entry;
use ordermill_schemas::balances::BalanceCharged;
use ordermill_schemas::{Event, Topic};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::support::{DEADLINE, PARTITIONS};

/// Applies events by writing them down: in a document of their key, and in a row each. An event with available = 13
/// breaks a rule of the table of those rows, one below 0 a rule of the decision, and one with 666 makes it panic.
#[derive(Default)]
pub(crate) struct Recorder {
    /// So many batches fail first, as if the database had been away.
    pub(crate) failures: AtomicUsize,
    /// Decisions that were begun.
    pub(crate) decisions: AtomicUsize,
    /// Events that were decided upon, each as often as it was.
    pub(crate) applications: AtomicUsize,
    /// An event that is not the next of its key breaks a rule.
    pub(crate) in_order: bool,
    /// An event that stands in the document already is passed over, as deciders do; otherwise it breaks a rule.
    pub(crate) tolerant: bool,
    /// When set, a decision waits for a permit before it is told, with the rows loaded and locked.
    pub(crate) gate: Option<Semaphore>,
    /// Each event below 100 is answered by one of another key, a hundred higher.
    pub(crate) answers: bool,
    /// Nothing follows from events below this.
    pub(crate) ignores_below: Option<i64>,
    /// So many batches say that documents have been written once more than they have.
    pub(crate) lies: AtomicUsize,
}

/// The other key, whose event answers that of `key`.
pub(crate) fn answering_key(key: Uuid) -> Uuid {
    Uuid::new_v5(&key, b"answer")
}

impl Recorder {
    fn answer(&self, received: &Received<Event>, charged: &BalanceCharged) -> Option<Entry> {
        if !self.answers || charged.available >= 100 {
            return None;
        }
        let (user_id, available) = (answering_key(charged.user_id), charged.available + 100);
        let event: Event = BalanceCharged { user_id, available, ..charged.clone() }.into();
        let event_id = derived_event_id(Recorder::GROUP, received.event_id, 0);
        let sequence = i32::try_from(charged.held).unwrap();
        let origin = received.origin(Recorder::GROUP);
        Some(Entry::of_event(event_id, event, sequence, origin, PARTITIONS).unwrap())
    }
}

/// Takes one of so many; whether there was one left.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Handler for Recorder {
    const GROUP: &'static str = "recorder";
    type Event = Event;
    const TOPICS: &'static [Topic] = &[Topic::Balances];
    fn tables() -> &'static [Table] {
        static TABLES: [Table; 1] = [Table::new(RECORDED)];
        &TABLES
    }

    fn is_of_interest(&self, event: &Event) -> bool {
        let Event::BalanceCharged(charged) = event else { return true };
        self.ignores_below.is_none_or(|below| charged.available >= below)
    }

    fn keys(&self, event: &Event, keys: &mut Keys) {
        keys.add(RECORDED, event.key());
    }

    fn decide(&self, loaded: &Loaded, batch: &Batch<'_, Event>) -> Result<Handled, JournalError> {
        self.decisions.fetch_add(1, Ordering::SeqCst);
        self.applications.fetch_add(batch.events.len(), Ordering::SeqCst);
        let mut documents: BTreeMap<Uuid, Vec<Uuid>> =
            loaded.documents.iter().map(read_document).collect::<Result<_, _>>()?;
        let (mut changed, mut applied, mut handled) =
            (BTreeSet::new(), Applied::default(), Handled::default());
        for received in batch.events {
            let Event::BalanceCharged(charged) = &*received.event else { continue };
            assert_ne!(charged.available, 666, "the number of the beast");
            if charged.available < 0 {
                return Err(JournalError::Rule("below zero".to_owned()));
            }
            let known = documents.entry(charged.user_id).or_default();
            if self.tolerant && known.contains(&received.event_id) {
                handled.effects.push(false);
                continue;
            }
            if self.in_order && i64::try_from(known.len() + 1) != Ok(charged.held) {
                return Err(JournalError::Rule("not the next of its key".to_owned()));
            }
            known.push(received.event_id);
            changed.insert(charged.user_id);
            applied.push(received.event_id, charged);
            handled.writes.entries.extend(self.answer(received, charged));
            handled.effects.push(true);
        }
        let lie = i32::from(!changed.is_empty() && take(&self.lies));
        for key in changed {
            let state = serde_json::to_string(&documents[&key])?;
            let mut change = loaded.change(RECORDED, key, state, None);
            change.version = change.version.map(|version| version + lie);
            handled.writes.changes.push(change);
        }
        handled.writes.projections.push(Box::new(applied));
        if let Some(gate) = &self.gate {
            wait_for_permit(gate);
        }
        if take(&self.failures) { Err(sqlx::Error::PoolTimedOut.into()) } else { Ok(handled) }
    }
}

/// The recorder's documents: of each key the ids of the events that were applied, in order.
const RECORDED: &str = "recorded";

fn read_document(document: &StoredDocument) -> Result<(Uuid, Vec<Uuid>), JournalError> {
    Ok((document.key, serde_json::from_str(&document.state)?))
}

/// A decision is not asynchronous: it holds its thread, whose other work goes elsewhere meanwhile.
fn wait_for_permit(gate: &Semaphore) {
    let permit = tokio::time::timeout(DEADLINE, gate.acquire());
    tokio::task::block_in_place(|| Handle::current().block_on(permit)).unwrap().unwrap().forget();
}

/// A row for each event. The table refuses some of them.
#[derive(Default)]
struct Applied {
    event_ids: Vec<Uuid>,
    keys: Vec<Uuid>,
    availables: Vec<i64>,
}

impl Applied {
    fn push(&mut self, event_id: Uuid, charged: &BalanceCharged) {
        self.event_ids.push(event_id);
        self.keys.push(charged.user_id);
        self.availables.push(charged.available);
    }
}

/// A row for one event.
pub(crate) fn applied_rows(event_id: Uuid, key: Uuid, available: i64) -> Box<dyn Projection> {
    Box::new(Applied { event_ids: vec![event_id], keys: vec![key], availables: vec![available] })
}

impl Projection for Applied {
    fn add(&self, statement: &mut Statement) {
        let event_ids = statement.bind(self.event_ids.clone());
        let (keys, availables) = (statement.bind(self.keys.clone()), statement.bind(self.availables.clone()));
        let rows = format!("unnest({event_ids}::uuid[], {keys}::uuid[], {availables}::bigint[])");
        statement.must(
            "applied_rows",
            format!(
                "INSERT INTO applied (event_id, key, available)
                 SELECT event_id, key, available
                 FROM {rows} WITH ORDINALITY AS event (event_id, key, available, ordinal)
                 ORDER BY ordinal RETURNING 1"
            ),
            self.event_ids.len(),
            Shortfall::Conflict,
        );
    }
}

/// Another group that reads the same, and has a rule of its own against 13.
pub(crate) struct Witness;

impl Handler for Witness {
    const GROUP: &'static str = "witness";
    type Event = Event;
    const TOPICS: &'static [Topic] = &[Topic::Balances];

    fn decide(&self, _loaded: &Loaded, batch: &Batch<'_, Event>) -> Result<Handled, JournalError> {
        let mut witnessed = Witnessed::default();
        for received in batch.events {
            let Event::BalanceCharged(charged) = &*received.event else { continue };
            witnessed.event_ids.push(received.event_id);
            witnessed.availables.push(charged.available);
        }
        let projections: Vec<Box<dyn Projection>> = vec![Box::new(witnessed)];
        let writes = Writes { projections, ..Writes::default() };
        Ok(Handled { writes, effects: vec![true; batch.events.len()] })
    }
}

#[derive(Default)]
struct Witnessed {
    event_ids: Vec<Uuid>,
    availables: Vec<i64>,
}

impl Projection for Witnessed {
    fn add(&self, statement: &mut Statement) {
        let event_ids = statement.bind(self.event_ids.clone());
        let availables = statement.bind(self.availables.clone());
        statement.part(
            "witnessed_rows",
            format!(
                "INSERT INTO witnessed SELECT * FROM unnest({event_ids}::uuid[], {availables}::bigint[])
                 RETURNING 1"
            ),
        );
    }
}

/// A group that wants to know of nothing.
pub(crate) struct Bystander;

impl Handler for Bystander {
    const GROUP: &'static str = "bystander";
    type Event = Event;
    const TOPICS: &'static [Topic] = &[Topic::Balances];

    fn is_of_interest(&self, _event: &Event) -> bool {
        false
    }

    fn decide(&self, _loaded: &Loaded, _batch: &Batch<'_, Event>) -> Result<Handled, JournalError> {
        Err(JournalError::Rule("nothing is of interest".to_owned()))
    }
}
