//! A small authoritative name server on loopback, UDP and TCP, for tests, labs and `rehearse`.
//!
//! One thread answers UDP, one accepts TCP, one more per TCP connection. Delayed UDP answers wait in a heap, so one slow name
//! delays no other. Messages are read and written by hickory's codec; what is answered is [`Zone`]'s business.
//!
//! INVARIANTS: only ever bound to a loopback address; a query that is no query is answered with FORMERR or not at all, never
//! with a panic; an answer that does not fit is truncated, so that the client comes again by TCP (RFC 7766).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::crew::Crew;
use super::dns_answer::{Asked, respond};
use super::zone::{Kind, Zone};

/// Names that are counted one by one; a flood of others is only counted in total.
const COUNTED_NAMES_MAX: usize = 65_536;
/// Answers that wait at most; beyond it they are dropped, as a flooded server would.
const DELAYED_MAX: usize = 65_536;
/// A TCP client that says nothing for so long is let go.
const TCP_IDLE: Duration = Duration::from_secs(30);
const STACK_BYTES: usize = 256 * 1024;
/// Room for questions that wait.
const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How often the server was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DnsCounts {
    /// All queries.
    pub queries: u64,
    /// Those for MX records.
    pub mx: u64,
    /// Those for A and AAAA records.
    pub addresses: u64,
    /// Those that came by TCP.
    pub tcp: u64,
}

#[derive(Default)]
struct Counted {
    total: DnsCounts,
    names: HashMap<(String, Kind), u64>,
}

/// What all threads of the server share.
struct Shared {
    zone: Zone,
    crew: Arc<Crew>,
    counted: Mutex<Counted>,
}

impl Shared {
    fn count(&self, asked: &Asked, tcp: bool) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.total.queries += 1;
        counted.total.tcp += u64::from(tcp);
        counted.total.mx += u64::from(asked.kind == Kind::Mx);
        counted.total.addresses += u64::from(matches!(asked.kind, Kind::A | Kind::Aaaa));
        let key = (asked.name.clone(), asked.kind);
        if counted.names.len() < COUNTED_NAMES_MAX || counted.names.contains_key(&key) {
            *counted.names.entry(key).or_default() += 1;
        }
    }
}

/// A running name server; stops when dropped.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Serves `zone` on a free port of 127.0.0.1.
    pub fn start(zone: Zone) -> io::Result<DnsServer> {
        DnsServer::start_at(zone, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Serves `zone` on a loopback address; any other is an error.
    pub fn start_at(zone: Zone, address: SocketAddr) -> io::Result<DnsServer> {
        if !address.ip().is_loopback() {
            let problem =
                format!("the test name server listens on loopback only, not on {address}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let (udp, tcp) = bind_both(address)?;
        // A client that begins with thousands of names must not lose questions to a short buffer. More than the system gives is
        // not given, which is no error.
        socket2::SockRef::from(&udp).set_recv_buffer_size(UDP_BUFFER_BYTES)?;
        let address = udp.local_addr()?;
        let shared = Arc::new(Shared {
            zone,
            crew: Arc::default(),
            counted: Mutex::default(),
        });
        let mut server = DnsServer {
            address,
            shared: shared.clone(),
            threads: Vec::new(),
        };
        let thread = |name: &str| {
            std::thread::Builder::new()
                .name(name.into())
                .stack_size(STACK_BYTES)
        };
        let by_udp = shared.clone();
        server
            .threads
            .push(thread("dns-udp").spawn(move || serve_udp(&by_udp, &udp))?);
        server
            .threads
            .push(thread("dns-tcp").spawn(move || accept_tcp(&shared, &tcp))?);
        Ok(server)
    }

    /// Where it listens, by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it was asked so far.
    pub fn counts(&self) -> DnsCounts {
        let counted = self
            .shared
            .counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counted.total
    }

    /// How often it was asked for records of this kind of this name (lower case, no final dot).
    pub fn asked_for(&self, name: &str, kind: Kind) -> u64 {
        let counted = self
            .shared
            .counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counted
            .names
            .get(&(name.to_owned(), kind))
            .copied()
            .unwrap_or(0)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.crew.stop();
        // Both threads look at the stop mark whenever something arrives.
        let _ = UdpSocket::bind((self.address.ip(), 0)).and_then(|s| s.send_to(&[], self.address));
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Binds UDP and TCP to one port. With port 0 the port that UDP was given may be taken for TCP: try some more.
fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { 32 } else { 1 };
    loop {
        tries -= 1;
        let udp = UdpSocket::bind(address)?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// An answer that waits for its time: due, a number that keeps equals in order, the peer, the bytes.
type Delayed = Reverse<(Instant, u64, SocketAddr, Vec<u8>)>;

fn serve_udp(shared: &Shared, socket: &UdpSocket) {
    let mut waiting: BinaryHeap<Delayed> = BinaryHeap::new();
    let mut query = vec![0; 4096];
    let mut number = 0;
    loop {
        send_due(socket, &mut waiting);
        let patience = waiting
            .peek()
            .map(|Reverse(first)| first.0.saturating_duration_since(Instant::now()))
            // A zero time-out means "for ever" to the system.
            .map(|time| time.max(Duration::from_millis(1)));
        if socket.set_read_timeout(patience).is_err() {
            return;
        }
        let received = socket.recv_from(&mut query);
        if shared.crew.is_stopping() {
            return;
        }
        // Errors are the time-out, or an ICMP message about an earlier answer that nobody wanted: both are passed over.
        let Ok((length, peer)) = received else {
            continue;
        };
        let Some(response) = respond(&shared.zone, &query[..length], true) else {
            continue;
        };
        shared.count(&response.asked, false);
        let Some(bytes) = response.bytes else {
            continue;
        };
        if response.delay.is_zero() {
            // A client that is gone needs no answer.
            let _ = socket.send_to(&bytes, peer);
        } else if waiting.len() < DELAYED_MAX {
            number += 1;
            waiting.push(Reverse((
                Instant::now() + response.delay,
                number,
                peer,
                bytes,
            )));
        }
    }
}

fn send_due(socket: &UdpSocket, waiting: &mut BinaryHeap<Delayed>) {
    while let Some(Reverse(first)) = waiting.peek() {
        if first.0 > Instant::now() {
            return;
        }
        if let Some(Reverse((_, _, peer, bytes))) = waiting.pop() {
            let _ = socket.send_to(&bytes, peer);
        }
    }
}

fn accept_tcp(shared: &Arc<Shared>, listener: &TcpListener) {
    shared.crew.accept(listener, |stream| {
        let inner = shared.clone();
        // No thread to be had: the connection is closed, the client tries again.
        let _ = shared.crew.serve(stream, STACK_BYTES, move |stream| {
            // An error is the client's going away.
            let _ = serve_tcp(&inner, stream);
        });
    });
}

/// Queries and answers with a length of two octets before each (RFC 1035 4.2.2).
fn serve_tcp(shared: &Shared, mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TCP_IDLE))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(response) = respond(&shared.zone, &query, false) else {
            return Ok(());
        };
        shared.count(&response.asked, true);
        if !response.delay.is_zero() && !shared.crew.pause(response.delay) {
            return Ok(());
        }
        let Some(bytes) = response.bytes else {
            continue;
        };
        let Ok(length) = u16::try_from(bytes.len()) else {
            return Ok(());
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        stream.write_all(&framed)?;
    }
}
