//! What a run looks like from outside while it goes on: gauges that its threads set and the face reads.
//!
//! Only numbers for the eye: nothing is decided from them, so relaxed atomics do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use crate::mail::Status;

/// Gauges of the whole run.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Messages read so far.
    pub messages: AtomicU64,
    /// Recipients read so far.
    pub recipients: AtomicU64,
    /// Whether the batch has been read to its end.
    pub read: AtomicBool,
    counts: [AtomicU64; Status::ALL.len()],
    /// One for each queue, the general one first.
    pub queues: Vec<QueueGauges>,
}

/// Gauges of one queue.
#[derive(Debug)]
pub struct QueueGauges {
    name: RwLock<Arc<str>>,
    /// Worker threads.
    pub workers: AtomicU64,
    /// Workers on the ready list.
    pub ready: AtomicU64,
    /// Envelopes waiting for a worker.
    pub waiting: AtomicU64,
    /// Those of them that the operator holds.
    pub held: AtomicU64,
    /// Envelopes in the hands of workers.
    pub in_hand: AtomicU64,
    /// Envelopes waiting for their next attempt.
    pub delayed: AtomicU64,
    /// Recipients settled by this queue's workers.
    pub settled: AtomicU64,
}

impl Gauges {
    /// Gauges for queues of these names.
    pub fn new(queue_names: &[String]) -> Gauges {
        let queue = |name: &String| QueueGauges::new(name);
        Gauges {
            queues: queue_names.iter().map(queue).collect(),
            ..Gauges::default()
        }
    }

    /// Shows the counts of a ledger.
    pub fn show_counts(&self, counts: &[u64; Status::ALL.len()]) {
        for (gauge, count) in self.counts.iter().zip(counts) {
            gauge.store(*count, Relaxed);
        }
    }

    /// How many recipients stand at `status`.
    pub fn count(&self, status: Status) -> u64 {
        self.counts[status.index()].load(Relaxed)
    }
}

impl QueueGauges {
    fn new(name: &str) -> QueueGauges {
        let [workers, ready, waiting, held, in_hand, delayed, settled] = Default::default();
        QueueGauges {
            name: RwLock::new(Arc::from(name)),
            workers,
            ready,
            waiting,
            held,
            in_hand,
            delayed,
            settled,
        }
    }

    /// The queue's name; empty for a queue that waits for a promoted site.
    pub fn name(&self) -> Arc<str> {
        let name = self.name.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&name)
    }

    /// The queue has another site from now on, or none: what it settles is counted anew.
    pub fn rename(&self, name: &str) {
        self.settled.store(0, Relaxed);
        *self.name.write().unwrap_or_else(PoisonError::into_inner) = Arc::from(name);
    }
}
