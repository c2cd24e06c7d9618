//! The receiver's end of a connection: plain, and from some moment on inside TLS; and its input buffer.
//!
//! INVARIANT: when TLS begins no input is left over from before ([`Input::forget`]).
//!
//! Deadlines are the socket's: a handshake that waits longer than the idle limit for one read has failed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use openssl::ssl::{HandshakeError, SslAcceptor, SslStream};

const BUFFER_BYTES: usize = 64 * 1024;

/// A connection.
pub(super) struct Link<'a> {
    stream: &'a TcpStream,
    tls: Option<SslStream<&'a TcpStream>>,
}

impl<'a> Link<'a> {
    /// In clear; no read or write takes longer than `idle`.
    pub fn new(stream: &'a TcpStream, idle: Duration) -> io::Result<Link<'a>> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(idle))?;
        stream.set_write_timeout(Some(idle))?;
        Ok(Link { stream, tls: None })
    }

    /// Shakes hands.
    pub fn secure(&mut self, acceptor: &SslAcceptor) -> io::Result<()> {
        match acceptor.accept(self.stream) {
            Ok(tls) => {
                self.tls = Some(tls);
                Ok(())
            }
            Err(HandshakeError::SetupFailure(error)) => Err(error.into()),
            Err(HandshakeError::Failure(half)) => Err(io::Error::other(half.into_error())),
            // It has run into the socket's time-out: nobody goes on with it.
            Err(HandshakeError::WouldBlock(_)) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// True inside TLS.
    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// True if the client sent something already. Before TLS only.
    pub fn has_input(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        Ok(matches!(peeked, Ok(1..)))
    }

    /// Sends all of `out` and empties it.
    pub fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if !out.is_empty() {
            match &mut self.tls {
                Some(tls) => tls.write_all(out)?,
                None => self.stream.write_all(out)?,
            }
            out.clear();
        }
        Ok(())
    }

    /// Nothing more is sent; within `patience` for each read the client may take its time to read what was.
    pub fn finish(mut self, input: &mut Input, patience: Duration) -> io::Result<()> {
        if let Some(mut tls) = self.tls.take() {
            // The client may have gone without a word of farewell (RFC 8446 6.1), which is its own affair.
            let _ = tls.shutdown();
        }
        self.stream.shutdown(Shutdown::Write)?;
        self.stream.set_read_timeout(Some(patience))?;
        self.swallow(input)
    }

    /// Reads and forgets until the client closes.
    pub fn swallow(&mut self, input: &mut Input) -> io::Result<()> {
        loop {
            input.forget();
            if !input.fill(self)? {
                return Ok(());
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.read(buffer),
            None => self.stream.read(buffer),
        }
    }
}

/// Input that was read and not used yet.
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    last_read: usize,
}

impl Input {
    pub fn new() -> Input {
        Input {
            bytes: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            last_read: 0,
        }
    }

    /// What was read and not used.
    pub fn unused(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// So many bytes were used.
    pub fn used(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// How much the last read brought.
    pub fn last_read(&self) -> usize {
        self.last_read
    }

    /// Throws away what was not used.
    pub fn forget(&mut self) {
        self.start = self.end;
    }

    /// Reads more. False at the end of the stream.
    pub fn fill(&mut self, link: &mut Link<'_>) -> io::Result<bool> {
        // The session leaves at most part of a command line, so there is always room.
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.last_read = link.read(&mut self.bytes[self.end..])?;
        self.end += self.last_read;
        Ok(self.last_read > 0)
    }

    /// Reads what is there already, without waiting. False if there is nothing.
    pub fn fill_at_once(&mut self, link: &mut Link<'_>) -> io::Result<bool> {
        link.stream.set_nonblocking(true)?;
        let filled = self.fill(link);
        link.stream.set_nonblocking(false)?;
        match filled {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.last_read = 0;
                Ok(false)
            }
            filled => filled,
        }
    }
}
