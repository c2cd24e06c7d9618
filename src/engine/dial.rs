//! Opening a session with a site: its addresses in order, until one of them can hold an SMTP conversation.
//!
//! All addresses of one attempt are tried before the mail is deferred (RFC 5321 5.1): best preference first, ties at
//! random, both address families. A host that answers and refuses (4xx or 5xx greeting) is passed over like one that
//! does not answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use socket2::Socket;

use super::resolve::Exchange;
use super::session::{Manner, Session};
use super::shared::Shared;
use crate::dns::MxAddress;
use crate::mail::{Enhanced, Scope, SiteId, Stage, Status, Verdict};
use crate::net;

/// Later attempts wait at most so many times as long for a connection as the first.
const PATIENCE_MAX: u32 = 3;

/// A site could not be reached: the verdict for the mail that waits, and the last address that was tried.
#[derive(Debug)]
pub struct Unreached {
    /// Deferred, scope host.
    pub verdict: Verdict,
    /// Who said or did not say it.
    pub mx: Arc<str>,
    /// At which address.
    pub ip: Option<std::net::IpAddr>,
}

/// How a session is wanted.
#[derive(Debug)]
pub struct Wish<'a> {
    /// With which site.
    pub site: SiteId,
    /// How it is reached.
    pub exchange: &'a Exchange,
    /// Attempts that failed before: later ones are more patient.
    pub failures: u8,
}

/// Opens a session.
///
/// # Errors
/// [`Unreached`], after all addresses were tried.
pub fn open(
    wish: &Wish<'_>,
    shared: &Shared,
    rng: &mut fastrand::Rng,
) -> Result<Session, Unreached> {
    let mut places = wish.exchange.plan.ordered(rng);
    let now = Instant::now();
    if places
        .iter()
        .any(|place| !shared.hosts.is_dead(place.address, now))
    {
        places.retain(|place| !shared.hosts.is_dead(place.address, now));
    }
    let mut last = None;
    for place in places {
        match open_at(wish, &place, shared, rng) {
            Ok(session) => return Ok(session),
            Err(verdict) => {
                last = Some(Unreached {
                    verdict,
                    mx: place.host,
                    ip: Some(place.address),
                })
            }
        }
    }
    Err(last.unwrap_or_else(nowhere))
}

fn nowhere() -> Unreached {
    let text = "no address to connect to";
    let verdict = Verdict::own(
        Status::Deferred,
        Scope::Host,
        Stage::Connect,
        Enhanced::new(4, 4, 4),
        text,
    );
    Unreached {
        verdict,
        mx: "".into(),
        ip: None,
    }
}

fn open_at(
    wish: &Wish<'_>,
    place: &MxAddress,
    shared: &Shared,
    rng: &mut fastrand::Rng,
) -> Result<Session, Verdict> {
    let stream = connect(wish, place, shared, rng)?;
    let settings = &shared.settings;
    let hello = settings
        .hello
        .clone()
        .unwrap_or_else(|| address_literal(&stream));
    let manner = Manner {
        hello,
        level: shared.hosts.level(place.address),
        recipients_max: settings.recipients_max,
        timeouts: settings.timeouts,
        data_rate_min: settings.data_rate_min,
    };
    Session::open(stream, wish.site, place, manner)
}

fn connect(
    wish: &Wish<'_>,
    place: &MxAddress,
    shared: &Shared,
    rng: &mut fastrand::Rng,
) -> Result<Socket, Verdict> {
    let settings = &shared.settings;
    let peer = SocketAddr::new(place.address, wish.exchange.port);
    let sources: Vec<IpAddr> = settings
        .bind
        .iter()
        .filter(|source| source.is_ipv4() == peer.is_ipv4())
        .copied()
        .collect();
    let patience = settings.timeouts.connect * (u32::from(wish.failures) + 1).min(PATIENCE_MAX);
    let began = Instant::now();
    let connected = net::connect(peer, rng.choice(sources), began + patience);
    match &connected {
        Ok(_) => shared.hosts.answered(place.address),
        Err(error) if is_ours(error) => {}
        Err(_) => shared.hosts.failed(place.address, began, rng.f64()),
    }
    match &connected {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            shared.reach.timed_out(wish.site, began)
        }
        Err(error) if is_ours(error) => {}
        Ok(_) | Err(_) => shared.reach.answered(),
    }
    connected.map_err(|error| {
        let text = format!(
            "connect to {}[{}]:{}: {}",
            place.host,
            place.address,
            peer.port(),
            describe(&error)
        );
        let scope = if is_ours(&error) {
            Scope::Local
        } else {
            Scope::Host
        };
        Verdict::own(
            Status::Deferred,
            scope,
            Stage::Connect,
            Enhanced::new(4, 4, 1),
            &text,
        )
    })
}

/// The words of the system, short and without its numbers.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::AddrNotAvailable => {
            "the source address (--bind) is not one of this machine".into()
        }
        _ => error.to_string(),
    }
}

/// True if the trouble is on this machine: no descriptors, no ports, a source address that is not ours.
fn is_ours(error: &io::Error) -> bool {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, OutOfMemory, PermissionDenied};
    // EMFILE and ENFILE have no kind of their own.
    matches!(
        error.kind(),
        AddrInUse | AddrNotAvailable | OutOfMemory | PermissionDenied
    ) || matches!(error.raw_os_error(), Some(23 | 24))
}

/// RFC 5321 4.1.3: who has no name says its address.
fn address_literal(stream: &Socket) -> String {
    match stream
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket())
        .map(|a| a.ip())
    {
        Some(IpAddr::V4(ip)) => format!("[{ip}]"),
        Some(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        None => "[127.0.0.1]".into(),
    }
}
