//! What all sessions of a receiver share, and how tests wait for it to change.
//!
//! INVARIANT: no lock here is held over I/O, and none over another but the one of those who wait, which guards nothing.
//! While nobody waits, a change costs a fence and a load.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openssl::ssl::SslAcceptor;
use xxhash_rust::xxh3::xxh3_64;

use super::config::{SinkConfig, SinkError};
use super::crew::Crew;
use super::duplicates::Deliveries;
use super::rule::RuleBook;
use super::stats::{AddressCounters, Counters, Stats};
use super::store::Store;
use super::tls::SinkTls;

pub(super) struct Shared {
    pub config: SinkConfig,
    pub acceptor: Option<SslAcceptor>,
    pub server: Arc<crate::smtp::server::ServerSettings>,
    pub rules: RuleBook,
    pub store: Store,
    pub counters: Counters,
    pub deliveries: Deliveries,
    pub crew: Arc<Crew>,
    pub sessions: AtomicU64,
    addresses: Mutex<HashMap<IpAddr, Arc<AddressCounters>>>,
    greylist: Mutex<HashMap<u64, Instant>>,
    waiters: AtomicU64,
    lock: Mutex<()>,
    change: Condvar,
}

impl Shared {
    pub fn new(config: SinkConfig) -> Result<Shared, SinkError> {
        let mut server = config.server.clone();
        server.starttls |= config.tls.as_ref().is_some_and(|tls| !tls.implicit);
        let acceptor = config.tls.as_ref().map(SinkTls::acceptor).transpose()?;
        Ok(Shared {
            acceptor,
            server: Arc::new(server),
            rules: RuleBook::new(config.rules.clone()),
            store: Store::open(&config.storage)?,
            config,
            counters: Counters::default(),
            deliveries: Deliveries::default(),
            crew: Arc::default(),
            sessions: AtomicU64::new(0),
            addresses: Mutex::default(),
            greylist: Mutex::default(),
            waiters: AtomicU64::new(0),
            lock: Mutex::new(()),
            change: Condvar::new(),
        })
    }

    /// The counters of one of our addresses.
    pub fn address(&self, address: IpAddr) -> Arc<AddressCounters> {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.entry(address).or_default().clone()
    }

    /// True if the recipient is to be put off: it was never tried before, or too short a time ago.
    pub fn greylisted(&self, recipient: &str) -> bool {
        let Some(wait) = self.config.greylist else {
            return false;
        };
        let now = Instant::now();
        let mut greylist = self.greylist.lock().unwrap_or_else(PoisonError::into_inner);
        match greylist.entry(xxh3_64(recipient.as_bytes())) {
            std::collections::hash_map::Entry::Occupied(first) => {
                now.duration_since(*first.get()) < wait
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(now);
                true
            }
        }
    }

    pub fn stats(&self) -> Stats {
        let mut stats = self.counters.snapshot();
        if self.config.find_duplicates {
            stats.duplicates = Some(self.deliveries.duplicates());
        }
        let addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        stats.addresses = addresses
            .iter()
            .map(|(&ip, counters)| (ip, counters.snapshot()))
            .collect();
        stats
    }

    /// Something was counted: whoever waits looks again.
    pub fn changed(&self) {
        // Pairs with the one in `wait_until`: either we see the waiter, or the waiter sees what was counted.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.change.notify_all();
        }
    }

    /// Waits until the statistics fulfil a condition; false if that took too long.
    pub fn wait_until(&self, condition: impl Fn(&Stats) -> bool, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let fulfilled = loop {
            if condition(&self.stats()) {
                break true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            held = self
                .change
                .wait_timeout(held, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        fulfilled
    }
}
