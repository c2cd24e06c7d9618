//! A TCP proxy that counts turns: how often the client had to wait for the server before it went on.
//!
//! A *flight* is what the client sends after it has heard something of the server. The end of each message (the final dot, or BDAT
//! LAST, which may not stand in a message of these tests) is noted with the number of the flight that brought it, so that the turns
//! of one message are the distance between two ends. Only for sessions in the clear.
//!
//! The proxy stands for some distance as well: what the server says reaches the client a little later. Otherwise a server on loopback
//! answers sooner than any thread of the client can hand work to another, and what is counted is the scheduling of this machine.
//!
//! LIMITS: a flight that reaches the proxy in pieces, while the server answers its first piece already, counts as two. Loopback
//! delivers what was written at once in one piece, up to the size of the proxy's buffer.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How much later: a server in the same city.
const DISTANCE: Duration = Duration::from_millis(5);

/// How a message ends: the dot, or the last of its chunks begins (RFC 3030).
const MARKS: [&[u8]; 2] = [b"\r\n.\r\n", b" LAST\r\n"];

/// What was seen of one session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Waits for the server, from the first command to QUIT.
    pub flights: usize,
    /// For each message the number of the flight that brought its end.
    pub ends: Vec<usize>,
    /// The server has spoken since the last flight.
    heard: bool,
    /// The last octets of the client, in case a mark is cut.
    tail: Vec<u8>,
}

impl Session {
    fn of_client(&mut self, bytes: &[u8]) {
        self.flights += usize::from(std::mem::take(&mut self.heard));
        self.tail.extend_from_slice(bytes);
        let is_mark = |at: &usize| MARKS.iter().any(|mark| self.tail[*at..].starts_with(mark));
        let found: Vec<usize> = (0..self.tail.len()).filter(is_mark).collect();
        self.ends
            .extend(std::iter::repeat_n(self.flights, found.len()));
        // What is behind the last mark and may be the beginning of another.
        let longest = MARKS.iter().map(|mark| mark.len()).max().unwrap_or(0);
        let from = found.last().map_or(0, |at| at + 1);
        let kept = (self.tail.len() - from).min(longest - 1);
        self.tail.drain(..self.tail.len() - kept);
    }

    /// Waits per message, from the end of message `from` (counted from 1) to the last end.
    pub fn turns_per_message(&self, from: usize) -> f64 {
        let (first, last) = (self.ends[from - 1], *self.ends.last().expect("an end"));
        (last - first) as f64 / (self.ends.len() - from) as f64
    }
}

/// A running proxy; its threads end with their connections, the listening one with the process.
pub struct Proxy {
    /// Where clients connect to.
    pub address: SocketAddr,
    sessions: Arc<Mutex<Vec<Arc<Mutex<Session>>>>>,
}

impl Proxy {
    /// Before the server at `target`.
    pub fn before(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&sessions);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let session = Arc::new(Mutex::new(Session::default()));
                all.lock().expect("no panic").push(Arc::clone(&session));
                let server = TcpStream::connect(target).expect("the server listens");
                join(client, server, session);
            }
        });
        Proxy { address, sessions }
    }

    /// What was seen so far, a session each.
    pub fn sessions(&self) -> Vec<Session> {
        let sessions = self.sessions.lock().expect("no panic");
        let copy = |session: &Arc<Mutex<Session>>| session.lock().expect("no panic").clone();
        sessions.iter().map(copy).collect()
    }
}

fn join(client: TcpStream, server: TcpStream, session: Arc<Mutex<Session>>) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("an open socket");
    }
    let (from, to) = (clone(&client), clone(&server));
    let heard = Arc::clone(&session);
    thread::spawn(move || {
        carry(from, to, |bytes| {
            session.lock().expect("no panic").of_client(bytes);
        })
    });
    thread::spawn(move || {
        carry(server, client, |_| {
            thread::sleep(DISTANCE);
            heard.lock().expect("no panic").heard = true;
        })
    });
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a descriptor")
}

/// Passes everything on; what is read is noted before the other side can have seen it.
fn carry(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        note(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
