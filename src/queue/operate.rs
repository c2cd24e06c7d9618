//! What the operator orders while a run goes on: mail is held, released, left, or settled as refused.
//!
//! A pause is of the whole queue or of one destination, and a mark on destinations: mail of a held one waits in its list as
//! ever, but the list does not stand at its site, so that nothing can be assigned from it, and a site with no other mail
//! leaves the ring by itself. What a worker was given ahead is recalled, and it is told to give the rest of the run under
//! way back at its next message ([`Action::GiveBack`]). The mark is set again on whatever comes later, from the router,
//! another queue, a worker or the delayed heap, since all of it comes through `admit` and `keep`. A release admits the
//! mail again, so that it finds what has become of its site meanwhile.
//!
//! A destination that is dropped is left, one that is failed is settled as refused, each for the rest of the run: what
//! waits and is delayed at once, what workers hold when they give it back, what comes later when it comes. Mail in doubt
//! may have been delivered, so that a refusal would be a lie: it is left in doubt.
//!
//! An order for a destination is one for its mail to the fallback relay, too. Every queue is told every order: it need not
//! know who handles the destination, and what moves to another queue finds the same order there.
//!
//! INVARIANTS: a destination is held exactly if an order says so; a held one stands in no site's list. Holding changes
//! neither look-ups (a name that does not exist is refused all the same) nor gates. Orders are never forgotten in a run.
//! Cost: O(destinations + delayed) per order, nothing per envelope while no order is in force.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::backlog::State;
use super::dispatcher::{Dispatcher, Turn};
use super::event::{Action, Outcome, SiteView, Snapshot};
use super::fallback::{fallback_of, origin_of};
use super::promote::Unpromoted;
use super::ready::Work;
use super::site::Gate;
use crate::mail::{DestinationId, Envelope, QueueId, SiteId, Verdict};

/// Whose mail an order is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// All mail: a pause of the queue, or the end of every pause in it.
    All,
    /// The queue as such; pauses of single destinations stay.
    Queue,
    /// One destination's.
    Destination(DestinationId),
}

/// What a queue is ordered.
#[derive(Clone, PartialEq, Debug)]
pub enum Order {
    /// Only to tell how things are.
    Look {
        /// How many sites to tell of at most, the busiest first.
        sites: usize,
        /// Which destination to tell of.
        about: Option<DestinationId>,
    },
    /// Attempt nothing of this mail until it is resumed.
    Pause(Whom),
    /// Go on with it.
    Resume(Whom),
    /// Leave this destination's mail pending for the rest of the run.
    Drop(DestinationId),
    /// Settle this destination's mail as refused.
    Fail(DestinationId, Arc<Verdict>),
    /// Give the site of this destination a queue of its own (see `promote`): for the general queue.
    Promote(DestinationId),
    /// Take it back into the general queue, and leave it there.
    Demote(DestinationId),
}

/// What a queue answers an order, once it is obeyed.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer<P> {
    /// The number that the order came with.
    pub number: u64,
    /// Recipients whose mail waited or was delayed and is hit by the order.
    pub recipients: usize,
    /// Recipients hit whose mail is in workers' hands: what is under way ends, the rest comes back.
    pub in_hand: usize,
    /// Whether this queue handles the destination that the order is about.
    pub knows: bool,
    /// The site that serves it, if it is known, and how many destinations of this queue that site serves.
    pub site: Option<(SiteId, usize)>,
    /// The queue's figures, before mail and workers are brought together anew.
    pub snapshot: Snapshot,
    /// Whether the queue as such is paused.
    pub is_paused: bool,
    /// Destinations that are paused by themselves.
    pub paused: Vec<DestinationId>,
    /// What became of an order to promote a site, or to take it back: the queue that it concerns.
    pub promotion: Option<Result<QueueId, Unpromoted>>,
    /// Sites, if the order was to look.
    pub sites: Vec<SiteReport<P>>,
}

/// A site as the operator sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct SiteReport<P> {
    /// What a queue knows of it.
    pub view: SiteView,
    /// Its destination with the most waiting mail.
    pub destination: DestinationId,
    /// How it is reached.
    pub plan: P,
    /// How many destinations of this queue it serves.
    pub destinations: usize,
    /// Envelopes that are held.
    pub held: usize,
    /// Envelopes in workers' hands.
    pub in_hand: usize,
    /// Why it is paused or stopped, if it is.
    pub failure: Option<Arc<Verdict>>,
}

/// The orders in force.
#[derive(Default, Debug)]
pub(super) struct Orders {
    is_paused: bool,
    paused: HashSet<DestinationId>,
    dropped: HashSet<DestinationId>,
    failed: HashMap<DestinationId, Arc<Verdict>>,
}

impl Orders {
    fn are_none(&self) -> bool {
        !self.is_paused
            && self.paused.is_empty()
            && self.dropped.is_empty()
            && self.failed.is_empty()
    }

    fn hold(&self, id: DestinationId) -> bool {
        self.is_paused || self.paused.contains(&origin_of(id).0)
    }

    fn end(&self, id: DestinationId) -> bool {
        let (origin, _) = origin_of(id);
        self.dropped.contains(&origin) || self.failed.contains_key(&origin)
    }
}

impl<P: Clone> Dispatcher<P> {
    /// Obeys an order, and answers it.
    pub(super) fn obey(&mut self, number: u64, order: Order, t: &mut Turn<'_, P>) {
        let about = match &order {
            Order::Look { about, .. } => about.map(Whom::Destination),
            Order::Pause(whom) | Order::Resume(whom) => Some(*whom),
            Order::Drop(id) | Order::Fail(id, _) | Order::Promote(id) | Order::Demote(id) => {
                Some(Whom::Destination(origin_of(*id).0))
            }
        };
        let mut answer = self.answer(number, about);
        match order {
            Order::Look { sites, .. } => answer.sites = self.busiest(sites),
            Order::Pause(whom) => self.pause_mail(whom, t),
            Order::Resume(whom) => self.resume_mail(whom, t),
            Order::Drop(id) => {
                self.orders.dropped.insert(origin_of(id).0);
                self.end_mail(id, t);
            }
            Order::Fail(id, verdict) => {
                self.orders.failed.insert(origin_of(id).0, verdict);
                self.end_mail(id, t);
            }
            Order::Promote(id) => {
                let d = self.backlog.find(id).ok_or(Unpromoted::Unknown);
                answer.promotion = Some(d.and_then(|d| self.promote_now(d)));
            }
            Order::Demote(id) => {
                let d = self.backlog.find(id).ok_or(Unpromoted::Unknown);
                answer.promotion = Some(d.and_then(|d| self.demote_now(d, t)));
            }
        }
        answer.snapshot = self.snapshot();
        answer.is_paused = self.orders.is_paused;
        answer.paused = self.orders.paused.iter().copied().collect();
        answer.paused.sort();
        t.actions.push(Action::Answer(answer));
    }

    /// What an order about `whom` hits, as things are.
    fn answer(&self, number: u64, whom: Option<Whom>) -> Answer<P> {
        let is_hit = |d: u32| match whom {
            None => false,
            Some(Whom::All | Whom::Queue) => true,
            Some(Whom::Destination(id)) => origin_of(self.backlog[d].id).0 == id,
        };
        let all = (0..self.backlog.len() as u32).filter(|d| is_hit(*d));
        let waiting: usize = all.map(|d| self.backlog[d].waiting.len()).sum();
        let delayed = match whom {
            None => 0,
            Some(_) => self.delayed.iter().filter(|(d, _)| is_hit(*d)).count(),
        };
        let in_hand = self
            .assignments()
            .filter(|(_, work)| is_hit(work.destination));
        let asked = match whom {
            Some(Whom::Destination(id)) => self.backlog.find(id),
            _ => None,
        };
        let state = asked.map(|d| &self.backlog[d].state);
        let site = match state {
            Some(State::Known { site, .. }) => {
                let its =
                    |state: &State<P>| matches!(state, State::Known { site: s, .. } if s == site);
                let all = self.backlog.iter().filter(|each| its(&each.state));
                Some((self.sites[*site].id, all.count()))
            }
            _ => None,
        };
        Answer {
            number,
            recipients: waiting + delayed,
            in_hand: in_hand.map(|(_, work)| work.count).sum(),
            knows: state.is_some_and(|state| !matches!(state, State::Moved(_))),
            site,
            snapshot: Snapshot::default(),
            is_paused: false,
            paused: Vec::new(),
            promotion: None,
            sites: Vec::new(),
        }
    }

    /// All assignments in workers' hands.
    fn assignments(&self) -> impl Iterator<Item = (u32, Work)> + '_ {
        self.workers.all().into_iter().flat_map(|w| {
            let worker = &self.workers[w];
            let works = [worker.current, worker.ahead].into_iter().flatten();
            works.map(move |work| (w, work))
        })
    }

    fn pause_mail(&mut self, whom: Whom, t: &mut Turn<'_, P>) {
        match whom {
            Whom::All | Whom::Queue => self.orders.is_paused = true,
            Whom::Destination(id) => {
                self.orders.paused.insert(origin_of(id).0);
            }
        }
        for d in 0..self.backlog.len() as u32 {
            if self.orders.hold(self.backlog[d].id) && !self.backlog[d].held {
                self.unlist_mail(d);
                self.backlog.set_held(d, true);
            }
        }
        self.take_from_workers(t);
    }

    /// Takes a destination out of its site's list; its mail goes on waiting.
    fn unlist_mail(&mut self, d: u32) {
        let State::Known { site, .. } = self.backlog[d].state else {
            return;
        };
        if self.destination_links.is_linked(d) {
            self.sites[site].waiting -= self.backlog[d].waiting.len();
            let list = &mut self.sites[site].destinations;
            self.destination_links.remove(list, d);
            self.touch(site);
        }
    }

    fn resume_mail(&mut self, whom: Whom, t: &mut Turn<'_, P>) {
        match whom {
            Whom::All => {
                self.orders.is_paused = false;
                self.orders.paused.clear();
            }
            Whom::Queue => self.orders.is_paused = false,
            Whom::Destination(id) => {
                self.orders.paused.remove(&origin_of(id).0);
            }
        }
        for d in 0..self.backlog.len() as u32 {
            if self.backlog[d].held && !self.orders.hold(self.backlog[d].id) {
                self.backlog.set_held(d, false);
                let all = self.backlog.take_all(d);
                self.admit(d, all, false, t);
            }
        }
    }

    /// The mail of a destination that has just been dropped or failed goes through `admit` again, which ends it.
    fn end_mail(&mut self, id: DestinationId, t: &mut Turn<'_, P>) {
        let (origin, _) = origin_of(id);
        for id in [origin, fallback_of(origin)] {
            let Some(d) = self.backlog.find(id) else {
                continue;
            };
            let mut all = self.withdraw(d);
            let delayed = self.delayed.take_of(|other| other == d);
            all.extend(delayed.into_iter().map(|(_, envelope)| envelope));
            self.admit(d, all, false, t);
        }
        self.take_from_workers(t);
    }

    /// Workers are not to begin with what an order keeps from being attempted: what was given ahead is recalled, and the
    /// rest of a run comes back at the next message.
    fn take_from_workers(&mut self, t: &mut Turn<'_, P>) {
        let is_kept_back = |work: &Work| {
            let id = self.backlog[work.destination].id;
            self.orders.hold(id) || self.orders.end(id)
        };
        // In order of their numbers: the last of a worker is the one given ahead, if there is one.
        let mut marks: Vec<(u32, u64)> = Vec::new();
        for (w, work) in self.assignments().filter(|(_, work)| is_kept_back(work)) {
            match marks.last_mut() {
                Some((last, serial)) if *last == w => *serial = work.serial,
                _ => marks.push((w, work.serial)),
            }
        }
        for (w, serial) in marks {
            let is_ahead = |work: Work| work.serial == serial;
            if self.workers[w].ahead.is_some_and(is_ahead) {
                self.recall(w, t);
            }
            let worker = self.workers[w].id;
            t.actions.push(Action::GiveBack { worker, serial });
        }
    }

    /// Ends mail that an order ends. Returns what is to go on.
    pub(super) fn end_by_order(
        &mut self,
        d: u32,
        envelopes: Vec<Envelope>,
        t: &mut Turn<'_, P>,
    ) -> Vec<Envelope> {
        if self.orders.are_none() {
            return envelopes;
        }
        let (origin, _) = origin_of(self.backlog[d].id);
        if let Some(verdict) = self.orders.failed.get(&origin).cloned() {
            let in_doubt = |envelope: &Envelope| envelope.passage.in_doubt;
            let (doubtful, rest) = envelopes.into_iter().partition(in_doubt);
            self.leave(d, doubtful, None, None, t);
            self.refuse(d, rest, verdict, t);
            return Vec::new();
        }
        if self.orders.dropped.contains(&origin) {
            let why = self.hindrance(d);
            self.leave(d, envelopes, None, why, t);
            return Vec::new();
        }
        envelopes
    }

    /// True if the mail of destination `d` is ended by an order.
    pub(super) fn is_ended_by_order(&self, d: u32) -> bool {
        !self.orders.are_none() && self.orders.end(self.backlog[d].id)
    }

    /// True if the mail of destination `d`, some of which comes now, is held.
    pub(super) fn is_held(&mut self, d: u32) -> bool {
        if !self.orders.are_none() && self.orders.hold(self.backlog[d].id) {
            self.backlog.set_held(d, true);
        }
        // One that is released is so once its turn comes, with all that waits.
        self.backlog[d].held
    }

    /// The destinations of site `s` that hold mail back from its list.
    pub(super) fn held_of(&self, s: u32) -> Vec<u32> {
        let is_its = |d: &u32| {
            let destination = &self.backlog[*d];
            destination.held && matches!(destination.state, State::Known { site, .. } if site == s)
        };
        match self.backlog.held {
            0 => Vec::new(),
            _ => (0..self.backlog.len() as u32).filter(is_its).collect(),
        }
    }

    /// A worker that probed a site and gave all of its run back on an order has found out nothing: somebody else may probe.
    pub(super) fn excuse_prober(&mut self, w: u32, d: u32, outcome: &Outcome) {
        let Some(s) = self.workers[w].session else {
            return;
        };
        let untried = outcome.settled == 0 && outcome.deferred.is_empty();
        let id = self.backlog[d].id;
        let is_ordered = self.orders.hold(id) || self.orders.end(id);
        if untried
            && is_ordered
            && outcome.host_failed.is_none()
            && self.sites[s].gate == Gate::Probing(w)
        {
            self.sites[s].gate = Gate::Probe;
            self.touch(s);
        }
    }

    /// The busiest sites: those with the most mail first, then those with the most workers.
    fn busiest(&self, most: usize) -> Vec<SiteReport<P>> {
        let mut found: HashMap<u32, SiteReport<P>> = HashMap::new();
        let mut largest: HashMap<u32, usize> = HashMap::new();
        for destination in self.backlog.iter() {
            let State::Known { site, plan, .. } = &destination.state else {
                continue;
            };
            let waiting = destination.waiting.len();
            let report = found.entry(*site).or_insert_with(|| SiteReport {
                view: self.sites[*site].view(self.config.session_backlog),
                destination: destination.id,
                plan: plan.clone(),
                destinations: 0,
                held: 0,
                in_hand: 0,
                failure: self.sites[*site].failure.clone(),
            });
            report.destinations += 1;
            let most = largest.entry(*site).or_default();
            if waiting > *most {
                *most = waiting;
                report.destination = destination.id;
            }
            if destination.held {
                report.held += waiting;
            }
        }
        for (_, work) in self.assignments() {
            if let State::Known { site, .. } = self.backlog[work.destination].state
                && let Some(report) = found.get_mut(&site)
            {
                report.in_hand += work.count;
            }
        }
        let mut reports: Vec<_> = found.into_values().collect();
        let is_idle = |report: &SiteReport<P>| {
            let view = &report.view;
            let mail = view.waiting + report.held + report.in_hand + view.workers + view.left;
            mail == 0 && report.failure.is_none()
        };
        reports.retain(|report| !is_idle(report));
        reports.sort_by_key(|report| {
            let view = &report.view;
            let mail = view.waiting + report.held + report.in_hand;
            Reverse((mail, view.workers, Reverse(view.site)))
        });
        reports.truncate(most);
        reports
    }
}
