//! A worker's desk: the envelopes of the runs it works on, so that each is accounted for however the thread ends.
//!
//! There is one run, and a second one once the first has nothing left to begin with: its first message can then leave
//! with the final dot of the first run's last.
//!
//! INVARIANT: every envelope put on the desk leaves it exactly once: in the [`Outcome`] of its run, or, if the thread
//! panics, by the desk's `Drop`, which settles what was tried and returns what was not. So a bug in a worker costs at
//! most the transactions it was in, and never hangs the run. Outcomes are told in the order of the runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::book::Book;
use super::queue::Inbox;
use super::teller::Teller;
use crate::ledger::{Attempt, Via};
use crate::mail::{
    DestinationId, Enhanced, Envelope, MessageNo, Passage, Scope, SiteId, Stage, Status, Verdict,
    WorkerId,
};
use crate::queue::SenderReplies;
use crate::queue::event::{Event, Outcome};
use crate::retry::{Class, Deferral};
use crate::smtp::meaning::{is_about_sender, retry_hint};

/// Runs on the desk at most: one under way, one begun ahead.
const RUNS_MAX: usize = 2;

/// What a worker has before it.
#[derive(Debug)]
pub struct Desk {
    worker: WorkerId,
    inbox: Sender<Inbox>,
    book: Book,
    via: Via,
    runs: VecDeque<OpenRun>,
    /// The end of the latest run.
    freed: Option<Instant>,
    /// How the latest session ended, until it is told.
    session_end: SessionEnd,
}

/// Who ended a session, and after how many accepted messages.
#[derive(Clone, Copy, Default, Debug)]
pub struct SessionEnd {
    /// The server did.
    pub by_server: Option<u32>,
    /// We did.
    pub by_us: Option<u32>,
}

/// A run, as far as it is not finished.
#[derive(Debug)]
struct OpenRun {
    destination: DestinationId,
    serial: u64,
    /// Not begun yet, in order.
    waiting: VecDeque<Envelope>,
    /// In a transaction.
    under_way: Vec<Envelope>,
    /// Not to be begun, in order.
    kept_back: Vec<Envelope>,
    deferred: Vec<(Envelope, Deferral, Status)>,
    settled: u32,
    /// Messages that were accepted for somebody, and those that were tried; the latest of each.
    accepted: Count,
    tried: Count,
    /// When its first message was taken up, and when the latest of its attempts ended.
    began: Option<Instant>,
    ended: Option<Instant>,
    host_failed: Option<Arc<Verdict>>,
    sender: SenderReplies,
    /// The latest word was that we send too fast.
    is_too_fast: bool,
}

/// Counts messages whose recipients stand together.
#[derive(Default, Debug)]
struct Count {
    messages: u32,
    latest: Option<MessageNo>,
}

impl Count {
    fn note(&mut self, message: MessageNo) {
        if self.latest.replace(message) != Some(message) {
            self.messages += 1;
        }
    }
}

impl OpenRun {
    /// What was not begun, in order: what was put back last comes first.
    fn untried(&mut self) -> Vec<Envelope> {
        let mut untried = Vec::from(std::mem::take(&mut self.waiting));
        untried.append(&mut self.kept_back);
        untried
    }

    fn is_clear(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

impl Desk {
    /// An empty desk. `via` is the way that is shown for what a panic interrupts.
    pub fn new(worker: WorkerId, inbox: Sender<Inbox>, book: Book, via: Via) -> Desk {
        Desk {
            worker,
            inbox,
            book,
            via,
            runs: VecDeque::with_capacity(RUNS_MAX),
            freed: None,
            session_end: SessionEnd::default(),
        }
    }

    /// Puts a run on the desk, behind the one that is there.
    pub fn take_run(&mut self, destination: DestinationId, serial: u64, envelopes: Vec<Envelope>) {
        debug_assert!(self.runs.len() < RUNS_MAX, "a run too many on the desk");
        self.runs.push_back(OpenRun {
            destination,
            serial,
            waiting: envelopes.into(),
            under_way: Vec::new(),
            kept_back: Vec::new(),
            deferred: Vec::new(),
            settled: 0,
            accepted: Count::default(),
            tried: Count::default(),
            began: None,
            ended: None,
            host_failed: None,
            sender: SenderReplies::default(),
            is_too_fast: false,
        });
    }

    /// True if another run may be taken: nothing is left to begin with, and there is room.
    pub fn has_room(&self) -> bool {
        self.runs.len() < RUNS_MAX && self.is_empty()
    }

    /// The next envelopes for one transaction: of one message, at most `recipients_max`. They count as under way.
    pub fn take_group(&mut self, recipients_max: usize, group: &mut Vec<Envelope>) -> bool {
        group.clear();
        let Some(run) = self.runs.iter_mut().find(|run| !run.waiting.is_empty()) else {
            return false;
        };
        while let Some(envelope) = run.waiting.front() {
            let fits = group
                .first()
                .is_none_or(|first: &Envelope| first.message == envelope.message);
            if !fits || group.len() >= recipients_max.max(1) {
                break;
            }
            group.push(*envelope);
            run.waiting.pop_front();
        }
        run.under_way.extend_from_slice(group);
        run.began.get_or_insert_with(Instant::now);
        true
    }

    /// What is not begun of runs with numbers up to `serial` is not to be begun any more: it is returned with its run.
    pub fn give_back(&mut self, serial: u64) {
        let marked = |run: &&mut OpenRun| run.serial <= serial && !run.waiting.is_empty();
        for run in self.runs.iter_mut().filter(marked) {
            run.kept_back.extend(run.waiting.drain(..));
        }
    }

    /// True if no envelope is left to begin with.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.waiting.is_empty())
    }

    /// Puts envelopes back that were taken and not tried, before the others of their run.
    pub fn put_back(&mut self, envelopes: &[Envelope]) {
        for envelope in envelopes.iter().rev() {
            if let Some(run) = self.take_from_under_way(envelope) {
                run.waiting.push_front(*envelope);
            }
        }
    }

    /// An envelope's attempt has ended with this verdict.
    pub fn end(&mut self, mut envelope: Envelope, verdict: &Verdict) {
        let worker = self.worker;
        let Some(run) = self.take_from_under_way(&envelope) else {
            return;
        };
        if verdict.stage >= Stage::Mail {
            run.tried.note(envelope.message);
        }
        run.ended = Some(Instant::now());
        run.is_too_fast = false;
        if verdict.status == Status::Delivered {
            run.accepted.note(envelope.message);
            run.sender.accept(envelope.message);
        } else if is_about_sender(verdict.code, verdict.enhanced) {
            let is_new = envelope.passage == Passage::default();
            run.sender.refuse(envelope.message, is_new, verdict);
        }
        if !verdict.status.is_pending() {
            run.settled += 1;
            return;
        }
        if super::dial::is_host_failure(verdict) && run.host_failed.is_none() {
            run.host_failed = Some(Arc::new(verdict.clone()));
        }
        envelope.tried_by(worker);
        let mut deferral = Deferral::of(verdict, retry_hint(&verdict.text));
        if deferral.class == Class::Rate && is_about_sender(verdict.code, verdict.enhanced) {
            // However slowly we went, it would be said again.
            deferral.class = Class::Message;
        }
        run.is_too_fast = deferral.class == Class::Rate;
        run.deferred.push((envelope, deferral, verdict.status));
    }

    /// The run that `envelope` is under way in, which it leaves.
    fn take_from_under_way(&mut self, envelope: &Envelope) -> Option<&mut OpenRun> {
        let is_it = |each: &Envelope| each.recipient == envelope.recipient;
        let found = self.runs.iter_mut().find_map(|run| {
            let at = run.under_way.iter().position(is_it)?;
            Some((run, at))
        });
        debug_assert!(
            found.is_some(),
            "recipient {} is not under way",
            envelope.recipient.0
        );
        let (run, at) = found?;
        run.under_way.swap_remove(at);
        Some(run)
    }

    /// True if what is next was tried before and came as far as its recipient.
    pub fn is_next_again(&self) -> bool {
        let next = self.runs.iter().find_map(|run| run.waiting.front());
        next.is_some_and(|envelope| envelope.passage.attempts > 0)
    }

    /// How often the host of what is next has failed before.
    pub fn failures(&self) -> u8 {
        let next = self.runs.iter().find_map(|run| run.waiting.front());
        next.map_or(0, |envelope| envelope.passage.host_failures)
    }

    /// True if the site failed during these runs.
    pub fn has_host_failed(&self) -> bool {
        self.runs.iter().any(|run| run.host_failed.is_some())
    }

    /// True if the latest word on the sender in one of these runs was a complaint: who goes on with the site's mail, if
    /// anybody does, is the queue's decision.
    pub fn is_sender_refused(&self) -> bool {
        self.runs.iter().any(|run| run.sender.ends_refused())
    }

    /// True if the latest word in one of these runs was that we send too fast: what follows would hear the same, and waits
    /// for the pace of the site.
    pub fn is_too_fast(&self) -> bool {
        self.runs.iter().any(|run| run.is_too_fast)
    }

    /// True if there are two runs.
    pub fn holds_two(&self) -> bool {
        self.runs.len() > 1
    }

    /// True if there are two runs and the first has envelopes to begin with.
    pub fn has_more_of_first(&self) -> bool {
        self.holds_two() && !self.runs[0].waiting.is_empty()
    }

    /// True if the first of two runs is done: time for [`Desk::finish_first`].
    pub fn is_first_done(&self) -> bool {
        self.holds_two() && self.runs[0].is_clear()
    }

    /// A session has ended, to be told with the run that is reported next.
    pub fn note_session_end(&mut self, end: SessionEnd) {
        self.session_end = end;
    }

    /// Reports the first run, if there is one: what is left of it is returned untried.
    pub fn finish_first(&mut self, session: Option<SiteId>) -> bool {
        let Some(mut run) = self.runs.pop_front() else {
            return false;
        };
        // What was begun ahead of the end of the run before took no time of its own until then.
        let began = run.began.max(self.freed);
        let spent = match (began, run.ended) {
            (Some(began), Some(ended)) => ended.saturating_duration_since(began),
            _ => Duration::ZERO,
        };
        self.freed = run.ended.max(self.freed);
        let session_end = std::mem::take(&mut self.session_end);
        let outcome = Outcome {
            returned: run.untried(),
            accepted: run.accepted.messages,
            tried: run.tried.messages,
            spent,
            ended_after: session_end.by_server,
            carried: session_end.by_us,
            deferred: run
                .deferred
                .into_iter()
                .map(|(envelope, deferral, _)| (envelope, deferral))
                .collect(),
            settled: run.settled,
            host_failed: run.host_failed,
            session,
            sender: run.sender,
        };
        let _ = self.inbox.send(Event::Finished {
            worker: self.worker,
            outcome,
        });
        true
    }

    /// What was tried when a panic came: it may or may not have been delivered, and what was deferred stays so.
    fn settle_after_panic(&mut self, run: &OpenRun) {
        let text =
            "an error of this program interrupted the transaction: it may have been delivered";
        let enhanced = Enhanced::new(4, 3, 0);
        let verdict = Verdict::own(Status::InDoubt, Scope::Local, Stage::Body, enhanced, text);
        let at = jiff::Timestamp::now().as_millisecond();
        let mut teller = Teller::new(self.book.clone(), self.via.queue);
        for envelope in &run.under_way {
            teller.add(&Attempt {
                recipient: envelope.recipient,
                passage: envelope.passage.after(&verdict),
                verdict: verdict.clone(),
                via: self.via.clone(),
                at,
                took_ms: 0,
            });
        }
        // For the second time: a person is to decide.
        let status = |envelope: &Envelope| match envelope.passage.in_doubt {
            true => Status::Held,
            false => Status::InDoubt,
        };
        let in_doubt = run
            .under_way
            .iter()
            .map(|envelope| (envelope.recipient, status(envelope)));
        let deferred = run
            .deferred
            .iter()
            .map(|(envelope, _, status)| (envelope.recipient, *status));
        teller.leave(in_doubt.chain(deferred).collect());
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut returned = Vec::new();
        for mut run in std::mem::take(&mut self.runs) {
            if std::thread::panicking() {
                self.settle_after_panic(&run);
            }
            let destination = run.destination;
            let untried = run.untried();
            if !untried.is_empty() {
                returned.push((destination, untried));
            }
        }
        let _ = self.inbox.send(Event::Gone {
            worker: self.worker,
            returned,
        });
    }
}

#[cfg(test)]
mod tests;
