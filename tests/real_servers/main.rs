//! The binary against real servers: Postfix, Exim, OpenSMTPD, sendmail, Postfix's `smtp-sink`, aiosmtpd and smtp-server (npm)
//! receive, dnsmasq answers the MX look-ups.
//!
//! `scripts/test` starts the servers and says where they are in `MAILER_TEST_*`; without those variables each test says that it was
//! skipped and passes, unless `MAILER_TEST_REQUIRE_SERVERS` is set, as `scripts/test` does.
//!
//! What is compared: every message octet by octet but for trace fields, its envelope, that nothing came twice, and the report.

mod batch;
mod database;
mod dkim;
mod expected;
mod faults;
mod maildir;
mod proxy;
mod run;
mod servers;
mod tls;
mod turns;

use std::collections::BTreeSet;

use expected::Expected;
use maildir::Maildir;
use run::{CLEAR, Row, send};
use servers::Server;

/// The newsletter to one server, every domain found by MX look-up; returns the report.
fn newsletter_by_mx_look_up(server: &Server, offers_utf8: bool) -> Option<Vec<Row>> {
    let dns = servers::address("DNSMASQ")?;
    let maildir = Maildir::watch(&server.maildir);
    let port = server.address.port().to_string();
    // Exim and OpenSMTPD listen with a short queue; what overflows it waits for the system to try again, up to a minute.
    let workers = if ["EXIM", "OPENSMTPD"].contains(&server.name) {
        "12"
    } else {
        "200"
    };
    // Debian's OpenSMTPD offers TLS that it cannot do; without this each host would be waited for (see tls.rs).
    let tls = if server.name == "OPENSMTPD" {
        "none"
    } else {
        "may"
    };
    let run = send(
        &["fixtures/newsletter.mbox"],
        &[
            "--dns",
            &dns.to_string(),
            "--port",
            &port,
            "--allow-loopback",
            "--max-workers",
            workers,
            "--tls",
            tls,
        ],
    );

    let (sent, refused): (Vec<_>, Vec<_>) =
        (expected::newsletter().into_iter()).partition(|row| offers_utf8 || !row.needs_utf8);
    assert_eq!(run.status, if refused.is_empty() { 0 } else { 1 }, "{run}");
    if refused.is_empty() {
        assert_eq!(run.stderr, "", "nothing is printed when all is well");
    }
    assert_report(&run.rows, &sent, "delivered", "");
    assert_report(&run.rows, &refused, "refused", "5.6.7");
    assert_eq!(
        run.rows.len(),
        sent.len() + refused.len(),
        "one row per recipient"
    );
    maildir.assert_holds(&sent);
    Some(run.rows)
}

/// Each of `expected` is in the report, in the order of the batch, with this status and enhanced code (if one is asked for).
fn assert_report(rows: &[Row], expected: &[Expected], status: &str, enhanced: &str) {
    let of_status: Vec<&Row> = rows.iter().filter(|row| row.status == status).collect();
    let order: Vec<u32> = of_status.iter().map(|row| row.message).collect();
    assert!(
        order.is_sorted(),
        "rows with status {status} are in input order"
    );
    let reported: BTreeSet<_> = of_status
        .iter()
        .map(|row| (row.message, row.recipient.clone()))
        .collect();
    let wanted: BTreeSet<_> = expected
        .iter()
        .map(|e| (e.message, e.recipient.clone()))
        .collect();
    let (missing, surplus): (Vec<_>, Vec<_>) = (
        wanted.difference(&reported).collect(),
        reported.difference(&wanted).collect(),
    );
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{status}: missing {missing:?}, surplus {surplus:?}"
    );
    for row in of_status {
        assert!(enhanced.is_empty() || row.enhanced == enhanced, "{row:?}");
    }
}

/// A small batch with everything awkward in it, all of it given to one relay; its domains are not in any DNS.
fn awkward_by_relay(name: &'static str) {
    let Some(rows) = awkward_with(name, CLEAR) else {
        return;
    };
    assert!(rows.iter().all(|row| row.tls.is_empty()), "{rows:?}");
}

/// The same with these flags; returns the report.
fn awkward_with(name: &'static str, flags: &[&str]) -> Option<Vec<Row>> {
    let server = servers::server(name)?;
    let maildir = Maildir::watch(&server.maildir);
    let batch = batch::awkward(server.name);
    let path = batch.write();
    let relay = server.address.to_string();
    let run = send(
        &[path.to_str().expect("a plain path")],
        &[&["--relay", &relay, "--allow-loopback"], flags].concat(),
    );
    assert_eq!(run.status, 0, "{run}");
    assert_report(&run.rows, &batch.expected, "delivered", "");
    assert_eq!(run.rows.len(), batch.expected.len());
    maildir.assert_holds(&batch.expected);
    Some(run.rows)
}

#[test]
fn newsletter_arrives_at_postfix_octet_by_octet() {
    let Some(server) = servers::server("POSTFIX") else {
        return;
    };
    let Some(rows) = newsletter_by_mx_look_up(&server, true) else {
        return;
    };
    for (domain, mx, why) in [
        (
            "ferry.test",
            "up.ferry.test",
            "the preferred host is down, the next one takes it in the same attempt",
        ),
        (
            "library.example",
            "library.example",
            "no MX record: the domain itself, RFC 5321 5.1",
        ),
    ] {
        let of_domain = rows
            .iter()
            .filter(|row| row.recipient.ends_with(&format!("@{domain}")));
        let hosts: BTreeSet<&str> = of_domain.map(|row| row.mx.as_str()).collect();
        assert_eq!(hosts, BTreeSet::from([mx]), "{domain}: {why}");
    }
}

#[test]
fn newsletter_arrives_at_aiosmtpd_octet_by_octet() {
    let Some(server) = servers::server("AIOSMTPD") else {
        return;
    };
    newsletter_by_mx_look_up(&server, true);
}

#[test]
fn newsletter_arrives_at_exim_octet_by_octet() {
    let Some(server) = servers::server("EXIM") else {
        return;
    };
    newsletter_by_mx_look_up(&server, true);
}

#[test]
fn newsletter_arrives_at_opensmtpd_but_for_the_message_that_needs_smtputf8() {
    let Some(server) = servers::server("OPENSMTPD") else {
        return;
    };
    newsletter_by_mx_look_up(&server, false);
}

#[test]
fn newsletter_arrives_at_smtp_server_octet_by_octet() {
    let Some(server) = servers::server("SMTP_SERVER") else {
        return;
    };
    newsletter_by_mx_look_up(&server, true);
}

#[test]
fn newsletter_arrives_at_smtp_sink_but_for_the_message_that_needs_smtputf8() {
    let Some(server) = servers::server("SMTP_SINK") else {
        return;
    };
    newsletter_by_mx_look_up(&server, false);
}

#[test]
fn awkward_messages_arrive_at_postfix_by_relay() {
    awkward_by_relay("POSTFIX");
}

#[test]
fn awkward_messages_arrive_at_exim_by_relay() {
    awkward_by_relay("EXIM");
}

#[test]
fn awkward_messages_arrive_at_opensmtpd_by_relay() {
    awkward_by_relay("OPENSMTPD");
}

#[test]
fn awkward_messages_arrive_at_sendmail_by_relay() {
    awkward_by_relay("SENDMAIL");
}

#[test]
fn awkward_messages_arrive_at_aiosmtpd_by_relay() {
    awkward_by_relay("AIOSMTPD");
}

#[test]
fn awkward_messages_arrive_at_smtp_server_by_relay() {
    awkward_by_relay("SMTP_SERVER");
}

#[test]
fn awkward_messages_arrive_at_smtp_sink_by_relay() {
    awkward_by_relay("SMTP_SINK");
}

#[test]
fn a_domain_that_dnsmasq_denies_is_refused_and_the_rest_is_delivered() {
    let Some(server) = servers::server("AIOSMTPD") else {
        return;
    };
    let Some(dns) = servers::address("DNSMASQ") else {
        return;
    };
    let maildir = Maildir::watch(&server.maildir);
    let batch = batch::of_recipients(
        "denied",
        &["a@bigmail.example", "b@nowhere.test", "c@postbox.test"],
    );
    let port = server.address.port().to_string();
    let run = send(
        &[batch.write().to_str().expect("a plain path")],
        &[
            "--dns",
            &dns.to_string(),
            "--port",
            &port,
            "--allow-loopback",
        ],
    );
    assert_eq!(run.status, 1, "{run}");
    let (denied, delivered): (Vec<_>, Vec<_>) =
        (batch.expected.into_iter()).partition(|row| row.recipient == "b@nowhere.test");
    assert_report(&run.rows, &denied, "refused", "5.1.2");
    assert_report(&run.rows, &delivered, "delivered", "");
    maildir.assert_holds(&delivered);
}

#[test]
fn a_server_that_is_down_leaves_the_batch_deferred_and_says_so() {
    let Some(dns) = servers::address("DNSMASQ") else {
        return;
    };
    let (_held, port) = port_that_refuses();
    let batch = batch::of_recipients("down", &["a@bigmail.example", "b@postbox.test"]);
    let run = send(
        &[batch.write().to_str().expect("a plain path")],
        &[
            "--dns",
            &dns.to_string(),
            "--port",
            &port,
            "--allow-loopback",
            "--run-for",
            "1s",
        ],
    );
    assert_eq!(run.status, 75, "{run}");
    assert_report(&run.rows, &batch.expected, "deferred", "");
    assert!(run.rows.iter().all(|row| row.stage == "connect"), "{run}");
    assert_eq!(
        run.stderr.lines().count(),
        1,
        "one line says what to type next: {}",
        run.stderr
    );
}

/// A port that is taken but not listened on: connections to it are refused, and nobody else can begin to listen there meanwhile.
fn port_that_refuses() -> (socket2::Socket, String) {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a free port");
    let address = socket
        .local_addr()
        .expect("its address")
        .as_socket()
        .expect("an IP address");
    (socket, address.port().to_string())
}
