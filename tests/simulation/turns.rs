//! Whose turn it is: nobody waits for ever while others are served again and again.

use std::collections::HashMap;

use mailer::mail::{DestinationId, Envelope};
use mailer::queue::{Place, SiteView, origin_of};

use crate::world::World;

impl World {
    /// A worker that has used up its quantum does not go on with its site while another has waited for any worker at all.
    pub fn check_quantum(&mut self, q: usize) {
        let dispatcher = &self.queues[q].dispatcher;
        let unserved = dispatcher.sites().filter(|view: &SiteView| {
            view.waiting > 0 && view.workers == 0 && self.could_open(q, view)
        });
        let unserved: Vec<_> = unserved.map(|view| view.site).collect();
        let books = &self.books.queues[q];
        let waits = books.unserved.iter().any(|site| unserved.contains(site));
        for &(worker, served) in &books.goes_on {
            let own = |(_, _, e): (_, _, Envelope)| self.books.was_tried(&e, q, worker);
            assert!(
                !waits || served < self.scenario.quantum || dispatcher.envelopes().any(own),
                "{worker:?} goes on after {served} envelopes while {unserved:?} wait"
            );
        }
        self.books.queues[q].unserved = unserved;
    }

    /// The destinations of a site take turns: none is served more often than once while another one waits, so that one that
    /// waits is passed by at most as many runs as there are destinations.
    pub fn check_turns(&mut self, q: usize) {
        let dispatcher = &self.queues[q].dispatcher;
        let books = &self.books.queues[q];
        let site_of = |id: DestinationId| self.scenario.site_of(id);
        let mut passed = HashMap::new();
        for (place, id, _) in dispatcher.envelopes() {
            if site_of(id).is_none() {
                continue; // its site changes
            }
            let waits = place == Place::Waiting && !books.orders.holds(id);
            if waits && dispatcher.knows(id) && !passed.contains_key(&id) {
                let other = |other: &&DestinationId| site_of(**other) == site_of(id);
                let runs = books.served.iter().filter(other).count() as u32;
                let count = match books.passed.get(&id) {
                    Some(before) if !books.served.contains(&id) => before + runs,
                    _ => 0,
                };
                let all = self.scenario.destinations.len() as u32;
                let (_, is_fallback) = origin_of(id);
                let of_site = (0..all).map(DestinationId).filter(|one| match is_fallback {
                    true => true,
                    false => site_of(*one) == site_of(id),
                });
                assert!(count <= of_site.count() as u32, "{id:?} is passed by");
                passed.insert(id, count);
            }
        }
        self.books.queues[q].passed = passed;
    }
}
