//! What can be changed while a run goes on, by whomever: the configuration that is read again, and the operator.
//!
//! INVARIANT: what was set before stays in force until it is set again, whoever set it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;

use super::parts;
use super::permits::SharedPermits;
use super::promoted::Slots;
use super::queue::Inbox;
use super::settings::Settings;
use crate::mail::QueueId;
use crate::queue::event::Event;
use crate::route::RouteTable;

/// What can be changed while a run goes on.
pub struct Levers {
    pub(super) routes: Arc<RouteTable>,
    pub(super) permits: Arc<SharedPermits>,
    pub(super) inboxes: Vec<Sender<Inbox>>,
    /// Workers that this machine has room for.
    pub(super) room: u32,
    /// The settings whose limits are in force.
    pub(super) in_force: Mutex<Settings>,
    /// The queues for promoted sites.
    pub(super) slots: Arc<Slots>,
}

impl Levers {
    pub(super) fn lock(&self) -> MutexGuard<'_, Settings> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings whose limits are in force.
    pub fn in_force(&self) -> Settings {
        self.lock().clone()
    }

    /// Changes limits that are in force: what was set before, by whomever, stays.
    pub fn change<T>(&self, act: impl FnOnce(&mut Settings) -> T) -> T {
        let mut settings = self.lock();
        let outcome = act(&mut settings);
        self.set_limits(&settings);
        outcome
    }

    /// Puts the limits of `settings` into force: workers in total and per queue, sessions per site, rates. More takes effect at
    /// once, less as runs of mail end. Queues are those of the start.
    pub fn set_limits(&self, settings: &Settings) {
        let ids = (0..self.routes.queues()).map(|at| QueueId(at as u16));
        let names: Vec<&str> = ids.map(|id| self.routes.name(id)).collect();
        let own = |name: &&str| settings.queues.iter().find(|queue| queue.name == *name);
        let workers_max = settings.workers_max.min(self.room);
        let limits = parts::permit_limits(settings, workers_max, names.iter().copied());
        self.permits.set_limits(&limits);
        for (at, inbox) in self.inboxes.iter().enumerate() {
            // Queues for promoted sites are not configured, and have no limits of their own.
            let own = names.get(at).and_then(own).and_then(|own| own.workers_max);
            let workers_max = own.unwrap_or(workers_max);
            let _ = inbox.send(Event::LimitsChanged { workers_max });
        }
    }
}
