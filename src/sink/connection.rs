//! One connection of the receiver: a thread that reads, lets the session work, and writes.
//!
//! All commands that one read brought are answered with one write, so a client's flight costs it one turn. A big read may be
//! the first part of a flight: then what has arrived meanwhile is read before anything is sent, so that the flight is not
//! taken for two.
//!
//! INVARIANTS: replies are sent before the client is waited for; a client from outside loopback is not served; an error of
//! the socket ends the connection and is nobody's fault.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handler::{SinkHandler, is_plain};
use super::shared::Shared;
use crate::smtp::server::{Answer, Next, Session};

const BUFFER_BYTES: usize = 64 * 1024;
/// A read of this size may be part of a flight.
const BIG_READ_BYTES: usize = 16 * 1024;
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

/// Input that was read and not used yet.
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    last_read: usize,
}

impl Input {
    fn new() -> Input {
        Input {
            bytes: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            last_read: 0,
        }
    }

    fn unused(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Reads more. False at the end of the stream.
    fn fill(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        // The session leaves at most part of a command line, so there is always room.
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.last_read = stream.read(&mut self.bytes[self.end..])?;
        self.end += self.last_read;
        Ok(self.last_read > 0)
    }

    /// Reads what is there already, without waiting. False if there is nothing.
    fn fill_at_once(&mut self, stream: &TcpStream) -> io::Result<bool> {
        stream.set_nonblocking(true)?;
        let filled = self.fill(stream);
        stream.set_nonblocking(false)?;
        match filled {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.last_read = 0;
                Ok(false)
            }
            filled => filled,
        }
    }
}

fn converse(
    shared: &Shared,
    stream: &TcpStream,
    session: &mut Session,
    handler: &mut SinkHandler<'_>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(shared.config.idle))?;
    stream.set_write_timeout(Some(shared.config.idle))?;
    if !before_greeting(shared, stream, handler)? {
        return Ok(());
    }
    let mut input = Input::new();
    let mut out = Vec::with_capacity(1024);
    let early = has_spoken(stream)?;
    let mut next = session.open(early, &mut out, handler);
    loop {
        match next {
            Next::Read => {
                if !read_on(shared, stream, &mut input, &mut out, handler)? {
                    return Ok(());
                }
            }
            Next::Pause(time) => {
                send(stream, &mut out)?;
                if !shared.crew.pause(time) {
                    return Ok(());
                }
            }
            Next::Close => {
                send(stream, &mut out)?;
                return linger(stream, &mut input);
            }
            Next::Drop | Next::StartTls => return send(stream, &mut out),
        }
        let progress = session.receive(input.unused(), &mut out, handler);
        input.start += progress.used;
        next = progress.next;
    }
}

/// Sends what there is and waits for the client. False at the end of the stream.
fn read_on(
    shared: &Shared,
    stream: &TcpStream,
    input: &mut Input,
    out: &mut Vec<u8>,
    handler: &mut SinkHandler<'_>,
) -> io::Result<bool> {
    if !out.is_empty() {
        if input.last_read >= BIG_READ_BYTES && input.fill_at_once(stream)? {
            return Ok(true);
        }
        if !shared.config.latency.is_zero() && !shared.crew.pause(shared.config.latency) {
            return Ok(false);
        }
        send(stream, out)?;
        handler.count_turn();
    }
    input.fill(stream)
}

/// What rules want before the greeting. False if that ends the connection.
fn before_greeting(
    shared: &Shared,
    stream: &TcpStream,
    handler: &mut SinkHandler<'_>,
) -> io::Result<bool> {
    let decision = handler.connect();
    if is_plain(&decision) {
        return Ok(true);
    }
    if !shared.crew.pause(decision.delay) {
        return Ok(false);
    }
    match decision.answer {
        Answer::Accept | Answer::Reply(_) => Ok(true),
        Answer::Drop => Ok(false),
        Answer::Silence => {
            swallow(stream, &mut Input::new())?;
            Ok(false)
        }
    }
}

/// True if the client sent something before it was greeted.
fn has_spoken(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    Ok(matches!(peeked, Ok(1..)))
}

fn send(mut stream: &TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    if !out.is_empty() {
        stream.write_all(out)?;
        out.clear();
    }
    Ok(())
}

/// Reads and forgets until the client closes.
fn swallow(stream: &TcpStream, input: &mut Input) -> io::Result<()> {
    loop {
        input.start = input.end;
        if !input.fill(stream)? {
            return Ok(());
        }
    }
}

/// Closes so that the client can read our last reply: unread input would make the system send a reset, which throws away
/// what was sent before it.
fn linger(stream: &TcpStream, input: &mut Input) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    swallow(stream, input)
}
