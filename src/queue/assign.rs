//! Mail and workers are brought together here, and only here.
//!
//! After an event has changed the state, `settle` looks at the sites it touched and hands out runs in this order:
//! 1. to ready workers with an open session to the site (the latest first), then to busy ones that may be given a run ahead;
//! 2. to the most recently ready worker of any site, which then leaves its session, or to a new worker, for the sites of
//!    the ring in turn, as far as permits go;
//! 3. what a worker was passed over for (mail it tried last itself) goes to it after all, if nobody else could be found.
//!
//! A refused session permit takes the site out of the ring until a notice comes; a refused worker permit ends step 2. In
//! both cases this queue stands in line in the permit table, which will tell it: no wake-up is lost. What only time can
//! change has a timer (`flow.rs`).

use std::time::Instant;

use super::backlog::{Cut, State};
use super::delayed::Timer;
use super::dispatcher::{Dispatcher, Turn};
use super::event::Action;
use super::flow::Allowance;
use super::permits::{Grant, Phase, Wanted};
use super::ready::Work;
use super::site::Gate;
use crate::mail::{Envelope, SourceNo};

/// Who takes a site of the ring.
enum Choice {
    /// A worker of the ready list.
    Ready(u32),
    /// A new one, for which a permit is in hand.
    New,
}

/// A session that a worker may go on with, or has the permit to open, and what it may carry at once.
struct Opening {
    source: SourceNo,
    phase: Option<Phase>,
    allowance: Allowance,
}

impl<P: Clone> Dispatcher<P> {
    /// Brings mail and workers together, then lets go of workers nobody needs.
    pub(super) fn settle(&mut self, t: &mut Turn<'_, P>) {
        loop {
            self.feed_touched(t);
            if self.ring_begins {
                self.serve_ring(t);
                self.feed_starved(t);
            } else {
                self.feed_starved(t);
                self.serve_ring(t);
            }
            while let Some(s) = self.passed_over.pop() {
                self.feed(s, false, t);
                self.sites.refresh(s);
            }
            if self.touched.is_empty() {
                self.release(t);
            }
            // Who is let go may have been the only one of a site: its next session is a first one then.
            if self.touched.is_empty() {
                break;
            }
        }
    }

    /// Step 1, for all sites that the event touched, in that order.
    fn feed_touched(&mut self, t: &mut Turn<'_, P>) {
        let mut at = 0;
        while at < self.touched.len() {
            let s = self.touched[at];
            at += 1;
            self.sites[s].touched = false;
            self.feed_all(s, t);
            self.watch(s, t.now);
        }
        self.touched.clear();
    }

    /// Step 1 for one site.
    pub(super) fn feed_all(&mut self, s: u32, t: &mut Turn<'_, P>) {
        self.feed(s, true, t);
        self.feed_ahead(s, t);
        self.leave_what_rests(s, t);
        self.sites.refresh(s);
        self.time_patience(s, t.now);
    }

    /// Step 1: ready workers with a session to the site. With `choosy`, one that tried the next envelope last is passed
    /// over if somebody else may take it.
    fn feed(&mut self, s: u32, choosy: bool, t: &mut Turn<'_, P>) {
        while self.sites[s].feeds() && self.freshen(s, t) {
            self.steps += 1;
            let last = self.sites[s].idle.back();
            let Some(mut w) = last.and_then(|w| self.first_that_may_send(w, s)) else {
                return;
            };
            if choosy && self.should_pass(w, s) {
                let before = self.workers.site_links.before(w);
                match before.and_then(|w| self.first_that_may_send(w, s)) {
                    Some(second) => w = second,
                    None => return self.passed_over.push(s),
                }
            }
            if !self.try_assign(w, s, t) && self.hold_until.is_some() {
                return;
            }
        }
    }

    /// `w`, or the nearest before it in the list of idle workers of site `s`, whose source address may send now.
    fn first_that_may_send(&self, w: u32, s: u32) -> Option<u32> {
        let mut next = Some(w);
        while let Some(w) = next {
            if !self.sites[s].rests(self.workers[w].source) {
                break;
            }
            next = self.workers.site_links.before(w);
        }
        next
    }

    /// Step 1: busy workers of the site that may be given one more run.
    fn feed_ahead(&mut self, s: u32, t: &mut Turn<'_, P>) {
        while self.sites[s].feeds() && self.freshen(s, t) {
            let Some(w) = self.sites[s].ahead.front() else {
                return;
            };
            self.steps += 1;
            if self.sites[s].standing.is_suspect() || self.sites[s].rests(self.workers[w].source) {
                return; // the reply to what it has comes first
            }
            if self.owes_connections(w, 1, t) {
                // It says so again when it begins what is its last message then.
                let list = &mut self.sites[s].ahead;
                self.workers.site_links.remove(list, w);
                continue;
            }
            let turns = self.quantum_is_over(w, t.now) && self.sites.others_need_more_than(s);
            let unwanted = self.is_surplus(t) || self.session_wanted(s, t) == Wanted::Yes;
            if turns || unwanted || self.should_pass(w, s) || !self.try_assign(w, s, t) {
                return;
            }
        }
    }

    /// Step 2: the sites of the ring in turn.
    fn serve_ring(&mut self, t: &mut Turn<'_, P>) {
        let mut permit = false;
        while self.hold_until.is_none()
            && self.sessions_after.is_none()
            && let Some(s) = self.sites.next()
        {
            self.steps += 1;
            if !self.freshen(s, t) {
                continue;
            }
            let Some(choice) = self.choose(s, &mut permit, t) else {
                match self.sites[s].rests_until() {
                    // Those that are ready have sessions with this very site that rest. Once they have idled for long
                    // enough they end, and another address may serve it.
                    Some(until) if !self.workers.ready.is_empty() => {
                        self.open_after(s, until.min(t.now + self.config.idle), t);
                    }
                    _ => break,
                }
                continue;
            };
            let Some(opening) = self.may_open(&choice, s, t) else {
                continue;
            };
            let w = match choice {
                Choice::Ready(w) => w,
                Choice::New => {
                    permit = false;
                    self.spawn(t)
                }
            };
            self.turn_to(w, s, opening, t);
        }
        if permit {
            t.permits.return_worker(self.config.queue);
        }
    }

    /// Who takes the next run of site `s`: the most recently ready worker; rather the one before it, or a new one, if it
    /// tried the envelope last itself.
    fn choose(&mut self, s: u32, permit: &mut bool, t: &mut Turn<'_, P>) -> Option<Choice> {
        let latest = self.workers.ready.back();
        let usable = latest.filter(|w| !self.is_resting(*w, s));
        if let Some(w) = usable
            && !self.tried_next(w, s)
        {
            return Some(Choice::Ready(w));
        }
        let second = latest.and_then(|w| self.workers.ready_before(w));
        if let Some(w) = second.filter(|w| !self.is_resting(*w, s)) {
            return Some(Choice::Ready(w));
        }
        *permit = *permit || self.may_spawn(t);
        if *permit {
            return Some(Choice::New);
        }
        usable.map(Choice::Ready)
    }

    /// True if `w` has a session with site `s` from an address that may not send now.
    fn is_resting(&self, w: u32, s: u32) -> bool {
        let worker = &self.workers[w];
        worker.session == Some(s) && self.sites[s].rests(worker.source)
    }

    /// Takes a permit for the session, unless the worker has it, and what it may carry. Refused, the site, or the part of the
    /// ring it stands in, or the queue, waits for a notice or a timer.
    fn may_open(&mut self, choice: &Choice, s: u32, t: &mut Turn<'_, P>) -> Option<Opening> {
        let probes = self.probes(s, None);
        if let Choice::Ready(w) = choice
            && self.workers[*w].session == Some(s)
        {
            let source = self.workers[*w].source;
            let allowance = self.allowance(s, source, probes, t)?;
            let phase = None;
            return Some(Opening {
                source,
                phase,
                allowance,
            });
        }
        let (id, queue, phase) = (self.sites[s].id, self.config.queue, self.sites[s].phase());
        match t.permits.take_session(id, queue, phase, t.now) {
            Grant::Granted(source) => match self.allowance(s, source, probes, t) {
                Some(allowance) => {
                    let phase = Some(phase);
                    return Some(Opening {
                        source,
                        phase,
                        allowance,
                    });
                }
                None => {
                    // Another queue was faster to take the slot.
                    t.permits.end_opening(id, queue, source, phase);
                    t.permits.return_session(id, queue, source);
                    if self.hold_until.is_none() && !self.sites[s].is_held() {
                        self.open_after(s, t.now, t);
                    }
                }
            },
            Grant::Refused => {
                self.sites[s].blocked = true;
                self.sites.refresh(s);
            }
            Grant::Connects => self.sites.shut[phase.index()] = true,
            Grant::NotBefore(at) => self.open_after(s, at, t),
            Grant::NoneBefore(at) => self.open_none_before(at, t),
        }
        None
    }

    /// Worker `w`, which owes nothing, serves site `s` from now on; it has the permit.
    fn turn_to(&mut self, w: u32, s: u32, opening: Opening, t: &mut Turn<'_, P>) {
        self.unlist(w);
        if self.workers[w].session != Some(s) {
            self.leave_session(w, t);
            let worker = &mut self.workers[w];
            worker.session = Some(s);
            worker.source = opening.source;
            worker.opening = opening.phase;
            worker.served = 0;
            worker.serving_since = t.now;
            self.sites[s].workers += 1;
        }
        if self.sites[s].gate == Gate::Probe {
            self.sites[s].gate = Gate::Probing(w);
        }
        self.assign(w, s, opening.allowance, t);
        self.sites.rotate(s);
        self.time_patience(s, t.now);
    }

    /// Hands `w` the next run of its site `s`, now or ahead, if the pace allows it. It is not taken off any list otherwise.
    fn try_assign(&mut self, w: u32, s: u32, t: &mut Turn<'_, P>) -> bool {
        let (source, probes) = (self.workers[w].source, self.probes(s, Some(w)));
        let allowance = self.allowance(s, source, probes, t);
        if let Some(allowance) = allowance {
            self.assign(w, s, allowance, t);
        }
        allowance.is_some()
    }

    fn assign(&mut self, w: u32, s: u32, allowance: Allowance, t: &mut Turn<'_, P>) {
        self.unlist(w);
        let source = self.workers[w].source;
        let (d, envelopes) = self.next_run(s, w, allowance.length);
        self.serial += 1;
        self.in_hand += envelopes.len();
        let work = Work {
            destination: d,
            count: envelopes.len(),
            slots: self.trim(s, source, allowance, &envelopes, t),
            taken: t.now,
            serial: self.serial,
        };
        self.sites[s].patience.heard(t.now);
        let worker = &mut self.workers[w];
        worker.served += envelopes.len();
        if worker.current.is_none() {
            worker.current = Some(work);
        } else {
            worker.ahead = Some(work);
            let late = t.now + self.config.recall_after;
            self.timers.push(late, Timer::Ahead(w, work.serial));
        }
        let Some(plan) = self.backlog.plan(d) else {
            unreachable!("only known destinations stand in the list of a site");
        };
        t.actions.push(Action::Assign {
            worker: worker.id,
            destination: self.backlog[d].id,
            site: self.sites[s].id,
            source,
            messages_per_session: allowance.messages_per_session,
            plan,
            serial: self.serial,
            envelopes,
        });
    }

    /// Takes a run from the destination whose turn it is at site `s`, where mail waits.
    fn next_run(&mut self, s: u32, w: u32, length: usize) -> (u32, Vec<Envelope>) {
        let Some(d) = self.sites[s].destinations.front() else {
            unreachable!("a run is only taken where mail waits");
        };
        let cut = Cut {
            length,
            together: self.config.recipients_max,
            worker: self.workers[w].id,
        };
        let run = self.backlog.take(d, cut);
        self.sites[s].waiting -= run.len();
        // The next run of this site goes to its next destination.
        let list = &mut self.sites[s].destinations;
        self.destination_links.remove(list, d);
        if !self.backlog[d].waiting.is_empty() {
            self.destination_links.push_back(list, d);
        }
        (d, run)
    }

    /// Asks again for destinations at the front of the site's list whose answer has expired. True if mail still waits.
    pub(super) fn freshen(&mut self, s: u32, t: &mut Turn<'_, P>) -> bool {
        while let Some(d) = self.sites[s].destinations.front() {
            match self.backlog[d].state {
                State::Known { expires, .. } if expires > t.now => return true,
                _ => self.forget_route(d, t),
            }
        }
        self.sites.refresh(s);
        false
    }

    /// A worker that owes nothing gets the next run, or becomes ready, or ends.
    pub(super) fn place(&mut self, w: u32, t: &mut Turn<'_, P>) {
        if self.stopped || self.promotions.is_leaving() || self.is_surplus(t) {
            return self.retire(w, t);
        }
        if let Some(s) = self.workers[w].session {
            if self.session_wanted(s, t) == Wanted::Yes || self.owes_connections(w, 2, t) {
                return self.retire(w, t);
            }
            if self.sites[s].feeds() && self.freshen(s, t) {
                if self.quantum_is_over(w, t.now) && self.turn_away(w, s, t) {
                    return;
                }
                if self.should_pass(w, s) {
                    self.passed_over.push(s);
                } else if !self.sites[s].rests(self.workers[w].source) && self.try_assign(w, s, t) {
                    return self.sites.refresh(s);
                }
            }
            let site = &mut self.sites[s];
            self.workers.site_links.push_back(&mut site.idle, w);
        }
        self.workers.push_ready(w, t.now);
        self.newly_ready.push(w);
    }

    /// Worker `w` of site `s` has used up its quantum: it turns to a site that needs it more, if there is one.
    fn turn_away(&mut self, w: u32, s: u32, t: &mut Turn<'_, P>) -> bool {
        while self.hold_until.is_none()
            && self.sessions_after.is_none()
            && self.sites.others_need_more_than(s)
        {
            let Some(other) = self.sites.next() else {
                return false;
            };
            self.steps += 1;
            if !self.freshen(other, t) {
                continue;
            }
            if self.should_pass(w, other) {
                return false;
            }
            if let Some(opening) = self.may_open(&Choice::Ready(w), other, t) {
                self.turn_to(w, other, opening, t);
                return true;
            }
        }
        false
    }

    fn quantum_is_over(&self, w: u32, now: Instant) -> bool {
        let worker = &self.workers[w];
        worker.served >= self.config.quantum
            || now.saturating_duration_since(worker.serving_since) >= self.config.quantum_time
    }

    /// True if `w` tried the next envelope of site `s` last, and another worker may take it.
    fn should_pass(&self, w: u32, s: u32) -> bool {
        let others = self.workers.ready.len() - usize::from(self.workers.is_ready(w));
        self.tried_next(w, s) && (others > 0 || self.spawn_is_open())
    }

    /// True if `w` tried the next envelope of site `s` last.
    fn tried_next(&self, w: u32, s: u32) -> bool {
        let front = self.sites[s].destinations.front();
        front
            .and_then(|d| self.backlog[d].waiting.front())
            .is_some_and(|envelope| envelope.was_tried_by(self.workers[w].id))
    }

    /// True if somebody could take a run at once, permits aside.
    pub(super) fn could_help(&self) -> bool {
        !self.workers.ready.is_empty() || self.spawn_is_open()
    }

    /// True if nothing but a permit is in the way of a new worker.
    fn spawn_is_open(&self) -> bool {
        !self.stopped
            && !self.worker_refused
            && self.spawn_after.is_none()
            && self.workers.len() < self.config.workers_max as usize
    }

    /// Takes the permit for a new worker, if there may be one.
    fn may_spawn(&mut self, t: &mut Turn<'_, P>) -> bool {
        if !self.spawn_is_open() {
            return false;
        }
        let granted = t.permits.take_worker(self.config.queue);
        self.worker_refused = !granted;
        granted
    }

    fn spawn(&mut self, t: &mut Turn<'_, P>) -> u32 {
        let w = self.workers.add(t.now);
        let worker = self.workers[w].id;
        t.actions.push(Action::Spawn { worker });
        w
    }

    pub(super) fn session_wanted(&self, s: u32, t: &Turn<'_, P>) -> Wanted {
        t.permits
            .session_wanted(self.sites[s].id, self.config.queue)
    }

    /// Takes `w` off the ready list and off its site's lists.
    pub(super) fn unlist(&mut self, w: u32) {
        let ready = self.workers.remove_ready(w);
        if let Some(s) = self.workers[w].session {
            let site = &mut self.sites[s];
            let list = if ready {
                &mut site.idle
            } else {
                &mut site.ahead
            };
            self.workers.site_links.remove(list, w);
        }
    }
}
