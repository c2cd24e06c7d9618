//! The resolver pool's threads: few while the DNS answers, more while it keeps them waiting.
//!
//! A name that nobody answers for holds a thread until the look-up times out, and a batch may have hundreds of them. Mail
//! for others must not wait behind them: a thread that finds all others busy watches for a moment how many answers come, and
//! if they are few, the pool doubles. While many come it stays as it is: then the processors are the limit, and more
//! threads would only be in each other's way.
//!
//! INVARIANTS: never more than `THREADS_MAX` threads; a question is answered once, unless the run is stopping, when
//! nobody waits for the answer; the threads end when nobody can ask any more, and nobody waits for their end, since a
//! look-up cannot be cut short.
//!
//! Limits: so many names at once that are never answered still hold the others up, for one time-out at a time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::guard::Watch;
use super::memory::Memory;
use super::permits::SharedPermits;
use super::queue::{Inbox, Question};
use super::resolve::{Exchange, Finder, Found};
use super::router::DestinationNames;
use super::run::stop_all;
use super::shared::Shared;
use super::terms;
use crate::mail::QueueId;
use crate::queue::event::{Event, Resolution, Route};
use crate::queue::origin_of;

/// Threads at the start.
const THREADS: usize = 16;
/// Threads at most.
const THREADS_MAX: usize = 512;
/// A pool of which no thread became free for so long grows, ...
const STUCK_AFTER: Duration = Duration::from_millis(100);
/// ... unless so many answers came for each of its threads meanwhile: a look-up took 25 ms.
const ANSWERS_PER_THREAD: usize = 4;
/// Room for the resolver's futures, which are polled on these threads.
const STACK_BYTES: usize = 512 * 1024;

/// What the threads of the pool share.
pub struct Pool {
    /// Finds exchanges.
    pub finder: Finder,
    /// The destinations' names.
    pub names: DestinationNames,
    /// All queues' inboxes.
    pub inboxes: Vec<Sender<Inbox>>,
    /// The permits all queues share.
    pub permits: Arc<SharedPermits>,
    /// What all threads of the run share.
    pub shared: Arc<Shared>,
    /// What earlier runs knew.
    pub memory: Arc<Memory>,
    /// Set when no name server answers at all.
    pub no_dns: Arc<AtomicBool>,
    /// What is to be looked up.
    pub asked: Receiver<Question>,
    /// Over the threads.
    pub watch: Watch,
    /// The threads.
    pub crew: Crew,
}

/// How many threads there are, and how many of them look something up.
#[derive(Debug)]
pub struct Crew {
    most: usize,
    counts: Mutex<Counts>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    threads: usize,
    busy: usize,
    /// Look-ups that have ended.
    ended: usize,
    /// One thread is watching; the others look up meanwhile.
    is_watched: bool,
}

impl Pool {
    /// Starts the first threads.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(self) -> io::Result<()> {
        let first = THREADS.min(self.crew.most);
        Arc::new(self).grow(first)
    }

    fn grow(self: &Arc<Pool>, by: usize) -> io::Result<()> {
        for _ in 0..by {
            let pool = Arc::clone(self);
            self.crew.counts().threads += 1;
            let started = std::thread::Builder::new()
                .name("resolver".into())
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    let watch = pool.watch.clone();
                    watch.over("resolver", || pool.work());
                });
            if let Err(error) = started {
                self.crew.counts().threads -= 1;
                return Err(error);
            }
        }
        Ok(())
    }

    fn work(self: Arc<Pool>) {
        for question in &self.asked {
            if self.shared.is_stopping() {
                continue;
            }
            let missing = self.crew.begin();
            // Those that cannot be started are missed only as long as the DNS keeps the others waiting.
            let _ = self.grow(missing);
            self.answer(&question);
            self.crew.end();
        }
    }

    fn answer(&self, question: &Question) {
        self.shared.settings.trip.at("resolver");
        let (origin, is_fallback) = origin_of(question.destination);
        let Some(name) = self.names.get(origin.index()) else {
            return;
        };
        let resolution = self.resolve(name, is_fallback, question.queue);
        let _ = self.inboxes[question.queue.index()].send(Event::Resolved {
            destination: question.destination,
            resolution,
        });
        // After the answer, so that what waited for it is left with its reason.
        if self.no_dns.load(Relaxed) && !self.shared.is_stopping() {
            stop_all(&self.shared, &self.inboxes);
        }
    }

    fn resolve(&self, name: &str, is_fallback: bool, asker: QueueId) -> Resolution<Arc<Exchange>> {
        let found = match is_fallback {
            true => self.finder.find_fallback(name, asker),
            false => self.finder.find(name, asker),
        };
        match found {
            Ok(found) => {
                self.introduce(&found, asker);
                let ttl = found.exchange.plan.ttl.max(Duration::from_secs(1));
                Resolution::Known {
                    route: Route {
                        site: found.site,
                        plan: Arc::new(found.exchange),
                        expires: Instant::now() + ttl,
                    },
                    queue: found.queue,
                }
            }
            Err(failure) => {
                if !is_fallback && failure.is_no_server() && !self.finder.has_answer() {
                    self.no_dns.store(true, Relaxed);
                }
                let verdict = Arc::new(failure.verdict(&self.finder.subject(name, is_fallback)));
                if failure.is_soft() {
                    Resolution::Failed(verdict)
                } else {
                    Resolution::Refused(verdict)
                }
            }
        }
    }
}

impl Pool {
    /// Whoever is told of a site or an address knows what profiles and earlier runs know of it.
    fn introduce(&self, found: &Found, asker: QueueId) {
        found.meet(|| {
            let remembered = self.memory.meet(found.site, &found.key);
            let settings = &self.shared.settings;
            if let Some(terms) = terms::of_site(settings, found, asker, &remembered) {
                self.permits.introduce_once(found.site, terms);
            }
        });
        // Behind the addresses of a relay on a socket there is no host.
        if found
            .exchange
            .relays
            .iter()
            .any(|relay| relay.socket.is_some())
        {
            return;
        }
        let hosts = found.exchange.plan.hosts.iter();
        let addresses = hosts.flat_map(|host| host.addresses.iter().copied());
        self.memory.recall(addresses, &self.shared.hosts);
    }
}

impl Crew {
    /// A crew of at most so many threads, of those that this machine has room for.
    pub fn new(room: usize) -> Crew {
        Crew {
            most: room.clamp(1, THREADS_MAX),
            counts: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread takes up a question. Returns how many threads the pool is to grow by.
    fn begin(&self) -> usize {
        let mut counts = self.counts();
        counts.busy += 1;
        if counts.threads >= self.most || counts.is_watched || counts.busy < counts.threads {
            return 0;
        }
        counts.is_watched = true;
        let enough = counts.ended + ANSWERS_PER_THREAD * counts.threads;
        let is_stuck = |counts: &mut Counts| counts.busy >= counts.threads && counts.ended < enough;
        let (mut counts, waited) = self
            .freed
            .wait_timeout_while(counts, STUCK_AFTER, is_stuck)
            .unwrap_or_else(PoisonError::into_inner);
        counts.is_watched = false;
        if waited.timed_out() {
            counts.threads.min(self.most - counts.threads)
        } else {
            0
        }
    }

    /// It has answered.
    fn end(&self) {
        let mut counts = self.counts();
        counts.busy -= 1;
        counts.ended += 1;
        drop(counts);
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_doubles_when_all_are_stuck_and_only_then() {
        let crew = Crew::new(THREADS_MAX);
        crew.counts().threads = 3;
        assert_eq!((crew.begin(), crew.begin()), (0, 0));
        assert_eq!(crew.begin(), 3, "the last one found nobody free");
        crew.counts().threads += 3;
        assert_eq!(crew.begin(), 0);
        crew.end();
        assert_eq!(crew.counts().busy, 3);
    }

    #[test]
    fn a_pool_that_answers_all_the_time_stays_as_it_is_though_nobody_is_idle() {
        let crew = Crew::new(THREADS_MAX);
        crew.counts().threads = 3;
        crew.begin();
        crew.begin();
        std::thread::scope(|scope| {
            let last = scope.spawn(|| crew.begin());
            while !crew.counts().is_watched {
                std::thread::yield_now();
            }
            // Whoever ends one takes up the next before anybody sees it free, and does not watch, too.
            for _ in 0..ANSWERS_PER_THREAD * 3 {
                let mut counts = crew.counts();
                counts.ended += 1;
                drop(counts);
                crew.freed.notify_one();
            }
            assert_eq!(last.join().unwrap(), 0);
        });
        assert!(!crew.counts().is_watched);
    }

    #[test]
    fn one_thread_watches_and_the_others_work() {
        let crew = Crew::new(THREADS_MAX);
        *crew.counts() = Counts {
            threads: 3,
            busy: 2,
            ended: 0,
            is_watched: true,
        };
        assert_eq!(crew.begin(), 0);
    }

    #[test]
    fn the_pool_has_a_largest_size() {
        let crew = Crew::new(THREADS_MAX);
        *crew.counts() = Counts {
            threads: THREADS_MAX - 2,
            busy: THREADS_MAX - 3,
            ..Counts::default()
        };
        assert_eq!(crew.begin(), 2);
        *crew.counts() = Counts {
            threads: THREADS_MAX,
            busy: THREADS_MAX - 1,
            ..Counts::default()
        };
        assert_eq!(crew.begin(), 0);
    }
}
