//! What all threads of a run share: settings, the batch, the way to the ledger, and the word to stop.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use socket2::Socket;

use super::book::Book;
use super::guard::Breakdown;
use super::hosts::Hosts;
use super::reach::Reach;
use super::settings::Settings;
use super::status::Gauges;
use super::stops::Stops;
use crate::batch::BatchStore;
use crate::mail::{QueueId, WorkerId};
use crate::net::Tls;

/// Shared by all threads of a run.
#[derive(Debug)]
pub struct Shared {
    /// How the run is to go.
    pub settings: Settings,
    /// The messages.
    pub store: Arc<BatchStore>,
    /// The way to the ledger.
    pub book: Book,
    /// For the eye.
    pub gauges: Arc<Gauges>,
    /// Open connections, to be cut when the time for a clean end is over.
    pub sockets: Sockets,
    /// What is known of hosts.
    pub hosts: Hosts,
    /// Whether anybody can be reached.
    pub reach: Reach,
    /// Sites that refuse us as the sender.
    pub stops: Stops,
    /// TLS connectors.
    pub tls: Tls,
    /// Workers whose threads are not at their end.
    pub workers_alive: AtomicUsize,
    stopping: AtomicBool,
    trouble: OnceLock<String>,
    early_end: OnceLock<EarlyEnd>,
    breakdown: OnceLock<Breakdown>,
    forgiven: OnceLock<Breakdown>,
}

impl Shared {
    /// Puts it together.
    pub fn new(
        settings: Settings,
        tls: Tls,
        store: Arc<BatchStore>,
        book: Book,
        gauges: Arc<Gauges>,
    ) -> Shared {
        Shared {
            settings,
            store,
            book,
            gauges,
            sockets: Sockets::default(),
            hosts: Hosts::default(),
            reach: Reach::default(),
            stops: Stops::default(),
            tls,
            workers_alive: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            trouble: OnceLock::new(),
            early_end: OnceLock::new(),
            breakdown: OnceLock::new(),
            forgiven: OnceLock::new(),
        }
    }

    /// Something that makes it useless to go on; the first of its kind is kept.
    pub fn despair(&self, why: &str) {
        let _ = self.trouble.set(why.to_owned());
    }

    /// What [`Shared::despair`] was told.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.get().map(String::as_str)
    }

    /// The run is to end in order before its work is done; the first reason is kept.
    pub fn end_early(&self, why: EarlyEnd) {
        let _ = self.early_end.set(why);
    }

    /// What [`Shared::end_early`] was told.
    pub fn early_end(&self) -> Option<&EarlyEnd> {
        self.early_end.get()
    }

    /// A thread has panicked; the first is kept.
    pub fn break_down(&self, what: Breakdown) {
        let _ = self.breakdown.set(what);
    }

    /// True if this panic of a worker is the first: it is kept, and the run goes on.
    pub fn forgive(&self, what: &Breakdown) -> bool {
        let first = self.forgiven.get_or_init(|| what.clone());
        first.thread == what.thread
    }

    /// The panic that was forgiven, if there was one.
    pub fn forgiven(&self) -> Option<&Breakdown> {
        self.forgiven.get()
    }

    /// What [`Shared::break_down`] was told.
    pub fn breakdown(&self) -> Option<&Breakdown> {
        self.breakdown.get()
    }

    /// No new transaction from now on.
    pub fn stop(&self) {
        // Whoever sees it must see the reason that was kept before.
        self.stopping.store(true, Release);
    }

    /// True once [`Shared::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }
}

/// Why a run is ended in order before its work is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EarlyEnd {
    /// The operator ordered it (`mailer ctl stop`).
    Order,
    /// A rule of `--stop-on` came true: which, and what it came to.
    Rule(String),
}

/// Open connections, by the worker that holds them. Touched once a session, never for a message.
#[derive(Debug, Default)]
pub struct Sockets {
    open: Mutex<HashMap<(QueueId, WorkerId), Weak<Socket>>>,
    cut: Arc<AtomicBool>,
}

impl Sockets {
    /// A worker opened a connection, in place of the one it had. After [`Sockets::cut`] it is cut at once.
    pub fn remember(&self, holder: (QueueId, WorkerId), connection: Weak<Socket>) {
        let mut open = self.lock();
        if self.cut.load(Relaxed) {
            cut(&connection);
        }
        open.insert(holder, connection);
    }

    /// True in it once connections are cut.
    pub fn cut_mark(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cut)
    }

    /// A worker is gone.
    pub fn forget(&self, queue: QueueId, worker: WorkerId) {
        self.lock().remove(&(queue, worker));
    }

    /// Cuts all connections: who waits for a reply learns at once that none will come.
    pub fn cut(&self) {
        let open = self.lock();
        self.cut.store(true, Relaxed);
        open.values().for_each(cut);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(QueueId, WorkerId), Weak<Socket>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut(connection: &Weak<Socket>) {
    if let Some(connection) = connection.upgrade() {
        let _ = connection.shutdown(std::net::Shutdown::Both);
    }
}
