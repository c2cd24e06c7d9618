//! Attempts on their way to the ledger, told in groups so that a message does not cost a hand-off.
//!
//! INVARIANT: whatever is put in is told, at the latest when the teller is dropped: a worker that panics loses none.

use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::book::Entry;
use crate::ledger::Attempt;

/// Attempts are told in groups of this size, or after [`TELL_AFTER`].
const GROUP: usize = 32;
const TELL_AFTER: Duration = Duration::from_millis(100);

/// A group of attempts that the ledger has not heard of yet.
#[derive(Debug)]
pub struct Teller {
    book: Sender<Entry>,
    group: Vec<Attempt>,
    told_at: Instant,
}

impl Teller {
    /// A teller to the ledger's thread.
    pub fn new(book: Sender<Entry>) -> Teller {
        Teller {
            book,
            group: Vec::new(),
            told_at: Instant::now(),
        }
    }

    /// Adds an attempt; tells the group if it is full.
    pub fn add(&mut self, attempt: Attempt) {
        self.group.push(attempt);
        if self.group.len() >= GROUP {
            self.tell();
        }
    }

    /// Tells the group if it has waited long enough.
    pub fn tell_if_due(&mut self) {
        if self.told_at.elapsed() >= TELL_AFTER {
            self.tell();
        }
    }

    /// Tells the group.
    pub fn tell(&mut self) {
        self.told_at = Instant::now();
        if !self.group.is_empty() {
            let _ = self
                .book
                .send(Entry::Attempts(std::mem::take(&mut self.group)));
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
    use crate::ledger::Via;
    use crate::mail::{QueueId, RecipientNo, Scope, Stage, Status, Verdict};
    use crossbeam_channel::unbounded;

    fn attempt() -> Attempt {
        Attempt {
            recipient: RecipientNo(0),
            verdict: Verdict::new(
                Status::Delivered,
                Scope::Recipient,
                Stage::Dot,
                250,
                None,
                "",
            ),
            via: Via::none(QueueId(0)),
            attempts: 1,
            at: 0,
            took_ms: 0,
        }
    }

    #[test]
    fn attempts_are_told_in_groups_and_the_rest_when_the_teller_goes() {
        let (book, entries) = unbounded();
        let mut teller = Teller::new(book);
        for _ in 0..GROUP + 3 {
            teller.add(attempt());
        }
        drop(teller);
        let sizes: Vec<usize> = entries
            .try_iter()
            .map(|entry| match entry {
                Entry::Attempts(group) => group.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, [GROUP, 3]);
    }
}
