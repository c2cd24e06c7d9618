//! A run: all threads put together, from the opened batch to the kept ledger.
//!
//! Threads: intake, router, one per queue with its workers, the resolver pool, and the ledger's. All of them start here,
//! but queues start their workers and the resolver pool grows by itself. Channels between them are unbounded but for
//! intake to router, so that no cycle of full channels can stand still.
//!
//! The run ends when the ledger has heard that the batch is read and every recipient is settled for this run. Then the
//! queues are told that no more mail comes, retire their workers and end. If a thread panics it ends earlier: see `guard`.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::book::{self, Book, Entry};
use super::control::{Control, Operator};
use super::guard::{Breakdown, Watch};
use super::levers::Levers;
use super::limits;
use super::memory::{self, Memory};
use super::parts;
use super::past::Past;
use super::permits::SharedPermits;
use super::pool::{Crew, Pool};
use super::promoted::Slots;
use super::queue::{Inbox, QueueThread, Ways};
use super::router::{self, Addressed, ReadEnd, Reading, Router};
use super::settings::Settings;
use super::shared::{EarlyEnd, Shared};
use super::sources;
use super::status::Gauges;
use super::stops::StoppedSite;
use crate::batch::{BatchReader, BatchStore};
use crate::hosts::{HostStore, HostsError};
use crate::ledger::{Ledger, LedgerError};
use crate::mail::{QueueId, SourceNo};
use crate::net::{self, Tls, TlsError};
use crate::queue::Dispatcher;
use crate::queue::event::Event;

/// Chunks of messages that intake may be ahead of the router.
const CHUNKS_AHEAD: usize = 16;

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
    shared: Arc<Shared>,
    levers: Arc<Levers>,
    inboxes: Vec<Sender<Inbox>>,
    control: Option<Control>,
    control_failure: Option<io::Error>,
    no_dns: Arc<AtomicBool>,
    intake: JoinHandle<Option<ReadEnd>>,
    is_live: bool,
    keeper: Keeper,
    memory: memory::Keeper,
    router: JoinHandle<()>,
    queues: Vec<JoinHandle<()>>,
    over: Receiver<()>,
}

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

/// How many of the workers that are configured this machine has room for, and why not all of them. [`start`] keeps to it;
/// ask before it, to say so or to give up.
///
/// # Errors
/// [`StartError::Limits`]: too few to begin at all.
pub fn workers_allowed(settings: &Settings) -> Result<(u32, Option<String>), StartError> {
    limits::allowed(settings.workers_max, &limits::look()).map_err(StartError::Limits)
}

/// Starts delivering: what earlier runs of the job left, and what the reader reads.
///
/// # Errors
/// [`StartError`]: nothing has been sent then.
pub fn start(work: Work, mut settings: Settings) -> Result<Running, StartError> {
    let Work {
        reader,
        store,
        ledger,
        is_live,
        memory: store_of_hosts,
        job_dir,
    } = work;
    check_sources(&settings)?;
    let room = limits::room(&limits::look());
    settings.workers_max = settings.workers_max.min(room);
    let past = Past::of(&ledger, &store, &settings);
    let routes = Arc::new(parts::routes(&settings)?);
    let policies = Arc::new(parts::policies(&settings)?);
    let finder = parts::finder(&settings, &routes, &policies)?;
    let mut names = parts::queue_names(&routes);
    let configured = names.len();
    let promoted = parts::promoted_queues(&settings);
    names.resize(configured + usize::from(promoted), String::new());
    let (to_ledger, entries) = unbounded();
    let book = Book::new(to_ledger, ledger.journal());
    let (inboxes, mut receivers): (Vec<_>, Vec<_>) = names.iter().map(|_| unbounded()).unzip();
    let shared = share(settings, store, book, &names)?;
    let watch = Watch::new(Arc::clone(&shared), &inboxes);
    let (keeper, over) = start_keeper(ledger, entries, &shared, &inboxes, &watch)?;
    let relayed = (!shared.settings.relays.is_empty()).then_some(policies);
    let router = Router::new(Arc::clone(&routes), relayed, inboxes.clone(), promoted > 0);
    let no_dns = Arc::new(AtomicBool::new(false));
    let (questions, asked) = unbounded();
    let permits = permits(&shared.settings, &names[..configured], &inboxes);
    let spare = receivers.split_off(configured);
    let slots = Arc::new(slots(configured, spare, &shared.settings));
    let (memory, memory_keeper) = remember(store_of_hosts, &shared, &permits)?;
    let (answers, answered) = unbounded();
    let destinations = router.names();
    let ways = Ways {
        slots: Arc::clone(&slots),
        questions,
        names: router.names(),
        answers,
        permits: Arc::clone(&permits),
        inboxes: inboxes.clone(),
        watch: watch.clone(),
    };
    let queues = start_queues(receivers, ways, &shared)?;
    let pool = Pool {
        finder,
        names: router.names(),
        inboxes: inboxes.clone(),
        permits: Arc::clone(&permits),
        shared: Arc::clone(&shared),
        memory,
        no_dns: Arc::clone(&no_dns),
        asked,
        watch: watch.clone(),
        crew: Crew::new(limits::resolvers()),
    };
    pool.start().map_err(StartError::Thread)?;
    let (to_router, from_intake) = bounded(CHUNKS_AHEAD);
    let router = start_router(router, from_intake, &shared, &watch)?;
    // Last, so that nothing is sent if a thread cannot be had.
    let reading = Reading {
        past,
        reader,
        is_live,
    };
    let levers = Arc::new(Levers {
        in_force: Mutex::new(shared.settings.clone()),
        routes,
        permits,
        inboxes: inboxes.clone(),
        room,
        slots,
    });
    let operator = Operator::new(
        Arc::clone(&levers),
        Arc::clone(&shared),
        destinations,
        answered,
    );
    let control = job_dir.map(|dir| Control::start(&dir, operator, &watch));
    let (control, control_failure) = match control {
        Some(Ok(control)) => (Some(control), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let intake = start_intake(reading, to_router, &shared, watch)?;
    Ok(Running {
        shared,
        levers,
        inboxes,
        control,
        control_failure,
        no_dns,
        intake,
        is_live,
        keeper,
        memory: memory_keeper,
        router,
        queues,
        over,
    })
}

/// The queues for promoted sites. They are as patient as the others: their time counts from now.
fn slots(first: usize, inboxes: Vec<Receiver<Inbox>>, settings: &Settings) -> Slots {
    let queues = (first..).zip(inboxes).map(|(number, inbox)| {
        let config = parts::dispatcher_config(QueueId(number as u16), settings);
        (inbox, config)
    });
    Slots::new(first, queues.collect())
}

fn permits(settings: &Settings, names: &[String], inboxes: &[Sender<Inbox>]) -> Arc<SharedPermits> {
    let names = names.iter().map(String::as_str);
    let limits = parts::permit_limits(settings, settings.workers_max, names);
    let table = limits.table(sources::count(&settings.bind));
    Arc::new(SharedPermits::new(table, inboxes.to_vec()))
}

fn share(
    settings: Settings,
    store: Arc<BatchStore>,
    book: Book,
    queues: &[String],
) -> Result<Arc<Shared>, StartError> {
    let tls = Tls::new(&settings.tls_files, parts::tls_needs(&settings));
    let tls = tls.map_err(StartError::Tls)?;
    let gauges = Arc::new(Gauges::new(queues));
    Ok(Arc::new(Shared::new(settings, tls, store, book, gauges)))
}

/// The memory of hosts, and its thread.
fn remember(
    store: Option<HostStore>,
    shared: &Arc<Shared>,
    permits: &Arc<SharedPermits>,
) -> Result<(Arc<Memory>, memory::Keeper), StartError> {
    let names = sources::names(&shared.settings.bind);
    let permits = Arc::clone(permits);
    let learned = move |site| {
        let numbers = (0..).map(SourceNo);
        let of_source = |(name, number): (&Arc<str>, SourceNo)| {
            (Arc::clone(name), permits.learned(site, number))
        };
        names.iter().zip(numbers).map(of_source).collect()
    };
    Memory::start(store, Arc::clone(shared), Box::new(learned)).map_err(StartError::Thread)
}

fn check_sources(settings: &Settings) -> Result<(), StartError> {
    let check = |source| net::can_bind(source).map_err(|error| StartError::Bind(source, error));
    settings.bind.iter().copied().try_for_each(check)
}

type Keeper = JoinHandle<(Ledger, Option<LedgerError>)>;

/// Starts the ledger's thread; the channel says when the run is over.
fn start_keeper(
    ledger: Ledger,
    entries: Receiver<Entry>,
    shared: &Arc<Shared>,
    inboxes: &[Sender<Inbox>],
    watch: &Watch,
) -> Result<(Keeper, Receiver<()>), StartError> {
    let (say_over, over) = bounded(1);
    let (shared, inboxes) = (Arc::clone(shared), inboxes.to_vec());
    let watch = watch.clone();
    let keeper = thread("ledger", move || {
        let kept = book::keep(ledger, &entries, &shared, &watch, || {
            stop_all(&shared, &inboxes)
        });
        let _ = say_over.send(());
        kept
    })?;
    Ok((keeper, over))
}

fn start_queues(
    receivers: Vec<Receiver<Inbox>>,
    ways: Ways,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let start = |(number, inbox): (usize, Receiver<Inbox>)| {
        let id = QueueId(number as u16);
        let dispatcher = Dispatcher::new(
            parts::dispatcher_config(id, &shared.settings),
            fastrand::u64(..),
        );
        let queue = QueueThread::new(id, dispatcher, inbox, ways.clone(), Arc::clone(shared));
        let (name, watch) = (format!("queue {number}"), ways.watch.clone());
        let as_watched = name.clone();
        thread(&name, move || {
            watch.over(&as_watched, || queue.work());
        })
    };
    receivers.into_iter().enumerate().map(start).collect()
}

fn start_router(
    router: Router,
    from_intake: Receiver<Vec<Addressed>>,
    shared: &Shared,
    watch: &Watch,
) -> Result<JoinHandle<()>, StartError> {
    let (watch, trip) = (watch.clone(), shared.settings.trip.clone());
    thread("router", move || {
        watch.over("router", || router.work(&from_intake, &trip));
    })
}

fn start_intake(
    reading: Reading,
    to_router: Sender<Vec<Addressed>>,
    shared: &Arc<Shared>,
    watch: Watch,
) -> Result<JoinHandle<Option<ReadEnd>>, StartError> {
    let shared = Arc::clone(shared);
    thread("intake", move || {
        let end = watch.over("intake", || router::take_in(reading, &shared, &to_router));
        shared.gauges.read.store(true, Relaxed);
        shared.book.enter(Entry::ReadToEnd);
        end
    })
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

fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(StartError::Thread)
}
