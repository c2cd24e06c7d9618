//! Opening a session with a site: its addresses in order, until one of them can hold an SMTP conversation.
//!
//! All addresses of one attempt are tried before the mail is deferred (RFC 5321 5.1): best preference first, ties at
//! random, both address families. A host that answers and refuses (4xx or 5xx greeting) is passed over like one that
//! does not answer; one that is known to say with its words that we are too fast speaks for the site, and is the last one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::hosts::Opening;
use super::resolve::Exchange;
use super::session::{Manner, Peer, Session};
use super::shared::Shared;
use super::sources;
use crate::dns::MxAddress;
use crate::mail::{Enhanced, QueueId, Scope, SiteId, SourceNo, Stage, Status, Verdict, WorkerId};
use crate::net;
use crate::smtp::settings::NONCE_OCTETS;
use crate::smtp::{self, Pipelining, Protocol, TlsPolicy};

/// Later attempts wait at most so many times as long for a connection as the first.
const PATIENCE_MAX: u32 = 3;

/// RFC 4954 6: authentication credentials invalid.
const REFUSED: Option<Enhanced> = Some(Enhanced::new(4, 7, 8));

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
    /// From which source address.
    pub source: SourceNo,
    /// Who will hold it.
    pub holder: (QueueId, WorkerId),
    /// Attempts that failed before: later ones are more patient.
    pub failures: u8,
    /// What is next was put off by a host of the site before.
    pub is_again: bool,
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
    if shared.settings.relay_spread && !wish.exchange.relays.is_empty() && !places.is_empty() {
        let first = rng.usize(..places.len());
        places.rotate_left(first);
    }
    let now = Instant::now();
    if places
        .iter()
        .any(|place| !shared.hosts.is_dead(place.address, now))
    {
        places.retain(|place| !shared.hosts.is_dead(place.address, now));
    }
    if let Some(host) = shared
        .hosts
        .who_put_off(wish.site)
        .filter(|_| wish.is_again)
    {
        bring_forward(&mut places, host);
    }
    let mut last = None;
    for place in places {
        match open_or_without_tls(wish, &place, shared, rng) {
            Ok(session) => return Ok(session),
            Err(mut verdict) => {
                judge(&mut verdict, wish.exchange, shared);
                // Whoever said "slow down" hears no more of this attempt, by whatever door.
                let is_over = shared.is_stopping() || verdict.scope == Scope::Rate;
                last = Some(Unreached {
                    verdict,
                    mx: place.host,
                    ip: Some(place.address),
                });
                if is_over {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(nowhere))
}

/// What is known of a provider's words goes before what a reply means in general.
pub(super) fn judge(verdict: &mut Verdict, exchange: &Exchange, shared: &Shared) {
    let providers = &shared.settings.providers;
    if let Some(scope) = providers.judge(exchange.provider.as_deref(), verdict) {
        verdict.scope = scope;
    }
}

/// True if no session with the site can be had now, or the one there was is lost. A host that turns connections away since we
/// are too fast is left alone like one that is down: the rest of the run would be turned away as well.
pub(super) fn is_host_failure(verdict: &Verdict) -> bool {
    match verdict.scope {
        Scope::Host | Scope::Local => true,
        Scope::Rate => verdict.stage < Stage::Mail,
        _ => false,
    }
}

/// Puts a host first, if it is there; the others keep their order.
fn bring_forward(places: &mut [MxAddress], host: IpAddr) {
    if let Some(at) = places.iter().position(|place| place.address == host) {
        places[..=at].rotate_right(1);
    }
}

/// Opens a session with one host. If its handshakes have failed for long enough by now, and TLS is no must, there is
/// another connection to it at once, in clear.
fn open_or_without_tls(
    wish: &Wish<'_>,
    place: &MxAddress,
    shared: &Shared,
    rng: &mut fastrand::Rng,
) -> Result<Session, Verdict> {
    let mut outcome = open_at(wish, place, shared, rng);
    if let Err(verdict) = &outcome {
        learn(verdict, wish.exchange.tls, place, shared);
        let wanted = policy(wish.exchange, place, shared);
        if verdict.stage == Stage::StartTls && wanted == TlsPolicy::None && !shared.is_stopping() {
            outcome = open_at(wish, place, shared, rng);
        }
    }
    if let Ok(session) = &outcome
        && session.satisfies(TlsPolicy::Require)
    {
        shared.hosts.handshake_worked(place.address);
    }
    outcome
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

/// What a failure to open tells about the host, or about us.
///
/// Only where TLS is a wish is a failure at STARTTLS the handshake's. Where it is a must, the certificate may not fit or
/// the offer be missing for now: no reason to speak in clear with the host about mail that bears any certificate.
fn learn(verdict: &Verdict, wanted: TlsPolicy, place: &MxAddress, shared: &Shared) {
    match (verdict.stage, verdict.scope) {
        (Stage::StartTls, Scope::Host) if wanted == TlsPolicy::May => {
            shared.hosts.handshake_failed(place.address, Instant::now());
        }
        // Credentials that were refused are wrong for all mail, unless only a fallback relay asks for them.
        (Stage::Auth, Scope::Local)
            if (verdict.code >= 500 || verdict.enhanced == REFUSED)
                && !shared.settings.relays.is_empty() =>
        {
            shared.despair(&format!("{}: {}", place.host, verdict.text));
        }
        _ => {}
    }
}

fn open_at(
    wish: &Wish<'_>,
    place: &MxAddress,
    shared: &Shared,
    rng: &mut fastrand::Rng,
) -> Result<Session, Verdict> {
    let relay = wish.exchange.relay(place);
    let socket = relay.and_then(|relay| relay.socket.as_deref());
    let (stream, rtt) = match socket {
        Some(path) => net::connect_unix(path, Instant::now() + shared.settings.timeouts.connect)
            .map(|stream| (stream, None))
            .map_err(|error| unreachable_at(&path.display(), &error))?,
        None => connect(wish, place, shared, rng).map(|(stream, rtt)| (stream, Some(rtt)))?,
    };
    let peer = Peer {
        site: wish.site,
        mx: Arc::clone(&place.host),
        ip: socket.is_none().then_some(place.address),
        source: wish.source,
    };
    let manner = Manner {
        conversation: conversation(wish, place, shared, &stream)?,
        level_max: shared.hosts.level(place.address),
        verify: wish.exchange.tls == TlsPolicy::Verify,
        clear_by_policy: wish.exchange.tls == TlsPolicy::None,
        timeouts: shared.settings.timeouts,
        data_rate_min: shared.settings.data_rate_min,
        cut: shared.sockets.cut_mark(),
    };
    let session = Session::begin_opening(stream, peer, manner)?;
    // Before the greeting is waited for, so that the wait can be cut, too.
    shared.sockets.remember(wish.holder, session.handle());
    let session = session.open(&shared.tls)?;
    if let Some(ip) = session.ip {
        let opening = Opening {
            tls: Arc::clone(&session.tls),
            capabilities: session.capabilities().to_string().into(),
            rtt,
        };
        shared.hosts.opened(ip, opening);
    }
    Ok(session)
}

/// How the conversation with one host is to be held.
fn conversation(
    wish: &Wish<'_>,
    place: &MxAddress,
    shared: &Shared,
    stream: &Socket,
) -> Result<smtp::Settings, Verdict> {
    let settings = &shared.settings;
    let relay = wish.exchange.relay(place);
    let mut auth_nonce = [0; NONCE_OCTETS];
    let auth = settings.credentials.clone().filter(|_| relay.is_some());
    if auth.is_some() {
        openssl::rand::rand_bytes(&mut auth_nonce).map_err(|error| {
            let text = format!("no random bytes for AUTH: {error}");
            let code = Enhanced::new(4, 3, 0);
            Verdict::own(Status::Deferred, Scope::Host, Stage::Auth, code, &text)
        })?;
    }
    let takes_chunks = shared.hosts.takes_chunks(place.address);
    let hello = settings
        .hello
        .clone()
        .unwrap_or_else(|| address_literal(stream));
    Ok(smtp::Settings {
        protocol: relay.map_or(Protocol::Smtp, |relay| relay.protocol),
        tls: policy(wish.exchange, place, shared),
        auth,
        auth_in_clear: settings.auth_in_clear || relay.is_some_and(|relay| relay.socket.is_some()),
        auth_nonce,
        // A session starts at classic pipelining: see `Session::trust`.
        level: shared.hosts.level(place.address).min(Pipelining::Classic),
        recipients_max: settings.recipients_max,
        bdat_bytes_max: if takes_chunks {
            settings.bdat_bytes_max
        } else {
            0
        },
        ..smtp::Settings::new(hello)
    })
}

/// The TLS policy towards one host. Where TLS is a wish and no must, an MX host whose handshakes keep failing is spoken
/// to in clear; a relay never is.
fn policy(exchange: &Exchange, place: &MxAddress, shared: &Shared) -> TlsPolicy {
    let is_without_tls = || {
        let patience = shared.settings.retry.min;
        let hosts = &shared.hosts;
        hosts.is_without_tls(place.address, Instant::now(), patience)
    };
    match (exchange.tls, exchange.relay(place)) {
        (_, Some(relay)) if relay.implicit_tls => TlsPolicy::Implicit,
        (_, Some(relay)) if relay.socket.is_some() => TlsPolicy::None,
        (TlsPolicy::May, None) if is_without_tls() => TlsPolicy::None,
        (wanted, _) => wanted,
    }
}

fn connect(
    wish: &Wish<'_>,
    place: &MxAddress,
    shared: &Shared,
    rng: &mut fastrand::Rng,
) -> Result<(Socket, Duration), Verdict> {
    let settings = &shared.settings;
    let port = wish
        .exchange
        .relay(place)
        .map_or(wish.exchange.port, |relay| relay.port);
    let peer = SocketAddr::new(place.address, port);
    let source = sources::address(&settings.bind, wish.source, place.address);
    let patience = settings.timeouts.connect * (u32::from(wish.failures) + 1).min(PATIENCE_MAX);
    let began = Instant::now();
    let connected = net::connect(peer, source, began + patience);
    match &connected {
        Ok(_) => shared.hosts.answered(place.address),
        Err(error) if is_ours(error) => {}
        Err(_) => shared.hosts.failed(place.address, began, rng.f64()),
    }
    match &connected {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            shared.reach.timed_out(wish.site, began)
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => shared.reach.answered(),
        Ok(_) => shared.reach.answered(),
        // No route, no such family: said by this machine, so it tells nothing about the network.
        Err(_) => {}
    }
    let at = format!("{}[{}]:{}", place.host, place.address, peer.port());
    connected
        .map(|stream| (stream, began.elapsed()))
        .map_err(|error| unreachable_at(&at, &error))
}

fn unreachable_at(place: &dyn std::fmt::Display, error: &io::Error) -> Verdict {
    let text = format!("connect to {place}: {}", describe(error));
    let scope = if is_ours(error) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::hosts::Hosts;

    #[test]
    fn the_host_that_put_a_recipient_off_is_tried_first_again() {
        let place = |name: &str, last: u8, preference| MxAddress {
            host: name.into(),
            address: IpAddr::from([127, 0, 0, last]),
            preference,
        };
        let hosts = Hosts::default();
        hosts.put_off(SiteId(1), IpAddr::from([127, 0, 0, 9]));
        hosts.put_off(SiteId(1), IpAddr::from([127, 0, 0, 3]));
        assert_eq!(hosts.who_put_off(SiteId(2)), None);
        let mut places = [place("a", 1, 10), place("b", 2, 10), place("c", 3, 20)];
        bring_forward(&mut places, hosts.who_put_off(SiteId(1)).unwrap());
        let names: Vec<&str> = places.iter().map(|place| &*place.host).collect();
        assert_eq!(names, ["c", "a", "b"]);
        bring_forward(&mut places, IpAddr::from([127, 0, 0, 9]));
        assert_eq!(
            &*places[0].host, "c",
            "an address that is gone changes nothing"
        );
    }

    #[test]
    fn who_is_turned_away_for_the_rate_has_no_session_and_who_is_told_so_in_one_has() {
        let at = |scope, stage| {
            is_host_failure(&Verdict::new(
                Status::Deferred,
                scope,
                stage,
                421,
                None,
                "x",
            ))
        };
        assert!(at(Scope::Rate, Stage::Greeting) && !at(Scope::Rate, Stage::Mail));
        assert!(at(Scope::Host, Stage::Mail) && at(Scope::Local, Stage::Connect));
        assert!(!at(Scope::Session, Stage::Mail) && !at(Scope::Message, Stage::Dot));
    }
}
