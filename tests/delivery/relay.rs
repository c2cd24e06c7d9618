//! Mail for everybody through servers of one's own: which relay, and in which protocol. As whom is in `auth.rs`.
//!
//! No name is looked up here: the DNS server of the laboratory knows nothing.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use mailer::sink::certificate::Authority;
use mailer::sink::{Listen, SinkConfig, SinkTls};

use crate::batch::{Batch, number_of};
use crate::lab::{Ended, Lab, Row, SOON, keeping};
use crate::retries::NO_RETRY;

/// Mail for several domains, none of which exists.
pub fn batch() -> Batch {
    Batch::to_each((0..30).map(|n| format!("u{n}@d{}.test", n % 7)))
}

pub fn lab(config: SinkConfig) -> Lab {
    Lab::new("", config)
}

/// Sends the batch through the relays with these flags.
pub fn send(lab: &Lab, relays: &[String], flags: &[&str]) -> Ended {
    let relays = relays.iter().flat_map(|relay| ["--relay", relay]);
    let all: Vec<&str> = NO_RETRY
        .into_iter()
        .chain(relays)
        .chain(flags.iter().copied())
        .collect();
    lab.send(&batch(), &all)
}

/// The receiver as a relay.
pub fn relay(lab: &Lab) -> Vec<String> {
    vec![lab.sink.address().to_string()]
}

#[test]
fn a_relay_gets_the_mail_for_all_domains() {
    let lab = lab(SinkConfig::keeping());
    let ended = send(&lab, &relay(&lab), &[]);
    lab.assert_all_delivered(&ended, 30);
    assert!(
        ended.rows.iter().all(|row| row.mx == "127.0.0.1"),
        "{:#?}",
        ended.rows[0]
    );
}

#[test]
fn the_queues_and_the_limits_of_a_site_work_with_a_relay_too() {
    let lab = lab(keeping(&["stage=greeting delay=300ms"]));
    let config = "max_sessions = 3\n[queue.q]\ndomains = [\"d1.test\"]\nmax_sessions = 3\n";
    let file = lab.file("mailer.toml", config);
    let ended = send(&lab, &relay(&lab), &["--config", file.to_str().unwrap()]);
    lab.assert_all_delivered(&ended, 30);
    assert_eq!(ended.row("u1@d1.test").queue, "q");
    assert_eq!(ended.row("u0@d0.test").queue, "general");
    assert!(lab.sink.stats().open_max <= 3, "{}", lab.sink.stats());
}

#[test]
fn relays_are_tried_in_their_order() {
    // Nobody listens on the first address; the second one turns everybody away; the third and fourth are fine.
    let addresses: Vec<IpAddr> = (2..=4).map(|n| IpAddr::from([127, 0, 10, n])).collect();
    let lab = lab(SinkConfig {
        listen: Listen::Addresses(addresses),
        ..keeping(&["server=127.0.10.2 stage=greeting reply=\"554 5.3.2 not today\""])
    });
    let relays: Vec<String> = (1..=4)
        .map(|n| format!("127.0.10.{n}:{}", lab.sink.port()))
        .collect();
    let ended = send(&lab, &relays, &[]);
    lab.assert_all_delivered(&ended, 30);
    assert!(
        ended.rows.iter().all(|row| row.ip == "127.0.10.3"),
        "{}",
        ended.odd()
    );
    let of_last = lab.sink.open_max_at([127, 0, 10, 4].into());
    assert_eq!(of_last, 0, "{}", lab.sink.stats());
}

#[test]
fn mail_waits_if_no_relay_answers() {
    let lab = lab(SinkConfig::keeping());
    // It was free a moment ago, at an address that nobody else has.
    let relays = vec![format!("127.0.10.9:{}", unused_port())];
    let ended = send(&lab, &relays, &[]);
    ended.assert_status(75);
    assert_eq!(ended.count("delivered"), 0);
    assert_eq!(lab.sink.stats().connections, 0);
}

fn unused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.10.9:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn mail_can_be_spread_over_the_relays() {
    // One message a session, so that there are many choices.
    let config = || SinkConfig {
        messages_per_connection_max: Some(1),
        ..keeping(&[])
    };
    let (one, two) = (
        IpAddr::from([127, 0, 10, 11]),
        IpAddr::from([127, 0, 10, 12]),
    );
    for spread in [false, true] {
        let lab = lab(SinkConfig {
            listen: Listen::Addresses(vec![one, two]),
            ..config()
        });
        let relays: Vec<String> = [one, two]
            .map(|ip| format!("{ip}:{}", lab.sink.port()))
            .to_vec();
        let mut flags = vec!["--relay", &relays[0], "--relay", &relays[1]];
        flags.extend(spread.then_some("--relay-spread"));
        let ended = lab.send(&batch(), &[&SOON[..], &flags].concat());
        lab.assert_all_delivered(&ended, 30);
        let of_second = ended
            .rows
            .iter()
            .filter(|row| row.ip == two.to_string())
            .count();
        assert_eq!(of_second > 0, spread, "{}", lab.sink.stats());
        assert!(of_second < 30, "{}", lab.sink.stats());
    }
}

/// Mail for four domains with policies of their own and for three without, some of it for all of them at once.
fn of_all_policies(lab: &Lab, flags: &[&str]) -> Ended {
    let config = "max_workers = 3\n[domain.\"none.test\"]\ntls = \"none\"\n[domain.\"may.test\"]\ntls = \"may\"\n\
         [domain.\"require.test\"]\ntls = \"require\"\n[domain.\".verify.test\"]\ntls = \"verify\"\n";
    let file = lab.file("mailer.toml", config);
    let domains = ["none", "may", "require", "x.verify", "d1", "d2", "d3"];
    let mut batch = Batch::default();
    let of_each: Vec<String> = domains.map(|name| format!("u@{name}.test")).to_vec();
    let all: Vec<&str> = of_each.iter().map(String::as_str).collect();
    for n in 0..35 {
        batch.add(&[&format!("v{n}@{}.test", domains[n % domains.len()])]);
    }
    batch.add(&all);
    let relay = lab.sink.address().to_string();
    let ours = ["--relay", &relay, "--config", file.to_str().unwrap()];
    lab.send(&batch, &[&NO_RETRY[..], &ours, flags].concat())
}

fn domain_of(row: &Row) -> &str {
    row.recipient.split_once('@').unwrap().1
}

#[test]
fn a_relay_without_tls_gets_the_mail_of_domains_that_bear_it() {
    let lab = lab(keeping(&[]));
    let ended = of_all_policies(&lab, &[]);
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    for row in &ended.rows {
        let seen = (row.status.as_str(), row.class.as_str(), row.stage.as_str());
        match domain_of(row) {
            "require.test" | "x.verify.test" => {
                assert_eq!(seen, ("deferred", "host", "starttls"), "{row:?}")
            }
            _ => assert_eq!(seen, ("delivered", "recipient", "dot"), "{row:?}"),
        }
    }
    assert_eq!(ended.count("deferred"), 12);
}

#[test]
fn a_relay_gets_the_mail_of_each_domain_under_that_domain_s_policy() {
    let authority = Authority::new("Test authority").unwrap();
    let certificate = authority.issue(&["127.0.0.1"]).unwrap();
    let lab = lab(keeping(&[]).with_tls(SinkTls::new(certificate)));
    let ca = lab.file("ca.pem", authority.certificate_pem().unwrap());
    let ended = of_all_policies(&lab, &["--tls-ca", ca.to_str().unwrap()]);
    lab.assert_all_delivered(&ended, 42);
    for row in &ended.rows {
        match domain_of(row) {
            "none.test" => assert_eq!(row.tls, "", "{row:?}"),
            "x.verify.test" => assert!(row.tls.contains(" verified "), "{row:?}"),
            _ => assert!(row.tls.contains(" unverified "), "{row:?}"),
        }
    }
    // One transaction for each policy, and the domains that have none of their own go together.
    let of_last = lab.sink.messages();
    let of_last = of_last
        .iter()
        .filter(|message| number_of(&message.content) == 36);
    let mut sizes: Vec<usize> = of_last.map(|message| message.recipients.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 1, 1, 3]);
}

#[test]
fn a_relay_that_lost_its_certificate_gets_only_what_bears_any() {
    let lab = lab(keeping(&[]).with_tls(SinkTls::self_signed(&["other.test"]).unwrap()));
    let ended = of_all_policies(&lab, &[]);
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    for row in &ended.rows {
        let is_strict = domain_of(row) == "x.verify.test";
        let status = if is_strict { "deferred" } else { "delivered" };
        assert_eq!(row.status, status, "{row:?}");
        // What failed for one policy takes no TLS from the others.
        let is_clear = is_strict || domain_of(row) == "none.test";
        assert_eq!(row.tls.is_empty(), is_clear, "{row:?}");
    }
}

#[test]
fn implicit_tls_protects_a_relay_from_the_first_byte() {
    let authority = Authority::new("Test authority").unwrap();
    let stranger = Authority::new("Somebody else").unwrap();
    for (policy, trusted, is_delivered) in [
        ("may", None, true),
        ("none", None, true),
        ("verify", Some(&authority), true),
        ("verify", Some(&stranger), false),
    ] {
        let certificate = authority.issue(&["127.0.0.1"]).unwrap();
        let lab = lab(keeping(&[]).with_tls(SinkTls::new(certificate).implicit()));
        let relays = vec![format!("smtps://{}", lab.sink.address())];
        let mut flags = vec!["--tls", policy];
        let ca = trusted.map(|one| lab.file("ca.pem", one.certificate_pem().unwrap()));
        if let Some(path) = &ca {
            flags.extend(["--tls-ca", path.to_str().unwrap()]);
        }
        let ended = send(&lab, &relays, &flags);
        if is_delivered {
            lab.assert_all_delivered(&ended, 30);
            assert_eq!(lab.sink.stats().tls_messages, 30);
            let trust = if policy == "verify" {
                " verified"
            } else {
                " unverified"
            };
            assert!(ended.rows[0].tls.contains(trust), "{:?}", ended.rows[0]);
        } else {
            ended.assert_status(75);
            lab.assert_agrees(&ended);
            assert_eq!(
                (ended.count("delivered"), lab.sink.stats().tls_sessions),
                (0, 0)
            );
        }
    }
}

/// A receiver that speaks LMTP, and one message for three users of whom it has no room for the first.
fn lmtp() -> (Lab, Batch) {
    let mut config = keeping(&["stage=dot reply=\"552 5.2.2 mailbox full\" first=1"]);
    config.server.lmtp = true;
    let mut batch = Batch::default();
    batch
        .add(&["u1@a.test", "u2@a.test", "u3@a.test"])
        .add(&["v@a.test"]);
    (lab(config), batch)
}

#[track_caller]
fn assert_each_has_a_verdict(lab: &Lab, ended: &Ended) {
    ended.assert_status(1);
    lab.assert_agrees(ended);
    let row = ended.row("u1@a.test");
    let seen = [&row.status, &row.code, &row.enhanced, &row.stage].map(String::as_str);
    assert_eq!(seen, ["refused", "552", "5.2.2", "dot"]);
    assert_eq!(
        (ended.count("delivered"), ended.count("refused")),
        (3, 1),
        "{}",
        ended.odd()
    );
    let messages = lab.sink.messages();
    assert!(
        messages
            .iter()
            .any(|message| message.recipients == ["u2@a.test", "u3@a.test"])
    );
}

#[test]
fn lmtp_gives_each_recipient_a_verdict_of_its_own() {
    let (lab, batch) = lmtp();
    let relay = format!("lmtp://{}", lab.sink.address());
    let flags = ["--relay", &relay, "--max-workers", "1"];
    let ended = lab.send(&batch, &[&NO_RETRY[..], &flags].concat());
    assert_each_has_a_verdict(&lab, &ended);
}

#[test]
fn lmtp_is_spoken_over_a_socket_of_the_machine_too() {
    let (lab, batch) = lmtp();
    let path = lab.path("lmtp.sock");
    forward(UnixListener::bind(&path).unwrap(), lab.sink.address());
    let relay = format!("lmtp://{}", path.display());
    let flags = ["--relay", &relay, "--max-workers", "1"];
    let ended = lab.send(&batch, &[&NO_RETRY[..], &flags].concat());
    assert_each_has_a_verdict(&lab, &ended);
    assert!(
        ended.rows.iter().all(|row| row.ip.is_empty()),
        "{:#?}",
        ended.rows
    );
}

/// Leads all clients of a socket to the receiver. The threads end with the connections, and with the test's process.
fn forward(listener: UnixListener, to: SocketAddr) {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(server) = TcpStream::connect(to) else {
                return;
            };
            connect(client, server);
        }
    });
}

/// Copies both ways until either side ends.
fn connect(client: UnixStream, server: TcpStream) {
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
    let (mut from_server, mut to_server) = (server.try_clone().unwrap(), server);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
}
