//! The tables of a batch, filled by one reader and read by everybody.
//!
//! Entries are never changed or removed, so that readers need no lock. The recipients of a message enter before the message
//! itself: whoever sees a message sees all of its recipients.
//!
//! INVARIANT: a mailbox that [`BatchStore::mailbox`] gives, and a text that [`BatchStore::recipient_text`] gives, is what intake saw:
//! addresses are read from a spool that nobody else can touch, never from the batch file, which may have changed.

use super::addresses::AddressSpool;
use super::content::{Content, ContentError};
use super::options::ReadOptions;
use super::record::{MessageRecord, RecipientRecord};
use super::source::Source;
use super::to_file::ToFile;
use crate::mail::verdict::printable;
use crate::mail::{Mailbox, MessageNo, RecipientNo};
use crate::mbox::sniff::UTF8_MARK;
use crate::mbox::{canonical, envelope};
use std::sync::{Arc, OnceLock};

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
    pub(super) to_file: OnceLock<ToFile>,
}

impl BatchStore {
    /// Empty tables for a batch to be read with `options`.
    pub fn new(options: ReadOptions) -> BatchStore {
        BatchStore {
            addresses: AddressSpool::new(options.spool_dir.clone()),
            options,
            sources: boxcar::Vec::new(),
            messages: boxcar::Vec::new(),
            recipients: boxcar::Vec::new(),
            to_file: OnceLock::new(),
        }
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
        content.raw.resize(record.length() as usize, 0);
        let skip = if record.is_marked() {
            UTF8_MARK.len() as u64
        } else {
            0
        };
        source.read_exact_at(record.offset(), skip, &mut content.raw)?;
        if xxhash_rust::xxh3::xxh3_64(&content.raw) != record.hash() {
            return Err(ContentError::Changed);
        }
        self.read(source, content)?;
        content.message = Some(message);
        Ok(())
    }

    fn read(&self, source: &Source, content: &mut Content) -> Result<(), ContentError> {
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
        let rules = self.options.canonical_rules(source.flavour);
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
            let to_file = self.to_file.get().ok_or(ContentError::Invalid)?;
            return to_file.mailbox(place)?.map_err(|_| ContentError::Invalid);
        }
        let mut text = [0; TEXT_OCTETS_MAX];
        let text = text
            .get_mut(..place.len())
            .filter(|_| place.is_mailbox())
            .ok_or(ContentError::Invalid)?;
        self.addresses.read(place.at(), text)?;
        Mailbox::parse_addr_spec(text).map_err(|_| ContentError::Invalid)
    }

    /// A recipient as a report shows it: the address in wire form, or what stands in its place, printable. Empty for a message
    /// without recipients.
    pub fn recipient_text(&self, recipient: RecipientNo) -> String {
        let text = |recipient| {
            let record = self.message(self.message_of(recipient)?)?;
            let place = *self.recipients.get(recipient.index())?;
            if record.is_to_file() {
                let text = self.to_file.get()?.text(place).ok()?;
                return Some(match Mailbox::parse(&text) {
                    Ok(mailbox) => mailbox.as_str().to_owned(),
                    Err(_) => printable(&String::from_utf8_lossy(&text), TEXT_OCTETS_MAX),
                });
            }
            let mut text = vec![0; place.len()];
            self.addresses.read(place.at(), &mut text).ok()?;
            String::from_utf8(text).ok()
        };
        text(recipient).unwrap_or_default()
    }
}
