//! What is known of hosts: how far ahead of them it is safe to run, which do not answer, and which cannot
//! shake hands.
//!
//! **Running ahead.** A session starts at classic pipelining. Its first message that is taken proves that the host answers
//! a group of commands one by one; from then on the next message's commands leave with the final dot of this one (RFC 2920
//! 3.1). If a session ends in a way that this may have caused (replies out of step, 421 or end of file right behind such
//! a dot), the host is never run ahead of that far again.
//!
//! **Dead addresses** (RFC 5321 4.5.4.1: a client keeps a list of hosts it cannot reach). An address that refuses or does
//! not answer is left out for a while: one minute, then longer with each failure in a row, at most an hour. If all
//! addresses of a site are dead they are tried all the same: the dispatcher has decided that it is time.
//!
//! **TLS.** A handshake that failed or stalled is remembered. Where TLS is a wish and no must, an address is spoken to in
//! clear once handshakes with it have kept failing for as long as the first back-off of a recipient, five minutes unless
//! configured, and none has worked in between. So whoever wants to read along has to be there all that time; one failure,
//! or many in one moment, opens nothing to anybody's mail. From then on that holds for all mail to the address, first
//! attempts included: it is the host that cannot shake hands, and each message would learn the same. (Postfix asks for the
//! same five minutes, of each message; it has no memory of hosts that all deliveries share.) After an hour in clear TLS is
//! tried again.
//!
//! **Greylists.** What a host has put off at RCPT it will know when it is tried again; another host of the site may not, and the
//! wait would begin anew. So a session for mail that was put off is opened with that host first, whatever its preference.
//!
//! **From run to run.** What an earlier run knew of an address is brought in by [`Hosts::recall`] before the first session with
//! it, and [`Hosts::take_changed`] hands over what is to be kept (`memory` does both). What this run has met itself is never
//! overwritten by what another one remembers.
//!
//! Touched a few times a session, and for each recipient that is put off; never for a message that is taken.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mail::SiteId;
use crate::smtp::Pipelining;

const DEAD_SECS_MIN: u64 = 60;
const DEAD_SECS_MAX: u64 = 3600;
/// A host that could not shake hands is asked to again after this time.
const CLEAR_MAX: Duration = Duration::from_secs(3600);

/// What is known of hosts.
#[derive(Debug, Default)]
pub struct Hosts {
    known: Mutex<HashMap<IpAddr, Host>>,
    /// Of each site the host that put a recipient off last.
    put_off: Mutex<HashMap<SiteId, IpAddr>>,
}

/// What is known of one address.
#[derive(Clone, PartialEq, Debug)]
pub struct Host {
    /// How far it is safe to run ahead.
    pub level: Pipelining,
    /// BDAT went wrong.
    pub no_chunking: bool,
    /// When one of these two last became worse.
    pub suspected: Option<Instant>,
    /// Connections that failed in a row.
    pub failures: u32,
    /// It is left out until then.
    pub dead_until: Option<Instant>,
    /// The first and the latest handshake that failed, none having worked in between.
    pub handshakes_failed: Option<(Instant, Instant)>,
    /// An earlier run has met them, this one none yet.
    pub(super) is_tls_recalled: bool,
    /// What the last session that could be opened was like.
    pub last: Option<Opening>,
    /// Something is known that the memory has not been told.
    pub(super) is_changed: bool,
}

/// What a session that was opened shows of its host.
#[derive(Clone, PartialEq, Debug)]
pub struct Opening {
    /// How it is protected; empty: it is not.
    pub tls: Arc<str>,
    /// What is offered, in words.
    pub capabilities: Arc<str>,
    /// How long the connection took to open.
    pub rtt: Option<Duration>,
}

impl Default for Host {
    fn default() -> Host {
        Host {
            level: Pipelining::Cross,
            no_chunking: false,
            suspected: None,
            failures: 0,
            dead_until: None,
            handshakes_failed: None,
            is_tls_recalled: false,
            last: None,
            is_changed: false,
        }
    }
}

impl Hosts {
    /// The furthest a session with this host may run ahead.
    pub fn level(&self, host: IpAddr) -> Pipelining {
        self.look(host, |known| known.level)
    }

    /// A session that ran ahead this far ended suspiciously: one level less from now on.
    pub fn suspect(&self, host: IpAddr, level: Pipelining, now: Instant) {
        let less = match level {
            Pipelining::Cross => Pipelining::Classic,
            Pipelining::Classic | Pipelining::None => Pipelining::None,
        };
        self.change(host, |known| {
            if less < known.level {
                (known.level, known.suspected) = (less, Some(now));
            }
        });
    }

    /// The address refused a connection or did not answer. `jitter` from 0 to 1 spreads the next attempts.
    pub fn failed(&self, host: IpAddr, now: Instant, jitter: f64) {
        self.change(host, |known| {
            let secs = (DEAD_SECS_MIN << known.failures.min(6)).min(DEAD_SECS_MAX);
            known.failures += 1;
            known.dead_until = Some(now + Duration::from_secs(secs).mul_f64(0.75 + 0.5 * jitter));
        });
    }

    /// A host of the site has put a recipient off, as a greylist does: it is the one that will know him again.
    pub fn put_off(&self, site: SiteId, host: IpAddr) {
        let mut put_off = self.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        put_off.insert(site, host);
    }

    /// The host of the site that put a recipient off last.
    pub fn who_put_off(&self, site: SiteId) -> Option<IpAddr> {
        let put_off = self.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        put_off.get(&site).copied()
    }

    /// The address took a connection.
    pub fn answered(&self, host: IpAddr) {
        let fails = |known: &Host| known.failures > 0;
        if self.look(host, fails) {
            self.change(host, |known| (known.failures, known.dead_until) = (0, None));
        }
    }

    /// True if the address is to be left out for now.
    pub fn is_dead(&self, host: IpAddr, now: Instant) -> bool {
        self.look(host, |known| {
            known.dead_until.is_some_and(|until| now < until)
        })
    }

    /// A TLS handshake failed or stalled.
    pub fn handshake_failed(&self, host: IpAddr, now: Instant) {
        self.change(host, |known| {
            let is_recalled = std::mem::take(&mut known.is_tls_recalled);
            // One failure last night and one tonight are two, not a host that has kept failing.
            let before = known.handshakes_failed.filter(|(_, latest)| {
                !is_recalled || now.saturating_duration_since(*latest) < CLEAR_MAX
            });
            let first = before.map_or(now, |(first, _)| first);
            known.handshakes_failed = Some((first, now));
        });
    }

    /// A TLS handshake worked: what failed before was not the host's way.
    pub fn handshake_worked(&self, host: IpAddr) {
        if self.look(host, |known| known.handshakes_failed.is_some()) {
            self.change(host, |known| known.handshakes_failed = None);
        }
    }

    /// True if handshakes have failed for at least `patience`: where TLS is no must, the host is spoken to without.
    pub fn is_without_tls(&self, host: IpAddr, now: Instant, patience: Duration) -> bool {
        let failed = self.look(host, |known| known.handshakes_failed);
        failed.is_some_and(|(first, latest)| {
            latest.saturating_duration_since(first) >= patience
                && now.saturating_duration_since(latest) < CLEAR_MAX
        })
    }

    /// BDAT went wrong in a way that was not the mail's fault.
    pub fn chunking_failed(&self, host: IpAddr, now: Instant) {
        self.change(host, |known| {
            if !std::mem::replace(&mut known.no_chunking, true) {
                known.suspected = Some(now);
            }
        });
    }

    /// True if BDAT is worth a try.
    pub fn takes_chunks(&self, host: IpAddr) -> bool {
        !self.look(host, |known| known.no_chunking)
    }

    /// A session could be opened.
    pub fn opened(&self, host: IpAddr, opening: Opening) {
        self.change(host, |known| known.last = Some(opening));
    }

    /// Those of these hosts that nothing is known of yet.
    pub fn strangers(&self, hosts: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
        let known = self.lock();
        hosts.filter(|host| !known.contains_key(host)).collect()
    }

    /// An earlier run knew this of a host, or nothing. What this run has met itself stays.
    pub fn recall(&self, host: IpAddr, known: Option<Host>) {
        self.lock().entry(host).or_insert_with(|| Host {
            is_tls_recalled: true,
            ..known.unwrap_or_default()
        });
    }

    /// What this run has found out about hosts since it was asked last.
    pub fn take_changed(&self) -> Vec<(IpAddr, Host)> {
        let mut known = self.lock();
        let changed = known.iter_mut().filter(|(_, known)| known.is_changed);
        changed
            .map(|(host, known)| {
                known.is_changed = false;
                (*host, known.clone())
            })
            .collect()
    }

    /// What [`Hosts::take_changed`] handed over was not kept: it is handed over again.
    pub fn not_kept(&self, hosts: &[(IpAddr, Host)]) {
        let mut all = self.lock();
        for (host, _) in hosts {
            if let Some(known) = all.get_mut(host) {
                known.is_changed = true;
            }
        }
    }

    fn look<T>(&self, host: IpAddr, look: impl FnOnce(&Host) -> T) -> T {
        match self.lock().get(&host) {
            Some(known) => look(known),
            None => look(&Host::default()),
        }
    }

    fn change(&self, host: IpAddr, change: impl FnOnce(&mut Host)) {
        let mut all = self.lock();
        let known = all.entry(host).or_default();
        change(known);
        known.is_changed = true;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Host>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
