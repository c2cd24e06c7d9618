//! The engine's side of the host memory: who is met for the first time is looked up, and what was learned is kept.
//!
//! One thread has the database open. Threads of the resolver pool ask it when a site or an address is new to this run, before
//! they answer, so that the first session begins with what is known; the answer has a time limit, after which the stranger is
//! one. Every 30 seconds, and at the end, the thread writes what has changed. Neither workers nor queues ever wait for it.
//!
//! `Clock` is the one place where instants of this run and times of other runs are converted.
//!
//! INVARIANTS: what goes wrong with the memory changes nothing for mail; a database that was empty at the start is not asked;
//! what could not be written is written with the next save. A failure of the last save is told at the end, in one line.
//!
//! Limits: what other runs learn while this one goes on is not noticed by it, but for sites and addresses it meets later.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::hosts::{Host, Hosts, Opening};
use super::shared::Shared;
use crate::hosts::{AddressRow, HostStore, HostsError, SiteRow};
use crate::mail::SiteId;
use crate::queue::terms::Learned;

/// How often what was learned is written.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// How often the last save is tried.
const SAVES_AT_LAST: u32 = 4;
/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// What is asked of the thread, and until when the answer is waited for.
struct Asked {
    ask: Ask,
    until: Instant,
}

/// What can be asked.
enum Ask {
    /// What is remembered of a site.
    Site(Arc<str>, Sender<Vec<SiteRow>>),
    /// What is remembered of these addresses.
    Addresses(Vec<IpAddr>, Sender<Vec<AddressRow>>),
    /// Save and end.
    End,
}

impl Asked {
    /// The question, if anybody still waits for the answer: a database that is locked must not be asked for nobody, over and
    /// over, while the end of the run waits.
    fn ask_in_time(self) -> Option<Ask> {
        let is_waited_for = matches!(self.ask, Ask::End) || Instant::now() < self.until;
        is_waited_for.then_some(self.ask)
    }
}

/// The memory, as the other threads see it.
#[derive(Debug)]
pub struct Memory {
    /// `None`: this run neither remembers nor keeps.
    way: Option<Way>,
    /// The sites of this run, with their keys.
    sites: Mutex<Vec<(SiteId, Arc<str>)>>,
    clock: Clock,
}

/// The way to the thread.
#[derive(Debug)]
struct Way {
    asks: Sender<Asked>,
    /// Nothing was remembered when the run began.
    is_blank: bool,
}

/// The thread, to be ended.
#[derive(Debug)]
pub struct Keeper {
    thread: Option<JoinHandle<Option<HostsError>>>,
    asks: Option<Sender<Asked>>,
}

/// What was learned of the sites of a run, from each of our addresses (empty: the system's choice).
pub type LearnedOf = Box<dyn Fn(SiteId) -> Vec<(Arc<str>, Learned)> + Send>;

impl Memory {
    /// One that remembers nothing and keeps nothing.
    pub fn none() -> Memory {
        Memory {
            way: None,
            sites: Mutex::default(),
            clock: Clock::start(),
        }
    }

    /// Starts the thread that has `store` open; `learned` is asked what the run has learned.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        store: Option<HostStore>,
        shared: Arc<Shared>,
        learned: LearnedOf,
    ) -> io::Result<(Arc<Memory>, Keeper)> {
        let Some(store) = store else {
            let keeper = Keeper {
                thread: None,
                asks: None,
            };
            return Ok((Arc::new(Memory::none()), keeper));
        };
        let (asks, asked) = unbounded();
        let memory = Arc::new(Memory {
            way: Some(Way {
                asks: asks.clone(),
                is_blank: store.is_empty().unwrap_or(false),
            }),
            ..Memory::none()
        });
        let mut scribe = Scribe {
            store,
            memory: Arc::clone(&memory),
            shared,
            learned,
            saved: HashMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("hosts".into())
            .spawn(move || scribe.work(&asked))?;
        let keeper = Keeper {
            thread: Some(thread),
            asks: Some(asks),
        };
        Ok((memory, keeper))
    }

    /// A site is met for the first time in this run. Returns what is remembered of it.
    pub fn meet(&self, site: SiteId, key: &Arc<str>) -> Vec<SiteRow> {
        let Some(way) = &self.way else {
            return Vec::new();
        };
        self.lock().push((site, Arc::clone(key)));
        way.ask(|answer| Ask::Site(Arc::clone(key), answer))
    }

    /// Brings in what is remembered of those of these addresses that `hosts` does not know.
    pub fn recall(&self, addresses: impl Iterator<Item = IpAddr>, hosts: &Hosts) {
        let Some(way) = self.way.as_ref().filter(|way| !way.is_blank) else {
            return;
        };
        let strangers = hosts.strangers(addresses);
        if strangers.is_empty() {
            return;
        }
        let rows = way.ask(|answer| Ask::Addresses(strangers.clone(), answer));
        for row in &rows {
            hosts.recall(row.ip, Some(self.clock.host(row)));
        }
        for ip in strangers {
            hosts.recall(ip, None);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(SiteId, Arc<str>)>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// An answer, or none in time.
    fn ask<T>(&self, question: impl FnOnce(Sender<Vec<T>>) -> Ask) -> Vec<T> {
        if self.is_blank {
            return Vec::new();
        }
        let (say, heard) = bounded(1);
        let until = Instant::now() + ANSWER_WITHIN;
        let ask = question(say);
        let _ = self.asks.send(Asked { ask, until });
        heard.recv_deadline(until).unwrap_or_default()
    }
}

impl Keeper {
    /// Has everything saved. Returns why that failed, if it did.
    pub fn end(self) -> Option<HostsError> {
        let until = Instant::now();
        let _ = self.asks?.send(Asked {
            ask: Ask::End,
            until,
        });
        // A bug there has been told by its panic, and costs nothing but the memory.
        self.thread?.join().ok().flatten()
    }
}

/// The thread.
struct Scribe {
    store: HostStore,
    memory: Arc<Memory>,
    shared: Arc<Shared>,
    learned: LearnedOf,
    /// What was written of sites.
    saved: HashMap<(Arc<str>, Arc<str>), Learned>,
}

impl Scribe {
    fn work(&mut self, asked: &Receiver<Asked>) -> Option<HostsError> {
        let mut due = Instant::now() + SAVE_EVERY;
        let mut is_swept = false;
        loop {
            match asked.recv_deadline(due).map(Asked::ask_in_time) {
                Ok(None) => {} // who asked is gone
                Ok(Some(Ask::Site(key, answer))) => {
                    let rows = self.store.site(&key, self.memory.clock.now_ms());
                    let _ = answer.send(rows.unwrap_or_default());
                }
                Ok(Some(Ask::Addresses(ips, answer))) => {
                    let _ = answer.send(self.addresses(&ips));
                }
                Ok(Some(Ask::End)) | Err(RecvTimeoutError::Disconnected) => {
                    let failure = self.save_at_last();
                    if !is_swept && failure.is_none() {
                        let _ = self.store.sweep(self.memory.clock.now_ms());
                    }
                    return failure;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= due {
                if self.save(false).is_ok() && !is_swept {
                    is_swept = self.store.sweep(self.memory.clock.now_ms()).is_ok();
                }
                due = Instant::now() + SAVE_EVERY;
            }
        }
    }

    /// The last save: there is no later one to make up for it, so another run's is waited for a little longer.
    fn save_at_last(&mut self) -> Option<HostsError> {
        let mut failure = None;
        for _ in 0..SAVES_AT_LAST {
            failure = self.save(true).err();
            if failure.as_ref().is_none_or(|error| error.is_unfit) {
                break;
            }
        }
        failure
    }

    fn addresses(&self, ips: &[IpAddr]) -> Vec<AddressRow> {
        let now = self.memory.clock.now_ms();
        let find = |ip: &IpAddr| self.store.address(*ip, now).ok().flatten();
        ips.iter().filter_map(find).collect()
    }

    /// Writes what is new. At the end every site that was met is, since it was seen.
    fn save(&mut self, is_end: bool) -> Result<(), HostsError> {
        let now_ms = self.memory.clock.now_ms();
        let hosts = self.shared.hosts.take_changed();
        let rows: Vec<AddressRow> = hosts
            .iter()
            .map(|(ip, host)| self.memory.clock.row(*ip, host, now_ms))
            .collect();
        let sites = self.sites(now_ms, is_end);
        if let Err(error) = self.store.save(&rows, &sites) {
            self.shared.hosts.not_kept(&hosts);
            return Err(error);
        }
        for row in sites {
            self.saved.insert((row.key, row.source), row.learned);
        }
        Ok(())
    }

    fn sites(&self, now_ms: i64, is_end: bool) -> Vec<SiteRow> {
        let met = self.memory.lock().clone();
        let mut rows = Vec::new();
        for (site, key) in met {
            for (source, learned) in (self.learned)(site) {
                if learned == Learned::default() {
                    continue;
                }
                let row = SiteRow {
                    key: Arc::clone(&key),
                    source,
                    learned,
                    learned_ms: now_ms,
                    seen_ms: now_ms,
                };
                let name = (Arc::clone(&row.key), Arc::clone(&row.source));
                if is_end || self.saved.get(&name) != Some(&row.learned) {
                    rows.push(row);
                }
            }
        }
        rows
    }
}

/// One moment, as this run counts and as everybody does.
#[derive(Clone, Copy, Debug)]
struct Clock {
    instant: Instant,
    ms: i64,
}

impl Clock {
    fn start() -> Clock {
        Clock {
            instant: Instant::now(),
            ms: jiff::Timestamp::now().as_millisecond(),
        }
    }

    fn now_ms(&self) -> i64 {
        self.ms_at(Instant::now())
    }

    /// An instant as others count.
    fn ms_at(&self, at: Instant) -> i64 {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        match at.checked_duration_since(self.instant) {
            Some(later) => self.ms.saturating_add(ms(later)),
            None => self
                .ms
                .saturating_sub(ms(self.instant.saturating_duration_since(at))),
        }
    }

    /// The instant of a time. What this machine cannot count back to was at the start of the run.
    fn instant_at(&self, ms: i64) -> Instant {
        let apart = Duration::from_millis(ms.abs_diff(self.ms));
        let at = match ms >= self.ms {
            true => self.instant.checked_add(apart),
            false => self.instant.checked_sub(apart),
        };
        at.unwrap_or(self.instant)
    }

    /// What is remembered, as the run counts.
    fn host(&self, row: &AddressRow) -> Host {
        let opening = row.tls.clone().map(|tls| Opening {
            tls,
            capabilities: row.capabilities.clone().unwrap_or_default(),
            rtt: row.rtt_ms.map(|ms| Duration::from_millis(u64::from(ms))),
        });
        Host {
            level: row.level,
            no_chunking: row.no_chunking,
            suspected: row.suspected_ms.map(|ms| self.instant_at(ms)),
            failures: row.failures,
            dead_until: row.dead_until_ms.map(|ms| self.instant_at(ms)),
            handshakes_failed: row
                .tls_failed_ms
                .map(|(first, latest)| (self.instant_at(first), self.instant_at(latest))),
            last: opening,
            ..Host::default()
        }
    }

    /// What the run knows, to be remembered.
    fn row(&self, ip: IpAddr, host: &Host, now_ms: i64) -> AddressRow {
        let last = host.last.as_ref();
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        AddressRow {
            level: host.level,
            no_chunking: host.no_chunking,
            suspected_ms: host.suspected.map(|at| self.ms_at(at)),
            failures: host.failures,
            dead_until_ms: host.dead_until.map(|at| self.ms_at(at)),
            tls_failed_ms: host
                .handshakes_failed
                .map(|(first, latest)| (self.ms_at(first), self.ms_at(latest))),
            tls: last.map(|last| Arc::clone(&last.tls)),
            capabilities: last.map(|last| Arc::clone(&last.capabilities)),
            rtt_ms: last.and_then(|last| last.rtt).map(ms),
            ..AddressRow::new(ip, now_ms)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Pipelining;

    #[test]
    fn what_is_kept_of_a_host_is_what_comes_back() {
        let clock = Clock::start();
        let at = |secs: i64| clock.instant_at(clock.ms + secs * 1000);
        let host = Host {
            level: Pipelining::Classic,
            no_chunking: true,
            suspected: Some(at(-86_400)),
            failures: 3,
            dead_until: Some(at(600)),
            handshakes_failed: Some((at(-7200), at(-3))),
            last: Some(Opening {
                tls: "".into(),
                capabilities: "SIZE".into(),
                rtt: Some(Duration::from_millis(20)),
            }),
            ..Host::default()
        };
        let row = clock.row("192.0.2.1".parse().unwrap(), &host, clock.ms);
        assert_eq!(row.dead_until_ms, Some(clock.ms + 600_000));
        assert_eq!(clock.host(&row), host);
        let later = Clock {
            instant: clock.instant + Duration::from_secs(50),
            ms: clock.ms + 50_000,
        };
        assert_eq!(later.host(&row).dead_until, host.dead_until);
    }

    #[test]
    fn times_that_no_instant_can_tell_do_no_harm() {
        let clock = Clock::start();
        for ms in [i64::MIN, i64::MAX, 0] {
            let _ = clock.ms_at(clock.instant_at(ms));
        }
        assert_eq!(clock.ms_at(clock.instant), clock.ms);
    }

    #[test]
    fn without_a_memory_nobody_is_asked_and_nothing_grows() {
        let (memory, hosts) = (Memory::none(), Hosts::default());
        assert_eq!(memory.meet(SiteId(1), &"a.test".into()), []);
        memory.recall(["192.0.2.1".parse().unwrap()].into_iter(), &hosts);
        assert_eq!(
            hosts
                .strangers(["192.0.2.1".parse().unwrap()].into_iter())
                .len(),
            1
        );
        assert!(memory.lock().is_empty());
    }

    #[test]
    fn a_question_is_dropped_once_nobody_waits_for_its_answer_and_the_end_never_is() {
        let (say, _heard) = bounded(1);
        let asked = |ask, until| Asked { ask, until }.ask_in_time();
        let question = || Ask::Site("a.test".into(), say.clone());
        let now = Instant::now();
        assert!(asked(question(), now).is_none());
        assert!(asked(question(), now + ANSWER_WITHIN).is_some());
        assert!(matches!(asked(Ask::End, now), Some(Ask::End)));
    }
}
