//! The books of the world, kept from events and actions alone, and the invariants that are checked against them.
//!
//! The books do not look into a dispatcher: where every envelope is follows from what was sent to it and what it answered.
//! A double assignment shows as an envelope that is not where it should be, a loss as a count that does not match.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use mailer::mail::{DestinationId, Envelope, RecipientNo, SiteId, SourceNo, WorkerId};
use mailer::queue::{Event, GateView, Permit, Phase, SiteView, Snapshot, origin_of};

use crate::limits::Log;
use crate::orders::InForce;
use crate::sender::Words;
use crate::world::{Plan, World};

/// Where an envelope is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Place {
    #[default]
    Unposted,
    /// In a queue's inbox.
    Inbox(usize),
    /// With a queue's dispatcher.
    Queue(usize),
    /// With a worker.
    Worker(usize, WorkerId),
    Settled,
}

/// What the books know of a worker that was spawned and not yet reported gone.
#[derive(Default, Debug)]
struct Account {
    /// Sizes of the runs it was given and whose end was not yet received.
    runs: Vec<usize>,
    /// Sites whose permits it holds.
    permits: Vec<SiteId>,
    /// Envelopes it was given since it turned to the site it serves.
    served: usize,
    retired: bool,
}

#[derive(Default)]
pub struct Books {
    places: Vec<Place>,
    /// Who made the latest attempt for each envelope, as far as it counts.
    tried: Vec<Option<(usize, WorkerId)>>,
    /// Who was sent to the fallback relay.
    fallen: Vec<bool>,
    pub queues: Vec<QueueBooks>,
    /// What sites have said of us as the sender.
    pub words: Words,
    /// What was handed out when is kept for worlds that are small.
    pub logs: bool,
    /// It.
    pub log: Log,
    promised: HashSet<(usize, Permit)>,
    /// Which site each queue has that is for promoted ones.
    pub promoted: HashMap<usize, SiteId>,
    /// All before this one are settled.
    settled_until: usize,
}

#[derive(Default)]
pub struct QueueBooks {
    /// Envelopes the dispatcher must have.
    held: usize,
    in_hand: usize,
    accounts: HashMap<WorkerId, Account>,
    no_spawn_until: Option<Instant>,
    /// What the operator has ordered of it.
    pub orders: InForce,
    /// Sites with mail for which there was no worker after the event before.
    pub unserved: Vec<SiteId>,
    /// Who was given more by this event although it had been given this much for the same site.
    pub goes_on: Vec<(WorkerId, usize)>,
    /// The sites with which this event took a further session.
    pub sessions_taken: Vec<(SiteId, SourceNo)>,
    /// The destinations this event took a run from.
    pub served: Vec<DestinationId>,
    /// For each destination that waits, the runs its site has given others meanwhile.
    pub passed: HashMap<DestinationId, u32>,
}

impl Books {
    pub fn new(envelopes: u32, queues: usize) -> Books {
        Books {
            places: vec![Place::Unposted; envelopes as usize],
            tried: vec![None; envelopes as usize],
            fallen: vec![false; envelopes as usize],
            queues: (0..queues).map(|_| QueueBooks::default()).collect(),
            words: Words::default(),
            logs: false,
            log: Log::default(),
            promised: HashSet::new(),
            promoted: HashMap::new(),
            settled_until: 0,
        }
    }

    /// Moves envelopes from one place to another, where they must be.
    fn carry(&mut self, envelopes: &[Envelope], from: Place, to: Place) {
        for envelope in envelopes {
            let RecipientNo(number) = envelope.recipient;
            let place = &mut self.places[number as usize];
            assert_eq!(*place, from, "envelope {number} on its way to {to:?}");
            *place = to;
        }
        if let Place::Queue(q) = from {
            assert!(self.queues[q].held >= envelopes.len());
            self.queues[q].held -= envelopes.len();
        }
        if let Place::Queue(q) = to {
            self.queues[q].held += envelopes.len();
        }
    }

    pub fn post(&mut self, envelopes: &[Envelope], q: usize) {
        self.carry(envelopes, Place::Unposted, Place::Inbox(q));
    }

    pub fn transit(&mut self, from: usize, to: usize, envelopes: &[Envelope]) {
        for envelope in envelopes {
            assert_eq!(envelope.last_worker, None, "workers are the queue's own");
            self.tried[envelope.recipient.index()] = None;
        }
        self.carry(envelopes, Place::Queue(from), Place::Inbox(to));
    }

    pub fn finally(&mut self, q: usize, envelopes: &[Envelope]) {
        self.carry(envelopes, Place::Queue(q), Place::Settled);
    }

    /// True once the run is over.
    pub fn all_settled(&mut self) -> bool {
        let settled = |place: &&Place| **place == Place::Settled;
        self.settled_until += self.places[self.settled_until..]
            .iter()
            .take_while(settled)
            .count();
        self.settled_until == self.places.len()
    }

    /// A permit is promised to a queue: until it hears of it, it need not act.
    pub fn promise(&mut self, q: usize, permit: Permit) {
        self.promised.insert((q, permit));
    }

    pub fn spawned(&mut self, q: usize, worker: WorkerId) {
        self.queues[q].accounts.insert(worker, Account::default());
    }

    pub fn retired(&mut self, q: usize, worker: WorkerId) {
        let account = self.account(q, worker);
        assert!(account.runs.is_empty(), "{worker:?} still owes a run");
        assert!(!account.retired, "{worker:?} is retired twice");
        account.retired = true;
    }

    /// A run is given to a worker. True if it is given ahead.
    pub fn assigned(
        &mut self,
        q: usize,
        worker: WorkerId,
        (site, source): (SiteId, SourceNo),
        envelopes: &[Envelope],
    ) -> bool {
        assert!(!envelopes.is_empty(), "an empty run");
        self.carry(envelopes, Place::Queue(q), Place::Worker(q, worker));
        self.queues[q].in_hand += envelopes.len();
        let account = self.account(q, worker);
        assert!(!account.retired, "{worker:?} was told to end");
        let ahead = !account.runs.is_empty();
        assert!(account.runs.len() < 2, "{worker:?} has enough");
        assert!(
            !ahead || account.permits.contains(&site),
            "what is given ahead goes to the same site"
        );
        account.runs.push(envelopes.len());
        let is_new = !account.permits.contains(&site);
        if is_new {
            account.permits.push(site);
            account.served = 0;
        }
        let before = account.served;
        account.served += envelopes.len();
        self.queues[q].goes_on.push((worker, before));
        if is_new {
            self.queues[q].sessions_taken.push((site, source));
        }
        ahead
    }

    pub fn worker_returns(&mut self, q: usize, worker: WorkerId, envelopes: &[Envelope]) {
        self.carry(envelopes, Place::Worker(q, worker), Place::Inbox(q));
    }

    /// Those of a finished run that were not returned are settled.
    pub fn worker_settles(&mut self, q: usize, worker: WorkerId, run: &[Envelope]) {
        for envelope in run {
            let place = &mut self.places[envelope.recipient.index()];
            if *place == Place::Worker(q, worker) {
                *place = Place::Settled;
            }
        }
    }

    /// A worker has tried these in vain.
    pub fn tried(&mut self, q: usize, worker: WorkerId, envelopes: &[Envelope]) {
        for envelope in envelopes {
            self.tried[envelope.recipient.index()] = Some((q, worker));
        }
    }

    pub fn was_tried(&self, envelope: &Envelope, q: usize, worker: WorkerId) -> bool {
        self.tried[envelope.recipient.index()] == Some((q, worker))
    }

    pub fn ended(&mut self, q: usize, worker: WorkerId) {
        let place = Place::Worker(q, worker);
        assert!(!self.places.contains(&place), "a thread took mail with it");
    }

    fn account(&mut self, q: usize, worker: WorkerId) -> &mut Account {
        let account = self.queues[q].accounts.get_mut(&worker);
        account.unwrap_or_else(|| panic!("{worker:?} is not a worker of queue {q}"))
    }

    /// An event is received: what it brings is the dispatcher's from now on.
    pub fn received(&mut self, q: usize, event: &Event<Plan>, now: Instant) {
        self.queues[q].goes_on.clear();
        self.queues[q].served.clear();
        self.queues[q].sessions_taken.clear();
        match event {
            Event::Post { envelopes, .. } => {
                self.carry(envelopes, Place::Inbox(q), Place::Queue(q));
            }
            Event::Forwarded {
                envelopes, delayed, ..
            } => {
                self.carry(envelopes, Place::Inbox(q), Place::Queue(q));
                let delayed: Vec<_> = delayed.iter().map(|(e, _)| *e).collect();
                self.carry(&delayed, Place::Inbox(q), Place::Queue(q));
            }
            Event::Finished { worker, outcome } => {
                let deferred: Vec<_> = outcome.deferred.iter().map(|(e, _)| *e).collect();
                self.carry(&deferred, Place::Inbox(q), Place::Queue(q));
                self.carry(&outcome.returned, Place::Inbox(q), Place::Queue(q));
                let account = self.account(q, *worker);
                let size = account.runs.remove(0);
                let busy = !account.runs.is_empty();
                let serves = *account.permits.last().expect("a run needs a permit");
                let from = (q, *worker);
                let keeps = if busy { Some(serves) } else { outcome.session };
                account.permits.retain(|site| Some(*site) == keeps);
                self.queues[q].in_hand -= size;
                self.words.heard(from, serves);
                if self.logs {
                    if busy && outcome.session.is_none() {
                        self.log.reopened(q, *worker, now);
                    }
                    self.log.finished(q, *worker, outcome);
                }
            }
            Event::Closed { worker, site } => {
                // A thread that ended may have said so after its permits were taken back.
                if let Some(account) = self.queues[q].accounts.get_mut(worker) {
                    let serves = account.permits.last().copied();
                    let needed = !account.runs.is_empty() && serves == Some(*site);
                    account.permits.retain(|held| needed || held != site);
                    if needed && self.logs {
                        self.log.reopened(q, *worker, now);
                    }
                }
            }
            Event::Recalled { worker, envelopes } if !envelopes.is_empty() => {
                self.carry(envelopes, Place::Inbox(q), Place::Queue(q));
                let size = self.account(q, *worker).runs.pop();
                assert_eq!(size, Some(envelopes.len()));
                if self.logs {
                    self.log.recalled(q, *worker);
                }
                self.queues[q].in_hand -= envelopes.len();
            }
            Event::Gone { worker, returned } => {
                for (_, envelopes) in returned {
                    self.carry(envelopes, Place::Inbox(q), Place::Queue(q));
                }
                let account = self.queues[q].accounts.remove(worker).expect("it existed");
                self.log.gone(q, *worker);
                let owed: usize = account.runs.iter().sum();
                self.queues[q].in_hand -= owed;
                if owed > 0 {
                    self.queues[q].no_spawn_until = Some(now + Duration::from_secs(1));
                }
            }
            Event::Order { order, .. } => self.queues[q].orders.hear(order),
            Event::PermitFree { permit } => {
                self.promised.remove(&(q, *permit));
            }
            _ => {}
        }
    }
}

impl World {
    /// All invariants that concern queue `q`, after an event.
    pub fn check(&mut self, q: usize) {
        let snapshot = self.queues[q].dispatcher.snapshot();
        if self.is_small() {
            self.check_quantum(q);
            self.check_turns(q);
            self.check_held(q);
        }
        self.check_counts(q, &snapshot);
        self.check_permits(q);
        self.check_stops(q);
        if self.queues[q].stopped {
            assert_eq!(
                snapshot.waiting + snapshot.delayed,
                0,
                "mail after the stop"
            );
        } else if snapshot.waiting > 0 && self.is_small() {
            self.check_nobody_idles(q, &snapshot);
            self.check_rests(q, &snapshot);
        }
        let every = self.scenario.census_every;
        if self.tally.events.is_multiple_of(every) {
            self.census(q);
        }
    }

    pub fn is_small(&self) -> bool {
        self.scenario.manners.len() < 100
    }

    fn check_counts(&self, q: usize, snapshot: &Snapshot) {
        let (queue, books) = (&self.queues[q], &self.books.queues[q]);
        assert_eq!(
            snapshot.waiting + snapshot.delayed,
            books.held,
            "envelopes are lost or doubled in queue {q}"
        );
        assert_eq!(snapshot.in_hand, books.in_hand, "in hand of queue {q}");
        assert_eq!(snapshot.workers, books.accounts.len());
        assert!(
            snapshot.workers <= queue.max as usize,
            "maximum of queue {q}"
        );
        let table = self.permits.borrow();
        let mine = table.workers_held_by(mailer::mail::QueueId(q as u16));
        assert_eq!(mine as usize, snapshot.workers, "a permit per worker");
        assert!(table.workers_held() <= self.scenario.workers_max);
        if self.is_small() {
            let ready = |account: &&Account| account.runs.is_empty() && !account.retired;
            let ready = books.accounts.values().filter(ready).count();
            assert_eq!(snapshot.ready, ready, "ready list of queue {q}");
        }
    }

    /// A permit per session, within each site's window.
    fn check_permits(&self, q: usize) {
        if !self.is_small() {
            return;
        }
        self.check_windows(&self.books.queues[q].sessions_taken);
        let table = self.permits.borrow();
        let queue = mailer::mail::QueueId(q as u16);
        let mut held = vec![0; self.scenario.manners.len()];
        for account in self.books.queues[q].accounts.values() {
            for site in &account.permits {
                held[site.index()] += 1;
            }
        }
        for (number, held) in held.into_iter().enumerate() {
            let site = SiteId(number as u32);
            assert_eq!(
                table.sessions_held_by(site, queue),
                held,
                "sessions of queue {q} with {site:?}"
            );
            let all = table.sessions_held(site);
            assert!(self.open_sessions[number] <= all, "sessions without permit");
        }
    }

    /// No worker is ready, and none could be spawned, while mail waits that it could carry.
    fn check_nobody_idles(&self, q: usize, snapshot: &Snapshot) {
        let dispatcher = &self.queues[q].dispatcher;
        let eligible = |view: &SiteView| view.waiting > 0 && self.could_open(q, view);
        if snapshot.ready > 0 || self.could_spawn(q, snapshot) {
            let idles = dispatcher.sites().find(eligible);
            assert_eq!(
                idles, None,
                "mail waits in queue {q}, and workers: {snapshot:?}"
            );
        }
        for account in self.books.queues[q].accounts.values() {
            let [site] = account.permits[..] else {
                continue;
            };
            if account.runs.is_empty() && !account.retired {
                let view = dispatcher.site(site).expect("a session has a site");
                let feeds = matches!(view.gate, GateView::Open | GateView::Narrow);
                let rests = view.rests_until.is_some() || snapshot.held_until.is_some();
                assert!(
                    view.waiting == 0 || !feeds || rests,
                    "{view:?} has a ready worker"
                );
            }
        }
    }

    /// True if the queue could open a further session with the site now, and it would pay.
    pub fn could_open(&self, q: usize, view: &SiteView) -> bool {
        let queue = mailer::mail::QueueId(q as u16);
        let (site, snapshot) = (view.site, self.queues[q].dispatcher.snapshot());
        let phase = match view.workers {
            0 => Phase::First,
            _ => Phase::Further,
        };
        let rests = [
            view.held_until,
            view.sessions_after,
            snapshot.held_until,
            snapshot.sessions_after,
        ];
        let rests = rests.iter().any(|rest| rest.is_some());
        let promised = |permit| self.books.promised.contains(&(q, permit));
        matches!(view.gate, GateView::Open | GateView::Probe)
            && view.session_pays
            && !rests
            && !promised(Permit::Session(site))
            && !promised(Permit::Connect(phase))
            && self.has_room_to_connect(phase)
            && self
                .permits
                .borrow()
                .would_take_session(site, queue, phase, self.now)
    }

    /// True if more sessions may be opened than others have been promised.
    fn has_room_to_connect(&self, phase: Phase) -> bool {
        let table = self.permits.borrow();
        table.connecting(phase) + table.connects_promised(phase) < table.connects_max(phase)
    }

    /// What rests has a time to wake at.
    fn check_rests(&self, q: usize, snapshot: &Snapshot) {
        let dispatcher = &self.queues[q].dispatcher;
        let wake = dispatcher.wake_at();
        let of_sites = dispatcher
            .sites()
            .flat_map(|view| [view.rests_until, view.sessions_after]);
        let of_queue = [snapshot.held_until, snapshot.sessions_after];
        for rest in of_sites.chain(of_queue).flatten() {
            assert!(
                wake.is_some_and(|wake| wake <= rest),
                "nobody wakes queue {q} at the end of a rest"
            );
        }
    }

    fn could_spawn(&self, q: usize, snapshot: &Snapshot) -> bool {
        let queue = mailer::mail::QueueId(q as u16);
        let held_back = self.books.queues[q].no_spawn_until;
        !self.queues[q].stopped
            && snapshot.workers < self.queues[q].max as usize
            && held_back.is_none_or(|until| until <= self.now)
            && !self.books.promised.contains(&(q, Permit::Worker))
            && self.permits.borrow().would_take_worker(queue)
    }

    /// What a worker tried last itself goes to another one, where one could take it.
    pub fn check_assignment(&self, q: usize, worker: WorkerId, site: SiteId, run: &[Envelope]) {
        let is_again = run.iter().any(|e| self.books.was_tried(e, q, worker));
        let manner = self.scenario.manners[site.index()];
        let is_plain = self.scenario.limits.are_fixed && manner.works_the_same();
        if !is_again || !is_plain {
            return; // whether a further session pays, and is due, changes within the event
        }
        let dispatcher = &self.queues[q].dispatcher;
        let snapshot = dispatcher.snapshot();
        let view = dispatcher.site(site);
        let open =
            view.is_some_and(|view| view.gate == GateView::Open && self.could_open(q, &view));
        let another = snapshot.ready > 0 || self.could_spawn(q, &snapshot);
        assert!(
            !(open && another),
            "{worker:?} tries again what it tried itself: {snapshot:?}"
        );
    }

    /// Mail that went to the fallback relay never goes back, and what has failed often enough goes nowhere else.
    pub fn check_fallback(&mut self, destination: DestinationId, run: &[Envelope]) {
        let (_, is_fallback) = origin_of(destination);
        self.tally.fell_back += u64::from(is_fallback);
        for envelope in run {
            let fallen = &mut self.books.fallen[envelope.recipient.index()];
            let passage = envelope.passage;
            let failures = u32::from(passage.attempts) + u32::from(passage.host_failures);
            match (is_fallback, self.scenario.fallback) {
                (true, None) => panic!("{envelope:?} falls back to nobody"),
                (true, Some(_)) if !*fallen => {
                    *fallen = true;
                    self.books.tried[envelope.recipient.index()] = None;
                }
                (true, Some(_)) => {}
                (false, Some(fallback)) => {
                    assert!(!*fallen, "{envelope:?} comes back from the fallback relay");
                    assert!(failures < fallback.after, "{envelope:?} should fall back");
                }
                (false, None) => {}
            }
        }
    }

    /// The dispatcher holds exactly the envelopes it should, each once.
    fn census(&self, q: usize) {
        let mut seen = HashSet::new();
        for (_, _, envelope) in self.queues[q].dispatcher.envelopes() {
            let number = envelope.recipient.index();
            assert!(seen.insert(number), "envelope {number} is held twice");
            assert_eq!(self.books.places[number], Place::Queue(q));
        }
        assert_eq!(seen.len(), self.books.queues[q].held);
    }

    /// When nothing is left to happen, everything is settled and everything was given back.
    pub fn check_end(&self) {
        for (number, place) in self.books.places.iter().enumerate() {
            assert_eq!(*place, Place::Settled, "envelope {number} was forgotten");
        }
        for (q, queue) in self.queues.iter().enumerate() {
            self.census(q);
            assert!(queue.dispatcher.is_drained(), "queue {q} is not drained");
            assert!(queue.workers.is_empty(), "queue {q} left threads behind");
        }
        if self.is_small() {
            self.books.log.check_end();
        }
        let table = self.permits.borrow();
        assert_eq!(table.workers_held(), 0);
        for site in 0..self.scenario.manners.len() as u32 {
            assert_eq!(table.sessions_held(SiteId(site)), 0);
        }
    }
}
