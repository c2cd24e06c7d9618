//! Permits: the one thing that queues share. How many workers the process may have, how many sessions a site may see.
//!
//! A queue takes a permit per worker and per session, never per message. [`PermitTable`] is the plain table; the engine
//! puts it behind a mutex and shows it to the dispatchers as [`Permits`]. What other queues have to be told comes out as
//! [`Notice`]s, which the engine sends to their inboxes after the mutex is released.
//!
//! A refused queue stands in line. Whoever comes later is refused as well, unless enough is free for all before it;
//! queues that hold nothing go before queues that want more. When a permit is free for the first in line it gets a
//! notice, and then it must take it or decline it: a notice never simply fades away. When somebody begins to wait, the
//! holders get a notice too: they give back what is idle at once, and at the end of a run what is more than their share.
//!
//! Workers: each queue is due a share by its weight, at least one. Of the process's maximum, up to a quarter is kept for open queues that have none yet, one each, so that a
//! queue that gets its first mail need not wait for another one's slow server.
//!
//! INVARIANTS: permits held never exceed the limit when they were taken (a limit that is lowered takes effect as permits
//! come back); a queue stands in a line at most once; every line shorter than what is free has been notified.
//! Limits: lines and holders are short lists, as queues are few (tens); sites nobody holds or wants take no memory.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::mail::{QueueId, SiteId};

mod stock;

use stock::{Stock, Waiter};

/// How badly others want what a queue holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wanted {
    /// Nobody waits.
    No,
    /// Somebody waits: give back what is idle.
    IfIdle,
    /// Somebody waits who has less than a fair share while this queue has more: give back at the end of a run.
    Yes,
}

/// What a dispatcher asks of the shared table. Calls are short; none of them blocks on anything but a mutex.
pub trait Permits {
    /// Takes a permit for a worker. Refused: the queue stands in line and will be notified.
    fn take_worker(&self, queue: QueueId) -> bool;
    /// Gives one back.
    fn return_worker(&self, queue: QueueId);
    /// Leaves the line: the permit it was notified of is not needed. Nothing happens if it stands in none.
    fn decline_worker(&self, queue: QueueId);
    /// Whether others want the workers that `queue` holds.
    fn worker_wanted(&self, queue: QueueId) -> Wanted;
    /// Takes a permit for a session with `site`. Refused: the queue stands in the site's line and will be notified,
    /// unless it was refused for a limit of its own, which only its own return can change.
    fn take_session(&self, site: SiteId, queue: QueueId) -> bool;
    /// Gives one back.
    fn return_session(&self, site: SiteId, queue: QueueId);
    /// Leaves the site's line. Nothing happens if it does not stand in it.
    fn decline_session(&self, site: SiteId, queue: QueueId);
    /// Whether others want the sessions that `queue` holds with `site`.
    fn session_wanted(&self, site: SiteId, queue: QueueId) -> Wanted;
    /// The number of sessions `queue` may count on at `site`: its window, divided among the queues that use it. At least 1.
    fn window(&self, site: SiteId, queue: QueueId) -> u32;
}

/// Something another queue has to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Who has to be told.
    pub queue: QueueId,
    /// A session with this site, or a worker if `None`.
    pub site: Option<SiteId>,
    /// What it is told.
    pub news: News,
}

impl Notice {
    fn new(queue: QueueId, site: Option<SiteId>, news: News) -> Notice {
        Notice { queue, site, news }
    }
}

/// What a [`Notice`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// A permit is free for you: take it or decline it (`Event::PermitFree`).
    Free,
    /// Somebody waits for what you hold (`Event::PermitWanted`).
    Wanted,
}

/// The table of all permits.
#[derive(Debug)]
pub struct PermitTable {
    workers_max: u32,
    window: u32,
    workers: Stock,
    sites: HashMap<SiteId, Stock>,
    site_windows: HashMap<SiteId, u32>,
    queue_windows: HashMap<QueueId, u32>,
    /// What share of the workers each queue is due, compared with others; 1 if nothing was said.
    weights: HashMap<QueueId, u32>,
    open: Vec<QueueId>,
    notices: Vec<Notice>,
}

impl PermitTable {
    /// Sessions that a site may see at once, unless it is told otherwise.
    pub const WINDOW: u32 = 20;

    /// A table for at most `workers_max` workers and, unless told otherwise, `window` sessions per site (at least 1 each).
    pub fn new(workers_max: u32, window: u32) -> PermitTable {
        PermitTable {
            workers_max: workers_max.max(1),
            window: window.max(1),
            workers: Stock::default(),
            sites: HashMap::new(),
            site_windows: HashMap::new(),
            queue_windows: HashMap::new(),
            weights: HashMap::new(),
            open: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// A queue that may get mail: a worker is kept for it.
    pub fn open(&mut self, queue: QueueId) {
        if !self.open.contains(&queue) {
            self.open.push(queue);
        }
    }

    /// A queue that will get no more mail and has none: nothing is kept for it, and it stands in no line.
    pub fn close(&mut self, queue: QueueId) {
        self.open.retain(|open| *open != queue);
        self.workers.leave_line(queue);
        self.notify_workers();
        let sites: Vec<SiteId> = self.sites.keys().copied().collect();
        for site in sites {
            self.decline_session(site, queue);
        }
    }

    /// What has to be told since the last call. The engine sends it to the inboxes.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Changes the maximum of workers of the process.
    pub fn set_workers_max(&mut self, workers_max: u32) {
        self.workers_max = workers_max.max(1);
        self.notify_workers();
    }

    /// Changes the window of sites that have none of their own.
    pub fn set_window(&mut self, window: u32) {
        self.window = window.max(1);
        let sites: Vec<SiteId> = self.sites.keys().copied().collect();
        for site in sites {
            self.notify_site(site);
        }
    }

    /// Changes the window of one site.
    pub fn set_site_window(&mut self, site: SiteId, window: u32) {
        self.site_windows.insert(site, window.max(1));
        self.notify_site(site);
    }

    /// Sets how many sessions `queue` may have with any one site. A queue that was refused for this limit is not told:
    /// it looks again when it hears of changed limits.
    pub fn set_queue_window(&mut self, queue: QueueId, window: u32) {
        self.queue_windows.insert(queue, window.max(1));
    }

    /// Sets what share of the workers `queue` is due while others want them, compared with their weights. It takes effect at
    /// the ends of runs.
    pub fn set_queue_weight(&mut self, queue: QueueId, weight: u32) {
        self.weights.insert(queue, weight.max(1));
    }

    fn weight(&self, queue: QueueId) -> u32 {
        self.weights.get(&queue).copied().unwrap_or(1)
    }

    /// Workers held by all queues.
    pub fn workers_held(&self) -> u32 {
        self.workers.held
    }

    /// Workers held by `queue`.
    pub fn workers_held_by(&self, queue: QueueId) -> u32 {
        self.workers.held_by(queue)
    }

    /// Sessions with `site` held by all queues.
    pub fn sessions_held(&self, site: SiteId) -> u32 {
        self.sites.get(&site).map_or(0, |stock| stock.held)
    }

    /// Sessions with `site` held by `queue`.
    pub fn sessions_held_by(&self, site: SiteId, queue: QueueId) -> u32 {
        self.sites
            .get(&site)
            .map_or(0, |stock| stock.held_by(queue))
    }

    /// The window of `site`.
    pub fn site_window(&self, site: SiteId) -> u32 {
        self.site_windows.get(&site).copied().unwrap_or(self.window)
    }

    /// Whether [`take_worker`](PermitTable::take_worker) would succeed now.
    pub fn would_take_worker(&self, queue: QueueId) -> bool {
        let reserved = self.reserved_from(queue);
        self.workers.grants(queue, self.workers_max, reserved)
    }

    /// Whether [`take_session`](PermitTable::take_session) would succeed now.
    pub fn would_take_session(&self, site: SiteId, queue: QueueId) -> bool {
        if self.sessions_held_by(site, queue) >= self.queue_window(queue) {
            return false;
        }
        let limit = self.site_window(site);
        self.sites
            .get(&site)
            .is_none_or(|stock| stock.grants(queue, limit, 0))
    }

    /// See [`Permits::take_worker`].
    pub fn take_worker(&mut self, queue: QueueId) -> bool {
        if self.would_take_worker(queue) {
            self.workers.add(queue);
            return true;
        }
        if self.workers.join_line(queue) {
            self.notices.extend(self.workers.pressure(queue, None));
        }
        false
    }

    /// See [`Permits::return_worker`].
    pub fn return_worker(&mut self, queue: QueueId) {
        self.workers.subtract(queue);
        self.notify_workers();
    }

    /// See [`Permits::decline_worker`].
    pub fn decline_worker(&mut self, queue: QueueId) {
        self.workers.leave_line(queue);
        self.notify_workers();
    }

    /// See [`Permits::worker_wanted`].
    pub fn worker_wanted(&self, queue: QueueId) -> Wanted {
        let weight = |queue| self.weight(queue);
        self.workers.wanted_from(queue, self.workers_max, weight)
    }

    /// See [`Permits::take_session`].
    pub fn take_session(&mut self, site: SiteId, queue: QueueId) -> bool {
        if self.sessions_held_by(site, queue) >= self.queue_window(queue) {
            return false;
        }
        let granted = self.would_take_session(site, queue);
        let stock = self.sites.entry(site).or_default();
        if granted {
            stock.add(queue);
        } else if stock.join_line(queue) {
            self.notices.extend(stock.pressure(queue, Some(site)));
        }
        granted
    }

    /// See [`Permits::return_session`].
    pub fn return_session(&mut self, site: SiteId, queue: QueueId) {
        if let Some(stock) = self.sites.get_mut(&site) {
            stock.subtract(queue);
        }
        self.notify_site(site);
    }

    /// See [`Permits::decline_session`].
    pub fn decline_session(&mut self, site: SiteId, queue: QueueId) {
        if let Some(stock) = self.sites.get_mut(&site) {
            stock.leave_line(queue);
        }
        self.notify_site(site);
    }

    /// See [`Permits::session_wanted`].
    pub fn session_wanted(&self, site: SiteId, queue: QueueId) -> Wanted {
        if self.sessions_held_by(site, queue) > self.queue_window(queue) {
            return Wanted::Yes;
        }
        let limit = self.site_window(site);
        self.sites
            .get(&site)
            .map_or(Wanted::No, |stock| stock.wanted_from(queue, limit, |_| 1))
    }

    /// See [`Permits::window`].
    pub fn window(&self, site: SiteId, queue: QueueId) -> u32 {
        let parties = self.sites.get(&site).map_or(1, Stock::parties);
        let share = self.site_window(site) / parties;
        share.clamp(1, self.queue_window(queue))
    }

    fn queue_window(&self, queue: QueueId) -> u32 {
        self.queue_windows.get(&queue).copied().unwrap_or(u32::MAX)
    }

    /// Workers that `queue` may not take, because open queues have none. One that has none itself takes any.
    fn reserved_from(&self, queue: QueueId) -> u32 {
        if self.workers.held_by(queue) == 0 {
            return 0;
        }
        // Those in line are counted by the line.
        let waits = |open: &QueueId| self.workers.line.iter().any(|w| w.queue == *open);
        let without = self
            .open
            .iter()
            .filter(|open| self.workers.held_by(**open) == 0 && !waits(open))
            .count();
        (without as u32).min(self.workers_max / 4)
    }

    /// Tells those in line for a worker who can have one now.
    fn notify_workers(&mut self) {
        for at in 0..self.workers.line.len() {
            let Waiter { queue, notified } = self.workers.line[at];
            if !notified && self.would_take_worker(queue) {
                self.workers.line[at].notified = true;
                self.notices.push(Notice::new(queue, None, News::Free));
            }
        }
    }

    /// Tells those in line for a session with `site` who can have one now; forgets a site that nobody uses.
    fn notify_site(&mut self, site: SiteId) {
        let limit = self.site_window(site);
        let Some(stock) = self.sites.get_mut(&site) else {
            return;
        };
        for at in 0..stock.line.len() {
            let Waiter { queue, notified } = stock.line[at];
            if !notified && stock.grants(queue, limit, 0) {
                stock.line[at].notified = true;
                self.notices
                    .push(Notice::new(queue, Some(site), News::Free));
            }
        }
        if stock.is_unused() {
            self.sites.remove(&site);
        }
    }
}

impl Permits for RefCell<PermitTable> {
    fn take_worker(&self, queue: QueueId) -> bool {
        self.borrow_mut().take_worker(queue)
    }
    fn return_worker(&self, queue: QueueId) {
        self.borrow_mut().return_worker(queue);
    }
    fn decline_worker(&self, queue: QueueId) {
        self.borrow_mut().decline_worker(queue);
    }
    fn worker_wanted(&self, queue: QueueId) -> Wanted {
        self.borrow().worker_wanted(queue)
    }
    fn take_session(&self, site: SiteId, queue: QueueId) -> bool {
        self.borrow_mut().take_session(site, queue)
    }
    fn return_session(&self, site: SiteId, queue: QueueId) {
        self.borrow_mut().return_session(site, queue);
    }
    fn decline_session(&self, site: SiteId, queue: QueueId) {
        self.borrow_mut().decline_session(site, queue);
    }
    fn session_wanted(&self, site: SiteId, queue: QueueId) -> Wanted {
        self.borrow().session_wanted(site, queue)
    }
    fn window(&self, site: SiteId, queue: QueueId) -> u32 {
        self.borrow().window(site, queue)
    }
}

#[cfg(test)]
mod tests;
