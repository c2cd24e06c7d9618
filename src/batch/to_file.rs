//! `--to-file`: the recipients of one message to very many, one per line.
//!
//! The file is copied to a spool file (unlinked, or of the job's directory) while it is read: what a worker reads later is what
//! was read at intake, even if the file was rewritten meanwhile. Each line is one recipient (`a@b.example`, or with a name),
//! but for blank ones and comments, which begin with `#`; each mailbox counts once. A byte order mark at the beginning is
//! passed over.
//!
//! A file without any address is an error of the batch; a bad line among good ones is a row of the report. Memory: 12 bytes of
//! table per recipient, and a hash of each while the file is read.
//!
//! Limits: a line of [`LINE_OCTETS_MAX`].

use super::ahead::Ahead;
use super::error::BatchError;
use super::record::{PLACES_MAX, RecipientRecord};
use super::window::{Window, newlines};
use crate::mail::Mailbox;
use crate::mail::address::{AddressError, AddressFault};
use crate::mbox::sniff::{self, FileKind, SNIFF_BYTES};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// The longest line that is taken for an address.
const LINE_OCTETS_MAX: usize = 4096;

/// The recipients, as a copy of their file.
#[derive(Debug)]
pub(super) struct ToFile {
    pub(super) name: Arc<str>,
    pub(super) spool: Spool,
    /// The message that these recipients get.
    pub(super) message: u32,
}

/// The copy.
#[derive(Debug)]
pub(super) struct Spool {
    pub(super) file: File,
    /// Its name in the job's directory; empty if it has none.
    pub(super) path: PathBuf,
    /// How many bytes it has.
    pub(super) len: u64,
    /// Their XXH3-64.
    pub(super) hash: u64,
}

/// What writes the copy.
struct Copying<'a> {
    source: File,
    spool: &'a mut Spool,
    /// Where the spool is, for errors.
    dir: &'a Path,
    hash: Xxh3Default,
}

impl ToFile {
    /// Copies the file at `path` into the spool and gives `push` the place of each recipient of `message`, the mailbox if it is
    /// one, and the line.
    pub(super) fn read(
        path: &Path,
        spool_dir: &Path,
        (file, spool_path): (File, PathBuf),
        message: u32,
        mut push: impl FnMut(RecipientRecord, Option<&Mailbox>, &[u8]) -> Result<(), BatchError>,
    ) -> Result<ToFile, BatchError> {
        let name: Arc<str> = path.to_string_lossy().into();
        let source = File::open(path).map_err(|error| BatchError::open(path, &error))?;
        let spool = Spool {
            file,
            path: spool_path,
            len: 0,
            hash: 0,
        };
        let mut to_file = ToFile {
            name,
            spool,
            message,
        };
        to_file.copy(source, spool_dir, &mut push)?;
        Ok(to_file)
    }

    fn copy(
        &mut self,
        source: File,
        dir: &Path,
        push: &mut impl FnMut(RecipientRecord, Option<&Mailbox>, &[u8]) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let name = Arc::clone(&self.name);
        // The second handle is for reading what was copied, while the first writes.
        let copied = Readable {
            file: &self
                .spool
                .file
                .try_clone()
                .map_err(|error| BatchError::spool(dir, &error))?,
        };
        let mut copying = Copying {
            source,
            spool: &mut self.spool,
            dir,
            hash: Xxh3Default::new(),
        };
        let mut seen = HashMap::new();
        let mut window = Window::new();
        copying.begin(&name, &mut window)?;
        let (mut lines, mut mailboxes) = (0_u64, 0_u64);
        let mut within_line = false; // behind the beginning of a line that is too long
        loop {
            let bytes = window.bytes();
            let (line, len) = match memchr::memchr(b'\n', bytes) {
                Some(lf) => (&bytes[..lf], lf + 1),
                None if bytes.is_empty() && window.is_at_eof() => break,
                None if window.is_at_eof() || bytes.len() > LINE_OCTETS_MAX => (bytes, bytes.len()),
                None => {
                    copying.more(&name, &mut window)?;
                    continue;
                }
            };
            if !within_line && let Some(place) = line_place(window.offset(), line, &name)? {
                let mailbox = Mailbox::parse(line).ok();
                lines += 1;
                mailboxes += u64::from(mailbox.is_some());
                if mailbox
                    .as_ref()
                    .is_none_or(|mailbox| copied.is_new(place, mailbox, &mut seen))
                {
                    push(place, mailbox.as_ref(), line)?;
                }
            }
            within_line = bytes[len - 1] != b'\n';
            window.consume(len);
        }
        copying.spool.hash = copying.hash.digest();
        match (lines, mailboxes) {
            (0, _) => Err(BatchError::data(&name, "names no recipient")),
            (_, 0) => Err(BatchError::data(
                &name,
                &format!("names no recipient: not one of its {lines} lines is an address"),
            )),
            _ => Ok(()),
        }
    }

    /// The text of a recipient, for one who reads on.
    pub(super) fn text_on<'a>(
        &self,
        place: RecipientRecord,
        ahead: &'a mut Ahead,
    ) -> io::Result<&'a [u8]> {
        ahead.read(&self.spool.file, place.at(), place.len(), self.spool.len)
    }

    fn readable(&self) -> Readable<'_> {
        Readable {
            file: &self.spool.file,
        }
    }

    /// The text of a recipient.
    pub(super) fn text(&self, place: RecipientRecord) -> io::Result<Vec<u8>> {
        self.readable().text(place)
    }

    /// The mailbox of a recipient.
    pub(super) fn mailbox(
        &self,
        place: RecipientRecord,
    ) -> io::Result<Result<Mailbox, AddressError>> {
        self.readable().mailbox(place)
    }

    /// The line number at `to`, if the one at `from` is `line`.
    pub(super) fn line_at(&self, from: u64, line: u64, to: u64) -> u64 {
        let mut buffer = [0; 16 * 1024];
        let (mut at, mut line) = (from, line);
        while at < to {
            let want = usize::try_from(to - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            match self.spool.file.read_at(&mut buffer[..want], at) {
                Ok(len) if len > 0 => {
                    line += newlines(&buffer[..len]);
                    at += len as u64;
                }
                _ => break,
            }
        }
        line
    }
}

impl Copying<'_> {
    /// Looks at the beginning: what is no text at all is refused as a whole, not line by line.
    fn begin(&mut self, name: &str, window: &mut Window) -> Result<(), BatchError> {
        while window.bytes().len() < SNIFF_BYTES && !window.is_at_eof() {
            self.more(name, window)?;
        }
        let head = &window.bytes()[..window.bytes().len().min(SNIFF_BYTES)];
        let nul = memchr::memchr(0, head);
        let other = head.iter().position(|b| *b < b'\t');
        let Some(at) = nul.or(other.filter(|_| !is_utf8_so_far(head))) else {
            window.consume(sniff::utf8_mark_len(head));
            return Ok(());
        };
        Err(match sniff::kind(head) {
            FileKind::Compressed(by, _) => BatchError::data(name, &format!("is {by}-compressed"))
                .hint_is("decompress it first"),
            FileKind::Utf16 => {
                BatchError::data(name, "is UTF-16").hint_is("convert it: iconv -f UTF-16 -t UTF-8")
            }
            _ => BatchError::data(
                name,
                &format!("is no list of addresses: a control character at byte {at}"),
            ),
        })
    }

    fn more(&mut self, name: &str, window: &mut Window) -> Result<(), BatchError> {
        let before = window.bytes().len();
        window
            .fill(|_, buffer| self.source.read(buffer))
            .map_err(|error| BatchError::read(name, &error))?;
        let new = &window.bytes()[before..];
        self.hash.update(new);
        self.spool.len += new.len() as u64;
        (&self.spool.file)
            .write_all(new)
            .map_err(|error| BatchError::spool(self.dir, &error))
    }
}

/// The copy, as far as it has come.
struct Readable<'a> {
    file: &'a File,
}

impl Readable<'_> {
    /// True if `mailbox`, at `place`, was not met before. A hash that was met is compared in full, so that nobody is left out
    /// by chance.
    fn is_new(
        &self,
        place: RecipientRecord,
        mailbox: &Mailbox,
        seen: &mut HashMap<u64, RecipientRecord>,
    ) -> bool {
        let first = *seen
            .entry(xxh3_64(mailbox.as_str().as_bytes()))
            .or_insert(place);
        first == place || !matches!(self.mailbox(first), Ok(Ok(other)) if other == *mailbox)
    }

    fn text(&self, place: RecipientRecord) -> io::Result<Vec<u8>> {
        let mut text = vec![0; place.len()];
        self.file.read_exact_at(&mut text, place.at())?;
        Ok(text)
    }

    fn mailbox(&self, place: RecipientRecord) -> io::Result<Result<Mailbox, AddressError>> {
        if place.len() == 0 {
            return Ok(Err(too_long()));
        }
        Ok(Mailbox::parse(&self.text(place)?))
    }
}

/// A line that is too long to be an address has no text.
pub(super) fn too_long() -> AddressError {
    AddressError {
        offset: 0,
        fault: AddressFault::PathTooLong,
    }
}

/// True if `head` is UTF-8, but for a character that its end cuts.
fn is_utf8_so_far(head: &[u8]) -> bool {
    std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// The place of what stands in `line`: nothing if it is blank or a comment, length 0 if it is too long to be an address.
fn line_place(offset: u64, line: &[u8], name: &str) -> Result<Option<RecipientRecord>, BatchError> {
    let text = line.trim_ascii();
    if text.is_empty() || text.starts_with(b"#") {
        return Ok(None);
    }
    let lead = line.len() - line.trim_ascii_start().len();
    let at = offset + lead as u64;
    if at >= PLACES_MAX {
        return Err(BatchError::data(name, "is too large"));
    }
    let len = if line.len() > LINE_OCTETS_MAX {
        0
    } else {
        text.len()
    };
    Ok(Some(RecipientRecord::new(at, len, len > 0)))
}
