//! How a receiver is set up. Every field has a default that a test can live with; `mailer sink` fills them from its flags.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::rule::Rule;
use super::tls::SinkTls;
use crate::smtp::server::ServerSettings;

/// Where a receiver listens. Never on anything but loopback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// All of 127/8 by one socket tied to the loopback device; where the system does not allow that, on these addresses.
    AllLoopback(Vec<IpAddr>),
    /// On exactly these addresses.
    Addresses(Vec<IpAddr>),
}

/// What becomes of messages that are taken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Storage {
    /// They are counted and forgotten.
    #[default]
    Count,
    /// They are kept in memory, each up to so many octets of content.
    Memory {
        /// The rest of a longer message is counted and forgotten.
        content_bytes_max: usize,
    },
    /// Each becomes a file in this Maildir, which is made if it does not exist.
    Maildir(PathBuf),
    /// They are appended to this mbox file (mboxrd), which is made if it does not exist.
    Mbox(PathBuf),
}

/// How a receiver is set up.
#[derive(Clone, PartialEq, Debug)]
pub struct SinkConfig {
    /// What EHLO offers, and limits of the protocol.
    pub server: ServerSettings,
    /// Offer STARTTLS, or begin with TLS.
    pub tls: Option<SinkTls>,
    /// 0 picks a free port.
    pub port: u16,
    /// Where to listen.
    pub listen: Listen,
    /// Misbehaviour, in order of precedence.
    pub rules: Vec<Rule>,
    /// For the rules' chances.
    pub seed: u64,
    /// What becomes of messages.
    pub storage: Storage,
    /// More connections at once are greeted with 421.
    pub connections_max: Option<u64>,
    /// More connections at once to one address are greeted with 421.
    pub connections_per_address_max: Option<u64>,
    /// After so many messages MAIL is answered with 421.
    pub messages_per_connection_max: Option<u64>,
    /// The first attempt at a recipient gets 451, as does each until so much time has passed.
    pub greylist: Option<Duration>,
    /// Wait so long before each flight of replies: a simulated round trip.
    pub latency: Duration,
    /// Look for messages that reach a recipient twice (by Message-ID, else by content).
    pub find_duplicates: bool,
    /// A client that says nothing for so long is let go.
    pub idle: Duration,
}

impl Default for SinkConfig {
    fn default() -> SinkConfig {
        SinkConfig {
            server: ServerSettings::default(),
            tls: None,
            port: 0,
            listen: Listen::AllLoopback(vec![Ipv4Addr::LOCALHOST.into()]),
            rules: Vec::new(),
            seed: 0,
            storage: Storage::Count,
            connections_max: None,
            connections_per_address_max: None,
            messages_per_connection_max: None,
            greylist: None,
            latency: Duration::ZERO,
            find_duplicates: false,
            idle: Duration::from_secs(300),
        }
    }
}

impl SinkConfig {
    /// A receiver for tests: it keeps whole messages in memory and looks for duplicates.
    pub fn keeping() -> SinkConfig {
        SinkConfig {
            storage: Storage::Memory {
                content_bytes_max: usize::MAX,
            },
            find_duplicates: true,
            ..SinkConfig::default()
        }
    }

    /// The same with one rule more, after the others.
    pub fn with_rule(mut self, rule: Rule) -> SinkConfig {
        self.rules.push(rule);
        self
    }

    /// The same with TLS.
    pub fn with_tls(mut self, tls: SinkTls) -> SinkConfig {
        self.tls = Some(tls);
        self
    }

    /// The same on a certain port.
    pub fn on_port(mut self, port: u16) -> SinkConfig {
        self.port = port;
        self
    }
}

/// Why a receiver cannot start.
#[derive(Debug)]
pub struct SinkError {
    /// What was tried.
    pub attempt: String,
    /// How the system answered.
    pub cause: std::io::Error,
}

impl SinkError {
    pub(super) fn new(attempt: impl Into<String>, cause: std::io::Error) -> SinkError {
        let attempt = attempt.into();
        SinkError { attempt, cause }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.attempt, self.cause)
    }
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}
