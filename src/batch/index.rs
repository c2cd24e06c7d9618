//! The index of a job: the tables of its batch on file, so that they outlive the process.
//!
//! One frame (see `frame`) for each source, for each list of `--to-file`, and for all messages of a flush with their recipients;
//! the latter also says where the addresses of these recipients end in their file, and the digest of those texts. Messages that
//! were kept get new places by a frame of their own. `reopen` reads it all back.
//!
//! Intake flushes what it read *before* it hands it on: whoever has got mail can be named after a crash. A flush is a write(2) of
//! addresses and one of frames; nothing waits for the disk, [`Index::sync`] does that, in another thread.
//!
//! INVARIANTS: what a frame refers to is in the files before the frame is. A write that failed is written again at the same
//! place by the next flush, over what was left of it. A sync that failed is never tried again: nothing more can be written.
//! The lock is held while frames are written, since their order matters: intake and the end of a run are all that ask for it.

use super::frame::{push_frame, push_text};
use super::record::MessageRecord;
use super::source::{Location, Place, Source};
use super::store::BatchStore;
use super::to_file::ToFile;
use crate::mbox::MboxFlavour;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The file of frames, in the job's directory.
pub(super) const INDEX: &str = "index";
/// The texts of the addresses.
pub(super) const ADDRESSES: &str = "addresses";
/// Messages that were kept.
pub(super) const KEPT: &str = "content";

/// The first frame, which says what the file is.
pub(super) const START: u8 = 1;
/// A source; one with the number of an earlier one says where that was found later.
pub(super) const SOURCE: u8 = 2;
/// A list of `--to-file`.
pub(super) const TO_FILE: u8 = 3;
/// Messages and their recipients.
pub(super) const MESSAGES: u8 = 4;
/// All inputs were read to their end.
pub(super) const END: u8 = 5;
/// New places of messages.
pub(super) const MOVED: u8 = 6;
pub(super) const START_TEXT: &[u8] = b"index of a batch of mail";

/// Flags of [`MESSAGES`]: each recipient has a key; the batch ends with these.
pub(super) const HAS_KEYS: u32 = 1;
pub(super) const IS_END: u32 = 2;

/// The index while it is written.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) dir: PathBuf,
    file: File,
    written: Mutex<Written>,
    is_broken: AtomicBool,
    /// Files have been made since the directory was synced.
    has_new_files: AtomicBool,
    pub(super) known: Known,
}

/// What a reopened index held.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) is_reopened: bool,
    pub(super) sources: usize,
    pub(super) messages: usize,
    /// The keys of all recipients of a job with a name; the reader takes them.
    pub(super) keys: Mutex<Vec<u128>>,
    /// Bytes of the index that were cut off.
    pub(super) cut: u64,
}

/// How much of the tables is in the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Where the next frame goes.
    pub(super) at: u64,
    pub(super) sources: usize,
    pub(super) to_files: usize,
    pub(super) messages: usize,
    pub(super) recipients: usize,
    pub(super) is_ended: bool,
}

#[derive(Debug, Default)]
struct Written {
    progress: Progress,
    /// Keys of recipients that are not in the file yet.
    keys: Vec<u128>,
    /// Buffers.
    frames: Vec<u8>,
    texts: Vec<u8>,
}

/// A message and where it was moved to: a source and an offset there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) message: u32,
    pub(super) source: u32,
    pub(super) offset: u64,
}

impl Index {
    /// An index in `file`, which holds what `progress` and `known` say.
    pub(super) fn new(dir: &Path, file: File, progress: Progress, known: Known) -> Index {
        Index {
            dir: dir.to_owned(),
            file,
            written: Mutex::new(Written {
                progress,
                ..Written::default()
            }),
            is_broken: AtomicBool::new(false),
            has_new_files: AtomicBool::new(true),
            known,
        }
    }

    /// Writes the first frame into an empty file.
    pub(super) fn begin(&self) -> io::Result<()> {
        self.append(|_, frames| push_frame(frames, START, |out| out.extend_from_slice(START_TEXT)))
    }

    /// Remembers the key of the recipient that was admitted last.
    pub(super) fn push_key(&self, key: u128) {
        self.lock().keys.push(key);
    }

    /// The keys of all recipients that a job with a name had when it was reopened; once.
    pub(super) fn take_keys(&self) -> Vec<u128> {
        let keys = self.known.keys.lock();
        std::mem::take(&mut *keys.unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes all of `store` that is not in the file.
    pub(super) fn flush(&self, store: &BatchStore) -> io::Result<()> {
        self.check()?;
        let mut written = self.lock();
        let mut next = written.progress;
        next.is_ended = store.is_read_to_end();
        next.messages = store.messages.count();
        let before = written.progress;
        let has_messages = next.messages > before.messages;
        if !has_messages
            && next.is_ended == before.is_ended
            && store.sources.count() == before.sources
        {
            return Ok(());
        }
        let addresses = if has_messages {
            store.addresses.flush(&mut written.texts)?
        } else {
            (0, 0)
        };
        let Written { frames, keys, .. } = &mut *written;
        frames.clear();
        push_sources(frames, store, &mut next)?;
        push_to_files(frames, store, &mut next)?;
        if has_messages {
            next.recipients = store.recipient_count();
            push_messages(frames, store, keys, (&before, &next), addresses)?;
        } else if next.is_ended {
            push_frame(frames, END, |_| ())?;
        }
        self.file.write_all_at(frames, before.at)?;
        next.at += frames.len() as u64;
        let new_keys = (next.recipients - before.recipients).min(keys.len());
        keys.drain(..new_keys);
        written.progress = next;
        written.frames.shrink_to(1 << 20);
        if has_messages {
            store.addresses.flushed();
        }
        Ok(())
    }

    /// Appends the frames that `fill` makes.
    fn append(
        &self,
        fill: impl FnOnce(&mut Progress, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.check()?;
        let mut written = self.lock();
        let mut next = written.progress;
        written.frames.clear();
        fill(&mut next, &mut written.frames)?;
        self.file.write_all_at(&written.frames, next.at)?;
        next.at += written.frames.len() as u64;
        written.progress = next;
        Ok(())
    }

    /// Writes where a known source was found.
    pub(super) fn write_found(
        &self,
        number: usize,
        source: &Source,
        location: &Location,
    ) -> io::Result<()> {
        self.append(|_, frames| push_source(frames, number, source, location))
    }

    /// Writes new places of messages, and the sources that they are in.
    pub(super) fn write_moved(&self, store: &BatchStore, moved: &[Moved]) -> io::Result<()> {
        self.append(|next, frames| {
            push_sources(frames, store, next)?;
            push_frame(frames, MOVED, |out| {
                for moved in moved {
                    out.extend_from_slice(&moved.message.to_le_bytes());
                    out.extend_from_slice(&moved.source.to_le_bytes());
                    out.extend_from_slice(&moved.offset.to_le_bytes());
                }
            })
        })
    }

    /// Makes an empty file in the job's directory; one that a crash left there, and that nothing refers to, makes way.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let path = self.dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.has_new_files.store(true, Ordering::Relaxed);
        create_new(&path)
    }

    /// The file of messages that were kept: made if it is not there.
    pub(super) fn open_kept(&self) -> io::Result<File> {
        self.has_new_files.store(true, Ordering::Relaxed);
        open_kept(&self.dir)
    }

    /// Waits until all that was written is on the disk.
    pub(super) fn sync(&self, store: &BatchStore) -> io::Result<()> {
        self.check()?;
        self.sync_files(store).inspect_err(|_| self.break_off())
    }

    fn sync_files(&self, store: &BatchStore) -> io::Result<()> {
        for (_, source) in &store.sources {
            if let Place::Spool(file) | Place::Kept(file) = &source.location.place {
                file.sync_data()?;
            }
        }
        for (_, to_file) in &store.to_files {
            to_file.spool.file.sync_data()?;
        }
        store.addresses.sync()?;
        self.file.sync_data()?;
        if self.has_new_files.swap(false, Ordering::Relaxed) {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// A sync failed: what is on the disk is not known any more.
    pub(super) fn break_off(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "an earlier sync of the job's files failed",
            ));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // Progress is set only after its bytes are written, so a panic elsewhere spoils nothing.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For our eyes only, and never what a symbolic link leads to.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
}

/// The file of messages that were kept: made if it is not there.
pub(super) fn open_kept(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    private(options.read(true).write(true).create(true)).open(dir.join(KEPT))
}

/// What `open` gives for `path`; `None` if that is not there, and only then: want of descriptors or of permission is no damage.
pub(super) fn if_there<T>(
    path: &Path,
    open: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<Option<T>> {
    match open(path) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(told(path, &error)),
    }
}

/// The error with the name of its file.
pub(super) fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Opens a file of the job by its name, which must be one.
pub(super) fn open_spool(dir: &Path, name: &Path) -> io::Result<File> {
    if name.file_name() != Some(name.as_os_str()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    private(OpenOptions::new().read(true)).open(dir.join(name))
}

/// Makes a file that must not be there.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).write(true).create_new(true)).open(path)
}

/// The sources that are not in the file.
fn push_sources(frames: &mut Vec<u8>, store: &BatchStore, next: &mut Progress) -> io::Result<()> {
    while let Some(source) = store.sources.get(next.sources) {
        push_source(frames, next.sources, source, &source.location)?;
        next.sources += 1;
    }
    Ok(())
}

fn push_source(
    frames: &mut Vec<u8>,
    number: usize,
    source: &Source,
    location: &Location,
) -> io::Result<()> {
    let place: u8 = match location.place {
        Place::Open(_) | Place::Closed => 0,
        Place::Maildir(_) => 1,
        Place::Spool(_) => 2,
        Place::Kept(_) => 3,
    };
    let flavour: u8 = match source.flavour {
        None => 0,
        Some(MboxFlavour::Rd) => 1,
        Some(MboxFlavour::O) => 2,
        Some(MboxFlavour::Cl2) => 3,
    };
    push_frame(frames, SOURCE, |out| {
        out.extend_from_slice(&(number as u32).to_le_bytes());
        out.extend_from_slice(&[place, flavour]);
        push_text(out, source.name.as_bytes());
        push_text(out, location.path.as_os_str().as_bytes());
        if let Place::Maildir(files) = &location.place {
            for file in &files.names {
                push_text(out, file.as_bytes());
            }
        }
    })
}

/// The lists of recipients that are not in the file.
fn push_to_files(frames: &mut Vec<u8>, store: &BatchStore, next: &mut Progress) -> io::Result<()> {
    while let Some(ToFile {
        name,
        spool,
        message,
    }) = store.to_files.get(next.to_files)
    {
        push_frame(frames, TO_FILE, |out| {
            out.extend_from_slice(&message.to_le_bytes());
            out.extend_from_slice(&spool.len.to_le_bytes());
            out.extend_from_slice(&spool.hash.to_le_bytes());
            push_text(out, name.as_bytes());
            push_text(out, spool.path.as_os_str().as_bytes());
        })?;
        next.to_files += 1;
    }
    Ok(())
}

/// The messages between two states of progress, with their recipients.
fn push_messages(
    frames: &mut Vec<u8>,
    store: &BatchStore,
    keys: &[u128],
    (from, to): (&Progress, &Progress),
    (addresses_end, addresses_hash): (u64, u64),
) -> io::Result<()> {
    let recipients = to.recipients - from.recipients;
    let keys = keys.get(..recipients).unwrap_or_default();
    let mut flags = 0;
    if !keys.is_empty() {
        flags |= HAS_KEYS;
    }
    if to.is_ended {
        flags |= IS_END;
    }
    push_frame(frames, MESSAGES, |out| {
        for number in [from.messages, from.recipients] {
            out.extend_from_slice(&(number as u32).to_le_bytes());
        }
        for number in [to.messages - from.messages, recipients] {
            out.extend_from_slice(&(number as u32).to_le_bytes());
        }
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&addresses_end.to_le_bytes());
        out.extend_from_slice(&addresses_hash.to_le_bytes());
        let records = (from.messages..to.messages).filter_map(|n| store.messages.get(n));
        records.for_each(|record: &MessageRecord| out.extend_from_slice(&record.to_bytes()));
        let records = (from.recipients..to.recipients).filter_map(|n| store.recipients.get(n));
        records.for_each(|record| out.extend_from_slice(&record.to_bytes()));
        keys.iter()
            .for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
    })
}

#[cfg(test)]
mod tests;
