//! A run: all threads put together, from the opened batch to the kept ledger.
//!
//! Threads: intake, router, one per queue with its workers, the resolver pool, and the ledger's. All of them start in `start`,
//! but queues start their workers and the resolver pool grows by itself. Channels between them are unbounded but for
//! intake to router, so that no cycle of full channels can stand still.
//!
//! The run ends when the ledger has heard that the batch is read and every recipient is settled for this run. Then the
//! queues are told that no more mail comes, retire their workers and end. If a thread panics it ends earlier: see `guard`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::book::Entry;
use super::control::Control;
use super::guard::Breakdown;
use super::levers::Levers;
use super::limits;
use super::memory::{self};
use super::queue::Inbox;
use super::router::ReadEnd;
use super::settings::Settings;
use super::shared::{EarlyEnd, Shared};
use super::status::Gauges;
use super::stops::StoppedSite;
use crate::batch::{BatchReader, BatchStore};
use crate::hosts::{HostStore, HostsError};
use crate::ledger::{Ledger, LedgerError};
use crate::net::TlsError;
use crate::queue::event::Event;

/// Why a run cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The resolver cannot start: no name server is configured.
    Resolver(String),
    /// The queues of the configuration contradict each other.
    Routes(String),
    /// This address is not one of this machine.
    Bind(std::net::IpAddr, io::Error),
    /// Certificates for TLS cannot be used, or, if no file is to blame, TLS cannot.
    Tls(TlsError),
    /// A thread cannot be started.
    Thread(io::Error),
    /// This machine has no room for a useful number of workers.
    Limits(String),
}

/// What a run works on.
pub struct Work {
    /// Reads the batch into `store`; `None` if an earlier run has read it to its end.
    pub reader: Option<BatchReader>,
    /// The messages: those that earlier runs of the job have read are in it.
    pub store: Arc<BatchStore>,
    /// What is known of their recipients.
    pub ledger: Ledger,
    /// Standard input or a pipe is being read: more may be long in coming.
    pub is_live: bool,
    /// What earlier runs have learned of receivers, and where this one keeps what it learns; `None`: it does without.
    pub memory: Option<HostStore>,
    /// The directory of the job, where the run can be controlled; `None`: it cannot.
    pub job_dir: Option<PathBuf>,
}

/// A run under way.
pub struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) levers: Arc<Levers>,
    pub(super) inboxes: Vec<Sender<Inbox>>,
    pub(super) control: Option<Control>,
    pub(super) control_failure: Option<io::Error>,
    pub(super) no_dns: Arc<AtomicBool>,
    pub(super) intake: JoinHandle<Option<ReadEnd>>,
    pub(super) is_live: bool,
    pub(super) keeper: Keeper,
    pub(super) memory: memory::Keeper,
    pub(super) router: JoinHandle<()>,
    pub(super) queues: Vec<JoinHandle<()>>,
    pub(super) over: Receiver<()>,
}

/// The ledger's thread.
pub(super) type Keeper = JoinHandle<(Ledger, Option<LedgerError>)>;

/// What a run came to.
#[derive(Debug)]
pub struct RunEnd {
    /// What became of every recipient.
    pub ledger: Ledger,
    /// The first failure to record something.
    pub ledger_failure: Option<LedgerError>,
    /// What reading the batch came to. `None` if standard input was still open when the run was stopped, or if reading
    /// broke down.
    pub read: Option<ReadEnd>,
    /// No name server answered at all.
    pub no_dns: bool,
    /// What made it useless to go on, if anything did.
    pub trouble: Option<String>,
    /// Why it was ended before its work was done, if the operator or a rule of `--stop-on` did that.
    pub early_end: Option<EarlyEnd>,
    /// Sites that nothing more was sent to, since their servers refuse us as the sender.
    pub stopped_sites: Vec<StoppedSite>,
    /// The thread whose panic ended the run, if one did: what is not settled is pending.
    pub breakdown: Option<Breakdown>,
    /// The worker that panicked and was replaced, if one was: what it was sending is in doubt.
    pub forgiven: Option<Breakdown>,
    /// Why what was learned of receivers is not kept, if it is not.
    pub memory_trouble: Option<HostsError>,
}

/// How many of the workers that are configured this machine has room for, and why not all of them. [`start`](super::start::start) keeps to it;
/// ask before it, to say so or to give up.
///
/// # Errors
/// [`StartError::Limits`]: too few to begin at all.
pub fn workers_allowed(settings: &Settings) -> Result<(u32, Option<String>), StartError> {
    limits::allowed(settings.workers_max, &limits::look()).map_err(StartError::Limits)
}

impl Running {
    /// The gauges, for progress.
    pub fn gauges(&self) -> &Gauges {
        &self.shared.gauges
    }

    /// Waits for the end of the run, at most `time`. True when it is over.
    pub fn wait(&self, time: Duration) -> bool {
        !matches!(self.over.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    /// Puts the limits of `settings` into force while the run goes on: see [`Levers::set_limits`].
    pub fn set_limits(&self, settings: &Settings) {
        // In one step: an order that comes meanwhile must not be undone by what was read before it.
        self.levers.change(|in_force| *in_force = settings.clone());
    }

    /// Why the run cannot be controlled, if it was to be.
    pub fn control_failure(&self) -> Option<&io::Error> {
        self.control_failure.as_ref()
    }

    /// Why the run is to end before its work is done, if somebody or something has decided so.
    pub fn early_end(&self) -> Option<&EarlyEnd> {
        self.shared.early_end()
    }

    /// What makes it useless to go on, if anything does: a relay that does not accept our credentials.
    pub fn trouble(&self) -> Option<&str> {
        self.shared.trouble()
    }

    /// The sites that refuse us as the sender and were therefore stopped, from number `from` on.
    pub fn stopped_sites(&self, from: usize) -> Vec<StoppedSite> {
        self.shared.stops.from(from)
    }

    /// True once no new transaction is begun any more, for whatever reason.
    pub fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }

    /// True if no server anywhere answers: the port is blocked here. With a fallback relay nobody gives up for that.
    pub fn is_blocked(&self) -> bool {
        let is_lost = self.shared.settings.fallback.is_empty();
        is_lost
            && self
                .shared
                .reach
                .is_blocked(self.shared.settings.timeouts.connect, Instant::now())
    }

    /// No new transaction from now on; those under way go on.
    pub fn stop(&self) {
        stop_all(&self.shared, &self.inboxes);
        if self.is_live {
            // Its reader may wait for ever: what has been read by now is the batch.
            self.shared.book.enter(Entry::ReadToEnd);
        }
    }

    /// Cuts all connections: transactions under way end, deferred or in doubt.
    pub fn cut(&self) {
        self.shared.sockets.cut();
    }

    /// Ends all threads, folds the journal, and hands over what the run came to. Call it once [`Running::wait`] has said that
    /// it is over.
    ///
    /// # Panics
    /// If the ledger's thread panicked: nothing is known then.
    pub fn finish(mut self) -> RunEnd {
        // Nobody is told to do what cannot be done any more.
        drop(self.control.take());
        for inbox in &self.inboxes {
            let _ = inbox.send(Event::InputClosed);
        }
        let waits = !self.is_live || self.intake.is_finished() || !self.shared.is_stopping();
        let read = if waits {
            self.intake.join().ok().flatten()
        } else {
            None
        };
        drop(self.inboxes);
        let slots = Arc::clone(&self.levers.slots);
        drop(self.levers);
        let breakdown = self.shared.breakdown().cloned();
        // After a breakdown some may wait for what never comes. They send nothing more.
        if read.is_some() && breakdown.is_none() {
            let _ = self.router.join();
        }
        // Queues wait for nobody but their workers, which have nothing left to do.
        for queue in self.queues.into_iter().filter(|_| breakdown.is_none()) {
            let _ = queue.join();
        }
        if breakdown.is_none() {
            slots.join();
        }
        let (mut ledger, mut ledger_failure) = self
            .keeper
            .join()
            .expect("the ledger's thread has panicked");
        if ledger_failure.is_none() {
            ledger_failure = ledger.finish().err();
        }
        RunEnd {
            ledger,
            ledger_failure,
            read,
            no_dns: self.no_dns.load(Relaxed),
            trouble: self.shared.trouble().map(str::to_owned),
            early_end: self.shared.early_end().cloned(),
            stopped_sites: self.shared.stops.from(0),
            breakdown,
            forgiven: self.shared.forgiven().cloned(),
            memory_trouble: self.memory.end(),
        }
    }
}

/// No new transaction in any queue from now on.
pub(super) fn stop_all(shared: &Shared, inboxes: &[Sender<Inbox>]) {
    shared.stop();
    for inbox in inboxes {
        let _ = inbox.send(Event::Stop);
    }
}
