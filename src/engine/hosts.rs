//! What is known of hosts in this run: how far ahead of them it is safe to run, which do not answer, and which cannot
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
//! Touched a few times a session, and for each recipient that is put off; never for a message that is taken.

use std::collections::HashMap;
use std::net::IpAddr;
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
#[derive(Clone, Copy, Debug)]
struct Host {
    level: Pipelining,
    failures: u32,
    dead_until: Option<Instant>,
    /// The first and the latest handshake that failed, none having worked in between.
    handshakes_failed: Option<(Instant, Instant)>,
    no_chunking: bool,
}

impl Default for Host {
    fn default() -> Host {
        Host {
            level: Pipelining::Cross,
            failures: 0,
            dead_until: None,
            handshakes_failed: None,
            no_chunking: false,
        }
    }
}

impl Hosts {
    /// The furthest a session with this host may run ahead.
    pub fn level(&self, host: IpAddr) -> Pipelining {
        self.of(host).level
    }

    /// A session that ran ahead this far ended suspiciously: one level less from now on.
    pub fn suspect(&self, host: IpAddr, level: Pipelining) {
        let less = match level {
            Pipelining::Cross => Pipelining::Classic,
            Pipelining::Classic | Pipelining::None => Pipelining::None,
        };
        self.change(host, |known| known.level = known.level.min(less));
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
        if self.lock().contains_key(&host) {
            self.change(host, |known| (known.failures, known.dead_until) = (0, None));
        }
    }

    /// True if the address is to be left out for now.
    pub fn is_dead(&self, host: IpAddr, now: Instant) -> bool {
        self.of(host).dead_until.is_some_and(|until| now < until)
    }

    /// A TLS handshake failed or stalled.
    pub fn handshake_failed(&self, host: IpAddr, now: Instant) {
        self.change(host, |known| {
            let first = known.handshakes_failed.map_or(now, |(first, _)| first);
            known.handshakes_failed = Some((first, now));
        });
    }

    /// A TLS handshake worked: what failed before was not the host's way.
    pub fn handshake_worked(&self, host: IpAddr) {
        if self.lock().contains_key(&host) {
            self.change(host, |known| known.handshakes_failed = None);
        }
    }

    /// True if handshakes have failed for at least `patience`: where TLS is no must, the host is spoken to without.
    pub fn is_without_tls(&self, host: IpAddr, now: Instant, patience: Duration) -> bool {
        let failed = self.of(host).handshakes_failed;
        failed.is_some_and(|(first, latest)| {
            latest.saturating_duration_since(first) >= patience
                && now.saturating_duration_since(latest) < CLEAR_MAX
        })
    }

    /// BDAT went wrong in a way that was not the mail's fault.
    pub fn chunking_failed(&self, host: IpAddr) {
        self.change(host, |known| known.no_chunking = true);
    }

    /// True if BDAT is worth a try.
    pub fn takes_chunks(&self, host: IpAddr) -> bool {
        !self.of(host).no_chunking
    }

    fn of(&self, host: IpAddr) -> Host {
        self.lock().get(&host).copied().unwrap_or_default()
    }

    fn change(&self, host: IpAddr, change: impl FnOnce(&mut Host)) {
        change(self.lock().entry(host).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Host>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    #[test]
    fn a_suspected_host_is_never_run_ahead_of_that_far_again() {
        let hosts = Hosts::default();
        assert_eq!(hosts.level(host()), Pipelining::Cross);
        hosts.suspect(host(), Pipelining::Cross);
        assert_eq!(hosts.level(host()), Pipelining::Classic);
        hosts.suspect(host(), Pipelining::Classic);
        hosts.suspect(host(), Pipelining::Cross);
        assert_eq!(hosts.level(host()), Pipelining::None);
        assert_eq!(hosts.level("192.0.2.2".parse().unwrap()), Pipelining::Cross);
    }

    #[test]
    fn a_dead_address_rests_longer_with_each_failure_and_is_alive_once_it_answers() {
        let (hosts, now) = (Hosts::default(), Instant::now());
        assert!(!hosts.is_dead(host(), now));
        hosts.failed(host(), now, 0.5);
        assert!(hosts.is_dead(host(), now + Duration::from_secs(59)));
        assert!(!hosts.is_dead(host(), now + Duration::from_secs(60)));
        hosts.failed(host(), now, 0.5);
        assert!(hosts.is_dead(host(), now + Duration::from_secs(119)));
        for _ in 0..40 {
            hosts.failed(host(), now, 1.0);
        }
        assert!(
            !hosts.is_dead(host(), now + Duration::from_secs(4501)),
            "at most an hour and its jitter"
        );
        hosts.answered(host());
        assert!(!hosts.is_dead(host(), now));
        hosts.failed(host(), now, 0.5);
        assert!(
            !hosts.is_dead(host(), now + Duration::from_secs(61)),
            "it starts again from a minute"
        );
    }

    #[test]
    fn a_host_is_without_tls_once_its_handshakes_have_failed_for_long_enough() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        let patience = Duration::from_secs(300);
        let at = |secs: u64| start + Duration::from_secs(secs);
        let is_without = |secs: u64| hosts.is_without_tls(host(), at(secs), patience);
        assert!(!is_without(0));
        hosts.handshake_failed(host(), at(0));
        assert!(!is_without(0) && !is_without(1000), "one failure is one");
        hosts.handshake_failed(host(), at(299));
        assert!(!is_without(299));
        hosts.handshake_failed(host(), at(300));
        assert!(is_without(300) && is_without(3899));
        assert!(!is_without(3900), "it is asked again after an hour");
        hosts.handshake_failed(host(), at(3901));
        assert!(is_without(3901), "and believed at once");
        hosts.handshake_worked(host());
        assert!(!is_without(3901));
        hosts.handshake_failed(host(), at(4000));
        assert!(!is_without(4000), "it starts again from nothing");
    }
}
