//! The general queue's part in promotion: it watches its sites, picks those that are large, moves them, and takes them back.
//!
//! INVARIANTS: a site has one queue at most; a queue is asked for only while it is free. Watching costs O(1) for each site that
//! an event touches; what all sites have pending is counted at most once a second, or twenty times if a site may be large.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::super::backlog::State;
use super::super::delayed::Timer;
use super::super::dispatcher::{Dispatcher, Turn};
use super::super::event::{Action, Route};
use super::super::fallback::origin_of;
use super::super::site::Gate;
use super::{FAILED_PAUSE, PromoteRules, Promotion, Rest, Slot, Step, Unpromoted};
use crate::mail::{DestinationId, Envelope, QueueId, SiteId};

impl<P: Clone> Dispatcher<P> {
    fn rules(&self) -> Option<PromoteRules> {
        match self.config.promotion {
            Promotion::Watch(rules) => Some(rules),
            _ => None,
        }
    }

    /// The queue to which this site was promoted.
    pub(in crate::queue) fn promoted_to(&self, site: SiteId) -> Option<QueueId> {
        self.promotions.by_site.get(&site).copied()
    }

    /// Looks at a site that the event touched. O(1).
    pub(in crate::queue) fn watch(&mut self, s: u32, now: Instant) {
        let Some(rules) = self.rules() else { return };
        let (waiting, sessions) = (self.sites[s].waiting, self.sites[s].busy());
        self.promotions.watch.note(s, sessions, waiting > 0, now);
        self.promotions.watch.is_urgent |= rules.is_large(waiting, self.pending());
    }

    /// At most so often: counts all that is pending, for each site, and promotes those that are large or have had demand for
    /// more than one session for long enough, the largest first.
    pub(in crate::queue) fn watch_all(&mut self, now: Instant) {
        let Some(rules) = self.rules() else { return };
        let no_slot = !self.promotions.slots.contains(&Slot::Free);
        if no_slot || self.backlog.waiting == 0 || !self.promotions.watch.is_due(now) {
            return;
        }
        let all = self.pending();
        let pending = self.pending_of_sites();
        let mut large: Vec<(usize, u32)> = (0..)
            .zip(pending)
            .filter(|(s, pending)| {
                let demands = self.promotions.watch.demands(*s, rules.demand, now);
                let is_wanted = rules.is_large(*pending, all) || demands && *pending < all;
                is_wanted && self.sites[*s].waiting > 0
            })
            .map(|(s, pending)| (pending, s))
            .collect();
        large.sort_unstable_by_key(|(pending, s)| (std::cmp::Reverse(*pending), *s));
        for (_, s) in large {
            self.promote_if_possible(s, now);
        }
    }

    /// The weight of this queue in the shares of workers: the square roots of what waits for each of its sites, at least 1. A
    /// queue of many sites must not be weighed like one with a single site, or the large site that got a queue of its own
    /// would have more workers than all those that it left behind.
    pub fn weight(&self) -> u32 {
        self.sites.roots().max(1)
    }

    /// Envelopes that are not settled.
    fn pending(&self) -> usize {
        self.backlog.waiting + self.delayed.len() + self.in_hand
    }

    /// The same of each site, by its index.
    fn pending_of_sites(&self) -> Vec<usize> {
        let mut pending: Vec<usize> = self.sites.iter().map(|site| site.waiting).collect();
        for (d, _) in self.delayed.iter() {
            if let State::Known { site, .. } = self.backlog[d].state {
                pending[site as usize] += 1;
            }
        }
        for w in self.workers.all() {
            let worker = &self.workers[w];
            if let Some(s) = worker.session {
                let runs = [worker.current, worker.ahead];
                pending[s as usize] += runs.iter().flatten().map(|work| work.count).sum::<usize>();
            }
        }
        pending
    }

    fn promote_if_possible(&mut self, s: u32, now: Instant) {
        let site = &self.sites[s];
        let is_kept = self.promotions.kept.contains(&site.id) || site.standing.is_suspect();
        let is_early = self.promotions.not_before.is_some_and(|at| now < at);
        if !is_kept && !is_early {
            // Refused, it is looked at again.
            let _ = self.ask_for_queue(s);
        }
    }

    /// The operator wants the site of destination `d` to have a queue of its own, whatever it has pending. Returns which.
    pub(in crate::queue) fn promote_now(&mut self, d: u32) -> Result<QueueId, Unpromoted> {
        if self.rules().is_none() {
            return Err(Unpromoted::Never);
        }
        match self.backlog[d].state {
            State::Known { site, .. } => {
                let queue = self.ask_for_queue(site)?;
                self.promotions.kept.remove(&self.sites[site].id);
                Ok(queue)
            }
            State::Moved(_) => Err(Unpromoted::Already),
            _ => Err(Unpromoted::Unknown),
        }
    }

    /// Takes a free queue for site `s`, which is promoted when the event is over.
    fn ask_for_queue(&mut self, s: u32) -> Result<QueueId, Unpromoted> {
        let rules = self.rules().ok_or(Unpromoted::Never)?;
        let id = self.sites[s].id;
        if self.promotions.asked.iter().any(|(_, asked)| *asked == s)
            || self.promoted_to(id).is_some()
        {
            return Err(Unpromoted::Already);
        }
        if self.stopped || self.sites[s].gate != Gate::Open {
            return Err(Unpromoted::Rests);
        }
        let free = self
            .promotions
            .slots
            .iter()
            .position(|slot| *slot == Slot::Free);
        let free = free.ok_or(Unpromoted::NoQueue)?;
        let queue = QueueId(rules.first.0 + free as u16);
        self.promotions.slots[free] = Slot::Asked;
        self.promotions.asked.push((queue, s));
        Ok(queue)
    }

    /// The first destination that site `s` serves; none if it is the fallback relay.
    fn first_destination(&self, s: u32) -> Option<DestinationId> {
        let mut its = self
            .backlog
            .iter()
            .filter(|one| matches!(one.state, State::Known { site, .. } if site == s));
        its.next().map(|one| one.id).filter(|id| !origin_of(*id).1)
    }

    /// The last of an event: asks for the queues of the sites that are to be promoted.
    pub(in crate::queue) fn ask_for_queues(&mut self, t: &mut Turn<'_, P>) {
        for (queue, s) in std::mem::take(&mut self.promotions.asked) {
            match self.first_destination(s) {
                Some(destination) => t.actions.push(Action::Promote {
                    queue,
                    site: self.sites[s].id,
                    destination,
                }),
                None => self.set_slot(queue, Slot::Free),
            }
        }
    }

    fn set_slot(&mut self, queue: QueueId, slot: Slot) {
        let Some(rules) = self.rules() else { return };
        let at = queue.index().wrapping_sub(rules.first.index());
        match self.promotions.slots.get_mut(at) {
            Some(entry) => *entry = slot,
            None => debug_assert!(false, "{queue:?} is not for promoted sites"),
        }
    }

    /// What the general queue and a promoted one are told.
    pub(in crate::queue) fn step(&mut self, step: Step, t: &mut Turn<'_, P>) {
        match step {
            Step::Demote(id) => {
                if let Some(d) = self.backlog.find(id) {
                    // What it cannot hand back stays.
                    let _ = self.demote_now(d, t);
                }
            }
            Step::Begun { queue, site } if queue == self.config.queue => self.begin(site),
            Step::Begun { queue, site } => self.move_site(queue, site, t),
            Step::Failed { queue } => {
                self.set_slot(queue, Slot::Free);
                self.promotions.not_before = Some(t.now + FAILED_PAUSE);
            }
            Step::HandedBack {
                queue,
                by_order,
                rest,
            } => self.take_over(queue, by_order, rest),
            Step::Vacated { queue } => self.set_slot(queue, Slot::Free),
        }
    }

    /// All destinations of a site move to their own queue, with everything that waits for them.
    fn move_site(&mut self, queue: QueueId, site: SiteId, t: &mut Turn<'_, P>) {
        self.set_slot(queue, Slot::Serving(site));
        self.promotions.by_site.insert(site, queue);
        let Some(s) = self.sites.find(site) else {
            return;
        };
        self.promotions.watch.since.remove(&s);
        let its: Vec<u32> = (0..self.backlog.len() as u32)
            .filter(|d| matches!(self.backlog[*d].state, State::Known { site, .. } if site == s))
            .collect();
        self.move_destinations(&its, queue, t);
    }

    /// These destinations are handled by `queue` from now on: it gets all their mail, and what is known of them.
    pub(in crate::queue) fn move_destinations(
        &mut self,
        its: &[u32],
        queue: QueueId,
        t: &mut Turn<'_, P>,
    ) {
        let set: HashSet<u32> = its.iter().copied().collect();
        let mut delayed: HashMap<u32, Vec<(Envelope, Instant)>> = HashMap::new();
        for (d, envelope, due) in self.delayed.take_with_due(|d| set.contains(&d)) {
            delayed.entry(d).or_default().push((envelope, due));
        }
        for &d in its {
            let route = self.route(d);
            let waiting = self.withdraw(d);
            self.backlog.set_state(d, State::Moved(queue));
            let delayed = delayed.remove(&d).unwrap_or_default();
            self.hand_over(d, queue, waiting, delayed, route, t);
        }
    }

    /// What is known of a destination.
    fn route(&self, d: u32) -> Option<Route<P>> {
        match &self.backlog[d].state {
            State::Known {
                site,
                plan,
                expires,
            } => Some(Route {
                site: self.sites[*site].id,
                plan: plan.clone(),
                expires: *expires,
            }),
            _ => None,
        }
    }

    /// A promoted queue gives its site back.
    fn take_over(&mut self, queue: QueueId, by_order: bool, rest: Option<Rest>) {
        self.set_slot(queue, Slot::Vacating);
        let its = |(_, at): &(&SiteId, &QueueId)| **at == queue;
        let Some(site) = self
            .promotions
            .by_site
            .iter()
            .find(its)
            .map(|(site, _)| *site)
        else {
            return;
        };
        self.promotions.by_site.remove(&site);
        if by_order {
            self.promotions.kept.insert(site);
        }
        let s = self.sites.slot(site);
        if let Some(rest) = rest
            && self.sites[s].gate == Gate::Open
        {
            let site = &mut self.sites[s];
            (site.gate, site.failures, site.failure) =
                (Gate::Paused(rest.until), rest.failures, rest.why);
            self.timers.push(rest.until, Timer::Site(s));
            self.touch(s);
        }
    }
}
