//! Where mail goes: preferences, fallback, the cases of RFC 5321 section 5.1, and what the DNS does not say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mailer::sink::zone::Kind;
use mailer::sink::{Listen, SinkConfig};

use crate::batch::Batch;
use crate::lab::{BY_FLAG, Ended, Lab, keeping};
use crate::retries::NO_RETRY;

const TWO: &str = "two.test MX 10 mx1.two.test\ntwo.test MX 20 mx2.two.test\n\
     mx1.two.test A 127.0.4.1\nmx2.two.test A 127.0.4.2\n";

/// A receiver on these addresses only: connections to others are refused.
fn only_on(addresses: &[&str]) -> SinkConfig {
    SinkConfig {
        listen: Listen::Addresses(addresses.iter().map(|ip| ip.parse().unwrap()).collect()),
        ..keeping(&[])
    }
}

fn addresses_used(lab: &Lab) -> Vec<String> {
    let ips: BTreeSet<IpAddr> = lab
        .sink
        .messages()
        .iter()
        .map(|one| one.server.ip())
        .collect();
    ips.iter().map(ToString::to_string).collect()
}

/// Asserts that all rows are first attempts, delivered by this server.
#[track_caller]
fn assert_all_at(ended: &Ended, mx: &str, ip: &str) {
    for row in &ended.rows {
        let seen = [&row.mx, &row.ip, &row.attempts];
        assert_eq!(seen, [mx, ip, "1"], "{row:?}");
    }
}

#[test]
fn the_best_preference_gets_all_mail_while_it_answers() {
    let lab = Lab::new(TWO, keeping(&[]));
    let ended = lab.send(&Batch::to_domain("two.test", 30), &[]);
    lab.assert_all_delivered(&ended, 30);
    assert_all_at(&ended, "mx1.two.test", "127.0.4.1");
    assert_eq!(addresses_used(&lab), ["127.0.4.1"]);
}

#[test]
fn the_second_mx_takes_over_within_the_same_attempt_when_the_first_refuses_connections() {
    let lab = Lab::new(TWO, only_on(&["127.0.4.2"]));
    let ended = lab.send(&Batch::to_domain("two.test", 30), &NO_RETRY);
    lab.assert_all_delivered(&ended, 30);
    assert_all_at(&ended, "mx2.two.test", "127.0.4.2");
}

#[test]
fn the_second_mx_takes_over_within_the_same_attempt_when_the_first_is_unwilling() {
    for fault in [
        "stage=greeting reply=\"554 5.3.2 go away\"",
        "stage=greeting reply=\"421 4.3.2 busy\"",
        "stage=greeting drop",
        "stage=ehlo reply=\"450 4.3.2 busy\"",
        "stage=connect drop",
    ] {
        let lab = Lab::new(TWO, keeping(&[&format!("server=127.0.4.1 {fault}")]));
        let ended = lab.send(&Batch::to_domain("two.test", 5), &NO_RETRY);
        lab.assert_all_delivered(&ended, 5);
        assert_all_at(&ended, "mx2.two.test", "127.0.4.2");
    }
}

#[test]
fn servers_of_equal_preference_share_the_mail() {
    let zone = "even.test MX 5 a.even.test\neven.test MX 5 b.even.test\na.even.test A 127.0.4.3\nb.even.test A 127.0.4.4\n";
    let lab = Lab::new(zone, keeping(&["stage=greeting delay=300ms"]));
    let ended = lab.send(&Batch::to_domain("even.test", 100), &BY_FLAG);
    lab.assert_all_delivered(&ended, 100);
    assert_eq!(addresses_used(&lab), ["127.0.4.3", "127.0.4.4"]);
}

#[test]
fn a_domain_without_mx_records_is_its_own_mail_host() {
    let lab = Lab::new("plain.test A 127.0.4.5\n", keeping(&[]));
    let ended = lab.send(&Batch::to_domain("plain.test", 3), &[]);
    lab.assert_all_delivered(&ended, 3);
    assert_all_at(&ended, "plain.test", "127.0.4.5");
}

#[test]
fn aliases_are_followed_and_the_recipient_keeps_its_name() {
    let zone = "alias.test CNAME real.test\nreal.test MX 10 mx.real.test\nmx.real.test CNAME host.real.test\n\
                host.real.test A 127.0.4.6\n";
    let lab = Lab::new(zone, keeping(&[]));
    let ended = lab.send(&Batch::to_each(["u@alias.test"]), &[]);
    lab.assert_all_delivered(&ended, 1);
    assert_eq!(lab.sink.messages()[0].recipients, ["u@alias.test"]);
    assert_eq!(addresses_used(&lab), ["127.0.4.6"]);
}

#[test]
fn an_address_literal_needs_no_dns() {
    let lab = Lab::new("", keeping(&[]));
    let ended = lab.send(&Batch::to_each(["u@[127.0.4.7]"]), &[]);
    lab.assert_all_delivered(&ended, 1);
    assert_eq!(addresses_used(&lab), ["127.0.4.7"]);
    assert_eq!(lab.dns.counts().queries, 0);
}

#[test]
fn an_address_of_one_family_that_does_not_answer_costs_no_attempt() {
    // In eight domains both orders of the families are tried, but for one time in 128.
    let zone: String = (0..8)
        .map(|n| format!("d{n}.test AAAA ::1\nd{n}.test A 127.0.4.{}\n", 10 + n))
        .collect();
    let own: Vec<String> = (0..8).map(|n| format!("127.0.4.{}", 10 + n)).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let lab = Lab::new(&zone, only_on(&own));
    let ended = lab.send(
        &Batch::to_each((0..8).map(|n| format!("u@d{n}.test"))),
        &NO_RETRY,
    );
    lab.assert_all_delivered(&ended, 8);
    assert_eq!(addresses_used(&lab).len(), 8);
    assert!(
        ended.rows.iter().all(|row| row.attempts == "1"),
        "{}",
        ended.odd()
    );
}

#[test]
fn ipv6_is_used_where_it_is_all_there_is() {
    let config = only_on(&["127.0.4.20", "::1"]);
    if mailer::sink::Sink::start(config.clone()).is_err() {
        return; // A machine without IPv6.
    }
    let lab = Lab::new("six.test MX 1 mx.six.test\nmx.six.test AAAA ::1\n", config);
    let ended = lab.send(&Batch::to_domain("six.test", 2), &[]);
    lab.assert_all_delivered(&ended, 2);
    assert_all_at(&ended, "mx.six.test", "::1");
}

#[test]
fn what_the_dns_says_for_good_refuses_and_what_may_change_defers() {
    let zone = "null.test NULLMX\nNXDOMAIN gone.test\nSERVFAIL broken.test\nSILENT quiet.test\n\
                dangling.test MX 10 nowhere.gone.test\nempty.test MX 10 mx.empty.test\nmx.empty.test MX 1 x.test\n\
                fine.test MX 10 mx.fine.test\nmx.fine.test A 127.0.4.8\n";
    let lab = Lab::new(zone, keeping(&[]));
    let expected = [
        ("u@null.test", "refused", "5.1.10"),
        ("u@gone.test", "refused", "5.1.2"),
        ("u@dangling.test", "refused", "5.4.4"),
        ("u@empty.test", "refused", "5.4.4"),
        ("u@broken.test", "deferred", "4.4.3"),
        ("u@quiet.test", "deferred", "4.4.3"),
        ("u@fine.test", "delivered", "2.0.0"),
    ];
    let batch = Batch::to_each(expected.map(|(recipient, _, _)| recipient));
    let ended = lab.send(&batch, &[&NO_RETRY[..], &["--dns-timeout", "3s"]].concat());
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    for (recipient, status, enhanced) in expected {
        let row = ended.row(recipient);
        assert_eq!(
            (row.status.as_str(), row.enhanced.as_str()),
            (status, enhanced),
            "{row:?}"
        );
        let stage = if status == "delivered" { "dot" } else { "dns" };
        assert_eq!(row.stage, stage, "{row:?}");
    }
}

#[test]
fn a_loopback_address_is_no_mail_host_unless_it_is_allowed() {
    let lab = Lab::new(TWO, keeping(&[]));
    let batch = lab.file(
        "batch.mbox",
        Batch::to_each(["u@two.test", "u@[127.0.0.1]"]).bytes(),
    );
    let ended = lab.start_without_loopback(&[], &[&batch]).wait();
    ended.assert_status(1);
    for row in &ended.rows {
        let seen = [&row.status, &row.enhanced, &row.stage];
        assert_eq!(seen, ["refused", "5.4.6", "dns"], "{row:?}");
    }
    assert_eq!(lab.sink.stats().connections, 0);
}

#[test]
fn a_domain_is_looked_up_once_for_all_its_mail() {
    let lab = Lab::new(TWO, keeping(&[]));
    let ended = lab.send(&Batch::to_domain("two.test", 200), &[]);
    lab.assert_all_delivered(&ended, 200);
    assert_eq!(lab.dns.asked_for("two.test", Kind::Mx), 1);
}

#[test]
fn names_that_nobody_answers_for_hold_up_no_others() {
    // A look-up may take a minute, and a hundred of them are never answered.
    let zone = "SILENT silent.test\nSYNTHETIC\n";
    let lab = Lab::new(zone, keeping(&[]));
    let silent = (0..100).map(|n| format!("u@s{n}.silent.test"));
    let fine = (0..30).map(|n| format!("u@d{n}.test"));
    let program = lab.start(
        &Batch::to_each(silent.chain(fine)),
        &["--dns-timeout", "3m"],
    );
    lab.wait_until(|stats| stats.messages == 30);
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(
        (
            ended.count("delivered"),
            ended.count("queued") + ended.count("deferred")
        ),
        (30, 100),
        "{}",
        ended.odd()
    );
}

#[test]
fn connections_are_made_from_the_address_that_was_asked_for() {
    let lab = Lab::new(TWO, keeping(&[]));
    let ended = lab.send(&Batch::to_domain("two.test", 3), &["--bind", "127.0.4.99"]);
    lab.assert_all_delivered(&ended, 3);
    let bound: IpAddr = "127.0.4.99".parse().unwrap();
    assert!(lab.sink.messages().iter().all(|one| one.peer.ip() == bound));
}

#[test]
fn a_relay_takes_the_mail_of_all_domains_without_dns() {
    let lab = Lab::new("", keeping(&[]));
    let relay = format!("127.0.4.9:{}", lab.sink.port());
    let ended = lab.send(
        &Batch::to_each((0..20).map(|n| format!("u@d{n}.test"))),
        &["--relay", &relay],
    );
    lab.assert_all_delivered(&ended, 20);
    assert_eq!(addresses_used(&lab), ["127.0.4.9"]);
    assert_eq!(lab.dns.counts().queries, 0);
}

#[test]
fn a_relay_that_cannot_be_found_is_named() {
    let lab = Lab::with_rules(&[]);
    let relay = ["--relay", "relay..test:25"];
    let ended = lab.send(
        &Batch::to_each(["u@a.test"]),
        &[&relay[..], &NO_RETRY].concat(),
    );
    ended.assert_status(75);
    let row = ended.row("u@a.test");
    assert!(row.reply.starts_with("relay relay..test: "), "{row:?}");
}
