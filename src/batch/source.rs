//! Where messages lie: an mbox that is kept open, files that are opened when read, a Maildir, the spool of a stream.
//!
//! A regular file of one message is opened for each read, so that ten thousand of them do not take ten thousand descriptors; an
//! mbox is kept open (up to [`OPEN_MAX`] of them), so that renaming it does no harm. Pipes, devices and standard input are
//! copied to an unlinked spool file while they are read.
//!
//! INVARIANT: what is opened for a read is a regular file, or the read fails at once: a FIFO in a Maildir hangs nobody.

use super::error::{BatchError, BatchErrorKind, unpack_hint};
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
use std::sync::Arc;

/// How many mbox files are kept open at most; further ones are opened for each read.
const OPEN_MAX: usize = 128;

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

/// Where the bytes of a source are.
#[derive(Debug)]
pub(super) enum Place {
    /// In a file that is open.
    Open(File),
    /// In a file that is opened when needed.
    Path(PathBuf),
    /// In files of a Maildir: the directory, and `new/...` and `cur/...` in order.
    Maildir(PathBuf, Vec<Box<OsStr>>),
}

/// A source whose messages are in the tables.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    /// `None` if the file is one message.
    pub(super) flavour: Option<MboxFlavour>,
}

impl Source {
    /// The file that holds the message at `offset`, if one is to be opened: `None` for a file that is open.
    fn path(&self, offset: u64) -> Option<PathBuf> {
        match &self.place {
            Place::Open(_) => None,
            Place::Path(path) => Some(path.clone()),
            Place::Maildir(dir, files) => usize::try_from(offset)
                .ok()
                .and_then(|i| files.get(i))
                .map(|file| dir.join(file.as_ref())),
        }
    }

    /// The name of the file that holds the message at `offset`.
    pub(super) fn file_name(&self, offset: u64) -> Arc<str> {
        match (&self.place, self.path(offset)) {
            (Place::Maildir(..), Some(path)) => path.to_string_lossy().into(),
            _ => self.name.clone(),
        }
    }

    /// Where the message that a record places at `offset` begins in its file.
    pub(super) fn file_offset(&self, offset: u64) -> u64 {
        match self.place {
            Place::Maildir(..) => 0,
            _ => offset,
        }
    }

    /// Opens the file that holds the message at `offset`.
    pub(super) fn open(&self, offset: u64) -> io::Result<File> {
        match self.path(offset) {
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
    ) -> io::Result<()> {
        match &self.place {
            Place::Open(file) => file.read_exact_at(buffer, offset),
            Place::Path(_) => self.open(offset)?.read_exact_at(buffer, offset),
            Place::Maildir(..) => self.open(offset)?.read_exact_at(buffer, skip),
        }
    }
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
}

/// Looks at all inputs before anything is sent: a missing one must not come to light after an hour of mail.
pub(super) fn prepare(
    inputs: Vec<Input>,
    options: &ReadOptions,
) -> Result<Vec<Prepared>, BatchError> {
    let mut open = 0;
    let mut seen = HashMap::new();
    inputs
        .into_iter()
        .map(|input| {
            let path = match input {
                Input::Stream(name, reader) => return Ok(Prepared::Stream(name, reader)),
                Input::Path(path) => path,
            };
            refuse_twice(&path, &mut seen)?;
            let prepared = prepare_path(path, options, open < OPEN_MAX)?;
            if let Prepared::Known(Source {
                place: Place::Open(_),
                ..
            }) = &prepared
            {
                open += 1;
            }
            Ok(prepared)
        })
        .collect()
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
    Ok(Prepared::Known(Source {
        name: name.into(),
        place: if is_mbox && keep_open {
            Place::Open(file)
        } else {
            Place::Path(path)
        },
        flavour: is_mbox.then(|| options.flavour.unwrap_or_default()),
    }))
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
    for part in ["new", "cur"] {
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
    Ok(Source {
        name: name.into(),
        place: Place::Maildir(dir.to_owned(), files),
        flavour: None,
    })
}

/// The names of what may be messages in `dir`: no directories, nothing hidden.
fn list(dir: &Path) -> io::Result<Vec<OsString>> {
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
