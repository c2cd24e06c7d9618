//! Around the final dot: what comes before it although nothing is due, and what has left behind it when the run is to end.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mailer::sink::{Listen, SinkConfig};

use crate::batch::{Batch, message};
use crate::lab::{Ended, Lab, keeping};
use crate::peers::Peer;
use crate::retries::NO_RETRY;

#[test]
fn a_stop_takes_back_what_left_with_the_dot_before_it() {
    // The first message proves that the server bears it; the commands of the third leave with the dot of the second.
    let lab = Lab::with_rules(&["stage=dot delay=2s after=1 first=1"]);
    let batch = Batch::to_domain("a.test", 100);
    let program = lab.start(&batch, &["--max-workers", "1"]);
    lab.wait_until(|stats| stats.messages == 2);
    program.terminate();
    let ended = program.wait();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(
        (ended.count("delivered"), ended.count("queued")),
        (2, 98),
        "{}",
        ended.odd()
    );
    let stats = lab.sink.stats();
    assert_eq!((stats.messages, stats.connections), (2, 1), "{stats}");
}

/// More than the buffers of both ends hold, so that its end cannot leave before the server reads on.
const CONTENT_BYTES: usize = 24 * 1024 * 1024;

/// Reads up to the first `end`; true if it came.
fn read_to(client: &mut TcpStream, end: &[u8]) -> bool {
    let mut piece = [0; 64 * 1024];
    let mut tail = Vec::new();
    loop {
        match client.read(&mut piece) {
            Ok(0) | Err(_) => return false,
            Ok(count) => tail.extend_from_slice(&piece[..count]),
        }
        if tail.windows(end.len()).any(|window| window == end) {
            return true;
        }
        tail.drain(..tail.len().saturating_sub(end.len()));
    }
}

/// Sends a long message to a server that says `early` in the middle of the content. How it ended, and whether the server
/// has seen the final dot.
fn speak_early(ip: &str, early: &'static [u8]) -> (Ended, bool) {
    let listen = Listen::Addresses(vec!["127.0.10.1".parse().unwrap()]);
    let config = SinkConfig {
        listen,
        ..keeping(&[])
    };
    let lab = Lab::new(&format!("long.test A {ip}\n"), config);
    let saw_dot = Arc::new(AtomicBool::new(false));
    let seen = Mutex::new(Arc::clone(&saw_dot));
    let speak = move |mut client: TcpStream, _: &AtomicBool| {
        let _ = client.write_all(b"220 hello\r\n");
        for (command, reply) in [
            (&b"EHLO"[..], &b"250 long.test\r\n"[..]),
            (b"MAIL", b"250 ok\r\n"),
            (b"RCPT", b"250 ok\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (b"Subject", early),
        ] {
            if !read_to(&mut client, command) || client.write_all(reply).is_err() {
                return;
            }
        }
        let dot = read_to(&mut client, b"\r\n.\r\n");
        seen.lock().unwrap().store(dot, Ordering::Relaxed);
    };
    let address = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), lab.sink.port());
    let peer = Peer::start(address, speak);
    let line = format!("{}\n", "x".repeat(70));
    let body = line.repeat(CONTENT_BYTES / line.len());
    let path = lab.file(
        "long.eml",
        format!("{}{body}", message(1, &["u@long.test"], "")),
    );
    let ended = lab.start_with(&NO_RETRY, &[&path]).wait();
    drop(peer);
    (ended, saw_dot.load(Ordering::Relaxed))
}

#[test]
fn a_success_that_comes_while_the_content_leaves_is_no_delivery_and_keeps_the_dot_back() {
    let (ended, saw_dot) = speak_early("127.0.10.2", b"250 2.0.0 queued\r\n");
    ended.assert_status(75);
    let row = ended.row("u@long.test");
    let seen = [&row.status, &row.class, &row.stage];
    assert_eq!(seen, ["deferred", "host", "body"], "{row:?}");
    assert!(!saw_dot);
}

#[test]
fn a_refusal_that_comes_while_the_content_leaves_counts_and_keeps_the_dot_back() {
    let (ended, saw_dot) = speak_early("127.0.10.3", b"552 5.3.4 too large\r\n");
    ended.assert_status(1);
    let row = ended.row("u@long.test");
    let seen = [&row.status, &row.code, &row.stage];
    assert_eq!(seen, ["refused", "552", "body"], "{row:?}");
    assert!(!saw_dot);
}
