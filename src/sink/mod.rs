//! The embedded receiver: a strict SMTP server on loopback that can misbehave on demand, and a DNS server to go with it.
//!
//! It is what `mailer sink` and `mailer rehearse` run and what tests and benchmarks deliver to. [`Sink::start`] listens (on
//! all of 127/8 where the system allows it), one thread accepts per socket, one thread serves each connection; the protocol
//! itself is [`crate::smtp::server`]. [`dns::DnsServer`] answers for a [`zone::Zone`].
//!
//! INVARIANTS: nothing outside this machine can reach it; when [`Sink::stop`] returns, or a [`Sink`] is dropped, no thread of
//! it runs; counting only, content is never copied.
//!
//! Limits: kept messages are not synced to disk; memory storage grows with what is sent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub mod certificate;
mod config;
mod connection;
mod crew;
pub mod dns;
mod dns_answer;
mod duplicates;
mod handler;
pub mod limit;
mod link;
mod listen;
pub mod rule;
mod rule_text;
mod shared;
mod stats;
mod store;
mod tls;
mod words;
pub mod zone;
pub mod zone_text;

pub use config::{Listen, SinkConfig, SinkError, Storage};
pub use limit::Limit;
pub use rule::{Action, Rule};
pub use rule_text::RuleError;
pub use stats::{AddressStats, Stats};
pub use store::Received;
pub use tls::SinkTls;

use shared::Shared;

/// Enough for a session with its rules, in debug builds too; thousands of connections must be possible.
const STACK_BYTES: usize = 256 * 1024;

/// A running receiver.
pub struct Sink {
    shared: Arc<Shared>,
    port: u16,
    covers_loopback: bool,
    /// Where to knock so that each accepting thread sees the stop mark.
    doors: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl Sink {
    /// Starts listening.
    pub fn start(config: SinkConfig) -> Result<Sink, SinkError> {
        let listeners = listen::open(&config.listen, config.port)?;
        let shared = Arc::new(Shared::new(config)?);
        let mut sink = Sink {
            shared,
            port: listeners.port,
            covers_loopback: listeners.whole,
            doors: Vec::new(),
            threads: Vec::new(),
        };
        for socket in listeners.sockets {
            sink.accept_on(socket)?;
        }
        Ok(sink)
    }

    fn accept_on(&mut self, socket: TcpListener) -> Result<(), SinkError> {
        let failed = |cause| SinkError::new("start the receiver", cause);
        let mut door = socket.local_addr().map_err(failed)?;
        if door.ip().is_unspecified() {
            door.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("sink".into())
            .stack_size(STACK_BYTES)
            .spawn(move || accept(&shared, &socket))
            .map_err(failed)?;
        self.doors.push(door);
        self.threads.push(thread);
        Ok(())
    }

    /// The port, on every address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True if every address of 127/8 is served, not only some.
    pub fn covers_loopback(&self) -> bool {
        self.covers_loopback
    }

    /// 127.0.0.1 (or the first address served) with the port.
    pub fn address(&self) -> SocketAddr {
        self.doors
            .first()
            .copied()
            .unwrap_or((Ipv4Addr::LOCALHOST, self.port).into())
    }

    /// A snapshot of what was seen so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// How many connections one address had open at most.
    pub fn open_max_at(&self, address: IpAddr) -> u64 {
        self.shared.address(address).snapshot().open_max
    }

    /// Copies of the messages taken so far, if they are kept in memory.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.store.messages()
    }

    /// Waits until the statistics fulfil a condition; false if they do not within `patience`.
    pub fn wait_until(&self, condition: impl Fn(&Stats) -> bool, patience: Duration) -> bool {
        self.shared.wait_until(condition, patience)
    }

    /// Closes everything, waits for all threads, and returns the final statistics.
    pub fn stop(mut self) -> Stats {
        self.halt();
        self.shared.stats()
    }

    fn halt(&mut self) {
        self.shared.crew.stop();
        for door in self.doors.drain(..) {
            // If nobody can connect any more, the accepting thread is in its error pause and sees the mark too.
            let _ = TcpStream::connect(door);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.halt();
    }
}

fn accept(shared: &Arc<Shared>, socket: &TcpListener) {
    shared.crew.accept(socket, |stream| {
        let inner = shared.clone();
        // No thread to be had: the connection is closed, and the client tries again as with any overloaded server.
        let _ = shared.crew.serve(stream, STACK_BYTES, move |stream| {
            connection::serve(&inner, stream)
        });
    });
}
