//! `--to-file`: the recipients of one message to very many, one per line.
//!
//! The file is copied to an unlinked spool file while it is read: what a worker reads later is what was read at intake, even
//! if the file was rewritten meanwhile. Each line is one recipient (`a@b.example`, or with a name), but for blank ones and
//! comments, which begin with `#`; each mailbox counts once. A byte order mark at the beginning is passed over.
//!
//! A file without any address is an error of the batch; a bad line among good ones is a row of the report. Memory: 12 bytes of table per recipient, and a hash of each while the file is read.
//!
//! Limits: a line of [`LINE_OCTETS_MAX`].

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
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The longest line that is taken for an address.
const LINE_OCTETS_MAX: usize = 4096;

/// The recipients, as a copy of their file.
#[derive(Debug)]
pub(super) struct ToFile {
    pub(super) name: Arc<str>,
    spool: File,
}

impl ToFile {
    /// Copies the file at `path` and gives `push` the place of each recipient.
    pub(super) fn read(
        path: &Path,
        spool_dir: &Path,
        mut push: impl FnMut(RecipientRecord) -> Result<(), BatchError>,
    ) -> Result<ToFile, BatchError> {
        let name: Arc<str> = path.to_string_lossy().into();
        let mut file = File::open(path).map_err(|error| BatchError::open(path, &error))?;
        let spool = tempfile::tempfile_in(spool_dir)
            .map_err(|error| BatchError::spool(spool_dir, &error))?;
        let to_file = ToFile { name, spool };
        let mut seen = HashMap::new();
        let mut window = Window::new();
        to_file.begin(&mut file, spool_dir, &mut window)?;
        let (mut lines, mut mailboxes) = (0_u64, 0_u64);
        let mut within_line = false; // behind the beginning of a line that is too long
        loop {
            let bytes = window.bytes();
            let (line, len) = match memchr::memchr(b'\n', bytes) {
                Some(lf) => (&bytes[..lf], lf + 1),
                None if bytes.is_empty() && window.is_at_eof() => break,
                None if window.is_at_eof() || bytes.len() > LINE_OCTETS_MAX => (bytes, bytes.len()),
                None => {
                    to_file.copy_more(&mut file, spool_dir, &mut window)?;
                    continue;
                }
            };
            if !within_line && let Some(place) = line_place(window.offset(), line, &to_file.name)? {
                let mailbox = Mailbox::parse(line).ok();
                lines += 1;
                mailboxes += u64::from(mailbox.is_some());
                if mailbox.is_none_or(|mailbox| to_file.is_new(place, &mailbox, &mut seen)) {
                    push(place)?;
                }
            }
            within_line = bytes[len - 1] != b'\n';
            window.consume(len);
        }
        match (lines, mailboxes) {
            (0, _) => Err(BatchError::data(&to_file.name, "names no recipient")),
            (_, 0) => Err(BatchError::data(
                &to_file.name,
                &format!("names no recipient: not one of its {lines} lines is an address"),
            )),
            _ => Ok(to_file),
        }
    }

    /// Looks at the beginning: what is no text at all is refused as a whole, not line by line.
    fn begin(
        &self,
        file: &mut File,
        spool_dir: &Path,
        window: &mut Window,
    ) -> Result<(), BatchError> {
        while window.bytes().len() < SNIFF_BYTES && !window.is_at_eof() {
            self.copy_more(file, spool_dir, window)?;
        }
        let head = &window.bytes()[..window.bytes().len().min(SNIFF_BYTES)];
        let nul = memchr::memchr(0, head);
        let other = head.iter().position(|b| *b < b'\t');
        let Some(at) = nul.or(other.filter(|_| !is_utf8_so_far(head))) else {
            window.consume(sniff::utf8_mark_len(head));
            return Ok(());
        };
        Err(match sniff::kind(head) {
            FileKind::Compressed(by, _) => {
                BatchError::data(&self.name, &format!("is {by}-compressed"))
                    .hint_is("decompress it first")
            }
            FileKind::Utf16 => BatchError::data(&self.name, "is UTF-16")
                .hint_is("convert it: iconv -f UTF-16 -t UTF-8"),
            _ => BatchError::data(
                &self.name,
                &format!("is no list of addresses: a control character at byte {at}"),
            ),
        })
    }

    fn copy_more(
        &self,
        file: &mut File,
        spool_dir: &Path,
        window: &mut Window,
    ) -> Result<(), BatchError> {
        let before = window.bytes().len();
        window
            .fill(|_, buffer| file.read(buffer))
            .map_err(|error| BatchError::read(&self.name, &error))?;
        (&self.spool)
            .write_all(&window.bytes()[before..])
            .map_err(|error| BatchError::spool(spool_dir, &error))
    }

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

    /// The text of a recipient.
    pub(super) fn text(&self, place: RecipientRecord) -> io::Result<Vec<u8>> {
        let mut text = vec![0; place.len()];
        self.spool.read_exact_at(&mut text, place.at())?;
        Ok(text)
    }

    /// The mailbox of a recipient.
    pub(super) fn mailbox(
        &self,
        place: RecipientRecord,
    ) -> io::Result<Result<Mailbox, AddressError>> {
        if place.len() == 0 {
            return Ok(Err(AddressError {
                offset: 0,
                fault: AddressFault::PathTooLong,
            }));
        }
        Ok(Mailbox::parse(&self.text(place)?))
    }

    /// The line number at `to`, if the one at `from` is `line`.
    pub(super) fn line_at(&self, from: u64, line: u64, to: u64) -> u64 {
        let mut buffer = [0; 16 * 1024];
        let (mut at, mut line) = (from, line);
        while at < to {
            let want = usize::try_from(to - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            match self.spool.read_at(&mut buffer[..want], at) {
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
