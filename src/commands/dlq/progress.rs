//! Watching a replay until it is done: a bar on a terminal, else a line now and then.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ordermill_pipeline::dead_letters::replays::{self, Progress, Replay};
use ordermill_pipeline::heartbeat::silent_roles;
use uuid::Uuid;

use super::desk::Desk;
use crate::database::explain;
use crate::progress::Bar;

/// How often the replay is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a line is written where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How often the workers' signs of life are looked at.
const LISTEN_EVERY: Duration = Duration::from_secs(2);

/// Returns the replay once it is done.
pub(super) async fn watch(desk: &Desk, replay_id: Uuid) -> Result<Replay> {
    let mut bar = Bar::new("{bar:40} {pos}/{len} {msg} ({per_sec}, {eta} left)", TELL_EVERY);
    let mut silence = Silence::default();
    loop {
        let replay = find(desk, replay_id).await?;
        if replay.progress == Progress::Done {
            return Ok(replay);
        }
        let (failed, selected) = (replay.verdicts.failed_again, replay.selected);
        let decided = selected - replay.verdicts.undecided;
        let message = if failed > 0 { format!("{failed} failed again") } else { String::new() };
        let line = || format!("{decided} of {selected} are decided");
        bar.at(decided.unsigned_abs(), selected.unsigned_abs(), message, line);
        if let Some(warning) = silence.warning(desk, replay_id).await? {
            bar.warn(&warning);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The replay.
pub(super) async fn find(desk: &Desk, replay_id: Uuid) -> Result<Replay> {
    let replay = replays::get(&desk.pool, replay_id).await.map_err(explain)?;
    replay.with_context(|| format!("there is no replay {replay_id}: see `ordermill dlq replays`"))
}

/// The groups whose silence has been told.
#[derive(Default)]
struct Silence {
    told: Vec<String>,
    listened_at: Option<Instant>,
}

impl Silence {
    /// What to say where the workers that should decide give no signs of life, once for each silence.
    async fn warning(&mut self, desk: &Desk, replay_id: Uuid) -> Result<Option<String>> {
        if self.listened_at.is_some_and(|at| at.elapsed() < LISTEN_EVERY) {
            return Ok(None);
        }
        self.listened_at = Some(Instant::now());
        let groups = replays::groups_at_work(&desk.pool, replay_id).await.map_err(explain)?;
        let roles: Vec<String> = groups.iter().map(|group| format!("worker:{group}")).collect();
        let silent = silent_roles(&desk.pool, &roles).await.map_err(explain)?;
        let is_news = silent.iter().any(|role| !self.told.contains(role));
        self.told = silent;
        Ok(is_news.then(|| warning(&self.told)))
    }
}

fn warning(silent: &[String]) -> String {
    let groups: Vec<&str> = silent.iter().map(|role| role.trim_start_matches("worker:")).collect();
    format!(
        "no worker of {} gives signs of life, so nobody decides; start one: ordermill worker {}",
        groups.join(", "),
        groups.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_says_which_workers_to_start() {
        let text = warning(&["worker:sales".to_owned(), "worker:stock".to_owned()]);
        assert!(text.starts_with("no worker of sales, stock gives signs of life"), "{text}");
        assert!(text.ends_with("ordermill worker sales stock"), "{text}");
    }
}
