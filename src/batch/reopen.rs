//! A batch from the files of its job: the tables as they were when the process died.
//!
//! The index is read twice. The first pass finds out how far it is good: every frame whole, each of them in keeping with those
//! before it, the addresses and the lists it refers to there and unchanged. What is behind is cut off, of the index and of the
//! addresses: it was not handed on, or the disk spoiled it. The second pass fills the tables, with the places that messages
//! were moved to last.
//!
//! A look at a batch reads the same and leaves the files as they are.
//!
//! INVARIANT: the tables hold whole messages only, from the first on without a gap, each with the recipients that it had.
//! Errors: files of the job that cannot be opened or read (nothing is cut off then), and an index of a version that is not known here; that one is left alone.
//! Memory beside the tables: the largest frame (all messages of one flush), 16 bytes per moved message.

use super::addresses::AddressSpool;
use super::error::BatchError;
use super::fill::{MessagesHead, SecondPass};
use super::frame::{Frame, Frames, Parts, VERSION};
use super::index::{
    ADDRESSES, END, INDEX, IS_END, Index, KEPT, Known, MESSAGES, MOVED, Moved, Progress, SOURCE,
    START, START_TEXT, TO_FILE, create_new, if_there, open_kept, open_spool, private, told,
};
use super::maildir::MaildirFiles;
use super::options::ReadOptions;
use super::record::{MessageRecord, RECIPIENT_BYTES, RecipientRecord};
use super::source::{Location, OPEN_MAX, Place, Source, open_regular};
use super::store::BatchStore;
use super::to_file::{Spool, ToFile};
use crate::mbox::MboxFlavour;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use xxhash_rust::xxh3::Xxh3Default;

/// Reads the batch of the job in `dir`, to go on with it.
pub(super) fn reopen(options: ReadOptions, dir: &Path) -> Result<BatchStore, BatchError> {
    sweep(dir);
    make_if_none_is_there(dir)?;
    let open = |name| open_table(dir, name, OpenOptions::new().read(true).write(true));
    let (file, addresses) = (open(INDEX)?, open(ADDRESSES)?);
    let name = dir.join(INDEX).to_string_lossy().into_owned();
    let failed = |error: io::Error| BatchError::read(&name, &error);
    let mut tables = read_tables(dir, &file, &addresses, false)?;
    // The caller holds the job's lock: nobody else writes.
    file.set_len(tables.progress.at)
        .and_then(|()| addresses.set_len(tables.addresses_end))
        .map_err(failed)?;
    let known = Known {
        is_reopened: true,
        sources: tables.progress.sources,
        messages: tables.progress.messages,
        keys: Mutex::new(std::mem::take(&mut tables.keys)),
        cut: tables.index_len - tables.progress.at,
    };
    let index = Index::new(dir, file, tables.progress, known);
    if tables.progress.at == 0 {
        index.begin().map_err(failed)?;
    }
    Ok(tables.into_store(options, addresses, Some(index)))
}

/// Reads the batch of the job in `dir`, which another process may be writing, and leaves all of it as it is.
pub(super) fn look(options: ReadOptions, dir: &Path) -> Result<BatchStore, BatchError> {
    let is_there = |name: &str| dir.join(name).symlink_metadata().is_ok();
    if !is_there(INDEX) || !is_there(ADDRESSES) {
        return Ok(BatchStore::new(options));
    }
    let open = |name| open_table(dir, name, OpenOptions::new().read(true));
    let (file, addresses) = (open(INDEX)?, open(ADDRESSES)?);
    let tables = read_tables(dir, &file, &addresses, true)?;
    Ok(tables.into_store(options, addresses, None))
}

/// Removes the copies that looks at a job were made in once, and that stayed where one was killed. What cannot be removed is in
/// nobody's way.
pub(super) fn sweep(dir: &Path) {
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let is_copy = entry.file_name().as_bytes().starts_with(b".look-");
        if is_copy && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// What the files of a job hold.
struct Tables {
    /// How far the index is good, at most `index_len`, and what is in it till there.
    progress: Progress,
    index_len: u64,
    addresses_end: u64,
    sources: boxcar::Vec<Source>,
    to_files: boxcar::Vec<ToFile>,
    messages: boxcar::Vec<MessageRecord>,
    recipients: boxcar::Vec<RecipientRecord>,
    keys: Vec<u128>,
}

impl Tables {
    /// A batch of these tables. Without an index nothing can be added to it.
    fn into_store(self, options: ReadOptions, addresses: File, index: Option<Index>) -> BatchStore {
        BatchStore {
            addresses: AddressSpool::of_job(addresses, self.addresses_end),
            options,
            sources: self.sources,
            messages: self.messages,
            recipients: self.recipients,
            to_files: self.to_files,
            index,
            is_ended: AtomicBool::new(self.progress.is_ended),
            reading_on: Mutex::default(),
        }
    }
}

fn read_tables(
    dir: &Path,
    file: &File,
    addresses: &File,
    is_look: bool,
) -> Result<Tables, BatchError> {
    let name = dir.join(INDEX).to_string_lossy().into_owned();
    let failed = |error: io::Error| BatchError::read(&name, &error);
    let len = file.metadata().map_err(failed)?.len();
    let mut pass = FirstPass::new(dir, addresses, is_look);
    let mut frames = Frames::new(file, len);
    let mut end = 0;
    loop {
        let frame = match frames.next() {
            // A run that began meanwhile has cut off what was torn.
            Err(error) if is_look && error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read.map_err(failed)?,
        };
        let Some(frame) = frame else { break };
        check_version(&frame, &name)?;
        if pass.take(frame).map_err(failed)?.is_none() {
            break;
        }
        end = frames.at();
    }
    let kept = if_there(&dir.join(KEPT), |path| path.metadata()).map_err(failed)?;
    let kept_len = kept.map_or(0, |kept| kept.len());
    let mut second = SecondPass::new(std::mem::take(&mut pass.moved), kept_len);
    let mut frames = Frames::new(file, end);
    while let Some(frame) = frames.next().map_err(failed)? {
        if frame.kind == MESSAGES {
            let _ = second.take(frame.payload);
        }
    }
    let addresses_end = pass.addresses_end;
    let (progress, sources, to_files) = pass.into_tables(end);
    Ok(Tables {
        progress,
        index_len: len,
        addresses_end,
        sources,
        to_files,
        messages: second.messages,
        recipients: second.recipients,
        keys: second.keys,
    })
}

fn open_table(dir: &Path, name: &str, how: &mut OpenOptions) -> Result<File, BatchError> {
    let path = dir.join(name);
    let file = private(how).open(&path);
    file.map_err(|error| BatchError::open(&path, &error))
}

fn open_own(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).write(true)).open(path)
}

/// A process that died while it made the job left no index, and no addresses either: it had handed nothing on. An index
/// that is missing beside addresses is another matter.
fn make_if_none_is_there(dir: &Path) -> Result<(), BatchError> {
    let (index, addresses) = (dir.join(INDEX), dir.join(ADDRESSES));
    let is_missing = |path: &Path| match open_own(path) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(_) => false,
    };
    if !is_missing(&index) {
        return Ok(());
    }
    if is_missing(&addresses) {
        create_new(&addresses).map_err(|error| BatchError::spool(dir, &error))?;
    }
    let is_empty = addresses
        .symlink_metadata()
        .is_ok_and(|it| it.is_file() && it.len() == 0);
    if is_empty {
        create_new(&index).map_err(|error| BatchError::spool(dir, &error))?;
    }
    Ok(())
}

/// What a later version wrote is whole, but means nothing here: it must not be cut off.
fn check_version(frame: &Frame<'_>, name: &str) -> Result<(), BatchError> {
    if frame.version == VERSION && (START..=MOVED).contains(&frame.kind) {
        return Ok(());
    }
    let what = format!(
        "was written by another version of this program (frame {} of version {} at byte {})",
        frame.kind, frame.version, frame.at
    );
    Err(BatchError::data(name, &what))
}

/// Finds out what of an index is good.
struct FirstPass<'a> {
    dir: &'a Path,
    addresses: &'a File,
    /// Nothing may be made.
    is_look: bool,
    has_begun: bool,
    sources: Vec<Source>,
    /// The number of each source that was found elsewhere later, and where.
    found_later: Vec<(usize, Location)>,
    open: usize,
    to_files: Vec<ToFile>,
    moved: Vec<Moved>,
    messages: usize,
    recipients: usize,
    addresses_end: u64,
    is_ended: bool,
}

impl<'a> FirstPass<'a> {
    fn new(dir: &'a Path, addresses: &'a File, is_look: bool) -> FirstPass<'a> {
        FirstPass {
            dir,
            addresses,
            is_look,
            has_begun: false,
            sources: Vec::new(),
            found_later: Vec::new(),
            open: 0,
            to_files: Vec::new(),
            moved: Vec::new(),
            messages: 0,
            recipients: 0,
            addresses_end: 0,
            is_ended: false,
        }
    }

    /// The next frame; `None` if it does not fit those before it.
    fn take(&mut self, frame: Frame<'_>) -> io::Result<Option<()>> {
        let parts = Parts(frame.payload);
        if !self.has_begun {
            self.has_begun = frame.kind == START && frame.payload == START_TEXT;
            return Ok(self.has_begun.then_some(()));
        }
        Ok(match frame.kind {
            SOURCE => return self.source(parts),
            TO_FILE => return self.list(parts),
            MESSAGES => return self.messages(parts),
            MOVED => self.moved(parts),
            END => {
                self.is_ended = true;
                Some(())
            }
            _ => None,
        })
    }

    fn source(&mut self, mut parts: Parts<'_>) -> io::Result<Option<()>> {
        let Some(head) = SourceHead::read(&mut parts) else {
            return Ok(None);
        };
        let Some(place) = self.place(head.place, &head.path, parts)? else {
            return Ok(None);
        };
        let location = Location {
            path: head.path,
            place,
        };
        if head.number < self.sources.len() {
            self.found_later.push((head.number, location));
            return Ok(Some(()));
        }
        let source = Source::new(head.name.into(), location, head.flavour);
        self.is_ended &= source.is_kept();
        self.sources.push(source);
        Ok((head.number + 1 == self.sources.len()).then_some(()))
    }

    /// The place of a source. A batch file that is not there now may be when its messages are loaded. A file of the job that
    /// cannot be opened is an error, unless it is not there.
    fn place(&mut self, place: u8, path: &Path, mut parts: Parts<'_>) -> io::Result<Option<Place>> {
        Ok(Some(match place {
            0 if self.open < OPEN_MAX => match open_regular(path) {
                Ok(file) => {
                    self.open += 1;
                    Place::Open(file)
                }
                Err(_) => Place::Closed,
            },
            0 => Place::Closed,
            1 => {
                let mut files = Vec::new();
                while !parts.0.is_empty() {
                    let Some(file) = parts.text() else {
                        return Ok(None);
                    };
                    files.push(OsStr::from_bytes(file).into());
                }
                Place::Maildir(MaildirFiles::new(files))
            }
            2 => if_there(path, |path| open_spool(self.dir, path))?
                .map_or(Place::Closed, Place::Spool),
            3 => Place::Kept(self.kept().map_err(|error| told(Path::new(KEPT), &error))?),
            _ => return Ok(None),
        }))
    }

    fn kept(&self) -> io::Result<File> {
        if !self.is_look {
            return open_kept(self.dir);
        }
        match open_spool(self.dir, Path::new(KEPT)) {
            // Nothing is in it then, and nothing may be made for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open("/dev/null"),
            opened => opened,
        }
    }

    fn list(&mut self, mut parts: Parts<'_>) -> io::Result<Option<()>> {
        let mut read = || {
            let (message, len, hash) = (parts.u32()?, parts.u64()?, parts.u64()?);
            let name = std::str::from_utf8(parts.text()?).ok()?;
            let path = PathBuf::from(OsStr::from_bytes(parts.text()?));
            Some((message, len, hash, name, path))
        };
        let Some((message, len, hash, name, path)) = read() else {
            return Ok(None);
        };
        let Some(file) = if_there(&path, |path| open_spool(self.dir, path))? else {
            return Ok(None);
        };
        if digest(&file, 0, len)? != Some(hash) {
            return Ok(None);
        }
        let spool = Spool {
            file,
            path,
            len,
            hash,
        };
        self.to_files.push(ToFile {
            name: name.into(),
            spool,
            message,
        });
        Ok(Some(()))
    }

    fn messages(&mut self, mut parts: Parts<'_>) -> io::Result<Option<()>> {
        let Some(head) = MessagesHead::read(&mut parts) else {
            return Ok(None);
        };
        let starts_here = head.first_message == self.messages
            && head.first_recipient == self.recipients
            && head.addresses_end >= self.addresses_end;
        if !starts_here {
            return Ok(None);
        }
        let len = head.addresses_end - self.addresses_end;
        if digest(self.addresses, self.addresses_end, len)? != Some(head.addresses_hash) {
            return Ok(None);
        }
        Ok(self.check_records(&head, parts))
    }

    fn check_records(&mut self, head: &MessagesHead, mut parts: Parts<'_>) -> Option<()> {
        let mut recipients = self.recipients;
        for _ in 0..head.messages {
            let record = MessageRecord::from_bytes(&parts.array()?);
            let is_fit = record.source() < self.sources.len()
                && record.first_recipient() as usize == recipients
                && record.recipients() > 0;
            recipients += is_fit.then_some(record.recipients() as usize)?;
        }
        if recipients != self.recipients + head.recipients {
            return None;
        }
        parts.bytes(head.recipients * RECIPIENT_BYTES)?;
        parts.bytes(head.keys() * size_of::<u128>())?;
        self.messages += head.messages;
        self.recipients = recipients;
        self.addresses_end = head.addresses_end;
        self.is_ended = head.flags & IS_END != 0;
        Some(())
    }

    fn moved(&mut self, mut parts: Parts<'_>) -> Option<()> {
        while !parts.0.is_empty() {
            let moved = Moved {
                message: parts.u32()?,
                source: parts.u32()?,
                offset: parts.u64()?,
            };
            let is_kept = self.sources.get(moved.source as usize)?.is_kept();
            let is_fit = is_kept && (moved.message as usize) < self.messages;
            self.moved.push(is_fit.then_some(moved)?);
        }
        Some(())
    }

    /// Everything but the messages.
    fn into_tables(self, end: u64) -> (Progress, boxcar::Vec<Source>, boxcar::Vec<ToFile>) {
        for (number, location) in self.found_later {
            self.sources[number].is_found_at(location);
        }
        // One whose message is not there was made by a run that died before it was handed on.
        let messages = self.messages;
        let of_messages = |to_file: &ToFile| (to_file.message as usize) < messages;
        let to_files: boxcar::Vec<ToFile> = self.to_files.into_iter().filter(of_messages).collect();
        let sources: boxcar::Vec<Source> = self.sources.into_iter().collect();
        let progress = Progress {
            at: end,
            sources: sources.count(),
            to_files: to_files.count(),
            messages,
            recipients: self.recipients,
            is_ended: self.is_ended,
        };
        (progress, sources, to_files)
    }
}

/// What stands in the frame of a source before the names of its files.
struct SourceHead {
    number: usize,
    place: u8,
    flavour: Option<MboxFlavour>,
    name: String,
    path: PathBuf,
}

impl SourceHead {
    fn read(parts: &mut Parts<'_>) -> Option<SourceHead> {
        let number = parts.u32()? as usize;
        let [place, flavour] = parts.array()?;
        let flavour = match flavour {
            0 => None,
            1 => Some(MboxFlavour::Rd),
            2 => Some(MboxFlavour::O),
            3 => Some(MboxFlavour::Cl2),
            _ => return None,
        };
        Some(SourceHead {
            number,
            place,
            flavour,
            name: std::str::from_utf8(parts.text()?).ok()?.to_owned(),
            path: OsStr::from_bytes(parts.text()?).into(),
        })
    }
}

/// The XXH3-64 of `len` bytes at `at`; `None` if they are not there.
fn digest(file: &File, mut at: u64, mut len: u64) -> io::Result<Option<u64>> {
    let mut sum = Xxh3Default::new();
    let mut buffer = vec![0; 64 * 1024];
    while len > 0 {
        let want = usize::try_from(len).map_or(buffer.len(), |len| len.min(buffer.len()));
        match file.read_at(&mut buffer[..want], at) {
            Ok(0) => return Ok(None),
            Ok(got) => {
                sum.update(&buffer[..got]);
                at += got as u64;
                len -= got as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(sum.digest()))
}
