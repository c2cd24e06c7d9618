//! The ledger of a run: what became of each recipient, and what the last attempt was told.
//!
//! One thread owns it. Attempts are appended to a file without a name in the state directory; in memory there are ten
//! bytes a recipient (its status, and where its latest record stands), so that a million recipients cost 10 MB, whatever
//! their servers had to say. The ledger lives as long as the process: what a crash leaves is not its business yet.
//!
//! INVARIANTS: a recipient is *settled for this run* at most once; counts by status add up to the number of recipients; what
//! cannot be recorded (a full disk) costs the details of an attempt, never the status of its recipient.

pub mod outcome;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::mail::{RecipientNo, Status};

pub use outcome::{Attempt, Outcome, Via};

/// No record has been written for the recipient.
const NOWHERE: u64 = u64::MAX;

/// What became of every recipient.
#[derive(Debug)]
pub struct Ledger {
    log: BufWriter<File>,
    log_len: u64,
    rows: Vec<Row>,
    /// First attempts of those that needed more than one: few.
    first_attempts: HashMap<RecipientNo, i64>,
    counts: [u64; Status::ALL.len()],
    unsettled: u64,
    scratch: Vec<u8>,
    broken: bool,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
struct Row {
    record: u64,
    status: Status,
    settled: bool,
}

const BLANK: Row = Row {
    record: NOWHERE,
    status: Status::Queued,
    settled: false,
};

impl Ledger {
    /// A ledger whose records go to a nameless file in `directory`.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create_in(directory: &Path) -> io::Result<Ledger> {
        tempfile::tempfile_in(directory).map(Ledger::with_file)
    }

    fn with_file(file: File) -> Ledger {
        Ledger {
            log: BufWriter::with_capacity(64 * 1024, file),
            log_len: 0,
            rows: Vec::new(),
            first_attempts: HashMap::new(),
            counts: [0; Status::ALL.len()],
            unsettled: 0,
            scratch: Vec::new(),
            broken: false,
        }
    }

    /// Makes room for recipients up to and including `last`: all queued.
    pub fn admit(&mut self, last: RecipientNo) {
        let wanted = last.index() + 1;
        if wanted > self.rows.len() {
            let more = (wanted - self.rows.len()) as u64;
            self.rows.resize(wanted, BLANK);
            self.counts[Status::Queued.index()] += more;
            self.unsettled += more;
        }
    }

    /// Records an attempt. Delivered, refused and invalid recipients are settled by it; the others wait for
    /// another attempt, or for [`Ledger::leave`]. In memory the recipient's status changes even if the record is lost,
    /// so that a run whose disk is full comes to its end.
    ///
    /// # Errors
    /// If the record cannot be written: nothing more may be sent then.
    pub fn record(&mut self, attempt: &Attempt) -> io::Result<()> {
        self.admit(attempt.recipient);
        let row = self.rows[attempt.recipient.index()];
        if row.record == NOWHERE && attempt.verdict.status.is_pending() {
            self.first_attempts.insert(attempt.recipient, attempt.at);
        }
        let written = self.append(attempt);
        self.set_status(attempt.recipient, attempt.verdict.status);
        if !attempt.verdict.status.is_pending() {
            self.settle(attempt.recipient);
        }
        written
    }

    /// Appends a record to the file and notes where it stands. After one failure nothing is written any more: places
    /// would be wrong. A record that is lost leaves none behind, not the one before it.
    fn append(&mut self, attempt: &Attempt) -> io::Result<()> {
        self.rows[attempt.recipient.index()].record = NOWHERE;
        if self.broken {
            return Err(io::Error::other("an earlier record could not be written"));
        }
        self.scratch.clear();
        attempt.encode(&mut self.scratch);
        self.broken = true;
        self.log.write_all(&self.scratch)?;
        self.broken = false;
        self.rows[attempt.recipient.index()].record = self.log_len;
        self.log_len += self.scratch.len() as u64;
        Ok(())
    }

    /// Leaves a recipient as it is for this run: deferred, in doubt, held, expired.
    pub fn leave(&mut self, recipient: RecipientNo, status: Status) {
        self.admit(recipient);
        self.set_status(recipient, status);
        self.settle(recipient);
    }

    fn set_status(&mut self, recipient: RecipientNo, status: Status) {
        let row = &mut self.rows[recipient.index()];
        self.counts[row.status.index()] -= 1;
        self.counts[status.index()] += 1;
        row.status = status;
    }

    fn settle(&mut self, recipient: RecipientNo) {
        let row = &mut self.rows[recipient.index()];
        assert!(!row.settled, "recipient {} is settled twice", recipient.0);
        row.settled = true;
        self.unsettled -= 1;
    }

    /// Recipients that are admitted and not settled for this run.
    pub fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// How many recipients stand at `status`.
    pub fn count(&self, status: Status) -> u64 {
        self.counts[status.index()]
    }

    /// All counts, in the order of [`Status::ALL`].
    pub fn counts(&self) -> [u64; Status::ALL.len()] {
        self.counts
    }

    /// Recipients admitted.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if no recipient is known.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where a recipient stands, with its latest attempt if there was one and it could be recorded.
    pub fn outcome(&self, recipient: RecipientNo) -> Outcome {
        let row = self.rows.get(recipient.index()).copied().unwrap_or(BLANK);
        let last = match row.record {
            NOWHERE => None,
            at => self.read_record(at, recipient).ok(),
        };
        let first = self.first_attempts.get(&recipient).copied();
        let first_at = first.or_else(|| last.as_ref().map(|attempt| attempt.at));
        Outcome {
            status: row.status,
            first_at,
            last,
        }
    }

    fn read_record(&self, at: u64, recipient: RecipientNo) -> io::Result<Attempt> {
        let mut head = [0; outcome::HEAD_LEN];
        self.read_at(at, &mut head)?;
        let mut tail = vec![0; outcome::tail_len(&head)];
        self.read_at(at + outcome::HEAD_LEN as u64, &mut tail)?;
        outcome::decode(&head, &tail, recipient).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the ledger's file is damaged")
        })
    }

    /// Reads what was appended: from the file, and behind its end from what is buffered, which may never get there.
    fn read_at(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let buffer = self.log.buffer();
        let in_file = self.log_len - buffer.len() as u64;
        let of_file = in_file.saturating_sub(at).min(bytes.len() as u64) as usize;
        let (from_file, from_buffer) = bytes.split_at_mut(of_file);
        self.log.get_ref().read_exact_at(from_file, at)?;
        let start = at.saturating_sub(in_file) as usize;
        let buffered = buffer.get(start..start + from_buffer.len());
        from_buffer.copy_from_slice(buffered.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Enhanced, QueueId, Scope, Stage, Verdict};

    fn attempt(recipient: u32, status: Status, at: i64) -> Attempt {
        let verdict = Verdict::new(
            status,
            Scope::Recipient,
            Stage::Rcpt,
            450,
            Some(Enhanced::new(4, 2, 1)),
            "later, ça",
        );
        Attempt {
            recipient: RecipientNo(recipient),
            verdict,
            via: Via {
                queue: QueueId(3),
                mx: "mx.a.test".into(),
                ip: "127.0.0.7".parse().ok(),
                tls: "".into(),
            },
            attempts: 2,
            at,
            took_ms: 17,
        }
    }

    #[test]
    fn the_latest_attempt_is_what_a_row_shows_and_the_first_is_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create_in(directory.path()).unwrap();
        ledger.record(&attempt(1, Status::Deferred, 1000)).unwrap();
        ledger.record(&attempt(1, Status::Delivered, 2000)).unwrap();
        let outcome = ledger.outcome(RecipientNo(1));
        assert_eq!(outcome.status, Status::Delivered);
        assert_eq!(outcome.first_at, Some(1000));
        assert_eq!(outcome.last.unwrap(), attempt(1, Status::Delivered, 2000));
        let untouched = ledger.outcome(RecipientNo(0));
        assert_eq!((untouched.status, untouched.last), (Status::Queued, None));
    }

    #[test]
    fn counts_add_up_and_pending_recipients_are_unsettled_until_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create_in(directory.path()).unwrap();
        ledger.admit(RecipientNo(3));
        ledger.record(&attempt(0, Status::Delivered, 1)).unwrap();
        ledger.record(&attempt(1, Status::Deferred, 1)).unwrap();
        ledger.record(&attempt(2, Status::Invalid, 1)).unwrap();
        assert_eq!(ledger.unsettled(), 2);
        ledger.leave(RecipientNo(1), Status::Deferred);
        ledger.leave(RecipientNo(3), Status::Queued);
        assert_eq!(ledger.unsettled(), 0);
        assert_eq!(ledger.counts().iter().sum::<u64>(), 4);
        assert_eq!(ledger.count(Status::Deferred), 1);
    }

    #[test]
    fn records_are_read_back_from_file_and_buffer_alike() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create_in(directory.path()).unwrap();
        // More than the buffer holds, so that one record lies across its edge.
        let all: Vec<Attempt> = (0..3000)
            .map(|n| attempt(n, Status::Delivered, i64::from(n)))
            .collect();
        all.iter().for_each(|one| ledger.record(one).unwrap());
        assert!(!ledger.log.buffer().is_empty());
        for one in &all {
            assert_eq!(ledger.outcome(one.recipient).last.as_ref(), Some(one));
        }
    }

    #[test]
    fn a_full_disk_costs_details_and_no_status() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut ledger = Ledger::with_file(full);
        ledger.record(&attempt(0, Status::Deferred, 7)).unwrap();
        let failed: Vec<bool> = (1..3000)
            .map(|n| {
                let delivered = attempt(n, Status::Delivered, i64::from(n));
                ledger.record(&delivered).is_err()
            })
            .collect();
        let first = failed.iter().position(|failed| *failed).unwrap() as u32 + 1;
        assert!(failed[first as usize - 1..].iter().all(|failed| *failed));
        for n in 1..3000 {
            let outcome = ledger.outcome(RecipientNo(n));
            assert_eq!(outcome.status, Status::Delivered);
            let recorded = (n < first).then(|| attempt(n, Status::Delivered, i64::from(n)));
            assert_eq!(outcome.last, recorded);
        }
        // The record of the attempt before is not that of this one.
        ledger
            .record(&attempt(0, Status::Delivered, 9))
            .unwrap_err();
        let outcome = ledger.outcome(RecipientNo(0));
        assert_eq!((outcome.status, outcome.last), (Status::Delivered, None));
        assert_eq!((outcome.first_at, ledger.unsettled()), (Some(7), 0));
    }

    #[test]
    #[should_panic(expected = "settled twice")]
    fn nobody_is_settled_twice() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create_in(directory.path()).unwrap();
        ledger.record(&attempt(0, Status::Delivered, 1)).unwrap();
        ledger.leave(RecipientNo(0), Status::Deferred);
    }
}
