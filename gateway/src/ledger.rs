//! The ledger: the book in memory and its file, kept in step.

use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::book::{Book, Decision, Refusal};
use crate::journal::{self, Line, OpenError, WriterEnd};

/// Why the ledger gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("too many requests wait for the ledger to be written")]
    Overloaded,
    /// Stopped, or an entry could not be written. Whether the request had an effect is unknown.
    #[error("the ledger is closed")]
    Closed,
}

/// Every answer is given only after what it says is in the file, so a killed process takes back
/// nothing it has said. Without `fsync` that means handed to the operating system: a power cut may
/// still lose the last entries.
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
}

struct Inner {
    book: Book,
    /// `None` once closed.
    lines: Option<SyncSender<Line>>,
}

impl Ledger {
    /// Reads the file and starts its writer.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(path: &Path, fsync: bool) -> Result<(Self, WriterEnd), OpenError> {
        let (file, book) = journal::open(path)?;
        tracing::info!(charges = book.len(), "read the ledger");
        let (lines, ended) = journal::start_writer(file, fsync);
        let inner = Mutex::new(Inner { book, lines: Some(lines) });
        Ok((Self { inner }, ended))
    }

    /// Decides by the book, takes the entry into it and returns when the entry is in the file.
    ///
    /// Dropping the future takes nothing back. A decision without an entry waits as well: it rests
    /// on entries that may still be on their way to the file.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub(crate) async fn transact<A>(
        &self,
        decide: impl FnOnce(&Book) -> Result<Decision<A>, Refusal>,
    ) -> Result<Decision<A>, LedgerError> {
        let (decision, written) = self.lock().take(decide)?;
        written.await.map_err(|_| LedgerError::Closed)?;
        Ok(decision)
    }

    /// Reads the book; what it says is in the file.
    ///
    /// # Errors
    /// See [`LedgerError`]; never refused.
    pub(crate) async fn read<A>(&self, look: impl FnOnce(&Book) -> A) -> Result<A, LedgerError> {
        let decide = |book: &Book| Ok(Decision { entry: None, answer: look(book) });
        Ok(self.transact(decide).await?.answer)
    }

    /// Takes no more entries, so that the writer ends after those it has.
    pub(crate) fn close(&self) {
        self.lock().lines = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The book is changed in `Book::apply` only, which doesn't panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Queues the line before the book changes: if there is no room, nothing has happened. Both are
    /// done under one lock, so the file has the entries in the order in which the book took them.
    fn take<A>(
        &mut self,
        decide: impl FnOnce(&Book) -> Result<Decision<A>, Refusal>,
    ) -> Result<(Decision<A>, oneshot::Receiver<()>), LedgerError> {
        let decision = decide(&self.book)?;
        let (written, is_written) = oneshot::channel();
        let line = Line { entry: decision.entry.clone(), written };
        let lines = self.lines.as_ref().ok_or(LedgerError::Closed)?;
        lines.try_send(line).map_err(|error| match error {
            TrySendError::Full(_) => LedgerError::Overloaded,
            TrySendError::Disconnected(_) => LedgerError::Closed,
        })?;
        if let Some(entry) = &decision.entry
            && let Err(error) = self.book.apply(entry)
        {
            tracing::error!(%error, ?entry, "bug: a decision does not fit the book it was made by");
            self.lines = None;
            return Err(LedgerError::Closed);
        }
        Ok((decision, is_written))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;

    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::book::{ChargeOrder, ChargeStatus, Method, RefundOrder, Verdict};

    struct Place {
        path: PathBuf,
        _dir: TempDir,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        Place { path: dir.path().join("ledger.jsonl"), _dir: dir }
    }

    async fn charge(ledger: &Ledger, id: &str) -> ChargeStatus {
        let order = ChargeOrder {
            charge_id: id.into(),
            reference: "order".into(),
            amount: 100,
            method: Method::BankTransfer,
        };
        let decision = ledger.transact(|book| book.charge(&order, Verdict::Approve, Timestamp::now())).await;
        decision.unwrap().answer.status
    }

    async fn void(ledger: &Ledger, id: &str) {
        let decide = |book: &Book| Ok(book.void(&id.into(), Timestamp::now()));
        ledger.transact(decide).await.unwrap();
    }

    async fn close(ledger: Ledger, ended: WriterEnd) {
        ledger.close();
        ended.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_restart_finds_charges_refunds_and_voids_as_they_were() {
        let place = place();
        let (ledger, ended) = Ledger::open(&place.path, true).unwrap();
        for id in ["a", "b"] {
            charge(&ledger, id).await;
        }
        let refund = RefundOrder { charge_id: "a".into(), refund_id: "r".into(), amount: 40 };
        let decide = |book: &Book| book.refund(&refund, Timestamp::now());
        ledger.transact(decide).await.unwrap();
        void(&ledger, "b").await;
        void(&ledger, "still on its way").await;
        let look = |book: &Book| book.page(0, 10).to_vec();
        let before = ledger.read(look).await.unwrap();
        close(ledger, ended).await;

        let (ledger, _ended) = Ledger::open(&place.path, false).unwrap();
        assert_eq!(ledger.read(look).await.unwrap(), before);
        assert_eq!(before[0].refunded, 40);
        assert_eq!(before[1].status, ChargeStatus::Voided);
        let decide = |book: &Book| book.refund(&refund, Timestamp::now());
        assert!(ledger.transact(decide).await.unwrap().entry.is_none());
        let late = charge(&ledger, "still on its way").await;
        assert_eq!(late, ChargeStatus::Voided);
    }

    #[tokio::test]
    async fn the_file_is_its_owners_alone() {
        let place = place();
        let (_ledger, _ended) = Ledger::open(&place.path, false).unwrap();
        assert_eq!(fs::metadata(&place.path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn an_answered_charge_is_in_the_file_before_the_ledger_is_closed() {
        let place = place();
        let (ledger, _ended) = Ledger::open(&place.path, false).unwrap();
        charge(&ledger, "a").await;
        let text = fs::read_to_string(&place.path).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.ends_with('\n') && text.contains(r#""charge_id":"a""#));
    }

    #[tokio::test]
    async fn a_line_that_a_crash_cut_off_is_removed_and_the_ledger_goes_on() {
        let place = place();
        let (ledger, ended) = Ledger::open(&place.path, false).unwrap();
        charge(&ledger, "a").await;
        charge(&ledger, "b").await;
        close(ledger, ended).await;
        let whole = fs::read(&place.path).unwrap();
        let first_end = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;

        // Even a line that lacks only its end was never answered.
        for cut in [first_end + 1, whole.len() - 1] {
            fs::write(&place.path, &whole[..cut]).unwrap();
            let (ledger, ended) = Ledger::open(&place.path, false).unwrap();
            assert_eq!(fs::read(&place.path).unwrap(), whole[..first_end]);
            assert_eq!(ledger.read(Book::len).await.unwrap(), 1);
            charge(&ledger, "c").await;
            close(ledger, ended).await;

            let (ledger, ended) = Ledger::open(&place.path, false).unwrap();
            assert_eq!(ledger.read(Book::len).await.unwrap(), 2);
            close(ledger, ended).await;
        }
    }

    #[tokio::test]
    async fn a_damaged_line_is_named_and_nothing_is_removed() {
        let place = place();
        let text = "{\"entry\":\"void\",\"charge_id\":\"a\",\"at\":\"2026-01-01T00:00:00Z\"}\nrubbish\n";
        fs::write(&place.path, text).unwrap();
        let error = Ledger::open(&place.path, false).err().unwrap();
        assert!(matches!(error, OpenError::Damaged { line: 2, .. }), "{error}");
        assert_eq!(fs::read_to_string(&place.path).unwrap(), text);
    }

    #[tokio::test]
    async fn a_second_gateway_is_kept_from_the_file_until_the_first_has_closed_it() {
        let place = place();
        let (ledger, ended) = Ledger::open(&place.path, false).unwrap();
        let error = Ledger::open(&place.path, false).err().unwrap();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        close(ledger, ended).await;
        assert!(Ledger::open(&place.path, false).is_ok());
    }

    #[tokio::test]
    async fn a_closed_ledger_answers_nothing() {
        let place = place();
        let (ledger, ended) = Ledger::open(&place.path, false).unwrap();
        ledger.close();
        ended.await.unwrap().unwrap();
        assert!(matches!(ledger.read(Book::len).await, Err(LedgerError::Closed)));
    }

    #[tokio::test]
    async fn charges_at_the_same_time_are_written_once_each() {
        let place = place();
        let (ledger, ended) = Ledger::open(&place.path, false).unwrap();
        let ledger = std::sync::Arc::new(ledger);
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..400 {
            let ledger = ledger.clone();
            tasks.spawn(async move { charge(&ledger, &format!("c{}", task / 4)).await });
        }
        while let Some(status) = tasks.join_next().await {
            assert_eq!(status.unwrap(), ChargeStatus::Approved);
        }
        ledger.close();
        ended.await.unwrap().unwrap();
        assert_eq!(fs::read_to_string(&place.path).unwrap().lines().count(), 100);
        let (again, _ended) = Ledger::open(&place.path, false).unwrap();
        assert_eq!(again.read(Book::len).await.unwrap(), 100);
    }
}
