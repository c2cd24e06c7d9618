//! The reading half of intake: walks over the inputs with one window and one scan, and stops after each message.
//!
//! Knows files, streams and spools, but nothing of envelopes. A stream is written to its spool before it is looked at, so that a
//! message that was handed out can be loaded at once.

use super::error::BatchError;
use super::record::SOURCES_MAX;
use super::source::{Location, Place, Prepared, Source, is_mbox};
use super::store::BatchStore;
use super::window::{Window, newlines};
use crate::mbox::MboxFlavour;
use crate::mbox::fault::Fault;
use crate::mbox::from_line::{Look, look};
use crate::mbox::scan::MessageScan;
use crate::mbox::sniff::{SNIFF_BYTES, UTF8_MARK, utf8_mark_len};
use crate::mbox::splitter::{Splitter, Step, Suspect};
use memchr::memmem::Finder;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many lines that look like separators are reported of one message.
const DATELESS_MAX: usize = 20;

/// What came next.
pub(super) enum Event {
    /// A message has passed: see [`Intake::scan`].
    Message,
    /// A file of a Maildir that should have been a message cannot be read, for this reason.
    Unreadable(String),
}

/// Where a message began.
#[derive(Clone, Copy, Default)]
pub(super) struct Begin {
    pub(super) source: u32,
    /// As a record has it: for a Maildir the number of the file.
    pub(super) offset: u64,
    /// In the file.
    pub(super) file_offset: u64,
    pub(super) line: u64,
    /// It is a file of a Maildir, behind a byte order mark.
    pub(super) marked: bool,
}

/// A source that is being read.
struct Stream {
    source: usize,
    feed: Feed,
    cutter: Cutter,
    /// Files of a Maildir that are still to be read; the first is the one under way.
    files: std::ops::Range<u64>,
}

/// Where its bytes come from.
enum Feed {
    /// From the file that the source keeps open.
    Source,
    /// From a file that is closed afterwards.
    File(File),
    /// From a stream; they go to the spool, too.
    Pipe(Box<dyn Read + Send>, File),
    /// From nowhere: the file could not be opened.
    Failed(String),
}

/// Cuts a source into messages.
enum Cutter {
    Mbox(Box<Splitter>),
    /// The whole source is one message, which has begun and ended, or not.
    Single {
        begun: bool,
        ended: bool,
    },
}

impl Cutter {
    fn new(flavour: Option<MboxFlavour>) -> Cutter {
        match flavour {
            Some(flavour) => Cutter::Mbox(Box::new(Splitter::new(flavour))),
            None => Cutter::Single {
                begun: false,
                ended: false,
            },
        }
    }

    fn next(&mut self, window: &[u8], at_eof: bool) -> Step {
        match self {
            Cutter::Mbox(splitter) => splitter.next(window, at_eof),
            Cutter::Single { ended: true, .. } => Step::Done,
            Cutter::Single { begun, .. } if !*begun => {
                *begun = true;
                Step::Begin(0)
            }
            Cutter::Single { .. } if !window.is_empty() => Step::Content(window.len()),
            Cutter::Single { ended, .. } if at_eof => {
                *ended = true;
                Step::End
            }
            Cutter::Single { .. } => Step::More,
        }
    }
}

/// The state of reading a batch.
pub(super) struct Intake {
    store: Arc<BatchStore>,
    inputs: VecDeque<Prepared>,
    stream: Option<Stream>,
    window: Window,
    marked_from: Finder<'static>,
    pub(super) scan: MessageScan,
    pub(super) begin: Begin,
    /// The line of the scan's fault.
    pub(super) fault_line: u64,
    /// Where the latest message ended in its file.
    read_to: u64,
    /// The content so far ends with the end of a line.
    ends_line: bool,
    /// Lines that begin as separators do, without a date: offset and line in the file.
    pub(super) dateless: Vec<(u64, u64)>,
}

impl Intake {
    pub(super) fn new(store: Arc<BatchStore>, inputs: Vec<Prepared>) -> Intake {
        Intake {
            scan: MessageScan::new(store.options.fold_long_lines),
            store,
            inputs: inputs.into(),
            stream: None,
            window: Window::new(),
            marked_from: Finder::new(b"\xef\xbb\xbfFrom "),
            begin: Begin::default(),
            fault_line: 0,
            read_to: 0,
            ends_line: true,
            dateless: Vec::new(),
        }
    }

    /// The name of the file that the message under way is in.
    pub(super) fn file_name(&self) -> Arc<str> {
        match self.store.sources.get(self.begin.source as usize) {
            Some(source) => source.file_name(self.begin.offset),
            None => "".into(),
        }
    }

    /// Reads up to the end of the next message; `None` at the end of the batch.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, BatchError> {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.inputs.pop_front() {
                    None => return Ok(None),
                    Some(input) => self.open(input)?,
                }
                continue;
            };
            if let Feed::Failed(error) = &mut stream.feed {
                let error = std::mem::take(error);
                self.message_begins(0);
                self.next_file();
                return Ok(Some(Event::Unreadable(error)));
            }
            if self.window.offset() == 0 && self.skip_mark()? {
                continue;
            }
            let Some(stream) = &mut self.stream else {
                continue;
            };
            match stream
                .cutter
                .next(self.window.bytes(), self.window.is_at_eof())
            {
                Step::More => self.fill()?,
                Step::Skip(len) => self.window.consume(len),
                Step::Begin(len) => self.message_begins(len),
                Step::Content(len) => self.content(len),
                Step::Suspect(len, why) => self.suspect(len, why),
                Step::Fault(fault) => {
                    self.scan.fault(fault);
                    self.fault_line = self.window.line();
                }
                Step::End => {
                    self.read_to = self.window.offset();
                    self.look_for_cut();
                    if self.scan.first_fault().is_none() && self.scan.finish().is_some() {
                        self.fault_line = self.window.line();
                    }
                    return Ok(Some(Event::Message));
                }
                Step::Done => self.next_file(),
            }
        }
    }

    /// A message that ends with its stream, in the middle of a line: a pipe whose writer was stopped looks like that, and the
    /// rest of the message, or of an address in its header, is not there.
    fn look_for_cut(&mut self) {
        let is_piped_mbox = self.stream.as_ref().is_some_and(|stream| {
            matches!(stream.feed, Feed::Pipe(..)) && matches!(stream.cutter, Cutter::Mbox(_))
        });
        let is_last = self.window.is_at_eof() && self.window.bytes().is_empty();
        if is_piped_mbox && is_last && !self.ends_line && self.scan.first_fault().is_none() {
            self.scan.fault(Fault::CutOff);
            self.fault_line = self.window.line();
        }
    }

    /// Passes over a byte order mark at the beginning of a file: editors put it there, and it belongs to no message. True if
    /// there is more to look at first.
    fn skip_mark(&mut self) -> Result<bool, BatchError> {
        let head = self.window.bytes();
        if !self.window.is_at_eof() && head.len() < UTF8_MARK.len() && UTF8_MARK.starts_with(head) {
            self.fill()?;
            return Ok(true);
        }
        let len = utf8_mark_len(head);
        self.window.consume(len);
        Ok(false)
    }

    fn message_begins(&mut self, from_line_len: usize) {
        let Some(stream) = &self.stream else { return };
        let file_offset = self.window.offset();
        self.begin = Begin {
            source: stream.source as u32,
            offset: if stream.files.is_empty() {
                file_offset
            } else {
                stream.files.start
            },
            file_offset,
            line: self.window.line(),
            marked: !stream.files.is_empty() && file_offset > 0,
        };
        self.dateless.clear();
        self.ends_line = true;
        self.scan.begin(&self.window.bytes()[..from_line_len]);
        self.window.consume(from_line_len);
    }

    /// Content, of which some may be a separator behind a byte order mark: files that were marked, one behind the other. The
    /// splitter does not take it for one, and the message would carry the next one along, to the wrong people.
    fn content(&mut self, len: usize) {
        let Some(at) = self.marked_separator(len) else {
            return self.plain_content(len);
        };
        self.plain_content(at);
        if self.scan.first_fault().is_none() {
            self.scan.fault(Fault::MarkedSeparator);
            self.fault_line = self.window.line();
        }
        self.plain_content(len - at);
    }

    /// Where in the next `len` bytes such a separator is, as long as the message is good. mboxcl2 needs none.
    fn marked_separator(&self, len: usize) -> Option<usize> {
        let source = self.store.sources.get(self.begin.source as usize)?;
        let is_split_there = source.flavour.is_some_and(|one| one != MboxFlavour::Cl2);
        if !is_split_there || self.scan.first_fault().is_some() {
            return None;
        }
        let run = &self.window.bytes()[..len];
        self.marked_from.find_iter(run).find(|&at| {
            let begins_line = at == 0 || run[at - 1] == b'\n';
            let line = &run[at + UTF8_MARK.len()..];
            begins_line && matches!(look(line, true), Look::Separator(_))
        })
    }

    fn plain_content(&mut self, len: usize) {
        let run = &self.window.bytes()[..len];
        if let Some(last) = run.last() {
            self.ends_line = *last == b'\n';
        }
        let length_before = self.scan.length();
        let was_good = self.scan.first_fault().is_none();
        self.scan.content(run);
        if was_good && let Some(at) = self.scan.first_fault() {
            // A fault before this run is in the line that the run begins in.
            let within = at.offset.saturating_sub(length_before).min(len as u64) as usize;
            self.fault_line = self.window.line() + newlines(&run[..within]);
        }
        self.window.consume(len);
    }

    /// Content that looks like a separator. With a date in it, it is one that somebody forgot to set off: the message would
    /// carry the next one along, to the wrong people.
    fn suspect(&mut self, len: usize, why: Suspect) {
        let empty_line = crate::mbox::line_end_len(self.window.bytes());
        match why {
            Suspect::NoEmptyLine if self.scan.first_fault().is_none() => {
                self.scan.fault(Fault::LostSeparator);
                self.fault_line = self.window.line();
            }
            Suspect::Dateless if self.dateless.len() < DATELESS_MAX => {
                let line = self.window.line() + u64::from(empty_line > 0);
                let offset = self.window.offset() + empty_line as u64;
                self.dateless.push((offset, line));
            }
            _ => {}
        }
        self.content(len);
    }

    fn fill(&mut self) -> Result<(), BatchError> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let Some(source) = self.store.sources.get(stream.source) else {
            return Ok(());
        };
        let before = self.window.bytes().len();
        let result = match &mut stream.feed {
            Feed::Source => self
                .window
                .fill(|position, buffer| match &source.location.place {
                    Place::Open(file) | Place::Spool(file) => file.read_at(buffer, position),
                    _ => Ok(0),
                }),
            Feed::File(file) => self.window.fill(|_, buffer| file.read(buffer)),
            Feed::Pipe(reader, _) => self.window.fill(|_, buffer| reader.read(buffer)),
            Feed::Failed(_) => Ok(()),
        };
        result.map_err(|error| BatchError::read(&source.name, &error))?;
        if let Feed::Pipe(_, spool) = &mut stream.feed {
            let dir = self.store.spool_dir();
            spool
                .write_all(&self.window.bytes()[before..])
                .map_err(|error| {
                    let messages = self.store.messages.count();
                    BatchError::spool(dir, &error).after(&source.name, messages, self.read_to)
                })?;
        }
        Ok(())
    }

    /// Begins with an input.
    fn open(&mut self, input: Prepared) -> Result<(), BatchError> {
        self.window.restart();
        self.read_to = 0;
        match input {
            Prepared::Known(source) => {
                let number = self.push_source(source)?;
                self.start(number)
            }
            Prepared::Again(number) => self.start(number),
            Prepared::Stream(name, reader) => self.open_pipe(name, reader),
            Prepared::Lost(error) => Err(error),
        }
    }

    fn push_source(&mut self, source: Source) -> Result<usize, BatchError> {
        if self.store.sources.count() >= SOURCES_MAX {
            return Err(BatchError::data(&source.name, "is one input too many"));
        }
        self.store.is_ended.store(false, Ordering::Release);
        Ok(self.store.sources.push(source))
    }

    /// Begins with a source of the tables.
    fn start(&mut self, number: usize) -> Result<(), BatchError> {
        let Some(source) = self.store.sources.get(number) else {
            return Ok(());
        };
        let was_moved = source.found_later().is_some();
        let files = source.files();
        let feed = match &source.location.place {
            Place::Open(_) | Place::Spool(_) if !was_moved => Feed::Source,
            _ if files.is_some() => Feed::Source,
            _ => match source.open(0) {
                Ok(file) => Feed::File(file),
                Err(error) => return Err(BatchError::open(Path::new(&*source.name), &error)),
            },
        };
        self.stream = Some(Stream {
            source: number,
            feed,
            cutter: Cutter::new(source.flavour),
            files: 0..files.unwrap_or(0),
        });
        if files.is_some() {
            self.open_file();
        }
        Ok(())
    }

    /// Begins with a stream: its first bytes show what it is.
    fn open_pipe(&mut self, name: String, reader: Box<dyn Read + Send>) -> Result<(), BatchError> {
        let store = Arc::clone(&self.store);
        let name_of_spool = format!("stdin-{}", store.sources.count() + 1);
        let (spool, path) = store.create_spool(&name_of_spool)?;
        let failed = |error| BatchError::spool(store.spool_dir(), &error);
        let writer = spool.try_clone().map_err(failed)?;
        // The kind of a source is fixed once it is in the table, and fill() needs one there: peek first.
        let mut reader = reader;
        let head = peek(&mut reader).map_err(|error| BatchError::read(&name, &error))?;
        let options = &self.store.options;
        let flavour = is_mbox(&name, &head, None, options.command)?
            .then(|| options.flavour.unwrap_or_default());
        let reader = Box::new(std::io::Cursor::new(head).chain(reader));
        let place = Place::Spool(spool);
        let source = Source::new(name.into(), Location { path, place }, flavour);
        let number = self.push_source(source)?;
        self.stream = Some(Stream {
            source: number,
            feed: Feed::Pipe(reader, writer),
            cutter: Cutter::new(flavour),
            files: 0..0,
        });
        Ok(())
    }

    /// Goes on with the next file of a Maildir, or with nothing.
    fn next_file(&mut self) {
        match &mut self.stream {
            Some(stream) if stream.files.end - stream.files.start > 1 => {
                stream.files.start += 1;
                self.open_file();
            }
            _ => self.stream = None,
        }
    }

    fn open_file(&mut self) {
        self.window.restart();
        let Some(stream) = &mut self.stream else {
            return;
        };
        let Some(source) = self.store.sources.get(stream.source) else {
            return;
        };
        stream.cutter = Cutter::new(None);
        stream.feed = match source.open(stream.files.start) {
            Ok(file) => Feed::File(file),
            Err(error) => Feed::Failed(error.to_string()),
        };
    }
}

/// The first bytes of a stream: as many as it takes to see a line, and no more than that, because the rest may come late.
fn peek(reader: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; SNIFF_BYTES];
    let mut len = 0;
    while len < head.len() && !head[..len].trim_ascii_start().contains(&b'\n') {
        match reader.read(&mut head[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(len);
    Ok(head)
}
