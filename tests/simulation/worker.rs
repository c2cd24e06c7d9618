//! Fake workers: they take assignments from a channel, open sessions, and meet whatever their site's manner is.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use mailer::mail::{DestinationId, Envelope, Scope, SiteId, SourceNo, Stage, Status, WorkerId};
use mailer::queue::{Event, Outcome, SenderReplies};
use mailer::retry::{Class, Deferral};

use crate::scenario::Manner;
use crate::sender::Said;
use crate::world::{Happening, World, verdict};

/// What lies in a worker's channel.
pub enum Item {
    Job(Job),
    Retire,
}

/// One assignment.
#[derive(Clone)]
pub struct Job {
    pub destination: DestinationId,
    pub site: SiteId,
    pub serial: u64,
    pub source: SourceNo,
    pub envelopes: Vec<Envelope>,
}

pub struct FakeWorker {
    channel: VecDeque<Item>,
    session: Option<SiteId>,
    /// The source address of that session.
    source: SourceNo,
    /// Messages accepted on the session.
    accepted: u32,
    /// Runs up to this number are to be given back.
    mark: u64,
    doing: Doing,
}

impl Default for FakeWorker {
    fn default() -> FakeWorker {
        FakeWorker {
            channel: VecDeque::new(),
            session: None,
            source: SourceNo(0),
            accepted: 0,
            mark: 0,
            doing: Doing::Nothing,
        }
    }
}

/// Where a worker is in its work.
#[derive(Default)]
enum Doing {
    /// It waits on its channel.
    #[default]
    Nothing,
    /// It will look into its channel.
    Waking,
    /// It connects.
    Connecting(Job, bool),
    /// It sends all bodies but the last.
    Sending(Job),
    /// It sends the last body.
    SendingLast(Job),
    /// It closes its session and ends.
    Ending,
    /// Its thread has ended; the queue does not know yet.
    Dead,
}

impl World {
    /// The queue puts something into the worker's channel.
    pub fn hand_to(&mut self, q: usize, id: WorkerId, item: Item) {
        let worker = self.worker(q, id);
        worker.channel.push_back(item);
        if matches!(worker.doing, Doing::Nothing) {
            worker.doing = Doing::Waking;
            self.step_in(q, id, 0, 1);
        }
    }

    /// The queue takes back what lies in the channel of a worker that works on something else.
    pub fn recall(&mut self, q: usize, id: WorkerId) {
        self.tally.recalled += 1;
        let worker = self.worker(q, id);
        let dead = matches!(worker.doing, Doing::Dead);
        let envelopes = match worker.channel.pop_back() {
            Some(Item::Job(job)) if !dead => job.envelopes,
            Some(other) => {
                worker.channel.push_back(other);
                Vec::new()
            }
            None => Vec::new(),
        };
        self.books.worker_returns(q, id, &envelopes);
        self.send(
            q,
            Event::Recalled {
                worker: id,
                envelopes,
            },
        );
    }

    /// The worker is told to give back what it has not begun of a run.
    pub fn mark(&mut self, q: usize, id: WorkerId, serial: u64) {
        self.worker(q, id).mark = serial;
    }

    fn worker(&mut self, q: usize, id: WorkerId) -> &mut FakeWorker {
        let worker = self.queues[q].workers.get_mut(&id);
        worker.unwrap_or_else(|| panic!("{id:?} has no thread"))
    }

    fn step_in(&mut self, q: usize, id: WorkerId, from_ms: u64, to_ms: u64) {
        let at = self.now + Duration::from_millis(self.rng.u64(from_ms..=to_ms));
        self.at(at, Happening::Step(q, id));
    }

    fn manner(&self, site: SiteId) -> Manner {
        self.scenario.manners[site.index()]
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    /// The worker goes on.
    pub fn step(&mut self, q: usize, id: WorkerId) {
        match std::mem::take(&mut self.worker(q, id).doing) {
            Doing::Nothing | Doing::Waking => self.look_into_channel(q, id),
            Doing::Connecting(job, true) => self.connected(q, id, job),
            Doing::Connecting(job, false) => self.host_failed(q, id, job, Stage::Connect),
            Doing::Sending(job) => {
                self.send(
                    q,
                    Event::Ready {
                        worker: id,
                        ahead: true,
                    },
                );
                self.worker(q, id).doing = Doing::SendingLast(job);
                self.step_in(q, id, 1, 80);
            }
            Doing::SendingLast(job) => self.finish(q, id, job),
            Doing::Ending => self.end(q, id),
            Doing::Dead => unreachable!("the dead take no steps"),
        }
    }

    fn look_into_channel(&mut self, q: usize, id: WorkerId) {
        match self.worker(q, id).channel.pop_front() {
            None => {}
            Some(Item::Retire) => {
                self.worker(q, id).doing = Doing::Ending;
                self.step_in(q, id, 0, 30);
            }
            Some(Item::Job(job)) => self.begin(q, id, job),
        }
    }

    fn begin(&mut self, q: usize, id: WorkerId, job: Job) {
        if self.stop_sent || self.worker(q, id).mark >= job.serial {
            let envelopes = job.envelopes.clone();
            let outcome = Outcome {
                returned: envelopes,
                session: None,
                ..Outcome::default()
            };
            return self.report(q, id, job, outcome, Vec::new());
        }
        if self.rng.u32(0..1000) < self.scenario.deaths {
            return self.die(q, id, job);
        }
        let fits = self.worker(q, id).session == Some(job.site) && self.rng.u8(0..16) > 0;
        if fits {
            let source = self.worker(q, id).source;
            assert_eq!(source, job.source, "an open session cannot change it");
            self.worker(q, id).doing = Doing::Sending(job);
            return self.step_in(q, id, 0, 40);
        }
        if self.worker(q, id).session == Some(job.site) {
            // It is too old, or is no session for this mail: the queue has to hear of it.
            let site = job.site;
            self.close_session(q, id, false);
            self.send(q, Event::Closed { worker: id, site });
        }
        self.close_session(q, id, true);
        self.books.log.connects += 1;
        let (works, from, to) = match self.manner(job.site) {
            Manner::Silent => (false, 30_000, 300_000),
            Manner::DownUntil(secs) => {
                let up = self.now >= self.start + Duration::from_secs(secs);
                (up, 1, 2000)
            }
            Manner::Flaky(percent) => (!self.chance(percent), 1, 2000),
            _ => (true, 1, 100),
        };
        self.worker(q, id).doing = Doing::Connecting(job, works);
        self.step_in(q, id, from, to);
    }

    fn connected(&mut self, q: usize, id: WorkerId, job: Job) {
        if let Manner::LimitsSessions(most) = self.manner(job.site)
            && self.open_sessions[job.site.index()] >= most
        {
            return self.host_failed(q, id, job, Stage::Greeting);
        }
        self.open_sessions[job.site.index()] += 1;
        let setup = Duration::from_millis(self.rng.u64(1..100));
        self.send(q, Event::Opened { worker: id, setup });
        let worker = self.worker(q, id);
        worker.session = Some(job.site);
        worker.source = job.source;
        worker.accepted = 0;
        worker.doing = Doing::Sending(job);
        self.step_in(q, id, 1, 60);
    }

    fn close_session(&mut self, q: usize, id: WorkerId, says_so: bool) {
        if let Some(site) = self.worker(q, id).session.take() {
            self.open_sessions[site.index()] -= 1;
            // A worker that reports right afterwards need not say it twice.
            if says_so && self.rng.u8(0..4) > 0 {
                self.send(q, Event::Closed { worker: id, site });
            }
        }
    }

    fn host_failed(&mut self, q: usize, id: WorkerId, job: Job, stage: Stage) {
        let first = job.envelopes[0].message;
        let tried = |e: &&Envelope| e.message == first;
        let count = job.envelopes.iter().take_while(tried).count();
        let (tried, returned) = job.envelopes.split_at(count);
        let host = |e: &Envelope| (*e, Deferral::new(Class::Host));
        let outcome = Outcome {
            deferred: tried.iter().map(host).collect(),
            returned: returned.to_vec(),
            host_failed: Some(verdict(Status::Deferred, Scope::Host, stage)),
            ..Outcome::default()
        };
        self.close_session(q, id, false);
        self.report(q, id, job, outcome, Vec::new());
    }

    /// The run ends: each message of it meets the site's manner.
    fn finish(&mut self, q: usize, id: WorkerId, job: Job) {
        let manner = self.manner(job.site);
        let (mut deferred, mut returned) = (Vec::new(), Vec::new());
        let (mut failed, mut too_fast) = (false, false);
        let (mut sender, mut said) = (SenderReplies::default(), Vec::new());
        let groups = job.envelopes.chunk_by(|a, b| a.message == b.message);
        // The first message may have been under way by then.
        let marked = self.worker(q, id).mark >= job.serial;
        let mut under_way = marked && self.rng.bool();
        for group in groups {
            if marked && !std::mem::take(&mut under_way) {
                returned.extend_from_slice(group);
                continue;
            }
            // Who goes on after a complaint is the queue's decision.
            let turned_back = too_fast || sender.ends_refused();
            if failed || turned_back || self.worker(q, id).session.is_none() {
                returned.extend_from_slice(group);
                continue;
            }
            if let Manner::RefusesSender(percent) = manner
                && self.chance(percent)
            {
                let (word, defers) = self.complain(group, &mut sender);
                said.push(word);
                let deferral = Deferral::new(Class::Message);
                deferred.extend(group.iter().filter(|_| defers).map(|e| (*e, deferral)));
                continue;
            }
            let class = self.meet(q, id, manner, group);
            match class {
                None => {
                    sender.accept(group[0].message);
                    said.push(Said::Accepted);
                    self.worker(q, id).accepted += 1;
                }
                Some(Class::Host | Class::InDoubt) => {
                    failed = true;
                    self.close_session(q, id, false);
                }
                Some(Class::Session) => self.close_session(q, id, false),
                Some(class) => too_fast = class == Class::Rate,
            }
            if let Some(class) = class {
                let hint =
                    (self.rng.u8(0..4) == 0).then(|| Duration::from_secs(self.rng.u64(0..99)));
                let deferral = Deferral {
                    class,
                    not_before: hint,
                };
                deferred.extend(group.iter().map(|e| (*e, deferral)));
            }
        }
        // Now and then a session ends politely with the run.
        if self.rng.u8(0..20) == 0 {
            self.close_session(q, id, false);
        }
        let host = verdict(Status::Deferred, Scope::Host, Stage::Connect);
        let outcome = Outcome {
            deferred,
            returned,
            host_failed: failed.then_some(host),
            sender,
            ..Outcome::default()
        };
        self.report(q, id, job, outcome, said);
    }

    /// What becomes of one message: `None` if it is taken.
    fn meet(
        &mut self,
        q: usize,
        id: WorkerId,
        manner: Manner,
        group: &[Envelope],
    ) -> Option<Class> {
        let first = group[0].recipient.index();
        self.attempts[first] = self.attempts[first].saturating_add(1);
        match manner {
            Manner::Flaky(percent) if self.chance(percent / 2) => Some(Class::Host),
            Manner::Greylist if self.attempts[first] <= 1 + (first % 2) as u8 => {
                Some(Class::Recipient)
            }
            Manner::DropsAfterDot(percent) if self.chance(percent) => Some(Class::InDoubt),
            Manner::RateLimits(percent) if self.chance(percent) => Some(if self.rng.bool() {
                Class::Rate
            } else {
                Class::Message
            }),
            Manner::EndsSessionAfter(most) if self.worker(q, id).accepted >= most => {
                Some(Class::Session)
            }
            _ => None,
        }
    }

    fn report(&mut self, q: usize, id: WorkerId, job: Job, mut outcome: Outcome, said: Vec<Said>) {
        let deferred = &outcome.deferred;
        let back: Vec<_> = deferred
            .iter()
            .map(|(envelope, _)| *envelope)
            .chain(outcome.returned.iter().copied())
            .collect();
        let settled = job.envelopes.len() - back.len();
        let kept: HashSet<_> = back.iter().map(|e| e.recipient).collect();
        let gone = job
            .envelopes
            .iter()
            .filter(|e| !kept.contains(&e.recipient));
        let accepted: HashSet<_> = gone.map(|e| e.message).collect();
        outcome.accepted = accepted.len() as u32;
        let failed = outcome.host_failed.as_ref();
        let in_session = failed.is_some_and(|why| why.stage >= Stage::Mail);
        let was_tried = |(_, why): &&(Envelope, Deferral)| match why.class {
            Class::Host => in_session,
            _ => true,
        };
        let tried: HashSet<_> = deferred
            .iter()
            .filter(was_tried)
            .map(|(e, _)| e.message)
            .collect();
        outcome.tried = outcome.accepted + tried.difference(&accepted).count() as u32;
        outcome.spent = Duration::from_millis(self.rng.u64(1..100)) * outcome.tried;
        self.tally.delivered += settled as u64;
        self.tally.retried += deferred.len() as u64;
        self.books.worker_returns(q, id, &back);
        self.books.worker_settles(q, id, &job.envelopes);
        let counts = |(_, why): &&(Envelope, Deferral)| why.class != Class::Session;
        let tried: Vec<_> = deferred.iter().filter(counts).map(|(e, _)| *e).collect();
        self.books.tried(q, id, &tried);
        self.books.words.say((q, id), said);
        outcome.settled = settled as u32;
        outcome.session = self.worker(q, id).session;
        self.send(
            q,
            Event::Finished {
                worker: id,
                outcome,
            },
        );
        let worker = self.worker(q, id);
        if worker.channel.is_empty() {
            worker.doing = Doing::Nothing;
            self.maybe_lose_session(q, id);
        } else {
            worker.doing = Doing::Waking;
            self.step_in(q, id, 0, 1);
        }
    }

    /// Sometimes the peer closes a session that waits.
    fn maybe_lose_session(&mut self, q: usize, id: WorkerId) {
        if self.rng.u8(0..30) == 0
            && let Some(site) = self.worker(q, id).session.take()
        {
            self.open_sessions[site.index()] -= 1;
            self.send(q, Event::Closed { worker: id, site });
        }
    }

    /// The thread dies before it has touched its work.
    fn die(&mut self, q: usize, id: WorkerId, job: Job) {
        self.tally.deaths += 1;
        self.books.worker_returns(q, id, &job.envelopes);
        self.close_session(q, id, false);
        self.worker(q, id).doing = Doing::Dead;
        let returned = vec![(job.destination, job.envelopes)];
        self.send(
            q,
            Event::Gone {
                worker: id,
                returned,
            },
        );
    }

    /// The queue learns that a thread has ended: what lies in its channel was given to nobody.
    pub fn bury(
        &mut self,
        q: usize,
        id: WorkerId,
        returned: &mut Vec<(DestinationId, Vec<Envelope>)>,
    ) {
        let worker = self.queues[q].workers.remove(&id);
        for item in worker.expect("it dies once").channel {
            if let Item::Job(job) = item {
                self.books.worker_returns(q, id, &job.envelopes);
                returned.push((job.destination, job.envelopes));
            }
        }
        if self.is_small() {
            self.books.ended(q, id);
        }
    }

    fn end(&mut self, q: usize, id: WorkerId) {
        assert!(
            self.worker(q, id).channel.is_empty(),
            "work was given to a worker that was told to end"
        );
        self.close_session(q, id, true);
        self.worker(q, id).doing = Doing::Dead;
        self.send(
            q,
            Event::Gone {
                worker: id,
                returned: Vec::new(),
            },
        );
    }
}
