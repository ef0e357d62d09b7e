//! `ordermill relay status`.

use std::fmt;

use anyhow::Result;
use clap::Args;
use ordermill_pipeline::relay::{self, OpenTransaction, Status};

use crate::database::connect_pool;
use crate::output::show;

/// The flags of `ordermill relay status`.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Prints JSON instead of lines.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(database_url: &str, args: StatusArgs) -> Result<()> {
    let pool = connect_pool(database_url, "relay-status", 1).await?;
    let status = relay::status(&pool).await?;
    show(&status, args.json, || Lines(&status).to_string())
}

/// A status, a line for each fact.
struct Lines<'a>(&'a Status);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { leader, epoch, era, era_after, position, log_end, lag, .. } = self.0;
        writeln!(f, "leader    {} (epoch {epoch})", leader.as_deref().unwrap_or("none"))?;
        match era_after {
            0 => writeln!(f, "era       {era}")?,
            after => writeln!(f, "era       {era}, which parted from the one before at position {after}")?,
        }
        writeln!(f, "position  {position}")?;
        write!(f, "log end   {log_end} ({lag} events to publish)")?;
        if let Some(after) = self.0.repeat_after {
            write!(f, "\nasked for  everything above {after} again")?;
        }
        if self.0.adopting {
            write!(
                f,
                "\nan adoption was begun and not finished: run `ordermill relay adopt` again, as before"
            )?;
        }
        if let Some(OpenTransaction { pid, database, age_s }) = &self.0.oldest_transaction {
            let session = pid.map_or_else(|| "prepared".to_owned(), |pid| format!("pid {pid}"));
            write!(f, "\noldest open transaction  {age_s:.1} s ({session}, database {database})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            leader: Some("host:7".to_owned()),
            epoch: 3,
            era: 1,
            era_after: 0,
            adopting: false,
            position: 90,
            log_end: 97,
            lag: 5,
            repeat_after: None,
            oldest_transaction: None,
        }
    }

    #[test]
    fn the_status_tells_who_leads_and_how_far_it_is() {
        let text = Lines(&status()).to_string();
        let expected =
            "leader    host:7 (epoch 3)\nera       1\nposition  90\nlog end   97 (5 events to publish)";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_status_tells_what_holds_the_relay_up() {
        let oldest_transaction =
            Some(OpenTransaction { pid: Some(12), database: "shop".to_owned(), age_s: 4.25 });
        let text = Lines(&Status { leader: None, era: 2, era_after: 80, oldest_transaction, ..status() })
            .to_string();
        for part in [
            "leader    none",
            "2, which parted from the one before at position 80",
            "4.2 s (pid 12, database shop)",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
