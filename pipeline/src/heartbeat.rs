//! Signs of life of relay and workers, by which readiness tells what does not answer or does not work (`readiness.rs`).
//!
//! A process writes those of all its loops in one statement, every two seconds. Who can't reach the database writes none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::database::Told;
use crate::pulse::{Condition, Pulse};

/// How often signs of life are written.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// How long the database has to forget those of a role that ends.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// A role without a sign of life for this long does not answer.
pub(crate) const SILENT_AFTER_S: f64 = 10.0;
/// How long signs of life are watched, and how often they are looked at meanwhile.
const WATCH_FOR: Duration = Duration::from_secs(4);
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// What a process tells of its loops. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Signs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    instance: String,
    /// The loops of each role.
    roles: Mutex<BTreeMap<String, Vec<Pulse>>>,
    /// A loop has begun to work.
    begun: Arc<Notify>,
    /// One writes at a time, so that the sign of a role that has left is not written again.
    writing: tokio::sync::Mutex<()>,
}

impl Signs {
    /// Those of the process that is called `instance` among its like. They are written until `shutdown`.
    #[must_use]
    pub fn start(pool: &PgPool, instance: &str, shutdown: &CancellationToken) -> Signs {
        let signs = Signs(Arc::new(Shared {
            pool: pool.clone(),
            instance: instance.to_owned(),
            roles: Mutex::default(),
            begun: Arc::default(),
            writing: tokio::sync::Mutex::default(),
        }));
        tokio::spawn(signs.clone().keep(shutdown.clone()));
        signs
    }

    /// The pulse of a further loop of a role.
    #[must_use]
    pub fn pulse(&self, role: &str) -> Pulse {
        let pulse = Pulse::new(self.0.begun.clone());
        self.roles().entry(role.to_owned()).or_default().push(pulse.clone());
        pulse
    }

    /// The role has ended in order: nobody waits until its sign is old.
    pub async fn leave(&self, role: &str) {
        self.roles().remove(role);
        let forget = async {
            let _alone = self.0.writing.lock().await;
            let instance = &self.0.instance;
            sqlx::query!("DELETE FROM heartbeat WHERE role = $1 AND instance = $2", role, instance)
                .execute(&self.0.pool)
                .await
        };
        match tokio::time::timeout(LEAVE_WITHIN, forget).await {
            Ok(Ok(_)) => {}
            failed => tracing::debug!(role, ?failed, "a sign of life stays until it is old"),
        }
    }

    async fn keep(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // What is being written is not given up: it could reach the database after the role has left.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.0.begun.notified() => {}
            }
            if let Err(error) = self.write().await {
                tracing::warn!(error = %Told(&error), "no sign of life could be written");
            }
        }
    }

    /// Writes those of all roles that are at work.
    async fn write(&self) -> Result<(), sqlx::Error> {
        let _alone = self.0.writing.lock().await;
        let conditions = self.conditions();
        if conditions.is_empty() {
            return Ok(());
        }
        let (mut roles, mut turned) = (Vec::new(), Vec::new());
        let (mut failing, mut failures) = (Vec::new(), Vec::new());
        let (mut canaries, mut quiet) = (Vec::new(), Vec::new());
        for (role, condition) in conditions {
            roles.push(role);
            turned.push(condition.turned.as_secs_f64());
            failing.push(condition.trouble.map(|(long, _)| long.as_secs_f64()));
            failures.push(condition.trouble.map(|(_, what)| what));
            canaries.push(condition.canary.map(|ago| ago.as_secs_f64()));
            quiet.push(condition.quiet.map(|long| long.as_secs_f64()));
        }
        // The database's clock is the one that writers and readers share.
        sqlx::query!(
            "WITH gone AS (DELETE FROM heartbeat WHERE at < now() - interval '1 hour' AND instance <> $1)
             INSERT INTO heartbeat (role, instance, at, turned_at, failing_since, failure, canary_at, quiet_since)
             SELECT role, $1, now(), now() - make_interval(secs => turned_s), now() - make_interval(secs => failing_s),
                 failure, now() - make_interval(secs => canary_s), now() - make_interval(secs => quiet_s)
             FROM unnest($2::text[], $3::float8[], $4::float8[], $5::text[], $6::float8[], $7::float8[])
                 AS sign (role, turned_s, failing_s, failure, canary_s, quiet_s)
             ON CONFLICT (role, instance) DO UPDATE SET at = excluded.at, turned_at = excluded.turned_at,
                 failing_since = excluded.failing_since, failure = excluded.failure, canary_at = excluded.canary_at,
                 quiet_since = excluded.quiet_since",
            self.0.instance,
            &roles,
            &turned,
            failing as _,
            failures as _,
            canaries as _,
            quiet as _,
        )
        .execute(&self.0.pool)
        .await?;
        Ok(())
    }

    fn conditions(&self) -> Vec<(String, Condition)> {
        let (roles, now) = (self.roles(), Instant::now());
        let at_work = |(role, pulses): (&String, &Vec<Pulse>)| {
            Condition::of(pulses, now).map(|condition| (role.clone(), condition))
        };
        roles.iter().filter_map(at_work).collect()
    }

    fn roles(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Pulse>>> {
        self.0.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
