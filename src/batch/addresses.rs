//! The addresses of a batch, as intake understood them: one text behind the other in an unlinked file.
//!
//! Batch files may change while they are sent. A report must still name who did not get the mail, and a transaction of a
//! message to very many must not read megabytes of header for fifty addresses: so neither reads the batch file, but this one.
//! Intake appends to a block in memory; a full block is sealed and written, and stays readable until it is on file. A small
//! batch never touches the disk.
//!
//! INVARIANTS: what was appended can be read at once, by any thread; the lock is never held over I/O. After a failed write the
//! sealed block stays in memory, so that all that was appended can still be read.
//!
//! Memory: two blocks. Disk: about 25 bytes per recipient.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A block is sealed once it has so many bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// A file of texts that is appended to by one thread and read by all.
#[derive(Debug)]
pub(super) struct AddressSpool {
    dir: PathBuf,
    file: OnceLock<File>,
    blocks: Mutex<Blocks>,
}

/// What is not on file yet.
#[derive(Debug, Default)]
struct Blocks {
    /// The bytes on file.
    written: u64,
    /// The block behind them, which is being written; empty if none is.
    sealed: Arc<Vec<u8>>,
    /// The block behind that one.
    open: Vec<u8>,
}

impl Blocks {
    /// Where the open block begins.
    fn open_at(&self) -> u64 {
        self.written + self.sealed.len() as u64
    }

    /// What is held at `at`. A text never reaches from one block into the next.
    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        let (block, start) = match at.checked_sub(self.open_at()) {
            Some(start) => (&self.open, start),
            None => (&*self.sealed, at.checked_sub(self.written)?),
        };
        block.get(start as usize..)?.get(..len)
    }
}

impl AddressSpool {
    /// An empty one; its file will be in `dir`, once there is need of it.
    pub(super) fn new(dir: PathBuf) -> AddressSpool {
        AddressSpool {
            dir,
            file: OnceLock::new(),
            blocks: Mutex::default(),
        }
    }

    /// Appends a text and tells where it is.
    pub(super) fn append(&self, text: &[u8]) -> io::Result<u64> {
        let mut blocks = self.lock();
        let at = blocks.open_at() + blocks.open.len() as u64;
        blocks.open.extend_from_slice(text);
        if blocks.open.len() < BLOCK_BYTES || !blocks.sealed.is_empty() {
            return Ok(at);
        }
        let room = Vec::with_capacity(BLOCK_BYTES + text.len());
        let sealed = Arc::new(std::mem::replace(&mut blocks.open, room));
        blocks.sealed = Arc::clone(&sealed);
        let written = blocks.written;
        drop(blocks);
        self.file()?.write_all_at(&sealed, written)?;
        let mut blocks = self.lock();
        blocks.written += sealed.len() as u64;
        blocks.sealed = Arc::default();
        Ok(at)
    }

    /// Reads the text at `at`, as long as `text`.
    pub(super) fn read(&self, at: u64, text: &mut [u8]) -> io::Result<()> {
        let blocks = self.lock();
        if let Some(held) = blocks.get(at, text.len()) {
            text.copy_from_slice(held);
            return Ok(());
        }
        drop(blocks);
        let file = self.file.get().ok_or(io::ErrorKind::UnexpectedEof)?;
        file.read_exact_at(text, at)
    }

    fn file(&self) -> io::Result<&File> {
        if self.file.get().is_none() {
            let _ = self.file.set(tempfile::tempfile_in(&self.dir)?);
        }
        self.file
            .get()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        // Blocks are whole at every step, so a panic elsewhere spoils nothing.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: usize) -> String {
        format!("recipient-{n}@domain-{n}.test")
    }

    fn assert_reads(spool: &AddressSpool, at: u64, n: usize) {
        let want = text(n);
        let mut got = vec![0; want.len()];
        spool.read(at, &mut got).unwrap();
        assert_eq!(got, want.as_bytes(), "number {n} at {at}");
    }

    #[test]
    fn each_text_is_there_at_once_and_ever_after() {
        let dir = tempfile::tempdir().unwrap();
        let spool = AddressSpool::new(dir.path().to_path_buf());
        let mut places = Vec::new();
        for n in 0..10_000 {
            places.push(spool.append(text(n).as_bytes()).unwrap());
            assert_reads(&spool, places[n], n);
        }
        assert!(
            spool.lock().written > 2 * BLOCK_BYTES as u64,
            "it was written"
        );
        for (n, &at) in places.iter().enumerate() {
            assert_reads(&spool, at, n);
        }
        let end = places[9_999] + text(9_999).len() as u64;
        assert!(spool.read(end - 1, &mut [0; 2]).is_err());
    }

    #[test]
    fn readers_see_what_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let spool = AddressSpool::new(dir.path().to_path_buf());
        let (told, places) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let spool = &spool;
            scope.spawn(move || {
                for (n, at) in places.into_iter().enumerate() {
                    assert_reads(spool, at, n);
                }
            });
            for n in 0..20_000 {
                told.send(spool.append(text(n).as_bytes()).unwrap())
                    .unwrap();
            }
            drop(told);
        });
    }

    #[test]
    fn a_write_that_fails_loses_nothing() {
        let spool = AddressSpool::new("/dev/null/none".into());
        let (mut places, mut failed) = (Vec::new(), false);
        for n in 0..4000 {
            match spool.append(text(n).as_bytes()) {
                Ok(at) => places.push((n, at)),
                Err(_) => failed = true,
            }
        }
        assert!(failed);
        for (n, at) in places {
            assert_reads(&spool, at, n);
        }
    }
}
