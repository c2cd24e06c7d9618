//! The addresses of a batch, as intake understood them: one text behind the other in a file, unlinked or of the job's directory.
//!
//! Batch files may change while they are sent. A report must still name who did not get the mail, and a transaction of a
//! message to very many must not read megabytes of header for fifty addresses: so neither reads the batch file, but this one.
//! Intake appends to a block in memory; a full block is sealed and written, and stays readable until it is on file. A small
//! batch without a job never touches the disk. With one, [`AddressSpool::flush`] writes what is there, and gives the digest
//! of all that came since the last: the index keeps it, so that texts that were spoiled on the disk are never taken for addresses.
//!
//! INVARIANTS: what was appended can be read at once, by any thread; the lock is never held over I/O. After a failed write the
//! sealed block stays in memory, so that all that was appended can still be read. Only intake appends and flushes.
//!
//! Memory: two blocks. Disk: about 25 bytes per recipient.

use super::ahead::Ahead;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use xxhash_rust::xxh3::Xxh3Default;

/// A block is sealed once it has so many bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// A file of texts that is appended to by one thread and read by all.
#[derive(Debug)]
pub(super) struct AddressSpool {
    /// Where a nameless file is made.
    dir: PathBuf,
    file: OnceLock<File>,
    blocks: Mutex<Blocks>,
}

/// What is not on file yet.
#[derive(Debug, Default)]
struct Blocks {
    /// Where the sealed block begins; all before it is on file.
    written: u64,
    /// The block there, which is being written; empty if none is.
    sealed: Arc<Vec<u8>>,
    /// The block behind that one.
    open: Vec<u8>,
    /// How far the blocks are on file already.
    on_file: u64,
    /// What was appended since the last flush that counted. `None` without a job.
    sum: Option<Sum>,
}

/// A running digest.
struct Sum(Box<Xxh3Default>);

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0.digest())
    }
}

impl Blocks {
    /// Where the open block begins.
    fn open_at(&self) -> u64 {
        self.written + self.sealed.len() as u64
    }

    /// Where the next text goes.
    fn end(&self) -> u64 {
        self.open_at() + self.open.len() as u64
    }

    /// What is held at `at`. A text never reaches from one block into the next.
    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        let (block, start) = match at.checked_sub(self.open_at()) {
            Some(start) => (&self.open, start),
            None => (&*self.sealed, at.checked_sub(self.written)?),
        };
        block.get(start as usize..)?.get(..len)
    }

    /// The sealed block is on file.
    fn let_go(&mut self) {
        self.written = self.open_at();
        self.sealed = Arc::default();
        self.on_file = self.on_file.max(self.written);
    }
}

impl AddressSpool {
    /// An empty one; its file will be in `dir`, without a name, once there is need of it.
    pub(super) fn new(dir: PathBuf) -> AddressSpool {
        AddressSpool {
            dir,
            file: OnceLock::new(),
            blocks: Mutex::default(),
        }
    }

    /// One of a job, of whose `file` the first `end` bytes are good.
    pub(super) fn of_job(file: File, end: u64) -> AddressSpool {
        AddressSpool {
            dir: PathBuf::new(),
            file: OnceLock::from(file),
            blocks: Mutex::new(Blocks {
                written: end,
                on_file: end,
                sum: Some(Sum(Box::default())),
                ..Blocks::default()
            }),
        }
    }

    /// Appends a text and tells where it is.
    pub(super) fn append(&self, text: &[u8]) -> io::Result<u64> {
        let mut blocks = self.lock();
        let at = blocks.end();
        blocks.open.extend_from_slice(text);
        if let Some(sum) = &mut blocks.sum {
            sum.0.update(text);
        }
        if blocks.open.len() < BLOCK_BYTES || !blocks.sealed.is_empty() {
            return Ok(at);
        }
        let room = Vec::with_capacity(BLOCK_BYTES + text.len());
        let sealed = std::mem::replace(&mut blocks.open, room);
        blocks.sealed = Arc::new(sealed);
        drop(blocks);
        self.write_sealed()?;
        Ok(at)
    }

    /// Writes what is still to be written of the sealed block.
    fn write_sealed(&self) -> io::Result<()> {
        let blocks = self.lock();
        let (sealed, on_file) = (Arc::clone(&blocks.sealed), blocks.on_file);
        let skip = on_file.saturating_sub(blocks.written) as usize;
        drop(blocks);
        if let Some(rest) = sealed.get(skip..) {
            self.file()?.write_all_at(rest, on_file)?;
        }
        self.lock().let_go();
        Ok(())
    }

    /// Writes all that was appended, but does not sync it. Gives where it ends, and the digest of what came since the last
    /// [`AddressSpool::flushed`]. `scratch` is used and left empty.
    pub(super) fn flush(&self, scratch: &mut Vec<u8>) -> io::Result<(u64, u64)> {
        self.write_sealed()?;
        let blocks = self.lock();
        let skip = (blocks.on_file - blocks.open_at()) as usize;
        scratch.clear();
        scratch.extend_from_slice(blocks.open.get(skip..).unwrap_or_default());
        let (on_file, end) = (blocks.on_file, blocks.end());
        let sum = blocks.sum.as_ref().map_or(0, |sum| sum.0.digest());
        drop(blocks);
        if !scratch.is_empty() {
            self.file()?.write_all_at(scratch, on_file)?;
            self.lock().on_file = end;
        }
        scratch.clear();
        Ok((end, sum))
    }

    /// What the last flush gave is in the index: the next digest begins behind it.
    pub(super) fn flushed(&self) {
        if let Some(sum) = &mut self.lock().sum {
            sum.0.reset();
        }
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.get().map_or(Ok(()), File::sync_data)
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

    /// The same for one who reads on: `ahead` has read more than what was asked for.
    pub(super) fn read_on<'a>(
        &self,
        at: u64,
        len: usize,
        ahead: &'a mut Ahead,
    ) -> io::Result<&'a [u8]> {
        let blocks = self.lock();
        if let Some(held) = blocks.get(at, len) {
            return Ok(ahead.hold(held));
        }
        let written = blocks.written;
        drop(blocks);
        let file = self.file.get().ok_or(io::ErrorKind::UnexpectedEof)?;
        ahead.read(file, at, len, written)
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
    fn a_flush_writes_what_is_there_and_tells_its_digest() {
        let file = tempfile::tempfile().unwrap();
        let spool = AddressSpool::of_job(file.try_clone().unwrap(), 7);
        let (mut all, mut since, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..9_000 {
            let at = spool.append(text(n).as_bytes()).unwrap();
            assert_eq!(at, 7 + all.len() as u64);
            all.extend_from_slice(text(n).as_bytes());
            since.extend_from_slice(text(n).as_bytes());
            if n % 97 == 0 || n == 8_999 {
                let (end, sum) = spool.flush(&mut scratch).unwrap();
                assert_eq!(end, 7 + all.len() as u64);
                assert_eq!(sum, xxhash_rust::xxh3::xxh3_64(&since));
                if n % 2 == 0 {
                    spool.flushed();
                    since.clear();
                }
                let mut on_file = vec![0; all.len()];
                file.read_exact_at(&mut on_file, 7).unwrap();
                assert_eq!(on_file, all);
                assert_eq!(file.metadata().unwrap().len(), end);
            }
            assert_reads(&spool, at, n);
        }
        let (mut at, mut ahead) = (7, Ahead::default());
        for n in 0..9_000 {
            let want = text(n);
            let got = spool.read_on(at, want.len(), &mut ahead).unwrap();
            assert_eq!(got, want.as_bytes());
            at += want.len() as u64;
        }
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
