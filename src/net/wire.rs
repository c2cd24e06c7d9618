//! A blocking connection with one input buffer and absolute deadlines.
//!
//! A socket's own time-out is per call: a peer that drips a byte at a time outlives it. Here every call is given the
//! instant at which its whole *stage* ends, and the socket's time-out only serves to wake up in time.
//!
//! The time-out of the socket is left alone as long as it is short enough for the present deadline and not so short that
//! waiting would spin: on a busy session, stages alternate between 30 s and 10 min, and two extra system calls per message
//! would be a third of all.
//!
//! INVARIANTS: at most one input buffer; it is empty before a TLS handshake or the session ends ([`Wire::input`] shows what
//! is left). The buffer never grows beyond [`INPUT_MAX`]: replies are bounded by their parser long before.

use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use native_tls::TlsStream;
use socket2::Socket;

use super::tls::{Agreed, Below, Tls};

/// Bytes of unread input that are kept at most.
pub const INPUT_MAX: usize = 128 * 1024;
const READ_SIZE: usize = 8 * 1024;
/// A socket time-out longer than this is never set: the deadline is looked at each time it runs out.
const TICK_MAX: Duration = Duration::from_secs(30);

/// Why bytes did not move.
#[derive(Debug)]
pub enum WireError {
    /// The stage's deadline passed.
    TimedOut,
    /// The peer closed the connection.
    Closed,
    /// The peer sent more than [`INPUT_MAX`] bytes that nobody asked for.
    Flooded,
    /// The system reported an error (connection reset, unreachable ...).
    Failed(io::Error),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WireError::TimedOut => f.write_str("timed out"),
            WireError::Closed => f.write_str("connection closed by the server"),
            WireError::Flooded => f.write_str("the server sends without end"),
            WireError::Failed(error) => write!(f, "{error}"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    socket: Arc<Socket>,
    /// The encrypted stream over the socket, once there is one.
    tls: Option<Box<TlsStream<Below>>>,
    input: Vec<u8>,
    consumed: usize,
    read_tick: Option<Duration>,
    write_tick: Option<Duration>,
}

impl Wire {
    /// Takes over a connected stream.
    pub fn new(socket: Socket) -> Wire {
        Wire {
            socket: Arc::new(socket),
            tls: None,
            input: Vec::with_capacity(READ_SIZE),
            consumed: 0,
            read_tick: None,
            write_tick: None,
        }
    }

    /// The bytes that were read and not yet consumed.
    pub fn input(&self) -> &[u8] {
        &self.input[self.consumed..]
    }

    /// Drops the first `count` bytes of [`Wire::input`].
    ///
    /// # Panics
    /// If there are fewer: a bug of the caller, whatever the peer sent.
    pub fn consume(&mut self, count: usize) {
        assert!(
            count <= self.input.len() - self.consumed,
            "consumed more than was read"
        );
        self.consumed += count;
        if self.consumed == self.input.len() {
            self.input.clear();
            self.consumed = 0;
        }
    }

    /// Waits for more input until `deadline`. Returns how many bytes came, at least one.
    ///
    /// # Errors
    /// [`WireError`]; input read before stays readable.
    pub fn fill(&mut self, deadline: Instant) -> Result<usize, WireError> {
        if self.input().len() >= INPUT_MAX {
            return Err(WireError::Flooded);
        }
        self.input.drain(..self.consumed);
        self.consumed = 0;
        let old = self.input.len();
        self.input.resize(old + READ_SIZE, 0);
        let outcome = self.read_by(old, deadline);
        self.input
            .truncate(old + outcome.as_ref().copied().unwrap_or(0));
        outcome
    }

    fn read_by(&mut self, at: usize, deadline: Instant) -> Result<usize, WireError> {
        loop {
            if let Some(tick) = next_tick(self.read_tick, deadline)? {
                self.socket
                    .set_read_timeout(Some(tick))
                    .map_err(WireError::Failed)?;
                self.read_tick = Some(tick);
            }
            let room = &mut self.input[at..];
            let count = match &mut self.tls {
                Some(tls) => {
                    tls.get_mut().set_deadline(deadline);
                    tls.read(room)
                }
                None => (&*self.socket).read(room),
            };
            match count {
                Ok(0) => return Err(WireError::Closed),
                Ok(count) => return Ok(count),
                Err(error) if is_wake_up(&error) => {}
                Err(error) => return Err(failure(error)),
            }
        }
    }

    /// Writes all of `parts`, in one system call where the socket takes them, before `deadline`.
    ///
    /// # Errors
    /// How many bytes the system had taken by then, and the [`WireError`].
    pub fn send(
        &mut self,
        parts: &mut [IoSlice<'_>],
        deadline: Instant,
    ) -> Result<(), (usize, WireError)> {
        let mut parts = parts;
        let mut sent = 0;
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.write_by(parts, deadline) {
                Ok(count) => {
                    sent += count;
                    IoSlice::advance_slices(&mut parts, count);
                }
                Err(error) => return Err((sent, error)),
            }
        }
        Ok(())
    }

    fn write_by(&mut self, parts: &[IoSlice<'_>], deadline: Instant) -> Result<usize, WireError> {
        loop {
            if let Some(tick) = next_tick(self.write_tick, deadline)? {
                self.socket
                    .set_write_timeout(Some(tick))
                    .map_err(WireError::Failed)?;
                self.write_tick = Some(tick);
            }
            let count = match &mut self.tls {
                Some(tls) => {
                    tls.get_mut().set_deadline(deadline);
                    tls.write_vectored(parts)
                }
                None => (&*self.socket).write_vectored(parts),
            };
            match count {
                Ok(0) => return Err(WireError::Closed),
                Ok(count) => return Ok(count),
                Err(error) if is_wake_up(&error) => {}
                Err(error) => return Err(failure(error)),
            }
        }
    }

    /// True if the peer has sent something, or closed the connection, while nothing was asked of it: an idle session in
    /// this state (a pending 421, say) is of no use. Costs no round trip. An error counts as true. Nothing is lost: what
    /// has come is read by [`Wire::fill`], or is in [`Wire::input`].
    pub fn has_unasked_input(&mut self) -> bool {
        if !self.input().is_empty() || self.socket.set_nonblocking(true).is_err() {
            return true;
        }
        let looked = match &mut self.tls {
            // Records that carry no data (session tickets) are no input: only reading tells.
            Some(tls) => {
                tls.get_mut().set_deadline(Instant::now() + TICK_MAX);
                let mut byte = [0];
                let looked = tls.read(&mut byte);
                if matches!(looked, Ok(1)) {
                    self.input.extend_from_slice(&byte);
                }
                looked
            }
            None => self.socket.peek(&mut [std::mem::MaybeUninit::uninit()]),
        };
        let restored = self.socket.set_nonblocking(false);
        restored.is_err()
            || !matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Encrypts the connection from here on. `name` is whom the peer should be.
    ///
    /// # Errors
    /// What went wrong, in words: the connection is of no more use.
    ///
    /// # Panics
    /// If there is unread input: what came in clear must never be taken for what comes encrypted (CVE-2011-0411). The
    /// caller ends the session instead.
    pub fn start_tls(
        &mut self,
        tls: &Tls,
        name: &str,
        verify: bool,
        deadline: Instant,
    ) -> Result<Agreed, String> {
        assert!(self.input().is_empty(), "input in clear before a handshake");
        (self.read_tick, self.write_tick) = (None, None);
        let (stream, agreed) = tls.handshake(Arc::clone(&self.socket), name, verify, deadline)?;
        self.tls = Some(stream);
        Ok(agreed)
    }

    /// A handle to cut the connection from another thread. It does not keep the connection open.
    pub fn handle(&self) -> Weak<Socket> {
        Arc::downgrade(&self.socket)
    }
}

/// The time-out to set on the socket before it may block, or `None` if the present one will do.
fn next_tick(present: Option<Duration>, deadline: Instant) -> Result<Option<Duration>, WireError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(WireError::TimedOut);
    }
    let wanted = left.clamp(Duration::from_millis(1), TICK_MAX);
    match present {
        Some(tick) if tick <= left && tick >= wanted / 8 => Ok(None),
        _ => Ok(Some(wanted)),
    }
}

fn is_wake_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn failure(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Closed,
        _ => WireError::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (Wire::new(near.into()), far)
    }

    fn soon(millis: u64) -> Instant {
        Instant::now() + Duration::from_millis(millis)
    }

    #[test]
    fn what_is_sent_arrives_and_what_arrives_is_consumed_piece_by_piece() {
        let (mut wire, mut far) = pair();
        wire.send(
            &mut [
                IoSlice::new(b"MAIL "),
                IoSlice::new(b""),
                IoSlice::new(b"FROM\r\n"),
            ],
            soon(5000),
        )
        .unwrap();
        let mut seen = [0; 11];
        far.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"MAIL FROM\r\n");
        far.write_all(b"250 ok").unwrap();
        while wire.input().len() < 6 {
            wire.fill(soon(5000)).unwrap();
        }
        wire.consume(4);
        assert_eq!(wire.input(), b"ok");
    }

    #[test]
    fn a_deadline_holds_although_bytes_drip_in() {
        let (mut wire, mut far) = pair();
        let dripper = std::thread::spawn(move || while far.write_all(b"2").is_ok() {});
        let deadline = soon(60);
        let outcome = loop {
            if let Err(error) = wire.fill(deadline) {
                break error;
            }
            let count = wire.input().len();
            wire.consume(count);
        };
        assert!(matches!(outcome, WireError::TimedOut), "{outcome}");
        drop(wire);
        dripper.join().unwrap();
    }

    #[test]
    fn a_peer_that_never_stops_is_cut_off_at_the_limit() {
        let (mut wire, mut far) = pair();
        let flooder = std::thread::spawn(move || while far.write_all(&[b'x'; 4096]).is_ok() {});
        let outcome = loop {
            if let Err(error) = wire.fill(soon(5000)) {
                break error;
            }
        };
        assert!(matches!(outcome, WireError::Flooded), "{outcome}");
        assert!(wire.input().len() <= INPUT_MAX + READ_SIZE);
        drop(wire);
        flooder.join().unwrap();
    }

    #[test]
    fn an_idle_session_shows_a_pending_farewell_without_a_round_trip() {
        let (mut wire, mut far) = pair();
        assert!(!wire.has_unasked_input());
        far.write_all(b"421 bye\r\n").unwrap();
        drop(far);
        // The bytes are in flight on loopback: asked again until they are seen.
        while !wire.has_unasked_input() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_closed_connection_is_told_from_a_time_out() {
        let (mut wire, far) = pair();
        assert!(matches!(wire.fill(soon(20)), Err(WireError::TimedOut)));
        drop(far);
        assert!(matches!(wire.fill(soon(5000)), Err(WireError::Closed)));
    }
}
