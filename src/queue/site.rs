//! The sites of a queue: what waits for each, who serves it, whether it takes mail, and the ring that shares workers out.
//!
//! A site stands in the ring while mail waits for it that another session could carry. The ring has two parts: sites
//! that no worker of this queue serves come first, then sites that would like one more. Each part is served in turn,
//! so a site with much mail cannot keep another one waiting for ever. In field terms this is a deficit round robin: the
//! quantum of a worker at a site is 64 envelopes or 5 seconds, whichever is used up first (`quantum`, `quantum_time`). What a
//! run exceeds it by is not carried over, since a worker that has used it up only turns away if another site has none, or at
//! least two less; with mail that takes longer than the quantum each run is a turn.
//!
//! The gate of a site is one state for all its mail, however much that is:
//!
//! ```text
//! open --host failure, others still work--> narrow --time--> open
//! open --host failure, nobody works-------> paused --time--> probe --assigned--> probing --works--> open
//!                                              ^------------------- fails --------'
//! any --it refuses us as the sender (`sender.rs`)--> stopped, for the rest of the run
//! ```
//!
//! INVARIANTS: a site is in the ring exactly when mail waits, the gate and the pace admit a new session, that pays
//! (`flow.rs`), and it is not blocked for want of a permit (`refresh` restores this); `waiting` is the sum over its destinations. Sites are never forgotten in a
//! run: they are as many as the batch has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::event::{GateView, SiteView};
use super::flow::{Measured, Patience};
use super::health::Health;
use super::links::{Links, List};
use super::permits::Phase;
use super::sender::Standing;
use crate::mail::{SiteId, SourceNo, Verdict};

/// Whether a site takes mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    /// It does.
    Open,
    /// Only through sessions that are open already, until then.
    Narrow(Instant),
    /// Not at all until then.
    Paused(Instant),
    /// One worker may try.
    Probe,
    /// The worker with this index tries.
    Probing(u32),
    /// Not in this run.
    Stopped,
}

/// One site.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) id: SiteId,
    /// Envelopes that wait, over all its destinations.
    pub(super) waiting: usize,
    /// Its destinations with waiting mail, in the order in which they are served.
    pub(super) destinations: List,
    /// Workers whose session, open or about to be, is with this site.
    pub(super) workers: usize,
    /// Those of them whose session is known to work.
    pub(super) proven: usize,
    /// Workers on the ready list with an open session to it.
    pub(super) idle: List,
    /// Workers that may be given a run ahead.
    pub(super) ahead: List,
    /// Whether it takes mail.
    pub(super) gate: Gate,
    /// Host failures since it last worked.
    pub(super) failures: u32,
    /// The latest of them, or why it is stopped.
    pub(super) failure: Option<Arc<Verdict>>,
    /// When it was last heard that mail was settled there.
    pub(super) worked_at: Option<Instant>,
    /// What it thinks of us as the sender.
    pub(super) standing: Standing,
    /// Envelopes that were left because it is stopped.
    pub(super) left: usize,
    /// Whether the site is sick, or single messages are.
    pub(super) health: Health,
    /// How long things take there.
    pub(super) measured: Measured,
    /// Whether the sessions that are open are worth waiting for.
    pub(super) patience: Patience,
    /// True while a permit for one more session was refused.
    pub(super) blocked: bool,
    /// The pace has no further session before.
    pub(super) sessions_after: Option<Instant>,
    /// Source addresses from which the pace has no message before; no address twice.
    rests: Vec<(SourceNo, Instant)>,
    /// All of them rest.
    held: bool,
    /// True while it stands in the list of those that wait for the queue's pace.
    pub(super) starved: bool,
    /// True while it is on the list of sites to look at after the event.
    pub(super) touched: bool,
    /// Its part of the queue's weight, as of the last look at it.
    root: u32,
    ring: Ring,
}

/// The part of the ring a site stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ring {
    None,
    Unserved,
    Served,
}

impl Site {
    fn new(id: SiteId) -> Site {
        Site {
            id,
            waiting: 0,
            destinations: List::default(),
            workers: 0,
            proven: 0,
            idle: List::default(),
            ahead: List::default(),
            gate: Gate::Open,
            failures: 0,
            worked_at: None,
            failure: None,
            standing: Standing::default(),
            left: 0,
            health: Health::default(),
            measured: Measured::default(),
            patience: Patience::default(),
            blocked: false,
            sessions_after: None,
            rests: Vec::new(),
            held: false,
            starved: false,
            touched: false,
            root: 0,
            ring: Ring::None,
        }
    }

    /// True if mail waits that may go through sessions that are open.
    pub(super) fn feeds(&self) -> bool {
        self.waiting > 0 && matches!(self.gate, Gate::Open | Gate::Narrow(_)) && !self.held
    }

    /// Sessions that are known to work and carry mail now.
    pub(super) fn busy(&self) -> usize {
        self.proven.saturating_sub(self.idle.len())
    }

    /// True if mail waits that a new session may carry, permits aside.
    fn wants_session(&self, backlog: u32) -> bool {
        self.waiting > 0
            && matches!(self.gate, Gate::Open | Gate::Probe)
            && !self.blocked
            && !self.held
            && self.sessions_after.is_none()
            && self.session_pays(backlog)
    }

    /// The square root of what waits and may go.
    fn root(&self) -> u32 {
        match self.gate {
            Gate::Paused(_) | Gate::Stopped => 0,
            _ => self.waiting.isqrt() as u32,
        }
    }

    /// True if a further session pays. A probe always does, and so does one beside others that are not heard of.
    fn session_pays(&self, backlog: u32) -> bool {
        self.gate == Gate::Probe
            || self.patience.is_over
            || self.measured.pays(self.waiting, self.workers, backlog)
    }

    /// True if mail waits for sessions that are open, since a further one does not pay.
    pub(super) fn waits_for_sessions(&self, backlog: u32) -> bool {
        self.feeds() && self.workers > 0 && self.gate == Gate::Open && !self.session_pays(backlog)
    }

    /// Which session of the queue with this site the next one is.
    pub(super) fn phase(&self) -> Phase {
        if self.workers == 0 {
            Phase::First
        } else {
            Phase::Further
        }
    }

    /// No message from this address before `until`; there are `sources` addresses.
    pub(super) fn rest(&mut self, source: SourceNo, until: Instant, sources: usize) {
        self.rests.retain(|(other, _)| *other != source);
        self.rests.push((source, until));
        self.held = self.rests.len() >= sources;
    }

    /// True while no address may send.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// True while this address may not send.
    pub(super) fn rests(&self, source: SourceNo) -> bool {
        self.rests.iter().any(|(resting, _)| *resting == source)
    }

    /// When the first of the addresses that rest may send again.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rests.iter().map(|(_, until)| *until).min()
    }

    /// Forgets the rests that have ended.
    pub(super) fn rest_is_over(&mut self, now: Instant, sources: usize) {
        self.rests.retain(|(_, until)| *until > now);
        self.held = self.rests.len() >= sources;
        self.sessions_after = self.sessions_after.filter(|until| *until > now);
    }

    /// The pace may have room earlier than was said.
    pub(super) fn may_ask_again(&mut self) {
        self.rests.clear();
        (self.held, self.sessions_after) = (false, None);
    }

    /// Forgets all rests.
    pub(super) fn forget_rest(&mut self) {
        self.rests.clear();
        (self.held, self.sessions_after, self.blocked) = (false, None, false);
    }

    /// The site as others may see it.
    pub(super) fn view(&self, backlog: u32) -> SiteView {
        let gate = match self.gate {
            Gate::Open => GateView::Open,
            Gate::Narrow(_) => GateView::Narrow,
            Gate::Paused(_) => GateView::Paused,
            Gate::Probe => GateView::Probe,
            Gate::Probing(_) => GateView::Probing,
            Gate::Stopped => GateView::Stopped,
        };
        let rests_until = self.rests_until();
        SiteView {
            site: self.id,
            waiting: self.waiting,
            workers: self.workers,
            gate,
            left: self.left,
            held_until: rests_until.filter(|_| self.held),
            rests_until,
            sessions_after: self.sessions_after,
            session_pays: self.session_pays(backlog),
        }
    }
}

/// All sites of a queue, and the ring.
#[derive(Default, Debug)]
pub(super) struct Sites {
    sites: Vec<Site>,
    by_id: HashMap<SiteId, u32>,
    links: Links,
    unserved: List,
    served: List,
    /// The parts that are passed over, since too many such sessions are being opened; by [`Phase::index`].
    pub(super) shut: [bool; 2],
    /// What must wait for a further session: see `flow`.
    backlog: u32,
    /// The sum of the roots of all sites.
    roots: u64,
}

impl std::ops::Index<u32> for Sites {
    type Output = Site;
    fn index(&self, index: u32) -> &Site {
        &self.sites[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Sites {
    fn index_mut(&mut self, index: u32) -> &mut Site {
        &mut self.sites[index as usize]
    }
}

impl Sites {
    /// None yet; `backlog` is what must wait for a further session.
    pub(super) fn new(backlog: u32) -> Sites {
        Sites {
            backlog,
            ..Sites::default()
        }
    }

    /// The index of a site, made if it is new.
    pub(super) fn slot(&mut self, id: SiteId) -> u32 {
        *self.by_id.entry(id).or_insert_with(|| {
            self.sites.push(Site::new(id));
            (self.sites.len() - 1) as u32
        })
    }

    /// The index of a site, if it is known.
    pub(super) fn find(&self, id: SiteId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// All sites.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter()
    }

    /// Puts the site into the part of the ring where it belongs, at the end unless it stands there already.
    pub(super) fn refresh(&mut self, s: u32) {
        let root = self[s].root();
        let before = std::mem::replace(&mut self[s].root, root);
        self.roots = self.roots - u64::from(before) + u64::from(root);
        let site = &self[s];
        let ring = match (site.wants_session(self.backlog), site.workers) {
            (false, _) => Ring::None,
            (true, 0) => Ring::Unserved,
            (true, _) => Ring::Served,
        };
        if ring != site.ring {
            self.unlink(s);
            self.link(s, ring);
        }
    }

    /// The sum over all sites of the square root of what waits there and may go.
    pub(super) fn roots(&self) -> u32 {
        u32::try_from(self.roots).unwrap_or(u32::MAX)
    }

    /// Puts a site that has been served at the end of its part.
    pub(super) fn rotate(&mut self, s: u32) {
        let ring = self[s].ring;
        self.unlink(s);
        self.link(s, ring);
        self.refresh(s);
    }

    fn unlink(&mut self, s: u32) {
        match self[s].ring {
            Ring::None => return,
            Ring::Unserved => self.links.remove(&mut self.unserved, s),
            Ring::Served => self.links.remove(&mut self.served, s),
        };
        self[s].ring = Ring::None;
    }

    fn link(&mut self, s: u32, ring: Ring) {
        match ring {
            Ring::None => return,
            Ring::Unserved => self.links.push_back(&mut self.unserved, s),
            Ring::Served => self.links.push_back(&mut self.served, s),
        }
        self[s].ring = ring;
    }

    /// The site whose turn it is.
    pub(super) fn next(&self) -> Option<u32> {
        self.first_unserved().or_else(|| self.first_served())
    }

    fn first_unserved(&self) -> Option<u32> {
        let is_shut = self.shut[Phase::First.index()];
        self.unserved.front().filter(|_| !is_shut)
    }

    fn first_served(&self) -> Option<u32> {
        let is_shut = self.shut[Phase::Further.index()];
        self.served.front().filter(|_| !is_shut)
    }

    /// True if a worker of site `s` that has used up its quantum should turn to the site whose turn it is: one that nobody
    /// serves, or one that has at least two workers less. A site that does not need it more goes to the end of its part,
    /// so that the next worker that asks looks at another one.
    pub(super) fn others_need_more_than(&mut self, s: u32) -> bool {
        if self.first_unserved().is_some() {
            return true;
        }
        for _ in 0..2 {
            let Some(other) = self.first_served() else {
                return false;
            };
            if self[other].workers + 1 < self[s].workers {
                return true;
            }
            self.rotate(other);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(waiting: &[usize]) -> Sites {
        let mut sites = Sites::default();
        for (id, &waiting) in waiting.iter().enumerate() {
            let s = sites.slot(SiteId(id as u32));
            sites[s].waiting = waiting;
            sites.refresh(s);
        }
        sites
    }

    #[test]
    fn sites_nobody_serves_come_first_and_each_part_goes_round() {
        let mut sites = sites(&[1, 1, 0, 1]);
        assert_eq!(sites.next(), Some(0));
        sites[0].workers = 1;
        sites.rotate(0);
        assert_eq!(sites.next(), Some(1));
        sites[1].workers = 1;
        sites.rotate(1);
        assert_eq!(sites.next(), Some(3));
        sites[3].workers = 1;
        sites.rotate(3);
        for expected in [0, 1, 3, 0] {
            assert_eq!(sites.next(), Some(expected));
            sites.rotate(expected);
        }
    }

    #[test]
    fn a_blocked_paused_or_empty_site_leaves_the_ring_and_comes_back() {
        let mut sites = sites(&[5]);
        let later = Instant::now();
        let mut check = |change: &dyn Fn(&mut Site), stands: bool| {
            change(&mut sites[0]);
            sites.refresh(0);
            assert_eq!(sites.next().is_some(), stands, "{:?}", sites[0]);
        };
        check(&|site| site.blocked = true, false);
        check(&|site| site.blocked = false, true);
        check(&|site| site.gate = Gate::Paused(later), false);
        check(&|site| site.gate = Gate::Probe, true);
        check(&|site| site.gate = Gate::Probing(0), false);
        check(&|site| site.gate = Gate::Narrow(later), false);
        check(&|site| site.gate = Gate::Stopped, false);
        check(&|site| site.gate = Gate::Open, true);
        check(&|site| site.waiting = 0, false);
    }

    #[test]
    fn a_worker_turns_to_a_site_that_nobody_serves_or_that_has_two_workers_less() {
        let mut sites = sites(&[9, 9]);
        sites[0].workers = 1;
        sites.refresh(0);
        assert!(sites.others_need_more_than(0));
        sites[1].workers = 1;
        sites.rotate(1);
        assert!(!sites.others_need_more_than(0));
        sites[0].workers = 3;
        assert!(sites.others_need_more_than(0));
    }
}
