//! What the receiver has seen, counted without locks while it works and read as one snapshot.
//!
//! A *turn* is one time that the receiver had sent replies and then had to wait for the client: one round trip of the
//! client's. Turns per message on reused sessions leave out each session's first two messages, where greeting, EHLO and the
//! first envelope cost turns of their own.
//!
//! INVARIANT: [`Stats`] is a snapshot of counters that move on while it is taken; each is exact once all sessions have ended.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::smtp::server::Violation;

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections turned away because too many were open.
    pub connections_refused: u64,
    /// Open now.
    pub open: u64,
    /// Most that were open at once.
    pub open_max: u64,
    /// Sessions that the receiver ended before their client said QUIT.
    pub cut: u64,
    /// Messages taken.
    pub messages: u64,
    /// Recipients of messages taken.
    pub recipients: u64,
    /// Octets of messages taken, without dot-stuffing.
    pub bytes: u64,
    /// From the first MAIL of all sessions to the last message taken: connecting and greeting are not in it, nor is what a
    /// client does before and after.
    pub span: Duration,
    /// Turns in all sessions.
    pub turns: u64,
    /// Messages taken as the third or a later one of their session.
    pub reused_messages: u64,
    /// Turns between those and the message before each.
    pub reused_turns: u64,
    /// Handshakes that succeeded.
    pub tls_sessions: u64,
    /// Handshakes that failed.
    pub tls_failures: u64,
    /// Messages taken inside TLS.
    pub tls_messages: u64,
    /// Sessions that authenticated.
    pub auth_sessions: u64,
    /// Replies of 400 and more that rules, greylisting and limits caused.
    pub refusals: u64,
    /// Broken rules of the protocol, those that were broken.
    pub violations: BTreeMap<&'static str, u64>,
    /// Deliveries of a message to a recipient who had it already; `None` if they are not looked for.
    pub duplicates: Option<u64>,
    /// By the address that was connected to.
    pub addresses: BTreeMap<IpAddr, AddressStats>,
}

/// What one address of the receiver has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressStats {
    /// Connections that were accepted.
    pub connections: u64,
    /// Open now.
    pub open: u64,
    /// Most that were open at once.
    pub open_max: u64,
    /// Messages taken.
    pub messages: u64,
}

impl Stats {
    /// Turns per message over everything; 0 without messages.
    pub fn turns_per_message(&self) -> f64 {
        ratio(self.turns, self.messages)
    }

    /// Turns per message on reused sessions, from each session's third message on; 0 without such.
    pub fn reused_turns_per_message(&self) -> f64 {
        ratio(self.reused_turns, self.reused_messages)
    }

    /// Most connections that one address had open at once.
    pub fn open_max_per_address(&self) -> u64 {
        self.addresses
            .values()
            .map(|address| address.open_max)
            .max()
            .unwrap_or(0)
    }

    /// All violations together.
    pub fn violations_total(&self) -> u64 {
        self.violations.values().sum()
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "messages {}, recipients {}, bytes {}, refusals {}",
            self.messages, self.recipients, self.bytes, self.refusals
        )?;
        writeln!(
            f,
            "connections {} (at once: {}, per address: {}; turned away: {}, cut: {}), addresses {}",
            self.connections,
            self.open_max,
            self.open_max_per_address(),
            self.connections_refused,
            self.cut,
            self.addresses.len()
        )?;
        write!(
            f,
            "turns {} ({:.2} per message, {:.2} on reused sessions)",
            self.turns,
            self.turns_per_message(),
            self.reused_turns_per_message()
        )?;
        if self.tls_sessions + self.tls_failures > 0 {
            write!(
                f,
                "\nTLS: sessions {}, messages {}, failed handshakes {}",
                self.tls_sessions, self.tls_messages, self.tls_failures
            )?;
        }
        if self.auth_sessions > 0 {
            write!(f, "\nauthenticated sessions {}", self.auth_sessions)?;
        }
        if let Some(duplicates) = self.duplicates {
            write!(f, "\nduplicates {duplicates}")?;
        }
        for (name, count) in &self.violations {
            write!(f, "\nviolation {name}: {count}")?;
        }
        Ok(())
    }
}

/// A number of things open at once, with its maximum.
#[derive(Default, Debug)]
pub(super) struct Gauge {
    now: AtomicU64,
    max: AtomicU64,
    total: AtomicU64,
}

impl Gauge {
    /// One more; returns how many there are now.
    pub fn enter(&self) -> u64 {
        self.total.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.max.fetch_max(now, Ordering::Relaxed);
        now
    }

    pub fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The time from a first event to the last one of another kind, whatever thread sees them.
#[derive(Default, Debug)]
pub(super) struct Span {
    first: OnceLock<Instant>,
    nanos: AtomicU64,
}

impl Span {
    /// It begins now, unless it began before.
    pub fn begin(&self, now: Instant) {
        // Who comes second is not the first.
        let _ = self.first.set(now);
    }

    /// It reaches at least to now, if it began at all.
    pub fn extend(&self, now: Instant) {
        if let Some(&first) = self.first.get() {
            let nanos = now.saturating_duration_since(first).as_nanos();
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.nanos.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    fn length(&self) -> Duration {
        Duration::from_nanos(read(&self.nanos))
    }
}

/// The counters behind [`Stats`].
#[derive(Default, Debug)]
pub(super) struct Counters {
    pub connections: Gauge,
    pub connections_refused: AtomicU64,
    pub cut: AtomicU64,
    pub messages: AtomicU64,
    pub recipients: AtomicU64,
    pub bytes: AtomicU64,
    pub span: Span,
    pub turns: AtomicU64,
    pub reused_messages: AtomicU64,
    pub reused_turns: AtomicU64,
    pub tls_sessions: AtomicU64,
    pub tls_failures: AtomicU64,
    pub tls_messages: AtomicU64,
    pub auth_sessions: AtomicU64,
    pub refusals: AtomicU64,
    pub violations: [AtomicU64; Violation::ALL.len()],
}

/// The counters behind [`AddressStats`].
#[derive(Default, Debug)]
pub(super) struct AddressCounters {
    pub connections: Gauge,
    pub messages: AtomicU64,
}

impl AddressCounters {
    pub fn snapshot(&self) -> AddressStats {
        AddressStats {
            connections: read(&self.connections.total),
            open: read(&self.connections.now),
            open_max: read(&self.connections.max),
            messages: read(&self.messages),
        }
    }
}

impl Counters {
    /// All but what is kept elsewhere (duplicates, addresses).
    pub fn snapshot(&self) -> Stats {
        Stats {
            connections: read(&self.connections.total),
            connections_refused: read(&self.connections_refused),
            open: read(&self.connections.now),
            open_max: read(&self.connections.max),
            // After `open`: who is in neither was not there.
            cut: read(&self.cut),
            messages: read(&self.messages),
            recipients: read(&self.recipients),
            bytes: read(&self.bytes),
            span: self.span.length(),
            turns: read(&self.turns),
            reused_messages: read(&self.reused_messages),
            reused_turns: read(&self.reused_turns),
            tls_sessions: read(&self.tls_sessions),
            tls_failures: read(&self.tls_failures),
            tls_messages: read(&self.tls_messages),
            auth_sessions: read(&self.auth_sessions),
            refusals: read(&self.refusals),
            violations: self.violations(),
            duplicates: None,
            addresses: BTreeMap::new(),
        }
    }

    fn violations(&self) -> BTreeMap<&'static str, u64> {
        Violation::ALL
            .into_iter()
            .map(|violation| (violation.name(), read(&self.violations[violation.index()])))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Adds to a counter; no other memory is ordered by it.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_lasts_from_the_first_beginning_to_the_latest_end() {
        let (span, start) = (Span::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        span.extend(at(1));
        assert_eq!(span.length(), Duration::ZERO, "not begun");
        span.begin(at(2));
        span.begin(at(3));
        assert_eq!(span.length(), Duration::ZERO, "nothing reached");
        span.extend(at(9));
        span.extend(at(7));
        assert_eq!(span.length(), Duration::from_secs(7));
    }

    #[test]
    fn the_report_names_everything() {
        let counters = Counters::default();
        counters.connections.enter();
        counters.connections.enter();
        counters.connections.leave();
        add(&counters.messages, 4);
        add(&counters.turns, 10);
        add(&counters.reused_messages, 2);
        add(&counters.reused_turns, 2);
        add(&counters.violations[Violation::BareLf.index()], 3);
        let stats = Stats {
            duplicates: Some(1),
            ..counters.snapshot()
        };
        let text = stats.to_string();
        for part in [
            "messages 4",
            "connections 2 (at once: 2",
            "turns 10 (2.50 per message, 1.00 on reused",
            "duplicates 1",
            "violation bare-lf: 3",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!((stats.open, stats.violations_total()), (1, 3));
    }
}
