//! The embedded receiver inside TLS, over real loopback sockets, with the platform's library as the client.

mod client;

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use client::{Client, Corked, PATIENCE, TRANSACTION, connect};
use mailer::sink::certificate::{Authority, Certificate};
use mailer::sink::{Sink, SinkConfig, SinkTls};
use mailer::smtp::server::AuthSettings;
use native_tls::{Protocol, TlsConnector, TlsStream};

const NAME: &str = "mx.example.test";

/// Greeted, introduced, and told to go ahead with TLS.
fn ready_for_tls(address: SocketAddr) -> TcpStream {
    let mut client = Client::new(connect(address));
    assert!(client.reply().starts_with("220 "));
    assert!(client.ask("EHLO a.test\r\n").contains("STARTTLS"));
    assert!(client.ask("STARTTLS\r\n").starts_with("220 "));
    assert!(client.reader.buffer().is_empty());
    client.reader.into_inner()
}

fn accepting() -> TlsConnector {
    TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .build()
        .unwrap()
}

fn trusting(authority: &Authority) -> TlsConnector {
    let root = native_tls::Certificate::from_pem(&authority.certificate_pem().unwrap()).unwrap();
    TlsConnector::builder()
        .disable_built_in_roots(true)
        .add_root_certificate(root)
        .build()
        .unwrap()
}

/// A client inside TLS by STARTTLS, introduced again.
fn secured(sink: &Sink) -> Client<TlsStream<TcpStream>> {
    let stream = accepting()
        .connect(NAME, ready_for_tls(sink.address()))
        .unwrap();
    let mut client = Client::new(stream);
    assert!(!client.ask("EHLO a.test\r\n").contains("STARTTLS"));
    client
}

fn self_signed() -> SinkTls {
    SinkTls::self_signed(&[NAME]).unwrap()
}

fn sink(rules: &[&str]) -> Sink {
    let mut config = SinkConfig::keeping().with_tls(self_signed());
    config.rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Sink::start(config).unwrap()
}

#[test]
fn a_message_arrives_inside_tls_and_is_counted_there() {
    let sink = sink(&[]);
    let mut client = secured(&sink);
    client.send("inside\r\n");
    assert!(client.ask("QUIT\r\n").starts_with("221 "));
    assert_eq!(client.reply(), "", "closed with a word of farewell");
    let mut plain = Client::new(connect(sink.address()));
    plain.say("EHLO a.test\r\n");
    assert_eq!(plain.codes(2), ["220", "250"]);
    plain.send("in clear\r\n");
    let seen: Vec<_> = sink
        .messages()
        .into_iter()
        .map(|message| (message.content, message.tls))
        .collect();
    let wanted = [
        (b"inside\r\n".to_vec(), true),
        (b"in clear\r\n".to_vec(), false),
    ];
    assert_eq!(seen, wanted);
    let stats = sink.stop();
    assert_eq!(
        (
            stats.tls_sessions,
            stats.tls_messages,
            stats.messages,
            stats.tls_failures
        ),
        (1, 1, 2, 0)
    );
    assert!(
        stats
            .to_string()
            .contains("TLS: sessions 1, messages 1, failed handshakes 0")
    );
}

#[test]
fn a_long_message_in_many_records_is_one_turn_and_whole() {
    let sink = sink(&[]);
    let mut client = secured(&sink);
    let content = format!("{}\r\n", "0123456789".repeat(70)).repeat(3000);
    client.send(&content);
    assert_eq!(sink.messages()[0].content, content.as_bytes());
    drop(client);
    assert!(sink.wait_until(|stats| stats.open == 0, PATIENCE));
    let turns = sink.stop().turns;
    assert_eq!(turns, 6, "greeting, EHLO, STARTTLS, EHLO, envelope, dot");
}

#[test]
fn implicit_tls_begins_with_the_handshake() {
    let config = SinkConfig::keeping().with_tls(self_signed().implicit());
    let sink = Sink::start(config).unwrap();
    let stream = accepting().connect(NAME, connect(sink.address())).unwrap();
    let mut client = Client::new(stream);
    assert!(client.reply().starts_with("220 "));
    assert!(!client.ask("EHLO a.test\r\n").contains("STARTTLS"));
    client.send("x\r\n");
    let stats = sink.stats();
    assert_eq!(stats.tls_messages, 1);
    assert_eq!(stats.violations_total(), 0, "{stats}");
}

#[test]
fn an_authority_vouches_for_names_and_for_nothing_else() {
    let authority = Authority::new("Test authority").unwrap();
    let stranger = Authority::new("Somebody else").unwrap();
    let handshake = |certificate: Certificate, connector: &TlsConnector, name: &str| {
        let config = SinkConfig::default().with_tls(SinkTls::new(certificate));
        let sink = Sink::start(config).unwrap();
        let outcome = connector.connect(name, ready_for_tls(sink.address()));
        outcome.map(drop).map_err(|error| error.to_string())
    };
    let good = || authority.issue(&[NAME, "127.0.0.1"]).unwrap();
    let trusting = trusting(&authority);
    assert_eq!(handshake(good(), &trusting, NAME), Ok(()));
    assert_eq!(handshake(good(), &trusting, "127.0.0.1"), Ok(()));
    let expired = authority.issue_expired(&[NAME]).unwrap();
    for (certificate, name, part) in [
        (good(), "other.example.test", "ostname"),
        (expired.clone(), NAME, "expired"),
        (stranger.issue(&[NAME]).unwrap(), NAME, "local issuer"),
        (
            mailer::sink::certificate::self_signed(&[NAME]).unwrap(),
            NAME,
            "self-signed",
        ),
    ] {
        let error = handshake(certificate, &trusting, name).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(handshake(expired, &accepting(), NAME), Ok(()));
}

#[test]
fn certificates_come_from_files_too() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (
        directory.path().join("chain.pem"),
        directory.path().join("key.pem"),
    );
    let authority = Authority::new("Test authority").unwrap();
    let certificate = authority.issue(&[NAME]).unwrap();
    std::fs::write(&chain, &certificate.chain_pem).unwrap();
    // The older form of a key, as `openssl ecparam -genkey` writes it.
    let old_form = openssl::pkey::PKey::private_key_from_pem(&certificate.key_pem)
        .and_then(|key| key.ec_key()?.private_key_to_pem())
        .unwrap();
    assert!(old_form.starts_with(b"-----BEGIN EC PRIVATE KEY"));
    std::fs::write(&key, old_form).unwrap();
    let tls = SinkTls::from_files(&chain, &key).unwrap();
    let sink = Sink::start(SinkConfig::default().with_tls(tls)).unwrap();
    let stream = ready_for_tls(sink.address());
    assert!(trusting(&authority).connect(NAME, stream).is_ok());
    for (chain, key, part) in [
        (&chain, &chain, "chain.pem with"),
        (&key, &key, "with"),
        (&directory.path().join("none"), &key, "none"),
    ] {
        let error = SinkTls::from_files(chain, key).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_older_protocol_can_be_asked_for() {
    let modern = TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .min_protocol_version(Some(Protocol::Tlsv13))
        .build()
        .unwrap();
    let old = TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .max_protocol_version(Some(Protocol::Tlsv12))
        .build()
        .unwrap();
    let newest = sink(&[]);
    for connector in [&modern, &old] {
        let stream = ready_for_tls(newest.address());
        assert!(connector.connect(NAME, stream).is_ok());
    }
    let tls = SinkTls {
        tls12_only: true,
        ..self_signed()
    };
    let sink = Sink::start(SinkConfig::default().with_tls(tls)).unwrap();
    assert!(modern.connect(NAME, ready_for_tls(sink.address())).is_err());
    assert!(old.connect(NAME, ready_for_tls(sink.address())).is_ok());
    let failed = |stats: &mailer::sink::Stats| (stats.tls_sessions, stats.tls_failures) == (1, 1);
    assert!(sink.wait_until(failed, PATIENCE));
}

#[test]
fn clients_can_be_made_to_show_a_certificate() {
    let authority = Authority::new("Clients' authority").unwrap();
    let tls = SinkTls {
        client_ca_pem: Some(authority.certificate_pem().unwrap()),
        ..self_signed()
    };
    let sink = Sink::start(SinkConfig::default().with_tls(tls)).unwrap();
    let showing = |certificate: &Certificate| {
        let Certificate { chain_pem, key_pem } = certificate;
        let identity = native_tls::Identity::from_pkcs8(chain_pem, key_pem).unwrap();
        TlsConnector::builder()
            .danger_accept_invalid_certs(true)
            .identity(identity)
            .build()
            .unwrap()
    };
    let known = showing(&authority.issue(&["client.test"]).unwrap());
    let stranger = Authority::new("Somebody else").unwrap();
    let unknown = showing(&stranger.issue(&["client.test"]).unwrap());
    for (connector, code) in [(&known, "250"), (&unknown, ""), (&accepting(), "")] {
        let stream = connector.connect(NAME, ready_for_tls(sink.address()));
        // In TLS 1.3 a client learns only with the first read that its certificate was not taken.
        let mut client = Client::new(stream.unwrap());
        let _ = client.reader.get_mut().write_all(b"EHLO a.test\r\n");
        assert_eq!(client.codes(1), [code]);
    }
    assert!(sink.wait_until(|stats| stats.tls_failures == 2, PATIENCE));
}

#[test]
fn rules_refuse_silence_drop_and_spoil_the_way_into_tls() {
    let sink = sink(&[
        "stage=starttls reply=\"454 4.7.0 TLS not available\" first=1",
        "stage=starttls drop first=1",
        "stage=starttls garbage first=1",
        "stage=starttls stall first=1",
        "stage=starttls inject=\"250 2.0.0 forged\" first=1",
        "stage=starttls silence first=1",
    ]);
    let introduced = || {
        let mut client = Client::new(connect(sink.address()));
        client.say("EHLO a.test\r\n");
        assert_eq!(client.codes(2), ["220", "250"]);
        client
    };
    let mut refused = introduced();
    assert!(refused.ask("STARTTLS\r\n").starts_with("454 "));
    refused.send("in clear then\r\n");
    assert_eq!(introduced().ask("STARTTLS\r\n"), "", "dropped");
    let mut garbage = introduced();
    assert!(garbage.ask("STARTTLS\r\n").starts_with("220 "));
    assert_eq!(garbage.reply(), "this is no TLS record\r\n");
    let mut stalled = Client::new(ready_for_tls(sink.address()));
    assert_eq!(silence_of(&mut stalled.reader), "silent");
    let mut injected = introduced();
    injected.say("STARTTLS\r\n");
    let mut packet = [0; 200];
    let count = injected.reader.get_mut().read(&mut packet).unwrap();
    assert_eq!(
        std::str::from_utf8(&packet[..count]).unwrap(),
        "220 2.0.0 Ready to start TLS\r\n250 2.0.0 forged\r\n",
        "in one packet"
    );
    let mut silent = introduced();
    silent.say("STARTTLS\r\n");
    assert_eq!(silence_of(&mut silent.reader), "silent");
    assert_eq!(sink.stop().messages, 1);
}

/// "silent" if nothing comes for a moment though the connection is open.
fn silence_of(reader: &mut BufReader<TcpStream>) -> &'static str {
    let stream = reader.get_mut();
    let short = Some(Duration::from_millis(50));
    stream.set_read_timeout(short).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => "closed",
        Ok(_) => "talkative",
        Err(_) => "silent",
    }
}

#[test]
fn rules_spoil_implicit_tls_too() {
    let mut config = SinkConfig::default().with_tls(self_signed().implicit());
    config.rules = ["stage=starttls drop first=1", "stage=starttls garbage"]
        .map(|rule| rule.parse().unwrap())
        .into();
    let sink = Sink::start(config).unwrap();
    for _ in 0..2 {
        let outcome = accepting().connect(NAME, connect(sink.address()));
        assert!(outcome.is_err());
    }
}

#[test]
fn words_in_clear_behind_starttls_never_reach_the_session_inside() {
    let sink = sink(&[]);
    let mut client = Client::new(connect(sink.address()));
    client.say("EHLO a.test\r\n");
    assert_eq!(client.codes(2), ["220", "250"]);
    client.say("STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@evil.test>\r\n");
    assert_eq!(client.codes(1), ["220"]);
    let stream = client.reader.into_inner();
    let mut client = Client::new(accepting().connect(NAME, stream).unwrap());
    assert!(client.ask("RCPT TO:<b@b.test>\r\n").starts_with("503 "));
    assert!(client.ask("EHLO a.test\r\n").contains("greets a.test"));
    client.send("x\r\n");
    assert_eq!(sink.messages()[0].reverse_path, "a@a.test");
    let seen = sink.stop().violations;
    assert_eq!(seen.get("plaintext-after-starttls"), Some(&1));
}

#[test]
fn random_bytes_instead_of_a_handshake_leave_the_receiver_working() {
    let sink = sink(&[]);
    let mut rng = fastrand::Rng::with_seed(6);
    for _ in 0..20 {
        let mut stream = ready_for_tls(sink.address());
        let junk: Vec<u8> = (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect();
        // The receiver may have hung up already.
        let _ = stream.write_all(&junk);
    }
    secured(&sink).send("x\r\n");
    assert!(sink.wait_until(|stats| stats.tls_failures == 20, PATIENCE));
}

#[test]
fn credentials_are_asked_for_inside_tls() {
    let mut config = SinkConfig::keeping().with_tls(self_signed());
    config.server.auth = Some(AuthSettings {
        only_in_tls: true,
        ..AuthSettings::new("user", "pencil")
    });
    config.server.auth_required = true;
    config.rules = ["stage=auth reply=\"454 4.7.0 try again later\" first=1"]
        .map(|rule| rule.parse().unwrap())
        .into();
    let sink = Sink::start(config).unwrap();
    let mut client = secured(&sink);
    assert!(
        client
            .ask("MAIL FROM:<a@a.test>\r\n")
            .starts_with("530 5.7.0 ")
    );
    let right = "AUTH PLAIN AHVzZXIAcGVuY2ls\r\n";
    assert!(client.ask(right).starts_with("454 "), "the rule's");
    assert!(
        client
            .ask("AUTH PLAIN AHVzZXIAcGVuCg==\r\n")
            .starts_with("535 ")
    );
    assert!(client.ask(right).starts_with("235 "));
    client.send("x\r\n");
    // Each session's part of a nonce is its own.
    let nonces: Vec<String> = (0..2)
        .map(|_| secured(&sink).ask("AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==\r\n"))
        .collect();
    assert!(nonces[0].starts_with("334 "), "{nonces:?}");
    assert_ne!(nonces[0], nonces[1]);
    let stats = sink.stop();
    assert_eq!((stats.auth_sessions, stats.messages), (1, 1), "{stats}");
}

#[test]
fn our_own_client_verifies_it_and_knows_what_was_agreed() {
    use mailer::net::tls::{Tls, TlsFiles, TlsNeeds};
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let authority = Authority::new("Test authority").unwrap();
    std::fs::write(&ca, authority.certificate_pem().unwrap()).unwrap();
    let files = TlsFiles {
        ca: Some(ca),
        identity: None,
    };
    let needs = TlsNeeds {
        accepting: true,
        verifying: true,
    };
    let client = Tls::new(&files, needs).unwrap();
    for (tls12_only, protocol) in [(false, "TLSv1.3"), (true, "TLSv1.2")] {
        let tls = SinkTls {
            tls12_only,
            ..SinkTls::new(authority.issue(&[NAME]).unwrap())
        };
        let sink = Sink::start(SinkConfig::default().with_tls(tls)).unwrap();
        let shake = |name: &str, verify: bool| {
            let socket = socket2::Socket::from(ready_for_tls(sink.address()));
            let deadline = std::time::Instant::now() + PATIENCE;
            let socket = std::sync::Arc::new(socket);
            let outcome = client.handshake(socket, name, verify, deadline);
            outcome.map(|(_, agreed)| agreed)
        };
        let agreed = shake(NAME, true).unwrap();
        assert_eq!((agreed.protocol, agreed.verified), (protocol, true));
        assert_eq!(agreed.peer.as_deref(), Some(NAME));
        assert!(shake("other.example.test", true).is_err());
        assert!(!shake("other.example.test", false).unwrap().verified);
    }
}

#[test]
fn commands_in_records_of_their_own_are_one_flight_still() {
    let sink = sink(&[]);
    let stream = Corked {
        stream: ready_for_tls(sink.address()),
        held: None,
    };
    let mut client = Client::new(accepting().connect(NAME, stream).unwrap());
    client.ask("EHLO a.test\r\n");
    client.reader.get_mut().get_mut().held = Some(Vec::new());
    for line in TRANSACTION.split_inclusive('\n') {
        client.say(line);
    }
    let below = client.reader.get_mut().get_mut();
    let flight = below.held.take().unwrap();
    below.stream.write_all(&flight).unwrap();
    assert_eq!(client.codes(3), ["250", "250", "354"]);
    drop(client);
    assert!(sink.wait_until(|stats| stats.open == 0, PATIENCE));
    assert_eq!(
        sink.stop().turns,
        5,
        "greeting, EHLO, STARTTLS, EHLO, flight"
    );
}
