//! Documents as this process wrote or loaded them last, so that most decisions need no load.
//!
//! Nothing is believed because of it: what is decided from the cache is written only where every row that was decided from is still the
//! one that is remembered, by its place, key and version, and where what is taken to be absent is absent. Otherwise nothing is
//! written, and the same is decided from a load, which locks.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::Cache as QuickCache};
use uuid::Uuid;

use super::load::{Key, Keys, Loaded, StoredDocument, Table, Version};
use super::statement::Place;
use super::write::Change;
use crate::wake::ChangedDocument;

/// How many bytes of documents are remembered, and about how many documents that are.
const BYTES_MAX: u64 = 32 << 20;
const DOCUMENTS: usize = 32_000;
/// What a document takes besides its own bytes.
const BYTES_BESIDE: usize = 200;
/// The part of it for documents that were asked for again. The others need room as well: the next event of an order is half a second away where
/// much is under way.
const ASKED_FOR: f64 = 0.5;

/// A document that is remembered.
#[derive(Clone, Debug)]
struct Remembered {
    version: Version,
    state: Arc<str>,
    bulk: Option<Arc<str>>,
    /// This process has seen its birth: what is part of it and not remembered has most likely not been born yet.
    is_born_here: bool,
}

/// What a document takes.
#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Key, Remembered> for Bytes {
    fn weight(&self, _: &Key, document: &Remembered) -> u64 {
        let bytes = document.state.len() + document.bulk.as_ref().map_or(0, |bulk| bulk.len());
        (bytes + BYTES_BESIDE) as u64
    }
}

/// What is remembered. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    documents: Arc<QuickCache<Key, Remembered, Bytes>>,
}

/// What is remembered of what was asked for.
pub(super) struct Recalled {
    loaded: Loaded,
    /// What is not.
    missing: Vec<Key>,
    /// The tables of all that was asked for.
    pub(super) tables: Vec<&'static str>,
}

impl Recalled {
    /// The rows, where all are remembered.
    pub(super) fn whole(self) -> Option<Loaded> {
        self.missing.is_empty().then_some(self.loaded)
    }

    /// All that was asked for, and that follows from what is remembered.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        self.loaded.keys().into_iter().chain(self.missing.iter().copied()).collect()
    }
}

impl Cache {
    pub(super) fn new() -> Cache {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(DOCUMENTS)
            .weight_capacity(BYTES_MAX)
            .hot_allocation(ASKED_FOR)
            .build()
            .expect("both capacities are said");
        let documents =
            QuickCache::with_options(options, Bytes, DefaultHashBuilder::default(), Default::default());
        Cache { documents: Arc::new(documents) }
    }

    /// The rows of those keys, and of the keys that follow from them, as far as they are remembered.
    pub(super) fn recall(&self, tables: &'static [Table], keys: &Keys) -> Recalled {
        let (mut loaded, mut missing, mut of_tables) = (Loaded::recalled(tables), Vec::new(), Vec::new());
        for table in tables {
            let wanted = loaded.wanted(table, keys);
            if !wanted.is_empty() {
                of_tables.push(table.name);
            }
            for key in wanted {
                match self.documents.get(&(table.name, key)) {
                    Some(Remembered { version, state, bulk, .. }) => {
                        loaded.put(StoredDocument { table: table.name, key, state, bulk }, version);
                    }
                    None if self.is_unborn(table, key) => loaded.take_for_absent(table.name, key),
                    None => missing.push((table.name, key)),
                }
            }
        }
        Recalled { loaded, missing, tables: of_tables }
    }

    fn is_unborn(&self, table: &Table, key: Uuid) -> bool {
        let whole = table.part_of.and_then(|whole| self.documents.peek(&(whole, key)));
        whole.is_some_and(|whole| whole.is_born_here)
    }

    /// Takes in what was committed: what it was decided from, and what has changed since. Answers the latter.
    pub(super) fn remember(
        &self,
        loaded: Loaded,
        changes: Vec<Change>,
        places: Vec<Place>,
    ) -> Vec<ChangedDocument> {
        let mut changed = Vec::with_capacity(changes.len());
        // Whoever is next decides from what is remembered here.
        let Loaded { documents, mut versions, turn, .. } = loaded;
        let mut known: HashMap<Key, (Version, StoredDocument)> = documents
            .into_iter()
            .filter_map(|document| {
                let key = (document.table, document.key);
                Some((key, (versions.remove(&key)?, document)))
            })
            .collect();
        let mut places: HashMap<Key, String> =
            places.into_iter().map(|Place { table, key, ctid }| ((table, key), ctid)).collect();
        for Change { table, key, version, state, bulk, .. } in changes {
            let key = (table, key);
            let before = known.remove(&key);
            let Some(place) = places.remove(&key) else { continue };
            let number = version.map_or(1, |version| version + 1);
            let bulk = bulk.map(Into::into).or_else(|| before.and_then(|(_, document)| document.bulk));
            let remembered = self.documents.peek(&key);
            let is_born_here =
                version.is_none() || remembered.as_ref().is_some_and(|known| known.is_born_here);
            let state: Arc<str> = state.into();
            changed.push(ChangedDocument { table, key: key.1, state: state.clone(), bulk: bulk.clone() });
            // Of two commits the later one may be told first.
            if remembered.is_none_or(|known| known.version.number < number) {
                let version = Version { number, place: place.into() };
                self.documents.insert(key, Remembered { version, state, bulk, is_born_here });
            }
        }
        for (key, (version, StoredDocument { state, bulk, .. })) in known {
            if !self.documents.contains_key(&key) {
                self.documents.insert(key, Remembered { version, state, bulk, is_born_here: false });
            }
        }
        drop(turn);
        changed
    }

    /// Somebody else was faster: nothing is believed of what was decided from.
    pub(super) fn forget(&self, loaded: &Loaded) {
        for document in &loaded.documents {
            self.documents.remove(&(document.table, document.key));
        }
    }
}
