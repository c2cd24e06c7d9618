//! What workers report, and what follows from it for the mail, the site and the worker itself.
//!
//! Who is hurt decides what follows. A host failure hurts the site: if no session of it is known to work, the site is
//! paused, which is one change of state however much mail waits, and after a back-off one worker probes it; if others work,
//! only new sessions are held back for a while. One that refuses us as the sender is stopped for the rest of the run
//! (`sender.rs`). A deferral hurts its envelope alone, which goes to the delayed heap with
//! the back-off of its class. Mail nobody tried goes back to the front of its waiting list.
//!
//! INVARIANT: every envelope of a report goes to exactly one place: a waiting list, the delayed heap, or a final action.

use std::sync::Arc;
use std::time::Duration;

use super::backlog::State;
use super::delayed::Timer;
use super::dispatcher::{Dispatcher, Turn};
use super::event::{Action, Outcome};
use super::ready::Work;
use super::site::Gate;
use crate::mail::{DestinationId, Envelope, SiteId, Status, Verdict, WorkerId};
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
        self.works(w);
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
        let progress = outcome.settled > 0 || self.workers[w].proven;
        self.workers[w].current = self.workers[w].ahead.take();
        self.judge_site(w, &outcome, t);
        let site = self.workers[w].session;
        self.note_session(w, outcome.session, t);
        let sender = std::mem::take(&mut outcome.sender);
        self.take_back(w, work, outcome, progress, t);
        if let Some(s) = site {
            // After what it deferred and gave back is where it belongs, so that a stop leaves that as well.
            self.judge_sender(w, s, work.destination, sender, t);
        }
        if self.workers[w].current.is_none() {
            self.place(w, t);
        }
    }

    /// Keeps the permits in step with the session that the worker says is open.
    fn note_session(&mut self, w: u32, open: Option<SiteId>, t: &mut Turn<'_, P>) {
        if open.is_some() && open == self.workers[w].closing.map(|s| self.sites[s].id) {
            self.keep_old_session(w, t);
        }
        self.closing_is_over(w, t);
        let Some(s) = self.workers[w].session else {
            return;
        };
        debug_assert!(open.is_none_or(|open| open == self.sites[s].id));
        if open.is_none() {
            self.unprove(w);
            // With a run given ahead it will open another at once: the permit stands for that one.
            if self.workers[w].current.is_none() {
                self.leave_session(w, t);
                self.closing_is_over(w, t);
            }
        }
    }

    /// The worker gave its run back before it left its old session for it.
    fn keep_old_session(&mut self, w: u32, t: &mut Turn<'_, P>) {
        let old = self.workers[w].closing.take();
        self.leave_session(w, t);
        self.closing_is_over(w, t);
        self.workers[w].session = old;
        if let Some(old) = old {
            self.sites[old].workers += 1;
            self.sites.refresh(old);
        }
    }

    /// What a finished run says about its site.
    fn judge_site(&mut self, w: u32, outcome: &Outcome, t: &mut Turn<'_, P>) {
        let Some(s) = self.workers[w].session else {
            return;
        };
        let rate = |(_, deferral): &(Envelope, Deferral)| deferral.class == Class::Rate;
        let reached = |(_, deferral): &(Envelope, Deferral)| deferral.class != Class::Host;
        if let Some(verdict) = &outcome.host_failed {
            self.host_failed(w, s, verdict, t);
        } else if outcome.settled > 0 || outcome.deferred.iter().any(reached) {
            self.works(w);
            if outcome.deferred.iter().any(rate) && self.sites[s].gate == Gate::Open {
                self.narrow(s, t);
            }
        } else if self.sites[s].gate == Gate::Probing(w) {
            // It gave the probe back untried: somebody else may try, but not in a circle.
            self.pause(s, t);
        }
    }

    fn host_failed(&mut self, w: u32, s: u32, verdict: &Arc<Verdict>, t: &mut Turn<'_, P>) {
        self.unprove(w);
        if self.sites[s].gate != Gate::Stopped {
            self.sites[s].failure = Some(verdict.clone());
        }
        match self.sites[s].gate {
            Gate::Open | Gate::Narrow(_) if self.sites[s].proven > 0 => self.narrow(s, t),
            Gate::Open | Gate::Narrow(_) => self.pause(s, t),
            Gate::Probing(prober) if prober == w => self.pause(s, t),
            // Failures of attempts begun before the pause say nothing new.
            Gate::Paused(_) | Gate::Probe | Gate::Probing(_) | Gate::Stopped => {}
        }
        self.recall_next(w, t);
    }

    /// Asks for the run back that was given ahead to `w`, which has just finished the one before: it is its current run by
    /// now. Unless it has begun with it, it need not fail as well.
    pub(super) fn recall_next(&mut self, w: u32, t: &mut Turn<'_, P>) {
        let worker = &mut self.workers[w];
        if worker.current.is_some() && !worker.recalled {
            worker.recalled = true;
            t.actions.push(Action::Recall { worker: worker.id });
        }
    }

    /// Holds new sessions back for a while.
    fn narrow(&mut self, s: u32, t: &mut Turn<'_, P>) {
        let until = t.now + self.config.retry.host_back_off(1, &mut self.rng);
        self.sites[s].gate = Gate::Narrow(until);
        self.timers.push(until, Timer::Site(s));
        self.touch(s);
    }

    /// Stops the site for a while. If that is longer than the run, its mail is left now; if the site is given up, its mail
    /// goes to the fallback relay.
    fn pause(&mut self, s: u32, t: &mut Turn<'_, P>) {
        let failures = self.sites[s].failures.saturating_add(1);
        let until = t.now + self.config.retry.host_back_off(failures, &mut self.rng);
        self.sites[s].failures = failures;
        self.sites[s].gate = Gate::Paused(until);
        self.timers.push(until, Timer::Site(s));
        self.touch(s);
        if self.config.retry.beyond(until).is_some() || self.is_site_given_up(s) {
            let mut waiting = Vec::new();
            while let Some(d) = self.sites[s].destinations.front() {
                waiting.push((d, self.withdraw(d)));
            }
            for (d, all) in waiting {
                self.admit(d, all, false, t);
            }
        }
    }

    /// The session of `w` works, and so does its site.
    fn works(&mut self, w: u32) {
        let Some(s) = self.workers[w].session else {
            return;
        };
        if !std::mem::replace(&mut self.workers[w].proven, true) {
            self.sites[s].proven += 1;
        }
        self.sites[s].failures = 0;
        if matches!(
            self.sites[s].gate,
            Gate::Paused(_) | Gate::Probe | Gate::Probing(_)
        ) {
            self.sites[s].gate = Gate::Open;
            self.sites[s].failure = None;
            self.touch(s);
        }
    }

    /// The session of `w` is not known to work any more.
    fn unprove(&mut self, w: u32) {
        if std::mem::replace(&mut self.workers[w].proven, false)
            && let Some(s) = self.workers[w].session
        {
            self.sites[s].proven -= 1;
        }
    }

    /// Sorts the envelopes of a finished run. `progress`: its session has carried mail.
    fn take_back(
        &mut self,
        w: u32,
        work: Work,
        outcome: Outcome,
        progress: bool,
        t: &mut Turn<'_, P>,
    ) {
        let d = work.destination;
        let worker = self.workers[w].id;
        let (mut soon, mut later) = (Vec::new(), Vec::new());
        let mut latest: Option<(Envelope, Deferral, Next, Envelope)> = None;
        for (before, mut deferral) in outcome.deferred {
            if deferral.class == Class::Session && !progress {
                // A server that ends each session before anything is accepted would be called in a circle.
                deferral.class = Class::Host;
            }
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
                Next::Now => soon.push(envelope),
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

    /// A worker has closed a session.
    pub(super) fn closed(&mut self, worker: WorkerId, site: SiteId, t: &mut Turn<'_, P>) {
        let Some(w) = self.workers.find(worker) else {
            return;
        };
        let is_site = |s: Option<u32>| s.is_some_and(|s| self.sites[s].id == site);
        if is_site(self.workers[w].closing) {
            self.closing_is_over(w, t);
        } else if is_site(self.workers[w].session) {
            if self.workers[w].current.is_some() {
                return self.unprove(w); // it opens another for the run it holds
            }
            if let Some(s) = self.workers[w].session {
                let list = &mut self.sites[s].idle;
                self.workers.site_links.remove(list, w);
            }
            self.leave_session(w, t);
            self.closing_is_over(w, t);
        }
    }

    /// Worker `w`, which stands in no list of a site, is to serve another one or none: its session is about to close.
    pub(super) fn leave_session(&mut self, w: u32, t: &mut Turn<'_, P>) {
        self.unprove(w);
        let Some(s) = self.workers[w].session.take() else {
            return;
        };
        self.closing_is_over(w, t);
        self.sites[s].workers -= 1;
        self.sites.refresh(s);
        self.workers[w].closing = Some(s);
    }

    /// The session that was being closed is closed: its permit goes back.
    fn closing_is_over(&mut self, w: u32, t: &mut Turn<'_, P>) {
        if let Some(s) = self.workers[w].closing.take() {
            let site = &mut self.sites[s];
            t.permits.return_session(site.id, self.config.queue);
            // It may have been refused for a limit of our own, of which nobody else would tell us.
            site.blocked = false;
            self.touch(s);
        }
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
        self.admit(work.destination, envelopes, true, t);
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
    }
}
