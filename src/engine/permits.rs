//! The permit table behind its mutex, as the dispatchers see it. What other queues must be told goes to their inboxes
//! after the mutex is released.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;

use super::queue::Inbox;
use crate::mail::{QueueId, SiteId};
use crate::queue::event::Event;
use crate::queue::permits::{News, PermitTable, Permits, Wanted};

/// The one thing that queues share. Held for a session or a worker, never for a message, so the mutex is quiet.
#[derive(Debug)]
pub struct SharedPermits {
    table: Mutex<PermitTable>,
    inboxes: Vec<Sender<Inbox>>,
}

impl SharedPermits {
    /// Shares `table` among the queues whose inboxes these are, in the order of their numbers.
    pub fn new(table: PermitTable, inboxes: Vec<Sender<Inbox>>) -> SharedPermits {
        SharedPermits {
            table: Mutex::new(table),
            inboxes,
        }
    }

    /// Changes limits: workers in total, sessions per site, and the sessions per site of some queues.
    pub fn set_limits(&self, workers_max: u32, window: u32, queue_windows: &[(QueueId, u32)]) {
        self.with(|table| {
            table.set_workers_max(workers_max);
            table.set_window(window);
            for (queue, window) in queue_windows {
                table.set_queue_window(*queue, *window);
            }
        });
    }

    /// A queue that may get mail: a worker is kept for it.
    pub fn open(&self, queue: QueueId) {
        self.with(|table| table.open(queue));
    }

    /// How much mail a queue has, as a weight: its share of the workers.
    pub fn set_queue_weight(&self, queue: QueueId, weight: u32) {
        self.with(|table| table.set_queue_weight(queue, weight));
    }

    /// A queue that will get no more mail and has none.
    pub fn close(&self, queue: QueueId) {
        self.with(|table| table.close(queue));
    }

    fn with<T>(&self, act: impl FnOnce(&mut PermitTable) -> T) -> T {
        let mut table: MutexGuard<'_, PermitTable> =
            self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut table);
        let notices = table.take_notices();
        drop(table);
        for notice in notices {
            let event = match notice.news {
                News::Free => Event::PermitFree { site: notice.site },
                News::Wanted => Event::PermitWanted { site: notice.site },
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
    fn take_worker(&self, queue: QueueId) -> bool {
        self.with(|table| table.take_worker(queue))
    }

    fn return_worker(&self, queue: QueueId) {
        self.with(|table| table.return_worker(queue));
    }

    fn decline_worker(&self, queue: QueueId) {
        self.with(|table| table.decline_worker(queue));
    }

    fn worker_wanted(&self, queue: QueueId) -> Wanted {
        self.with(|table| table.worker_wanted(queue))
    }

    fn take_session(&self, site: SiteId, queue: QueueId) -> bool {
        self.with(|table| table.take_session(site, queue))
    }

    fn return_session(&self, site: SiteId, queue: QueueId) {
        self.with(|table| table.return_session(site, queue));
    }

    fn decline_session(&self, site: SiteId, queue: QueueId) {
        self.with(|table| table.decline_session(site, queue));
    }

    fn session_wanted(&self, site: SiteId, queue: QueueId) -> Wanted {
        self.with(|table| table.session_wanted(site, queue))
    }

    fn window(&self, site: SiteId, queue: QueueId) -> u32 {
        self.with(|table| table.window(site, queue))
    }
}
