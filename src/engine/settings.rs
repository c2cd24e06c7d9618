//! What a run is told: plain values, already checked, where they came from forgotten.
//!
//! [`Settings::default`] holds the defaults that the README's tables show; `mailer config` prints them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::portion::Portion;
use super::stop_on::StopRule;
use crate::dkim::Signers;
use crate::net::TlsFiles;
use crate::queue::pace::Rate;
use crate::retry::InDoubt;
use crate::route::providers::Providers;
use crate::smtp::settings::BDAT_BYTES_MAX;
use crate::smtp::{Credentials, Dsn, Protocol, TlsPolicy};
use crate::suppression::Suppression;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A key that mail is signed with (DKIM).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DkimKey {
    /// For mail from this domain and those below it.
    pub domain: String,
    /// Where it is published: `selector._domainkey.domain`.
    pub selector: String,
    /// The private key, in PEM.
    pub file: PathBuf,
}

/// Everything that shapes a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name in EHLO; `None` = the address of the connection as a literal (RFC 5321 4.1.4).
    pub hello: Option<String>,
    /// The port of MX hosts: 25, but for labs.
    pub port: u16,
    /// The addresses connections are made from, spread; empty = the system's choice.
    pub bind: Vec<IpAddr>,
    /// Relays that take all mail instead of the MX hosts, in order of preference.
    pub relays: Vec<Relay>,
    /// Mail is spread over the relays instead of going to the first that answers.
    pub relay_spread: bool,
    /// Relays that take mail which its own servers did not take, in order of preference.
    pub fallback: Vec<Relay>,
    /// Failures after which mail goes to them.
    pub fallback_after: u32,
    /// Who we are to the relays, the fallback ones included.
    pub credentials: Option<Credentials>,
    /// The credentials may be sent without TLS.
    pub auth_in_clear: bool,
    /// Whether sessions are protected, where neither queue nor domain says otherwise.
    pub tls: TlsPolicy,
    /// Certificates.
    pub tls_files: TlsFiles,
    /// Policies of single domains.
    pub domains: Vec<DomainSettings>,
    /// Content up to this many bytes may leave by BDAT where that saves a round trip; 0: never.
    pub bdat_bytes_max: u64,
    /// Notifications that are asked for, where servers offer them.
    pub dsn: Option<Dsn>,
    /// Whether loopback addresses may be used as MX hosts.
    pub allow_loopback: bool,
    /// Name servers; empty = the system's.
    pub dns: Vec<SocketAddr>,
    /// How long finding the hosts of one destination may take, all its look-ups together.
    pub dns_timeout: Duration,
    /// Where files of a run live.
    pub state: PathBuf,
    /// Worker threads of all queues together, at most.
    pub workers_max: u32,
    /// Simultaneous sessions with one site, at most, where its queue does not say otherwise.
    pub sessions_per_site: u32,
    /// Sessions that a site gets of which nothing is known; `None`: one, but relays get their maximum.
    pub window_start: Option<u32>,
    /// Sessions that a window's worth of accepted messages adds.
    pub window_step: f32,
    /// What must wait for each session of a site before a further one is opened, in units of what could be sent in the
    /// time that its opening takes; 0: nothing.
    pub session_backlog: u32,
    /// Messages to one site (from one source address), at most.
    pub rate: Option<Rate>,
    /// Connections to one site (from one source address), at most.
    pub connect_rate: Option<Rate>,
    /// Messages from one source address, whatever the site, at most.
    pub source_rate: Option<Rate>,
    /// Recipients of one transaction, at most.
    pub recipients_max: usize,
    /// Distinct messages that a site may refuse because of the sender, none accepted in between, before it is stopped for
    /// the rest of the run; 0: any number.
    pub sender_refusals: u32,
    /// Whether, when and where to sites get queues of their own while the run goes on.
    pub promote: Promote,
    /// When the run stops because too much of it goes wrong.
    pub stop_on: Vec<StopRule>,
    /// The keys that mail is signed with, as they were configured.
    pub dkim: Vec<DkimKey>,
    /// The same, ready to sign.
    pub signers: Arc<Signers>,
    /// Whom nothing is sent to.
    pub suppression: Suppression,
    /// Which of the mail this run takes.
    pub portion: Portion,
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
    /// How long a batch that was sent is not sent again.
    pub guard: Duration,
    /// How old the job is by now: its mail expires so much earlier.
    pub age: Duration,
    /// Mail of the job came at several times, none of it before this (milliseconds since 1970): what earlier runs left expires
    /// by its own first attempt when it is taken up again. `None`: it came all at once, and `age` says when.
    pub came_since: Option<i64>,
    /// Every intent is on disk before the final dot of its message leaves: what is recorded survives a loss of power, too.
    pub sync: bool,
    /// The journal is folded into the database whenever it has grown to this.
    pub segment_bytes: u64,
    /// Begin no new transaction after this time, if it was asked for; the default of `retry.run_for` ends retries only.
    pub stop_after: Option<Duration>,
    /// What is known of large providers.
    pub providers: Arc<Providers>,
    /// The file of the user's that is in it.
    pub providers_file: Option<PathBuf>,
    /// What is learned of receivers is kept for the next run.
    pub memory: bool,
    /// The specific queues, by the order of the configuration.
    pub queues: Vec<QueueSettings>,
    /// Nothing, but in tests of what becomes of a run whose threads fail: no flag, key or variable leads here.
    pub trip: Trip,
}

/// Where tests make a thread of the engine fail: called with the kind of thread as it takes something up.
#[derive(Clone, Default)]
pub struct Trip(Option<Arc<Wire>>);

type Wire = dyn Fn(&str) + Send + Sync;

impl Trip {
    /// One that calls `wire`.
    pub fn new(wire: impl Fn(&str) + Send + Sync + 'static) -> Trip {
        Trip(Some(Arc::new(wire)))
    }

    /// A thread of this kind takes something up.
    pub fn at(&self, kind: &str) {
        if let Some(wire) = &self.0 {
            wire(kind);
        }
    }
}

impl std::fmt::Debug for Trip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trip")
    }
}

/// A server that takes mail for all destinations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// It speaks TLS from the first byte.
    pub implicit_tls: bool,
    /// It listens on this socket of the machine instead.
    pub socket: Option<PathBuf>,
}

/// What is special about a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainSettings {
    /// The domain, or `.suffix` for all below it.
    pub pattern: String,
    /// Whether sessions for its mail are protected.
    pub tls: TlsPolicy,
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
    /// Messages of the whole queue, at most.
    pub rate: Option<Rate>,
    /// Connections of the whole queue, at most.
    pub connect_rate: Option<Rate>,
    /// Whether sessions are protected; `None` = the general setting.
    pub tls: Option<TlsPolicy>,
}

/// When sites get queues of their own while the run goes on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Promote {
    /// They do.
    pub is_on: bool,
    /// Sites with more than this share of the mail that is pending in the general queue,
    pub share: f64,
    /// and with more recipients than this.
    pub min: usize,
    /// Such queues at a time, at most.
    pub queues_max: u16,
}

impl Promote {
    /// The most queues for promoted sites that there can be.
    pub const QUEUES_MAX: u16 = 32;
}

impl Default for Promote {
    fn default() -> Promote {
        Promote {
            is_on: true,
            share: 0.005,
            min: 50,
            queues_max: Promote::QUEUES_MAX,
        }
    }
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
    /// STARTTLS, and the handshake.
    pub starttls: Duration,
    /// Each step of AUTH.
    pub auth: Duration,
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
    /// Whether it is sent again at all.
    pub in_doubt: InDoubt,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hello: None,
            port: 25,
            bind: Vec::new(),
            relays: Vec::new(),
            relay_spread: false,
            fallback: Vec::new(),
            fallback_after: 3,
            credentials: None,
            auth_in_clear: false,
            tls: TlsPolicy::May,
            tls_files: TlsFiles::default(),
            domains: Vec::new(),
            bdat_bytes_max: BDAT_BYTES_MAX,
            dsn: None,
            allow_loopback: false,
            dns: Vec::new(),
            dns_timeout: 10 * SECOND,
            state: PathBuf::new(),
            workers_max: 256,
            sessions_per_site: 20,
            window_start: None,
            window_step: 1.0,
            session_backlog: 8,
            rate: None,
            connect_rate: None,
            source_rate: None,
            recipients_max: 50,
            sender_refusals: 10,
            promote: Promote::default(),
            stop_on: Vec::new(),
            dkim: Vec::new(),
            signers: Arc::default(),
            suppression: Suppression::default(),
            portion: Portion::default(),
            idle: 2 * SECOND,
            session_age_max: 300 * SECOND,
            timeouts: Timeouts::default(),
            data_rate_min: 1000,
            retry: Retry::default(),
            guard: 20 * 60 * MINUTE,
            age: Duration::ZERO,
            came_since: None,
            sync: false,
            segment_bytes: 8 * 1024 * 1024,
            stop_after: None,
            providers: Providers::built_in(),
            providers_file: None,
            memory: true,
            queues: Vec::new(),
            trip: Trip::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: 10 * SECOND,
            greeting: MINUTE,
            ehlo: MINUTE,
            starttls: MINUTE,
            auth: MINUTE,
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
            in_doubt: InDoubt::Resend,
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
            &mut self.starttls,
            &mut self.auth,
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
