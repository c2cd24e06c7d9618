//! Around the final dot: what comes before it although nothing is due, how long content may take up to it, and what has
//! left behind it when the run is to end.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mailer::sink::{Listen, SinkConfig, certificate};
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

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
fn read_to(client: &mut impl Read, end: &[u8]) -> bool {
    read_slowly_to(client, end, Duration::ZERO)
}

/// The same with a pause behind each piece.
fn read_slowly_to(client: &mut impl Read, end: &[u8], pause: Duration) -> bool {
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
        if !pause.is_zero() {
            std::thread::park_timeout(pause);
        }
    }
}

/// Answers each command in turn; false if one did not come.
fn answer(client: &mut (impl Read + Write), dialogue: &[(&[u8], &[u8])]) -> bool {
    dialogue.iter().all(|(command, reply)| {
        read_to(client, command)
            && client
                .write_all(reply)
                .and_then(|()| client.flush())
                .is_ok()
    })
}

/// What asks for a message.
const ENVELOPE: [(&[u8], &[u8]); 4] = [
    (b"EHLO", b"250 long.test\r\n"),
    (b"MAIL", b"250 ok\r\n"),
    (b"RCPT", b"250 ok\r\n"),
    (b"DATA\r\n", b"354 go\r\n"),
];

/// Takes a message, and says `early` when its content has begun. True if the final dot comes.
fn take_message(client: &mut (impl Read + Write), early: &[u8]) -> bool {
    answer(client, &ENVELOPE)
        && answer(client, &[(b"Message-ID", early)])
        && read_to(client, b"\r\n.\r\n")
}

/// The last line of the content.
const LAST_LINE: &str = "That was it.";

/// Takes a message little by little: never silent for long, and never done soon. True if `end` comes.
fn take_slowly(mut client: TcpStream, end: &[u8]) -> bool {
    client.write_all(b"220 hello\r\n").is_ok()
        && answer(&mut client, &ENVELOPE)
        && read_slowly_to(&mut client, end, Duration::from_millis(15))
        && client.write_all(b"250 ok\r\n").is_ok()
}

/// A session of such a server, in clear or behind STARTTLS. True if the final dot comes.
fn converse(mut client: TcpStream, acceptor: Option<&SslAcceptor>, early: &[u8]) -> bool {
    if client.write_all(b"220 hello\r\n").is_err() {
        return false;
    }
    let Some(acceptor) = acceptor else {
        return take_message(&mut client, early);
    };
    let dialogue: [(&[u8], &[u8]); 2] = [
        (b"EHLO", b"250-long.test\r\n250 STARTTLS\r\n"),
        (b"STARTTLS\r\n", b"220 go\r\n"),
    ];
    answer(&mut client, &dialogue)
        && acceptor
            .accept(client)
            .is_ok_and(|mut client| take_message(&mut client, early))
}

fn acceptor() -> SslAcceptor {
    let made = certificate::self_signed(&["long.test"]).unwrap();
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    let key = PKey::private_key_from_pem(&made.key_pem).unwrap();
    builder.set_private_key(&key).unwrap();
    let certificate = X509::from_pem(&made.chain_pem).unwrap();
    builder.set_certificate(&certificate).unwrap();
    builder.build()
}

/// Sends a long message to the server at `ip` with this configuration; `speak` says if it has seen the end. How it
/// ended, and whether one was seen.
fn deliver_long(
    ip: &str,
    config: &str,
    speak: impl Fn(TcpStream) -> bool + Send + 'static,
) -> (Ended, bool) {
    let listen = Listen::Addresses(vec!["127.0.10.1".parse().unwrap()]);
    let sink = SinkConfig {
        listen,
        ..keeping(&[])
    };
    let lab = Lab::new(&format!("long.test A {ip}\n"), sink);
    let saw_dot = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&saw_dot);
    let speak = move |client: TcpStream, _: &AtomicBool| {
        seen.fetch_or(speak(client), Ordering::Relaxed);
    };
    let address = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), lab.sink.port());
    let peer = Peer::start(address, speak);
    let line = format!("{}\n", "x".repeat(70));
    let body = line.repeat(CONTENT_BYTES / line.len());
    let header = message(1, &["u@long.test"], "");
    let content = format!("{header}{body}{LAST_LINE}\n");
    let path = lab.file("long.eml", content);
    let config = lab.file("mailer.toml", config);
    let arguments = [&NO_RETRY[..], &["--config", config.to_str().unwrap()]].concat();
    let ended = lab.start_with(&arguments, &[&path]).wait();
    drop(peer);
    (ended, saw_dot.load(Ordering::Relaxed))
}

/// The same to a server that says `early` in the middle of the content.
fn speak_early(ip: &str, in_tls: bool, early: &'static [u8]) -> (Ended, bool) {
    let acceptor = in_tls.then(acceptor);
    let (ended, saw_dot) = deliver_long(ip, "", move |client| {
        converse(client, acceptor.as_ref(), early)
    });
    assert_eq!(ended.row("u@long.test").tls.is_empty(), !in_tls);
    (ended, saw_dot)
}

#[test]
fn content_has_one_deadline_however_steadily_it_leaves() {
    // As fast as that, it would be gone within the time of the stage.
    let config = "min_data_rate = 100000000\n[timeouts]\nbody = \"2s\"\n";
    let (ended, saw_end) = deliver_long("127.0.10.6", config, |client| {
        take_slowly(client, LAST_LINE.as_bytes())
    });
    ended.assert_status(75);
    let row = ended.row("u@long.test");
    let seen = [&row.status, &row.class, &row.stage];
    assert_eq!(seen, ["deferred", "host", "body"], "{row:?}");
    assert!(row.reply.contains("timed out") && !saw_end, "{row:?}");
}

#[test]
fn long_content_has_as_long_as_the_least_rate_allows() {
    let config = "[timeouts]\nbody = \"2s\"\n";
    let (ended, saw_dot) = deliver_long("127.0.10.7", config, |client| {
        take_slowly(client, b"\r\n.\r\n")
    });
    ended.assert_status(0);
    assert!(saw_dot);
}

#[test]
fn a_success_that_comes_while_the_content_leaves_is_no_delivery_and_keeps_the_dot_back() {
    for (ip, in_tls) in [("127.0.10.2", false), ("127.0.10.3", true)] {
        let (ended, saw_dot) = speak_early(ip, in_tls, b"250 2.0.0 queued\r\n");
        ended.assert_status(75);
        let row = ended.row("u@long.test");
        let seen = [&row.status, &row.code, &row.class, &row.stage];
        assert_eq!(seen, ["deferred", "250", "host", "body"], "{row:?}");
        assert!(!saw_dot);
    }
}

#[test]
fn a_refusal_that_comes_while_the_content_leaves_counts_and_keeps_the_dot_back() {
    for (ip, in_tls) in [("127.0.10.4", false), ("127.0.10.5", true)] {
        let (ended, saw_dot) = speak_early(ip, in_tls, b"552 5.3.4 too large\r\n");
        ended.assert_status(1);
        let row = ended.row("u@long.test");
        let seen = [&row.status, &row.code, &row.stage];
        assert_eq!(seen, ["refused", "552", "body"], "{row:?}");
        assert!(!saw_dot);
    }
}
