//! What a run leaves unsettled is copied to the job's directory, so that the batch file may be overwritten.
//!
//! First the bytes, synced, then the frames that say where they are now: a crash between leaves messages where they were.
//!
//! INVARIANT: what is kept is what intake read; the hash of each message is checked before it is copied, and again when it is
//! loaded. Memory: the largest message, and 16 bytes for each of [`MOVED_MAX`].

use super::index::{Index, KEPT, Moved};
use super::record::SOURCES_MAX;
use super::source::{Location, Place, Source};
use super::store::BatchStore;
use crate::mail::MessageNo;
use crate::mbox::MboxFlavour;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// After so many messages the frames are written, and it begins anew.
const MOVED_MAX: usize = 1 << 16;
/// Copied bytes are written in pieces of this size.
const PIECE_BYTES: usize = 256 * 1024;

/// What [`BatchStore::keep`] has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// The bytes copied.
    pub bytes: u64,
    /// How many messages could not be read now, and may be another time. They are where they were, if anywhere.
    pub unreadable: u64,
}

/// See [`BatchStore::keep`].
pub(super) fn keep(
    store: &BatchStore,
    index: &Index,
    messages: impl Iterator<Item = MessageNo>,
) -> io::Result<Kept> {
    let mut keeping: Option<Keeping<'_>> = None;
    let mut raw = Vec::new();
    let mut kept = Kept::default();
    for message in messages {
        if !is_wanted(store, message) {
            continue;
        }
        let Some(record) = store.message(message) else {
            continue;
        };
        // What cannot be read now may be read later, from where it is; what has changed is lost.
        if let Err(error) = store.read_raw(record, &mut raw) {
            kept.unreadable += u64::from(error.may_pass());
            continue;
        }
        let keeping = match &mut keeping {
            Some(keeping) => keeping,
            none => none.insert(Keeping::begin(store, index)?),
        };
        keeping.add(message, &raw)?;
        kept.bytes += raw.len() as u64;
    }
    if let Some(mut keeping) = keeping {
        keeping.settle()?;
        store.sync()?;
    }
    Ok(kept)
}

/// True if the message may be sent and its bytes are in a file that is not the job's.
fn is_wanted(store: &BatchStore, message: MessageNo) -> bool {
    let Some(record) = store.message(message) else {
        return false;
    };
    let source = store.sources.get(record.source());
    !record.is_invalid() && source.is_some_and(|source| !source.is_spool())
}

/// Messages on their way into the spool.
struct Keeping<'a> {
    store: &'a BatchStore,
    index: &'a Index,
    file: File,
    /// Where `piece` goes.
    at: u64,
    piece: Vec<u8>,
    moved: Vec<Moved>,
}

impl<'a> Keeping<'a> {
    fn begin(store: &'a BatchStore, index: &'a Index) -> io::Result<Keeping<'a>> {
        let file = index.open_kept()?;
        Ok(Keeping {
            store,
            index,
            at: file.metadata()?.len(),
            file,
            piece: Vec::new(),
            moved: Vec::new(),
        })
    }

    fn add(&mut self, message: MessageNo, raw: &[u8]) -> io::Result<()> {
        let source = self.source_like(message)?;
        self.moved.push(Moved {
            message: message.0,
            source,
            offset: self.at + self.piece.len() as u64,
        });
        self.piece.extend_from_slice(raw);
        if self.piece.len() >= PIECE_BYTES {
            self.write()?;
        }
        if self.moved.len() >= MOVED_MAX {
            self.settle()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.piece, self.at)?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        self.piece.shrink_to(4 * PIECE_BYTES);
        Ok(())
    }

    /// All that was added so far is kept.
    fn settle(&mut self) -> io::Result<()> {
        self.write()?;
        self.file
            .sync_data()
            .inspect_err(|_| self.index.break_off())?;
        self.index.write_moved(self.store, &self.moved)?;
        self.moved.clear();
        Ok(())
    }

    /// The number of the source for kept messages of this one's flavour: it says how their bytes are read.
    fn source_like(&self, message: MessageNo) -> io::Result<u32> {
        let sources = &self.store.sources;
        let flavour: Option<MboxFlavour> = self
            .store
            .message(message)
            .and_then(|record| sources.get(record.source()))
            .and_then(|source| source.flavour);
        let known = sources
            .iter()
            .find(|(_, source)| source.is_kept() && source.flavour == flavour);
        if let Some((number, _)) = known {
            return Ok(number as u32);
        }
        let path = self.index.dir.join(KEPT);
        let location = Location {
            path: KEPT.into(),
            place: Place::Kept(self.file.try_clone()?),
        };
        if sources.count() >= SOURCES_MAX {
            return Err(io::Error::other("the batch has one input too many"));
        }
        let source = Source::new(path.to_string_lossy().into(), location, flavour);
        Ok(sources.push(source) as u32)
    }
}
