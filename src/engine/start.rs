//! How a run starts: each thread with its ends of the channels, the intake last.
//!
//! INVARIANT: if anything is missing (a certificate, an address to send from, a thread), nothing has been sent.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::book::{self, Book, Entry};
use super::control::{Control, Operator};
use super::guard::Watch;
use super::levers::Levers;
use super::limits;
use super::memory::{self, Memory};
use super::parts;
use super::past::Past;
use super::permits::SharedPermits;
use super::pool::{Crew, Pool};
use super::promoted::Slots;
use super::queue::{Inbox, QueueThread, Ways};
use super::resolve::{Finder, Policies};
use super::router::{self, Addressed, ReadEnd, Reading, Router};
use super::run::{Keeper, Running, StartError, Work, stop_all};
use super::settings::Settings;
use super::shared::Shared;
use super::sources;
use super::status::Gauges;
use crate::batch::BatchStore;
use crate::hosts::HostStore;
use crate::ledger::Ledger;
use crate::mail::{QueueId, SourceNo};
use crate::net::{self, Tls};
use crate::queue::Dispatcher;
use crate::route::RouteTable;

/// Chunks of messages that intake may be ahead of the router.
const CHUNKS_AHEAD: usize = 16;

/// Starts delivering: what earlier runs of the job left, and what the reader reads.
///
/// # Errors
/// [`StartError`]: nothing has been sent then.
pub fn start(mut work: Work, mut settings: Settings) -> Result<Running, StartError> {
    check_sources(&settings)?;
    let room = limits::room(&limits::look());
    settings.workers_max = settings.workers_max.min(room);
    let past = Past::of(&work.ledger, &work.store, &settings);
    let routing = Routing::of(&settings)?;
    let (to_ledger, entries) = unbounded();
    let book = Book::new(to_ledger, work.ledger.journal());
    let (inboxes, mut receivers): (Vec<_>, Vec<_>) =
        routing.names.iter().map(|_| unbounded()).unzip();
    let shared = share(settings, work.store, book, &routing.names)?;
    let watch = Watch::new(Arc::clone(&shared), &inboxes);
    let (keeper, over) = start_keeper(work.ledger, entries, &shared, &inboxes, &watch)?;
    let router = routing.router(&shared, &inboxes);
    let no_dns = Arc::new(AtomicBool::new(false));
    let (questions, asked) = unbounded();
    let permits = permits(
        &shared.settings,
        &routing.names[..routing.configured],
        &inboxes,
    );
    let spare = receivers.split_off(routing.configured);
    let slots = Arc::new(slots(routing.configured, spare, &shared.settings));
    let (memory, memory_keeper) = remember(work.memory.take(), &shared, &permits)?;
    let (answers, answered) = unbounded();
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
        finder: routing.finder,
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
    let levers = Arc::new(Levers {
        in_force: Mutex::new(shared.settings.clone()),
        routes: routing.routes,
        permits,
        inboxes: inboxes.clone(),
        room,
        slots,
    });
    let operator = Operator::new(
        Arc::clone(&levers),
        Arc::clone(&shared),
        router.names(),
        answered,
    );
    let (control, control_failure) = take_orders(work.job_dir, operator, &watch);
    let (to_router, from_intake) = bounded(CHUNKS_AHEAD);
    let router = start_router(router, from_intake, &shared, &watch)?;
    // Last, so that nothing is sent if a thread cannot be had.
    let reading = Reading {
        past,
        reader: work.reader,
        is_live: work.is_live,
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
        is_live: work.is_live,
        keeper,
        memory: memory_keeper,
        router,
        queues,
        over,
    })
}

/// What leads where: routes, TLS policies, what answers questions of destinations, and the names of the queues.
struct Routing {
    routes: Arc<RouteTable>,
    policies: Arc<Policies>,
    finder: Finder,
    /// Configured ones first; the names of those for promoted sites are empty.
    names: Vec<String>,
    configured: usize,
}

impl Routing {
    fn of(settings: &Settings) -> Result<Routing, StartError> {
        let routes = Arc::new(parts::routes(settings)?);
        let policies = Arc::new(parts::policies(settings)?);
        let finder = parts::finder(settings, &routes, &policies)?;
        let mut names = parts::queue_names(&routes);
        let configured = names.len();
        let promoted = usize::from(parts::promoted_queues(settings));
        names.resize(configured + promoted, String::new());
        Ok(Routing {
            routes,
            policies,
            finder,
            names,
            configured,
        })
    }

    fn router(&self, shared: &Shared, inboxes: &[Sender<Inbox>]) -> Router {
        let has_relays = !shared.settings.relays.is_empty();
        let relayed = has_relays.then(|| Arc::clone(&self.policies));
        let promotes = self.names.len() > self.configured;
        Router::new(
            Arc::clone(&self.routes),
            relayed,
            inboxes.to_vec(),
            promotes,
        )
    }
}

/// Opens the socket of the job, if it has a directory; or says why it has none.
fn take_orders(
    job_dir: Option<PathBuf>,
    operator: Operator,
    watch: &Watch,
) -> (Option<Control>, Option<io::Error>) {
    match job_dir.map(|dir| Control::start(&dir, operator, watch)) {
        Some(Ok(control)) => (Some(control), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    }
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

fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(StartError::Thread)
}
