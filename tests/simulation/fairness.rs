//! How the general queue shares its workers among sites, in virtual time: one slow site, one large site, many silent ones.
//!
//! Sites are servers that take a fixed time for each message. Whoever connects to a silent one learns after ten seconds that
//! nobody answers.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use mailer::mail::{
    DestinationId, Envelope, MessageNo, QueueId, RecipientNo, Scope, SiteId, Stage, Status,
    WorkerId,
};
use mailer::queue::{
    Action, Dispatcher, DispatcherConfig, Event, News, Outcome, PermitTable, PromoteRules,
    Promotion, Resolution, Route, SiteTerms, Step,
};
use mailer::retry::{Class, Deferral};

use crate::world::verdict;

const SETUP: Duration = Duration::from_millis(20);
const SILENCE: Duration = Duration::from_secs(10);
const QUICK: Duration = Duration::from_millis(100);

/// A site: its messages, and how long each takes; `None`: it never answers.
type Plan = (u32, Option<Duration>);

/// A run in a worker's hands.
struct Job {
    destination: DestinationId,
    site: SiteId,
    envelopes: Vec<Envelope>,
}

#[derive(Default)]
struct Worker {
    session: Option<SiteId>,
    jobs: VecDeque<Job>,
}

enum Happening {
    Tell(Event<()>),
    /// The worker has finished its oldest run.
    Done(WorkerId),
}

/// The general queue and those for promoted sites, with servers that answer in virtual time.
struct Play {
    plans: Vec<Plan>,
    queues: Vec<Dispatcher<()>>,
    workers: Vec<HashMap<WorkerId, Worker>>,
    permits: RefCell<PermitTable>,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: HashMap<u64, (usize, Happening)>,
    sequence: u64,
    start: Instant,
    now: Instant,
    woken: BTreeSet<(Instant, usize)>,
    left: Vec<u32>,
    /// When the last message of each site was taken.
    ended: Vec<Instant>,
    /// The most workers that site 0 had while another site had none and mail to carry.
    most_at_others_cost: usize,
    promoted: usize,
}

impl Play {
    fn new(plans: &[Plan], workers: u32, slots: u16) -> Play {
        let start = Instant::now();
        let mut table = PermitTable::with_terms(workers, SiteTerms::default(), 1);
        table.open(QueueId(0));
        let config = |number: u16| DispatcherConfig {
            session_backlog: 8,
            promotion: match number {
                _ if slots == 0 => Promotion::Never,
                0 => Promotion::Watch(PromoteRules::new(QueueId(1), slots)),
                _ => Promotion::Promoted(Duration::from_secs(10)),
            },
            ..DispatcherConfig::new(QueueId(number), workers)
        };
        let mut play = Play {
            plans: plans.to_vec(),
            queues: (0..=slots).map(|q| Dispatcher::new(config(q), 1)).collect(),
            workers: (0..=slots).map(|_| HashMap::new()).collect(),
            permits: RefCell::new(table),
            agenda: BinaryHeap::new(),
            happenings: HashMap::new(),
            sequence: 0,
            start,
            now: start,
            woken: BTreeSet::new(),
            left: plans.iter().map(|(count, _)| *count).collect(),
            ended: vec![start; plans.len()],
            most_at_others_cost: 0,
            promoted: 0,
        };
        play.post();
        play
    }

    /// All mail is there from the start, that of the sites mixed as in a batch in random order.
    fn post(&mut self) {
        let mut order: Vec<u32> = (0u32..)
            .zip(&self.plans)
            .flat_map(|(site, (count, _))| vec![site; *count as usize])
            .collect();
        fastrand::Rng::with_seed(7).shuffle(&mut order);
        for (n, site) in (0..).zip(order) {
            let envelopes = vec![Envelope::new(MessageNo(n), RecipientNo(n))];
            let destination = DestinationId(site);
            let post = Event::Post {
                destination,
                envelopes,
            };
            self.tell_at(0, self.start, post);
        }
    }

    fn at(&mut self, q: usize, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.happenings.insert(self.sequence, (q, happening));
        self.agenda.push(Reverse((at, self.sequence)));
    }

    fn tell_at(&mut self, q: usize, at: Instant, event: Event<()>) {
        self.at(q, at, Happening::Tell(event));
    }

    /// Plays until all sites that answer have their mail.
    fn run(&mut self) {
        while let Some(Reverse((at, number))) = self.agenda.pop() {
            self.now = at;
            let (q, happening) = self.happenings.remove(&number).expect("happens once");
            match happening {
                Happening::Tell(Event::Wake) if !self.woken.remove(&(at, q)) => {}
                Happening::Tell(event) => self.tell(q, event),
                Happening::Done(worker) => self.done(q, worker),
            }
            let mut answering = self.left.iter().zip(&self.plans);
            if answering.all(|(left, (_, time))| *left == 0 || time.is_none()) {
                return;
            }
        }
        panic!("mail is left: {:?}", self.left);
    }

    fn tell(&mut self, q: usize, event: Event<()>) {
        let mut actions = Vec::new();
        self.queues[q].on(event, self.now, &self.permits, &mut actions);
        self.notify();
        for action in actions {
            self.carry_out(q, action);
        }
        let weight = self.queues[q].weight();
        let id = QueueId(q as u16);
        self.permits.borrow_mut().set_queue_weight(id, weight);
        self.notify();
        if let Some(at) = self.queues[q].wake_at().map(|at| at.max(self.now))
            && self.woken.insert((at, q))
        {
            self.tell_at(q, at, Event::Wake);
        }
        if self.plans.len() <= 10 {
            self.note_cost();
        }
    }

    fn notify(&mut self) {
        let notices = self.permits.borrow_mut().take_notices();
        for notice in notices {
            let permit = notice.permit;
            let event = match notice.news {
                News::Free => Event::PermitFree { permit },
                News::Wanted => Event::PermitWanted { permit },
            };
            self.tell_at(notice.queue.index(), self.now, event);
        }
    }

    fn note_cost(&mut self) {
        let mut others = BTreeMap::<SiteId, (usize, usize)>::new();
        for view in self.queues.iter().flat_map(|queue| queue.sites()) {
            let of_site = others.entry(view.site).or_default();
            of_site.0 += view.waiting;
            of_site.1 += view.workers;
        }
        let own = others.remove(&SiteId(0)).map_or(0, |(_, workers)| workers);
        if others
            .values()
            .any(|(waiting, workers)| *waiting > 0 && *workers == 0)
        {
            self.most_at_others_cost = self.most_at_others_cost.max(own);
        }
    }

    fn carry_out(&mut self, q: usize, action: Action<()>) {
        let now = self.now;
        match action {
            Action::Resolve { destination } => {
                let route = Route {
                    site: SiteId(destination.0),
                    plan: (),
                    expires: now + Duration::from_secs(1_000_000),
                };
                let resolution = Resolution::Known { route, queue: None };
                let event = Event::Resolved {
                    destination,
                    resolution,
                };
                self.tell_at(q, now, event);
            }
            Action::Spawn { worker } => drop(self.workers[q].insert(worker, Worker::default())),
            Action::Assign {
                worker,
                destination,
                site,
                envelopes,
                ..
            } => {
                let job = Job {
                    destination,
                    site,
                    envelopes,
                };
                let of_worker = self.workers[q].get_mut(&worker).expect("it was spawned");
                of_worker.jobs.push_back(job);
                if of_worker.jobs.len() == 1 {
                    self.begin(q, worker);
                }
            }
            Action::Recall { worker } => {
                let jobs = &mut self.workers[q].get_mut(&worker).expect("it is there").jobs;
                let job = (jobs.len() > 1).then(|| jobs.pop_back()).flatten();
                let envelopes = job.map_or(Vec::new(), |job| job.envelopes);
                self.tell_at(q, now, Event::Recalled { worker, envelopes });
            }
            Action::Retire { worker } => {
                self.workers[q].remove(&worker);
                let returned = Vec::new();
                self.tell_at(q, now, Event::Gone { worker, returned });
            }
            Action::Promote { queue, site, .. } => {
                self.promoted += 1;
                self.permits.borrow_mut().open(queue);
                let begun = Event::Promotion(Step::Begun { queue, site });
                self.tell(queue.index(), begun.clone());
                self.tell(0, begun);
            }
            Action::Forward {
                queue,
                destination,
                envelopes,
                delayed,
                route,
                takes_over,
            } => {
                let event = Event::Forwarded {
                    destination,
                    envelopes,
                    delayed,
                    route,
                    takes_over,
                };
                self.tell_at(queue.index(), now, event);
            }
            Action::Pass { queue, step } => {
                self.tell_at(queue.index(), now, Event::Promotion(step));
            }
            _ => {}
        }
    }

    /// The worker begins with its oldest run.
    fn begin(&mut self, q: usize, id: WorkerId) {
        let worker = self.workers[q].get_mut(&id).expect("it is there");
        let Some(job) = worker.jobs.front() else {
            return;
        };
        let (site, count) = (job.site, job.envelopes.len() as u32);
        let is_open = worker.session == Some(site);
        let Some(each) = self.plans[site.index()].1 else {
            return self.at(q, self.now + SILENCE, Happening::Done(id));
        };
        let mut at = self.now;
        if !is_open {
            worker.session = Some(site);
            at += SETUP;
            let opened = Event::Opened {
                worker: id,
                setup: SETUP,
            };
            self.tell_at(q, at, opened);
        }
        let ready = Event::Ready {
            worker: id,
            ahead: true,
        };
        self.tell_at(q, at + each * (count - 1), ready);
        self.at(q, at + each * count, Happening::Done(id));
    }

    fn done(&mut self, q: usize, id: WorkerId) {
        let worker = self.workers[q].get_mut(&id).expect("it is there");
        let job = worker.jobs.pop_front().expect("it had a run");
        let site = job.site.index();
        let count = job.envelopes.len() as u32;
        let mut outcome = Outcome::default();
        match self.plans[site].1 {
            Some(each) => {
                outcome.settled = count;
                (outcome.accepted, outcome.tried) = (count, count);
                outcome.spent = each * count;
                outcome.session = Some(job.site);
                self.left[site] -= count;
                self.ended[site] = self.now;
            }
            None => {
                worker.session = None;
                let (first, rest) = job.envelopes.split_at(1);
                outcome.deferred = vec![(first[0], Deferral::new(Class::Host))];
                outcome.returned = rest.to_vec();
                let failed = verdict(Status::Deferred, Scope::Host, Stage::Connect);
                outcome.host_failed = Some(failed);
            }
        }
        debug_assert_eq!(job.destination.0 as usize, site);
        let has_more = !worker.jobs.is_empty();
        let finished = Event::Finished {
            worker: id,
            outcome,
        };
        self.tell(q, finished);
        if has_more {
            self.begin(q, id);
        }
    }

    /// How long it took until the sites from number `from` on that answer had all their mail.
    fn completion(&self, from: usize) -> f64 {
        let last = self.ended[from..].iter().max().expect("there are sites");
        last.duration_since(self.start).as_secs_f64()
    }
}

fn play(plans: &[Plan], workers: u32, slots: u16) -> Play {
    let mut play = Play::new(plans, workers, slots);
    play.run();
    play
}

/// The time that sites 1.. need with site 0, and without it.
fn beside(first: Plan, others: &[Plan], workers: u32, slots: u16) -> (f64, f64, Play) {
    let alone = play(others, workers, slots).completion(0);
    let all: Vec<Plan> = [&[first], others].concat();
    let both = play(&all, workers, slots);
    (both.completion(1), alone, both)
}

#[test]
fn a_slow_site_has_one_worker_while_another_site_has_none() {
    let others = [(300, Some(QUICK)); 9];
    for slots in [0, 4] {
        let slow = (60, Some(Duration::from_secs(20)));
        let (with, without, play) = beside(slow, &others, 8, slots);
        println!("slow: {with:.1} s, {without:.1} s without it, {slots} queues");
        assert!(
            play.most_at_others_cost <= 1,
            "{}",
            play.most_at_others_cost
        );
        // Seven workers of eight are the others'.
        assert!(with < without * 8.0 / 7.0 * 1.05, "{with} and {without}");
    }
}

#[test]
fn a_large_site_takes_its_share_and_no_more() {
    let others = [(300, Some(QUICK)); 9];
    let large = (4050, Some(QUICK));
    for (workers, slots) in [(8, 0), (8, 1), (200, 0), (200, 32)] {
        let (with, without, play) = beside(large, &others, workers, slots);
        let promoted = play.promoted;
        println!(
            "large: {with:.2} s, {without:.2} s without it, {workers} workers, {promoted} promoted"
        );
        // With a worker for each session it costs the others nothing; else one share of ten, or, in a queue of its own, that of
        // its weight: about 64 of 64 + 9 * 17, and nobody has a part of a worker.
        let fair = match (workers, slots) {
            (200, _) => 1.0,
            (_, 0) => 10.0 / 9.0,
            _ => 1.55,
        };
        assert!(with < without * fair * 1.05, "{with} and {without}");

        assert_eq!(promoted > 0, slots > 0);
    }
}

#[test]
fn silent_sites_cost_one_worker_each_for_as_long_as_nobody_answers() {
    let good = vec![(100, Some(QUICK)); 900];
    let silent = vec![(100, None); 100];
    let without = play(&good, 256, 0).completion(0);
    let with = play(&[silent, good].concat(), 256, 0).completion(0);
    println!("silent: {with:.1} s, {without:.1} s without them");
    // Each holds a worker for ten seconds, and is tried again only after that mail: what they hold the others lack. It is a
    // tenth of this run, and would be more of a shorter one.
    let held = 100.0 * SILENCE.as_secs_f64() / 256.0;
    assert!(with < (without + held) * 1.03, "{with} and {without}");
}
