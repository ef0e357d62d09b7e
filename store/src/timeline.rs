//! The whole story of one order, from the log.

use jiff::Timestamp;
use ordermill_pipeline::log::RecordPlace;
use sqlx::PgPool;
use uuid::Uuid;

/// An event of an order's story.
#[derive(Clone, Debug)]
pub struct TimelineRow {
    /// The event.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// The payload.
    pub data: Vec<u8>,
    /// Its place in the log.
    pub log_position: i64,
    /// The event that caused it.
    pub cause_id: Option<Uuid>,
    /// Where it lay in Kafka; known where a worker acted upon it.
    pub kafka: Option<RecordPlace>,
}

/// The events of an order, oldest first.
///
/// # Errors
/// Where the database fails.
pub async fn of_order(pool: &PgPool, order_id: Uuid) -> Result<Vec<TimelineRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH story AS MATERIALIZED (
               SELECT position, event_id, type, at, actor, data, cause_id, cause_topic, cause_partition,
                   cause_offset
               FROM event_log WHERE correlation_id = $1
           )
           SELECT e.position, e.event_id, e.type AS event_type, e.at, e.actor, e.data, e.cause_id,
               met.cause_topic AS "topic?", met.cause_partition AS "partition?", met.cause_offset AS "offset?"
           FROM story e
           LEFT JOIN LATERAL (
               SELECT cause_topic, cause_partition, cause_offset FROM story
               WHERE cause_id = e.event_id AND cause_offset IS NOT NULL ORDER BY position LIMIT 1
           ) met ON true
           ORDER BY e.position"#,
        order_id,
    )
    .fetch_all(pool)
    .await?;
    let row = rows.into_iter().map(|row| TimelineRow {
        event_id: row.event_id,
        event_type: row.event_type,
        at: row.at.to_jiff(),
        actor: row.actor,
        data: row.data,
        log_position: row.position,
        cause_id: row.cause_id,
        kafka: match (row.topic, row.partition, row.offset) {
            (Some(topic), Some(partition), Some(offset)) => Some(RecordPlace { topic, partition, offset }),
            _ => None,
        },
    });
    Ok(row.collect())
}
