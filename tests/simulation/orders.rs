//! The operator in the simulated world: orders at random moments, and the books of what they forbid. Then the rules one by
//! one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailer::mail::{
    DestinationId, Enhanced, Envelope, QueueId, Scope, SiteId, Stage, Status, Verdict, WorkerId,
};
use mailer::queue::{
    Action, Answer, DispatcherConfig, Event, GateView, Order, Outcome, Place, Whom, fallback_of,
    origin_of,
};
use mailer::retry::{Class, Deferral};

use crate::desk::{Desk, given, left, one, spawned};
use crate::scenario::Scenario;
use crate::world::{Happening, Plan, World};

/// What a queue has been ordered, as far as it has received it.
#[derive(Clone, Default, Debug)]
pub struct InForce {
    all: bool,
    paused: HashSet<DestinationId>,
    dropped: HashSet<DestinationId>,
    failed: HashSet<DestinationId>,
}

impl InForce {
    pub fn hear(&mut self, order: &Order) {
        match order {
            Order::Look { .. } | Order::Promote(_) | Order::Demote(_) => {}
            Order::Pause(Whom::All | Whom::Queue) => self.all = true,
            Order::Pause(Whom::Destination(id)) => drop(self.paused.insert(*id)),
            Order::Resume(Whom::All) => {
                self.all = false;
                self.paused.clear();
            }
            Order::Resume(Whom::Queue) => self.all = false,
            Order::Resume(Whom::Destination(id)) => drop(self.paused.remove(id)),
            Order::Drop(id) => drop(self.dropped.insert(*id)),
            Order::Fail(id, _) => drop(self.failed.insert(*id)),
        }
    }

    /// Mail of this destination waits for the operator.
    pub fn holds(&self, id: DestinationId) -> bool {
        self.all || self.paused.contains(&origin_of(id).0)
    }

    pub fn drops(&self, id: DestinationId) -> bool {
        self.dropped.contains(&origin_of(id).0)
    }

    pub fn fails(&self, id: DestinationId) -> bool {
        self.failed.contains(&origin_of(id).0)
    }
}

fn refusal() -> Arc<Verdict> {
    let enhanced = Enhanced::new(5, 7, 1);
    Arc::new(Verdict::own(
        Status::Refused,
        Scope::Domain,
        Stage::Batch,
        enhanced,
        "refused by the operator",
    ))
}

/// Orders at random moments. What is paused is resumed some time.
pub fn random(seed: u64, scenario: &Scenario) -> Vec<(Duration, Order)> {
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x0bede5);
    let mut orders = Vec::new();
    if dice.u8(0..3) == 0 {
        return orders;
    }
    let last = scenario.posts.last().map_or(Duration::ZERO, |post| post.at);
    let span = last + Duration::from_millis(dice.u64(1..60_000));
    for _ in 0..dice.u32(1..6) {
        let at = span.mul_f64(dice.f64());
        let id = DestinationId(dice.u32(0..scenario.destinations.len() as u32));
        let order = match dice.u8(0..12) {
            0 => Order::Drop(id),
            1 => Order::Fail(id, refusal()),
            2 => Order::Look {
                sites: 5,
                about: Some(id),
            },
            3 | 4 => Order::Pause(Whom::Queue),
            5 => Order::Pause(Whom::All),
            _ => Order::Pause(Whom::Destination(id)),
        };
        if let Order::Pause(whom) = order {
            let later = at + Duration::from_millis(dice.u64(1..200_000));
            orders.push((later, Order::Resume(whom)));
        }
        orders.push((at, order));
    }
    let end = orders.iter().map(|(at, _)| *at).max().unwrap_or_default();
    orders.push((end, Order::Resume(Whom::All)));
    orders
}

impl World {
    /// The operator orders something of every queue.
    pub fn order(&mut self, order: &Order) {
        for q in 0..self.queues.len() {
            let (number, order) = (self.tally.orders, order.clone());
            self.send(q, Event::Order { number, order });
        }
        self.tally.orders += 1;
    }

    pub fn put_orders_on_agenda(&mut self) {
        for (at, order) in self.scenario.orders.clone() {
            self.at(self.start + at, Happening::Order(order));
        }
    }

    /// Nothing is begun of what the operator holds or has ended.
    pub fn check_orders(&mut self, q: usize, id: DestinationId) {
        let orders = &self.books.queues[q].orders;
        assert!(!orders.holds(id), "{id:?} is paused");
        assert!(!orders.drops(id), "{id:?} was dropped");
        assert!(!orders.fails(id), "{id:?} was failed");
    }

    /// What is held waits, and is counted; what was ended neither waits nor is delayed.
    pub fn check_held(&mut self, q: usize) {
        let orders = &self.books.queues[q].orders;
        let dispatcher = &self.queues[q].dispatcher;
        let mut held = 0;
        for (place, id, _) in dispatcher.envelopes() {
            assert!(!orders.drops(id) && !orders.fails(id), "{id:?} is kept");
            held += usize::from(place == Place::Waiting && orders.holds(id));
        }
        assert_eq!(dispatcher.snapshot().held, held, "held in queue {q}");
        self.tally.held_back += held as u64;
    }

    /// An answer tells how things are.
    pub fn note_answer(&mut self, q: usize, answer: &Answer<Plan>) {
        assert_eq!(
            answer.snapshot.held,
            self.queues[q].dispatcher.snapshot().held
        );
        assert!(answer.sites.len() <= 5);
        for site in &answer.sites {
            assert_eq!(site.plan, site.view.site.0);
            assert!(site.in_hand <= answer.snapshot.in_hand);
        }
        self.tally.given_back += answer.in_hand as u64;
    }
}

/// The part of the answer that people are told.
fn answer(actions: &[Action<()>]) -> (usize, usize) {
    let answer = actions.iter().find_map(|action| match action {
        Action::Answer(answer) => Some((answer.recipients, answer.in_hand)),
        _ => None,
    });
    answer.expect("an order is answered")
}

fn give_backs(actions: &[Action<()>]) -> Vec<u32> {
    let workers = actions.iter().filter_map(|action| match action {
        Action::GiveBack { worker, .. } => Some(worker.0),
        _ => None,
    });
    workers.collect()
}

impl Desk {
    fn order(&mut self, order: Order) -> Vec<Action<()>> {
        self.tell(Event::Order { number: 7, order })
    }

    /// The worker gives its run back, the first message of it tried or not.
    fn give_back(&mut self, run: &crate::desk::Given, tried: usize) -> Vec<Action<()>> {
        let outcome = Outcome {
            settled: tried as u32,
            returned: run.envelopes[tried..].to_vec(),
            session: Some(SiteId(run.destination / 10)),
            ..Outcome::default()
        };
        self.finish(run, outcome)
    }
}

const BIG: DestinationId = DestinationId(10);
const PAUSE: Order = Order::Pause(Whom::Destination(BIG));
const RESUME: Order = Order::Resume(Whom::Destination(BIG));

#[test]
fn paused_mail_waits_whatever_brings_it_and_goes_on_when_it_is_resumed() {
    let mut desk = Desk::new(4, 1);
    let run = one(&desk.post(10, 100));
    let told = desk.order(PAUSE);
    assert_eq!(
        answer(&told),
        (100 - run.envelopes.len(), run.envelopes.len())
    );
    assert_eq!(give_backs(&told), [run.worker]);
    assert_eq!(given(&desk.give_back(&run, 1)), []);
    assert_eq!(
        given(&desk.post(10, 5)),
        [],
        "what comes later is held as well"
    );
    assert_eq!(desk.dispatcher.snapshot().held, 104);
    assert_eq!(desk.dispatcher.site(SiteId(1)).unwrap().waiting, 0);
    let other = one(&desk.post(20, 1));
    assert_eq!(other.destination, 20, "others go on");
    desk.deliver(&other);
    let resumed = desk.order(RESUME);
    assert_eq!(answer(&resumed), (104, 0));
    assert_eq!(one(&resumed).envelopes[0].message, run.envelopes[1].message);
    assert_eq!(desk.dispatcher.snapshot().held, 0);
}

#[test]
fn a_destination_of_the_same_site_goes_on_while_another_is_paused() {
    let mut desk = Desk::new(1, 1);
    let run = one(&desk.post(10, 8));
    desk.post(11, 8);
    desk.order(PAUSE);
    let next = one(&desk.give_back(&run, 0));
    assert_eq!(next.destination, 11);
}

#[test]
fn what_was_given_ahead_is_recalled_and_a_later_run_of_another_is_not() {
    let mut desk = Desk::new(1, 1);
    let first = one(&desk.post(10, 1));
    desk.post(10, 1);
    let ahead = one(&desk.ready_ahead(first.worker));
    let worker = WorkerId(first.worker);
    let told = desk.order(PAUSE);
    assert!(told.contains(&Action::Recall { worker }), "{told:?}");
    let envelopes = ahead.envelopes.clone();
    desk.tell(Event::Recalled { worker, envelopes });
    assert_eq!(desk.dispatcher.snapshot().held, 1);
    let mut desk = Desk::new(1, 1);
    let first = one(&desk.post(11, 1));
    desk.post(10, 1);
    assert_eq!(one(&desk.ready_ahead(first.worker)).destination, 10);
    let told = desk.order(Order::Pause(Whom::Destination(DestinationId(11))));
    assert!(!told.contains(&Action::Recall { worker }), "{told:?}");
    assert!(
        told.contains(&Action::GiveBack { worker, serial: 1 }),
        "{told:?}"
    );
}

#[test]
fn a_paused_queue_keeps_all_of_its_mail_and_its_single_pauses_outlive_it() {
    let mut desk = Desk::new(4, 4);
    desk.order(PAUSE);
    desk.order(Order::Pause(Whom::Queue));
    for destination in [10, 20] {
        assert_eq!(spawned(&desk.post(destination, 3)), 0);
    }
    assert_eq!(desk.dispatcher.snapshot().held, 6);
    let resumed = desk.order(Order::Resume(Whom::Queue));
    assert!(given(&resumed).iter().all(|run| run.destination == 20));
    assert_eq!(desk.dispatcher.snapshot().held, 3);
    assert!(!given(&desk.order(Order::Resume(Whom::All))).is_empty());
}

#[test]
fn deferred_mail_that_is_due_meanwhile_waits_for_the_operator() {
    let mut desk = Desk::new(1, 1);
    let run = one(&desk.post(10, 1));
    desk.order(PAUSE);
    let deferral = Deferral {
        class: Class::Recipient,
        not_before: None,
    };
    let outcome = Outcome {
        deferred: vec![(run.envelopes[0], deferral)],
        ..Outcome::default()
    };
    desk.finish(&run, outcome);
    assert_eq!(desk.dispatcher.snapshot().delayed, 1);
    assert_eq!(given(&desk.wait(Duration::from_secs(1500))), []);
    assert_eq!(desk.dispatcher.snapshot().held, 1);
    assert_eq!(given(&desk.order(RESUME)).len(), 1);
}

#[test]
fn a_probe_given_back_on_an_order_is_no_failure_of_the_site() {
    let mut desk = Desk::new(1, 1);
    let run = one(&desk.post(10, 3));
    desk.fail_host(&run);
    assert_eq!(desk.gate(1), GateView::Paused);
    let probe = loop {
        let runs = given(&desk.wait(Duration::from_secs(60)));
        if let [probe] = &runs[..] {
            break probe.clone();
        }
    };
    assert_eq!(desk.gate(1), GateView::Probing);
    desk.order(PAUSE);
    desk.give_back(&probe, 0);
    assert_eq!(desk.gate(1), GateView::Probe);
    assert_eq!(one(&desk.order(RESUME)).destination, 10);
}

#[test]
fn dropped_mail_is_left_now_and_later_and_what_workers_hold_when_it_comes_back() {
    let mut desk = Desk::new(1, 1);
    let run = one(&desk.post(10, 64));
    let waiting = 64 - run.envelopes.len();
    let told = desk.order(Order::Drop(BIG));
    assert_eq!(left(&told), [(waiting, Status::Queued)]);
    assert_eq!(give_backs(&told), [run.worker]);
    let outcome = Outcome {
        deferred: vec![(run.envelopes[0], Deferral::new(Class::Recipient))],
        returned: run.envelopes[1..].to_vec(),
        ..Outcome::default()
    };
    let back = desk.finish(&run, outcome);
    let back: usize = left(&back).iter().map(|(count, _)| count).sum();
    assert_eq!(back, run.envelopes.len());
    assert_eq!(left(&desk.post(10, 2)), [(2, Status::Queued)]);
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn failed_mail_is_refused_but_for_what_may_have_been_delivered() {
    let mut desk = Desk::new(1, 1);
    let run = one(&desk.post(10, 1));
    let doubt = Outcome {
        deferred: vec![(run.envelopes[0], Deferral::new(Class::InDoubt))],
        ..Outcome::default()
    };
    desk.finish(&run, doubt);
    let second = one(&desk.post(10, 1));
    desk.post(10, 3);
    let told = desk.order(Order::Fail(BIG, refusal()));
    assert_eq!(answer(&told), (4, 1));
    assert_eq!(left(&told), [(1, Status::InDoubt)]);
    let refused = |actions: &[Action<()>]| -> Vec<Envelope> {
        let refused = actions.iter().filter_map(|action| match action {
            Action::Refuse {
                envelopes, verdict, ..
            } => {
                assert_eq!(verdict.text, "refused by the operator");
                Some(envelopes.clone())
            }
            _ => None,
        });
        refused.flatten().collect()
    };
    assert_eq!(refused(&told).len(), 3);
    let outcome = Outcome {
        deferred: vec![(second.envelopes[0], Deferral::new(Class::Recipient))],
        ..Outcome::default()
    };
    assert_eq!(refused(&desk.finish(&second, outcome)).len(), 1);
    assert_eq!(refused(&desk.post(10, 2)).len(), 2);
    assert!(desk.dispatcher.is_idle());
}

#[test]
fn failed_mail_that_would_be_tried_after_the_run_alone_is_refused_too() {
    let mut config = DispatcherConfig::new(QueueId(0), 1);
    config.retry.stop_at = Some(Instant::now());
    let mut desk = Desk::with(config, 1);
    let run = one(&desk.post(10, 1));
    desk.order(Order::Fail(BIG, refusal()));
    let outcome = Outcome {
        deferred: vec![(run.envelopes[0], Deferral::new(Class::Recipient))],
        ..Outcome::default()
    };
    let actions = desk.finish(&run, outcome);
    assert_eq!(left(&actions), []);
    let is_refusal = |action: &&Action<()>| matches!(action, Action::Refuse { .. });
    assert_eq!(actions.iter().filter(is_refusal).count(), 1);
}

#[test]
fn an_order_is_one_for_the_mail_to_the_fallback_relay_too() {
    let mut desk = Desk::new(1, 1);
    desk.order(Order::Pause(Whom::Destination(fallback_of(BIG))));
    assert_eq!(given(&desk.post(10, 1)), []);
    assert_eq!(desk.dispatcher.snapshot().held, 1);
}

#[test]
fn a_look_tells_of_the_busiest_sites_first_and_of_no_idle_ones() {
    let mut desk = Desk::new(2, 1);
    let idle = one(&desk.post(10, 1));
    for (destination, count) in [(20, 5), (30, 4), (31, 9)] {
        desk.post(destination, count);
    }
    desk.order(Order::Pause(Whom::Destination(DestinationId(31))));
    desk.deliver(&idle);
    let told = desk.order(Order::Look {
        sites: 2,
        about: Some(DestinationId(30)),
    });
    let [Action::Answer(answer)] = &told[..] else {
        panic!("{told:?}");
    };
    let sites = answer.sites.iter();
    let sites: Vec<_> = sites
        .map(|site| (site.view.site.0, site.destination.0, site.destinations))
        .collect();
    assert_eq!(sites, [(3, 31, 2), (2, 20, 1)]);
    let busiest = &answer.sites[0];
    assert_eq!((busiest.held, busiest.view.workers), (9, 1));
    assert_eq!(answer.paused, [DestinationId(31)]);
    assert_eq!((answer.number, answer.recipients), (7, 2));
    assert_eq!(answer.site, Some((SiteId(3), 2)));
}
