//! One kind of permit: how many are held, by whom, and who stands in line for one.
//!
//! The rule of the line: one is granted if more are free than stand before the queue that asks. Queues that hold none
//! stand before those that want more; among equals it is first come, first served. The line itself is a short list.
//!
//! INVARIANTS: a queue stands in the line at most once; a grant takes it out of the line; `held` is the sum of the
//! holders. It panics (debug builds only) where a queue returns what it does not hold.

use std::collections::VecDeque;

use super::{News, Notice, Wanted};
use crate::mail::{QueueId, SiteId};

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

    /// True if one of `limit` is free for `queue`, `reserved` being kept for others.
    pub(super) fn grants(&self, queue: QueueId, limit: u32, reserved: u32) -> bool {
        let free = limit.saturating_sub(self.held);
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

    /// The share of `limit` that `queue` is due, by the weights of all that hold or want it.
    fn share(&self, queue: QueueId, limit: u32, weight: &impl Fn(QueueId) -> u32) -> u32 {
        let holders = self.holders.iter().map(|(holder, _)| *holder);
        let waiting = self.line.iter().map(|waiter| waiter.queue);
        let waiting = waiting.filter(|waiter| self.held_by(*waiter) == 0);
        let all: u64 = holders
            .chain(waiting)
            .map(|one| u64::from(weight(one)))
            .sum();
        (u64::from(limit) * u64::from(weight(queue)) / all.max(1)) as u32
    }

    /// How badly others want what `queue` holds. Nobody gives his last one to somebody who has one.
    pub(super) fn wanted_from(
        &self,
        queue: QueueId,
        limit: u32,
        weight: impl Fn(QueueId) -> u32,
    ) -> Wanted {
        if self.held > limit {
            // The limit was lowered.
            return Wanted::Yes;
        }
        let mut others = self.line.iter().filter(|waiter| waiter.queue != queue);
        let free = limit.saturating_sub(self.held) as usize;
        if others.clone().count() <= free {
            return Wanted::No;
        }
        let (held, own) = (self.held_by(queue), self.share(queue, limit, &weight));
        if held <= own {
            return Wanted::IfIdle;
        }
        let due = |waiter: &Waiter| {
            let has = self.held_by(waiter.queue);
            has == 0 || held > 1 && has < self.share(waiter.queue, limit, &weight)
        };
        if others.any(due) {
            Wanted::Yes
        } else {
            Wanted::IfIdle
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.held == 0 && self.line.is_empty()
    }

    /// The notices that tell all holders but `waiter` that somebody waits.
    pub(super) fn pressure(
        &self,
        waiter: QueueId,
        site: Option<SiteId>,
    ) -> impl Iterator<Item = Notice> {
        self.holders
            .iter()
            .filter(move |(queue, _)| *queue != waiter)
            .map(move |(queue, _)| Notice::new(*queue, site, News::Wanted))
    }
}
