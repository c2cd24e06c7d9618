//! What workers report, and what follows from it for the mail, the site and the worker itself.
//!
//! Who is hurt decides what follows: what hurts the site is in `judge.rs`, and what says that it refuses us as the sender in
//! `sender.rs`. A deferral hurts its envelope alone, which goes to the delayed heap with
//! the back-off of its class. Mail nobody tried goes back to the front of its waiting list.
//!
//! Messages that are put off since we send too fast wait for the pace of the site, in front of the others.
//!
//! INVARIANT: every envelope of a report goes to exactly one place: a waiting list, the delayed heap, or a final action.

use std::time::Duration;

use super::backlog::State;
use super::delayed::Timer;
use super::dispatcher::{Dispatcher, Turn};
use super::event::{Action, Outcome};
use super::ready::Work;
use super::site::Gate;
use crate::mail::{DestinationId, Envelope, Scope, Stage, Status, WorkerId};
use crate::retry::{self, Class, Deferral, Next};

/// How long no worker is spawned after a thread has failed.
const SPAWN_PAUSE: Duration = Duration::from_secs(1);

impl<P: Clone> Dispatcher<P> {
    /// A worker says that it can take a run.
    pub(super) fn announced(&mut self, worker: WorkerId, ahead: bool) {
        let Some(w) = self.workers.find(worker) else {
            return;
        };
        if !ahead || self.workers[w].current.is_none() {
            // One that owes nothing has been ready since it finished; to one that waits, something is on its way.
            return;
        }
        // The session is open; but a probe is answered by replies to its mail alone.
        let site = self.workers[w].session;
        if site.is_some_and(|s| matches!(self.sites[s].gate, Gate::Open | Gate::Narrow(_))) {
            self.works(w);
        }
        let worker = &self.workers[w];
        let has_room = worker.ahead.is_none() && !worker.recalled;
        if let Some(s) = worker.session
            && has_room
            && !self.workers.site_links.is_linked(w)
        {
            let list = &mut self.sites[s].ahead;
            self.workers.site_links.push_back(list, w);
            self.touch(s);
        }
    }

    /// A worker has finished its oldest assignment.
    pub(super) fn finished(&mut self, worker: WorkerId, mut outcome: Outcome, t: &mut Turn<'_, P>) {
        let Some(w) = self.workers.find(worker) else {
            debug_assert!(false, "{worker:?} is not a worker of this queue");
            return;
        };
        let Some(work) = self.workers[w].current.take() else {
            debug_assert!(false, "{worker:?} has finished what it was not given");
            return;
        };
        debug_assert_eq!(
            work.count,
            outcome.deferred.len() + outcome.returned.len() + outcome.settled as usize,
            "{worker:?} does not account for each envelope"
        );
        self.in_hand -= work.count;
        self.unlist(w);
        // A session may end at the first message of a run, with those of earlier runs behind it.
        self.workers[w].carried |= outcome.settled > 0;
        let carried = self.workers[w].carried;
        let is_cut = |deferral: &Deferral| deferral.class == Class::Session && !carried;
        let cut_short = outcome.deferred.iter().any(|(_, why)| is_cut(why));
        for (_, deferral) in &mut outcome.deferred {
            if is_cut(deferral) {
                // A server that ends each session before anything is accepted would be called in a circle.
                deferral.class = Class::Host;
            }
        }
        self.workers[w].current = self.workers[w].ahead.take();
        self.excuse_prober(w, work.destination, &outcome);
        self.settle_slots(w, work, &outcome, t);
        let turned_away = self.judge_site(w, work, &outcome, cut_short, t);
        if turned_away {
            for (envelope, deferral) in &mut outcome.deferred {
                if deferral.class == Class::Host {
                    // As if nobody had tried, but somebody else may have the better luck.
                    deferral.class = Class::Session;
                    envelope.tried_by(worker);
                }
            }
        }
        let site = self.workers[w].session;
        self.note_session(w, outcome.session, t);
        let sender = std::mem::take(&mut outcome.sender);
        self.take_back(w, work, outcome, t);
        self.hold_is_checked(false, t.now);
        if let Some(s) = site {
            // After what it deferred and gave back is where it belongs, so that a stop leaves that as well.
            self.judge_sender(w, s, work.destination, sender, t);
        }
        if self.workers[w].current.is_none() {
            self.place(w, t);
        }
    }

    /// The slots of a run that were not used go back.
    fn settle_slots(&mut self, w: u32, work: Work, outcome: &Outcome, t: &Turn<'_, P>) {
        let worker = &self.workers[w];
        if let Some(s) = worker.session
            && work.slots > 0
        {
            let source = worker.source;
            let last = outcome.deferred.last().map(|(envelope, _)| envelope);
            let mut unused = self.untried_slots(work, &outcome.returned, last);
            if outcome.tried == 0 && outcome.settled == 0 {
                unused = work.slots; // no session was opened: nothing was sent
            }
            self.give_back(s, source, unused, work.taken, t);
            self.hold_is_checked(unused > 0, t.now);
        }
    }

    /// Sorts the envelopes of a finished run.
    fn take_back(&mut self, w: u32, work: Work, outcome: Outcome, t: &mut Turn<'_, P>) {
        let d = work.destination;
        let worker = self.workers[w].id;
        let (mut soon, mut later) = (Vec::new(), Vec::new());
        let mut latest: Option<(Envelope, Deferral, Next, Envelope)> = None;
        for (before, deferral) in outcome.deferred {
            let mut envelope = before;
            // Recipients of one message that failed alike are tried again together, hence with the same jitter.
            let next = match &latest {
                Some((like, why, next, after))
                    if like.message == before.message
                        && like.passage == before.passage
                        && *why == deferral =>
                {
                    envelope.passage = after.passage;
                    *next
                }
                _ => self.plan_retry(d, &mut envelope, deferral, t),
            };
            latest = Some((before, deferral, next, envelope));
            match next {
                Next::Now => {
                    if deferral.class != Class::Session {
                        envelope.tried_by(worker);
                    }
                    soon.push(envelope);
                }
                Next::Leave(status) => {
                    if status.is_pending() {
                        self.note_left(d, 1);
                    }
                    self.leave_as(d, envelope, status, t);
                }
                Next::At(due) if matches!(self.backlog[d].state, State::Moved(_)) => {
                    later.push((envelope, due));
                }
                Next::At(due) => {
                    envelope.tried_by(worker);
                    self.delayed.push(due, d, envelope, t.now);
                }
            }
        }
        soon.extend(outcome.returned);
        self.admit(d, soon, true, t);
        self.delay(d, later, t);
    }

    fn plan_retry(
        &mut self,
        d: u32,
        envelope: &mut Envelope,
        deferral: Deferral,
        t: &Turn<'_, P>,
    ) -> Next {
        let next = self
            .config
            .retry
            .after(&mut envelope.passage, deferral, t.now, &mut self.rng);
        match next {
            _ if !self.stopped && self.falls_back_now(d, envelope, deferral.class, t) => Next::Now,
            // What an order has ended meanwhile ends in `admit`.
            Next::Leave(status) if !status.is_pending() => next,
            _ if !self.stopped && self.is_ended_by_order(d) => Next::Now,
            Next::At(_) | Next::Now if self.stopped || self.is_site_stopped(d) => {
                Next::Leave(retry::pending(envelope.passage))
            }
            next => next,
        }
    }

    /// One envelope is left with a status; it joins the action before it if that is alike.
    fn leave_as(&mut self, d: u32, envelope: Envelope, status: Status, t: &mut Turn<'_, P>) {
        let id = self.backlog[d].id;
        if let Some(Action::Leave {
            destination,
            envelopes,
            status: same,
            why: None,
        }) = t.actions.last_mut()
            && *destination == id
            && *same == status
        {
            return envelopes.push(envelope);
        }
        t.actions.push(Action::Leave {
            destination: id,
            envelopes: vec![envelope],
            status,
            why: None,
        });
    }

    /// Asks for the run back that was given ahead to `w`, if there is one.
    pub(super) fn recall(&mut self, w: u32, t: &mut Turn<'_, P>) {
        let worker = &mut self.workers[w];
        if worker.ahead.is_some() && !worker.recalled {
            worker.recalled = true;
            t.actions.push(Action::Recall { worker: worker.id });
        }
    }

    /// A run given ahead should have begun by now: if somebody else could take it, it is asked back.
    pub(super) fn ahead_is_late(&mut self, w: u32, serial: u64, t: &mut Turn<'_, P>) {
        let waits = self.workers.exists(w)
            && !self.workers[w].recalled
            && self.workers[w]
                .ahead
                .is_some_and(|work| work.serial == serial);
        if !waits {
            return;
        }
        if self.could_help() {
            self.recall(w, t);
        } else {
            let later = t.now + self.config.recall_after;
            self.timers.push(later, Timer::Ahead(w, serial));
        }
    }

    /// The answer to a recall.
    pub(super) fn recalled(
        &mut self,
        worker: WorkerId,
        envelopes: Vec<Envelope>,
        t: &mut Turn<'_, P>,
    ) {
        let Some(w) = self.workers.find(worker) else {
            return;
        };
        self.workers[w].recalled = false;
        if envelopes.is_empty() {
            return;
        }
        // The run before it may have been finished in the meantime; then this one is the current one.
        let ahead = self.workers[w].ahead.take();
        let Some(work) = ahead.or_else(|| self.workers[w].current.take()) else {
            debug_assert!(false, "{worker:?} gives back what it was not given");
            return;
        };
        debug_assert_eq!(work.count, envelopes.len());
        self.in_hand -= work.count;
        if let Some(s) = self.workers[w].session {
            self.give_back(s, self.workers[w].source, work.slots, work.taken, t);
            self.hold_is_checked(work.slots > 0, t.now);
        }
        self.admit(work.destination, envelopes, true, t);
        self.hold_is_checked(false, t.now);
        if self.workers[w].current.is_none() {
            self.place(w, t);
        }
    }

    /// A worker's thread has ended.
    pub(super) fn gone(
        &mut self,
        worker: WorkerId,
        returned: Vec<(DestinationId, Vec<Envelope>)>,
        t: &mut Turn<'_, P>,
    ) {
        let Some(w) = self.workers.find(worker) else {
            return;
        };
        self.unlist(w);
        let site = self.workers[w].session;
        self.leave_session(w, t);
        self.closing_is_over(w, t);
        let work = [self.workers[w].current, self.workers[w].ahead];
        let owed: usize = work.iter().flatten().map(|work| work.count).sum();
        self.in_hand -= owed;
        self.workers.remove(w);
        t.permits.return_worker(self.config.queue);
        self.worker_refused = false;
        if let Some(s) = site
            && self.sites[s].gate == Gate::Probing(w)
        {
            self.pause(s, t);
        }
        if owed > 0 {
            self.spawn_after = Some(t.now + SPAWN_PAUSE);
        }
        for (destination, envelopes) in returned {
            let d = self.backlog.slot(destination);
            self.admit(d, envelopes, true, t);
        }
        self.hold_is_checked(false, t.now);
    }
}

/// True if the session of a run could not be opened: no connection, or a refusal at greeting or EHLO. Our own trouble (no
/// descriptors, no ports) is none of the site's doing.
pub(super) fn is_opening_failed(outcome: &Outcome) -> bool {
    outcome.host_failed.as_ref().is_some_and(|verdict| {
        verdict.scope != Scope::Local
            && matches!(
                verdict.stage,
                Stage::Connect | Stage::Greeting | Stage::Ehlo
            )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mail::{Enhanced, Status, Verdict};

    #[test]
    fn our_own_trouble_is_no_session_that_was_turned_away() {
        let failed = |scope, stage| {
            let enhanced = Enhanced::new(4, 4, 1);
            let verdict = Verdict::own(Status::Deferred, scope, stage, enhanced, "");
            is_opening_failed(&Outcome {
                host_failed: Some(Arc::new(verdict)),
                ..Outcome::default()
            })
        };
        for stage in [Stage::Connect, Stage::Greeting, Stage::Ehlo] {
            assert!(failed(Scope::Host, stage), "{stage:?}");
            assert!(!failed(Scope::Local, stage), "{stage:?}");
        }
        assert!(!failed(Scope::Host, Stage::Mail));
    }
}
