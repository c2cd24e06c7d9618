//! One connection of the receiver: a thread that reads, lets the session work, and writes.
//!
//! All commands that one read brought are answered with one write, so a client's flight costs it one turn. A big read may be
//! the first part of a flight: then what has arrived meanwhile is read before anything is sent, so that the flight is not
//! taken for two.
//!
//! INVARIANTS: replies are sent before the client is waited for; a client from outside loopback is not served; an error of
//! the socket ends the connection and is nobody's fault.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handler::{Handshake, SinkHandler, is_plain};
use super::link::{Input, Link};
use super::shared::Shared;
use crate::smtp::server::{Answer, Decision, Handler, Next, Session};

/// A read of this size may be part of a flight.
const BIG_READ_BYTES: usize = 16 * 1024;
/// What is said instead of a ServerHello: the first byte is no type of record (RFC 8446 5.1).
const GARBAGE: &[u8] = b"this is no TLS record\r\n";
/// How long a client may take to read our last words before the connection is cut.
const LINGER: Duration = Duration::from_secs(2);

/// Serves one connection until it ends.
pub(super) fn serve(shared: &Shared, stream: &TcpStream) {
    let (Ok(peer), Ok(server)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let is_local = |address: std::net::SocketAddr| address.ip().to_canonical().is_loopback();
    if !is_local(peer) || !is_local(server) {
        return;
    }
    let address = shared.address(server.ip());
    let number = shared.sessions.fetch_add(1, Ordering::Relaxed) + 1;
    let mut handler = SinkHandler::new(shared, &address, number, peer, server);
    let open = shared.counters.connections.enter();
    let open_here = address.connections.enter();
    let exceeds = |limit: Option<u64>, open: u64| limit.is_some_and(|limit| open > limit);
    if exceeds(shared.config.connections_max, open) {
        handler.turn_away("4.7.0 Too many connections");
    } else if exceeds(shared.config.connections_per_address_max, open_here) {
        handler.turn_away("4.7.0 Too many connections to this address");
    }
    shared.changed();
    let mut session = Session::new(shared.server.clone());
    // An error here is the client's going away, or our own stopping.
    let _ = converse(shared, stream, &mut session, &mut handler);
    session.close(&mut handler);
    handler.settle_turns();
    address.connections.leave();
    shared.counters.connections.leave();
    shared.changed();
}

fn converse(
    shared: &Shared,
    stream: &TcpStream,
    session: &mut Session,
    handler: &mut SinkHandler<'_>,
) -> io::Result<()> {
    let mut link = Link::new(stream, shared.config.idle)?;
    if !before_greeting(shared, &mut link, session, handler)? {
        return Ok(());
    }
    let mut input = Input::new();
    let mut out = Vec::with_capacity(1024);
    // Inside TLS the first flight of the client's words is not ours to peek at.
    let early = !link.is_secured() && link.has_input()?;
    let mut next = session.open(early, &mut out, handler);
    loop {
        match next {
            Next::Read => {
                if !read_on(shared, &mut link, &mut input, &mut out, handler)? {
                    return Ok(());
                }
            }
            Next::Pause(time) => {
                link.send(&mut out)?;
                if !shared.crew.pause(time) {
                    return Ok(());
                }
            }
            Next::Close => {
                handler.count_end();
                link.send(&mut out)?;
                return link.finish(&mut input, LINGER);
            }
            Next::Drop => {
                handler.count_end();
                return link.send(&mut out);
            }
            Next::StartTls => {
                if !latent(shared) {
                    return Ok(());
                }
                link.send(&mut out)?;
                handler.count_turn();
                input.forget();
                if !shake_hands(shared, &mut link, session, handler)? {
                    return Ok(());
                }
            }
        }
        let progress = session.receive(input.unused(), &mut out, handler);
        input.used(progress.used);
        next = progress.next;
    }
}

/// Sends what there is and waits for the client. False at the end of the stream.
fn read_on(
    shared: &Shared,
    link: &mut Link<'_>,
    input: &mut Input,
    out: &mut Vec<u8>,
    handler: &mut SinkHandler<'_>,
) -> io::Result<bool> {
    if !out.is_empty() {
        // Inside TLS each record is a read of its own, however small.
        let may_be_part = link.is_secured() || input.last_read() >= BIG_READ_BYTES;
        if may_be_part && input.fill_at_once(link)? {
            return Ok(true);
        }
        if !latent(shared) {
            return Ok(false);
        }
        link.send(out)?;
        handler.count_turn();
    }
    input.fill(link)
}

/// Waits for the simulated round trip. False if the receiver is stopped.
fn latent(shared: &Shared) -> bool {
    shared.config.latency.is_zero() || shared.crew.pause(shared.config.latency)
}

/// What rules want before the greeting, and TLS where it comes first. False if that ends the connection.
fn before_greeting(
    shared: &Shared,
    link: &mut Link<'_>,
    session: &mut Session,
    handler: &mut SinkHandler<'_>,
) -> io::Result<bool> {
    let decision = handler.connect();
    if !obey_unspoken(shared, link, &decision)? {
        return Ok(false);
    }
    if !shared.config.tls.as_ref().is_some_and(|tls| tls.implicit) {
        return Ok(true);
    }
    let decision = handler.starttls();
    Ok(obey_unspoken(shared, link, &decision)? && shake_hands(shared, link, session, handler)?)
}

/// Carries out what can be without a reply. False if that ends the connection.
fn obey_unspoken(shared: &Shared, link: &mut Link<'_>, decision: &Decision) -> io::Result<bool> {
    if is_plain(decision) {
        return Ok(true);
    }
    if !shared.crew.pause(decision.delay) {
        return Ok(false);
    }
    match decision.answer {
        Answer::Accept | Answer::Reply(_) => Ok(true),
        Answer::Drop => Ok(false),
        Answer::Silence => {
            link.swallow(&mut Input::new())?;
            Ok(false)
        }
    }
}

/// TLS begins, or what a rule wants in its place. False if that ends the connection.
fn shake_hands(
    shared: &Shared,
    link: &mut Link<'_>,
    session: &mut Session,
    handler: &mut SinkHandler<'_>,
) -> io::Result<bool> {
    match (handler.handshake(), &shared.acceptor) {
        (Handshake::Usual, Some(acceptor)) => {
            let secured = link.secure(acceptor);
            handler.count_handshake(secured.is_ok());
            secured?;
            session.secured(handler);
            Ok(true)
        }
        // STARTTLS is offered without a certificate: whoever takes the offer is left standing.
        (Handshake::Usual, None) => Ok(false),
        (Handshake::Garbage, _) => {
            link.send(&mut GARBAGE.to_vec())?;
            link.swallow(&mut Input::new())?;
            Ok(false)
        }
        (Handshake::Stall, _) => {
            link.swallow(&mut Input::new())?;
            Ok(false)
        }
    }
}
