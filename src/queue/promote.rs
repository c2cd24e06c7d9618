//! Promotion: a site with much of the mail gets a queue of its own while the run goes on, and gives it back when it needs it
//! no more.
//!
//! The general queue watches its sites. One that has more than `min` envelopes pending and more than `share` of all that is
//! pending in the general queue, or that keeps more than one session busy for two seconds with mail still waiting, is
//! promoted if a queue is free: its destinations move there with their routes, their waiting mail, and their deferred mail
//! with its due times. What comes later for them is forwarded, as is what the general queue's workers still hand back.
//!
//! ```text
//!  general queue                      promoted queue
//!  site is large --Action::Promote--> Step::Begun (to both): the site's mail follows
//!  Moved: mail is forwarded --------> delivers; looks up again itself
//!                          <--------- a destination whose hosts became others comes back at once
//!                          <--------- drained for a while, or by order: Step::HandedBack, then all destinations
//!  the queue is free again <--------- the last worker is gone: Step::Vacated
//! ```
//!
//! Never promoted: a site that rests after a failure, is stopped or suspect; the fallback relay; the site that is alone in
//! the general queue, since nobody would gain. A promoted queue has one site: mail that goes to the fallback relay, and
//! destinations that prove to have other hosts, return to the general queue. A site that refuses us as the sender keeps its
//! queue for the rest of the run, since that queue knows it.
//!
//! INVARIANTS: at any time exactly one queue handles a destination, and whoever handled it before forwards to it. Mail that a
//! promoted queue does not handle goes to the general queue and nowhere else, and comes back only for a site that is promoted
//! there: no loops. A queue is free only when nothing of its last site is in it. The engine answers `Action::Promote`, always
//! the last action of its event, before any other event.
//!
//! Limits: what is deferred counts towards a site's share only once a second, when all of it is counted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::State;
use super::delayed::Timer;
use super::dispatcher::{Dispatcher, Turn};
use super::event::{Action, Route};
use super::fallback::origin_of;
use super::site::Gate;
use crate::mail::{DestinationId, Envelope, QueueId, SiteId, Verdict};

/// How often all that is pending is counted,
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// and how often at most, while so much waits for a site that it may be large.
const COUNT_SOONER: Duration = Duration::from_millis(50);
/// How long nothing is promoted after a thread could not be started.
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// What a queue has to do with promotion.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Promotion {
    /// Its sites stay.
    #[default]
    Never,
    /// It is the general queue and promotes sites.
    Watch(PromoteRules),
    /// It is for promoted sites, one at a time, and hands a site back for which it has had no mail for so long.
    Promoted(Duration),
}

/// When a site is promoted, and where to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PromoteRules {
    /// The first of the queues for promoted sites.
    pub first: QueueId,
    /// How many of them there are.
    pub queues: u16,
    /// A site is large with more than this share of what is pending (`promote_share`),
    pub share: f64,
    /// and with more envelopes than this (`promote_min`).
    pub min: usize,
    /// So is one that keeps more than one session busy for so long.
    pub demand: Duration,
}

impl PromoteRules {
    /// The defaults, for so many queues from `first` on.
    pub fn new(first: QueueId, queues: u16) -> PromoteRules {
        PromoteRules {
            first,
            queues,
            share: 0.005,
            min: 50,
            demand: Duration::from_secs(2),
        }
    }

    /// True if a site with `pending` of `all` envelopes is large. One that is alone is not.
    fn is_large(&self, pending: usize, all: usize) -> bool {
        pending > self.min && pending as f64 > self.share * all as f64 && pending < all
    }
}

/// What queues tell each other about a promotion, or are told of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// The operator wants the site of this destination promoted: for the general queue.
    Promote(DestinationId),
    /// The operator wants it back in the general queue: for that queue, or the promoted one.
    Demote(DestinationId),
    /// The promoted queue is there: the answer to [`Action::Promote`], and the first that the promoted queue hears.
    Begun {
        /// Which queue.
        queue: QueueId,
        /// For which site.
        site: SiteId,
    },
    /// It could not be started.
    Failed {
        /// Which.
        queue: QueueId,
    },
    /// A promoted queue gives its site back; its destinations follow.
    HandedBack {
        /// Which queue.
        queue: QueueId,
        /// The operator wanted it: the site is not promoted again unless he wants that, too.
        by_order: bool,
        /// The site has failed and rests.
        rest: Option<Rest>,
    },
    /// Nothing of the site is left in the promoted queue.
    Vacated {
        /// Which.
        queue: QueueId,
    },
}

/// Why and until when a site rests.
#[derive(Clone, PartialEq, Debug)]
pub struct Rest {
    /// Until when.
    pub until: Instant,
    /// Its failures in a row.
    pub failures: u32,
    /// The latest of them.
    pub why: Option<Arc<Verdict>>,
}

/// Why a site is not promoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpromoted {
    /// This queue promotes nothing.
    Never,
    /// It has a queue of its own already.
    Already,
    /// Its hosts are not known yet.
    Unknown,
    /// It rests after a failure, or nothing is sent to it.
    Rests,
    /// All queues for promoted sites are taken.
    NoQueue,
}

/// A queue for promoted sites, as the general queue sees it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Slot {
    #[default]
    Free,
    /// The engine was asked to start it.
    Asked,
    Serving(SiteId),
    /// It has handed its site back and is not empty yet.
    Vacating,
}

/// The state that a dispatcher keeps for promotion, whatever its part.
#[derive(Default, Debug)]
pub(super) struct Promotions {
    /// General queue: the queues for promoted sites.
    slots: Vec<Slot>,
    /// Which of them has a site.
    by_site: HashMap<SiteId, QueueId>,
    /// Sites that the operator wants in the general queue.
    kept: HashSet<SiteId>,
    /// Sites to be promoted when the event is over, each with its queue.
    asked: Vec<(QueueId, u32)>,
    watch: Watch,
    /// Nothing is promoted before.
    not_before: Option<Instant>,
    /// Promoted queue: its site.
    site: Option<SiteId>,
    /// It has handed it back.
    leaving: bool,
    /// It has been without mail since.
    drained_since: Option<Instant>,
}

/// Watches over the demand of sites: how long each has kept more than one session busy, and when all was last counted.
#[derive(Default, Debug)]
struct Watch {
    since: HashMap<u32, Instant>,
    counted_at: Option<Instant>,
    /// A site may be large: all is counted soon.
    is_urgent: bool,
}

impl Watch {
    /// Site `s` keeps so many sessions busy and has mail waiting, or not.
    fn note(&mut self, s: u32, sessions: usize, waits: bool, now: Instant) {
        if sessions < 2 || !waits {
            self.since.remove(&s);
        } else {
            self.since.entry(s).or_insert(now);
        }
    }

    /// True if site `s` has kept more than one session busy for `demand`.
    fn demands(&self, s: u32, demand: Duration, now: Instant) -> bool {
        let since = self.since.get(&s);
        since.is_some_and(|since| now.saturating_duration_since(*since) >= demand)
    }

    /// True if it is time to count.
    fn is_due(&mut self, now: Instant) -> bool {
        let wait = if self.is_urgent {
            COUNT_SOONER
        } else {
            COUNT_EVERY
        };
        let due = self
            .counted_at
            .is_none_or(|at| now.saturating_duration_since(at) >= wait);
        if due {
            (self.counted_at, self.is_urgent) = (Some(now), false);
        }
        due
    }
}

impl Promotions {
    pub(super) fn new(promotion: Promotion) -> Promotions {
        let slots = match promotion {
            Promotion::Watch(rules) => usize::from(rules.queues),
            _ => 0,
        };
        Promotions {
            slots: vec![Slot::Free; slots],
            ..Promotions::default()
        }
    }

    /// True once the site was handed back: workers are not kept.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }
}

// The general queue's part.
impl<P: Clone> Dispatcher<P> {
    fn rules(&self) -> Option<PromoteRules> {
        match self.config.promotion {
            Promotion::Watch(rules) => Some(rules),
            _ => None,
        }
    }

    /// The queue to which this site was promoted.
    pub(super) fn promoted_to(&self, site: SiteId) -> Option<QueueId> {
        self.promotions.by_site.get(&site).copied()
    }

    /// Looks at a site that the event touched. O(1).
    pub(super) fn watch(&mut self, s: u32, now: Instant) {
        let Some(rules) = self.rules() else { return };
        let (waiting, sessions) = (self.sites[s].waiting, self.sites[s].busy());
        self.promotions.watch.note(s, sessions, waiting > 0, now);
        self.promotions.watch.is_urgent |= rules.is_large(waiting, self.pending());
    }

    /// At most so often: counts all that is pending, for each site, and promotes those that are large or have had demand for
    /// more than one session for long enough, the largest first.
    pub(super) fn watch_all(&mut self, now: Instant) {
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

    /// The weight of this queue in the shares of workers: the square root of what it could send now, at least 1.
    pub fn weight(&self) -> u32 {
        (self.backlog.waiting + self.in_hand).isqrt().max(1) as u32
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
    pub(super) fn promote_now(
        &mut self,
        d: u32,
        _t: &mut Turn<'_, P>,
    ) -> Result<QueueId, Unpromoted> {
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
    pub(super) fn ask_for_queues(&mut self, t: &mut Turn<'_, P>) {
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
    pub(super) fn step(&mut self, step: Step, t: &mut Turn<'_, P>) {
        match step {
            Step::Promote(id) => {
                if let Some(d) = self.backlog.find(id) {
                    // An order that cannot be carried out leaves all as it is.
                    let _ = self.promote_now(d, t);
                }
            }
            Step::Demote(id) => {
                if let Some(d) = self.backlog.find(id) {
                    self.demote_now(d, t);
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
    fn move_destinations(&mut self, its: &[u32], queue: QueueId, t: &mut Turn<'_, P>) {
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

// The promoted queue's part.
impl<P: Clone> Dispatcher<P> {
    fn rests_after(&self) -> Option<Duration> {
        match self.config.promotion {
            Promotion::Promoted(after) => Some(after),
            _ => None,
        }
    }

    /// True if this queue is for promoted sites.
    pub(super) fn is_promoted(&self) -> bool {
        self.rests_after().is_some()
    }

    /// True if mail for `site` is not this queue's: it is a promoted one, and has another site, or has handed it back.
    pub(super) fn is_elsewhere(&self, site: SiteId) -> bool {
        let is_own = self.promotions.site == Some(site) && !self.promotions.leaving;
        self.is_promoted() && !is_own
    }

    fn begin(&mut self, site: SiteId) {
        self.promotions.site = Some(site);
        self.promotions.leaving = false;
        self.promotions.drained_since = None;
    }

    /// A destination that proves not to be of this queue's site goes back to the general queue, with all its mail but what
    /// is deferred, which follows when it is due.
    pub(super) fn give_back(&mut self, d: u32, route: Option<Route<P>>, t: &mut Turn<'_, P>) {
        let waiting = self.withdraw(d);
        self.backlog.set_state(d, State::Moved(QueueId::GENERAL));
        self.hand_over(d, QueueId::GENERAL, waiting, Vec::new(), route, t);
    }

    /// The operator wants the site of destination `d` back in the general queue. False if it was not promoted.
    pub(super) fn demote_now(&mut self, d: u32, t: &mut Turn<'_, P>) -> bool {
        if self.is_promoted() {
            let is_its = !matches!(self.backlog[d].state, State::Moved(_));
            if is_its {
                self.hand_back(true, t);
            }
            return is_its;
        }
        let State::Moved(queue) = self.backlog[d].state else {
            return false;
        };
        let is_promoted = self.promotions.by_site.values().any(|own| *own == queue);
        if is_promoted {
            t.actions.push(Action::Pass {
                queue,
                step: Step::Demote(self.backlog[d].id),
            });
        }
        is_promoted
    }

    /// The last of an event in a promoted queue: hands its site back once that has had no mail for a while, and says when
    /// nothing of it is left.
    pub(super) fn tend(&mut self, t: &mut Turn<'_, P>) {
        let Some(after) = self.rests_after() else {
            return;
        };
        let Some(site) = self.promotions.site else {
            return;
        };
        if !self.is_idle() || self.backlog.resolving > 0 {
            self.promotions.drained_since = None;
            return;
        }
        if !self.promotions.leaving {
            let since = *self.promotions.drained_since.get_or_insert(t.now);
            if self.stopped || t.now < since + after || self.is_refused_by(site) {
                return;
            }
            self.hand_back(false, t);
            self.release(t);
        }
        if self.workers.len() == 0 {
            self.promotions.site = None;
            // It leaves all lines that it stands in.
            self.forget_refusals();
            let queue = self.config.queue;
            t.actions.push(Action::Pass {
                queue: QueueId::GENERAL,
                step: Step::Vacated { queue },
            });
        }
    }

    /// When [`Dispatcher::tend`] has something to do, if nothing else happens before.
    pub(super) fn tend_at(&self) -> Option<Instant> {
        let after = self.rests_after()?;
        let site = self.promotions.site?;
        let waits = !self.promotions.leaving && !self.stopped && !self.is_refused_by(site);
        self.promotions
            .drained_since
            .filter(|_| waits)
            .map(|since| since + after)
    }

    fn is_refused_by(&self, site: SiteId) -> bool {
        let s = self.sites.find(site);
        s.is_some_and(|s| self.sites[s].gate == Gate::Stopped)
    }

    /// Hands the site back to the general queue, with all its mail. What workers hold follows as they end their runs.
    fn hand_back(&mut self, by_order: bool, t: &mut Turn<'_, P>) {
        let Some(site) = self.promotions.site else {
            return;
        };
        if self.promotions.leaving || self.stopped || self.is_refused_by(site) {
            return;
        }
        self.promotions.leaving = true;
        let queue = self.config.queue;
        let rest = self.sites.find(site).and_then(|s| self.rest_of(s, t.now));
        t.actions.push(Action::Pass {
            queue: QueueId::GENERAL,
            step: Step::HandedBack {
                queue,
                by_order,
                rest,
            },
        });
        let its: Vec<u32> = (0..self.backlog.len() as u32)
            .filter(|d| !matches!(self.backlog[*d].state, State::Moved(_)))
            .collect();
        self.move_destinations(&its, QueueId::GENERAL, t);
        for w in self.workers.all() {
            self.recall(w, t);
        }
    }

    fn rest_of(&self, s: u32, now: Instant) -> Option<Rest> {
        let site = &self.sites[s];
        let until = match site.gate {
            Gate::Paused(until) => until,
            Gate::Probe | Gate::Probing(_) => now,
            Gate::Open | Gate::Narrow(_) | Gate::Stopped => return None,
        };
        Some(Rest {
            until,
            failures: site.failures,
            why: site.failure.clone(),
        })
    }
}
