//! A client that says what it is told to, over any stream, and a stream that can hold its writes back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const TRANSACTION: &str = "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n";

/// A client over whatever stream.
pub struct Client<S> {
    pub reader: BufReader<S>,
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Client<S> {
        let reader = BufReader::new(stream);
        Client { reader }
    }

    pub fn say(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next reply with all its lines; empty at the end of the stream.
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let from = reply.len();
            match self.reader.read_line(&mut reply) {
                Ok(0) | Err(_) => return String::new(),
                Ok(_) if reply.as_bytes().get(from + 3) == Some(&b'-') => {}
                Ok(_) => return reply,
            }
        }
    }

    pub fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.reply()
    }

    /// The codes of so many replies.
    pub fn codes(&mut self, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| self.reply().chars().take(3).collect())
            .collect()
    }

    /// A transaction in two flights.
    pub fn send(&mut self, content: &str) {
        self.say(TRANSACTION);
        assert_eq!(self.codes(3), ["250", "250", "354"]);
        self.say(&format!("{content}.\r\n"));
        assert_eq!(self.codes(1), ["250"]);
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Holds writes back while `held` is there.
pub struct Corked {
    pub stream: TcpStream,
    pub held: Option<Vec<u8>>,
}

impl Read for Corked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Corked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.held {
            Some(held) => held.write(bytes),
            None => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Corked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Corked")
    }
}
