//! The permit table behind its mutex, as the dispatchers see it. What other queues must be told goes to their inboxes
//! after the mutex is released.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::queue::Inbox;
use crate::mail::{QueueId, SiteId, SourceNo};
use crate::queue::event::Event;
use crate::queue::pace::Rate;
use crate::queue::permits::{News, PermitTable, Permits, SiteStatus};
use crate::queue::terms::{Learned, SiteTerms};

/// The one thing that queues share. Held for a session or a worker, never for a message, so the mutex is quiet.
#[derive(Debug)]
pub struct SharedPermits {
    table: Mutex<PermitTable>,
    inboxes: Vec<Sender<Inbox>>,
}

/// The limits that the operator sets.
#[derive(Clone, PartialEq, Debug)]
pub struct PermitLimits {
    /// Workers of the process, at most.
    pub workers_max: u32,
    /// The terms of sites that have none of their own.
    pub terms: SiteTerms,
    /// The rate of messages of each source address.
    pub source_rate: Option<Rate>,
    /// What queues have of their own, by their numbers: sessions with any one site, messages, connections.
    pub queues: Vec<(Option<u32>, Option<Rate>, Option<Rate>)>,
}

impl PermitLimits {
    fn put_into(&self, table: &mut PermitTable, now: Instant) {
        table.set_workers_max(self.workers_max);
        table.set_general(self.terms, now);
        table.set_source_rate(self.source_rate, now);
        for (number, (window, rate, connect_rate)) in self.queues.iter().enumerate() {
            let queue = QueueId(number as u16);
            table.set_queue_window(queue, *window);
            table.set_queue_rates(queue, *rate, *connect_rate, now);
        }
    }

    /// A table under these limits, for all these queues.
    pub fn table(&self, sources: u8) -> PermitTable {
        let mut table = PermitTable::with_terms(self.workers_max, self.terms, sources);
        for number in 0..self.queues.len() {
            table.open(QueueId(number as u16));
        }
        self.put_into(&mut table, Instant::now());
        table
    }
}

impl SharedPermits {
    /// Shares `table` among the queues whose inboxes these are, in the order of their numbers.
    pub fn new(table: PermitTable, inboxes: Vec<Sender<Inbox>>) -> SharedPermits {
        SharedPermits {
            table: Mutex::new(table),
            inboxes,
        }
    }

    /// Puts limits into force, now or while the run goes on.
    pub fn set_limits(&self, limits: &PermitLimits) {
        let now = Instant::now();
        self.change(|table| limits.put_into(table, now));
    }

    /// What is known of a site before its first session: see [`PermitTable::introduce`].
    pub fn introduce(&self, site: SiteId, terms: SiteTerms) {
        self.change(|table| table.introduce(site, terms, Instant::now()));
    }

    /// The same, unless the site is known already.
    pub fn introduce_once(&self, site: SiteId, terms: SiteTerms) {
        self.change(|table| table.introduce_once(site, terms, Instant::now()));
    }

    /// A queue that may get mail: a worker is kept for it.
    pub fn open(&self, queue: QueueId) {
        self.change(|table| table.open(queue));
    }

    /// What a site has come to.
    pub fn site_status(&self, site: SiteId) -> SiteStatus {
        self.change(|table| table.site_status(site))
    }

    /// What a site has taught a source address.
    pub fn learned(&self, site: SiteId, source: SourceNo) -> Learned {
        self.change(|table| table.learned(site, source))
    }

    /// The operator changes the limits of one site: see [`PermitTable::set_site_bounds`].
    pub fn set_site_bounds(
        &self,
        site: SiteId,
        sessions_max: Option<u32>,
        rate: Option<Option<Rate>>,
    ) {
        self.change(|table| table.set_site_bounds(site, sessions_max, rate, Instant::now()));
    }

    /// The weight of a queue where workers are shared out.
    pub fn set_queue_weight(&self, queue: QueueId, weight: u32) {
        self.change(|table| table.set_queue_weight(queue, weight));
    }

    /// A queue that will get no more mail and has none.
    pub fn close(&self, queue: QueueId) {
        self.change(|table| table.close(queue));
    }

    fn change<T>(&self, act: impl FnOnce(&mut PermitTable) -> T) -> T {
        let mut table: MutexGuard<'_, PermitTable> =
            self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut table);
        let notices = table.take_notices();
        drop(table);
        for notice in notices {
            let event = match notice.news {
                News::Free => Event::PermitFree {
                    permit: notice.permit,
                },
                News::Wanted => Event::PermitWanted {
                    permit: notice.permit,
                },
            };
            if let Some(inbox) = self.inboxes.get(notice.queue.index()) {
                // A queue whose thread has ended holds and wants nothing any more.
                let _ = inbox.send(event);
            }
        }
        outcome
    }
}

impl Permits for SharedPermits {
    fn with(&self, act: &mut dyn FnMut(&mut PermitTable)) {
        self.change(act);
    }
}
