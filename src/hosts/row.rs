//! What is remembered of an address and of a site, and for how long each part of it holds.
//!
//! Times are milliseconds since 1970, as other runs and people read them. A row says what was true when it was written;
//! [`AddressRow::at`] and [`SiteRow::at`] say what of it is still believed:
//!
//! | what | holds for |
//! |---|---|
//! | an address that does not answer | until it says, at most an hour |
//! | handshakes that failed | an hour after the latest: what fails only now and then must not open anything in clear |
//! | how many sessions had grown, and the rate | 7 days; after one day half of the sessions |
//! | everything else: limits met, suspicions, capabilities | 30 days |
//!
//! INVARIANTS: no limit that is believed is 0 or not finite, whatever a file holds; a clock that was set back makes nothing
//! older than it is, and nothing valid for longer than the table says.

use std::net::IpAddr;
use std::sync::Arc;

use crate::queue::terms::Learned;
use crate::smtp::Pipelining;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Rows that nobody has confirmed for so long are forgotten.
pub const KEPT_MS: i64 = 30 * DAY_MS;
/// How long sessions and rate are believed.
const LEARNED_MS: i64 = 7 * DAY_MS;

/// What is remembered of one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressRow {
    /// The address.
    pub ip: IpAddr,
    /// How far it is safe to run ahead of it.
    pub level: Pipelining,
    /// BDAT went wrong with it.
    pub no_chunking: bool,
    /// When `level` or `no_chunking` last became worse.
    pub suspected_ms: Option<i64>,
    /// Connections that failed in a row.
    pub failures: u32,
    /// It is left out until then.
    pub dead_until_ms: Option<i64>,
    /// The first and the latest handshake that failed, none having worked in between.
    pub tls_failed_ms: Option<(i64, i64)>,
    /// How the last session was protected; empty: it was not.
    pub tls: Option<Arc<str>>,
    /// What it offered last, in words.
    pub capabilities: Option<Arc<str>>,
    /// How long it took to open the last connection.
    pub rtt_ms: Option<u32>,
    /// When something was last heard of it.
    pub seen_ms: i64,
}

impl AddressRow {
    /// An address that nothing is known of.
    pub fn new(ip: IpAddr, seen_ms: i64) -> AddressRow {
        AddressRow {
            ip,
            level: Pipelining::Cross,
            no_chunking: false,
            suspected_ms: None,
            failures: 0,
            dead_until_ms: None,
            tls_failed_ms: None,
            tls: None,
            capabilities: None,
            rtt_ms: None,
            seen_ms,
        }
    }

    /// What of it still holds; `None`: nothing.
    pub fn at(mut self, now_ms: i64) -> Option<AddressRow> {
        if age(self.seen_ms, now_ms) > KEPT_MS {
            return None;
        }
        self.seen_ms = self.seen_ms.min(now_ms);
        if self.suspected_ms.is_none_or(|at| age(at, now_ms) > KEPT_MS) {
            (self.level, self.no_chunking, self.suspected_ms) = (Pipelining::Cross, false, None);
        }
        self.dead_until_ms = self.dead_until_ms.filter(|until| *until > now_ms);
        match &mut self.dead_until_ms {
            Some(until) => *until = (*until).min(now_ms + HOUR_MS),
            None => self.failures = 0,
        }
        let is_recent =
            |(first, latest): &(i64, i64)| first <= latest && age(*latest, now_ms) < HOUR_MS;
        self.tls_failed_ms = self.tls_failed_ms.filter(is_recent);
        Some(self)
    }
}

/// What is remembered of one site, as one of our addresses sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct SiteRow {
    /// Its set of MX hosts, or its provider.
    pub key: Arc<str>,
    /// Our address; empty: the system's choice.
    pub source: Arc<str>,
    /// What was learned.
    pub learned: Learned,
    /// When that was confirmed last.
    pub learned_ms: i64,
    /// When it was last met.
    pub seen_ms: i64,
}

impl SiteRow {
    /// What of it still holds; `None`: nothing.
    pub fn at(mut self, now_ms: i64) -> Option<SiteRow> {
        if age(self.seen_ms, now_ms) > KEPT_MS {
            return None;
        }
        self.seen_ms = self.seen_ms.min(now_ms);
        let learned = &mut self.learned;
        let is_count = |count: &u32| *count > 0;
        learned.sessions_ceiling = learned.sessions_ceiling.filter(is_count);
        learned.messages_per_session = learned.messages_per_session.filter(is_count);
        learned.rate_per_minute = learned
            .rate_per_minute
            .filter(|rate| rate.is_finite() && *rate > 0.0);
        let age = age(self.learned_ms, now_ms);
        if age > LEARNED_MS {
            learned.window = 0;
            learned.rate_per_minute = None;
        } else if age > DAY_MS {
            // 0 stays what it means: not known.
            learned.window = learned.window.div_ceil(2);
        }
        self.learned_ms = self.learned_ms.min(now_ms);
        Some(self)
    }
}

/// How long ago something was; what is said to come was just now.
fn age(then_ms: i64, now_ms: i64) -> i64 {
    now_ms.saturating_sub(then_ms).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn address() -> AddressRow {
        AddressRow {
            level: Pipelining::None,
            no_chunking: true,
            suspected_ms: Some(NOW),
            failures: 3,
            dead_until_ms: Some(NOW + HOUR_MS / 2),
            tls_failed_ms: Some((NOW - HOUR_MS, NOW)),
            ..AddressRow::new("192.0.2.1".parse().unwrap(), NOW)
        }
    }

    #[test]
    fn an_address_is_dead_and_without_tls_for_an_hour_at_most() {
        assert_eq!(address().at(NOW), Some(address()));
        let later = address().at(NOW + HOUR_MS / 2).unwrap();
        assert_eq!((later.dead_until_ms, later.failures), (None, 0));
        assert!(later.tls_failed_ms.is_some());
        let tls_failed = |later: i64| address().at(NOW + later).unwrap().tls_failed_ms;
        assert!(tls_failed(HOUR_MS - 1).is_some() && tls_failed(HOUR_MS).is_none());
        let far = AddressRow {
            dead_until_ms: Some(i64::MAX),
            ..address()
        };
        assert_eq!(far.at(NOW).unwrap().dead_until_ms, Some(NOW + HOUR_MS));
    }

    #[test]
    fn a_suspicion_is_forgotten_after_thirty_days_although_the_host_is_met_each_day() {
        let met = |days: i64| AddressRow {
            seen_ms: NOW + days * DAY_MS,
            ..address()
        };
        let held = met(30).at(NOW + 30 * DAY_MS).unwrap();
        assert_eq!((held.level, held.no_chunking), (Pipelining::None, true));
        let over = met(31).at(NOW + 31 * DAY_MS).unwrap();
        assert_eq!((over.level, over.no_chunking), (Pipelining::Cross, false));
        assert_eq!(address().at(NOW + KEPT_MS + 1), None);
    }

    fn site() -> SiteRow {
        SiteRow {
            key: "mx.example.org".into(),
            source: "".into(),
            learned: Learned {
                window: 9,
                sessions_ceiling: Some(9),
                messages_per_session: Some(20),
                rate_per_minute: Some(600.0),
            },
            learned_ms: NOW,
            seen_ms: NOW,
        }
    }

    #[test]
    fn a_window_is_halved_after_a_day_and_forgotten_after_seven_and_limits_stay() {
        let at = |ms: i64| site().at(NOW + ms).unwrap().learned;
        assert_eq!(at(DAY_MS), site().learned);
        assert_eq!(at(DAY_MS + 1).window, 5);
        assert_eq!(at(7 * DAY_MS).window, 5);
        let old = at(7 * DAY_MS + 1);
        assert_eq!((old.window, old.rate_per_minute), (0, None));
        assert_eq!(old.sessions_ceiling, Some(9));
        assert_eq!(old.messages_per_session, Some(20));
        assert_eq!(site().at(NOW + KEPT_MS + 1), None);
        assert_eq!(site().at(NOW - DAY_MS).unwrap().learned, site().learned);
    }

    #[test]
    fn figures_that_would_never_send_are_not_believed() {
        let mut odd = site();
        odd.learned = Learned {
            window: 0,
            sessions_ceiling: Some(0),
            messages_per_session: Some(0),
            rate_per_minute: Some(f64::NAN),
        };
        let learned = odd.at(NOW).unwrap().learned;
        assert_eq!((learned.window, learned.sessions_ceiling), (0, None));
        assert_eq!(learned.messages_per_session, None);
        assert_eq!(learned.rate_per_minute, None);
    }
}
