//! The keys of which a group applies nothing for now.
//!
//! A key is parked only by the owner of its partition, in a transaction that its successor's claim waits for. So who
//! owns the partition sees every parked key of it, and a look at the whole group is enough where none is parked.

use std::collections::HashSet;

use crate::journal::{Beside, Load};
use crate::record::Record;

/// Parked keys of some records: topic and key.
#[derive(Debug, Default)]
pub(crate) struct ParkedKeys(HashSet<(String, Vec<u8>)>);

/// The kind of the rows in which a load tells parked keys.
const PARKED: i16 = 2;

impl ParkedKeys {
    /// Adds to a load that those of the records' keys that are parked are locked, before anything else, so that nothing is
    /// decided about them meanwhile.
    pub(crate) fn ask(load: &mut Load, group: &str, records: &[&Record]) {
        let keys: HashSet<(&str, &[u8])> =
            records.iter().map(|record| (record.place.topic.as_str(), record.parking_key())).collect();
        let (topics, keys): (Vec<&str>, Vec<&[u8]>) = keys.into_iter().unzip();
        let group = load.statement.bind(group.to_owned());
        let (topics, keys) = (load.statement.bind(topics), load.statement.bind(keys));
        load.beside(
            PARKED,
            &format!(
                "SELECT p.topic, encode(p.record_key, 'hex') FROM parked_key p
                 JOIN unnest({topics}::text[], {keys}::bytea[]) AS k (topic, record_key)
                     ON p.topic = k.topic AND p.record_key = k.record_key
                 WHERE p.group_name = {group}
                 ORDER BY p.topic, p.record_key FOR UPDATE OF p"
            ),
        );
    }

    /// What the load has answered.
    pub(crate) fn told(beside: Vec<Beside>) -> Result<ParkedKeys, sqlx::Error> {
        let parked = beside.into_iter().filter(|row| row.kind == PARKED).map(|row| {
            let key = hex::decode(row.data.unwrap_or_default())
                .map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((row.text.unwrap_or_default(), key))
        });
        Ok(ParkedKeys(parked.collect::<Result<_, sqlx::Error>>()?))
    }

    /// Whether the record's key is parked.
    pub(crate) fn holds(&self, record: &Record) -> bool {
        // Most often nothing is parked at all.
        !self.0.is_empty() && self.0.contains(&(record.place.topic.clone(), record.parking_key().to_vec()))
    }

    /// The record's key is parked from here on.
    pub(crate) fn park(&mut self, record: &Record) {
        self.0.insert((record.place.topic.clone(), record.parking_key().to_vec()));
    }
}
