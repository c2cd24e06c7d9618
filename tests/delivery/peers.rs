//! Servers that no standard foresees. Whatever they say, their mail is deferred, the report stays readable, and mail for
//! others is delivered in the same run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mailer::mail::Stage;
use mailer::sink::{Action, Listen, Rule, SinkConfig};
use mailer::smtp::server::Reply;

use crate::batch::Batch;
use crate::lab::{Ended, Lab, PATIENCE, keeping};
use crate::retries::NO_RETRY;

/// A server that says what it likes to each client.
pub struct Peer {
    pub address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Listens and speaks, to one client after the other; port 0 picks a free one.
    pub fn start(
        address: SocketAddr,
        speak: impl Fn(TcpStream, &AtomicBool) + Send + 'static,
    ) -> Peer {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let client = client.unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.set_write_timeout(Some(PATIENCE)).unwrap();
                speak(client, &stop);
            }
        });
        Peer {
            address,
            stopping,
            thread: Some(thread),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends mail to a server that speaks like this, and to a usual one: the latter must get its own. Returns the end.
#[track_caller]
fn deliver_beside(speak: fn(TcpStream, &AtomicBool), arguments: &[&str]) -> Ended {
    let zone = "bad.test MX 10 mx.bad.test\nmx.bad.test A 127.0.9.1\nfine.test MX 10 mx.fine.test\nmx.fine.test A 127.0.9.2\n";
    let listen = Listen::Addresses(vec!["127.0.9.2".parse().unwrap()]);
    let lab = Lab::new(
        zone,
        SinkConfig {
            listen,
            ..keeping(&[])
        },
    );
    let ip: IpAddr = "127.0.9.1".parse().unwrap();
    let _peer = Peer::start(SocketAddr::new(ip, lab.sink.port()), speak);
    let batch = Batch::to_each((0..20).map(|n| format!("u{n}@{}.test", ["bad", "fine"][n % 2])));
    let ended = lab.send(&batch, &[&NO_RETRY[..], arguments].concat());
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(ended.count("delivered"), 10, "{}", ended.odd());
    for row in ended
        .rows
        .iter()
        .filter(|row| row.recipient.ends_with("@bad.test"))
    {
        assert_eq!(
            (row.status.as_str(), row.class.as_str()),
            ("deferred", "host"),
            "{row:?}"
        );
        assert!(row.reply.len() < 1000, "{row:?}");
        assert!(!row.reply.chars().any(char::is_control), "{row:?}");
    }
    ended
}

/// Writes until the client has had enough.
fn flood(mut client: TcpStream, piece: &[u8]) {
    let piece = piece.repeat(100);
    while client.write_all(&piece).is_ok() {}
}

fn say(mut client: TcpStream, words: &[u8]) {
    // The client may be gone: what it makes of this is what is tested.
    let _ = client.write_all(words);
    let _ = client.read_to_end(&mut Vec::new());
}

#[test]
fn endless_reply_lines_are_cut_off() {
    deliver_beside(
        |client, _| flood(client, b"220-and there is more to say\r\n"),
        &[],
    );
}

#[test]
fn a_line_without_end_is_cut_off() {
    deliver_beside(
        |client, _| flood(client, b"220 xxxxxxxxxxxxxxxxxxxxxxxx"),
        &[],
    );
}

#[test]
fn garbage_instead_of_a_greeting_defers() {
    deliver_beside(
        |client, _| say(client, b"\x16\x03\x01\x00\xff\x00\x1b[2J SSH-2.0\r\n"),
        &[],
    );
    deliver_beside(
        |client, _| say(client, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        &[],
    );
    deliver_beside(|client, _| say(client, b"354 go ahead\r\n"), &[]);
    deliver_beside(|client, _| say(client, b"999 no code\r\n"), &[]);
}

#[test]
fn a_reply_line_of_more_than_four_kilobytes_does_no_harm() {
    fn speak(client: TcpStream, _: &AtomicBool) {
        let line = format!("554 {}\r\n", "x".repeat(5000));
        say(client, line.as_bytes());
    }
    deliver_beside(speak, &[]);
}

#[test]
fn replies_that_nobody_asked_for_end_the_session() {
    deliver_beside(
        |client, _| {
            say(
                client,
                b"220 hello\r\n250 a\r\n250 b\r\n250 c\r\n354 d\r\n250 e\r\n",
            )
        },
        &[],
    );
}

/// A server that says `go` to DATA, takes the content, and refuses it.
fn take_and_refuse(client: TcpStream, go: &[u8]) {
    let mut said = &client;
    let _ = said.write_all(b"220 hello\r\n");
    let mut in_content = false;
    for line in BufReader::new(&client).split(b'\n') {
        let Ok(line) = line else { break };
        let reply: &[u8] = match line.trim_ascii_end() {
            b"." if in_content => {
                in_content = false;
                b"550 5.7.1 not wanted\r\n"
            }
            _ if in_content => continue,
            b"DATA" => {
                in_content = true;
                go
            }
            _ => b"250 ok\r\n",
        };
        if said.write_all(reply).is_err() {
            break;
        }
    }
}

#[test]
fn a_success_that_comes_before_the_content_is_no_delivery() {
    for arguments in [&["--max-workers", "1"][..], &[]] {
        let ended = deliver_beside(
            |client, _| take_and_refuse(client, b"354 go ahead\r\n250 2.0.0 already queued\r\n"),
            arguments,
        );
        assert_eq!(ended.row("u0@bad.test").stage, "body");
    }
    // Cut in the middle of it.
    deliver_beside(
        |client, _| take_and_refuse(client, b"354 go ahead\r\n250 2.0.0 alrea"),
        &[],
    );
}

#[test]
fn a_refusal_that_comes_before_the_content_counts() {
    let zone = "bad.test A 127.0.9.1\n";
    let listen = Listen::Addresses(vec!["127.0.9.2".parse().unwrap()]);
    let config = SinkConfig {
        listen,
        ..keeping(&[])
    };
    let lab = Lab::new(zone, config);
    let ip: IpAddr = "127.0.9.1".parse().unwrap();
    let speak =
        |client, _: &AtomicBool| take_and_refuse(client, b"354 go\r\n552 5.3.4 too large\r\n");
    let _peer = Peer::start(SocketAddr::new(ip, lab.sink.port()), speak);
    let ended = lab.send(&Batch::to_each(["u@bad.test"]), &NO_RETRY);
    ended.assert_status(1);
    let row = ended.row("u@bad.test");
    let seen = [&row.status, &row.code, &row.stage];
    assert_eq!(seen, ["refused", "552", "body"], "{row:?}");
}

#[test]
fn a_byte_now_and_then_does_not_stretch_the_deadline_of_a_stage() {
    fn drip(mut client: TcpStream, stop: &AtomicBool) {
        // Never a whole line, never silent for as long as the deadline.
        while !stop.load(Ordering::Relaxed) && client.write_all(b"2").is_ok() {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
    let ended = deliver_beside(drip, &["--timeout", "1s"]);
    assert_eq!(ended.row("u0@bad.test").stage, "greeting");
}

#[test]
fn control_characters_of_a_reply_never_reach_the_report() {
    let text = "5.1.1 \u{1b}[31mred\u{7}\u{9b}2J\u{0}, \"quoted\"\nsecond line\u{202e}";
    let rule = Rule::new(Stage::Rcpt, Action::Reply(Reply::new(550, text))).for_domain("bad.test");
    let lab = Lab::new("SYNTHETIC", SinkConfig::keeping().with_rule(rule));
    let ended = lab.send(
        &Batch::to_each(["u@bad.test", "u@fine.test"]),
        &["--summary"],
    );
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    let row = ended.row("u@bad.test");
    assert_eq!(
        (row.status.as_str(), row.code.as_str()),
        ("refused", "550"),
        "{row:?}"
    );
    assert!(
        row.reply.contains("red") && row.reply.contains("quoted"),
        "{row:?}"
    );
    let report = std::fs::read_to_string(lab.path("report.csv")).unwrap();
    for text in [&report, &ended.stderr] {
        let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(odd), "{text:?}");
    }
    assert_eq!(report.lines().count(), 3, "{report}");
}
