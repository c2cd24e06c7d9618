//! Sessions that are being opened: their number is limited, so that sites which do not answer cannot hold all threads.
//!
//! A *first* session is one with a site that the queue has none with; half of the process's workers may be at that. A
//! *further* one is opened for the sake of speed only: a quarter. At least one of each may always be opened. Who is refused
//! stands in line, one line for each phase, whatever the site, and is told in the order of the line. But whoever asks while
//! there is room gets it: a queue needs a session with the site as well, and if each of several stood first in one line and
//! was refused for the other, they would send each other round for ever.

use super::stock::{Stock, Waiter};
use super::{News, Notice, Permit, PermitTable};
use crate::mail::QueueId;

/// Which session of a site is being opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// The queue has none with the site.
    First,
    /// It has one or more.
    Further,
}

impl Phase {
    /// Both of them.
    pub const BOTH: [Phase; 2] = [Phase::First, Phase::Further];

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Who opens sessions, and who waits to.
#[derive(Default, Debug)]
pub(super) struct Connects([Stock; 2]);

impl Connects {
    fn of(&mut self, phase: Phase) -> &mut Stock {
        &mut self.0[phase.index()]
    }
}

impl PermitTable {
    /// How many sessions of this phase may be being opened at once.
    pub fn connects_max(&self, phase: Phase) -> u32 {
        match phase {
            Phase::First => (self.workers_max / 2).max(1),
            Phase::Further => (self.workers_max / 4).max(1),
        }
    }

    /// How many sessions of this phase are being opened.
    pub fn connecting(&self, phase: Phase) -> u32 {
        self.connects.0[phase.index()].held
    }

    /// Whether `queue` could open a session of this phase now, as far as their number goes.
    pub fn would_connect(&self, phase: Phase) -> bool {
        self.connecting(phase) < self.connects_max(phase)
    }

    /// How many in that line have been told, and neither opened one nor declined yet.
    pub fn connects_promised(&self, phase: Phase) -> u32 {
        let line = &self.connects.0[phase.index()].line;
        line.iter().filter(|waiter| waiter.notified).count() as u32
    }

    /// Leaves the line of those that want to open a session of this phase. Nothing happens if it does not stand in it.
    pub fn decline_connect(&mut self, queue: QueueId, phase: Phase) {
        self.connects.of(phase).leave_line(queue);
        self.notify_connects(phase);
    }

    pub(super) fn join_connect_line(&mut self, queue: QueueId, phase: Phase) {
        self.connects.of(phase).join_line(queue);
    }

    pub(super) fn begin_connect(&mut self, queue: QueueId, phase: Phase) {
        self.connects.of(phase).add(queue);
    }

    pub(super) fn end_connect(&mut self, queue: QueueId, phase: Phase) {
        self.connects.of(phase).subtract(queue);
        self.notify_connects(phase);
    }

    /// Tells those in line who may open a session now.
    pub(super) fn notify_connects(&mut self, phase: Phase) {
        let free = self
            .connects_max(phase)
            .saturating_sub(self.connecting(phase)) as usize;
        for at in 0..self.connects.of(phase).line.len().min(free) {
            let Waiter { queue, notified } = self.connects.of(phase).line[at];
            if !notified {
                self.connects.of(phase).line[at].notified = true;
                let permit = Permit::Connect(phase);
                self.notices.push(Notice::new(queue, permit, News::Free));
            }
        }
    }
}
