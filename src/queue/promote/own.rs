//! The promoted queue's part: it has one site, keeps to it, and hands it back.
//!
//! INVARIANTS: while it has no site, or has handed it back, it keeps no mail: whatever comes goes to the general queue. It
//! says that it is vacated once, when it has no mail, no worker and no look-up under way.

use std::time::{Duration, Instant};

use super::super::backlog::State;
use super::super::dispatcher::{Dispatcher, Turn};
use super::super::event::{Action, Route};
use super::super::site::Gate;
use super::{Promotion, Rest, Step, Unpromoted};
use crate::mail::{QueueId, SiteId};

impl<P: Clone> Dispatcher<P> {
    fn rests_after(&self) -> Option<Duration> {
        match self.config.promotion {
            Promotion::Promoted(after) => Some(after),
            _ => None,
        }
    }

    /// True if this queue is for promoted sites.
    pub(in crate::queue) fn is_promoted(&self) -> bool {
        self.rests_after().is_some()
    }

    /// True if mail for `site` is not this queue's: it is a promoted one, and has another site, or has handed it back.
    pub(in crate::queue) fn is_elsewhere(&self, site: SiteId) -> bool {
        let is_own = self.promotions.site == Some(site) && !self.promotions.leaving;
        self.is_promoted() && !is_own
    }

    pub(in crate::queue) fn begin(&mut self, site: SiteId) {
        self.promotions.site = Some(site);
        self.promotions.leaving = false;
        self.promotions.drained_since = None;
    }

    /// A destination that proves not to be of this queue's site goes back to the general queue, with all its mail but what
    /// is deferred, which follows when it is due.
    pub(in crate::queue) fn return_destination(
        &mut self,
        d: u32,
        route: Option<Route<P>>,
        t: &mut Turn<'_, P>,
    ) {
        let waiting = self.withdraw(d);
        self.backlog.set_state(d, State::Moved(QueueId::GENERAL));
        self.hand_over(d, QueueId::GENERAL, waiting, Vec::new(), route, t);
    }

    /// The operator wants the site of destination `d` back in the general queue. Returns the queue it had.
    pub(in crate::queue) fn demote_now(
        &mut self,
        d: u32,
        t: &mut Turn<'_, P>,
    ) -> Result<QueueId, Unpromoted> {
        if self.is_promoted() {
            if matches!(self.backlog[d].state, State::Moved(_)) {
                return Err(Unpromoted::Never);
            }
            return match self.hand_back(true, t) {
                true => Ok(self.config.queue),
                false => Err(Unpromoted::Rests),
            };
        }
        let State::Moved(queue) = self.backlog[d].state else {
            return Err(Unpromoted::Already);
        };
        let is_promoted = self.promotions.by_site.values().any(|own| *own == queue);
        if !is_promoted {
            return Err(Unpromoted::Never);
        }
        t.actions.push(Action::Pass {
            queue,
            step: Step::Demote(self.backlog[d].id),
        });
        Ok(queue)
    }

    /// The last of an event in a promoted queue: hands its site back once that has had no mail for a while, and says when
    /// nothing of it is left.
    pub(in crate::queue) fn tend(&mut self, t: &mut Turn<'_, P>) {
        let Some(after) = self.rests_after() else {
            return;
        };
        let Some(site) = self.promotions.site else {
            return;
        };
        if !self.is_idle() || self.backlog.resolving > 0 {
            self.promotions.drained_since = None;
            return;
        }
        if !self.promotions.leaving {
            let since = *self.promotions.drained_since.get_or_insert(t.now);
            if self.stopped || t.now < since + after || self.is_refused_by(site) {
                return;
            }
            self.hand_back(false, t);
            self.release(t);
        }
        if self.workers.len() == 0 {
            self.promotions.site = None;
            // It leaves all lines that it stands in.
            self.forget_refusals();
            let queue = self.config.queue;
            t.actions.push(Action::Pass {
                queue: QueueId::GENERAL,
                step: Step::Vacated { queue },
            });
        }
    }

    /// When [`Dispatcher::tend`] has something to do, if nothing else happens before.
    pub(in crate::queue) fn tend_at(&self) -> Option<Instant> {
        let after = self.rests_after()?;
        let site = self.promotions.site?;
        let waits = !self.promotions.leaving && !self.stopped && !self.is_refused_by(site);
        self.promotions
            .drained_since
            .filter(|_| waits)
            .map(|since| since + after)
    }

    fn is_refused_by(&self, site: SiteId) -> bool {
        let s = self.sites.find(site);
        s.is_some_and(|s| self.sites[s].gate == Gate::Stopped)
    }

    /// Hands the site back to the general queue, with all its mail. What workers hold follows as they end their runs.
    /// False if it is not handed back.
    fn hand_back(&mut self, by_order: bool, t: &mut Turn<'_, P>) -> bool {
        let Some(site) = self.promotions.site else {
            return false;
        };
        if self.promotions.leaving || self.stopped || self.is_refused_by(site) {
            return false;
        }
        self.promotions.leaving = true;
        let queue = self.config.queue;
        let rest = self.sites.find(site).and_then(|s| self.rest_of(s, t.now));
        t.actions.push(Action::Pass {
            queue: QueueId::GENERAL,
            step: Step::HandedBack {
                queue,
                by_order,
                rest,
            },
        });
        let its: Vec<u32> = (0..self.backlog.len() as u32)
            .filter(|d| !matches!(self.backlog[*d].state, State::Moved(_)))
            .collect();
        self.move_destinations(&its, QueueId::GENERAL, t);
        for w in self.workers.all() {
            self.recall(w, t);
        }
        true
    }

    fn rest_of(&self, s: u32, now: Instant) -> Option<Rest> {
        let site = &self.sites[s];
        let until = match site.gate {
            Gate::Paused(until) => until,
            Gate::Probe | Gate::Probing(_) => now,
            Gate::Open | Gate::Narrow(_) | Gate::Stopped => return None,
        };
        Some(Rest {
            until,
            failures: site.failures,
            why: site.failure.clone(),
        })
    }
}
