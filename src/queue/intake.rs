//! How mail comes into a queue, and what is asked and known about its destinations.
//!
//! Whatever brings an envelope here - the router, another queue, a worker that gives it back, the delayed heap - it goes
//! through `admit`, which knows the few places it can go: a waiting list, another queue, or out with a final action.
//!
//! A destination whose look-up failed is one state, however much mail waits for it; it is asked again after a back-off.
//! An answer is believed until it expires, but at least for a moment, so that a TTL of zero does not ask for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::State;
use super::delayed::Timer;
use super::dispatcher::{Dispatcher, Turn};
use super::event::{Action, Resolution, Route};
use super::site::Gate;
use crate::mail::{DestinationId, Envelope, QueueId, Status, Verdict};
use crate::retry;

/// The least time for which an answer of the resolver is believed.
const ROUTE_LIFE_MIN: Duration = Duration::from_secs(30);

impl<P: Clone> Dispatcher<P> {
    /// The router brings mail.
    pub(super) fn post(&mut self, id: DestinationId, run: Vec<Envelope>, t: &mut Turn<'_, P>) {
        let d = self.backlog.slot(id);
        self.admit(d, run, false, t);
    }

    /// The router brings mail of an earlier run. What is not due yet waits for its time; what is not due before the end of
    /// this run is left at once, and mail that has expired meanwhile is not tried again.
    pub(super) fn postponed(
        &mut self,
        id: DestinationId,
        run: Vec<(Envelope, Instant)>,
        t: &mut Turn<'_, P>,
    ) {
        let d = self.backlog.slot(id);
        let mut due_now = Vec::new();
        for (envelope, due) in run {
            let was_deferred = matches!(retry::pending(envelope.passage), Status::Deferred);
            let has_expired = self.config.retry.expire_at.is_some_and(|end| t.now > end);
            match self.config.retry.beyond(due) {
                _ if has_expired && was_deferred => {
                    self.leave(d, vec![envelope], Some(Status::Expired), None, t);
                }
                _ if due <= t.now || self.stopped => due_now.push(envelope),
                Some(status) => self.leave(d, vec![envelope], Some(status), None, t),
                None => self.delayed.push(due, d, envelope, t.now),
            }
        }
        self.admit(d, due_now, false, t);
    }

    /// Another queue tells what it knows of a destination, or hands it over.
    pub(super) fn handed(
        &mut self,
        id: DestinationId,
        route: Option<Route<P>>,
        takes_over: bool,
        t: &mut Turn<'_, P>,
    ) {
        let d = self.backlog.slot(id);
        match route {
            Some(route) => self.learn(d, route, t),
            // It was moved away from here and comes back without a route: it is looked up again.
            None if takes_over && matches!(self.backlog[d].state, State::Moved(_)) => {
                self.backlog.set_state(d, State::Unresolved);
            }
            None => {}
        }
    }

    /// Another queue brings mail.
    pub(super) fn forwarded(
        &mut self,
        id: DestinationId,
        run: Vec<Envelope>,
        delayed: Vec<(Envelope, Instant)>,
        t: &mut Turn<'_, P>,
    ) {
        let d = self.backlog.slot(id);
        self.admit(d, run, false, t);
        self.delay(d, delayed, t);
    }

    /// Envelopes wait for their time, here or in the queue that handles their destination.
    pub(super) fn delay(&mut self, d: u32, delayed: Vec<(Envelope, Instant)>, t: &mut Turn<'_, P>) {
        if delayed.is_empty() {
            return;
        }
        match self.backlog[d].state {
            State::Moved(queue) if !self.stopped => {
                self.transfer(d, queue, (Vec::new(), delayed), None, false, t);
            }
            _ if self.stopped || self.is_site_stopped(d) || self.is_ended_by_order(d) => {
                let envelopes = delayed.into_iter().map(|(envelope, _)| envelope).collect();
                self.admit(d, envelopes, false, t);
            }
            _ => {
                for (envelope, due) in delayed {
                    self.delayed.push(due, d, envelope, t.now);
                }
            }
        }
    }

    /// Puts envelopes where they belong, given what is known of their destination.
    pub(super) fn admit(
        &mut self,
        d: u32,
        envelopes: Vec<Envelope>,
        in_front: bool,
        t: &mut Turn<'_, P>,
    ) {
        if envelopes.is_empty() {
            return;
        }
        if self.stopped {
            let why = self.hindrance(d);
            return self.leave(d, envelopes, None, why, t);
        }
        match &self.backlog[d].state {
            State::Moved(queue) => {
                let queue = *queue;
                return self.transfer(d, queue, (envelopes, Vec::new()), None, false, t);
            }
            State::Refused(verdict) => {
                let verdict = verdict.clone();
                return self.refuse(d, envelopes, verdict, t);
            }
            _ => {}
        }
        let envelopes = self.end_by_order(d, envelopes, t);
        if envelopes.is_empty() {
            return;
        }
        let envelopes = self.divert(d, envelopes, in_front, t);
        if !envelopes.is_empty() {
            self.keep(d, envelopes, in_front, t);
        }
    }

    /// Envelopes that are to go to their own hosts wait for them, unless these will not be tried in time.
    fn keep(&mut self, d: u32, envelopes: Vec<Envelope>, in_front: bool, t: &mut Turn<'_, P>) {
        match &self.backlog[d].state {
            State::Failed { until, why } => {
                if let Some(status) = self.config.retry.beyond(*until) {
                    let why = Some(why.clone());
                    return self.leave(d, envelopes, Some(status), why, t);
                }
            }
            State::Known { site, .. } => {
                let rest = self.rest_beyond_the_run(*site, t.now);
                let site = &mut self.sites[*site];
                let left_as = match site.gate {
                    Gate::Open | Gate::Narrow(_) if rest.is_some() => rest.map(Some),
                    Gate::Stopped => Some(None),
                    Gate::Paused(until) => self.config.retry.beyond(until).map(Some),
                    _ => None,
                };
                if let Some(status) = left_as {
                    if status.is_none() {
                        site.left += envelopes.len();
                    }
                    let why = site.failure.clone().filter(|_| rest.is_none());
                    return self.leave(d, envelopes, status, why, t);
                }
                site.standing.note_mail(&envelopes);
            }
            _ => {}
        }
        let count = envelopes.len();
        let held = self.is_held(d);
        self.backlog.put(d, envelopes, in_front);
        match self.backlog[d].state {
            State::Unresolved => self.ask(d, t),
            State::Known { site, .. } if !held => self.list(d, site, count),
            _ => {}
        }
    }

    /// `count` more envelopes wait for destination `d` of site `s`.
    fn list(&mut self, d: u32, s: u32, count: usize) {
        self.sites[s].waiting += count;
        if !self.destination_links.is_linked(d) {
            let list = &mut self.sites[s].destinations;
            self.destination_links.push_back(list, d);
        }
        self.touch(s);
    }

    /// Takes all that waits for a destination out of its list, and the destination out of its site's.
    pub(super) fn withdraw(&mut self, d: u32) -> Vec<Envelope> {
        let all = self.backlog.take_all(d);
        if let State::Known { site, .. } = self.backlog[d].state
            && self.destination_links.is_linked(d)
        {
            self.sites[site].waiting -= all.len();
            let list = &mut self.sites[site].destinations;
            self.destination_links.remove(list, d);
            self.touch(site);
        }
        all
    }

    fn ask(&mut self, d: u32, t: &mut Turn<'_, P>) {
        self.backlog.set_state(d, State::Resolving);
        let destination = self.backlog[d].id;
        t.actions.push(Action::Resolve { destination });
    }

    /// The back-off of a failed look-up may be over.
    pub(super) fn ask_again(&mut self, d: u32, t: &mut Turn<'_, P>) {
        let State::Failed { until, .. } = self.backlog[d].state else {
            return;
        };
        if until > t.now {
            return;
        }
        if self.backlog[d].waiting.is_empty() {
            self.backlog.set_state(d, State::Unresolved);
        } else {
            self.ask(d, t);
        }
    }

    /// What was known of a destination has expired: its mail waits for a new answer.
    pub(super) fn forget_route(&mut self, d: u32, t: &mut Turn<'_, P>) {
        let all = self.withdraw(d);
        self.backlog.set_state(d, State::Unresolved);
        self.admit(d, all, false, t);
    }

    /// The resolver pool answers.
    pub(super) fn resolved(
        &mut self,
        id: DestinationId,
        resolution: Resolution<P>,
        t: &mut Turn<'_, P>,
    ) {
        let d = self.backlog.slot(id);
        if !matches!(self.backlog[d].state, State::Resolving) {
            return; // another queue told us in the meantime
        }
        match resolution {
            // The general queue asks again, for the one that handles it.
            Resolution::Known { queue: Some(_), .. } if self.is_promoted() => {
                self.return_destination(d, None, t);
            }
            Resolution::Known {
                route,
                queue: Some(queue),
            } if queue != self.config.queue => {
                self.backlog.set_state(d, State::Moved(queue));
                let all = self.backlog.take_all(d);
                self.hand_over(d, queue, all, Vec::new(), Some(route), t);
            }
            Resolution::Known { route, .. } => self.learn(d, route, t),
            Resolution::Refused(verdict) => {
                self.backlog.set_state(d, State::Refused(verdict.clone()));
                let all = self.backlog.take_all(d);
                self.refuse(d, all, verdict, t);
            }
            Resolution::Failed(verdict) => self.look_up_failed(d, verdict, t),
        }
    }

    /// What is known to hinder a destination's mail: its name could not be looked up, or its site has failed.
    pub(super) fn hindrance(&self, d: u32) -> Option<Arc<Verdict>> {
        match &self.backlog[d].state {
            State::Failed { why, .. } => Some(why.clone()),
            State::Known { site, .. } => self.sites[*site].failure.clone(),
            _ => None,
        }
    }

    /// The destination is known from now on.
    fn learn(&mut self, d: u32, mut route: Route<P>, t: &mut Turn<'_, P>) {
        if self.is_elsewhere(route.site) {
            return self.return_destination(d, Some(route), t);
        }
        let all = self.withdraw(d);
        if let Some(queue) = self.promoted_to(route.site) {
            self.backlog.set_state(d, State::Moved(queue));
            return self.hand_over(d, queue, all, Vec::new(), Some(route), t);
        }
        route.expires = route.expires.max(t.now + ROUTE_LIFE_MIN);
        let site = self.sites.slot(route.site);
        self.backlog.know(d, site, route);
        self.admit(d, all, false, t);
        if self.sites[site].gate == Gate::Stopped {
            let delayed = self.delayed.take_of(|other| other == d);
            let envelopes = delayed.into_iter().map(|(_, envelope)| envelope).collect();
            self.admit(d, envelopes, false, t);
        }
    }

    fn look_up_failed(&mut self, d: u32, why: Arc<Verdict>, t: &mut Turn<'_, P>) {
        self.backlog[d].failures = self.backlog[d].failures.saturating_add(1);
        let failures = self.backlog[d].failures;
        let until = t.now + self.config.retry.host_back_off(failures, &mut self.rng);
        let all = self.backlog.take_all(d);
        self.backlog.set_state(d, State::Failed { until, why });
        self.timers.push(until, Timer::Destination(d));
        self.admit(d, all, false, t);
    }

    /// Queue `queue` handles destination `d` from now on.
    pub(super) fn hand_over(
        &mut self,
        d: u32,
        queue: QueueId,
        waiting: Vec<Envelope>,
        delayed: Vec<(Envelope, Instant)>,
        route: Option<Route<P>>,
        t: &mut Turn<'_, P>,
    ) {
        self.transfer(d, queue, (waiting, delayed), route, true, t);
    }

    fn transfer(
        &mut self,
        d: u32,
        queue: QueueId,
        (mut envelopes, mut delayed): (Vec<Envelope>, Vec<(Envelope, Instant)>),
        route: Option<Route<P>>,
        takes_over: bool,
        t: &mut Turn<'_, P>,
    ) {
        let own = delayed.iter_mut().map(|(envelope, _)| envelope);
        for envelope in envelopes.iter_mut().chain(own) {
            // Worker numbers are the queue's own.
            envelope.last_worker = None;
        }
        t.actions.push(Action::Forward {
            queue,
            destination: self.backlog[d].id,
            envelopes,
            delayed,
            route,
            takes_over,
        });
    }

    pub(super) fn refuse(
        &mut self,
        d: u32,
        envelopes: Vec<Envelope>,
        why: Arc<Verdict>,
        t: &mut Turn<'_, P>,
    ) {
        if !envelopes.is_empty() {
            t.actions.push(Action::Refuse {
                destination: self.backlog[d].id,
                envelopes,
                verdict: why,
            });
        }
    }

    /// Nothing more is done with these envelopes in this run. Expired ones are so by `status`; else the status follows from
    /// each one's past, and one that was never tried is deferred if something is known to hinder it.
    pub(super) fn leave(
        &mut self,
        d: u32,
        envelopes: Vec<Envelope>,
        status: Option<Status>,
        why: Option<Arc<Verdict>>,
        t: &mut Turn<'_, P>,
    ) {
        let status_of = |envelope: &Envelope| match (status, retry::pending(envelope.passage)) {
            (Some(Status::Expired), Status::InDoubt) => Status::Held,
            (Some(Status::Expired), _) => Status::Expired,
            (_, Status::Queued) if why.is_some() => Status::Deferred,
            (_, own) => own,
        };
        let groups = envelopes.chunk_by(|a, b| status_of(a) == status_of(b));
        for group in groups {
            t.actions.push(Action::Leave {
                destination: self.backlog[d].id,
                status: status_of(&group[0]),
                envelopes: group.to_vec(),
                why: why.clone(),
            });
        }
    }

    /// No new transactions: whatever waits is left, what was given ahead is asked back.
    pub(super) fn stop(&mut self, t: &mut Turn<'_, P>) {
        self.stopped = true;
        for d in 0..self.backlog.len() as u32 {
            let all = self.withdraw(d);
            self.admit(d, all, false, t);
        }
        let delayed = self.delayed.drain();
        for group in delayed.chunk_by(|a, b| a.0 == b.0) {
            let envelopes = group.iter().map(|(_, envelope)| *envelope).collect();
            self.admit(group[0].0, envelopes, false, t);
        }
        for w in self.workers.all() {
            self.recall(w, t);
        }
    }
}
