//! Where messages lie: an mbox that is kept open, files that are opened when read, a Maildir, the spool of a stream.
//!
//! A regular file of one message is opened for each read, so that ten thousand of them do not take ten thousand descriptors; an
//! mbox is kept open (up to [`OPEN_MAX`] of them), so that renaming it does no harm. Pipes, devices and standard input are
//! copied to a spool file while they are read: an unlinked one, or one of the job's directory.
//!
//! INVARIANT: what is opened for a read is a regular file, or the read fails at once: a FIFO in a Maildir hangs nobody.

use super::content::ContentError;
use super::error::{BatchError, BatchErrorKind, unpack_hint};
use super::maildir::{MaildirFiles, PARTS};
use super::options::ReadOptions;
use crate::mbox::MboxFlavour;
use crate::mbox::sniff::{self, FileKind};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many mbox files are kept open at most; further ones are opened for each read.
pub(super) const OPEN_MAX: usize = 128;

/// One input of a batch, as the user named it.
pub enum Input {
    /// A file or a Maildir.
    Path(PathBuf),
    /// A stream and what to call it.
    Stream(String, Box<dyn Read + Send>),
}

impl Input {
    /// What an argument of the command line means: `-` is standard input.
    pub fn from_arg(arg: &OsStr) -> Input {
        if arg == "-" {
            Input::stdin()
        } else {
            Input::Path(arg.into())
        }
    }

    /// Standard input.
    pub fn stdin() -> Input {
        Input::Stream("standard input".to_owned(), Box::new(io::stdin()))
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Path(path) => path.fmt(f),
            Input::Stream(name, _) => name.fmt(f),
        }
    }
}

/// How the bytes of a source are reached.
#[derive(Debug)]
pub(super) enum Place {
    /// In a file that is open.
    Open(File),
    /// In a file that is opened when needed.
    Closed,
    /// In files of a Maildir.
    Maildir(MaildirFiles),
    /// In the spool of a stream, which is open.
    Spool(File),
    /// In the file of messages that were kept because a run ended without them, which is open.
    Kept(File),
}

/// Where a source lies.
#[derive(Debug)]
pub(super) struct Location {
    /// The file or the Maildir, absolute; of a spool its name in the job's directory, if it has one.
    pub(super) path: PathBuf,
    pub(super) place: Place,
}

impl Location {
    /// The file that holds the message at `offset`, unless it is a spool.
    fn path_of(&self, offset: u64) -> Option<PathBuf> {
        match &self.place {
            Place::Closed | Place::Open(_) => Some(self.path.clone()),
            Place::Maildir(files) => Some(self.path.join(files.name(offset)?)),
            Place::Spool(_) | Place::Kept(_) => None,
        }
    }

    /// Opens the file that holds the message at `offset`.
    pub(super) fn open(&self, offset: u64) -> io::Result<File> {
        match self.path_of(offset) {
            Some(path) => open_regular(&path),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Fills `buffer` with the message at `offset`. `skip`: the bytes before it in a file of a Maildir.
    pub(super) fn read_exact_at(
        &self,
        offset: u64,
        skip: u64,
        buffer: &mut [u8],
    ) -> Result<(), ContentError> {
        let (path, at) = match &self.place {
            Place::Open(file) | Place::Spool(file) | Place::Kept(file) => {
                let read = file.read_exact_at(buffer, offset);
                return read.map_err(ContentError::read);
            }
            Place::Closed => (self.path_of(offset), offset),
            Place::Maildir(_) => (self.path_of(offset), skip),
        };
        let path = path.ok_or(ContentError::Invalid)?;
        read_from(&path, at, buffer)
    }

    /// Where the message at `offset` may be if its file is not there: a mail reader renames the files of a Maildir.
    pub(super) fn renamed(&self, offset: u64) -> Vec<PathBuf> {
        match &self.place {
            Place::Maildir(files) => files.renamed(&self.path, offset),
            _ => Vec::new(),
        }
    }

    /// True if this is where `other` is, too.
    pub(super) fn is(&self, other: &Location) -> bool {
        let same_files = match (&self.place, &other.place) {
            (Place::Maildir(files), Place::Maildir(others)) => files.names == others.names,
            _ => true,
        };
        self.path == other.path && same_files
    }
}

/// A source whose messages are in the tables.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) location: Location,
    /// `None` if the file is one message.
    pub(super) flavour: Option<MboxFlavour>,
    /// Where the same batch was found later. What is not where it was is looked for here: hashes tell what is right.
    found_later: Mutex<Option<Arc<Location>>>,
}

impl Source {
    pub(super) fn new(name: Arc<str>, location: Location, flavour: Option<MboxFlavour>) -> Source {
        Source {
            name,
            location,
            flavour,
            found_later: Mutex::new(None),
        }
    }

    /// The other place where it may be.
    pub(super) fn found_later(&self) -> Option<Arc<Location>> {
        let found = self.found_later.lock();
        found.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It was found at `location`, too. False if that is known.
    pub(super) fn is_found_at(&self, location: Location) -> bool {
        let known = self.found_later();
        if self.location.is(&location) || known.is_some_and(|known| known.is(&location)) {
            return false;
        }
        let mut found = self
            .found_later
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *found = Some(Arc::new(location));
        true
    }

    /// How many files a Maildir has, where it was found last; `None` if it is none.
    pub(super) fn files(&self) -> Option<u64> {
        let count = |location: &Location| match &location.place {
            Place::Maildir(files) => Some(files.names.len() as u64),
            _ => None,
        };
        match self.found_later() {
            Some(location) => count(&location),
            None => count(&self.location),
        }
    }

    /// Opens the file that holds the message at `offset`, where it was found last.
    pub(super) fn open(&self, offset: u64) -> io::Result<File> {
        match self.found_later() {
            Some(location) => location.open(offset),
            None => self.location.open(offset),
        }
    }

    /// True if its bytes are in a file that is the job's own.
    pub(super) fn is_spool(&self) -> bool {
        matches!(self.location.place, Place::Spool(_) | Place::Kept(_))
    }

    /// True if it holds what was kept of others: it is no input of the batch.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.location.place, Place::Kept(_))
    }

    /// The name of the file that holds the message at `offset`.
    pub(super) fn file_name(&self, offset: u64) -> Arc<str> {
        match &self.location.place {
            Place::Maildir(files) => match files.name(offset) {
                Some(file) => Path::new(&*self.name).join(file).to_string_lossy().into(),
                None => self.name.clone(),
            },
            _ => self.name.clone(),
        }
    }

    /// Where the message that a record places at `offset` begins in its file.
    pub(super) fn file_offset(&self, offset: u64) -> u64 {
        match self.location.place {
            Place::Maildir(..) => 0,
            _ => offset,
        }
    }
}

/// Fills `buffer` with what is at `at` in the regular file at `path`.
pub(super) fn read_from(path: &Path, at: u64, buffer: &mut [u8]) -> Result<(), ContentError> {
    let file = open_regular(path).map_err(ContentError::Open)?;
    file.read_exact_at(buffer, at).map_err(ContentError::read)
}

/// Opens a regular file, and nothing else: looked at first because opening a device may already do something, opened without
/// waiting because a FIFO may take its place meanwhile.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(path.metadata()?.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    check_regular(file.metadata()?.file_type())?;
    Ok(file)
}

fn check_regular(kind: FileType) -> io::Result<()> {
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    let text = format!("it is a {what}, not a file");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// An input that was found fit to be read.
pub(super) enum Prepared {
    /// A source whose kind is known.
    Known(Source),
    /// A stream: what it is shows when it is read.
    Stream(String, Box<dyn Read + Send>),
    /// A source that is in the tables already, by its number: to be read again.
    Again(usize),
    /// One that cannot be read again, and why.
    Lost(BatchError),
}

/// Looks at all inputs before anything is sent: a missing one must not come to light after an hour of mail.
pub(super) fn prepare(
    inputs: Vec<Input>,
    options: &ReadOptions,
) -> Result<Vec<Prepared>, BatchError> {
    let mut preparing = Preparing::default();
    inputs
        .into_iter()
        .map(|input| preparing.prepare(input, options))
        .collect()
}

/// What is known of the inputs before the one that is being looked at.
#[derive(Default)]
pub(super) struct Preparing {
    /// How many files were opened.
    open: usize,
    /// Their devices and inodes.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl Preparing {
    /// Looks at the next input.
    pub(super) fn prepare(
        &mut self,
        input: Input,
        options: &ReadOptions,
    ) -> Result<Prepared, BatchError> {
        let path = match input {
            Input::Stream(name, reader) => return Ok(Prepared::Stream(name, reader)),
            Input::Path(path) => path,
        };
        refuse_twice(&path, &mut self.seen)?;
        let prepared = prepare_path(path, options, self.open < OPEN_MAX)?;
        if let Prepared::Known(source) = &prepared
            && matches!(source.location.place, Place::Open(_))
        {
            self.open += 1;
        }
        Ok(prepared)
    }
}

/// Where the file or Maildir at `path` is, whatever the working directory may become. `path` itself if nobody knows.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Refuses a file that was named before, under whatever name: its recipients would get everything twice. `seen`: device and
/// inode of those before.
fn refuse_twice(path: &Path, seen: &mut HashMap<(u64, u64), PathBuf>) -> Result<(), BatchError> {
    let metadata = path
        .metadata()
        .map_err(|error| BatchError::open(path, &error))?;
    let Some(before) = seen.insert((metadata.dev(), metadata.ino()), path.to_owned()) else {
        return Ok(());
    };
    let what = if before == path {
        "is named twice".to_owned()
    } else {
        format!("is the same file as {}", before.display())
    };
    Err(BatchError::data(&path.to_string_lossy(), &what))
}

fn prepare_path(
    path: PathBuf,
    options: &ReadOptions,
    keep_open: bool,
) -> Result<Prepared, BatchError> {
    let no_input = |error: io::Error| BatchError::open(&path, &error);
    let name = path.to_string_lossy().into_owned();
    let metadata = path.metadata().map_err(no_input)?;
    if metadata.is_dir() {
        return Ok(Prepared::Known(maildir(&path, name)?));
    }
    let file = File::open(&path).map_err(no_input)?;
    if !metadata.is_file() {
        return Ok(Prepared::Stream(name, Box::new(file)));
    }
    let mut head = [0; sniff::SNIFF_BYTES];
    let len = read_head(&file, &mut head).map_err(|error| BatchError::read(&name, &error))?;
    let is_mbox = is_mbox(&name, &head[..len], Some(&name), options.command)?;
    let place = if is_mbox && keep_open {
        Place::Open(file)
    } else {
        Place::Closed
    };
    let path = absolute(&path);
    let flavour = is_mbox.then(|| options.flavour.unwrap_or_default());
    let location = Location { path, place };
    Ok(Prepared::Known(Source::new(name.into(), location, flavour)))
}

fn read_head(file: &File, head: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

/// Tells an mbox from a single message by how it begins; an error if it is neither. `file`: what to type for it in `command`,
/// if it is no stream.
pub(super) fn is_mbox(
    name: &str,
    head: &[u8],
    file: Option<&str>,
    command: &str,
) -> Result<bool, BatchError> {
    match sniff::kind(head) {
        FileKind::Mbox => Ok(true),
        FileKind::Message => Ok(false),
        FileKind::Empty => Err(BatchError::data(name, "is empty")),
        FileKind::Compressed(by, unpack) => {
            Err(BatchError::data(name, &format!("is {by}-compressed"))
                .hint_is(unpack_hint(unpack, file, command)))
        }
        FileKind::BareCr => Err(BatchError::data(name, "lines end in bare CR (old Mac)")
            .hint_is("convert them: tr '\\r' '\\n'")),
        FileKind::Utf16 => {
            Err(BatchError::data(name, "is UTF-16").hint_is("convert it: iconv -f UTF-16 -t UTF-8"))
        }
        FileKind::Junk(offset) => Err(BatchError::data(
            name,
            &format!(
                "is no mbox and no message: neither a From_ line nor a header field at byte {offset}"
            ),
        )),
    }
}

/// Lists a Maildir: messages in new, then those in cur, each sorted by name (which begins with the time of arrival).
fn maildir(dir: &Path, name: String) -> Result<Source, BatchError> {
    let mut files = Vec::new();
    for part in PARTS {
        let names = list(&dir.join(part)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                let what = format!("is a directory, but no Maildir: it has no {part}/");
                BatchError::new(BatchErrorKind::NoInput, &name, &what)
            }
            _ => BatchError::open(&dir.join(part), &error),
        })?;
        files.extend(names.into_iter().map(|file| {
            Path::new(part)
                .join(file)
                .into_os_string()
                .into_boxed_os_str()
        }));
    }
    if files.is_empty() {
        return Err(BatchError::data(
            &name,
            "is empty: no message in new/ or cur/",
        ));
    }
    let location = Location {
        path: absolute(dir),
        place: Place::Maildir(MaildirFiles::new(files)),
    };
    Ok(Source::new(name.into(), location, None))
}

/// The names of what may be messages in `dir`: no directories, nothing hidden.
pub(super) fn list(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in dir.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let is_dir = entry.file_type().as_ref().is_ok_and(FileType::is_dir);
        if !is_dir && !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
