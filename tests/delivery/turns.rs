//! How often a message waits for the server: one round trip on a session in use, and what becomes of servers that cannot
//! bear it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailer::sink::SinkConfig;

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON, keeping};
use crate::peers::Peer;
use crate::retries::NO_RETRY;

const ONE_WORKER: [&str; 2] = ["--max-workers", "1"];

fn send(lab: &Lab, count: usize, flags: &[&str]) -> Ended {
    let batch = Batch::to_domain("a.test", count);
    lab.send(&batch, &[&NO_RETRY[..], &ONE_WORKER, flags].concat())
}

/// A receiver whose offers are changed by `change`.
fn offering(change: impl FnOnce(&mut SinkConfig)) -> Lab {
    let mut config = keeping(&[]);
    change(&mut config);
    Lab::new("SYNTHETIC", config)
}

#[test]
fn a_message_costs_one_turn_on_a_session_in_use() {
    for chunking in [false, true] {
        // The network is what turns are saved for: without any, the next run of messages may come a moment late.
        let lab = offering(|config| {
            config.server.chunking = chunking;
            config.latency = Duration::from_millis(5);
        });
        let ended = send(&lab, 400, &[]);
        lab.assert_all_delivered(&ended, 400);
        let stats = lab.sink.stats();
        assert!(stats.reused_turns_per_message() <= 1.02, "{stats}");
        assert!(
            stats.reused_messages >= 390 && stats.connections == 1,
            "{stats}"
        );
    }
}

#[test]
fn a_message_costs_four_turns_without_pipelining() {
    let lab = offering(|config| config.server.pipelining = false);
    let ended = send(&lab, 300, &[]);
    lab.assert_all_delivered(&ended, 300);
    let stats = lab.sink.stats();
    assert_eq!(stats.reused_turns_per_message(), 4.0, "{stats}");
}

#[test]
fn the_first_message_of_a_session_costs_a_turn_less_by_bdat() {
    let turns = |chunking: bool, flags: &[&str]| {
        let lab = offering(|config| config.server.chunking = chunking);
        let ended = send(&lab, 1, flags);
        lab.assert_all_delivered(&ended, 1);
        lab.wait_until(|stats| stats.open == 0);
        lab.sink.stats().turns
    };
    // Greeting, EHLO, envelope, dot; and the end, if it is waited for.
    let with_data = turns(false, &[]);
    assert_eq!(turns(true, &[]), with_data - 1);
}

/// How a server takes commands that come behind a final dot.
#[derive(Clone, Copy)]
enum Ahead {
    /// As it should.
    Borne,
    /// It takes the message and ends the session at once.
    HangsUp,
    /// It takes the message, says that it shuts down, and ends the session.
    ShutsDown,
    /// It throws them away.
    Forgotten,
}

/// What such a server has seen.
#[derive(Default)]
struct Seen {
    /// The commands that have parameters.
    lines: Vec<String>,
    /// Message-ID fields of what it took.
    messages: Vec<String>,
    /// How often commands came behind a final dot.
    ahead: usize,
    /// And how often behind the first of a session, when nothing was proven yet.
    ahead_of_first: usize,
}

/// A relay that offers these extensions, with a laboratory whose own receiver has nothing to do.
struct Odd {
    lab: Lab,
    peer: Peer,
    seen: Arc<Mutex<Seen>>,
}

impl Odd {
    fn start(offers: &'static str, ahead: Ahead) -> Odd {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let inner = Arc::clone(&seen);
        let speak = move |client: TcpStream, _: &_| {
            // The client may leave whenever it likes.
            let _ = converse(client, offers, ahead, &inner);
        };
        let peer = Peer::start("127.0.11.1:0".parse().unwrap(), speak);
        Odd {
            lab: Lab::new("", SinkConfig::default()),
            peer,
            seen,
        }
    }

    /// Sends it so many messages, each of which must arrive once.
    #[track_caller]
    fn send(&self, count: usize, flags: &[&str]) {
        let batch = Batch::to_domain("odd.test", count);
        let relay = self.peer.address.to_string();
        let all = [&SOON[..], &["--relay", &relay], &ONE_WORKER, flags].concat();
        let ended = self.lab.send(&batch, &all);
        ended.assert_status(0);
        assert_eq!(ended.count("delivered"), count, "{}", ended.odd());
        let mut messages = self.seen.lock().unwrap().messages.clone();
        let taken = messages.len();
        messages.sort();
        messages.dedup();
        assert_eq!((taken, messages.len()), (count, count), "each once");
    }
}

/// One session of an odd server.
fn converse(
    client: TcpStream,
    offers: &str,
    ahead: Ahead,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    let mut writer = client.try_clone()?;
    let mut reader = BufReader::new(client);
    writer.write_all(b"220 odd.test ESMTP\r\n")?;
    let mut line = String::new();
    let mut is_first = true;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        seen.lock().unwrap().lines.push(line.trim_end().to_owned());
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => writer.write_all(format!("250-odd.test\r\n{offers}").as_bytes())?,
            "DATA" => {
                writer.write_all(b"354 go\r\n")?;
                take_content(&mut reader, seen)?;
                let is_ahead = !reader.buffer().is_empty();
                {
                    let mut seen = seen.lock().unwrap();
                    seen.ahead += usize::from(is_ahead);
                    seen.ahead_of_first += usize::from(is_ahead && is_first);
                }
                is_first = false;
                writer.write_all(b"250 2.0.0 taken\r\n")?;
                match ahead {
                    Ahead::HangsUp if is_ahead => return Ok(()),
                    Ahead::ShutsDown if is_ahead => return writer.write_all(b"421 4.3.0 bye\r\n"),
                    Ahead::Forgotten if is_ahead => reader.consume(reader.buffer().len()),
                    _ => {}
                }
            }
            "QUIT" => return writer.write_all(b"221 bye\r\n"),
            _ => writer.write_all(b"250 2.0.0 ok\r\n")?,
        }
    }
}

fn take_content(reader: &mut BufReader<TcpStream>, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with("Message-ID:") {
            seen.lock().unwrap().messages.push(line.clone());
        }
        if line == ".\r\n" {
            return Ok(());
        }
    }
}

const PIPELINING: &str = "250 PIPELINING\r\n";

#[test]
fn a_server_that_bears_it_is_always_run_ahead_of() {
    let odd = Odd::start(PIPELINING, Ahead::Borne);
    odd.send(50, &[]);
    let seen = odd.seen.lock().unwrap();
    assert!(seen.ahead >= 45);
    assert_eq!(seen.ahead_of_first, 0, "the first message proves it");
}

#[test]
fn a_server_that_ends_the_session_behind_a_dot_is_run_ahead_of_once() {
    for ahead in [Ahead::HangsUp, Ahead::ShutsDown] {
        let odd = Odd::start(PIPELINING, ahead);
        odd.send(50, &[]);
        assert_eq!(odd.seen.lock().unwrap().ahead, 1);
    }
}

#[test]
fn a_server_that_forgets_what_came_behind_a_dot_is_run_ahead_of_once() {
    let odd = Odd::start(PIPELINING, Ahead::Forgotten);
    odd.send(50, &["--timeout", "500ms"]);
    assert_eq!(odd.seen.lock().unwrap().ahead, 1);
}

#[test]
fn wishes_for_notifications_reach_only_servers_that_offer_them() {
    let wishes = [
        "--dsn-ret",
        "hdrs",
        "--dsn-notify",
        "failure,delay",
        "--dsn-envid",
        "issue=7 a",
        "--dsn-orcpt",
    ];
    let lines = |offers| {
        let odd = Odd::start(offers, Ahead::Borne);
        odd.send(1, &wishes);
        let seen = odd.seen.lock().unwrap();
        let mut lines = seen
            .lines
            .iter()
            .filter(|line| line.starts_with("MAIL") || line.starts_with("RCPT"));
        (lines.next().unwrap().clone(), lines.next().unwrap().clone())
    };
    let (mail, rcpt) = lines("250-PIPELINING\r\n250 DSN\r\n");
    assert_eq!(
        mail,
        "MAIL FROM:<sender@batch.test> RET=HDRS ENVID=issue+3D7+20a"
    );
    assert_eq!(
        rcpt,
        "RCPT TO:<u1@odd.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;u1@odd.test"
    );
    let (mail, rcpt) = lines(PIPELINING);
    assert_eq!(
        (mail.as_str(), rcpt.as_str()),
        ("MAIL FROM:<sender@batch.test>", "RCPT TO:<u1@odd.test>")
    );

    // The strict receiver agrees with both.
    for dsn in [false, true] {
        let lab = offering(|config| config.server.dsn = dsn);
        let ended = send(&lab, 20, &wishes);
        lab.assert_all_delivered(&ended, 20);
    }
}
