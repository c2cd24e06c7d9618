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
        let who: Vec<RecipientNo> = envelopes.iter().map(|each| each.recipient).collect();
        let at = jiff::Timestamp::now().as_millisecond();
        self.writer.left(at, Status::Deferred, &who);
    }

    /// These are not tried again in this run. A final state is recorded; of the others the ledger knows better than an
    /// envelope, from the attempts, how they stand.
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
        self.tell_as(false);
    }

    /// The same for what the operator has settled: the outside world has not said it.
    pub fn tell_as_ordered(&mut self) {
        self.tell_as(true);
    }

    fn tell_as(&mut self, is_ordered: bool) {
        self.told_at = Instant::now();
        if let Err(error) = self.writer.flush() {
            self.book.fail(&error);
        }
        if !self.group.is_empty() {
            self.book.enter(Entry::Noted {
                queue: self.queue,
                attempts: std::mem::take(&mut self.group),
                is_ordered,
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
    use crate::engine::book;
    use crate::engine::book::scratch::{Scratch, ledger_in, scratch};
    use crate::engine::status::Gauges;
    use crate::ledger::{Ledger, Snapshot};
    use crate::mail::{MessageNo, Passage, Scope, Stage, Verdict};
    use crate::retry;

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
        let tried = Envelope::new(MessageNo(0), RecipientNo(1));
        teller.add(&attempt(1, Status::Deferred));
        let who = [fresh.recipient, tried.recipient];
        let via = Via::none(QueueId(0));
        teller.intend(&via, who.iter().copied()).unwrap();
        teller.untried(&[fresh, tried]);
        drop((teller, scratch.ledger));
        let ledger = ledger_in(scratch.directory.path());
        let statuses = [0, 1].map(|n| ledger.standing(RecipientNo(n)).status);
        assert_eq!(statuses, [Status::Queued, Status::Deferred]);
    }

    /// A run in which the mail of each recipient has one of these histories, in all of which a letter is an attempt: deferred by
    /// its server (F) or with its session (S), in doubt (B), recorded and not made (U), delivered (D); or the end: left by what
    /// its envelope has been through (L), expired (X).
    fn run(teller: &mut Teller, ledger: &Ledger, histories: &[String]) {
        let via = Via::none(QueueId(0));
        for (no, history) in (0..).zip(histories) {
            let mut envelope = Envelope::new(MessageNo(0), RecipientNo(no));
            let standing = ledger.standing(envelope.recipient);
            if !standing.status.is_pending() {
                continue;
            }
            envelope.passage = standing.passage;
            for letter in history.chars() {
                let (status, scope) = match letter {
                    'F' => (Status::Deferred, Scope::Recipient),
                    'S' => (Status::Deferred, Scope::Session),
                    'B' => (Status::InDoubt, Scope::Message),
                    'D' => (Status::Delivered, Scope::Message),
                    'U' => {
                        let who = [envelope.recipient];
                        teller.intend(&via, who.into_iter()).unwrap();
                        teller.untried(&[envelope]);
                        continue;
                    }
                    end => {
                        let left = match end {
                            'X' => Status::Expired,
                            _ => retry::pending(envelope.passage),
                        };
                        teller.leave(vec![(envelope.recipient, left)]);
                        continue;
                    }
                };
                let was_in_doubt = envelope.passage.in_doubt;
                let verdict = Verdict::new(status, scope, Stage::Dot, 450, None, "");
                envelope.passage = envelope.passage.after(&verdict);
                teller.add(&Attempt {
                    verdict,
                    passage: envelope.passage,
                    ..attempt(no, status)
                });
                if status == Status::InDoubt && was_in_doubt {
                    teller.leave(vec![(envelope.recipient, Status::Held)]);
                    break;
                }
            }
        }
    }

    #[test]
    fn what_is_counted_at_the_end_of_a_run_is_what_is_found_afterwards() {
        let mut histories = vec![String::new()];
        for _ in 0..3 {
            let longer = histories.iter();
            let longer =
                longer.flat_map(|history| "FSBU".chars().map(move |c| format!("{history}{c}")));
            histories = histories.iter().cloned().chain(longer).collect();
        }
        histories.sort();
        histories.dedup();
        let ends = |ends: &'static str| {
            let all = histories.iter();
            all.flat_map(move |history| ends.chars().map(move |end| format!("{history}{end}")))
                .collect::<Vec<String>>()
        };
        let (first, mut second) = (ends("LLLX"), ends("LXDL"));
        second.rotate_left(7 * 4);
        let Scratch {
            book,
            entries,
            mut ledger,
            directory,
        } = scratch();
        let mut books = Some((book, entries));
        for histories in [&first, &second, &second] {
            let (book, entries) = books.take().unwrap_or_else(|| {
                let (to_ledger, entries) = crossbeam_channel::unbounded();
                (Book::new(to_ledger, ledger.journal()), entries)
            });
            ledger.admit(RecipientNo(histories.len() as u32 - 1));
            let mut teller = Teller::new(book, QueueId(0));
            run(&mut teller, &ledger, histories);
            drop(teller);
            let gauges = Gauges::default();
            for entry in entries.try_iter() {
                book::enter(&mut ledger, &entry, &gauges).unwrap();
            }
            assert_eq!(ledger.unsettled(), 0);
            let snapshot = Snapshot::read(directory.path()).unwrap();
            for (no, history) in (0..).map(RecipientNo).zip(histories) {
                let (told, found) = (
                    ledger.standing(no).status,
                    snapshot.outcome(no).unwrap().status,
                );
                assert_eq!(told, found, "{history}, recipient {}", no.0);
            }
            let mut found = snapshot.counts().unwrap();
            let known: u64 = found.iter().sum();
            let queued = Status::ALL
                .iter()
                .position(|status| *status == Status::Queued);
            found[queued.unwrap()] += histories.len() as u64 - known;
            assert_eq!(ledger.counts(), found);
            // A person queues some again.
            let again: Vec<RecipientNo> = (0..histories.len() as u32)
                .step_by(3)
                .map(RecipientNo)
                .collect();
            let mut writer = Writer::new(ledger.journal());
            writer.left(0, Status::Queued, &again);
            drop((writer, ledger));
            ledger = ledger_in(directory.path());
        }
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
