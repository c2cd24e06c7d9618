//! Promotion in the simulated world: the engine's part, what operators want, and what must hold. Then the rules one by one.

use mailer::mail::{DestinationId, QueueId, SiteId};
use std::time::Duration;

use mailer::queue::{
    Action, DispatcherConfig, Event, GateView, Order, Outcome, Place, PromoteRules, Promotion,
    Step, origin_of,
};
use mailer::retry::{Class, Deferral};

use crate::desk::{Desk, Given, MS, given, one};
use crate::scenario::{Scenario, Wish};
use crate::world::World;

/// A queue that has handed its site back and is not empty yet.
const NONE: SiteId = SiteId(u32::MAX);

impl Scenario {
    /// The most workers of each queue, those for promoted sites included.
    pub fn all_maxima(&self) -> Vec<u32> {
        let spare = self.promotion.map_or(0, |rules| usize::from(rules.queues));
        let maxima = self.queue_maxima.iter().copied();
        maxima.chain(vec![self.workers_max; spare]).collect()
    }

    /// The part of queue `number`.
    pub fn promotion_of(&self, number: usize) -> Promotion {
        match self.promotion {
            Some(rules) if number == 0 => Promotion::Watch(rules),
            Some(_) if number >= self.queue_maxima.len() => Promotion::Promoted(self.promoted_rest),
            _ => Promotion::Never,
        }
    }

    /// The site that a destination has become one of, if so many look-ups were answered.
    pub fn moved_to(&self, id: DestinationId, answered: u32) -> Option<u32> {
        let (origin, is_fallback) = origin_of(id);
        let its = |(d, _, after): &&(u32, u32, u32)| *d == origin.0 && answered > *after;
        let moved = self.moves.iter().rev().find(its).filter(|_| !is_fallback);
        moved.map(|(_, site, _)| *site)
    }
}

impl World {
    /// The operator wants something.
    pub fn wish(&mut self, wish: Wish) {
        let number = 0;
        let (q, order) = match wish {
            Wish::Promote(d) => (0, Order::Promote(DestinationId(d))),
            Wish::Demote(d, true) => (0, Order::Demote(DestinationId(d))),
            Wish::Demote(d, false) => {
                let knows = |q: &usize| self.queues[*q].dispatcher.knows(DestinationId(d));
                let q = (0..self.queues.len()).rev().find(knows).unwrap_or(0);
                (q, Order::Demote(DestinationId(d)))
            }
        };
        self.send(q, Event::Order { number, order });
    }

    /// As the engine does it: the queue is told, then the general one, before anything else happens to that.
    pub fn promote(&mut self, queue: QueueId, site: SiteId) {
        let view = self.queues[0].dispatcher.site(site).expect("it is known");
        assert_eq!(view.gate, GateView::Open, "{site:?} rests");
        let relay = self.scenario.fallback.map(|fallback| fallback.site);
        assert_ne!(Some(site.0), relay, "the fallback relay is promoted");
        let q = queue.index();
        let slots = self.scenario.queue_maxima.len()..self.queues.len();
        assert!(slots.contains(&q), "{queue:?} is not for promoted sites");
        let others = self.books.promoted.values().any(|other| *other == site);
        assert!(!others, "{site:?} is promoted twice");
        if self.rng.u8(0..10) < self.scenario.promotion_failures {
            self.tally.promotions_failed += 1;
            return self.receive(0, Event::Promotion(Step::Failed { queue }));
        }
        self.tally.promoted += 1;
        let taken = self.books.promoted.insert(q, site);
        assert_eq!(taken, None, "{queue:?} is not free");
        assert!(
            self.queues[q].dispatcher.is_drained(),
            "{queue:?} is not empty"
        );
        self.permits.borrow_mut().open(queue);
        let begun = Step::Begun { queue, site };
        self.send(q, Event::Promotion(begun.clone()));
        self.receive(0, Event::Promotion(begun));
    }

    /// A promoted queue serves its site and no other, and once that has moved the general queue does not serve it any more.
    pub fn check_promoted(&self, q: usize, site: SiteId) {
        if q >= self.scenario.queue_maxima.len() {
            assert_eq!(self.books.promoted.get(&q), Some(&site), "queue {q}");
        } else if q == 0 {
            let own = self.books.promoted.iter().find(|(_, own)| **own == site);
            assert_eq!(own, None, "{site:?} has a queue of its own");
        }
    }

    /// Queue `q` tells another one.
    pub fn pass(&mut self, q: usize, to: QueueId, step: Step) {
        match &step {
            Step::HandedBack { by_order, .. } => {
                self.tally.handed_back += 1;
                self.tally.demoted += u64::from(*by_order);
                let site = self.books.promoted[&q];
                let view = self.queues[q].dispatcher.site(site);
                let gate = view.map(|view| view.gate);
                assert_ne!(gate, Some(GateView::Stopped), "a stop is forgotten");
                // It may be promoted again before the last worker is gone.
                self.books.promoted.insert(q, NONE);
            }
            Step::Vacated { .. } => {
                assert!(self.queues[q].dispatcher.is_drained(), "it is not empty");
                self.books.promoted.remove(&q);
                self.permits.borrow_mut().close(QueueId(q as u16));
            }
            _ => {}
        }
        self.send(to.index(), Event::Promotion(step));
    }

    /// As the engine does it after each event.
    pub fn weigh(&mut self, q: usize) {
        let weight = self.queues[q].dispatcher.weight();
        let mut table = self.permits.borrow_mut();
        table.set_queue_weight(QueueId(q as u16), weight);
    }
}

const SECOND: Duration = Duration::from_secs(1);
const OWN: QueueId = QueueId(1);

/// The general queue with one queue for promoted sites beside it, each played by hand.
struct Pair {
    general: Desk,
    own: Desk,
}

impl Pair {
    fn new() -> Pair {
        let watch = Promotion::Watch(PromoteRules::new(OWN, 1));
        let config = |queue, promotion| DispatcherConfig {
            promotion,
            ..DispatcherConfig::new(queue, 4)
        };
        Pair {
            general: Desk::with(config(QueueId(0), watch), 4),
            own: Desk::with(config(OWN, Promotion::Promoted(10 * SECOND)), 4),
        }
    }

    /// Carries what the general queue answers to the other one, and back, until both have nothing more to say. Returns what
    /// the promoted queue hands to workers, and what the general one does after that.
    fn carry(&mut self, actions: Vec<Action<()>>) -> (Vec<Given>, Vec<Given>) {
        self.own.now = self.general.now;
        let (mut own, mut general) = (Vec::new(), Vec::new());
        let mut news = vec![(OWN, actions)];
        while let Some((to, actions)) = news.pop() {
            for action in actions {
                let (queue, event) = match action {
                    Action::Promote { queue, site, .. } => {
                        let begun = Event::Promotion(Step::Begun { queue, site });
                        own.extend(given(&self.own.tell(begun.clone())));
                        (QueueId::GENERAL, begun)
                    }
                    Action::Forward {
                        queue,
                        destination,
                        envelopes,
                        delayed,
                        route,
                        takes_over,
                    } => (
                        queue,
                        Event::Forwarded {
                            destination,
                            envelopes,
                            delayed,
                            route,
                            takes_over,
                        },
                    ),
                    Action::Pass { queue, step } => (queue, Event::Promotion(step)),
                    _ => continue,
                };
                let desk = match queue {
                    OWN => &mut self.own,
                    _ => &mut self.general,
                };
                let answer = desk.tell(event);
                match queue {
                    OWN => own.extend(given(&answer)),
                    _ => general.extend(given(&answer)),
                }
                news.insert(0, (to, answer));
            }
        }
        (own, general)
    }

    fn order(&mut self, order: Order) -> (Vec<Given>, Vec<Given>) {
        let actions = self.general.tell(Event::Order { number: 1, order });
        self.carry(actions)
    }
}

fn is_promoting(actions: &[Action<()>]) -> Option<(u32, u32)> {
    match actions.last() {
        Some(Action::Promote {
            site, destination, ..
        }) => Some((site.0, destination.0)),
        _ => None,
    }
}

/// The run is put off for as long as the server asks.
fn put_off(desk: &mut Desk, run: &Given, wait: Duration) {
    let mut deferral = Deferral::new(Class::Recipient);
    deferral.not_before = Some(wait);
    let deferred = run.envelopes.iter().map(|e| (*e, deferral)).collect();
    let outcome = Outcome {
        deferred,
        session: Some(SiteId(run.destination / 10)),
        ..Outcome::default()
    };
    desk.finish(run, outcome);
}

#[test]
fn a_site_with_much_of_the_mail_is_promoted_and_one_that_is_alone_or_small_is_not() {
    let mut pair = Pair::new();
    assert_eq!(
        is_promoting(&pair.general.post(11, 60)),
        None,
        "it is alone"
    );
    pair.general.now += SECOND;
    assert_eq!(is_promoting(&pair.general.post(11, 60)), None, "still");
    pair.general.now += SECOND;
    let actions = pair.general.post(20, 40);
    assert_eq!(is_promoting(&actions), Some((1, 11)), "by its first name");
    let (own, _) = pair.carry(actions);
    assert!(!own.is_empty());
    let snapshot = pair.general.dispatcher.snapshot();
    assert_eq!(snapshot.waiting, 40, "of the other site");
    // What comes later goes the same way, for a name that is new as well.
    for destination in [11, 10] {
        let late = pair.general.post(destination, 1);
        assert!(given(&late).is_empty(), "{late:?}");
        pair.carry(late);
    }
    let held = pair.own.dispatcher.snapshot();
    // Four runs were in hand in the general queue by then.
    assert!(held.waiting + held.in_hand > 60, "{held:?}");
    assert!(pair.own.dispatcher.knows(DestinationId(10)));
}

#[test]
fn a_site_that_keeps_two_sessions_busy_for_two_seconds_is_promoted() {
    let mut pair = Pair::new();
    pair.general.post(20, 1);
    let runs = given(&pair.general.post(10, 24));
    assert!(runs.len() > 1, "{runs:?}");
    let wake = |pair: &mut Pair, wait| is_promoting(&pair.general.wait(wait));
    pair.general.ready_ahead(runs[0].worker);
    assert_eq!(wake(&mut pair, 3 * SECOND), None, "one works");
    pair.general.ready_ahead(runs[1].worker);
    pair.general.post(10, 15);
    assert_eq!(wake(&mut pair, 1900 * MS), None, "two do, not for long");
    pair.general.post(10, 1);
    assert_eq!(wake(&mut pair, SECOND), Some((1, 10)));
}

#[test]
fn a_site_that_rests_is_promoted_neither_by_rule_nor_by_order() {
    let mut pair = Pair::new();
    let run = one(&pair.general.post(10, 1));
    pair.general.post(20, 1);
    pair.general.fail_host(&run);
    assert_eq!(pair.general.gate(1), GateView::Paused);
    assert_eq!(is_promoting(&pair.general.post(10, 500)), None);
    let order = Event::Order {
        number: 1,
        order: Order::Promote(DestinationId(10)),
    };
    assert_eq!(is_promoting(&pair.general.tell(order)), None);
}

#[test]
fn deferred_mail_moves_with_its_due_times_there_and_back() {
    let mut pair = Pair::new();
    let run = one(&pair.general.post(10, 1));
    put_off(&mut pair.general, &run, 900 * SECOND);
    pair.order(Order::Promote(DestinationId(10)));
    let places = |desk: &Desk| -> Vec<_> {
        let all = desk.dispatcher.envelopes();
        all.map(|(place, d, e)| (place, d.0, e.message.0)).collect()
    };
    assert_eq!(places(&pair.general), []);
    assert_eq!(places(&pair.own), [(Place::Delayed, 10, 0)]);
    pair.own.now += 899 * SECOND;
    assert_eq!(given(&pair.own.tell(Event::Wake)), []);
    pair.general.now = pair.own.now;
    let (own, general) = pair.order(Order::Demote(DestinationId(10)));
    assert_eq!((own, general), (vec![], vec![]));
    assert_eq!(places(&pair.own), []);
    assert_eq!(places(&pair.general), [(Place::Delayed, 10, 0)]);
    assert_eq!(given(&pair.general.wait(500 * MS)), []);
    assert_eq!(one(&pair.general.wait(600 * SECOND)).destination, 10);
}

#[test]
fn what_workers_of_the_general_queue_hand_back_follows_the_site() {
    let mut pair = Pair::new();
    let run = one(&pair.general.post(10, 1));
    let (own, _) = pair.order(Order::Promote(DestinationId(10)));
    assert_eq!(own, []);
    let deferred = vec![(run.envelopes[0], Deferral::new(Class::Recipient))];
    let outcome = Outcome {
        deferred,
        ..Outcome::default()
    };
    let actions = pair.general.finish(&run, outcome);
    pair.carry(actions);
    assert_eq!(pair.general.dispatcher.snapshot().delayed, 0);
    assert_eq!(pair.own.dispatcher.snapshot().delayed, 1);
}

#[test]
fn a_queue_that_has_had_no_mail_for_a_while_hands_its_site_back_and_is_free_for_another() {
    let mut pair = Pair::new();
    let run = one(&pair.general.post(10, 1));
    pair.order(Order::Promote(DestinationId(10)));
    pair.general.deliver(&run);
    let late = pair.general.post(10, 1);
    let (own, _) = pair.carry(late);
    pair.own.deliver(&own[0]);
    let back = pair.own.wait(3 * SECOND);
    assert!(
        !back
            .iter()
            .any(|action| matches!(action, Action::Pass { .. }))
    );
    pair.general.now = pair.own.now + 8 * SECOND;
    pair.own.now = pair.general.now;
    let back = pair.own.tell(Event::Wake);
    assert!(matches!(
        back.last(),
        Some(Action::Pass {
            step: Step::Vacated { .. },
            ..
        })
    ));
    pair.carry(back);
    assert_eq!(one(&pair.general.post(10, 1)).destination, 10, "it is back");
    pair.general.post(20, 1);
    let order = Event::Order {
        number: 1,
        order: Order::Promote(DestinationId(20)),
    };
    assert_eq!(is_promoting(&pair.general.tell(order)), Some((2, 20)));
}

#[test]
fn a_site_that_failed_in_its_own_queue_rests_in_the_general_one_too_and_stays_there() {
    let mut pair = Pair::new();
    pair.general.post(10, 1);
    pair.order(Order::Promote(DestinationId(10)));
    let late = pair.general.post(10, 400);
    let (own, _) = pair.carry(late);
    let mut last = Vec::new();
    for run in &own {
        last = pair.own.fail_host(run);
    }
    assert_eq!(given(&last), []);
    assert_eq!(pair.own.gate(1), GateView::Paused);
    let (_, general) = pair.order(Order::Demote(DestinationId(10)));
    assert_eq!(general, []);
    assert_eq!(pair.general.gate(1), GateView::Paused);
    let snapshot = pair.general.dispatcher.snapshot();
    assert!(snapshot.waiting > 300, "{snapshot:?}");
    // One worker tries when the rest is over.
    assert_eq!(given(&pair.general.wait(7200 * SECOND)).len(), 1);
    let more = pair.general.post(20, 2);
    assert_eq!(is_promoting(&more), None, "the operator wants it here");
}
