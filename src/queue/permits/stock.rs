//! One kind of permit: how many are held, by whom, and who stands in line for one.
//!
//! The rule of the line: one is granted if more are free than stand before the queue that asks. Queues that hold none
//! stand before those that want more; among equals it is first come, first served. The line itself is a short list.
//!
//! INVARIANTS: a queue stands in the line at most once; a grant takes it out of the line; `held` is the sum of the
//! holders. It panics (debug builds only) where a queue returns what it does not hold.

use std::collections::{HashMap, VecDeque};

use super::{News, Notice, Permit, Wanted};
use crate::mail::QueueId;

/// What shares queues have of a thing that is scarce: 1 each, unless told otherwise.
#[derive(Default, Debug)]
pub(super) struct Weights(HashMap<QueueId, u32>);

impl Weights {
    pub(super) fn set(&mut self, queue: QueueId, weight: u32) {
        self.0.insert(queue, weight.max(1));
    }

    fn of(&self, queue: QueueId) -> u64 {
        u64::from(self.0.get(&queue).copied().unwrap_or(1))
    }
}

/// Where a refused queue stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) queue: QueueId,
    pub(super) notified: bool,
}

/// One kind of permit: its holders and its line.
#[derive(Default, Debug)]
pub(super) struct Stock {
    pub(super) held: u32,
    holders: Vec<(QueueId, u32)>,
    pub(super) line: VecDeque<Waiter>,
}

impl Stock {
    pub(super) fn held_by(&self, queue: QueueId) -> u32 {
        let holder = self.holders.iter().find(|(holder, _)| *holder == queue);
        holder.map_or(0, |(_, count)| *count)
    }

    /// How many stand before `queue`: in the whole line, or among those without anything if it has nothing itself.
    fn ahead_of(&self, queue: QueueId) -> usize {
        let first_need = self.held_by(queue) == 0;
        self.line
            .iter()
            .take_while(|waiter| waiter.queue != queue)
            .filter(|waiter| !first_need || self.held_by(waiter.queue) == 0)
            .count()
            + if first_need {
                0
            } else {
                self.needier_behind(queue)
            }
    }

    /// How many without anything stand behind `queue`: they go first all the same.
    fn needier_behind(&self, queue: QueueId) -> usize {
        self.line
            .iter()
            .skip_while(|waiter| waiter.queue != queue)
            .filter(|waiter| waiter.queue != queue && self.held_by(waiter.queue) == 0)
            .count()
    }

    /// True if one of those that are `free` is for `queue`, `reserved` being kept for others.
    pub(super) fn grants(&self, queue: QueueId, free: u32, reserved: u32) -> bool {
        free as usize > self.ahead_of(queue) + reserved as usize
    }

    pub(super) fn add(&mut self, queue: QueueId) {
        self.leave_line(queue);
        self.held += 1;
        match self.holders.iter_mut().find(|(holder, _)| *holder == queue) {
            Some((_, count)) => *count += 1,
            None => self.holders.push((queue, 1)),
        }
    }

    pub(super) fn subtract(&mut self, queue: QueueId) {
        let Some(at) = self.holders.iter().position(|(holder, _)| *holder == queue) else {
            debug_assert!(false, "{queue:?} returns a permit it does not hold");
            return;
        };
        self.held -= 1;
        self.holders[at].1 -= 1;
        if self.holders[at].1 == 0 {
            self.holders.swap_remove(at);
        }
    }

    /// Puts `queue` in line, or marks it unnotified if it stands there. True if it is new there.
    pub(super) fn join_line(&mut self, queue: QueueId) -> bool {
        match self.line.iter_mut().find(|waiter| waiter.queue == queue) {
            Some(waiter) => {
                waiter.notified = false;
                false
            }
            None => {
                self.line.push_back(Waiter {
                    queue,
                    notified: false,
                });
                true
            }
        }
    }

    pub(super) fn leave_line(&mut self, queue: QueueId) {
        self.line.retain(|waiter| waiter.queue != queue);
    }

    /// The number of queues that hold or want it.
    pub(super) fn parties(&self) -> u32 {
        let waiting = self
            .line
            .iter()
            .filter(|waiter| self.held_by(waiter.queue) == 0)
            .count();
        (self.holders.len() + waiting).max(1) as u32
    }

    /// What `queue` may keep of `limit` if all who hold or want it take their shares by weight: at least 1.
    fn share_of(&self, queue: QueueId, limit: u32, weights: &Weights) -> u32 {
        let waiting = self.line.iter().map(|waiter| waiter.queue);
        let without = waiting.filter(|waiter| self.held_by(*waiter) == 0);
        let parties = self.holders.iter().map(|(holder, _)| *holder);
        let all: u64 = parties.chain(without).map(|party| weights.of(party)).sum();
        let share = u64::from(limit) * weights.of(queue) / all.max(1);
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }

    /// How badly others want what `queue` holds of `limit`, of which `room` is what may be held just now.
    pub(super) fn wanted_from(
        &self,
        queue: QueueId,
        limit: u32,
        room: u32,
        weights: &Weights,
    ) -> Wanted {
        let others = self.line.iter().filter(|waiter| waiter.queue != queue);
        let free = room.saturating_sub(self.held) as usize;
        if others.clone().count() <= free {
            return Wanted::No;
        }
        let mut poorer = others.map(|waiter| waiter.queue);
        let poorer = poorer.any(|w| self.held_by(w) < self.share_of(w, limit, weights));
        let own = self.share_of(queue, limit, weights);
        // Where there is less than one for each, who holds one gives it to who has none.
        let is_scarce = limit < self.parties();
        if poorer && (self.held_by(queue) > own || is_scarce && self.held_by(queue) > 0) {
            Wanted::Yes
        } else {
            Wanted::IfIdle
        }
    }

    /// The notices that tell all holders but `waiter` that somebody waits.
    pub(super) fn pressure(&self, waiter: QueueId, permit: Permit) -> impl Iterator<Item = Notice> {
        self.holders
            .iter()
            .filter(move |(queue, _)| *queue != waiter)
            .map(move |(queue, _)| Notice::new(*queue, permit, News::Wanted))
    }
}
