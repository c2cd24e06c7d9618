//! The deciding half of intake: each message that has passed gets its envelopes and its records.
//!
//! A message comes out as one [`Arrival`], with all its recipients; only a message to very many (`--to-file`) takes several, of
//! at most [`CHUNK`] recipients each. A message that cannot be sent arrives all the same, with recipients that carry
//! the problem instead of a mailbox: one that stands for the message itself, if it names none.
//!
//! Before the first message of a `--to-file` batch arrives, the batch was read to its end: it must hold no other.

use super::error::{BatchError, BatchErrorKind};
use super::intake::{Event, Intake};
use super::problem::{Problem, What};
use super::record::{MessageParts, MessageRecord, RecipientRecord};
use super::source::{Input, prepare};
use super::store::{BatchStore, TEXT_OCTETS_MAX};
use super::to_file::ToFile;
use super::window::newlines;
use crate::mail::address::AddressFault;
use crate::mail::verdict::printable;
use crate::mail::{Mailbox, MessageNo, RecipientNo, ReversePath};
use crate::mbox::envelope::{self, EnvelopeFault, Recipient};
use crate::mbox::fault::FaultAt;
use crate::mbox::header::Fields;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The most recipients of one arrival of a message to very many.
const CHUNK: u32 = 4096;
/// More problems than these are counted in the recipients only.
const PROBLEMS_MAX: usize = 100;

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

/// The recipients of a message to very many that have not arrived yet.
struct Many {
    message: MessageNo,
    rest: Range<u32>,
    /// What keeps the whole message from being sent.
    problem: Option<Problem>,
    /// Offset and line in the file that are known.
    line: (u64, u64),
}

/// Reads a batch, message after message.
pub struct BatchReader {
    store: Arc<BatchStore>,
    intake: Intake,
    fields: Fields,
    found: Vec<Recipient>,
    reverse_path: Option<ReversePath>,
    arrived: Vec<Arrived>,
    problems: Vec<Problem>,
    many: Option<Many>,
}

impl BatchReader {
    /// Looks at all inputs; an error about any of them comes now, before anything is read. What is read goes into `store`,
    /// which also says how.
    pub fn open(inputs: Vec<Input>, store: Arc<BatchStore>) -> Result<BatchReader, BatchError> {
        let prepared = prepare(inputs, &store.options)?;
        if let Some(path) = &store.options.to_file {
            let metadata = path
                .metadata()
                .map_err(|error| BatchError::open(path, &error))?;
            if metadata.is_dir() {
                let name = path.to_string_lossy();
                let what = "is a directory, not a list of addresses";
                return Err(BatchError::new(BatchErrorKind::NoInput, &name, what));
            }
        }
        Ok(BatchReader {
            intake: Intake::new(store.clone(), prepared),
            store,
            fields: Fields::default(),
            found: Vec::new(),
            reverse_path: None,
            arrived: Vec::new(),
            problems: Vec::new(),
            many: None,
        })
    }

    /// The next message, or the next recipients of it; `None` at the end of the batch.
    pub fn next_arrival(&mut self) -> Result<Option<Arrival<'_>>, BatchError> {
        if let Some(many) = self.many.take() {
            return if many.rest.is_empty() {
                Ok(None)
            } else {
                self.next_chunk(many)
            };
        }
        let Some(event) = self.intake.next_event()? else {
            return Ok(None);
        };
        self.arrived.clear();
        self.problems.clear();
        let problem = match event {
            Event::Message => self.judge(),
            Event::Unreadable(error) => Some(self.unreadable(error)),
        };
        self.problems.extend(problem.clone());
        self.add_dateless();
        if let Some(path) = self.store.options.to_file.clone() {
            let many = self.settle_many(&path, problem)?;
            return self.next_chunk(many);
        }
        let message = self.settle(problem)?;
        Ok(Some(Arrival {
            message,
            reverse_path: self.reverse_path.as_ref(),
            recipients: &self.arrived,
            problems: &self.problems,
            is_complete: true,
        }))
    }

    fn unreadable(&mut self, error: String) -> Problem {
        self.reverse_path = None;
        self.found.clear();
        self.problem(0, self.intake.begin.line, What::Unreadable(error))
    }

    /// Derives the envelope of the message that has passed, and what keeps it from being sent, if anything.
    fn judge(&mut self) -> Option<Problem> {
        let options = &self.store.options;
        let rules = options.envelope_rules();
        let scan = &self.intake.scan;
        let header = scan.header();
        let content_fault = scan.first_fault();
        let header_fault = self.fields.scan(header, options.fold_long_lines).err();
        envelope::recipients(header, &self.fields, &rules, &mut self.found);
        let reverse_path = envelope::reverse_path(header, &self.fields, scan.from_line(), &rules);
        let envelope_fault = envelope::check_journey(&self.fields, &rules)
            .and(reverse_path.as_ref().map(|_| ()).map_err(|fault| *fault))
            .err();
        self.reverse_path = reverse_path.ok();
        // The fault that comes first in the message; header faults count from behind the From_ line.
        let header_start = scan.from_line().len() as u64;
        if let Some(FaultAt { fault, offset }) = header_fault
            && content_fault.is_none_or(|content| header_start + offset < content.offset)
        {
            return Some(self.header_problem(offset as usize, What::Content(fault)));
        }
        if let Some(FaultAt { fault, offset }) = content_fault {
            return Some(self.problem(offset, self.intake.fault_line, What::Content(fault)));
        }
        if let Some(fault) = envelope_fault {
            return Some(self.header_problem(fault.offset(), What::Envelope(fault)));
        }
        (self.found.is_empty() && !rules.recipients_elsewhere)
            .then(|| self.header_problem(0, What::Envelope(EnvelopeFault::NoRecipients)))
    }

    fn add_dateless(&mut self) {
        for i in 0..self.intake.dateless.len() {
            let (file_offset, line) = self.intake.dateless[i];
            let offset = file_offset - self.intake.begin.file_offset;
            let problem = self.problem(offset, line, What::Dateless);
            self.problems.push(problem);
        }
    }

    /// Puts the message and its recipients into the tables.
    fn settle(&mut self, problem: Option<Problem>) -> Result<MessageNo, BatchError> {
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
        if self.arrived.is_empty() {
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
        self.push_message(first, recipients, problem.is_some(), false)
    }

    /// Keeps the address of a recipient: who gets no mail must be named even if the batch file is overwritten.
    fn push_address(&self, found: &Recipient) -> Result<RecipientNo, BatchError> {
        let bad;
        let text = match &found.mailbox {
            Ok(mailbox) => mailbox.as_str(),
            Err(_) => {
                // A mailbox may be longer than what is shown of nonsense: comments and folding count, too.
                let text = self.text_of(found);
                let text = &text[..text.len().min(16 * TEXT_OCTETS_MAX)];
                bad = printable(&String::from_utf8_lossy(text), TEXT_OCTETS_MAX);
                &bad
            }
        };
        let spool = &self.store.addresses;
        let dir = &self.store.options.spool_dir;
        let at = spool
            .append(text.as_bytes())
            .map_err(|error| BatchError::spool(dir, &error))?;
        self.push_recipient(RecipientRecord::new(at, text.len(), found.mailbox.is_ok()))
    }

    /// How a recipient stands in the header.
    fn text_of(&self, found: &Recipient) -> &[u8] {
        let range = found.start as usize..(found.start + found.len) as usize;
        self.intake.scan.header().get(range).unwrap_or_default()
    }

    /// The same for a message to very many, which must be the only one.
    fn settle_many(&mut self, path: &Path, problem: Option<Problem>) -> Result<Many, BatchError> {
        let first = self.store.recipients.count();
        let store = self.store.clone();
        let to_file = ToFile::read(path, &store.options.spool_dir, |place| {
            push_recipient(&store, &path.to_string_lossy(), place).map(|_| ())
        })?;
        let recipients = store.recipients.count() - first;
        let line = (0, 1);
        let message = self.push_message(first, recipients, problem.is_some(), true)?;
        let _ = self.store.to_file.set(to_file);
        if self.intake.next_event()?.is_some() {
            let what = "is more than the one message that --to-file goes with";
            return Err(BatchError::data(&self.intake.file_name(), what));
        }
        let rest = first as u32..(first + recipients) as u32;
        Ok(Many {
            message,
            rest,
            problem,
            line,
        })
    }

    fn next_chunk(&mut self, mut many: Many) -> Result<Option<Arrival<'_>>, BatchError> {
        let Some(to_file) = self.store.to_file.get() else {
            return Ok(None);
        };
        if !self.arrived.is_empty() {
            self.problems.clear(); // those of the message arrived with the first recipients
        }
        self.arrived.clear();
        let end = many.rest.end.min(many.rest.start + CHUNK);
        for no in many.rest.start..end {
            let Some(place) = self.store.recipients.get(no as usize) else {
                break;
            };
            let mailbox = to_file
                .mailbox(*place)
                .map_err(|error| BatchError::read(&to_file.name, &error))?;
            let outcome = match (&many.problem, mailbox) {
                (Some(problem), _) => Err(problem.clone()),
                (None, Ok(mailbox)) => Ok(mailbox),
                (None, Err(error)) => {
                    let problem = line_problem(to_file, *place, error.fault, &mut many);
                    if self.problems.len() < PROBLEMS_MAX {
                        self.problems.push(problem.clone());
                    }
                    Err(problem)
                }
            };
            self.arrived.push(Arrived {
                no: RecipientNo(no),
                outcome,
            });
        }
        many.rest.start = end;
        let (message, is_complete) = (many.message, many.rest.is_empty());
        self.many = Some(many);
        Ok(Some(Arrival {
            message,
            reverse_path: self.reverse_path.as_ref(),
            recipients: &self.arrived,
            problems: &self.problems,
            is_complete,
        }))
    }

    fn push_recipient(&self, place: RecipientRecord) -> Result<RecipientNo, BatchError> {
        push_recipient(&self.store, &self.intake.file_name(), place)
    }

    fn push_message(
        &self,
        first_recipient: usize,
        recipients: usize,
        invalid: bool,
        to_file: bool,
    ) -> Result<MessageNo, BatchError> {
        let record = MessageRecord::new(&MessageParts {
            source: self.intake.begin.source,
            offset: self.intake.begin.offset,
            length: self.intake.scan.length(),
            hash: self.intake.scan.hash(),
            first_recipient: first_recipient as u32,
            recipients: recipients as u32,
            invalid,
            to_file,
            marked: self.intake.begin.marked,
        });
        let index = self.store.messages.push(record);
        u32::try_from(index)
            .map(MessageNo)
            .map_err(|_| too_many(&self.intake.file_name(), "messages"))
    }

    /// A problem at `offset` of the header.
    fn header_problem(&self, offset: usize, what: What) -> Problem {
        self.address_problem(&mut (0, 0), offset, what)
    }

    /// The same for one of many, which come in order: `known` is an offset of the header and the lines before it, so that the
    /// lines of a header of bad addresses are not counted from its beginning for each.
    fn address_problem(&self, known: &mut (usize, u64), offset: usize, what: What) -> Problem {
        let scan = &self.intake.scan;
        let header = scan.header();
        let end = offset.min(header.len());
        if end < known.0 {
            *known = (0, 0);
        }
        *known = (end, known.1 + newlines(&header[known.0..end]));
        let line = self.intake.begin.line + newlines(scan.from_line()) + known.1;
        self.problem((scan.from_line().len() + offset) as u64, line, what)
    }

    /// A problem at `offset` of the message.
    fn problem(&self, offset: u64, line: u64, what: What) -> Problem {
        Problem {
            source: self.intake.file_name(),
            message: Some(self.store.messages.count() as u64 + 1),
            line,
            offset: self.intake.begin.file_offset + offset,
            what,
        }
    }
}

fn push_recipient(
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

/// What is wrong with a line of `--to-file`.
fn line_problem(
    to_file: &ToFile,
    place: RecipientRecord,
    fault: AddressFault,
    many: &mut Many,
) -> Problem {
    let at = place.at();
    many.line = (at, to_file.line_at(many.line.0, many.line.1, at));
    let text = to_file.text(place).unwrap_or_default();
    Problem {
        source: to_file.name.clone(),
        message: None,
        line: many.line.1,
        offset: at,
        what: What::address("the list of recipients", fault, &text),
    }
}
