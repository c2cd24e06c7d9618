//! The tables of a batch, filled by one reader and read by everybody.
//!
//! Entries are never changed or removed, so that readers need no lock. The recipients of a message enter before the message
//! itself: whoever sees a message sees all of its recipients.
//!
//! A store is nameless (its spools vanish with the process), or it is that of a job: then what intake read is in files of the job's
//! directory (see `index`) once it was [flushed](BatchStore::flush), and can be [reopened](BatchStore::reopen).
//!
//! INVARIANT: a mailbox that [`BatchStore::mailbox`] gives, and a text that [`BatchStore::recipient_text`] gives, is what
//! intake saw: addresses are read from a spool that nobody else can touch, never from the batch file, which may have changed.

use super::addresses::AddressSpool;
use super::ahead::Ahead;
use super::content::{Content, ContentError};
use super::error::BatchError;
use super::index::{ADDRESSES, INDEX, Index, Known, Progress, create_new};
use super::keep::{self, Kept};
use super::options::ReadOptions;
use super::record::{MessageRecord, RecipientRecord};
use super::reopen;
use super::source::{Location, Source};
use super::to_file::{ToFile, too_long};
use crate::mail::verdict::printable;
use crate::mail::{Mailbox, MessageNo, RecipientNo};
use crate::mbox::{canonical, envelope};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The longest text of a recipient that a report shows.
pub(super) const TEXT_OCTETS_MAX: usize = 512;

/// What is known of a batch. Shared by reference between intake, workers and report.
#[derive(Debug)]
pub struct BatchStore {
    pub(super) options: ReadOptions,
    pub(super) sources: boxcar::Vec<Source>,
    pub(super) messages: boxcar::Vec<MessageRecord>,
    pub(super) recipients: boxcar::Vec<RecipientRecord>,
    pub(super) addresses: AddressSpool,
    pub(super) to_files: boxcar::Vec<ToFile>,
    /// `None` if the batch belongs to no job.
    pub(super) index: Option<Index>,
    pub(super) is_ended: AtomicBool,
    /// Where the one who asks for recipients in order has come to; taken out while it is used.
    pub(super) reading_on: Mutex<Option<Box<ReadingOn>>>,
}

/// Who asks for recipients in order finds the next one near the last.
#[derive(Debug, Default)]
pub(super) struct ReadingOn {
    message: usize,
    /// The list of `--to-file` that `ahead` has read; `None` if it is the addresses.
    list: Option<u32>,
    ahead: Ahead,
}

impl BatchStore {
    /// Empty tables for a batch to be read with `options`. Its spools have no names.
    pub fn new(options: ReadOptions) -> BatchStore {
        let addresses = AddressSpool::new(options.spool_dir.clone());
        BatchStore::with(options, addresses, None)
    }

    /// The same for a batch that is to survive its process, in files of the job's directory `dir`.
    ///
    /// # Errors
    /// Files that cannot be made, or are there already.
    pub fn create_in(options: ReadOptions, dir: &Path) -> io::Result<BatchStore> {
        let addresses = AddressSpool::of_job(create_new(&dir.join(ADDRESSES))?, 0);
        let file = create_new(&dir.join(INDEX))?;
        let index = Index::new(dir, file, Progress::default(), Known::default());
        index.begin()?;
        Ok(BatchStore::with(options, addresses, Some(index)))
    }

    /// The batch of the job in `dir`, as far as it was [flushed](BatchStore::flush). The caller must hold the job: what a crash
    /// tore is cut off, and nobody else may write there. `options` must be those that the batch was read with. A job that was made
    /// without a batch has an empty one.
    ///
    /// What the disk spoiled is cut off, too, with all behind it ([`BatchStore::cut_bytes`]). A job that has settled more
    /// recipients than are left here must not read a stream, whose recipients would get the numbers of others.
    ///
    /// # Errors
    /// Files that are missing or cannot be read, or that another version of this program wrote.
    pub fn reopen(options: ReadOptions, dir: &Path) -> Result<BatchStore, BatchError> {
        reopen::reopen(options, dir)
    }

    /// The batch of the job in `dir` as it is at this moment, for who only looks: whoever works on it is not disturbed, and nothing
    /// is written. Without the files of a batch it is empty. Nothing can be kept or flushed: that is for who holds the job.
    ///
    /// # Errors
    /// Files that cannot be read, or that another version of this program wrote.
    pub fn look(options: ReadOptions, dir: &Path) -> Result<BatchStore, BatchError> {
        reopen::look(options, dir)
    }

    /// Removes what looks of earlier versions of this program may have left in the job's directory `dir`.
    pub fn sweep(dir: &Path) {
        reopen::sweep(dir);
    }

    fn with(options: ReadOptions, addresses: AddressSpool, index: Option<Index>) -> BatchStore {
        BatchStore {
            options,
            sources: boxcar::Vec::new(),
            messages: boxcar::Vec::new(),
            recipients: boxcar::Vec::new(),
            addresses,
            to_files: boxcar::Vec::new(),
            index,
            is_ended: AtomicBool::new(false),
            reading_on: Mutex::default(),
        }
    }

    /// Writes all that was admitted to the job's files, so that it is found again should this process die. For the intake
    /// thread, before it hands on what it read; cheap if there is nothing new. Nothing happens without a job.
    ///
    /// # Errors
    /// A failed write; the next flush tries it again. Every flush after a failed sync.
    pub fn flush(&self) -> io::Result<()> {
        self.index
            .as_ref()
            .map_or(Ok(()), |index| index.flush(self))
    }

    /// Waits until all that was flushed is on the disk, so that it is found again after a loss of power. To be called before a
    /// journal that names these recipients is synced.
    ///
    /// # Errors
    /// A failed sync; what was lost by it is not known, so that every later one, and every flush, fails too.
    pub fn sync(&self) -> io::Result<()> {
        self.index.as_ref().map_or(Ok(()), |index| index.sync(self))
    }

    /// True once all inputs were read to their end, in this run or an earlier one.
    pub fn is_read_to_end(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Bytes of the index that [`BatchStore::reopen`] cut off: of what a crash tore, or a disk spoiled.
    pub fn cut_bytes(&self) -> u64 {
        self.index.as_ref().map_or(0, |index| index.known.cut)
    }

    /// Copies the raw bytes of these messages to a spool of the job, for the next reopening: the batch file may be overwritten
    /// once this run is over. Messages that are in a spool of the job already are left there; those that are not
    /// what they were are left as they are, and those that cannot be read now are counted. What was copied is on the disk then.
    /// Without a job nothing is kept.
    ///
    /// # Errors
    /// A failed write or sync: what was kept before it is kept.
    pub fn keep(&self, messages: impl Iterator<Item = MessageNo>) -> io::Result<Kept> {
        match &self.index {
            Some(index) => keep::keep(self, index, messages),
            None => Ok(Kept::default()),
        }
    }

    /// Where spools are made.
    pub(super) fn spool_dir(&self) -> &Path {
        match &self.index {
            Some(index) => &index.dir,
            None => &self.options.spool_dir,
        }
    }

    /// An empty file for what cannot be read twice, and its name: `name` in the job's directory, none without a job.
    pub(super) fn create_spool(&self, name: &str) -> Result<(File, PathBuf), BatchError> {
        let made = match &self.index {
            Some(index) => index.create(name).map(|file| (file, name.into())),
            None => {
                tempfile::tempfile_in(&self.options.spool_dir).map(|file| (file, PathBuf::new()))
            }
        };
        made.map_err(|error| BatchError::spool(self.spool_dir(), &error))
    }

    /// What an earlier run had read.
    pub(super) fn known(&self) -> Option<&Known> {
        let index = self.index.as_ref()?;
        Some(&index.known).filter(|known| known.is_reopened)
    }

    /// A source of an earlier run was found at `location`: for [`BatchStore::load`], in this run and later ones.
    pub(super) fn found(&self, number: usize, location: Location) -> io::Result<()> {
        let (Some(source), Some(index)) = (self.sources.get(number), &self.index) else {
            return Ok(());
        };
        if source.is_found_at(location)
            && let Some(location) = source.found_later()
        {
            index.write_found(number, source, &location)?;
        }
        Ok(())
    }

    /// How the batch is read.
    pub fn options(&self) -> &ReadOptions {
        &self.options
    }

    /// How many messages have been read so far.
    pub fn message_count(&self) -> usize {
        self.messages.count()
    }

    /// How many recipients the messages read so far have: the rows of the report.
    pub fn recipient_count(&self) -> usize {
        match self.messages.count().checked_sub(1) {
            Some(last) => self.messages.get(last).map_or(0, |record| {
                record.first_recipient() as usize + record.recipients() as usize
            }),
            None => 0,
        }
    }

    /// What is known of a message.
    pub fn message(&self, message: MessageNo) -> Option<&MessageRecord> {
        self.messages.get(message.index())
    }

    /// The message that a recipient belongs to.
    pub fn message_of(&self, recipient: RecipientNo) -> Option<MessageNo> {
        let (mut low, mut high) = (0, self.messages.count());
        while low < high {
            let middle = (low + high) / 2;
            let record = self.messages.get(middle)?;
            if recipient.0 < record.first_recipient() {
                high = middle;
            } else if recipient.0 - record.first_recipient() < record.recipients() {
                return Some(MessageNo(middle as u32));
            } else {
                low = middle + 1;
            }
        }
        None
    }

    /// The name of the file that a message is in, and the offset where it begins there.
    pub fn place(&self, message: MessageNo) -> Option<(Arc<str>, u64)> {
        let record = self.message(message)?;
        let source = self.sources.get(record.source())?;
        let offset = record.offset();
        Some((source.file_name(offset), source.file_offset(offset)))
    }

    /// Reads a message, makes sure that it is still the one of intake, and makes the bytes that leave. If `content` holds it
    /// already there is nothing to do: what was right once is, and a message to very many takes many transactions.
    pub fn load(&self, message: MessageNo, content: &mut Content) -> Result<(), ContentError> {
        if content.message == Some(message) {
            return Ok(());
        }
        content.forget();
        let record = self.message(message).ok_or(ContentError::Invalid)?;
        let source = self
            .sources
            .get(record.source())
            .ok_or(ContentError::Invalid)?;
        if record.is_invalid() {
            return Err(ContentError::Invalid);
        }
        self.read_raw(record, &mut content.raw)?;
        self.read(source, &self.options.date, content)?;
        content.message = Some(message);
        Ok(())
    }

    /// Makes what leaves of the raw bytes in `content`. `date`: for a message without one.
    pub(super) fn read(
        &self,
        source: &Source,
        date: &str,
        content: &mut Content,
    ) -> Result<(), ContentError> {
        let from_line_len = match source.flavour {
            Some(_) if content.raw.starts_with(b"From ") => {
                memchr::memchr(b'\n', &content.raw).map_or(content.raw.len(), |lf| lf + 1)
            }
            _ => 0,
        };
        let (from_line, message) = content.raw.split_at(from_line_len);
        let (header_len, _) = canonical::split(message);
        let header = &message[..header_len];
        let fields = &mut content.fields;
        fields
            .scan(header, self.options.fold_long_lines)
            .map_err(ContentError::Unfit)?;
        let rules = self.options.envelope_rules();
        content.reverse_path = envelope::reverse_path(header, fields, from_line, &rules)
            .map_err(ContentError::Envelope)?;
        let rules = canonical::Rules {
            date,
            ..self.options.canonical_rules(source.flavour)
        };
        content.facts = canonical::canonicalise(message, fields, &rules, &mut content.bytes)
            .map_err(ContentError::Unfit)?;
        content.drop_raw();
        Ok(())
    }

    /// The mailbox of a recipient of the message that is loaded in `content`.
    pub fn mailbox(
        &self,
        content: &Content,
        recipient: RecipientNo,
    ) -> Result<Mailbox, ContentError> {
        let message = content.message.ok_or(ContentError::Invalid)?;
        let record = self.message(message).ok_or(ContentError::Invalid)?;
        let index = recipient.0.checked_sub(record.first_recipient());
        if index.is_none_or(|index| index >= record.recipients()) {
            return Err(ContentError::Invalid);
        }
        let place = *self
            .recipients
            .get(recipient.index())
            .ok_or(ContentError::Invalid)?;
        if record.is_to_file() {
            let to_file = self.to_file(message).ok_or(ContentError::Invalid)?;
            let mailbox = to_file.mailbox(place).map_err(ContentError::Io)?;
            return mailbox.map_err(|_| ContentError::Invalid);
        }
        let mut text = [0; TEXT_OCTETS_MAX];
        let text = text
            .get_mut(..place.len())
            .filter(|_| place.is_mailbox())
            .ok_or(ContentError::Invalid)?;
        let read = self.addresses.read(place.at(), text);
        read.map_err(ContentError::Io)?;
        Mailbox::parse_addr_spec(text).map_err(|_| ContentError::Invalid)
    }

    /// The list of recipients of a message to very many.
    pub(super) fn to_file(&self, message: MessageNo) -> Option<&ToFile> {
        let mut lists = self.to_files.iter().map(|(_, list)| list);
        // There are as many as runs of a job with a name; mostly one.
        lists.find(|list| list.message == message.0)
    }

    /// A recipient as a report shows it: the address in wire form, or what stands in its place, printable. Empty for a message
    /// without recipients.
    pub fn recipient_text(&self, recipient: RecipientNo) -> String {
        self.person(recipient)
            .map_or_else(String::new, |(_, text)| text)
    }

    /// The message that a recipient belongs to, and its address as [`BatchStore::recipient_text`] has it. Cheap for who asks for
    /// one recipient after the other.
    pub fn person(&self, recipient: RecipientNo) -> Option<(MessageNo, String)> {
        let (message, text) = self.look_up(recipient, |place, is_line, text| {
            if !is_line {
                return String::from_utf8(text.to_vec()).unwrap_or_default();
            }
            match mailbox_of_line(place, text) {
                Ok(mailbox) => mailbox.as_str().to_owned(),
                Err(_) => printable(&String::from_utf8_lossy(text), TEXT_OCTETS_MAX),
            }
        })?;
        Some((message, text.ok()?))
    }

    /// The message that a recipient belongs to, and where its mail is to go, without loading the message: for mail that an
    /// earlier run left. Invalid messages and recipients give the error that [`BatchStore::mailbox`] gives for them; an
    /// address that cannot be read gives [`ContentError::Io`], which says nothing of the recipient.
    /// Cheap for who asks for one recipient after the other.
    pub fn address(
        &self,
        recipient: RecipientNo,
    ) -> Option<(MessageNo, Result<Mailbox, ContentError>)> {
        let (message, read) = self.look_up(recipient, |place, is_line, text| {
            let parsed = match is_line {
                true => mailbox_of_line(place, text).ok(),
                false if !place.is_mailbox() => None,
                false => Mailbox::parse_addr_spec(text).ok(),
            };
            parsed.ok_or(ContentError::Invalid)
        })?;
        if self.message(message)?.is_invalid() {
            return Some((message, Err(ContentError::Invalid)));
        }
        Some((message, read.map_err(ContentError::Io).flatten()))
    }

    /// Gives `f` the record of a recipient, whether it is a line of `--to-file`, and its text.
    fn look_up<T>(
        &self,
        recipient: RecipientNo,
        f: impl FnOnce(RecipientRecord, bool, &[u8]) -> T,
    ) -> Option<(MessageNo, io::Result<T>)> {
        let mut reading_on = self.take_reading_on().unwrap_or_default();
        let found = self.read_on(recipient, &mut reading_on, f);
        *self.lock_reading_on() = Some(reading_on);
        found
    }

    fn take_reading_on(&self) -> Option<Box<ReadingOn>> {
        self.lock_reading_on().take()
    }

    fn lock_reading_on(&self) -> std::sync::MutexGuard<'_, Option<Box<ReadingOn>>> {
        // It is a cache: whole whenever it is there.
        self.reading_on
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read_on<T>(
        &self,
        recipient: RecipientNo,
        reading_on: &mut ReadingOn,
        f: impl FnOnce(RecipientRecord, bool, &[u8]) -> T,
    ) -> Option<(MessageNo, io::Result<T>)> {
        let belongs = |n: usize| {
            let record = self.messages.get(n)?;
            let index = recipient.0.checked_sub(record.first_recipient())?;
            (index < record.recipients()).then_some(MessageNo(n as u32))
        };
        let near = reading_on.message;
        let message = belongs(near)
            .or_else(|| belongs(near + 1))
            .or_else(|| self.message_of(recipient))?;
        reading_on.message = message.index();
        let place = *self.recipients.get(recipient.index())?;
        let is_line = self.message(message)?.is_to_file();
        let list = is_line.then_some(message.0);
        if reading_on.list != list {
            reading_on.list = list;
            reading_on.ahead.forget();
        }
        let ahead = &mut reading_on.ahead;
        let text = if is_line {
            self.to_file(message)?.text_on(place, ahead)
        } else {
            self.addresses.read_on(place.at(), place.len(), ahead)
        };
        Some((message, text.map(|text| f(place, is_line, text))))
    }
}

/// The mailbox in a line of `--to-file`.
fn mailbox_of_line(
    place: RecipientRecord,
    line: &[u8],
) -> Result<Mailbox, crate::mail::address::AddressError> {
    if place.len() == 0 {
        return Err(too_long());
    }
    Mailbox::parse(line)
}
