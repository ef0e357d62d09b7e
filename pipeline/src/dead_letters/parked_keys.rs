//! The keys of which a group applies nothing for now.
//!
//! A key is parked only by the owner of its partition, in a transaction that its successor's claim waits for. So who
//! owns the partition sees every parked key of it, and a look at the whole group is enough where none is parked.

use std::collections::HashSet;

use sqlx::PgConnection;

use crate::consumer::Record;

/// Parked keys of some records: topic and key.
#[derive(Debug, Default)]
pub(crate) struct ParkedKeys(HashSet<(String, Vec<u8>)>);

impl ParkedKeys {
    /// Locks those of the records' keys that are parked, so that nothing is decided about them meanwhile.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn lock<'a>(
        connection: &mut PgConnection,
        group: &str,
        records: impl Iterator<Item = &'a Record>,
    ) -> Result<ParkedKeys, sqlx::Error> {
        let keys: HashSet<(&str, &[u8])> =
            records.map(|record| (record.place.topic.as_str(), record.parking_key())).collect();
        let topics: Vec<String> = keys.iter().map(|(topic, _)| (*topic).to_owned()).collect();
        let keys: Vec<Vec<u8>> = keys.iter().map(|(_, key)| key.to_vec()).collect();
        let rows = sqlx::query!(
            "SELECT p.topic, p.record_key FROM parked_key p
             JOIN unnest($2::text[], $3::bytea[]) AS k (topic, record_key)
                 ON p.topic = k.topic AND p.record_key = k.record_key
             WHERE p.group_name = $1
             ORDER BY p.topic, p.record_key FOR UPDATE OF p",
            group,
            &topics,
            &keys,
        )
        .fetch_all(connection)
        .await?;
        Ok(ParkedKeys(rows.into_iter().map(|row| (row.topic, row.record_key)).collect()))
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
