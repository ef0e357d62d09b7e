//! Documents as they would be: what was decided and is not written is taken in, so that what comes behind it can be decided.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::load::{Key, Keys, Loaded, Lock, StoredDocument, Table, Version, load};
use super::write::Change;

/// How many bytes of documents are remembered from one step to the next.
const BYTES_MAX: usize = 8 << 20;
/// What a document takes besides its own bytes.
const BYTES_BESIDE: usize = 200;

/// Documents as they would be after all that was taken in. Nothing of it is locked or written.
#[derive(Debug, Default)]
pub(crate) struct Foreseen {
    rows: HashMap<Key, Row>,
    /// How many steps have ended.
    step: u64,
}

/// A row that was asked for.
#[derive(Debug)]
struct Row {
    /// None where there is no such row.
    document: Option<(StoredDocument, Version)>,
    /// It is not as it is stored.
    is_changed: bool,
    /// The step in which it was asked for last.
    asked_in: u64,
}

impl Row {
    fn bytes(&self) -> usize {
        let document = self.document.as_ref().map(|(document, _)| document);
        let bytes = |of: &StoredDocument| of.state.len() + of.bulk.as_ref().map_or(0, |bulk| bulk.len());
        BYTES_BESIDE + document.map_or(0, bytes)
    }
}

impl Foreseen {
    /// The rows of those keys, and of the keys that follow from them, as they would be.
    pub(crate) async fn load(
        &mut self,
        connection: &mut PgConnection,
        tables: &'static [Table],
        keys: &Keys,
    ) -> Result<Loaded, sqlx::Error> {
        loop {
            let (loaded, missing) = self.recall(tables, keys);
            if missing.is_empty() {
                return Ok(loaded);
            }
            let mut asked_for = Keys::default();
            missing.iter().for_each(|(table, key)| asked_for.add(table, *key));
            let stored = load(&mut *connection, tables, &asked_for, Lock::None).await?;
            // Each of them is known then, also where there is no such row, so this ends where no further key follows.
            self.learn(missing, stored);
        }
    }

    /// What is known of the rows, and the keys of those of which nothing is.
    fn recall(&mut self, tables: &'static [Table], keys: &Keys) -> (Loaded, Vec<Key>) {
        let (mut loaded, mut missing) = (Loaded { tables, ..Loaded::default() }, Vec::new());
        for table in tables {
            for key in loaded.wanted(table, keys) {
                let key = (table.name, key);
                let Some(row) = self.rows.get_mut(&key) else {
                    missing.push(key);
                    continue;
                };
                row.asked_in = self.step;
                if let Some((document, version)) = row.document.clone() {
                    loaded.put(document, version);
                }
            }
        }
        (loaded, missing)
    }

    /// Takes in what is stored of the rows that were missing, and what follows from that. What is not there is known to be absent.
    fn learn(&mut self, missing: Vec<Key>, stored: Loaded) {
        let Loaded { documents, mut versions, .. } = stored;
        let found = documents.into_iter().filter_map(|document| {
            let key = (document.table, document.key);
            Some((key, Some((document, versions.remove(&key)?))))
        });
        let asked_in = self.step;
        for (key, document) in found.chain(missing.into_iter().map(|key| (key, None))) {
            // What would have been changed stays as it would be.
            self.rows.entry(key).or_insert(Row { document, is_changed: false, asked_in });
        }
    }

    /// Takes in what was decided, as if it had been written.
    pub(crate) fn take_in(&mut self, changes: Vec<Change>) {
        for Change { table, key, version, state, bulk, .. } in changes {
            let before = self.rows.remove(&(table, key)).and_then(|row| row.document);
            let bulk = bulk.map(Into::into).or_else(|| before.and_then(|(document, _)| document.bulk));
            // It lies nowhere.
            let version = Version { number: version.map_or(1, |version| version + 1), place: "".into() };
            let document = StoredDocument { table, key, state: state.into(), bulk };
            let row = Row { document: Some((document, version)), is_changed: true, asked_in: self.step };
            self.rows.insert((table, key), row);
        }
    }

    /// Forgets what is as it is stored, and what has not been asked for the longest where there is too much. What is
    /// forgotten is taken from the rows as they are stored where it is asked for again.
    pub(crate) fn end_step(&mut self) {
        self.step += 1;
        self.rows.retain(|_, row| row.is_changed);
        let mut bytes: usize = self.rows.values().map(Row::bytes).sum();
        if bytes <= BYTES_MAX {
            return;
        }
        let mut by_age: Vec<(u64, Key)> = self.rows.iter().map(|(key, row)| (row.asked_in, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            // By halves, so that it is not sorted at each step.
            if bytes <= BYTES_MAX / 2 {
                break;
            }
            bytes -= self.rows.remove(&key).map_or(0, |row| row.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use uuid::Uuid;

    use super::super::load::{Follows, KeysOf};
    use super::*;

    const CUP: Uuid = Uuid::from_u128(1);
    const SAUCER: Uuid = Uuid::from_u128(2);

    /// Each cup names its saucer.
    fn tables() -> &'static [Table] {
        static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
            let keys = |cup: &StoredDocument| cup.state.parse::<Uuid>().into_iter().collect();
            let follows = Follows { of: "cups", select: "".into(), keys: KeysOf(Box::new(keys)) };
            vec![Table::new("cups"), Table { name: "saucers", follows: Some(follows), part_of: None }]
        });
        &TABLES
    }

    fn changed(loaded: &Loaded, table: &'static str, key: Uuid, state: &str) -> Vec<Change> {
        vec![loaded.change(table, key, state.to_owned(), None)]
    }

    fn states(loaded: &Loaded) -> Vec<&str> {
        loaded.documents.iter().map(|document| &*document.state).collect()
    }

    #[test]
    fn what_was_decided_is_what_the_next_one_is_decided_from_and_what_follows_from_it_is_asked_for() {
        let (mut foreseen, keys) = (Foreseen::default(), Keys::of("cups", CUP));
        let (nothing, missing) = foreseen.recall(tables(), &keys);
        assert_eq!(missing, [("cups", CUP)]);
        foreseen.learn(missing, Loaded::default());
        let (absent, missing) = foreseen.recall(tables(), &keys);
        assert!(absent.documents.is_empty() && missing.is_empty(), "it is known not to be there");

        foreseen.take_in(changed(&nothing, "cups", CUP, &SAUCER.to_string()));
        foreseen.end_step();
        let (loaded, missing) = foreseen.recall(tables(), &keys);
        assert_eq!((states(&loaded), missing), (vec![&*SAUCER.to_string()], vec![("saucers", SAUCER)]));
        assert_eq!(loaded.version("cups", CUP), Some(1));
        foreseen.take_in(changed(&loaded, "cups", CUP, "no saucer"));
        let (loaded, missing) = foreseen.recall(tables(), &keys);
        assert_eq!((states(&loaded), missing), (vec!["no saucer"], Vec::new()));
        assert_eq!(loaded.version("cups", CUP), Some(2));
    }

    #[test]
    fn what_would_have_been_changed_is_not_as_it_is_stored_and_the_rest_is_read_again_at_the_next_step() {
        let mut foreseen = Foreseen::default();
        foreseen.take_in(changed(&Loaded::default(), "cups", CUP, "full"));
        let mut stored = Loaded::default();
        for (table, key) in [("cups", CUP), ("saucers", SAUCER)] {
            let version = Version { number: 7, place: "(0,1)".into() };
            stored.put(StoredDocument { table, key, state: "empty".into(), bulk: None }, version);
        }
        foreseen.learn(vec![("saucers", SAUCER)], stored);
        let mut keys = Keys::of("cups", CUP);
        keys.add("saucers", SAUCER);
        assert_eq!(states(&foreseen.recall(tables(), &keys).0), ["full", "empty"]);
        foreseen.end_step();
        let (loaded, missing) = foreseen.recall(tables(), &keys);
        assert_eq!((states(&loaded), missing), (vec!["full"], vec![("saucers", SAUCER)]));
    }

    #[test]
    fn where_there_is_too_much_what_was_not_asked_for_the_longest_is_forgotten() {
        let mut foreseen = Foreseen::default();
        let megabyte = "x".repeat(1 << 20);
        foreseen.take_in(changed(&Loaded::default(), "cups", CUP, "asked for at each step"));
        for number in 10..30 {
            foreseen.recall(tables(), &Keys::of("cups", CUP));
            foreseen.take_in(changed(&Loaded::default(), "cups", Uuid::from_u128(number), &megabyte));
            foreseen.end_step();
            let bytes: usize = foreseen.rows.values().map(Row::bytes).sum();
            assert!(bytes <= BYTES_MAX, "{bytes}");
            assert!(foreseen.rows.contains_key(&("cups", CUP)));
            assert!(foreseen.rows.contains_key(&("cups", Uuid::from_u128(number))));
        }
        assert!(!foreseen.rows.contains_key(&("cups", Uuid::from_u128(10))));
    }
}
