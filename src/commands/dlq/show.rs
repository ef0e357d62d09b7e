//! `dlq show`: one letter with everything.

use std::io::{IsTerminal as _, stdout};

use anyhow::Result;
use clap::Args;
use ordermill_api::dead_letters::WholeLetterView;
use ordermill_pipeline::dead_letters::edits::audit::Audited;
use ordermill_pipeline::dead_letters::letters;
use ordermill_pipeline::stored_header::StoredHeader;
use uuid::Uuid;

use super::desk::Desk;
use super::payload;
use crate::database::explain;
use crate::output::{note, print, time, write};
use crate::printable::printable;

/// How many of the letters that wait are named.
const WAITING_NAMED_MAX: i64 = 20;

/// The flags of `dlq show`.
#[derive(Args, Clone, Debug)]
pub(super) struct ShowArgs {
    /// The dead letter.
    dead_letter_id: Uuid,
    /// Writes the payload alone, byte by byte, into a file or a pipe.
    #[arg(long, conflicts_with = "json")]
    payload: bool,
}

/// Shows a letter.
pub(super) async fn show(desk: &Desk, args: &ShowArgs) -> Result<()> {
    let whole = desk.letter(args.dead_letter_id).await?;
    if args.payload {
        return write_payload(whole.payload.as_deref().unwrap_or_default());
    }
    let waiting =
        letters::waiting_behind(&desk.pool, &whole.letter, WAITING_NAMED_MAX).await.map_err(explain)?;
    let view = WholeLetterView::from(whole);
    desk.show(&view, || text(&view, &waiting))
}

fn write_payload(payload: &[u8]) -> Result<()> {
    if !stdout().is_terminal() {
        return write(payload);
    }
    print(&printable(&String::from_utf8_lossy(payload)))?;
    note("what could change the terminal is shown as its number; write into a file to have each byte");
    Ok(())
}

/// The letter for people.
fn text(view: &WholeLetterView, waiting: &[Uuid]) -> String {
    let mut lines = head(view);
    lines.push("\nheaders".to_owned());
    lines.extend(view.headers.iter().map(header));
    lines.push(if view.letter.edited { "\npayload (edited)" } else { "\npayload" }.to_owned());
    match bytes(view.payload.as_ref(), view.payload_base64.as_ref()) {
        Some(payload) => lines.extend(indented(payload::lines(&payload, &view.schema))),
        None => lines.push("  (none)".to_owned()),
    }
    match (&view.schema.code, &view.schema.error) {
        (Some(code), Some(error)) => lines.push(format!("  {code}: {}", printable(error))),
        _ => lines.push("  (it has the shape that the headers promise)".to_owned()),
    }
    if view.letter.edited {
        lines.push("\npayload as it came".to_owned());
        let original = or_none(bytes(view.original_payload.as_ref(), view.original_payload_base64.as_ref()));
        lines.extend(indented(original.lines().map(printable).collect()));
    }
    if !waiting.is_empty() {
        lines.push("\nwaiting behind it, in order".to_owned());
        lines.extend(waiting.iter().map(|id| format!("  {id}")));
        let unnamed = view.letter.waiting_behind - i64::try_from(waiting.len()).unwrap_or(i64::MAX);
        if unnamed > 0 {
            lines.push(format!("  … and {unnamed} more"));
        }
    }
    lines.push("\ndone to it".to_owned());
    lines.extend(view.audit.iter().map(audited));
    if view.audit.is_empty() {
        lines.push("  (nothing)".to_owned());
    }
    lines.join("\n")
}

fn head(view: &WholeLetterView) -> Vec<String> {
    let letter = &view.letter;
    let state = match (letter.waits_for, letter.waiting_behind) {
        (Some(head), _) => format!("{}, behind {head}", letter.state),
        (None, 0) => letter.state.to_owned(),
        (None, waiting) => format!("{}, with {waiting} of its key waiting behind it", letter.state),
    };
    let tries = match letter.attempts {
        0 => "never: it only waits".to_owned(),
        attempts => {
            format!("{attempts}, from {} to {}", time(letter.first_failed_at), time(letter.last_failed_at))
        }
    };
    let mut rows = vec![
        ("dead letter", letter.dead_letter_id.to_string()),
        ("state", state),
        ("group", letter.group.clone()),
        ("from", format!("{}, partition {}, offset {}", letter.topic, letter.partition, letter.offset)),
        ("key", or_none(bytes(letter.key.as_ref(), letter.key_base64.as_ref()))),
        ("type", or_none(letter.event_type.clone())),
        ("order", or_none(letter.correlation_id.map(|id| id.to_string()))),
        ("code", or_none(letter.code.clone())),
        ("error", or_none(letter.error.clone())),
        ("tried", tries),
    ];
    if letter.resolved_at.is_some() {
        rows.push(("applied", time(letter.resolved_at)));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<12}{}", printable(&value))).collect()
}

/// Text, or what is none in base64.
fn bytes(text: Option<&String>, encoded: Option<&String>) -> Option<String> {
    text.cloned().or_else(|| encoded.map(|encoded| format!("(base64) {encoded}")))
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "(none)".to_owned())
}

fn header(header: &StoredHeader) -> String {
    let value = bytes(header.value.as_ref(), header.value_base64.as_ref()).unwrap_or_default();
    format!("  {}: {}", printable(&header.name), printable(&value))
}

fn audited(audit: &Audited) -> String {
    let Audited { at, actor, action, replay_id, detail } = audit;
    let replay = replay_id.map(|id| format!(" (replay {id})")).unwrap_or_default();
    let detail = printable(&detail.to_string());
    format!("  {} {action} by {}{replay} {detail}", time(Some(*at)), printable(actor))
}

fn indented(lines: Vec<String>) -> impl Iterator<Item = String> {
    lines.into_iter().map(|line| format!("  {line}"))
}
