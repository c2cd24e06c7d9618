//! Promotion in the simulated world: the engine's part, what operators want, and what must hold. Then the rules one by one.

use mailer::mail::{DestinationId, QueueId, SiteId};
use mailer::queue::{Event, GateView, Promotion, Step, origin_of};

use crate::scenario::{Order, Scenario};
use crate::world::World;

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
    pub fn order(&mut self, order: Order) {
        let (q, step) = match order {
            Order::Promote(d) => (0, Step::Promote(DestinationId(d))),
            Order::Demote(d, true) => (0, Step::Demote(DestinationId(d))),
            Order::Demote(d, false) => {
                let knows = |q: &usize| self.queues[*q].dispatcher.knows(DestinationId(d));
                let q = (0..self.queues.len()).rev().find(knows).unwrap_or(0);
                (q, Step::Demote(DestinationId(d)))
            }
        };
        self.send(q, Event::Promotion(step));
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
