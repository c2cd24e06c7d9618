//! The embedded receiver over real loopback sockets: what it takes, how it misbehaves on demand, what it counts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mailer::sink::{Listen, Sink, SinkConfig, Storage};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client that says what it is told to, and reads replies.
struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream);
        Client { reader }
    }

    /// Greeted and introduced.
    fn ready(address: SocketAddr) -> Client {
        let mut client = Client::connect(address);
        assert_eq!(client.reply(), "220");
        assert_eq!(client.ask("EHLO client.test\r\n"), "250");
        client
    }

    fn say(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The code of the next reply; empty at the end of the stream.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) | Err(_) => return String::new(),
                Ok(_) if line.as_bytes().get(3) == Some(&b'-') => {}
                Ok(_) => return line[..3].to_owned(),
            }
        }
    }

    fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.reply()
    }

    /// A transaction in two flights; the code of the reply to the dot.
    fn send(&mut self, recipient: &str, content: &str) -> String {
        self.say(&format!(
            "MAIL FROM:<a@a.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        ));
        let codes: Vec<String> = (0..3).map(|_| self.reply()).collect();
        assert_eq!(codes, ["250", "250", "354"]);
        self.ask(&format!("{content}.\r\n"))
    }
}

fn keeping(rules: &[&str]) -> Sink {
    let mut config = SinkConfig::keeping();
    config.rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Sink::start(config).unwrap()
}

#[test]
fn a_message_arrives_as_it_was_sent() {
    let sink = keeping(&[]);
    let mut client = Client::ready(sink.address());
    assert_eq!(
        client.send("b@b.test", "Subject: x\r\n\r\n..dot\r\n"),
        "250"
    );
    assert_eq!(client.ask("QUIT\r\n"), "221");
    let messages = sink.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].reverse_path, "a@a.test");
    assert_eq!(messages[0].recipients, ["b@b.test"]);
    assert_eq!(messages[0].content, b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(messages[0].server, sink.address());
    drop(client);
    let stats = sink.stop();
    assert_eq!(
        (stats.messages, stats.recipients, stats.bytes, stats.open),
        (1, 1, 20, 0)
    );
    assert_eq!((stats.violations_total(), stats.cut), (0, 0), "{stats}");
}

#[test]
fn every_loopback_address_is_served_by_one_port() {
    let sink = Sink::start(SinkConfig::default()).unwrap();
    if !sink.covers_loopback() {
        return; // The system has no sockets tied to a device; the list of addresses is tested in `listen`.
    }
    for address in [[127, 0, 0, 1], [127, 1, 2, 3], [127, 254, 254, 254]] {
        let address = Ipv4Addr::from(address);
        let mut client = Client::ready((address, sink.port()).into());
        assert_eq!(client.send("b@b.test", "x\r\n"), "250");
        assert_eq!(sink.open_max_at(address.into()), 1);
    }
    let stats = sink.stop();
    assert_eq!(
        (stats.addresses.len(), stats.open_max_per_address()),
        (3, 1)
    );
}

#[test]
fn ipv6_loopback_is_served_when_listed() {
    let config = SinkConfig {
        listen: Listen::Addresses(vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]),
        ..SinkConfig::default()
    };
    match Sink::start(config) {
        Ok(sink) => {
            Client::ready(SocketAddr::new("::1".parse().unwrap(), sink.port()));
        }
        // A machine without IPv6 says so.
        Err(error) => assert!(error.to_string().contains("::1"), "{error}"),
    }
}

#[test]
fn rules_refuse_defer_and_hang_up_by_stage_and_domain() {
    let sink = keeping(&[
        "domain=no.test stage=rcpt reply=\"550 5.1.1 no such user\"",
        "domain=later.test stage=rcpt reply=\"450 4.2.1 later\" first=1",
        "domain=busy.test stage=rcpt reply=\"421 4.3.2 closing\"",
        "domain=gone.test stage=data drop",
        "domain=spam.test stage=dot reply=\"554 5.7.1 spam\"",
        "domain=body.test stage=body reply=\"552 5.3.4 enough\"",
    ]);
    let mut client = Client::ready(sink.address());
    assert_eq!(client.ask("MAIL FROM:<>\r\n"), "250");
    assert_eq!(client.ask("RCPT TO:<a@x.no.test>\r\n"), "550");
    assert_eq!(client.ask("RCPT TO:<a@later.test>\r\n"), "450");
    assert_eq!(client.ask("RCPT TO:<a@later.test>\r\n"), "250");
    assert_eq!(client.ask("RSET\r\n"), "250");
    assert_eq!(client.send("a@spam.test", "x\r\n"), "554");
    client.say("MAIL FROM:<>\r\nRCPT TO:<a@busy.test>\r\nDATA\r\n");
    assert_eq!(
        (client.reply(), client.reply(), client.reply()),
        ("250".into(), "421".into(), String::new())
    );
    let mut client = Client::ready(sink.address());
    client.say("MAIL FROM:<>\r\nRCPT TO:<a@gone.test>\r\nDATA\r\n");
    assert_eq!(
        (client.reply(), client.reply(), client.reply()),
        ("250".into(), "250".into(), String::new())
    );
    let mut client = Client::ready(sink.address());
    assert_eq!(client.send("a@body.test", "never ended\r\n"), "552");
    let stats = sink.stop();
    assert_eq!((stats.messages, stats.refusals), (0, 5), "{stats}");
    assert_eq!(stats.cut, 3, "421, DATA and the body: {stats}");
}

#[test]
fn a_lost_reply_leaves_the_client_in_doubt_and_a_dropped_dot_takes_nothing() {
    let sink = keeping(&[
        "domain=lost.test stage=dot lose-reply",
        "domain=drop.test stage=dot drop",
    ]);
    let mut client = Client::ready(sink.address());
    assert_eq!(client.send("a@lost.test", "x\r\n"), "");
    let mut client = Client::ready(sink.address());
    assert_eq!(client.send("a@drop.test", "x\r\n"), "");
    let recipients: Vec<_> = sink
        .messages()
        .into_iter()
        .flat_map(|m| m.recipients)
        .collect();
    assert_eq!(recipients, ["a@lost.test"]);
    assert_eq!(sink.stop().cut, 2);
}

#[test]
fn a_silent_receiver_accepts_and_says_nothing_until_it_is_stopped() {
    let sink = keeping(&["stage=greeting silence"]);
    let mut client = Client::connect(sink.address());
    client.say("EHLO a.test\r\n");
    assert!(sink.wait_until(|stats| stats.open == 1, PATIENCE));
    client
        .reader
        .get_mut()
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(
        client.reader.get_mut().read(&mut [0]).is_err(),
        "nothing is said"
    );
    assert_eq!(sink.stop().open, 0);
}

#[test]
fn connect_rules_come_before_the_greeting() {
    let sink = keeping(&[
        "stage=connect drop first=1",
        "stage=connect silence first=1",
    ]);
    assert_eq!(Client::connect(sink.address()).reply(), "");
    let silent = Client::connect(sink.address());
    assert!(sink.wait_until(|stats| stats.connections == 2, PATIENCE));
    drop(silent);
    Client::ready(sink.address());
}

#[test]
fn delays_hold_a_reply_back_and_latency_each_flight() {
    let sink = keeping(&["stage=rcpt delay=60ms"]);
    let mut client = Client::ready(sink.address());
    let start = Instant::now();
    assert_eq!(client.send("b@b.test", "x\r\n"), "250");
    assert!(
        start.elapsed() >= Duration::from_millis(60),
        "{:?}",
        start.elapsed()
    );
    let latent = SinkConfig {
        latency: Duration::from_millis(40),
        ..SinkConfig::default()
    };
    let sink = Sink::start(latent).unwrap();
    let mut client = Client::ready(sink.address());
    let start = Instant::now();
    assert_eq!(client.send("b@b.test", "x\r\n"), "250");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(80), "two flights: {took:?}");
    let span = sink.stats().span;
    assert!(
        span >= Duration::from_millis(40) && span <= took,
        "{span:?}"
    );
    // However many commands a flight has, their replies wait once and come together: 200 waits would take eight seconds.
    let start = Instant::now();
    client.say(&"RSET\r\n".repeat(200));
    assert!((0..200).all(|_| client.reply() == "250"));
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(40) && took < Duration::from_secs(4),
        "{took:?}"
    );
}

#[test]
fn greylisting_puts_each_recipient_off_once() {
    let config = SinkConfig {
        greylist: Some(Duration::ZERO),
        ..SinkConfig::default()
    };
    let sink = Sink::start(config).unwrap();
    let mut client = Client::ready(sink.address());
    client.ask("MAIL FROM:<>\r\n");
    let codes: Vec<String> = ["a", "b", "a", "b"]
        .iter()
        .map(|name| client.ask(&format!("RCPT TO:<{name}@c.test>\r\n")))
        .collect();
    assert_eq!(codes, ["451", "451", "250", "250"]);
}

#[test]
fn limits_of_connections_and_messages_answer_421() {
    let config = SinkConfig {
        connections_max: Some(2),
        messages_per_connection_max: Some(1),
        ..SinkConfig::default()
    };
    let sink = Sink::start(config).unwrap();
    let mut first = Client::ready(sink.address());
    let _second = Client::ready(sink.address());
    assert_eq!(Client::connect(sink.address()).reply(), "421");
    assert_eq!(first.send("b@b.test", "x\r\n"), "250");
    assert_eq!(first.ask("MAIL FROM:<>\r\n"), "421");
    assert_eq!(first.reply(), "");
    let stats = sink.stop();
    assert_eq!((stats.connections_refused, stats.connections), (1, 3));
}

#[test]
fn turns_are_round_trips_of_the_client() {
    let sink = keeping(&[]);
    let mut lock_step = Client::ready(sink.address());
    for _ in 0..5 {
        for command in ["MAIL FROM:<>\r\n", "RCPT TO:<b@b.test>\r\n"] {
            assert_eq!(lock_step.ask(command), "250");
        }
        assert_eq!(lock_step.ask("DATA\r\n"), "354");
        assert_eq!(lock_step.ask("x\r\n.\r\n"), "250");
    }
    drop(lock_step);
    assert!(sink.wait_until(|stats| stats.open == 0, PATIENCE));
    let stats = sink.stop();
    assert_eq!(
        (stats.reused_messages, stats.reused_turns, stats.turns),
        (3, 12, 22),
        "{stats}"
    );

    let sink = keeping(&[]);
    let mut pipelined = Client::ready(sink.address());
    let envelope = "MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n";
    pipelined.say(envelope);
    for _ in 0..5 {
        let codes: Vec<String> = (0..3).map(|_| pipelined.reply()).collect();
        assert_eq!(codes, ["250", "250", "354"]);
        assert_eq!(pipelined.ask(&format!("x\r\n.\r\n{envelope}")), "250");
    }
    drop(pipelined);
    assert!(sink.wait_until(|stats| stats.open == 0, PATIENCE));
    let stats = sink.stop();
    assert_eq!(
        (stats.reused_messages, stats.reused_turns),
        (3, 3),
        "{stats}"
    );
    assert_eq!(stats.violations_total(), 0);
}

#[test]
fn a_long_message_in_many_pieces_is_one_turn_and_whole() {
    let sink = keeping(&[]);
    let mut client = Client::ready(sink.address());
    let content =
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(32 * 1024);
    assert_eq!(client.send("b@b.test", &content), "250");
    assert_eq!(sink.messages()[0].content, content.as_bytes());
    drop(client);
    assert!(sink.wait_until(|stats| stats.open == 0, PATIENCE));
    assert_eq!(sink.stop().turns, 4, "greeting, EHLO, envelope, dot");
}

#[test]
fn duplicates_and_violations_are_counted() {
    let sink = keeping(&[]);
    let mut client = Client::ready(sink.address());
    let content = "Message-ID: <1@a.test>\r\n\r\nx\r\n";
    assert_eq!(client.send("b@b.test", content), "250");
    assert_eq!(client.send("c@b.test", content), "250");
    assert_eq!(sink.stats().duplicates, Some(0));
    assert_eq!(client.send("b@b.test", content), "250");
    assert_eq!(client.send("b@b.test", "bare\nlf\r\n"), "250");
    assert_eq!(client.ask("NOOP\n"), "250");
    let stats = sink.stats();
    assert_eq!(stats.duplicates, Some(1));
    assert_eq!(stats.violations.get("bare-lf"), Some(&2), "{stats}");
}

#[test]
fn a_client_that_does_not_wait_for_the_greeting_is_noticed() {
    let sink = keeping(&["stage=connect delay=500ms"]);
    let mut client = Client::connect(sink.address());
    client.say("EHLO a.test\r\n");
    assert_eq!(
        (client.reply(), client.reply()),
        ("220".into(), "250".into())
    );
    assert_eq!(sink.stats().violations.get("early-talker"), Some(&1));
}

#[test]
fn kept_messages_land_in_a_maildir() {
    let directory = tempfile::tempdir().unwrap();
    let config = SinkConfig {
        storage: Storage::Maildir(directory.path().to_owned()),
        ..SinkConfig::default()
    };
    let sink = Sink::start(config).unwrap();
    assert_eq!(
        Client::ready(sink.address()).send("b@b.test", "x\r\n"),
        "250"
    );
    drop(sink);
    let files: Vec<_> = std::fs::read_dir(directory.path().join("new"))
        .unwrap()
        .collect();
    let text = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
    assert_eq!(
        text,
        "X-Envelope-From: <a@a.test>\r\nX-Envelope-To: <b@b.test>\r\nx\r\n"
    );
}

#[test]
fn two_hundred_connections_at_once_lose_nothing() {
    let sink = keeping(&[]);
    let address = sink.address();
    let together = std::sync::Arc::new(std::sync::Barrier::new(200));
    let threads: Vec<_> = (0..200)
        .map(|number| {
            let together = together.clone();
            std::thread::spawn(move || {
                let mut client = Client::ready(address);
                together.wait();
                for n in 0..5 {
                    let content = format!("Message-ID: <{number}.{n}@a.test>\r\n\r\nx\r\n");
                    assert_eq!(client.send(&format!("u{number}@b.test"), &content), "250");
                }
                assert_eq!(client.ask("QUIT\r\n"), "221");
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(sink.wait_until(|stats| stats.open == 0, PATIENCE));
    let stats = sink.stop();
    assert_eq!(
        (stats.messages, stats.connections, stats.open_max),
        (1000, 200, 200)
    );
    assert_eq!(
        (stats.duplicates, stats.violations_total()),
        (Some(0), 0),
        "{stats}"
    );
}

#[test]
fn random_bytes_leave_the_receiver_working() {
    let sink = keeping(&[]);
    let mut rng = fastrand::Rng::with_seed(4);
    for _ in 0..50 {
        let mut stream = TcpStream::connect(sink.address()).unwrap();
        let junk: Vec<u8> = (0..rng.usize(..20_000)).map(|_| rng.u8(..)).collect();
        // The receiver may have hung up already.
        let _ = stream.write_all(&junk);
    }
    assert_eq!(
        Client::ready(sink.address()).send("b@b.test", "x\r\n"),
        "250"
    );
    assert!(sink.wait_until(|stats| stats.messages == 1, PATIENCE));
}

#[test]
fn lmtp_takes_a_message_for_some_of_its_recipients() {
    let mut config = SinkConfig::keeping();
    config.server.lmtp = true;
    config.rules = ["domain=full.test stage=dot reply=\"452 4.2.2 mailbox full\""]
        .map(|rule| rule.parse().unwrap())
        .into();
    let sink = Sink::start(config).unwrap();
    let mut client = Client::connect(sink.address());
    assert_eq!(client.reply(), "220");
    assert_eq!(client.ask("LHLO client.test\r\n"), "250");
    for (names, codes) in [
        (
            ["a@b.test", "b@full.test", "c@b.test"],
            ["250", "452", "250"],
        ),
        (["a@full.test", "b@full.test", "c@full.test"], ["452"; 3]),
    ] {
        assert_eq!(client.ask("MAIL FROM:<a@a.test>\r\n"), "250");
        for name in names {
            assert_eq!(client.ask(&format!("RCPT TO:<{name}>\r\n")), "250");
        }
        assert_eq!(client.ask("DATA\r\n"), "354");
        client.say("x\r\n.\r\n");
        assert_eq!([(); 3].map(|()| client.reply()), codes);
    }
    let messages = sink.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].recipients, ["a@b.test", "c@b.test"]);
    let stats = sink.stop();
    assert_eq!(
        (stats.messages, stats.recipients, stats.refusals),
        (1, 2, 4)
    );
}

#[test]
fn chunks_arrive_as_they_were_sent() {
    let mut config = SinkConfig::keeping();
    config.server.chunking = true;
    let sink = Sink::start(config).unwrap();
    let mut client = Client::ready(sink.address());
    let content = "..dot\r\n.\r\n".repeat(40_000);
    let (first, last) = content.split_at(100_001);
    client.say(&format!(
        "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT {}\r\n{first}BDAT {} LAST\r\n{last}",
        first.len(),
        last.len()
    ));
    assert_eq!([(); 4].map(|()| client.reply()), ["250"; 4]);
    assert_eq!(sink.messages()[0].content, content.as_bytes());
    drop(client);
    assert!(sink.wait_until(|stats| stats.open == 0, PATIENCE));
    let stats = sink.stop();
    assert_eq!(
        (stats.messages, stats.violations_total()),
        (1, 0),
        "{stats}"
    );
}
