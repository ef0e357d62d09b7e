//! The whole story of one order: its events in the log, with what is known of each elsewhere.
//!
//! Every row is found by a key: events by their order, balance entries by the id that they share with their event, dead
//! letters by their order.

use jiff::Timestamp;
use ordermill_pipeline::log::RecordPlace;
use ordermill_pipeline::topics::is_dead_letter_topic;
use ordermill_schemas::Money;
use sqlx::PgPool;
use uuid::Uuid;

use crate::notes::NoteRow;

/// An event of an order's story.
#[derive(Clone, Debug)]
pub struct TimelineRow {
    /// The event.
    pub event_id: Uuid,
    /// What it happened to.
    pub aggregate_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// The version of its payload's schema.
    pub version: i16,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// The id of the HTTP request that wrote it, where one did.
    pub request: Option<Uuid>,
    /// The span that it happened in, a W3C `traceparent`.
    pub traceparent: String,
    /// The payload.
    pub data: Vec<u8>,
    /// What was said with it in words of one's own, which the log does not have; nothing once the user is erased.
    pub note: Option<NoteRow>,
    /// Its place in the log.
    pub log_position: i64,
    /// The event that caused it.
    pub cause_id: Option<Uuid>,
    /// The topic that it goes to, without prefix.
    pub topic: String,
    /// The partition that it goes to.
    pub partition: i16,
    /// Whether Kafka has acknowledged it.
    pub published: bool,
    /// Where Kafka has put it; known once it is published, but for what was sent twice.
    pub kafka: Option<RecordPlace>,
    /// The groups that are done with it: it was applied, passed over or put aside.
    pub read_by: Vec<String>,
    /// The balance's entry that it made.
    pub balance_entry: Option<BalanceEntryRow>,
    /// The dead letter that it tells of.
    pub dead_letter: Option<DeadLetterRow>,
    /// Where it was put aside itself: by the groups that could not apply it, or in which it waits behind another.
    pub put_aside: Vec<DeadLetterRow>,
}

impl TimelineRow {
    /// Whether it tells of a message that a group could not apply.
    #[must_use]
    pub fn is_of_dead_letter(&self) -> bool {
        is_dead_letter_topic(&self.topic)
    }
}

/// An entry of a balance's history, of an order.
#[derive(Clone, Debug)]
pub struct BalanceEntryRow {
    /// The entry; the id of its event.
    pub entry_id: Uuid,
    /// USED or REFUNDED.
    pub kind: String,
    /// How much, above 0.
    pub amount: Money,
    /// Available and held after it.
    pub balance_after: Money,
    /// When.
    pub created_at: Timestamp,
}

/// A message of an order that a group could not apply, or that waits behind one.
#[derive(Clone, Debug)]
pub struct DeadLetterRow {
    /// The dead letter.
    pub dead_letter_id: Uuid,
    /// The event that it holds, as its headers say.
    pub event_id: Option<Uuid>,
    /// The group.
    pub group: String,
    /// Where the message lies.
    pub place: RecordPlace,
    /// Its type, as its headers say.
    pub event_type: Option<String>,
    /// Why it was not applied, for programs; a message that only waits has not failed.
    pub code: Option<String>,
    /// The same for operators.
    pub error: Option<String>,
    /// How many attempts were made.
    pub attempts: i32,
    /// When the first attempt failed.
    pub first_failed_at: Option<Timestamp>,
    /// When the last attempt failed.
    pub last_failed_at: Option<Timestamp>,
    /// What became of it.
    pub state: String,
}

/// The events of an order, oldest first.
///
/// # Errors
/// Where the database fails.
pub async fn of_order(pool: &PgPool, order_id: Uuid) -> Result<Vec<TimelineRow>, sqlx::Error> {
    let mut rows = events(pool, order_id).await?;
    // A dead letter is written with its event, so whoever sees the event finds it, too.
    let dead_letters = dead_letters(pool, order_id).await?;
    for row in &mut rows {
        if row.is_of_dead_letter() {
            row.dead_letter = dead_letters.iter().find(|d| d.dead_letter_id == row.aggregate_id).cloned();
        } else {
            let of_it = dead_letters.iter().filter(|d| d.event_id == Some(row.event_id));
            row.put_aside = of_it.cloned().collect();
        }
    }
    Ok(rows)
}

/// Up to which position of the log everything is published.
///
/// # Errors
/// Where the database fails.
pub async fn published_upto(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let position = sqlx::query_scalar!("SELECT position FROM relay_cursor").fetch_optional(pool).await?;
    Ok(position.unwrap_or_default())
}

/// Who is done with an event is known from the groups' offsets, which are committed with what they did: whoever is past
/// its position has applied it, passed it over or put it aside.
async fn events(pool: &PgPool, order_id: Uuid) -> Result<Vec<TimelineRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH story AS MATERIALIZED (
               SELECT * FROM event_log WHERE about @> ARRAY[$1::uuid] AND correlation_id = $1
           ), progress AS MATERIALIZED (
               SELECT group_name, topic, partition, label_position FROM consumer_offset
               WHERE (topic, partition) IN (SELECT topic, partition FROM story)
           )
           SELECT e.position AS "position!", e.event_id AS "event_id!", e.aggregate_id AS "aggregate_id!",
               e.topic AS "topic!", e.partition AS "partition!", e.type AS "event_type!", e.version AS "version!",
               e.at AS "at!", e.actor AS "actor!", e.request_id,
               e.traceparent AS "traceparent!", e.data AS "data!", e.cause_id,
               e.position <= coalesce((SELECT position FROM relay_cursor), 0) AS "published!",
               nullif(place.offsets[e.position % 100000], -1) AS "offset?",
               ARRAY(
                   SELECT group_name FROM progress p
                   WHERE p.topic = e.topic AND p.partition = e.partition AND p.label_position >= e.position
                   ORDER BY group_name
               ) AS "read_by!",
               b.kind AS "kind?", b.amount AS "amount?", b.balance_after AS "balance_after?",
               n.kind AS "note_kind?", n.words AS "note_words?"
           FROM story e
           LEFT JOIN (SELECT * FROM balance_entries WHERE about @> ARRAY[$1]) b ON b.entry_id = e.event_id
           LEFT JOIN log_place place ON place.number = e.segment
           LEFT JOIN notes n ON n.about = CASE
                   WHEN e.type = 'order.cancelling' THEN e.aggregate_id
                   WHEN e.type IN ('order.partially_shipped', 'order.shipped')
                       THEN (convert_from(e.data, 'UTF8')::jsonb ->> 'shipment_id')::uuid
               END AND n.kind = CASE e.type WHEN 'order.cancelling' THEN 'reason' ELSE 'tracking_number' END
           ORDER BY e.position"#,
        order_id,
    )
    .fetch_all(pool)
    .await?;
    let row = rows.into_iter().map(|row| TimelineRow {
        event_id: row.event_id,
        aggregate_id: row.aggregate_id,
        event_type: row.event_type,
        version: row.version,
        at: row.at.to_jiff(),
        actor: row.actor,
        request: row.request_id,
        traceparent: row.traceparent,
        data: row.data,
        note: row.note_kind.zip(row.note_words).map(|(kind, words)| NoteRow { kind, words }),
        log_position: row.position,
        cause_id: row.cause_id,
        // Of what is to be published again the former place may still stand there.
        kafka: row.offset.filter(|_| row.published).map(|offset| RecordPlace {
            topic: row.topic.clone(),
            partition: row.partition,
            offset,
        }),
        topic: row.topic,
        partition: row.partition,
        published: row.published,
        read_by: row.read_by,
        balance_entry: match (row.kind, row.amount, row.balance_after) {
            (Some(kind), Some(amount), Some(balance_after)) => {
                let (entry_id, created_at) = (row.event_id, row.at.to_jiff());
                Some(BalanceEntryRow { entry_id, kind, amount, balance_after, created_at })
            }
            _ => None,
        },
        dead_letter: None,
        put_aside: Vec::new(),
    });
    Ok(row.collect())
}

/// What was put aside of an order, in that order.
async fn dead_letters(pool: &PgPool, order_id: Uuid) -> Result<Vec<DeadLetterRow>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT dead_letter_id, event_id, group_name, topic, partition, record_offset, event_type, code, error, attempts,
             first_failed_at, last_failed_at, state
         FROM dead_letter WHERE correlation_id = $1 ORDER BY ordinal",
        order_id,
    )
    .fetch_all(pool)
    .await?;
    let dead_letters = rows.into_iter().map(|row| DeadLetterRow {
        dead_letter_id: row.dead_letter_id,
        event_id: row.event_id,
        group: row.group_name,
        place: RecordPlace { topic: row.topic, partition: row.partition, offset: row.record_offset },
        event_type: row.event_type,
        code: row.code,
        error: row.error,
        attempts: row.attempts,
        first_failed_at: row.first_failed_at.map(jiff_sqlx::Timestamp::to_jiff),
        last_failed_at: row.last_failed_at.map(jiff_sqlx::Timestamp::to_jiff),
        state: row.state,
    });
    Ok(dead_letters.collect())
}
