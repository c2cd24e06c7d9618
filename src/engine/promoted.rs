//! The queues for promoted sites: their inboxes exist from the start, their threads start when they are first needed and
//! stay until the end of the run, with one site after another.
//!
//! The general queue's thread asks for one ([`crate::queue::Action::Promote`]). Before anything is sent from it, the journal
//! knows what the queue is called from now on: after the first domain of its site. Attempts of the site before stand before
//! that record, since a queue is taken again only when its last worker is gone.
//!
//! INVARIANTS: a queue without a thread has no mail: it gets some only after [`Slots::open`] has succeeded. Whatever was sent
//! to it before (limits, the word to stop, the end of input) lies in its inbox and is obeyed.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;

use super::queue::{Inbox, QueueThread, Ways};
use super::shared::Shared;
use crate::mail::QueueId;
use crate::queue::{Dispatcher, DispatcherConfig};

/// What a queue is made from that has no thread yet.
pub type Spare = (Receiver<Inbox>, DispatcherConfig);

/// The queues for promoted sites.
#[derive(Debug, Default)]
pub struct Slots {
    first: usize,
    waiting: Mutex<Vec<Option<Spare>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Slots {
    /// Queues from number `first` on, with these inboxes and configurations.
    pub fn new(first: usize, queues: Vec<Spare>) -> Slots {
        Slots {
            first,
            waiting: Mutex::new(queues.into_iter().map(Some).collect()),
            threads: Mutex::default(),
        }
    }

    /// Starts the thread of `queue`, unless it runs already.
    ///
    /// # Errors
    /// If no thread is to be had. The queue can be tried again.
    pub fn open(&self, queue: QueueId, ways: &Ways, shared: &Arc<Shared>) -> io::Result<()> {
        let mut waiting = lock(&self.waiting);
        let place = queue.index().checked_sub(self.first);
        let Some(entry) = place.and_then(|at| waiting.get_mut(at)) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let Some((inbox, config)) = entry.clone() else {
            return Ok(());
        };
        let dispatcher = Dispatcher::new(config, fastrand::u64(..));
        let body = QueueThread::new(queue, dispatcher, inbox, ways.clone(), Arc::clone(shared));
        let (name, watch) = (format!("queue {}", queue.0), ways.watch.clone());
        let as_watched = name.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            watch.over(&as_watched, || body.work());
        })?;
        *entry = None;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// True if `queue` has a thread that obeys what it is told.
    pub fn has_thread(&self, queue: QueueId) -> bool {
        let place = queue.index().checked_sub(self.first);
        let waiting = lock(&self.waiting);
        place.is_none_or(|at| waiting.get(at).is_some_and(Option::is_none))
    }

    /// Waits for the threads that were started. Nobody starts one any more.
    pub fn join(&self) {
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
