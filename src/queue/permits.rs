//! Permits: the one thing that queues share. How many workers the process may have, how many sessions a site may see, and
//! how fast.
//!
//! A queue takes a permit per worker, per session and per run of mail, never per message. [`PermitTable`] is the plain
//! table; the engine puts it behind a mutex and shows it to the dispatchers as [`Permits`]. What other queues have to be told
//! comes out as [`Notice`]s, which the engine sends to their inboxes after the mutex is released.
//!
//! A refused queue stands in line. Whoever comes later is refused as well, unless enough is free for all before it;
//! queues that hold nothing go before queues that want more. When a permit is free for the first in line it gets a
//! notice, and then it must take it or decline it: a notice never simply fades away. When somebody begins to wait, the
//! holders get a notice too: they give back what is idle at once, and at the end of a run what is more than their share.
//!
//! | what | limit | file |
//! |---|---|---|
//! | workers | of the process; a quarter is kept for open queues that have none yet, one each | here |
//! | sessions with a site | the window of each source address, and the queue's own maximum | `sessions`, `site` |
//! | sessions that are being opened | a quarter of the workers for further ones of a site, half for first ones | `connects` |
//! | messages and connections | rates of the site and source address, of the queue, of the source address | `rates` |
//!
//! INVARIANTS: permits held never exceed the limit when they were taken (a limit that is lowered takes effect as permits
//! come back); a queue stands in a line at most once; every line shorter than what is free has been notified.
//! Limits: lines and holders are short lists, as queues are few (tens); what a site has taught is kept until the run ends.

use std::collections::HashMap;
use std::time::Instant;

use super::pace::Pace;
use super::terms::{Bounds, SiteTerms};
use crate::mail::{QueueId, SiteId};

mod ask;
mod connects;
mod limits;
mod rates;
mod sessions;
mod site;
mod stock;

pub use ask::Permits;
pub use connects::Phase;
pub use limits::SiteStatus;
pub use rates::{Feedback, Slots};
pub use sessions::{Grant, Share};

use connects::Connects;
use site::Site;
use stock::{Stock, Waiter, Weights};

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

/// Something another queue has to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Who has to be told.
    pub queue: QueueId,
    /// About what.
    pub permit: Permit,
    /// What it is told.
    pub news: News,
}

/// What queues take, give back and wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Permit {
    /// A worker.
    Worker,
    /// A session with this site.
    Session(SiteId),
    /// The opening of a session.
    Connect(Phase),
    /// A message to this site: it may go earlier than the queue was told. Nobody stands in line for it.
    Slot(SiteId),
}

impl Notice {
    fn new(queue: QueueId, permit: Permit, news: News) -> Notice {
        Notice {
            queue,
            permit,
            news,
        }
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

/// The limits of one queue.
#[derive(Default, Debug)]
struct QueueLimits {
    /// Sessions with any one site.
    window: Option<u32>,
    rate: Option<Pace>,
    connect_rate: Option<Pace>,
}

/// The table of all permits.
#[derive(Debug)]
pub struct PermitTable {
    workers_max: u32,
    workers: Stock,
    weights: Weights,
    connects: Connects,
    /// Of sites that nobody introduced.
    general: SiteTerms,
    /// The same when the table was made.
    general_then: SiteTerms,
    /// The number of source addresses, at least 1.
    sources: u8,
    /// The rates of source addresses, if they have one.
    source_rates: Vec<Option<Pace>>,
    sites: HashMap<SiteId, Site>,
    queues: HashMap<QueueId, QueueLimits>,
    open: Vec<QueueId>,
    /// The latest instant that anybody spoke of.
    seen: Option<Instant>,
    notices: Vec<Notice>,
}

impl PermitTable {
    /// A table for at most `workers_max` workers where each site may have `window` sessions from the start (at least 1 each),
    /// at any rate.
    pub fn new(workers_max: u32, window: u32) -> PermitTable {
        let bounds = Bounds {
            start: window.max(1),
            max: window.max(1),
            ..Bounds::default()
        };
        let general = SiteTerms {
            bounds,
            ..SiteTerms::default()
        };
        PermitTable::with_terms(workers_max, general, 1)
    }

    /// A table for sites of these terms, with sessions from this many source addresses (at least 1).
    pub fn with_terms(workers_max: u32, general: SiteTerms, sources: u8) -> PermitTable {
        let sources = sources.max(1);
        PermitTable {
            workers_max: workers_max.max(1),
            workers: Stock::default(),
            weights: Weights::default(),
            connects: Connects::default(),
            general,
            general_then: general,
            sources,
            source_rates: (0..sources).map(|_| None).collect(),
            sites: HashMap::new(),
            queues: HashMap::new(),
            open: Vec::new(),
            seen: None,
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
        for phase in Phase::BOTH {
            self.decline_connect(queue, phase);
        }
        let sites: Vec<SiteId> = self.sites.keys().copied().collect();
        for site in sites {
            self.decline_session(site, queue);
        }
    }

    /// What has to be told since the last call. The engine sends it to the inboxes.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Workers held by all queues.
    pub fn workers_held(&self) -> u32 {
        self.workers.held
    }

    /// Workers held by `queue`.
    pub fn workers_held_by(&self, queue: QueueId) -> u32 {
        self.workers.held_by(queue)
    }

    /// Whether [`take_worker`](PermitTable::take_worker) would succeed now.
    pub fn would_take_worker(&self, queue: QueueId) -> bool {
        let reserved = self.reserved_from(queue);
        let free = self.workers_max.saturating_sub(self.workers.held);
        self.workers.grants(queue, free, reserved)
    }

    /// Takes a permit for a worker. Refused: the queue stands in line and will be notified.
    pub fn take_worker(&mut self, queue: QueueId) -> bool {
        if self.would_take_worker(queue) {
            self.workers.add(queue);
            return true;
        }
        if self.workers.join_line(queue) {
            let pressure = self.workers.pressure(queue, Permit::Worker);
            self.notices.extend(pressure);
        }
        false
    }

    /// Gives one back.
    pub fn return_worker(&mut self, queue: QueueId) {
        self.workers.subtract(queue);
        self.notify_workers();
    }

    /// Leaves the line: the permit it was notified of is not needed. Nothing happens if it stands in none.
    pub fn decline_worker(&mut self, queue: QueueId) {
        self.workers.leave_line(queue);
        self.notify_workers();
    }

    /// Whether others want the workers that `queue` holds.
    pub fn worker_wanted(&self, queue: QueueId) -> Wanted {
        if self.workers.held > self.workers_max {
            return Wanted::Yes; // The limit was lowered.
        }
        self.workers
            .wanted_from(queue, self.workers_max, self.workers_max, &self.weights)
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
                self.notices
                    .push(Notice::new(queue, Permit::Worker, News::Free));
            }
        }
    }
}

#[cfg(test)]
mod tests;
