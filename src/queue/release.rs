//! Workers are let go here, and permits that are not needed: those that others want, those that are idle for too long.
//!
//! INVARIANT: a permit this queue was told of is taken, refused again, or declined before the event is over.

use super::dispatcher::{Dispatcher, Turn};
use super::event::Action;
use super::permits::{Permit, Wanted};

impl<P: Clone> Dispatcher<P> {
    /// Lets ready workers go: all of them if no mail can come for them, those that waited too long, those that others want.
    pub(super) fn release(&mut self, t: &mut Turn<'_, P>) {
        let closed = self.input_closed || self.promotions.is_leaving();
        let done = closed && self.backlog.waiting == 0 && self.delayed.is_empty();
        // Each of them once: one that is kept stands at the end afterwards.
        for _ in 0..self.workers.ready.len() {
            let Some(w) = self.workers.ready.front() else {
                break;
            };
            let surplus = self.workers.len() > self.config.workers_max as usize;
            let cold = self.workers[w].ready_since + self.config.idle <= t.now;
            if !(done || self.stopped || cold || surplus) {
                break;
            }
            if cold && !(done || self.stopped || surplus) && self.is_next_to_send(w) {
                self.workers.remove_ready(w);
                self.workers.push_ready(w, t.now);
                continue;
            }
            self.retire(w, t);
        }
        while let Some(w) = self.newly_ready.pop() {
            if self.workers.exists(w) && self.workers.is_ready(w) && self.is_wanted(w, t) {
                self.retire(w, t);
            }
        }
    }

    /// True if `w` will get the next run of its site as soon as the pace has a slot: a session is not closed for that time.
    pub(super) fn is_next_to_send(&self, w: u32) -> bool {
        let next = self.workers[w].session.map(|s| &self.sites[s]);
        next.is_some_and(|site| {
            site.waiting > 0 && (site.is_held() || site.starved) && site.idle.back() == Some(w)
        })
    }

    /// True if others wait for the worker or its session.
    pub(super) fn is_wanted(&self, w: u32, t: &Turn<'_, P>) -> bool {
        let session = self.workers[w].session;
        t.permits.worker_wanted(self.config.queue) != Wanted::No
            || session.is_some_and(|s| self.session_wanted(s, t) != Wanted::No)
    }

    /// Tells a worker that owes nothing to end.
    pub(super) fn retire(&mut self, w: u32, t: &mut Turn<'_, P>) {
        self.unlist(w);
        self.leave_session(w, t);
        let worker = &mut self.workers[w];
        worker.retiring = true;
        t.actions.push(Action::Retire { worker: worker.id });
    }

    /// True if there is a worker too many: the queue's maximum was lowered, or another queue is due to have it.
    pub(super) fn is_surplus(&self, t: &Turn<'_, P>) -> bool {
        self.workers.len() > self.config.workers_max as usize
            || t.permits.worker_wanted(self.config.queue) == Wanted::Yes
    }

    /// Limits were changed: whatever was refused is asked for again.
    pub(super) fn limits_changed(&mut self, workers_max: u32) {
        self.config.workers_max = workers_max.max(1);
        self.forget_refusals();
    }

    /// Whatever was refused may be asked for again.
    pub(super) fn forget_refusals(&mut self) {
        self.worker_refused = false;
        self.sites.shut = [false; 2];
        self.forget_rests();
    }

    /// A permit this queue stood in line for may be free.
    pub(super) fn permit_free(&mut self, permit: Permit) {
        match permit {
            Permit::Worker => self.worker_refused = false,
            Permit::Connect(phase) => self.sites.shut[phase.index()] = false,
            Permit::Slot(site) => {
                if let Some(s) = self.sites.find(site) {
                    self.sites[s].may_ask_again();
                    self.touch(s);
                }
            }
            Permit::Session(site) => {
                if let Some(s) = self.sites.find(site) {
                    self.sites[s].blocked = false;
                    self.touch(s);
                }
            }
        }
    }

    /// Leaves the line, unless the permit was taken or refused again: whoever is next must hear of it.
    pub(super) fn decline_unused(&mut self, permit: Permit, t: &mut Turn<'_, P>) {
        let queue = self.config.queue;
        match permit {
            Permit::Worker if !self.worker_refused => t.permits.decline_worker(queue),
            Permit::Connect(phase) if !self.sites.shut[phase.index()] => {
                t.permits.decline_connect(queue, phase);
            }
            Permit::Worker | Permit::Connect(_) | Permit::Slot(_) => {}
            Permit::Session(site) => {
                let blocked = self.sites.find(site).is_some_and(|s| self.sites[s].blocked);
                if !blocked {
                    t.permits.decline_session(site, queue);
                }
            }
        }
    }

    /// Another queue waits: one ready worker goes.
    pub(super) fn permit_wanted(&mut self, permit: Permit, t: &mut Turn<'_, P>) {
        let idle = match permit {
            Permit::Worker => self.workers.ready.front(),
            Permit::Connect(_) | Permit::Slot(_) => None,
            Permit::Session(site) => {
                let s = self.sites.find(site);
                s.and_then(|s| self.sites[s].idle.front())
            }
        };
        if let Some(w) = idle {
            self.retire(w, t);
        }
    }
}
