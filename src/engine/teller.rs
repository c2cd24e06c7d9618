//! Attempts on their way to the ledger: into the journal first, then, in groups, to the ledger's thread.
//!
//! Each thread that ends attempts has a teller of its own. What it is given is encoded at once and written with the next
//! intent, so that a message costs one `write`: the verdict of the message before and the intent of this one.
//!
//! INVARIANTS: the ledger's thread hears of no attempt that is not in the journal; whatever is put in is told, at the
//! latest when the teller is dropped: a worker that panics loses none. Once the journal is broken, the ledger's thread is
//! told so, and every later intent is refused: what cannot be recorded is not sent.

use std::io;
use std::time::{Duration, Instant};

use super::book::{Book, Entry};
use crate::ledger::{Attempt, Via, Writer};
use crate::mail::{Envelope, QueueId, RecipientNo, Status};
use crate::retry;

/// Attempts are told in groups of this size, or after [`TELL_AFTER`].
const GROUP: usize = 32;
const TELL_AFTER: Duration = Duration::from_millis(100);

/// A group of attempts that the ledger has not heard of yet.
#[derive(Debug)]
pub struct Teller {
    book: Book,
    queue: QueueId,
    writer: Writer,
    group: Vec<(RecipientNo, Status)>,
    told_at: Instant,
}

impl Teller {
    /// A teller to the ledger, for a thread of `queue`.
    pub fn new(book: Book, queue: QueueId) -> Teller {
        Teller {
            writer: Writer::new(book.journal()),
            book,
            queue,
            group: Vec::new(),
            told_at: Instant::now(),
        }
    }

    /// Adds an attempt; tells the group if it is full.
    pub fn add(&mut self, attempt: &Attempt) {
        self.writer.attempt(attempt);
        self.group.push((attempt.recipient, attempt.verdict.status));
        if self.group.len() >= GROUP {
            self.tell();
        }
    }

    /// Records that a message is about to leave for these recipients, and all attempts so far with the same write.
    ///
    /// # Errors
    /// If it cannot be recorded: then the message must not leave.
    pub fn intend(
        &mut self,
        via: &Via,
        recipients: impl ExactSizeIterator<Item = RecipientNo>,
    ) -> io::Result<()> {
        let at = jiff::Timestamp::now().as_millisecond();
        let recorded = self.writer.intend(at, via, recipients);
        if let Err(error) = &recorded {
            self.book.fail(error);
        }
        recorded
    }

    /// An intent named these, and their mail did not leave with it: they stand where they stood.
    pub fn untried(&mut self, envelopes: &[Envelope]) {
        let at = jiff::Timestamp::now().as_millisecond();
        for envelope in envelopes {
            let status = retry::pending(envelope.passage);
            self.writer.left(at, status, &[envelope.recipient]);
        }
    }

    /// These are not tried again in this run. A final state is recorded; the others follow from the attempts.
    pub fn leave(&mut self, recipients: Vec<(RecipientNo, Status)>) {
        for group in recipients.chunk_by(|a, b| a.1 == b.1) {
            let status = group[0].1;
            if !status.is_pending() {
                let who: Vec<RecipientNo> = group.iter().map(|(who, _)| *who).collect();
                let at = jiff::Timestamp::now().as_millisecond();
                self.writer.left(at, status, &who);
            }
        }
        self.tell();
        self.book.enter(Entry::Left { recipients });
    }

    /// Tells the group if it has waited long enough.
    pub fn tell_if_due(&mut self) {
        if self.told_at.elapsed() >= TELL_AFTER {
            self.tell();
        }
    }

    /// Records and tells the group.
    pub fn tell(&mut self) {
        self.told_at = Instant::now();
        if let Err(error) = self.writer.flush() {
            self.book.fail(&error);
        }
        if !self.group.is_empty() {
            self.book.enter(Entry::Noted {
                queue: self.queue,
                attempts: std::mem::take(&mut self.group),
            });
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::book::scratch::{ledger_in, scratch};
    use crate::mail::{MessageNo, Passage, Scope, Stage, Verdict};

    fn attempt(recipient: u32, status: Status) -> Attempt {
        Attempt {
            recipient: RecipientNo(recipient),
            verdict: Verdict::new(status, Scope::Message, Stage::Dot, 250, None, ""),
            via: Via::none(QueueId(0)),
            passage: Passage::default(),
            at: 0,
            took_ms: 0,
        }
    }

    #[test]
    fn attempts_are_told_in_groups_and_the_rest_when_the_teller_goes() {
        let scratch = scratch();
        let mut teller = Teller::new(scratch.book.clone(), QueueId(0));
        for n in 0..GROUP as u32 + 3 {
            teller.add(&attempt(n, Status::Delivered));
        }
        drop(teller);
        let sizes: Vec<usize> = scratch
            .entries
            .try_iter()
            .map(|entry| match entry {
                Entry::Noted { attempts, .. } => attempts.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, [GROUP, 3]);
    }

    #[test]
    fn what_was_intended_and_not_ended_is_in_doubt_for_the_next_run_and_what_ended_is_not() {
        let scratch = scratch();
        let mut teller = Teller::new(scratch.book.clone(), QueueId(0));
        let who = [RecipientNo(0), RecipientNo(1)];
        let via = Via::none(QueueId(0));
        teller.intend(&via, who.iter().copied()).unwrap();
        teller.add(&attempt(0, Status::Delivered));
        teller.intend(&via, [RecipientNo(2)].into_iter()).unwrap();
        // As kill -9 would: nothing is flushed.
        std::mem::forget(teller);
        drop(scratch.ledger);
        let ledger = ledger_in(scratch.directory.path());
        let statuses = [0, 1, 2].map(|n| ledger.standing(RecipientNo(n)).status);
        assert_eq!(
            statuses,
            [Status::Delivered, Status::InDoubt, Status::InDoubt]
        );
    }

    #[test]
    fn who_was_intended_and_not_tried_stands_where_he_stood() {
        let scratch = scratch();
        let mut teller = Teller::new(scratch.book.clone(), QueueId(0));
        let fresh = Envelope::new(MessageNo(0), RecipientNo(0));
        let mut tried = Envelope::new(MessageNo(0), RecipientNo(1));
        tried.passage.attempts = 1;
        let who = [fresh.recipient, tried.recipient];
        let via = Via::none(QueueId(0));
        teller.intend(&via, who.iter().copied()).unwrap();
        teller.untried(&[fresh, tried]);
        drop((teller, scratch.ledger));
        let ledger = ledger_in(scratch.directory.path());
        let statuses = [0, 1].map(|n| ledger.standing(RecipientNo(n)).status);
        assert_eq!(statuses, [Status::Queued, Status::Deferred]);
    }

    #[test]
    fn final_states_that_no_attempt_explains_are_recorded() {
        let scratch = scratch();
        let mut teller = Teller::new(scratch.book.clone(), QueueId(0));
        teller.leave(vec![
            (RecipientNo(0), Status::Expired),
            (RecipientNo(1), Status::Deferred),
        ]);
        drop((teller, scratch.ledger));
        let ledger = ledger_in(scratch.directory.path());
        assert_eq!(ledger.standing(RecipientNo(0)).status, Status::Expired);
        assert_eq!(ledger.standing(RecipientNo(1)).status, Status::Queued);
    }
}
