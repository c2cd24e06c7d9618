//! The workers of a queue and its ready list.
//!
//! A worker is *busy* while it holds an assignment, *ready* while it waits for one, *retiring* until its thread has
//! ended. A busy one may hold a second assignment, given ahead, for the same site. The ready list is in order of readiness:
//! the latest is taken first (its session and its caches are the warmest), the earliest is the first to be retired.
//!
//! INVARIANTS: a worker stands on the ready list exactly while it is ready, and then also in the list of the site its
//! session is with; a busy worker stands in its site's list of those that may be given a run ahead, or in none. Numbers
//! are never used twice; the indices inside are.

use std::collections::HashMap;
use std::time::Instant;

use super::links::{Links, List};
use super::permits::Phase;
use crate::mail::{SourceNo, WorkerId};

/// An assignment in a worker's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// The index of the destination.
    pub(super) destination: u32,
    /// How many envelopes it has.
    pub(super) count: usize,
    /// The slots for messages that were taken for it, and when; 0 where there is no pace.
    pub(super) slots: u32,
    pub(super) taken: Instant,
    /// A number no other assignment has.
    pub(super) serial: u64,
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    /// The index of the site whose session permit it holds: its session is open, or about to be.
    pub(super) session: Option<u32>,
    /// The source address of that session.
    pub(super) source: SourceNo,
    /// How often in a row it has opened that session again although the rates of connections had no room.
    pub(super) unpaid: u32,
    /// The session is being opened.
    pub(super) opening: Option<Phase>,
    /// The site whose session it is leaving, and whose permit it therefore still holds.
    pub(super) closing: Option<u32>,
    /// The source address of that one.
    pub(super) closing_source: SourceNo,
    /// True once the session is known to work.
    pub(super) proven: bool,
    /// True once mail was settled over it.
    pub(super) carried: bool,
    /// The assignment it works on.
    pub(super) current: Option<Work>,
    /// The assignment given ahead.
    pub(super) ahead: Option<Work>,
    /// True between a recall and its answer.
    pub(super) recalled: bool,
    /// True once it was told to end.
    pub(super) retiring: bool,
    /// Envelopes it was given for this site, and since when: its quantum.
    pub(super) served: usize,
    pub(super) serving_since: Instant,
    /// Since when it is ready.
    pub(super) ready_since: Instant,
}

/// All workers of a queue.
#[derive(Default, Debug)]
pub(super) struct Workers {
    slots: Vec<Option<Worker>>,
    free: Vec<u32>,
    by_id: HashMap<WorkerId, u32>,
    next_id: u32,
    /// Those that are ready, in order of readiness.
    pub(super) ready: List,
    ready_links: Links,
    /// The links of the lists that sites keep of their workers.
    pub(super) site_links: Links,
}

impl std::ops::Index<u32> for Workers {
    type Output = Worker;
    fn index(&self, index: u32) -> &Worker {
        self.slots[index as usize]
            .as_ref()
            .expect("only workers that exist are indexed")
    }
}

impl std::ops::IndexMut<u32> for Workers {
    fn index_mut(&mut self, index: u32) -> &mut Worker {
        self.slots[index as usize]
            .as_mut()
            .expect("only workers that exist are indexed")
    }
}

impl Workers {
    /// A new worker.
    pub(super) fn add(&mut self, now: Instant) -> u32 {
        let id = WorkerId(self.next_id);
        self.next_id += 1;
        let worker = Worker {
            id,
            session: None,
            source: SourceNo(0),
            unpaid: 0,
            opening: None,
            closing: None,
            closing_source: SourceNo(0),
            proven: false,
            carried: false,
            current: None,
            ahead: None,
            recalled: false,
            retiring: false,
            served: 0,
            serving_since: now,
            ready_since: now,
        };
        let w = match self.free.pop() {
            Some(w) => w,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[w as usize] = Some(worker);
        self.by_id.insert(id, w);
        w
    }

    /// Forgets a worker, which stands in no list any more.
    pub(super) fn remove(&mut self, w: u32) {
        debug_assert!(!self.ready_links.is_linked(w) && !self.site_links.is_linked(w));
        if let Some(worker) = self.slots[w as usize].take() {
            self.by_id.remove(&worker.id);
            self.free.push(w);
        }
    }

    /// The index of a worker.
    pub(super) fn find(&self, id: WorkerId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// True if the worker with index `w` still exists.
    pub(super) fn exists(&self, w: u32) -> bool {
        self.slots.get(w as usize).is_some_and(Option::is_some)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<u32> {
        let exists = |w: &u32| self.exists(*w);
        (0..self.slots.len() as u32).filter(exists).collect()
    }

    /// How many there are, retiring ones included.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True while `w` is on the ready list.
    pub(super) fn is_ready(&self, w: u32) -> bool {
        self.ready_links.is_linked(w)
    }

    /// Puts `w` at the warm end of the ready list.
    pub(super) fn push_ready(&mut self, w: u32, now: Instant) {
        self[w].ready_since = now;
        self.ready_links.push_back(&mut self.ready, w);
    }

    /// Takes `w` off the ready list.
    pub(super) fn remove_ready(&mut self, w: u32) -> bool {
        self.ready_links.remove(&mut self.ready, w)
    }

    /// The one on the ready list before `w`: ready a little longer.
    pub(super) fn ready_before(&self, w: u32) -> Option<u32> {
        self.ready_links.before(w)
    }
}
