//! What a run is told: plain values, already checked, where they came from forgotten.
//!
//! [`Settings::default`] holds the defaults that the README's tables show; `mailer config` prints them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Everything that shapes a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name in EHLO; `None` = the address of the connection as a literal (RFC 5321 4.1.4).
    pub hello: Option<String>,
    /// The port of MX hosts: 25, but for labs.
    pub port: u16,
    /// The addresses connections are made from, spread; empty = the system's choice.
    pub bind: Vec<IpAddr>,
    /// A relay that takes all mail instead of the MX hosts.
    pub relay: Option<Relay>,
    /// Whether loopback addresses may be used as MX hosts.
    pub allow_loopback: bool,
    /// Name servers; empty = the system's.
    pub dns: Vec<SocketAddr>,
    /// How long one look-up may take.
    pub dns_timeout: Duration,
    /// Where files of a run live.
    pub state: PathBuf,
    /// Worker threads of all queues together, at most.
    pub workers_max: u32,
    /// Simultaneous sessions with one site, at most, where its queue does not say otherwise.
    pub sessions_per_site: u32,
    /// Recipients of one transaction, at most.
    pub recipients_max: usize,
    /// How long a worker without mail keeps its session and itself.
    pub idle: Duration,
    /// How long a session may be used at most; time, not count, so that fast servers get more mail than slow ones.
    pub session_age_max: Duration,
    /// Deadlines of the stages.
    pub timeouts: Timeouts,
    /// The least rate at which a server must take a message's content, in bytes per second.
    pub data_rate_min: u64,
    /// When deferred mail is tried again, and for how long.
    pub retry: Retry,
    /// Begin no new transaction after this time, if it was asked for; the default of `retry.run_for` ends retries only.
    pub stop_after: Option<Duration>,
    /// The specific queues, by the order of the configuration.
    pub queues: Vec<QueueSettings>,
}

/// A server that takes mail for all destinations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A specific queue of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueSettings {
    /// Its name in reports.
    pub name: String,
    /// Domains it handles: exact, or `.suffix` for all domains below.
    pub domains: Vec<String>,
    /// MX hosts whose destinations it handles: exact, or `.suffix`.
    pub mx: Vec<String>,
    /// Worker threads, at most; `None` = only the process-wide maximum.
    pub workers_max: Option<u32>,
    /// Sessions per site, at most; `None` = the general setting.
    pub sessions_per_site: Option<u32>,
}

/// Deadlines, each for the whole of its stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Opening a connection, per address, on the first attempt; up to three times as long on later ones.
    pub connect: Duration,
    /// The 220 greeting.
    pub greeting: Duration,
    /// EHLO and HELO.
    pub ehlo: Duration,
    /// MAIL.
    pub mail: Duration,
    /// RCPT.
    pub rcpt: Duration,
    /// DATA, until its 354.
    pub data: Duration,
    /// Writing the content; longer for what takes longer at the least rate allowed.
    pub body: Duration,
    /// The reply to the final dot. Too short makes duplicates (RFC 5321 4.5.3.2.6).
    pub dot: Duration,
    /// RSET.
    pub rset: Duration,
}

/// When deferred mail is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    /// The first delay.
    pub min: Duration,
    /// The longest delay.
    pub max: Duration,
    /// Mail deferred for longer than this is given up.
    pub expire: Duration,
    /// How long deferred mail is tried again in this run.
    pub run_for: Duration,
    /// How long mail in doubt waits before it is sent again, once.
    pub in_doubt_wait: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hello: None,
            port: 25,
            bind: Vec::new(),
            relay: None,
            allow_loopback: false,
            dns: Vec::new(),
            dns_timeout: 10 * SECOND,
            state: PathBuf::new(),
            workers_max: 256,
            sessions_per_site: 20,
            recipients_max: 50,
            idle: 2 * SECOND,
            session_age_max: 300 * SECOND,
            timeouts: Timeouts::default(),
            data_rate_min: 1000,
            retry: Retry::default(),
            stop_after: None,
            queues: Vec::new(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: 10 * SECOND,
            greeting: MINUTE,
            ehlo: MINUTE,
            mail: MINUTE,
            rcpt: 2 * MINUTE,
            data: 2 * MINUTE,
            body: 5 * MINUTE,
            dot: 10 * MINUTE,
            rset: 20 * SECOND,
        }
    }
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            min: 5 * MINUTE,
            max: 240 * MINUTE,
            expire: 5 * 24 * 60 * MINUTE,
            run_for: 60 * MINUTE,
            in_doubt_wait: 30 * MINUTE,
        }
    }
}

impl Timeouts {
    /// Caps every stage but the final dot's: shortening that one would make duplicates.
    pub fn cap(&mut self, limit: Duration) {
        for stage in [
            &mut self.connect,
            &mut self.greeting,
            &mut self.ehlo,
            &mut self.mail,
            &mut self.rcpt,
            &mut self.data,
            &mut self.body,
            &mut self.rset,
        ] {
            *stage = (*stage).min(limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_never_shortens_the_wait_after_the_dot() {
        let mut timeouts = Timeouts::default();
        timeouts.cap(SECOND);
        assert_eq!(
            (timeouts.mail, timeouts.body, timeouts.dot),
            (SECOND, SECOND, 10 * MINUTE)
        );
    }
}
