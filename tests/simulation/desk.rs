//! A queue played by hand: a dispatcher with its permits, told one event after the other.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use mailer::mail::{
    DestinationId, Envelope, MessageNo, QueueId, RecipientNo, Scope, SiteId, Stage, Status,
    WorkerId,
};
use mailer::queue::{
    Action, Dispatcher, DispatcherConfig, Event, GateView, Outcome, PermitTable, Resolution, Route,
};
use mailer::retry::{Class, Deferral};

use crate::world::verdict;

/// A queue with its permits; destination n is served by site n / 10.
pub struct Desk {
    pub dispatcher: Dispatcher<()>,
    pub permits: RefCell<PermitTable>,
    pub now: Instant,
    pub next: u32,
}

/// An assignment.
#[derive(Clone, PartialEq, Debug)]
pub struct Given {
    pub worker: u32,
    pub destination: u32,
    pub envelopes: Vec<Envelope>,
}

impl Desk {
    pub fn new(workers: u32, window: u32) -> Desk {
        Desk::with(DispatcherConfig::new(QueueId(0), workers), window)
    }

    pub fn with(config: DispatcherConfig, window: u32) -> Desk {
        Desk {
            dispatcher: Dispatcher::new(config, 1),
            permits: RefCell::new(PermitTable::new(1000, window)),
            now: Instant::now(),
            next: 0,
        }
    }

    /// Tells the dispatcher; look-ups are answered at once, and who is retired is gone at once.
    pub fn tell(&mut self, event: Event<()>) -> Vec<Action<()>> {
        let mut actions = Vec::new();
        self.dispatcher
            .on(event, self.now, &self.permits, &mut actions);
        let resolve = |action: &Action<()>| match action {
            Action::Resolve { destination } => Some(*destination),
            _ => None,
        };
        for destination in actions.iter().filter_map(resolve).collect::<Vec<_>>() {
            let route = Route {
                site: SiteId(destination.0 / 10),
                plan: (),
                expires: self.now + Duration::from_secs(1_000_000),
            };
            let resolution = Resolution::Known { route, queue: None };
            actions.extend(self.tell(Event::Resolved {
                destination,
                resolution,
            }));
        }
        let retired = |action: &Action<()>| match action {
            Action::Retire { worker } => Some(*worker),
            _ => None,
        };
        for worker in actions.iter().filter_map(retired).collect::<Vec<_>>() {
            let returned = Vec::new();
            actions.extend(self.tell(Event::Gone { worker, returned }));
        }
        actions
    }

    pub fn post(&mut self, destination: u32, count: u32) -> Vec<Action<()>> {
        let envelopes = (self.next..self.next + count)
            .map(|n| Envelope::new(MessageNo(n), RecipientNo(n)))
            .collect();
        self.next += count;
        self.tell(Event::Post {
            destination: DestinationId(destination),
            envelopes,
        })
    }

    pub fn finish(&mut self, given: &Given, outcome: Outcome) -> Vec<Action<()>> {
        self.tell(Event::Finished {
            worker: WorkerId(given.worker),
            outcome,
        })
    }

    /// The run is delivered and the session stays open.
    pub fn deliver(&mut self, given: &Given) -> Vec<Action<()>> {
        let outcome = Outcome {
            settled: given.envelopes.len() as u32,
            accepted: given.envelopes.len() as u32,
            session: Some(SiteId(given.destination / 10)),
            ..Outcome::default()
        };
        self.finish(given, outcome)
    }

    /// The worker's session is open.
    pub fn opened(&mut self, worker: u32) -> Vec<Action<()>> {
        self.tell(Event::Opened {
            worker: WorkerId(worker),
            setup: MS,
        })
    }

    /// No session can be opened.
    pub fn fail_host(&mut self, given: &Given) -> Vec<Action<()>> {
        self.fail_host_at(given, Stage::Connect)
    }

    /// The connection breaks in the middle of the session.
    pub fn lose_session(&mut self, given: &Given) -> Vec<Action<()>> {
        self.opened(given.worker);
        self.fail_host_at(given, Stage::Mail)
    }

    /// The session fails at a stage.
    pub fn fail_host_at(&mut self, given: &Given, stage: Stage) -> Vec<Action<()>> {
        let deferred = given.envelopes[..1]
            .iter()
            .map(|e| (*e, Deferral::new(Class::Host)));
        let outcome = Outcome {
            deferred: deferred.collect(),
            returned: given.envelopes[1..].to_vec(),
            host_failed: Some(verdict(Status::Deferred, Scope::Host, stage)),
            ..Outcome::default()
        };
        self.finish(given, outcome)
    }

    pub fn ready_ahead(&mut self, worker: u32) -> Vec<Action<()>> {
        self.tell(Event::Ready {
            worker: WorkerId(worker),
            ahead: true,
        })
    }

    pub fn wait(&mut self, duration: Duration) -> Vec<Action<()>> {
        self.now += duration;
        self.tell(Event::Wake)
    }

    pub fn gate(&self, site: u32) -> GateView {
        self.dispatcher.site(SiteId(site)).unwrap().gate
    }
}

pub fn given(actions: &[Action<()>]) -> Vec<Given> {
    let given = actions.iter().filter_map(|action| match action {
        Action::Assign {
            worker,
            destination,
            envelopes,
            ..
        } => Some(Given {
            worker: worker.0,
            destination: destination.0,
            envelopes: envelopes.clone(),
        }),
        _ => None,
    });
    given.collect()
}

pub fn one(actions: &[Action<()>]) -> Given {
    let given = given(actions);
    assert_eq!(given.len(), 1, "{actions:?}");
    given[0].clone()
}

pub fn spawned(actions: &[Action<()>]) -> usize {
    let spawn = |action: &&Action<()>| matches!(action, Action::Spawn { .. });
    actions.iter().filter(spawn).count()
}

pub fn left(actions: &[Action<()>]) -> Vec<(usize, Status)> {
    let left = actions.iter().filter_map(|action| match action {
        Action::Leave {
            envelopes, status, ..
        } => Some((envelopes.len(), *status)),
        _ => None,
    });
    left.collect()
}

pub const MS: Duration = Duration::from_millis(1);
