//! Sites that refuse us as the sender: what they have said, kept apart from the dispatchers, and when they must be stopped.
//! Then the rules one by one.

use std::collections::{HashMap, HashSet, VecDeque};

use mailer::mail::{DestinationId, Enhanced, Envelope, MessageNo, SiteId, Status, WorkerId};
use mailer::mail::{QueueId, Scope, Stage, Verdict};
use mailer::queue::{Action, DispatcherConfig, Event, GateView, Outcome, Place, SenderReplies};
use mailer::retry::{Class, Deferral};

use crate::desk::{Desk, Given, given, left, one};
use crate::world::World;

/// What a server said of us about one message.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    Accepted,
    /// It refuses or defers this message because of the sender; the flag: for a recipient not tried before.
    Complained(MessageNo, bool),
}

/// What sites have said to queues.
#[derive(Default)]
pub struct Words {
    /// What workers have heard and their queues not received yet: a list for each run.
    on_the_way: HashMap<(usize, WorkerId), VecDeque<Vec<Said>>>,
    latest: HashMap<(usize, SiteId), Word>,
}

/// What a site has said to a queue since it last accepted a message.
#[derive(Default, Debug)]
struct Word {
    messages: HashSet<MessageNo>,
    runs: u32,
    stopped: bool,
}

impl Words {
    /// A worker reports a run in which this was said.
    pub fn say(&mut self, from: (usize, WorkerId), said: Vec<Said>) {
        self.on_the_way.entry(from).or_default().push_back(said);
    }

    /// The queue receives the report.
    pub fn heard(&mut self, from: (usize, WorkerId), site: SiteId) {
        let reports = self.on_the_way.get_mut(&from);
        let said = reports.and_then(VecDeque::pop_front).expect("it was said");
        let word = self.latest.entry((from.0, site)).or_default();
        let mut is_new = false;
        for one in said {
            match one {
                Said::Accepted => {
                    word.messages.clear();
                    (word.runs, is_new) = (0, false);
                }
                Said::Complained(message, first_try) => {
                    word.messages.insert(message);
                    is_new |= first_try;
                }
            }
        }
        word.runs += u32::from(is_new);
    }

    fn is_stopped(&self, q: usize, site: SiteId) -> bool {
        let word = self.latest.get(&(q, site));
        word.is_some_and(|word| word.stopped)
    }
}

/// A server's complaint of our SPF.
fn complaint() -> Verdict {
    let enhanced = Some(Enhanced::new(5, 7, 23));
    let (status, scope, stage) = (Status::Refused, Scope::Message, Stage::Dot);
    Verdict::new(status, scope, stage, 550, enhanced, "SPF fails")
}

impl World {
    /// A message meets a complaint; now and then one of its recipients is accepted, and then there is none. The flag: it is
    /// deferred.
    pub fn complain(&mut self, group: &[Envelope], sender: &mut SenderReplies) -> (Said, bool) {
        let message = group[0].message;
        let is_new = |e: &Envelope| e.passage.attempts == 0 && e.passage.host_failures == 0;
        let is_new = group.iter().any(is_new);
        if group.len() > 1 && self.rng.u8(0..4) == 0 {
            sender.refuse(message, is_new, &complaint());
            sender.accept(message);
            sender.refuse(message, is_new, &complaint());
            return (Said::Accepted, false);
        }
        sender.refuse(message, is_new, &complaint());
        (Said::Complained(message, is_new), self.rng.bool())
    }

    /// A site is stopped once, for reasons that were heard, and not where it has accepted something in between.
    pub fn site_stopped(&mut self, q: usize, site: SiteId) {
        self.tally.sites_stopped += 1;
        let limit = self.scenario.sender_refusals;
        let word = self.books.words.latest.get_mut(&(q, site));
        let word = word.expect("it is stopped for what it said");
        let runs_of_one = word.messages.len() == 1 && word.runs >= limit;
        let enough = word.messages.len() >= limit as usize || runs_of_one;
        assert!(limit > 0 && enough, "{site:?} is stopped after {word:?}");
        assert!(!word.stopped, "{site:?} is stopped twice");
        word.stopped = true;
    }

    /// Nothing is sent to a stopped site.
    pub fn check_not_stopped(&self, q: usize, site: SiteId) {
        assert!(!self.books.words.is_stopped(q, site), "{site:?} is stopped");
    }

    /// What is left for a stopped site has a reason, tried or not.
    pub fn check_left(&self, q: usize, destination: DestinationId, status: Status) {
        let Some(site) = self.scenario.site_of(destination) else {
            return;
        };
        if self.books.queues[q].orders.drops(destination) {
            return; // it is the operator's reason
        }
        if self.books.words.is_stopped(q, SiteId(site)) && !self.queues[q].stopped {
            assert_ne!(status, Status::Queued, "left without a reason");
        }
    }

    /// Sites that have complained often enough are stopped, no others are, and none of their mail is kept.
    pub fn check_stops(&self, q: usize) {
        if self.queues[q].stopped || !self.is_small() {
            return;
        }
        let dispatcher = &self.queues[q].dispatcher;
        let limit = self.scenario.sender_refusals as usize;
        let mut any = false;
        for view in dispatcher.sites() {
            let word = self.books.words.latest.get(&(q, view.site));
            let stopped = word.is_some_and(|word| word.stopped);
            let enough = word.is_some_and(|word| limit > 0 && word.messages.len() >= limit);
            assert!(stopped || !enough, "{view:?} goes on after {word:?}");
            assert_eq!(view.gate == GateView::Stopped, stopped, "{view:?}");
            assert!(view.waiting == 0 || !stopped, "{view:?} keeps mail");
            any |= stopped;
        }
        let delayed = dispatcher
            .envelopes()
            .filter(|(place, ..)| any && *place == Place::Delayed);
        for (_, id, envelope) in delayed.filter(|(_, id, _)| dispatcher.knows(*id)) {
            if let Some(site) = self.scenario.site_of(id) {
                let stopped = self.books.words.is_stopped(q, SiteId(site));
                assert!(!stopped, "{envelope:?} is delayed for a stopped site");
            }
        }
    }
}

/// A desk with this many workers whose sites are stopped after three messages.
fn desk(workers: u32) -> Desk {
    let config = DispatcherConfig {
        sender_refusals: 3,
        ..DispatcherConfig::new(QueueId(0), workers)
    };
    Desk::with(config, 20)
}

/// The first message of the run is refused because of the sender, and the rest is given back.
fn refused(run: &Given) -> Outcome {
    let mut sender = SenderReplies::default();
    sender.refuse(run.envelopes[0].message, true, &complaint());
    Outcome {
        settled: 1,
        returned: run.envelopes[1..].to_vec(),
        session: Some(SiteId(run.destination / 10)),
        sender,
        ..Outcome::default()
    }
}

/// The run is delivered, and each message of it is an acceptance.
fn accepted(run: &Given) -> Outcome {
    let mut sender = SenderReplies::default();
    for envelope in &run.envelopes {
        sender.accept(envelope.message);
    }
    Outcome {
        settled: run.envelopes.len() as u32,
        session: Some(SiteId(run.destination / 10)),
        sender,
        ..Outcome::default()
    }
}

/// Site, envelopes left at once, and the code of the reason, of the sites that are stopped.
fn stopped(actions: &[Action<()>]) -> Vec<(SiteId, usize, u16)> {
    let stopped = actions.iter().filter_map(|action| match action {
        Action::SiteStopped {
            site,
            left,
            verdict,
            ..
        } => Some((*site, *left, verdict.code)),
        _ => None,
    });
    stopped.collect()
}

#[test]
fn a_site_that_refuses_three_messages_is_stopped_and_its_mail_left_with_the_reason() {
    let mut desk = desk(1);
    let first = one(&desk.post(10, 1));
    desk.post(10, 100);
    desk.post(11, 20);
    let second = one(&desk.finish(&first, refused(&first)));
    let third = one(&desk.finish(&second, refused(&second)));
    let actions = desk.finish(&third, refused(&third));
    assert_eq!(stopped(&actions), [(SiteId(1), 118, 550)]);
    assert_eq!(given(&actions), []);
    let all: usize = left(&actions).iter().map(|(count, _)| count).sum();
    assert_eq!(all, 118);
    for action in &actions {
        if let Action::Leave { why, status, .. } = action {
            assert_eq!(*status, Status::Deferred);
            assert_eq!(why.as_ref().map(|why| why.code), Some(550));
        }
    }
    assert_eq!(desk.gate(1), GateView::Stopped);
    let late = desk.post(12, 2);
    assert_eq!(
        (given(&late), left(&late)),
        (vec![], vec![(2, Status::Deferred)])
    );
    assert_eq!(desk.dispatcher.site(SiteId(1)).unwrap().left, 120);
    assert_eq!(given(&desk.post(20, 1)).len(), 1, "other sites go on");
}

#[test]
fn one_acceptance_starts_the_count_again() {
    let mut desk = desk(1);
    let mut run = one(&desk.post(10, 1));
    desk.post(10, 400);
    for round in 0..12 {
        let outcome = match round % 3 {
            2 => accepted(&run),
            _ => refused(&run),
        };
        let actions = desk.finish(&run, outcome);
        assert_eq!(stopped(&actions), []);
        run = one(&actions);
    }
}

#[test]
fn after_a_complaint_runs_are_one_message_long_and_none_is_given_ahead() {
    let mut desk = desk(1);
    let run = one(&desk.post(10, 1));
    desk.post(10, 400);
    let run = one(&desk.finish(&run, refused(&run)));
    assert_eq!(run.envelopes.len(), 1);
    assert_eq!(given(&desk.ready_ahead(0)), []);
    let run = one(&desk.finish(&run, accepted(&run)));
    assert!(run.envelopes.len() > 1, "trust is back");
    assert_eq!(given(&desk.ready_ahead(0)).len(), 1);
}

#[test]
fn what_was_deferred_or_given_ahead_is_left_too_and_nothing_opens_the_site_again() {
    let mut desk = desk(3);
    let runs: Vec<_> = (0..3).map(|_| one(&desk.post(10, 1))).collect();
    desk.ready_ahead(0);
    let ahead = one(&desk.post(10, 1));
    let deferred = |run: &Given| Outcome {
        settled: 0,
        deferred: vec![(run.envelopes[0], Deferral::new(Class::Message))],
        ..refused(run)
    };
    desk.finish(&runs[1], deferred(&runs[1]));
    desk.finish(&runs[2], deferred(&runs[2]));
    assert_eq!(desk.dispatcher.snapshot().delayed, 2);
    let actions = desk.finish(&runs[0], refused(&runs[0]));
    assert_eq!(stopped(&actions), [(SiteId(1), 2, 550)]);
    assert_eq!(left(&actions), [(2, Status::Deferred)]);
    let worker = WorkerId(ahead.worker);
    assert!(actions.contains(&Action::Recall { worker }));
    // It had begun: what it meets settles as ever, and is left if it is deferred.
    desk.tell(Event::Recalled {
        worker,
        envelopes: Vec::new(),
    });
    let actions = desk.finish(&ahead, deferred(&ahead));
    assert_eq!(left(&actions), [(1, Status::Deferred)]);
    assert_eq!((stopped(&actions), given(&actions)), (vec![], vec![]));
    assert_eq!(desk.gate(1), GateView::Stopped);
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn a_delivery_by_a_worker_that_was_under_way_does_not_open_a_stopped_site() {
    let mut desk = desk(4);
    let runs: Vec<_> = (0..4).map(|_| one(&desk.post(10, 1))).collect();
    for run in &runs[..3] {
        desk.finish(run, refused(run));
    }
    assert_eq!(desk.gate(1), GateView::Stopped);
    desk.finish(&runs[3], accepted(&runs[3]));
    assert_eq!(desk.gate(1), GateView::Stopped);
    assert_eq!(left(&desk.post(10, 1)), [(1, Status::Deferred)]);
}

#[test]
fn a_host_failure_after_the_stop_changes_neither_the_site_nor_the_reason() {
    let mut desk = desk(4);
    let runs: Vec<_> = (0..4).map(|_| one(&desk.post(10, 1))).collect();
    for run in &runs[..3] {
        desk.finish(run, refused(run));
    }
    let actions = desk.fail_host(&runs[3]);
    assert_eq!(left(&actions), [(1, Status::Deferred)]);
    assert_eq!(desk.gate(1), GateView::Stopped);
    let late = desk.post(10, 1);
    let [Action::Leave { why: Some(why), .. }] = &late[..] else {
        panic!("{late:?}");
    };
    assert_eq!(why.code, 550);
}
