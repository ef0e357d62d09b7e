//! The ledger file: JSON lines, only ever appended to, by one thread.
//!
//! The thread takes whatever has queued up since its last write and writes it with one `write(2)`
//! (and, if asked, one `sync_data`), so the cost of a write is shared by all who wait for it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::book::{Book, Entry};

/// Entries that may wait for the writer; more are refused, so a stalled disk can't fill the memory.
const QUEUE_ENTRIES_MAX: usize = 16_384;
/// Entries that go into one write, so that the first of them doesn't wait for an endless group.
const GROUP_ENTRIES_MAX: usize = 1_024;

/// Why a ledger file can't be used. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The file can't be created, read or written.
    #[error("cannot use the ledger {path}; name a writable file with --ledger", path = .path.display())]
    Io {
        /// The ledger file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another gateway has the file open.
    #[error("the ledger {path} is in use by another gateway; stop that one or name another file with --ledger", path = .path.display())]
    InUse {
        /// The ledger file.
        path: PathBuf,
    },
    /// A whole line of the file isn't an entry, or contradicts those before it. A line that was
    /// merely cut off by a crash is no error: it is removed.
    #[error("line {line} of the ledger {path} is damaged ({reason}); restore the file or move it away", path = .path.display())]
    Damaged {
        /// The ledger file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// A line to be written, and whom to tell.
pub(crate) struct Line {
    /// `None` writes nothing but is told in its turn: everything before it is in the file then.
    pub(crate) entry: Option<Entry>,
    pub(crate) written: oneshot::Sender<()>,
}

/// Resolves when the writer has ended: well, after every sender was dropped, or because of an error.
pub(crate) type WriterEnd = JoinHandle<io::Result<()>>;

/// Opens or creates the file, its owner's alone, locks it and reads it into a book.
///
/// # Errors
/// See [`OpenError`].
pub(crate) fn open(path: &Path) -> Result<(File, Book), OpenError> {
    let io_error = |source| OpenError::Io { path: path.to_owned(), source };
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(io_error)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::InUse { path: path.to_owned() },
        TryLockError::Error(error) => io_error(error),
    })?;
    let book = recover(&mut file, path)?;
    Ok((file, book))
}

/// Reads every line, and removes a last one that has no end.
fn recover(file: &mut File, path: &Path) -> Result<Book, OpenError> {
    let io_error = |source| OpenError::Io { path: path.to_owned(), source };
    let damaged = |line, reason: String| OpenError::Damaged { path: path.to_owned(), line, reason };
    let mut book = Book::default();
    let mut text = Vec::new();
    let mut whole_bytes = 0;
    let mut reader = BufReader::new(&mut *file);
    for line in 1.. {
        text.clear();
        let read = reader.read_until(b'\n', &mut text).map_err(io_error)?;
        if read == 0 {
            break;
        }
        if text.last() != Some(&b'\n') {
            // Its write was cut short, so nobody was told of it.
            tracing::warn!(line, bytes = read, "removing a last line that a crash cut off");
            break;
        }
        let entry: Entry = serde_json::from_slice(&text).map_err(|error| damaged(line, error.to_string()))?;
        book.apply(&entry).map_err(|error| damaged(line, error.to_string()))?;
        whole_bytes += read as u64;
    }
    file.set_len(whole_bytes).map_err(io_error)?;
    Ok(book)
}

/// Starts the writer on a thread of its own. It ends, and unlocks the file, when the last sender is dropped.
pub(crate) fn start_writer(file: File, fsync: bool) -> (SyncSender<Line>, WriterEnd) {
    let (sender, lines) = sync_channel(QUEUE_ENTRIES_MAX);
    (sender, spawn_blocking(move || write_all(file, &lines, fsync)))
}

/// Writes until the senders are gone. After an error nobody in the group is told, and the rest of
/// the queue is dropped: the gateway must not answer what its ledger doesn't hold.
fn write_all(mut file: File, lines: &Receiver<Line>, fsync: bool) -> io::Result<()> {
    let mut text = Vec::new();
    let mut group = Vec::new();
    while let Ok(first) = lines.recv() {
        text.clear();
        for line in std::iter::once(first).chain(lines.try_iter()).take(GROUP_ENTRIES_MAX) {
            if let Some(entry) = &line.entry {
                serde_json::to_writer(&mut text, entry)?;
                text.push(b'\n');
            }
            group.push(line.written);
        }
        if !text.is_empty() {
            file.write_all(&text)?;
            if fsync {
                file.sync_data()?;
            }
        }
        for written in group.drain(..) {
            // Whoever asked may have gone; the entry stands all the same.
            let _ = written.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_written_is_not_answered() {
        let full_disk = File::options().write(true).open("/dev/full").unwrap();
        let (lines, ended) = start_writer(full_disk, false);
        let (written, is_written) = oneshot::channel();
        let entry = Entry::Void { charge_id: "a".into(), at: Timestamp::UNIX_EPOCH };
        lines.send(Line { entry: Some(entry), written }).unwrap();
        assert!(is_written.await.is_err());
        let error = ended.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
