//! What there is to see of relay and workers, in one statement.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use sqlx::PgPool;
use sqlx::types::Json;

use super::{Expected, RELAY, worker_role};
use crate::heartbeat::SILENT_AFTER_S;

/// What is seen at one moment. All times are those of the database.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The instance that leads, or prepares to.
    pub leader: Option<String>,
    /// How long ago a relay led; none where none ever did.
    pub led: Option<Duration>,
    /// The signs of life that are not old.
    pub signs: Vec<Sign>,
    /// The groups that have stopped.
    pub halted: Vec<Stopped>,
    /// Where something waits.
    pub waiting: Vec<Waiting>,
}

/// What a process tells of a role, as of when it wrote that: of one that has ended since, no more is to be read into it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Sign {
    /// The role.
    pub role: String,
    /// The process.
    pub instance: String,
    /// How long ago its loop came round.
    #[serde(deserialize_with = "seconds")]
    pub turned: Duration,
    /// What does not work.
    pub failing: Option<Failing>,
    /// Of a member that is to meet canaries: how long ago it met one, or for how long it has waited for one.
    #[serde(deserialize_with = "maybe_seconds")]
    pub canary: Option<Duration>,
    /// Of a leading relay: for how long it has sent canaries, as nothing else moves.
    #[serde(deserialize_with = "maybe_seconds")]
    pub quiet: Option<Duration>,
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Failing {
    /// For how long it has not.
    #[serde(deserialize_with = "seconds")]
    pub long: Duration,
    /// What.
    pub what: String,
}

/// A group that has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Stopped {
    /// Its name.
    pub group: String,
    /// Why it has.
    pub reason: String,
}

/// Something waits for a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The role.
    pub role: String,
    /// Where: a partition of a topic; empty for the relay.
    pub place: String,
    /// Something that grows with all that the role does there, be it that it applies something or that it passes it over.
    pub progress: i64,
}

/// A partition in which more was published than a group is done with.
#[derive(Debug, Deserialize)]
struct Behind {
    group: String,
    place: String,
    progress: i64,
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Ok(duration(f64::deserialize(from)?))
}

fn maybe_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.map(duration))
}

/// A clock that was set back may make it negative.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Looks at what is expected.
///
/// # Errors
/// Where the database does not answer, or the log was never set up.
pub async fn look(pool: &PgPool, expected: &Expected) -> Result<Sight, sqlx::Error> {
    let pairs = expected
        .groups
        .iter()
        .flat_map(|(group, topics)| topics.iter().map(move |topic| (group.clone(), topic.clone())));
    let (groups, topics): (Vec<String>, Vec<String>) = pairs.unzip();
    let row = sqlx::query!(
        r#"SELECT CASE WHEN lease_until > clock_timestamp() THEN leader END AS leader,
               extract(epoch FROM clock_timestamp() - led_at)::float8 AS led_s, position,
               position < coalesce((
                   SELECT number * 100000 + events FROM log_segment ORDER BY number DESC LIMIT 1), 0) AS "is_behind!",
               coalesce((
                   SELECT jsonb_agg(jsonb_build_object('role', role, 'instance', instance,
                       'turned', extract(epoch FROM at - turned_at),
                       'failing', CASE WHEN failing_since IS NOT NULL THEN jsonb_build_object(
                           'long', extract(epoch FROM at - failing_since), 'what', failure) END,
                       'canary', extract(epoch FROM at - canary_at),
                       'quiet', extract(epoch FROM at - quiet_since)))
                   FROM heartbeat WHERE at > now() - make_interval(secs => $1)), '[]') AS "signs!: Json<Vec<Sign>>",
               coalesce((
                   SELECT jsonb_agg(jsonb_build_object('group', group_name, 'reason', reason))
                   FROM halted_group WHERE resumed_at IS NULL), '[]') AS "halted!: Json<Vec<Stopped>>",
               coalesce((
                   SELECT jsonb_agg(jsonb_build_object('group', g.group_name, 'place', g.topic || '/' || (p.ordinal - 1),
                       'progress', coalesce(o.label_position + o.next_offset, 0)))
                   FROM unnest($2::text[], $3::text[]) AS g (group_name, topic)
                       CROSS JOIN LATERAL jsonb_array_elements(c.tails -> g.topic)
                           WITH ORDINALITY AS p (last, ordinal)
                       LEFT JOIN consumer_offset o
                           ON o.group_name = g.group_name AND o.topic = g.topic AND o.partition = p.ordinal - 1
                   -- What lies below `published_after` this era has not published: nobody waits for it.
                   WHERE (p.last ->> 0)::bigint > c.published_after
                       AND (p.last ->> 0)::bigint > coalesce(o.label_position, 0)), '[]') AS "behind!: Json<Vec<Behind>>"
           FROM relay_cursor c"#,
        SILENT_AFTER_S,
        &groups,
        &topics,
    )
    .fetch_one(pool)
    .await?;
    let of_relay = row.is_behind.then(|| Waiting {
        role: RELAY.to_owned(),
        place: String::new(),
        progress: row.position,
    });
    let of_groups = row.behind.0.into_iter().map(|Behind { group, place, progress }| Waiting {
        role: worker_role(&group),
        place,
        progress,
    });
    Ok(Sight {
        leader: row.leader,
        led: row.led_s.map(duration),
        signs: row.signs.0,
        halted: row.halted.0,
        waiting: of_relay.into_iter().chain(of_groups).collect(),
    })
}
