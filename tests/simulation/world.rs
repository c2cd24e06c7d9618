//! The simulated world: a clock, an agenda, inboxes, queues. Plays the part of the engine.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailer::mail::{
    DestinationId, Enhanced, Envelope, MessageNo, QueueId, RecipientNo, Scope, SiteId, Stage,
    Status, Verdict, WorkerId,
};
use mailer::queue::{
    Action, Dispatcher, DispatcherConfig, Event, News, Order, PermitTable, Resolution, Route,
    origin_of,
};
use mailer::retry::RetryPolicy;

use crate::check::Books;
use crate::scenario::{Naming, Scenario, Wish};
use crate::tally::Tally;
use crate::worker::{FakeWorker, Item, Job};

pub type Plan = u32;

/// Something that happens at its time.
pub enum Happening {
    /// The router posts.
    Post(usize),
    /// The event that entered a queue's inbox is received.
    Receive(usize, Event<Plan>),
    /// A queue asked to be woken.
    Wake(usize),
    /// A worker goes on with what it does.
    Step(usize, WorkerId),
    /// The operator orders something.
    Order(Order),
    /// A signal stops the run.
    Stop,
    /// The operator wants a site promoted, or back.
    Wish(Wish),
}

pub struct Queue {
    pub dispatcher: Dispatcher<Plan>,
    pub max: u32,
    pub workers: HashMap<WorkerId, FakeWorker>,
    /// When the latest event in its inbox is received: an inbox is first in, first out.
    pub inbox_until: Instant,
    pub in_inbox: u32,
    pub closed: bool,
    pub stopped: bool,
    woken_for: Option<Instant>,
}

pub struct World {
    pub scenario: Scenario,
    pub rng: fastrand::Rng,
    pub start: Instant,
    pub now: Instant,
    agenda: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    free: Vec<usize>,
    sequence: u64,
    pub permits: RefCell<PermitTable>,
    pub queues: Vec<Queue>,
    pub books: Books,
    pub tally: Tally,
    /// Sessions that are really open, by site.
    pub open_sessions: Vec<u32>,
    look_ups: HashMap<u32, u32>,
    /// Attempts made for each recipient.
    pub attempts: Vec<u8>,
    posted: usize,
    pub stop_sent: bool,
}

pub fn verdict(status: Status, scope: Scope, stage: Stage) -> Arc<Verdict> {
    let enhanced = Enhanced::new(4, 0, 0);
    Arc::new(Verdict::own(status, scope, stage, enhanced, "simulated"))
}

impl World {
    pub fn new(scenario: Scenario) -> World {
        let start = Instant::now();
        let mut table = scenario.limits.table(&scenario, start);
        let mut queues = Vec::new();
        let configured = scenario.queue_maxima.len();
        let maxima = scenario.all_maxima();
        for (number, &max) in maxima.iter().enumerate() {
            let id = QueueId(number as u16);
            if number < configured {
                table.open(id);
            }
            let retry = RetryPolicy {
                retry_min: scenario.retry_min,
                retry_max: scenario.retry_min * 48,
                stop_at: Some(start + scenario.run_for),
                expire_at: scenario.expire.map(|expire| start + expire),
                ..RetryPolicy::default()
            };
            let config = DispatcherConfig {
                run_max: scenario.run_max,
                quantum: scenario.quantum,
                sender_refusals: scenario.sender_refusals,
                fallback_after: scenario.fallback.map(|fallback| fallback.after),
                promotion: scenario.promotion_of(number),
                sources: scenario.limits.sources,
                session_backlog: scenario.limits.session_backlog,
                retry,
                ..DispatcherConfig::new(id, max)
            };
            queues.push(Queue {
                dispatcher: Dispatcher::new(config, scenario.seed),
                max,
                workers: HashMap::new(),
                inbox_until: start,
                in_inbox: 0,
                closed: false,
                stopped: false,
                woken_for: None,
            });
        }
        let mut world = World {
            rng: fastrand::Rng::with_seed(scenario.seed ^ 0x5eed),
            start,
            now: start,
            agenda: BinaryHeap::new(),
            happenings: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            permits: RefCell::new(table),
            books: Books::new(scenario.envelopes, queues.len()),
            queues,
            tally: Tally::default(),
            open_sessions: vec![0; scenario.manners.len()],
            look_ups: HashMap::new(),
            attempts: vec![0; scenario.envelopes as usize],
            posted: 0,
            stop_sent: false,
            scenario,
        };
        world.books.logs = world.is_small();
        world.put_on_agenda();
        world
    }

    fn put_on_agenda(&mut self) {
        for post in 0..self.scenario.posts.len() {
            let at = self.start + self.scenario.posts[post].at;
            self.at(at, Happening::Post(post));
        }
        self.put_orders_on_agenda();
        if let Some(stop) = self.scenario.stop {
            self.at(self.start + stop, Happening::Stop);
        }
        for (after, wish) in self.scenario.wishes.clone() {
            self.at(self.start + after, Happening::Wish(wish));
        }
        if self.scenario.posts.is_empty() {
            self.close_inputs();
        }
    }

    pub fn at(&mut self, at: Instant, happening: Happening) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.happenings.push(None);
            self.happenings.len() - 1
        });
        self.happenings[slot] = Some(happening);
        self.sequence += 1;
        self.agenda.push(Reverse((at, self.sequence, slot)));
    }

    /// Puts an event into a queue's inbox.
    pub fn send(&mut self, q: usize, event: Event<Plan>) {
        let wait = self.rng.u64(0..=self.scenario.inbox_ms);
        let queue = &mut self.queues[q];
        queue.inbox_until = queue
            .inbox_until
            .max(self.now + Duration::from_millis(wait));
        queue.in_inbox += 1;
        let at = queue.inbox_until;
        self.at(at, Happening::Receive(q, event));
    }

    /// Until nothing is left to happen; then everything must be settled.
    pub fn run(&mut self) {
        let limit = 400 * u64::from(self.scenario.envelopes) + 20_000;
        while let Some(Reverse((at, _, slot))) = self.agenda.pop() {
            self.now = at;
            let happening = self.happenings[slot].take().expect("happens once");
            self.free.push(slot);
            self.happen(happening);
            assert!(self.tally.events < limit, "it does not come to an end");
        }
        self.check_end();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Post(post) => self.post(post),
            Happening::Receive(q, mut event) => {
                self.queues[q].in_inbox -= 1;
                if let Event::Gone { worker, returned } = &mut event {
                    self.bury(q, *worker, returned);
                }
                self.receive(q, event);
            }
            Happening::Wake(q) => {
                if self.queues[q].woken_for == Some(self.now) {
                    self.queues[q].woken_for = None;
                    self.receive(q, Event::Wake);
                }
            }
            Happening::Step(q, worker) => self.step(q, worker),
            Happening::Wish(wish) => self.wish(wish),
            Happening::Order(order) => self.order(&order),
            Happening::Stop => {
                self.stop_sent = true;
                for q in 0..self.queues.len() {
                    self.send(q, Event::Stop);
                }
            }
        }
    }

    fn post(&mut self, post: usize) {
        let post = self.scenario.posts[post].clone();
        let q = self.scenario.destinations[post.destination as usize].queue as usize;
        let envelope = |r| Envelope::new(MessageNo(post.message), RecipientNo(r));
        let envelopes: Vec<_> = post.recipients.map(envelope).collect();
        self.books.post(&envelopes, q);
        self.posted += 1;
        let destination = DestinationId(post.destination);
        self.send(
            q,
            Event::Post {
                destination,
                envelopes,
            },
        );
        if self.posted == self.scenario.posts.len() {
            self.close_inputs();
        }
    }

    /// Queues forward to one another until the run is over: then their inputs are closed.
    fn close_inputs(&mut self) {
        if self.posted < self.scenario.posts.len() || !self.books.all_settled() {
            return;
        }
        for q in 0..self.queues.len() {
            if !self.queues[q].closed {
                self.queues[q].closed = true;
                self.send(q, Event::InputClosed);
            }
        }
    }

    /// A queue receives an event and carries out what its dispatcher answers.
    pub fn receive(&mut self, q: usize, event: Event<Plan>) {
        self.tally.events += 1;
        self.queues[q].stopped |= matches!(event, Event::Stop);
        self.books.received(q, &event, self.now);
        let mut actions = Vec::new();
        self.queues[q]
            .dispatcher
            .on(event, self.now, &self.permits, &mut actions);
        // As the engine does: what was promised in the event is promised before anything is carried out.
        self.send_notices();
        for action in actions {
            self.carry_out(q, action);
        }
        self.weigh(q);
        self.send_notices();
        self.check(q);
        self.close_inputs();
        let wake = self.queues[q].dispatcher.wake_at();
        if let Some(at) = wake
            && self.queues[q].woken_for.is_none_or(|earlier| at < earlier)
        {
            let at = at.max(self.now);
            self.queues[q].woken_for = Some(at);
            self.at(at, Happening::Wake(q));
        }
    }

    fn send_notices(&mut self) {
        let notices = self.permits.borrow_mut().take_notices();
        for notice in notices {
            self.tally.notices += 1;
            let q = notice.queue.index();
            let permit = notice.permit;
            match notice.news {
                News::Free => {
                    self.books.promise(q, permit);
                    self.send(q, Event::PermitFree { permit });
                }
                News::Wanted => self.send(q, Event::PermitWanted { permit }),
            }
        }
    }

    fn carry_out(&mut self, q: usize, action: Action<Plan>) {
        match action {
            Action::Resolve { destination } => self.resolve(q, destination),
            Action::Spawn { worker } => {
                let workers = &mut self.queues[q].workers;
                let fresh = workers.insert(worker, FakeWorker::default()).is_none();
                assert!(fresh, "{worker:?} is spawned twice");
                self.books.spawned(q, worker);
            }
            Action::Assign {
                worker,
                destination,
                site,
                source,
                plan,
                serial,
                envelopes,
                ..
            } => {
                assert_eq!(plan, site.0, "the plan of another site");
                self.tally.assigned += 1;
                self.check_not_stopped(q, site);
                self.check_promoted(q, site);
                self.check_orders(q, destination);
                self.check_fallback(destination, &envelopes);
                self.check_assignment(q, worker, site, &envelopes);
                let before = self.books.queues[q].sessions_taken.len();
                let ahead = self.books.assigned(q, worker, (site, source), &envelopes);
                if self.books.queues[q].sessions_taken.len() > before {
                    self.open(q, (site, source));
                }
                self.hand_out(q, worker, (site, source), &envelopes);
                self.books.queues[q].served.push(destination);
                self.tally.ahead += u64::from(ahead);
                let job = Job {
                    destination,
                    site,
                    serial,
                    source,
                    envelopes,
                };
                self.hand_to(q, worker, Item::Job(job));
            }
            Action::Recall { worker } => self.recall(q, worker),
            Action::GiveBack { worker, serial } => self.mark(q, worker, serial),
            Action::Answer(answer) => self.note_answer(q, &answer),
            Action::Retire { worker } => {
                self.books.retired(q, worker);
                self.hand_to(q, worker, Item::Retire);
            }
            Action::Forward {
                queue,
                destination,
                envelopes,
                delayed,
                route,
                takes_over,
            } => {
                self.tally.forwarded += 1;
                self.tally.moved_delayed += delayed.len() as u64;
                self.books.transit(q, queue.index(), &envelopes);
                let later: Vec<_> = delayed.iter().map(|(e, _)| *e).collect();
                self.books.transit(q, queue.index(), &later);
                self.send(
                    queue.index(),
                    Event::Forwarded {
                        destination,
                        envelopes,
                        delayed,
                        route,
                        takes_over,
                    },
                );
            }
            Action::Promote { queue, site, .. } => self.promote(queue, site),
            Action::Pass { queue, step } => self.pass(q, queue, step),
            Action::Refuse { envelopes, .. } => {
                self.tally.refused += envelopes.len() as u64;
                self.books.finally(q, &envelopes);
            }
            Action::Leave {
                destination,
                envelopes,
                status,
                ..
            } => {
                self.check_left(q, destination, status);
                self.leave(q, &envelopes, status);
            }
            Action::SiteStopped { site, .. } => self.site_stopped(q, site),
        }
    }

    fn leave(&mut self, q: usize, envelopes: &[Envelope], status: Status) {
        let count = envelopes.len() as u64;
        assert!(count > 0, "an empty action");
        self.tally.left += count;
        match status {
            Status::Expired => self.tally.expired += count,
            Status::Held => self.tally.held += count,
            Status::InDoubt => assert!(envelopes.iter().all(|e| e.passage.in_doubt)),
            Status::Queued | Status::Deferred => {
                assert!(envelopes.iter().all(|e| !e.passage.in_doubt));
            }
            status => panic!("nobody is left {status:?}"),
        }
        self.books.finally(q, envelopes);
    }

    fn resolve(&mut self, q: usize, id: DestinationId) {
        let (origin, is_fallback) = origin_of(id);
        let destination = self.scenario.destinations[origin.index()].clone();
        let later = self.now + Duration::from_millis(self.rng.u64(0..300));
        let resolution = match destination.naming {
            Naming::Refused => {
                Resolution::Refused(verdict(Status::Refused, Scope::Domain, Stage::Dns))
            }
            Naming::Site { site, failures } => {
                let own = self.scenario.site_of(id).unwrap_or(site);
                let made = self.look_ups.entry(id.0).or_default();
                *made += 1;
                if *made <= failures {
                    Resolution::Failed(verdict(Status::Deferred, Scope::Domain, Stage::Dns))
                } else {
                    let moved = self.scenario.moved_to(id, *made - failures);
                    self.tally.rehosted += u64::from(moved.is_some());
                    let site = moved.unwrap_or(own);
                    Resolution::Known {
                        route: Route {
                            site: SiteId(site),
                            plan: site,
                            expires: later + Duration::from_secs(destination.life),
                        },
                        queue: destination.moves_to.filter(|_| !is_fallback).map(QueueId),
                    }
                }
            }
        };
        let event = Event::Resolved {
            destination: id,
            resolution,
        };
        self.queues[q].in_inbox += 1;
        // The resolver is no inbox: its answers may overtake each other.
        self.at(later, Happening::Receive(q, event));
    }

    pub fn steps(&self) -> u64 {
        let steps = |queue: &Queue| queue.dispatcher.snapshot().steps;
        self.queues.iter().map(steps).sum()
    }
}
