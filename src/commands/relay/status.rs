//! `ordermill relay status`.

use anyhow::Result;
use ordermill_pipeline::relay::{self, OpenTransaction, Status};

use crate::database::connect_pool;
use crate::output::show;

pub(super) async fn run(database_url: &str, json: bool) -> Result<()> {
    let pool = connect_pool(database_url, "relay-status", 1).await?;
    let status = relay::status(&pool).await?;
    show(&status, json, || text(&status))
}

/// A status, a line for each fact.
fn text(status: &Status) -> String {
    let Status { leader, epoch, era, era_after, position, log_end, lag, .. } = status;
    let parted = match era_after {
        0 => String::new(),
        after => format!(", which parted from the one before at position {after}"),
    };
    let mut lines = vec![
        format!("leader    {} (epoch {epoch})", leader.as_deref().unwrap_or("none")),
        format!("era       {era}{parted}"),
        format!("position  {position}"),
        format!("log end   {log_end} ({lag} events to publish)"),
    ];
    lines.extend(status.repeat_after.map(|after| format!("asked for  everything above {after} again")));
    let unfinished = "an adoption was begun and not finished: run `ordermill relay adopt` again, as before";
    lines.extend(status.adopting.then(|| unfinished.to_owned()));
    lines.extend(status.oldest_transaction.as_ref().map(|OpenTransaction { pid, database, age_s }| {
        let session = pid.map_or_else(|| "prepared".to_owned(), |pid| format!("pid {pid}"));
        format!("oldest open transaction  {age_s:.1} s ({session}, database {database})")
    }));
    lines.join("\n")
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
        let text = text(&status());
        let expected =
            "leader    host:7 (epoch 3)\nera       1\nposition  90\nlog end   97 (5 events to publish)";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_status_tells_what_holds_the_relay_up() {
        let oldest_transaction =
            Some(OpenTransaction { pid: Some(12), database: "shop".to_owned(), age_s: 4.25 });
        let text = text(&Status { leader: None, era: 2, era_after: 80, oldest_transaction, ..status() });
        for part in [
            "leader    none",
            "2, which parted from the one before at position 80",
            "4.2 s (pid 12, database shop)",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
