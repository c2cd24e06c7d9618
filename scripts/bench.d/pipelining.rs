//! What the wire allows: a client that does nothing but SMTP, for `scripts/bench`.
//!
//! `pipelining ADDRESS:PORT SESSIONS MESSAGES OCTETS` sends one message from memory, MESSAGES times, over as many sessions with a
//! thread each, and the commands of each message leave with the final dot of the one before (RFC 2920 3.1): one `write` and one
//! `read` a message. No batch, no look-ups, no ledger, no report, and no patience: any reply but a positive one ends it. It talks
//! to loopback only.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;

const ENVELOPE: &str = "MAIL FROM:<news@sender.test>\r\nRCPT TO:<r@d0001.test>\r\nDATA\r\n";
const STACK_BYTES: usize = 128 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pipelining: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> io::Result<()> {
    let usage = || io::Error::other("usage: pipelining ADDRESS:PORT SESSIONS MESSAGES OCTETS");
    let [address, sessions, messages, octets] = arguments else {
        return Err(usage());
    };
    let address: SocketAddr = address.parse().map_err(|_| usage())?;
    let [sessions, messages, octets] =
        [sessions, messages, octets].map(|text| text.parse::<usize>());
    let (Ok(sessions), Ok(messages), Ok(octets)) = (sessions, messages, octets) else {
        return Err(usage());
    };
    if !address.ip().is_loopback() || sessions == 0 {
        return Err(usage());
    }
    let content = content(octets);
    thread::scope(|scope| {
        let mut crew = Vec::new();
        for number in 0..sessions {
            let share = messages / sessions + usize::from(number < messages % sessions);
            let content = &content;
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            crew.push(thread.spawn_scoped(scope, move || session(address, share, content))?);
        }
        // Each is waited for, whatever became of those before it.
        let join = |thread: thread::ScopedJoinHandle<'_, io::Result<()>>| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("a panic")))
        };
        crew.into_iter().map(join).fold(Ok(()), Result::and)
    })
}

fn content(octets: usize) -> String {
    let header = "From: <news@sender.test>\r\nTo: <r@d0001.test>\r\nSubject: limit\r\n\r\n";
    let mut content = header.to_owned();
    while content.len() < octets {
        let line = (octets - content.len()).clamp(2, 72);
        content += &"x".repeat(line - 2);
        content += "\r\n";
    }
    content
}

fn session(address: SocketAddr, messages: usize, content: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut replies = BufReader::new(stream.try_clone()?);
    take(&mut replies, 1)?;
    stream.write_all(b"EHLO client.test\r\n")?;
    take(&mut replies, 1)?;
    let going_on = format!("{content}.\r\n{ENVELOPE}");
    let last = format!("{content}.\r\nQUIT\r\n");
    if messages > 0 {
        stream.write_all(ENVELOPE.as_bytes())?;
        take(&mut replies, 3)?;
        for _ in 1..messages {
            stream.write_all(going_on.as_bytes())?;
            take(&mut replies, 4)?;
        }
        stream.write_all(last.as_bytes())?;
        take(&mut replies, 2)?;
    }
    Ok(())
}

/// Reads so many positive replies.
fn take(replies: &mut BufReader<TcpStream>, count: usize) -> io::Result<()> {
    let (mut line, mut taken) = (String::new(), 0);
    while taken < count {
        line.clear();
        replies.read_line(&mut line)?;
        if !line.starts_with(['2', '3']) {
            return Err(io::Error::other(format!("the receiver said {line:?}")));
        }
        taken += usize::from(line.as_bytes().get(3) == Some(&b' '));
    }
    Ok(())
}
