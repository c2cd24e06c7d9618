//! The deciding half of intake: each message that has passed gets its envelopes and its records.
//!
//! A message comes out as one [`Arrival`], with all its recipients; only a message to very many (`--to-file`) takes several, of
//! bounded many recipients each (see `many`). A message that cannot be sent arrives all the same, with recipients that carry
//! the problem instead of a mailbox: one that stands for the message itself, if it names none.
//!
//! What an earlier run of the job read does not arrive again: a batch that was not read to its end is read again, and the messages
//! that are known are compared with their records (see `again`); of a job with a name only mail that is new arrives (see `keys`).

use super::again::{again, changed};
use super::content::Content;
use super::error::{BatchError, BatchErrorKind};
use super::intake::{Event, Intake};
use super::keys::{self, Identity, Keys};
use super::many::Many;
use super::problem::{Problem, What};
use super::record::{MessageParts, MessageRecord, RecipientRecord};
use super::source::{Input, Prepared, prepare};
use super::store::{BatchStore, TEXT_OCTETS_MAX};
use crate::mail::verdict::printable;
use crate::mail::{Mailbox, MessageNo, RecipientNo, ReversePath};
use crate::mbox::envelope::{EnvelopeFault, Recipient};
use crate::mbox::field::FieldKind;
use crate::mbox::header::Fields;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// More problems than these are counted in the recipients only.
pub(super) const PROBLEMS_MAX: usize = 100;

/// One recipient of a message that has arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its number: the row of the report.
    pub no: RecipientNo,
    /// Where its mail is to go, or why it cannot.
    pub outcome: Result<Mailbox, Problem>,
}

/// A message that has been read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The message.
    pub message: MessageNo,
    /// Its reverse-path; `None` if it has none, and cannot be sent.
    pub reverse_path: Option<&'a ReversePath>,
    /// Its recipients, at least one.
    pub recipients: &'a [Arrived],
    /// All that is wrong with it, warnings included.
    pub problems: &'a [Problem],
    /// False if more recipients of the same message follow.
    pub is_complete: bool,
}

/// Reads a batch, message after message.
pub struct BatchReader {
    pub(super) store: Arc<BatchStore>,
    pub(super) intake: Intake,
    pub(super) fields: Fields,
    pub(super) found: Vec<Recipient>,
    pub(super) reverse_path: Option<ReversePath>,
    pub(super) arrived: Vec<Arrived>,
    pub(super) problems: Vec<Problem>,
    many: Option<Many>,
    /// Messages of an earlier run that are still to come by again, from the first on: the next, and the one behind the last.
    pub(super) known: std::ops::Range<usize>,
    /// The batch is over when the inputs are: false if none is there to be read again.
    ends: bool,
    /// Of a job with a name.
    pub(super) keys: Option<Keys>,
    /// A message is loaded here if its key must be found out.
    scratch: Content,
}

impl BatchReader {
    /// Looks at all inputs; an error about any of them comes now, before anything is read. What is read goes into `store`,
    /// which also says how.
    ///
    /// If `store` was reopened, `inputs` are those that it was made from, in that order, wherever they are now.
    /// What was read to its end is not read again. Otherwise it is, and only what is new arrives. Errors about inputs come when
    /// they are met then: what is known can be sent all the same. Without inputs nothing arrives.
    pub fn open(inputs: Vec<Input>, store: Arc<BatchStore>) -> Result<BatchReader, BatchError> {
        let (mut ends, mut known) = (true, 0);
        let prepared = match store.known().filter(|known| known.sources > 0) {
            None => prepare(inputs, &store.options)?,
            Some(earlier) => {
                ends = !inputs.is_empty();
                known = earlier.messages;
                again(inputs, &store, earlier)
            }
        };
        if store.is_read_to_end() || !ends {
            known = 0;
        } else {
            check_list(&store)?;
        }
        let mut reader = BatchReader::with(prepared, store);
        reader.ends = ends;
        reader.known = 0..known;
        Ok(reader)
    }

    /// The same for a job with a name, whose batch may come again and again: `inputs` are read as further ones, and only mail that
    /// is new arrives. Every run of such a job that reads anything must read it in this way.
    /// What makes a mail the same is its recipient and its Message-ID; without one, its content.
    pub fn open_named(
        inputs: Vec<Input>,
        store: Arc<BatchStore>,
    ) -> Result<BatchReader, BatchError> {
        let prepared = prepare(inputs, &store.options)?;
        check_list(&store)?;
        let keys = store.index.as_ref().map(|index| index.take_keys());
        let mut reader = BatchReader::with(prepared, store);
        reader.keys = Some(Keys::new(keys.unwrap_or_default()));
        Ok(reader)
    }

    /// For a batch whose inputs were not read to their end, and are another batch now, as the one at `path` shows: nothing
    /// arrives, and the end is an error.
    pub fn open_changed(path: &Path, store: Arc<BatchStore>) -> BatchReader {
        let error = changed(&path.to_string_lossy(), "it is another batch");
        let mut reader = BatchReader::with(vec![Prepared::Lost(error)], store);
        reader.ends = false;
        reader
    }

    fn with(prepared: Vec<Prepared>, store: Arc<BatchStore>) -> BatchReader {
        BatchReader {
            intake: Intake::new(store.clone(), prepared),
            store,
            fields: Fields::default(),
            found: Vec::new(),
            reverse_path: None,
            arrived: Vec::new(),
            problems: Vec::new(),
            many: None,
            known: 0..0,
            ends: true,
            keys: None,
            scratch: Content::new(),
        }
    }

    /// How many recipients came by that had been admitted before: only a job with a name has such.
    pub fn repeated(&self) -> u64 {
        self.keys.as_ref().map_or(0, |keys| keys.repeated)
    }

    /// The next message, or the next recipients of it; `None` at the end of the batch.
    pub fn next_arrival(&mut self) -> Result<Option<Arrival<'_>>, BatchError> {
        if let Some(many) = self.many.take() {
            if many.rest.is_empty() {
                return self.end();
            }
            return self.next_chunk(many);
        }
        loop {
            let Some(event) = self.intake.next_event()? else {
                return self.end();
            };
            self.arrived.clear();
            self.problems.clear();
            let problem = match event {
                Event::Message => self.judge(),
                Event::Unreadable(error) => Some(self.unreadable(error)),
            };
            if !self.known.is_empty() {
                self.recognise(problem.is_some())?;
                continue;
            }
            self.problems.extend(problem.clone());
            self.add_dateless();
            if let Some(path) = self.store.options.to_file.clone() {
                return match self.settle_many(&path, problem)? {
                    Some(many) => self.next_chunk(many),
                    None => self.end(),
                };
            }
            let Some(message) = self.settle(problem)? else {
                continue;
            };
            return Ok(Some(Arrival {
                message,
                reverse_path: self.reverse_path.as_ref(),
                recipients: &self.arrived,
                problems: &self.problems,
                is_complete: true,
            }));
        }
    }

    /// Goes on with a message to very many at the next call.
    pub(super) fn go_on(&mut self, many: Many) {
        self.many = Some(many);
    }

    /// The batch is over, and the job's files say so.
    fn end(&mut self) -> Result<Option<Arrival<'_>>, BatchError> {
        if !self.known.is_empty() {
            return Err(self.changed("it has fewer messages"));
        }
        if self.ends {
            self.store.is_ended.store(true, Ordering::Release);
            self.store
                .flush()
                .map_err(|error| BatchError::spool(self.store.spool_dir(), &error))?;
        }
        Ok(None)
    }

    /// The number of the message that has passed.
    pub(super) fn message_no(&self) -> usize {
        if self.known.is_empty() {
            self.store.messages.count()
        } else {
            self.known.start
        }
    }

    /// Puts the message and its recipients into the tables; `None` if a job with a name knows them all.
    fn settle(&mut self, problem: Option<Problem>) -> Result<Option<MessageNo>, BatchError> {
        let stands_alone = self.found.is_empty();
        if !self.drop_repeated(problem.is_some()) {
            return Ok(None);
        }
        let first = self.store.recipients.count();
        let mut known = (0, 0);
        for i in 0..self.found.len() {
            let found = &self.found[i];
            let outcome = match (&problem, &found.mailbox) {
                (Some(problem), _) => Err(problem.clone()),
                (None, Ok(mailbox)) => Ok(mailbox.clone()),
                (None, Err(error)) => {
                    let what = What::address(found.field.name(), error.fault, self.text_of(found));
                    Err(self.address_problem(&mut known, error.offset, what))
                }
            };
            let no = self.push_address(found)?;
            if let (None, Err(problem)) = (&problem, &outcome)
                && self.problems.len() < PROBLEMS_MAX
            {
                self.problems.push(problem.clone());
            }
            self.arrived.push(Arrived { no, outcome });
        }
        if stands_alone {
            let problem = problem.clone().unwrap_or_else(|| {
                self.header_problem(0, What::Envelope(EnvelopeFault::NoRecipients))
            });
            let no = self.push_recipient(RecipientRecord::new(0, 0, false))?;
            self.arrived.push(Arrived {
                no,
                outcome: Err(problem),
            });
        }
        let recipients = self.arrived.len();
        let record = self.record(first, recipients, problem.is_some(), false);
        self.push_message(record).map(Some)
    }

    /// Leaves only recipients whose mail a job with a name does not know. False if none is left.
    fn drop_repeated(&mut self, is_invalid: bool) -> bool {
        let Some(identity) = self.identity(is_invalid) else {
            return true;
        };
        let (Some(keys), Some(index)) = (&mut self.keys, &self.store.index) else {
            return true;
        };
        let header = self.intake.scan.header();
        let mut is_new = |recipient: keys::Recipient<'_>| {
            let key = identity.key(&recipient);
            let is_new = keys.is_new(key);
            if is_new {
                index.push_key(key);
            }
            is_new
        };
        if self.found.is_empty() {
            return is_new(keys::Recipient::Unfit(b""));
        }
        self.found.retain(|found| {
            is_new(match &found.mailbox {
                Ok(mailbox) => keys::Recipient::Mailbox(mailbox),
                Err(_) => keys::Recipient::Unfit(text_in(header, found)),
            })
        });
        !self.found.is_empty()
    }

    /// What makes the message that has passed the same when it comes again; `None` if the job has no name.
    pub(super) fn identity(&mut self, is_invalid: bool) -> Option<Identity> {
        if self.keys.is_none() || self.store.index.is_none() {
            return None;
        }
        let scan = &self.intake.scan;
        let unfit = Identity::of_unfit(scan.hash(), scan.length());
        if is_invalid {
            return Some(unfit);
        }
        if self.store.options.once_per_recipient {
            return Some(Identity::of_any());
        }
        let header = scan.header();
        let mut ids = self.fields.of_kind(FieldKind::MessageId);
        let id = ids.next().and_then(|field| header.get(field.value()));
        if let Some(id) = id.map(<[u8]>::trim_ascii).filter(|id| !id.is_empty()) {
            return Some(Identity::of_message_id(id));
        }
        let record = self.record(0, 0, false, false);
        let source = self.store.sources.get(record.source())?;
        let content = &mut self.scratch;
        content.forget();
        // It was in the spool or the file a moment ago.
        let loaded = self
            .store
            .read_raw(&record, &mut content.raw)
            .and_then(|()| self.store.read(source, "", content));
        Some(match loaded {
            Ok(()) => Identity::of_content(content.bytes()),
            Err(_) => unfit,
        })
    }

    /// Keeps the address of a recipient: who gets no mail must be named even if the batch file is overwritten.
    fn push_address(&self, found: &Recipient) -> Result<RecipientNo, BatchError> {
        let text = self.shown(found);
        let at = self
            .store
            .addresses
            .append(text.as_bytes())
            .map_err(|error| BatchError::spool(self.store.spool_dir(), &error))?;
        self.push_recipient(RecipientRecord::new(at, text.len(), found.mailbox.is_ok()))
    }

    /// The text of a recipient that is kept.
    pub(super) fn shown<'a>(&self, found: &'a Recipient) -> Cow<'a, str> {
        match &found.mailbox {
            Ok(mailbox) => mailbox.as_str().into(),
            Err(_) => {
                // A mailbox may be longer than what is shown of nonsense: comments and folding count, too.
                let text = self.text_of(found);
                let text = &text[..text.len().min(16 * TEXT_OCTETS_MAX)];
                printable(&String::from_utf8_lossy(text), TEXT_OCTETS_MAX).into()
            }
        }
    }

    /// How a recipient stands in the header.
    fn text_of(&self, found: &Recipient) -> &[u8] {
        text_in(self.intake.scan.header(), found)
    }

    fn push_recipient(&self, place: RecipientRecord) -> Result<RecipientNo, BatchError> {
        push_recipient(&self.store, &self.intake.file_name(), place)
    }

    /// The record of the message that has passed.
    pub(super) fn record(
        &self,
        first_recipient: usize,
        recipients: usize,
        invalid: bool,
        to_file: bool,
    ) -> MessageRecord {
        MessageRecord::new(&MessageParts {
            source: self.intake.begin.source,
            offset: self.intake.begin.offset,
            length: self.intake.scan.length(),
            hash: self.intake.scan.hash(),
            first_recipient: first_recipient as u32,
            recipients: recipients as u32,
            invalid,
            to_file,
            marked: self.intake.begin.marked,
        })
    }

    pub(super) fn push_message(&self, record: MessageRecord) -> Result<MessageNo, BatchError> {
        let index = self.store.messages.push(record);
        u32::try_from(index)
            .map(MessageNo)
            .map_err(|_| too_many(&self.intake.file_name(), "messages"))
    }
}

/// How a recipient stands in `header`.
fn text_in<'a>(header: &'a [u8], found: &Recipient) -> &'a [u8] {
    let range = found.start as usize..(found.start + found.len) as usize;
    header.get(range).unwrap_or_default()
}

/// `--to-file` must be a file that is there.
fn check_list(store: &BatchStore) -> Result<(), BatchError> {
    let Some(path) = &store.options.to_file else {
        return Ok(());
    };
    let metadata = path
        .metadata()
        .map_err(|error| BatchError::open(path, &error))?;
    if metadata.is_dir() {
        let name = path.to_string_lossy();
        let what = "is a directory, not a list of addresses";
        return Err(BatchError::new(BatchErrorKind::NoInput, &name, what));
    }
    Ok(())
}

pub(super) fn push_recipient(
    store: &BatchStore,
    name: &str,
    place: RecipientRecord,
) -> Result<RecipientNo, BatchError> {
    let index = store.recipients.push(place);
    // The number behind the last one must fit, too.
    match u32::try_from(index) {
        Ok(no) if no < u32::MAX => Ok(RecipientNo(no)),
        _ => Err(too_many(name, "recipients")),
    }
}

fn too_many(name: &str, what: &str) -> BatchError {
    BatchError::data(
        name,
        &format!("has more {what} than a batch can: {}", u32::MAX),
    )
}
