//! A worker's desk: the envelopes of the run it works on, so that each is accounted for however the thread ends.
//!
//! INVARIANT: every envelope put on the desk leaves it exactly once: in the [`Outcome`] of the run, or, if the thread
//! panics, by the desk's `Drop`, which settles what was tried and returns what was not. So a bug in a worker costs at
//! most the transaction it was in, and never hangs the run.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::book::Entry;
use super::queue::Inbox;
use crate::ledger::{Attempt, Via};
use crate::mail::{
    DestinationId, Enhanced, Envelope, Scope, SiteId, Stage, Status, Verdict, WorkerId,
};
use crate::queue::event::{Event, Outcome};
use crate::retry::Deferral;

/// What a worker has before it.
#[derive(Debug)]
pub struct Desk {
    worker: WorkerId,
    inbox: Sender<Inbox>,
    book: Sender<Entry>,
    destination: DestinationId,
    /// Not begun yet, in order.
    waiting: VecDeque<Envelope>,
    /// In a transaction, and the way it takes.
    under_way: Vec<Envelope>,
    via: Via,
    deferred: Vec<(Envelope, Deferral)>,
    deferred_as: Vec<Status>,
    settled: u32,
    host_failed: Option<Arc<Verdict>>,
}

impl Desk {
    /// An empty desk.
    pub fn new(worker: WorkerId, inbox: Sender<Inbox>, book: Sender<Entry>, via: Via) -> Desk {
        Desk {
            worker,
            inbox,
            book,
            destination: DestinationId(0),
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            via,
            deferred: Vec::new(),
            deferred_as: Vec::new(),
            settled: 0,
            host_failed: None,
        }
    }

    /// Puts a run on the empty desk.
    pub fn take_run(&mut self, destination: DestinationId, envelopes: Vec<Envelope>) {
        debug_assert!(
            self.waiting.is_empty() && self.under_way.is_empty(),
            "a run on a desk that is not clear"
        );
        self.destination = destination;
        self.waiting = envelopes.into();
    }

    /// The next envelopes for one transaction: of one message, at most `recipients_max`. They count as under way.
    pub fn take_group(&mut self, recipients_max: usize, group: &mut Vec<Envelope>) -> bool {
        group.clear();
        while let Some(envelope) = self.waiting.front() {
            let fits = group
                .first()
                .is_none_or(|first: &Envelope| first.message == envelope.message);
            if !fits || group.len() >= recipients_max.max(1) {
                break;
            }
            group.push(*envelope);
            self.waiting.pop_front();
        }
        self.under_way.extend_from_slice(group);
        !group.is_empty()
    }

    /// True if no envelope of the run is left to begin with.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts envelopes back that were taken and not tried, before the others.
    pub fn put_back(&mut self, envelopes: &[Envelope]) {
        for envelope in envelopes.iter().rev() {
            self.waiting.push_front(*envelope);
        }
        self.forget(envelopes);
    }

    /// An envelope's attempt has ended with this verdict.
    pub fn end(&mut self, mut envelope: Envelope, verdict: &Verdict) {
        self.forget(&[envelope]);
        let fails_host = matches!(verdict.scope, Scope::Host | Scope::Local);
        if fails_host && verdict.status.is_pending() && self.host_failed.is_none() {
            self.host_failed = Some(Arc::new(verdict.clone()));
        }
        if verdict.status.is_pending() {
            envelope.tried_by(self.worker);
            self.deferred.push((envelope, Deferral::of(verdict, None)));
            self.deferred_as.push(verdict.status);
        } else {
            self.settled += 1;
        }
    }

    fn forget(&mut self, envelopes: &[Envelope]) {
        self.under_way.retain(|each| {
            !envelopes
                .iter()
                .any(|gone| gone.recipient == each.recipient)
        });
    }

    /// True if the site failed during this run.
    pub fn has_host_failed(&self) -> bool {
        self.host_failed.is_some()
    }

    /// Clears the desk: what is left is returned untried.
    pub fn finish(&mut self, session: Option<SiteId>) {
        let outcome = Outcome {
            deferred: std::mem::take(&mut self.deferred),
            settled: std::mem::take(&mut self.settled),
            returned: std::mem::take(&mut self.waiting).into(),
            host_failed: self.host_failed.take(),
            session,
        };
        self.deferred_as.clear();
        let _ = self.inbox.send(Event::Finished {
            worker: self.worker,
            outcome,
        });
    }

    /// What was tried when a panic came: it may or may not have been delivered, and what was deferred stays so.
    fn settle_after_panic(&mut self) {
        let text =
            "an error of this program interrupted the transaction: it may have been delivered";
        let verdict = Verdict::own(
            Status::InDoubt,
            Scope::Local,
            Stage::Body,
            Enhanced::new(4, 3, 0),
            text,
        );
        let at = jiff::Timestamp::now().as_millisecond();
        let attempts = self.under_way.iter().map(|envelope| Attempt {
            recipient: envelope.recipient,
            verdict: verdict.clone(),
            via: self.via.clone(),
            attempts: attempts_of(envelope) + 1,
            at,
            took_ms: 0,
        });
        let _ = self.book.send(Entry::Attempts(attempts.collect()));
        let in_doubt = self
            .under_way
            .drain(..)
            .map(|envelope| (envelope.recipient, Status::InDoubt));
        let deferred = self.deferred.drain(..).zip(self.deferred_as.drain(..));
        let deferred = deferred.map(|((envelope, _), status)| (envelope.recipient, status));
        let _ = self.book.send(Entry::Left {
            recipients: in_doubt.chain(deferred).collect(),
        });
    }
}

/// How often an envelope was tried.
pub fn attempts_of(envelope: &Envelope) -> u16 {
    u16::from(envelope.passage.attempts) + u16::from(envelope.passage.host_failures)
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.settle_after_panic();
        }
        let waiting: Vec<Envelope> = self.waiting.drain(..).collect();
        let returned = if waiting.is_empty() {
            Vec::new()
        } else {
            vec![(self.destination, waiting)]
        };
        let _ = self.inbox.send(Event::Gone {
            worker: self.worker,
            returned,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{MessageNo, QueueId, RecipientNo};
    use crossbeam_channel::{Receiver, unbounded};

    fn desk() -> (Desk, Receiver<Inbox>, Receiver<Entry>) {
        let (inbox, events) = unbounded();
        let (book, entries) = unbounded();
        let via = Via {
            queue: QueueId(0),
            mx: "".into(),
            ip: None,
            tls: "".into(),
        };
        (Desk::new(WorkerId(7), inbox, book, via), events, entries)
    }

    fn envelopes(messages: &[u32]) -> Vec<Envelope> {
        let pairs = messages.iter().enumerate();
        pairs
            .map(|(at, message)| Envelope::new(MessageNo(*message), RecipientNo(at as u32)))
            .collect()
    }

    fn verdict(status: Status, scope: Scope) -> Verdict {
        Verdict::new(status, scope, Stage::Rcpt, 450, None, "x")
    }

    #[test]
    fn envelopes_of_one_message_travel_together_up_to_the_limit() {
        let (mut desk, _events, _entries) = desk();
        desk.take_run(DestinationId(1), envelopes(&[1, 1, 1, 2]));
        let mut group = Vec::new();
        let mut sizes = Vec::new();
        while desk.take_group(2, &mut group) {
            sizes.push(group.len());
        }
        assert_eq!(sizes, [2, 1, 1]);
    }

    #[test]
    fn an_outcome_accounts_for_every_envelope_of_the_run() {
        let (mut desk, events, _entries) = desk();
        desk.take_run(DestinationId(1), envelopes(&[1, 2, 3, 4]));
        let mut group = Vec::new();
        desk.take_group(9, &mut group);
        desk.end(group[0], &verdict(Status::Delivered, Scope::Recipient));
        desk.take_group(9, &mut group);
        desk.end(group[0], &verdict(Status::Deferred, Scope::Host));
        desk.take_group(9, &mut group);
        desk.put_back(&group);
        desk.finish(None);
        let Ok(Event::Finished { outcome, .. }) = events.try_recv() else {
            panic!("no outcome")
        };
        assert_eq!(
            (
                outcome.settled,
                outcome.deferred.len(),
                outcome.returned.len()
            ),
            (1, 1, 2)
        );
        assert!(outcome.deferred[0].0.was_tried_by(WorkerId(7)));
        assert_eq!(outcome.returned[0].message, MessageNo(3));
        assert!(outcome.host_failed.is_some());
    }

    #[test]
    fn a_panic_settles_what_was_tried_and_returns_what_was_not() {
        let (mut desk, events, entries) = desk();
        desk.take_run(DestinationId(1), envelopes(&[1, 2, 3]));
        let thread = std::thread::spawn(move || {
            let mut group = Vec::new();
            desk.take_group(9, &mut group);
            desk.end(group[0], &verdict(Status::Deferred, Scope::Recipient));
            desk.take_group(9, &mut group);
            std::panic::resume_unwind(Box::new("planted"));
        });
        assert!(thread.join().is_err());
        let Ok(Entry::Attempts(attempts)) = entries.recv() else {
            panic!("no attempts")
        };
        assert_eq!(
            (attempts.len(), attempts[0].verdict.status),
            (1, Status::InDoubt)
        );
        let Ok(Entry::Left { recipients }) = entries.recv() else {
            panic!("nothing left")
        };
        assert_eq!(
            recipients,
            [
                (RecipientNo(1), Status::InDoubt),
                (RecipientNo(0), Status::Deferred)
            ]
        );
        let Ok(Event::Gone { returned, .. }) = events.recv() else {
            panic!("not gone")
        };
        assert_eq!(returned[0].1.len(), 1);
    }
}
