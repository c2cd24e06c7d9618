//! Receivers that enforce limits, met by real dispatchers: one queue, or two that share the site, and workers message by message.
//!
//! What `found` shows of the controllers alone, this shows of the whole: runs, slots taken ahead, timers, notices, retries,
//! a backlog that two queues hold for one site. Nothing but the site is small: a world of its own, without the books
//! of `world`, so that twenty minutes of mail take moments.
//!
//! `SEEDS=200` tries more seeds, `SEED=7` one, `CASE=clock` one kind of receiver; `--nocapture` shows the table, `TRACE=1` every
//! answer but acceptance.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use mailer::mail::{
    DestinationId, Envelope, MessageNo, QueueId, RecipientNo, Scope, SiteId, SourceNo, Stage,
    Status, WorkerId,
};
use mailer::queue::{
    Action, Dispatcher, DispatcherConfig, Event, News, Outcome, PermitTable, Resolution, Route,
    SiteStatus, SiteTerms,
};
use mailer::retry::{Class, Deferral};

use crate::closed_loop::Times;
use crate::receiver::{Answer, Limits, MINUTE, Receiver};
use crate::world::verdict;

/// The run, and the part of it that is measured.
pub const FROM: u64 = 2 * MINUTE;
pub const END: u64 = 20 * MINUTE;
/// So much mail waits at each queue at least: more than all of its sessions could want.
const BACKLOG: usize = 2_000;
const SITE: SiteId = SiteId(0);

/// What a worker does next.
#[derive(Debug)]
enum Step {
    /// It looks into its channel.
    Look,
    /// Its connection reaches the receiver.
    Connects,
    /// Its session was greeted, or not.
    Greeted(bool),
    /// Its transaction reaches the receiver.
    Mail,
    /// Its transaction was answered.
    Answered(Answer),
}

enum Happening {
    Receive(usize, Event<()>),
    Wake(usize),
    Step(usize, WorkerId, Step),
    /// A QUIT reaches the receiver.
    Quits,
}

enum Item {
    Job(Job),
    Retire,
}

struct Job {
    source: SourceNo,
    messages_max: Option<u32>,
    waiting: VecDeque<Envelope>,
    deferred: Vec<(Envelope, Deferral)>,
    accepted: u32,
    tried: u32,
    /// When its first transaction began.
    began: Option<u64>,
    host_failed: bool,
}

/// A session of a worker.
#[derive(Clone, Copy)]
struct Session {
    source: SourceNo,
    begun: u32,
    accepted: u32,
}

#[derive(Default)]
struct Worker {
    channel: VecDeque<Item>,
    session: Option<Session>,
    job: Option<Job>,
    connecting_since: u64,
    /// How the latest session ended: by the server, by us.
    ended: (Option<u32>, Option<u32>),
    is_awake: bool,
}

struct Queue {
    dispatcher: Dispatcher<()>,
    workers: HashMap<WorkerId, Worker>,
    inbox_until: u64,
    woken_for: Option<u64>,
}

/// What happened in the part that is measured.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub accepted: u64,
    pub turned_away: u64,
    pub attempts: u64,
}

/// One receiver, the queues that have mail for it, and their workers.
pub struct Enforced {
    base: Instant,
    now: u64,
    agenda: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    rng: fastrand::Rng,
    times: Times,
    pub receiver: Receiver,
    pub permits: RefCell<PermitTable>,
    queues: Vec<Queue>,
    recipients: u32,
    pub from: u64,
    pub tally: Tally,
    /// Accepted in each minute.
    pub by_minute: Vec<u32>,
    trace: bool,
}

impl Enforced {
    pub fn new(limits: Limits, times: Times, queues: usize, seed: u64) -> Enforced {
        let mut table = PermitTable::with_terms(128, SiteTerms::default(), 1);
        let queue = |number: usize| {
            let id = QueueId(number as u16);
            table.open(id);
            let config = DispatcherConfig {
                session_backlog: 8,
                ..DispatcherConfig::new(id, 60)
            };
            Queue {
                dispatcher: Dispatcher::new(config, seed ^ number as u64),
                workers: HashMap::new(),
                inbox_until: 0,
                woken_for: None,
            }
        };
        let queues: Vec<Queue> = (0..queues).map(queue).collect();
        let mut world = Enforced {
            base: Instant::now(),
            now: 0,
            agenda: BTreeMap::new(),
            sequence: 0,
            rng: fastrand::Rng::with_seed(seed ^ 0xe4f0),
            times,
            receiver: Receiver::new(limits),
            permits: RefCell::new(table),
            queues,
            recipients: 0,
            from: FROM,
            tally: Tally::default(),
            by_minute: Vec::new(),
            trace: std::env::var("TRACE").is_ok(),
        };
        for q in 0..world.queues.len() {
            world.post(q);
        }
        world
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), happening);
    }

    /// An inbox is first in, first out, and takes up to a millisecond.
    fn send(&mut self, q: usize, event: Event<()>) {
        let at = self.now + self.rng.u64(20..1000);
        let queue = &mut self.queues[q];
        queue.inbox_until = queue.inbox_until.max(at);
        let at = queue.inbox_until;
        self.at(at, Happening::Receive(q, event));
    }

    fn about(&mut self, time: u64) -> u64 {
        time * self.rng.u64(80..=120) / 100
    }

    /// There is always mail.
    fn post(&mut self, q: usize) {
        let first = self.recipients;
        self.recipients += BACKLOG as u32;
        let envelope = |r| Envelope::new(MessageNo(r), RecipientNo(r));
        let envelopes = (first..self.recipients).map(envelope).collect();
        let destination = DestinationId(q as u32);
        self.send(
            q,
            Event::Post {
                destination,
                envelopes,
            },
        );
    }

    pub fn run(&mut self, until: u64) {
        while let Some(next) = self.agenda.first_entry()
            && next.key().0 <= until
        {
            let ((at, _), happening) = next.remove_entry();
            self.now = at;
            match happening {
                Happening::Receive(q, event) => self.receive(q, event),
                Happening::Wake(q) if self.queues[q].woken_for == Some(at) => {
                    self.queues[q].woken_for = None;
                    self.receive(q, Event::Wake);
                }
                Happening::Wake(_) => {}
                Happening::Step(q, worker, step) => self.step(q, worker, step),
                Happening::Quits => self.receiver.closed(),
            }
        }
        self.now = until;
    }

    fn receive(&mut self, q: usize, mut event: Event<()>) {
        if let Event::Gone { worker, returned } = &mut event {
            let worker = self.queues[q].workers.remove(worker).expect("it worked");
            for item in worker.channel {
                if let Item::Job(job) = item {
                    returned.push((DestinationId(q as u32), job.waiting.into()));
                }
            }
        }
        let (now, mut actions) = (self.instant(), Vec::new());
        let queue = &mut self.queues[q];
        queue.dispatcher.on(event, now, &self.permits, &mut actions);
        for action in actions {
            self.carry_out(q, action);
        }
        let notices = self.permits.borrow_mut().take_notices();
        for notice in notices {
            let permit = notice.permit;
            let event = match notice.news {
                News::Free => Event::PermitFree { permit },
                News::Wanted => Event::PermitWanted { permit },
            };
            self.send(notice.queue.index(), event);
        }
        self.wake_later(q);
    }

    fn wake_later(&mut self, q: usize) {
        let Some(at) = self.queues[q].dispatcher.wake_at() else {
            return;
        };
        let wait = at.saturating_duration_since(self.base).as_nanos();
        let at = (wait.div_ceil(1000) as u64).max(self.now) + 50;
        if self.queues[q].woken_for.is_none_or(|earlier| at < earlier) {
            self.queues[q].woken_for = Some(at);
            self.at(at, Happening::Wake(q));
        }
    }

    fn carry_out(&mut self, q: usize, action: Action<()>) {
        match action {
            Action::Resolve { destination } => {
                let route = Route {
                    site: SITE,
                    plan: (),
                    expires: self.base + Duration::from_secs(86_400),
                };
                let resolution = Resolution::Known { route, queue: None };
                self.send(
                    q,
                    Event::Resolved {
                        destination,
                        resolution,
                    },
                );
            }
            Action::Spawn { worker } => {
                self.queues[q].workers.insert(worker, Worker::default());
            }
            Action::Assign {
                worker,
                source,
                messages_per_session,
                envelopes,
                ..
            } => {
                let job = Job {
                    source,
                    messages_max: messages_per_session,
                    waiting: envelopes.into(),
                    deferred: Vec::new(),
                    accepted: 0,
                    tried: 0,
                    began: None,
                    host_failed: false,
                };
                self.hand_to(q, worker, Item::Job(job));
            }
            Action::Recall { worker: id } => {
                let worker = self.worker(q, id);
                let mut envelopes = Vec::new();
                if matches!(worker.channel.back(), Some(Item::Job(_)))
                    && let Some(Item::Job(job)) = worker.channel.pop_back()
                {
                    envelopes = job.waiting.into();
                }
                self.send(
                    q,
                    Event::Recalled {
                        worker: id,
                        envelopes,
                    },
                );
            }
            Action::Retire { worker } => self.hand_to(q, worker, Item::Retire),
            other => panic!("{other:?} has no place here"),
        }
    }

    fn worker(&mut self, q: usize, id: WorkerId) -> &mut Worker {
        self.queues[q].workers.get_mut(&id).expect("it works")
    }

    fn hand_to(&mut self, q: usize, id: WorkerId, item: Item) {
        let worker = self.worker(q, id);
        worker.channel.push_back(item);
        if worker.job.is_none() && !std::mem::replace(&mut worker.is_awake, true) {
            self.step_in(q, id, 30, Step::Look);
        }
    }

    fn step_in(&mut self, q: usize, id: WorkerId, wait: u64, step: Step) {
        self.at(self.now + wait, Happening::Step(q, id, step));
    }

    fn step(&mut self, q: usize, id: WorkerId, step: Step) {
        match step {
            Step::Look => self.look(q, id),
            Step::Connects => {
                let welcome = self.receiver.connect(self.now);
                let rest = self.about(self.times.setup / 2);
                self.step_in(q, id, rest, Step::Greeted(welcome));
            }
            Step::Greeted(welcome) => self.greeted(q, id, welcome),
            Step::Mail => {
                let worker = self.worker(q, id);
                let begun = worker.session.map_or(0, |session| session.begun);
                let job = worker.job.as_ref().expect("it has a run");
                let recipient = u64::from(job.waiting[0].recipient.0);
                let answer = self.receiver.message(begun - 1, recipient, self.now);
                let rest = self.about(self.times.message / 2);
                self.step_in(q, id, rest, Step::Answered(answer));
            }
            Step::Answered(answer) => self.answered(q, id, answer),
        }
    }

    fn look(&mut self, q: usize, id: WorkerId) {
        let worker = self.worker(q, id);
        worker.is_awake = false;
        match worker.channel.pop_front() {
            None => {}
            Some(Item::Job(job)) => {
                worker.job = Some(job);
                self.go_on(q, id);
            }
            Some(Item::Retire) => {
                self.close(q, id);
                let returned = Vec::new();
                self.send(
                    q,
                    Event::Gone {
                        worker: id,
                        returned,
                    },
                );
            }
        }
    }

    /// The next message of the run, on the session that there is or a new one; or the run is over.
    fn go_on(&mut self, q: usize, id: WorkerId) {
        let worker = self.worker(q, id);
        let job = worker.job.as_ref().expect("it has a run");
        let is_full =
            |session: &Session| job.messages_max.is_some_and(|most| session.begun >= most);
        let goes_on = !job.waiting.is_empty() && !job.host_failed && !job.is_rate_refused();
        match worker.session {
            Some(session) if is_full(&session) => {
                self.close(q, id);
                // As the engine: who begins a run opens a session for it, who is in the middle gives the rest back.
                let job = self.worker(q, id).job.as_ref().expect("it has a run");
                if goes_on && job.tried == 0 {
                    let site = SITE;
                    self.send(q, Event::Closed { worker: id, site });
                    self.connect(q, id);
                } else {
                    self.finish(q, id);
                }
            }
            _ if !goes_on => self.finish(q, id),
            Some(session) => {
                assert_eq!(session.source, job.source, "a session cannot change it");
                self.begin(q, id);
            }
            None if job.tried > 0 => self.finish(q, id),
            None => self.connect(q, id),
        }
    }

    fn connect(&mut self, q: usize, id: WorkerId) {
        self.worker(q, id).connecting_since = self.now;
        let half = self.about(self.times.setup / 2);
        self.step_in(q, id, half, Step::Connects);
    }

    fn greeted(&mut self, q: usize, id: WorkerId, welcome: bool) {
        let setup = Duration::from_micros(self.now - self.worker(q, id).connecting_since);
        let worker = self.worker(q, id);
        let job = worker.job.as_mut().expect("it has a run");
        if welcome {
            worker.session = Some(Session {
                source: job.source,
                begun: 0,
                accepted: 0,
            });
            self.send(q, Event::Opened { worker: id, setup });
            return self.begin(q, id);
        }
        let first = job.waiting.pop_front().expect("a run is not empty");
        job.deferred.push((first, Deferral::new(Class::Host)));
        job.host_failed = true;
        self.note(false, true);
        self.trace(q, "refused");
        self.finish(q, id);
    }

    fn begin(&mut self, q: usize, id: WorkerId) {
        let now = self.now;
        let worker = self.worker(q, id);
        if let Some(session) = &mut worker.session {
            session.begun += 1;
        }
        let job = worker.job.as_mut().expect("it has a run");
        job.began.get_or_insert(now);
        if job.waiting.len() == 1 {
            let ahead = true;
            self.send(q, Event::Ready { worker: id, ahead });
        }
        let half = self.about(self.times.message / 2);
        self.step_in(q, id, half, Step::Mail);
    }

    fn answered(&mut self, q: usize, id: WorkerId, answer: Answer) {
        let minute = (self.now / MINUTE) as usize;
        let accepted = answer == Answer::Accepted;
        self.note(
            accepted,
            matches!(answer, Answer::Goodbye | Answer::TooFast),
        );
        if !accepted {
            self.trace(q, &format!("{answer:?}"));
        }
        self.by_minute
            .resize(self.by_minute.len().max(minute + 1), 0);
        self.by_minute[minute] += u32::from(accepted);
        let worker = self.worker(q, id);
        let mut session = worker.session.expect("it was answered on one");
        let job = worker.job.as_mut().expect("it has a run");
        let envelope = job.waiting.pop_front().expect("it was sent");
        job.tried += 1;
        let class = match answer {
            Answer::Accepted => {
                job.accepted += 1;
                session.accepted += 1;
                None
            }
            Answer::TooFast => Some(Class::Rate),
            Answer::Greylisted => Some(Class::Recipient),
            Answer::Goodbye if session.accepted > 0 => Some(Class::Session),
            Answer::Goodbye => Some(Class::Host),
        };
        worker.session = Some(session).filter(|_| answer != Answer::Goodbye);
        if let Some(class) = class {
            job.deferred.push((envelope, Deferral::new(class)));
            job.host_failed |= class == Class::Host;
            if class == Class::Session {
                worker.ended = (Some(session.accepted), None);
            }
        }
        self.go_on(q, id);
    }

    /// Closes the session, if one is open.
    fn close(&mut self, q: usize, id: WorkerId) {
        let worker = self.worker(q, id);
        if let Some(session) = worker.session.take() {
            worker.ended = (None, Some(session.accepted));
            let half = self.about(self.times.message / 2);
            self.at(self.now + half, Happening::Quits);
        }
    }

    fn finish(&mut self, q: usize, id: WorkerId) {
        let now = self.now;
        let worker = self.worker(q, id);
        let job = worker.job.take().expect("it has a run");
        let (ended_after, carried) = std::mem::take(&mut worker.ended);
        let stage = if job.tried == 0 {
            Stage::Greeting
        } else {
            Stage::Mail
        };
        let outcome = Outcome {
            settled: job.accepted,
            accepted: job.accepted,
            tried: job.tried,
            spent: Duration::from_micros(job.began.map_or(0, |began| now - began)),
            deferred: job.deferred,
            returned: job.waiting.into(),
            host_failed: job
                .host_failed
                .then(|| verdict(Status::Deferred, Scope::Host, stage)),
            session: worker.session.map(|_| SITE),
            ended_after,
            carried,
            ..Outcome::default()
        };
        worker.is_awake = true;
        self.send(
            q,
            Event::Finished {
                worker: id,
                outcome,
            },
        );
        self.step_in(q, id, 0, Step::Look);
        if self.queues[q].dispatcher.snapshot().waiting < BACKLOG {
            self.post(q);
        }
    }

    fn note(&mut self, accepted: bool, turned_away: bool) {
        if self.now >= self.from {
            self.tally.attempts += 1;
            self.tally.accepted += u64::from(accepted);
            self.tally.turned_away += u64::from(turned_away);
        }
    }

    /// What the permit table knows of the site.
    pub fn status(&self) -> SiteStatus {
        self.permits.borrow().site_status(SITE)
    }

    fn trace(&self, q: usize, what: &str) {
        if self.trace {
            let status = self.status();
            println!("{:9.3} {q} {what} {status:?}", self.now as f64 / 1e6);
        }
    }
}

impl Job {
    /// The rest of the run would be refused as well.
    fn is_rate_refused(&self) -> bool {
        let last = self.deferred.last();
        last.is_some_and(|(_, deferral)| deferral.class == Class::Rate)
    }
}
