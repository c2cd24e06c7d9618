//! The destinations of a queue, what is known of each, and its waiting list.
//!
//! A destination is resolving, known, failed for now (its name server did not answer), refused for good, or moved to
//! another queue. Its mail waits in one list whatever its state; only a known destination stands in its site's list and
//! can be assigned from.
//!
//! A run is taken from the front of one destination's list. Envelopes of one message that stand together stay together,
//! up to what one transaction carries, so that a run is cut between transactions. A run ends before an envelope that the
//! worker itself tried last, unless one like it stands first: who takes it then is decided by the caller.
//!
//! INVARIANTS: `waiting` is the number of envelopes in all lists; an envelope is in one list at most, since taking moves
//! it out. Destinations are never forgotten in a run.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::event::Route;
use crate::mail::{DestinationId, Envelope, QueueId, Verdict, WorkerId};

/// What is known of a destination.
#[derive(Debug)]
pub(super) enum State<P> {
    /// Nobody asked yet.
    Unresolved,
    /// The resolver pool has been asked.
    Resolving,
    /// It has hosts: they form the site with this index.
    Known {
        site: u32,
        plan: P,
        expires: Instant,
    },
    /// The name server failed: nothing is asked before this instant.
    Failed { until: Instant, why: Arc<Verdict> },
    /// Its mail is refused.
    Refused(Arc<Verdict>),
    /// Another queue handles it.
    Moved(QueueId),
}

/// One destination.
#[derive(Debug)]
pub(super) struct Destination<P> {
    pub(super) id: DestinationId,
    pub(super) state: State<P>,
    pub(super) waiting: VecDeque<Envelope>,
    /// The operator holds its mail: it stands in no site's list.
    pub(super) held: bool,
    /// Look-ups that failed in a row.
    pub(super) failures: u32,
}

/// All destinations of a queue.
#[derive(Debug)]
pub(super) struct Backlog<P> {
    destinations: Vec<Destination<P>>,
    by_id: HashMap<DestinationId, u32>,
    /// Envelopes in all waiting lists.
    pub(super) waiting: usize,
    /// Those of them that are held.
    pub(super) held: usize,
    /// Destinations the resolver pool was asked for.
    pub(super) resolving: usize,
}

/// How a run is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The number of envelopes aimed at.
    pub(super) length: usize,
    /// Recipients of one message that one transaction carries.
    pub(super) together: usize,
    /// For whom.
    pub(super) worker: WorkerId,
}

impl<P> Default for Backlog<P> {
    fn default() -> Backlog<P> {
        Backlog {
            destinations: Vec::new(),
            by_id: HashMap::new(),
            waiting: 0,
            held: 0,
            resolving: 0,
        }
    }
}

impl<P> std::ops::Index<u32> for Backlog<P> {
    type Output = Destination<P>;
    fn index(&self, index: u32) -> &Destination<P> {
        &self.destinations[index as usize]
    }
}

impl<P> std::ops::IndexMut<u32> for Backlog<P> {
    fn index_mut(&mut self, index: u32) -> &mut Destination<P> {
        &mut self.destinations[index as usize]
    }
}

impl<P: Clone> Backlog<P> {
    /// The index of a destination, made if it is new.
    pub(super) fn slot(&mut self, id: DestinationId) -> u32 {
        *self.by_id.entry(id).or_insert_with(|| {
            self.destinations.push(Destination {
                id,
                state: State::Unresolved,
                waiting: VecDeque::new(),
                held: false,
                failures: 0,
            });
            (self.destinations.len() - 1) as u32
        })
    }

    /// The index of a destination, if it is known.
    pub(super) fn find(&self, id: DestinationId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The number of destinations.
    pub(super) fn len(&self) -> usize {
        self.destinations.len()
    }

    /// All destinations.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Destination<P>> {
        self.destinations.iter()
    }

    /// Changes the state, and keeps the count of look-ups under way.
    pub(super) fn set_state(&mut self, d: u32, state: State<P>) {
        let asked = |state: &State<P>| usize::from(matches!(state, State::Resolving));
        self.resolving += asked(&state);
        self.resolving -= asked(&self[d].state);
        self[d].state = state;
    }

    /// Holds the mail of a destination, or does not.
    pub(super) fn set_held(&mut self, d: u32, held: bool) {
        let waiting = self[d].waiting.len();
        match (std::mem::replace(&mut self[d].held, held), held) {
            (false, true) => self.held += waiting,
            (true, false) => self.held -= waiting,
            _ => {}
        }
    }

    /// Puts envelopes at the end of a waiting list, or in front of it in their order.
    pub(super) fn put(&mut self, d: u32, envelopes: Vec<Envelope>, in_front: bool) {
        self.waiting += envelopes.len();
        if self[d].held {
            self.held += envelopes.len();
        }
        let list = &mut self[d].waiting;
        if list.is_empty() {
            *list = VecDeque::from(envelopes);
        } else if in_front {
            for envelope in envelopes.into_iter().rev() {
                list.push_front(envelope);
            }
        } else {
            list.extend(envelopes);
        }
    }

    /// Takes the next run.
    pub(super) fn take(&mut self, d: u32, cut: Cut) -> Vec<Envelope> {
        let list = &mut self[d].waiting;
        let mut run: Vec<Envelope> = Vec::with_capacity(cut.length.min(list.len()));
        let mut recipients = 0;
        while let Some(next) = list.front() {
            let same_message = run.last().is_some_and(|last| last.message == next.message);
            if !same_message {
                recipients = 0;
            }
            if run.len() >= cut.length && recipients % cut.together == 0 {
                break;
            }
            let first_is_tried = run.first().is_none_or(|e| e.was_tried_by(cut.worker));
            if next.was_tried_by(cut.worker) && !first_is_tried {
                break;
            }
            recipients += 1;
            run.extend(list.pop_front());
        }
        self.waiting -= run.len();
        run
    }

    /// Takes everything that waits for a destination.
    pub(super) fn take_all(&mut self, d: u32) -> Vec<Envelope> {
        let all = Vec::from(std::mem::take(&mut self[d].waiting));
        self.waiting -= all.len();
        if self[d].held {
            self.held -= all.len();
        }
        all
    }

    /// The route of a destination, if it is known.
    pub(super) fn plan(&self, d: u32) -> Option<P> {
        match &self[d].state {
            State::Known { plan, .. } => Some(plan.clone()),
            _ => None,
        }
    }

    /// Makes a destination known. `site` is the index of the route's site.
    pub(super) fn know(&mut self, d: u32, site: u32, route: Route<P>) {
        self[d].failures = 0;
        self.set_state(
            d,
            State::Known {
                site,
                plan: route.plan,
                expires: route.expires,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{MessageNo, RecipientNo};

    /// A backlog with one destination whose list holds one envelope for each message number.
    fn backlog(messages: &[u32]) -> Backlog<()> {
        let mut backlog = Backlog::default();
        let d = backlog.slot(DestinationId(9));
        let envelopes = messages.iter().enumerate().map(|(recipient, &message)| {
            Envelope::new(MessageNo(message), RecipientNo(recipient as u32))
        });
        backlog.put(d, envelopes.collect(), false);
        backlog
    }

    fn cut(length: usize, together: usize) -> Cut {
        Cut {
            length,
            together,
            worker: WorkerId(0),
        }
    }

    fn take(backlog: &mut Backlog<()>, cut: Cut) -> Vec<u32> {
        let run = backlog.take(0, cut);
        run.iter().map(|envelope| envelope.message.0).collect()
    }

    #[test]
    fn recipients_of_a_message_are_not_torn_apart() {
        let mut backlog = backlog(&[1, 2, 2, 2, 3, 3]);
        assert_eq!(take(&mut backlog, cut(2, 50)), [1, 2, 2, 2]);
        assert_eq!(take(&mut backlog, cut(1, 50)), [3, 3]);
        assert_eq!(backlog.waiting, 0);
    }

    #[test]
    fn a_message_to_very_many_is_cut_between_transactions() {
        let mut backlog = backlog(&[7; 130]);
        assert_eq!(take(&mut backlog, cut(1, 50)).len(), 50);
        assert_eq!(take(&mut backlog, cut(64, 50)).len(), 80);
        let mut other = self::backlog(&[7; 130]);
        assert_eq!(take(&mut other, cut(64, 50)).len(), 100);
    }

    #[test]
    fn a_run_ends_before_what_the_worker_tried_last() {
        let mut backlog = backlog(&[1, 2, 3, 4]);
        backlog[0].waiting[2].tried_by(WorkerId(0));
        assert_eq!(take(&mut backlog, cut(10, 50)), [1, 2]);
        assert_eq!(take(&mut backlog, cut(10, 50)), [3, 4]);
    }

    #[test]
    fn what_comes_back_untried_goes_in_front_in_its_order() {
        let mut backlog = backlog(&[1, 2, 3, 4]);
        let run = backlog.take(0, cut(2, 50));
        backlog.put(0, run, true);
        assert_eq!(backlog.waiting, 4);
        assert_eq!(take(&mut backlog, cut(10, 50)), [1, 2, 3, 4]);
    }
}
