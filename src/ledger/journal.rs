//! The journal: the append-only log that all workers write what happened to, before it may matter to anybody.
//!
//! It is a row of segments, `journal-000001` and on; the last one is appended to. An append is one `write` to a file that
//! is open for appending, so the frames of several threads never mix, and what was written survives the death of the process
//! at once. It survives a power loss once it is synced: every second by the ledger's thread, or with each intent if that is
//! asked for.
//!
//! INVARIANTS: nothing is appended to a segment that is sealed (appends hold a lock for reading, rotation the same one for
//! writing; appends do not wait for each other or for a sync). After an append or a sync that failed, every later one
//! fails: what cannot be recorded must not be sent, and a sync that failed once may seem to succeed the second time.
//!
//! Limits: of a frame that could not be written whole, a part may stand in the file. Readers pass over it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::outcome::{Attempt, Via};
use super::record;
use crate::mail::{QueueId, RecipientNo, Status};

/// A journal that threads append to.
#[derive(Debug)]
pub struct Journal {
    segment: RwLock<Arc<File>>,
    /// Bytes in the segment.
    len: AtomicU64,
    /// Something was appended since the last sync began.
    is_unsynced: AtomicBool,
    is_broken: AtomicBool,
    is_closed: AtomicBool,
    sync_each: bool,
    /// Queues that were named while the run went on, by their numbers.
    names: Mutex<BTreeMap<QueueId, String>>,
}

impl Journal {
    /// A journal that appends to `segment`, which holds `len` bytes that may not be safe yet.
    pub(super) fn new(segment: File, len: u64, sync_each: bool) -> Journal {
        Journal {
            segment: RwLock::new(Arc::new(segment)),
            len: AtomicU64::new(len),
            is_unsynced: AtomicBool::new(len > 0),
            is_broken: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            sync_each,
            names: Mutex::default(),
        }
    }

    /// What is appended from now on is of a `queue` that is called `name`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn name_queue(&self, queue: QueueId, name: &str) -> io::Result<()> {
        let mut names = self.names();
        let mut frame = Vec::new();
        record::put_name(&mut frame, queue, name);
        names.insert(queue, name.to_owned());
        self.append(&frame)
    }

    /// The queues that were named so far. While this is held none is: who goes on in another segment holds it, so that the
    /// segment knows them all.
    pub(super) fn names(&self) -> MutexGuard<'_, BTreeMap<QueueId, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends whole frames with one `write`.
    ///
    /// # Errors
    /// If they cannot be written, all of them, or if that happened before.
    pub fn append(&self, frames: &[u8]) -> io::Result<()> {
        self.write(frames).map(|_| ())
    }

    /// True once something could not be written or synced.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(SeqCst)
    }

    /// True if something was appended that would not survive a loss of power yet.
    pub fn is_unsynced(&self) -> bool {
        self.is_unsynced.load(SeqCst)
    }

    /// Appends, and hands over the file that it went to.
    fn write(&self, frames: &[u8]) -> io::Result<Arc<File>> {
        let segment = self.segment.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_broken() || self.is_closed.load(SeqCst) {
            return Err(broken());
        }
        let written = loop {
            match (&**segment).write(frames) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match written {
            Ok(count) if count == frames.len() => {}
            Ok(_) => return self.break_for(io::ErrorKind::StorageFull.into()),
            Err(error) => return self.break_for(error),
        }
        self.len.fetch_add(frames.len() as u64, Relaxed);
        self.is_unsynced.store(true, SeqCst);
        Ok(Arc::clone(&segment))
    }

    /// Appends, and waits until it is safe from a power loss too if this journal is to do that with each intent.
    fn append_intent(&self, frames: &[u8]) -> io::Result<()> {
        let segment = self.write(frames)?;
        if self.sync_each {
            return self.sync_file(&segment);
        }
        Ok(())
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.is_broken() {
            return Err(broken());
        }
        file.sync_data().or_else(|error| self.break_for(error))
    }

    fn break_for<T>(&self, error: io::Error) -> io::Result<T> {
        self.is_broken.store(true, SeqCst);
        Err(error)
    }

    /// Makes everything that was appended safe from a power loss. Does nothing if nothing was.
    pub(super) fn sync(&self) -> io::Result<()> {
        if !self.is_unsynced.swap(false, SeqCst) {
            return Ok(());
        }
        let segment = Arc::clone(&self.segment.read().unwrap_or_else(PoisonError::into_inner));
        self.sync_file(&segment)
    }

    /// Bytes in the segment that is appended to.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Relaxed)
    }

    /// Goes on in `next`, which holds `len` bytes. Everything in the segment before is safe then.
    pub(super) fn rotate(&self, next: File, len: u64) -> io::Result<()> {
        let next = Arc::new(next);
        let mut segment = self.segment.write().unwrap_or_else(PoisonError::into_inner);
        let sealed = std::mem::replace(&mut *segment, next);
        self.len.store(len, Relaxed);
        self.is_unsynced.store(true, SeqCst);
        drop(segment);
        self.sync_file(&sealed)
    }

    /// Nothing can be appended from now on: the journal is about to be folded.
    pub(super) fn close(&self) {
        let _all_appends_are_over = self.segment.write().unwrap_or_else(PoisonError::into_inner);
        self.is_closed.store(true, SeqCst);
    }
}

fn broken() -> io::Error {
    io::Error::other("the journal cannot be written any more")
}

/// One thread's pen: it encodes into a buffer of its own and writes that with one `write`.
///
/// INVARIANT: whatever was put in is written in that order, at the latest when the writer is dropped.
#[derive(Debug)]
pub struct Writer {
    journal: Arc<Journal>,
    buffer: Vec<u8>,
}

impl Writer {
    /// A writer to `journal`.
    pub fn new(journal: Arc<Journal>) -> Writer {
        Writer {
            journal,
            buffer: Vec::with_capacity(1024),
        }
    }

    /// Notes what became of a recipient. It is written with the next intent, or by [`Writer::flush`].
    pub fn attempt(&mut self, attempt: &Attempt) {
        record::put_attempt(&mut self.buffer, attempt);
    }

    /// Notes that recipients stand at `status` from `at` on, without an attempt.
    pub fn left(&mut self, at: i64, status: Status, recipients: &[RecipientNo]) {
        record::put_left(&mut self.buffer, at, status, recipients);
    }

    /// Writes all that was noted, and that the last byte of a message may leave for `recipients` from now on.
    ///
    /// # Errors
    /// If it cannot be written: that byte must not leave then.
    pub fn intend(
        &mut self,
        at: i64,
        via: &Via,
        recipients: impl ExactSizeIterator<Item = RecipientNo>,
    ) -> io::Result<()> {
        record::put_intent(&mut self.buffer, at, via, recipients);
        let written = self.journal.append_intent(&self.buffer);
        self.buffer.clear();
        written
    }

    /// Writes what was noted, if anything was.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.journal.append(&self.buffer);
        self.buffer.clear();
        written
    }

    /// True if nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A failure breaks the journal, which the ledger's thread sees.
        let _ = self.flush();
    }
}

/// The file of segment `number`.
pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("journal-{number:06}"))
}

/// Makes segment `number`, of which there must be none yet, and has `fill` write its first frames. It gets its name once they
/// are there: a segment that does not say which run it belongs to is taken for one of a later run, by whoever looks at the job
/// just then.
pub(super) fn create_segment(
    directory: &Path,
    number: u64,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<File> {
    let path = segment_path(directory, number);
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let begun = path.with_extension("new");
    // What a crash left of an earlier try.
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(0o600);
    let mut file = options.open(&begun)?;
    let made = fill(&mut file).and_then(|()| std::fs::rename(&begun, &path));
    if let Err(error) = made {
        let _ = std::fs::remove_file(&begun);
        return Err(error);
    }
    Ok(file)
}

/// The numbers of the segments that are there, in order.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("journal-"));
        let is_plain =
            |digits: &&str| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit());
        numbers.extend(
            digits
                .filter(is_plain)
                .and_then(|digits| digits.parse::<u64>().ok()),
        );
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}
