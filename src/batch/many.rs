//! The recipients of a message to very many (`--to-file`), as they arrive: in chunks of [`CHUNK`].
//!
//! The message must be the only one: the batch is read to its end before its recipients enter the tables.

use super::error::BatchError;
use super::keys;
use super::problem::{Problem, What};
use super::reader::{Arrival, Arrived, BatchReader, PROBLEMS_MAX, push_recipient};
use super::record::RecipientRecord;
use super::to_file::ToFile;
use crate::mail::address::AddressFault;
use crate::mail::{MessageNo, RecipientNo};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The most recipients of one arrival of a message to very many.
const CHUNK: u32 = 4096;

/// The recipients of a message to very many that have not arrived yet.
pub(super) struct Many {
    pub(super) message: MessageNo,
    pub(super) rest: Range<u32>,
    /// What keeps the whole message from being sent.
    problem: Option<Problem>,
    /// Offset and line in the file that are known.
    line: (u64, u64),
}

impl BatchReader {
    /// Puts the message and all its recipients into the tables; `None` if a job with a name has nobody new for it.
    pub(super) fn settle_many(
        &mut self,
        path: &Path,
        problem: Option<Problem>,
    ) -> Result<Option<Many>, BatchError> {
        let store = Arc::clone(&self.store);
        let (first, message) = (store.recipients.count(), store.messages.count());
        let identity = self.identity(problem.is_some());
        let spool = store.create_spool(&format!("to-file-{}", message + 1))?;
        let dir = store.spool_dir();
        let keys = &mut self.keys;
        let to_file = ToFile::read(path, dir, spool, message as u32, |place, mailbox, line| {
            if let (Some(keys), Some(identity), Some(index)) = (&mut *keys, &identity, &store.index)
            {
                let key = identity.key(&match mailbox {
                    Some(mailbox) => keys::Recipient::Mailbox(mailbox),
                    None => keys::Recipient::Unfit(line.trim_ascii()),
                });
                if !keys.is_new(key) {
                    return Ok(());
                }
                index.push_key(key);
            }
            push_recipient(&store, &path.to_string_lossy(), place).map(|_| ())
        })?;
        let recipients = store.recipients.count() - first;
        let record = self.record(first, recipients, problem.is_some(), true);
        if self.intake.next_event()?.is_some() {
            let what = "is more than the one message that --to-file goes with";
            return Err(BatchError::data(&self.intake.file_name(), what));
        }
        if recipients == 0 {
            return Ok(None);
        }
        store.to_files.push(to_file);
        // The message and the end of the batch go to the job's files together: what comes of one message need not be read again.
        store.is_ended.store(true, Ordering::Release);
        let message = self.push_message(record)?;
        Ok(Some(Many {
            message,
            rest: first as u32..(first + recipients) as u32,
            problem,
            line: (0, 1),
        }))
    }

    /// The next recipients of it.
    pub(super) fn next_chunk(&mut self, mut many: Many) -> Result<Option<Arrival<'_>>, BatchError> {
        let Some(to_file) = self.store.to_file(many.message) else {
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
        self.go_on(many);
        Ok(Some(Arrival {
            message,
            reverse_path: self.reverse_path.as_ref(),
            recipients: &self.arrived,
            problems: &self.problems,
            is_complete,
        }))
    }
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
