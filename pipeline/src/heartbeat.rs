//! Signs of life of relay and workers, by which readiness tells what does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::database::Told;

/// How often a sign of life is written.
const INTERVAL: Duration = Duration::from_secs(2);
/// After this long without a turn, a loop counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// A role without a sign of life for this long does not answer.
const SILENT_AFTER_S: f64 = 5.0;
/// How long signs of life are watched, and how often they are looked at meanwhile.
const WATCH_FOR: Duration = Duration::from_secs(4);
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// A loop's pulse: beaten by the loop at every turn, watched from outside.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// The loop has come round once more.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the loop came round; `None` where it is not at work yet.
    fn silence(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }
}

/// Writes a sign of life for `role` every two seconds until `shutdown`, as long as the pulse beats.
pub fn start(
    pool: &PgPool,
    role: &str,
    instance: &str,
    shutdown: &CancellationToken,
) -> (Pulse, JoinHandle<()>) {
    let pulse = Pulse::default();
    let (role, instance) = (role.to_owned(), instance.to_owned());
    let beat = tokio::spawn(run(pool.clone(), role, instance, pulse.clone(), shutdown.clone()));
    (pulse, beat)
}

async fn run(pool: PgPool, role: String, instance: String, pulse: Pulse, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        match pulse.silence() {
            None => continue,
            Some(silence) if silence > STUCK_AFTER => {
                tracing::error!(role, "the loop is stuck; no sign of life is written");
                continue;
            }
            Some(_) => {}
        }
        // The database's clock is the one that writer and reader share.
        let written = sqlx::query!(
            "WITH gone AS (DELETE FROM heartbeat WHERE at < now() - interval '1 hour')
             INSERT INTO heartbeat (role, instance, at) VALUES ($1, $2, now())
             ON CONFLICT (role, instance) DO UPDATE SET at = excluded.at",
            role,
            instance,
        )
        .execute(&pool)
        .await;
        if let Err(error) = written {
            tracing::warn!(role, error = %Told(&error), "no sign of life could be written");
        }
    }
    let _ = sqlx::query!("DELETE FROM heartbeat WHERE role = $1 AND instance = $2", role, instance)
        .execute(&pool)
        .await;
}

/// The roles among `roles` that no instance has given a sign of life for lately.
///
/// # Errors
/// Where the database does not answer.
pub async fn silent_roles(pool: &PgPool, roles: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT role AS "role!" FROM unnest($1::text[]) AS role
           WHERE NOT EXISTS (
               SELECT FROM heartbeat h
               WHERE h.role = role.role AND h.at > now() - make_interval(secs => $2))
           ORDER BY role"#,
        roles,
        SILENT_AFTER_S,
    )
    .fetch_all(pool)
    .await
}

/// Somebody who is at work with the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AtWork {
    /// What it does: `relay`, `worker:stock`.
    pub role: String,
    /// Its instance.
    pub instance: String,
}

/// Somebody who is at work, if anybody is: who gives or renews a sign of life while this looks, for a few seconds. Signs
/// that came with a restored database are never renewed, whatever time they say; who has just started has given none yet.
///
/// # Errors
/// Where the database does not answer.
pub async fn at_work(pool: &PgPool) -> Result<Option<AtWork>, sqlx::Error> {
    let first = recent(pool).await?;
    let started = Instant::now();
    while started.elapsed() < WATCH_FOR {
        tokio::time::sleep(WATCH_EVERY).await;
        let now = recent(pool).await?;
        if let Some((who, _)) = now.iter().find(|(who, at)| first.get(who) != Some(at)) {
            return Ok(Some(who.clone()));
        }
    }
    Ok(None)
}

/// Who has given a sign of life lately, and when, in microseconds: its own, or that it leads for a while yet.
async fn recent(pool: &PgPool) -> Result<HashMap<AtWork, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT role AS "role!", instance AS "instance!", (extract(epoch FROM at) * 1000000)::bigint AS "at_us!"
           FROM (
               SELECT role, instance, at FROM heartbeat WHERE at > now() - make_interval(secs => $1)
               UNION ALL
               SELECT 'leading relay', leader, lease_until FROM relay_cursor
               WHERE leader IS NOT NULL AND lease_until > clock_timestamp()
           ) AS signs"#,
        SILENT_AFTER_S,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (AtWork { role: row.role, instance: row.instance }, row.at_us)).collect())
}
