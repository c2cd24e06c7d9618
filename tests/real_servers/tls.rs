//! STARTTLS with real servers: what arrives, what the report says of it, and what each policy does where TLS cannot be had.
//!
//! All servers show one certificate, signed by itself, for mx.test, localhost and 127.0.0.1. Debian's OpenSMTPD offers STARTTLS and
//! cannot finish a handshake (its key is kept in another process, which OpenSSL 3 does not bear): a server as they are met.

use std::net::SocketAddr;

use super::batch;
use super::maildir::Maildir;
use super::run::{Run, send};
use super::servers::{self, Server};

fn awkward_inside_tls(name: &'static str) {
    let Some(rows) = super::awkward_with(name, &["--tls", "require"]) else {
        return;
    };
    let encrypted = |tls: &str| tls.starts_with("TLSv1.3") || tls.starts_with("TLSv1.2");
    assert!(rows.iter().all(|row| encrypted(&row.tls)), "{rows:?}");
}

#[test]
fn awkward_messages_arrive_at_postfix_inside_tls() {
    awkward_inside_tls("POSTFIX");
}

#[test]
fn awkward_messages_arrive_at_exim_inside_tls() {
    awkward_inside_tls("EXIM");
}

#[test]
fn awkward_messages_arrive_at_sendmail_inside_tls() {
    awkward_inside_tls("SENDMAIL");
}

#[test]
fn awkward_messages_arrive_at_aiosmtpd_inside_tls() {
    awkward_inside_tls("AIOSMTPD");
}

#[test]
fn awkward_messages_arrive_at_smtp_server_inside_tls() {
    awkward_inside_tls("SMTP_SERVER");
}

/// A message to the server as relay `host`.
fn by_relay(server: &Server, host: &str, flags: &[&str]) -> Run {
    let relay = format!("{host}:{}", server.address.port());
    one_message(server, &[&["--relay", &relay], flags].concat())
}

/// A message to the server as the MX of a domain.
fn by_mx_look_up(server: &Server, dns: SocketAddr, flags: &[&str]) -> Run {
    let (dns, port) = (dns.to_string(), server.address.port().to_string());
    one_message(server, &[&["--dns", &dns, "--port", &port], flags].concat())
}

/// If the report says that it was delivered it must be there.
fn one_message(server: &Server, flags: &[&str]) -> Run {
    let maildir = Maildir::watch(&server.maildir);
    let batch = batch::of_recipients("tls", &["a@bigmail.example"]);
    let path = batch.write();
    let common = [
        "--allow-loopback",
        "--retry-min",
        "100ms",
        "--retry-max",
        "500ms",
        "--run-for",
        "4s",
    ];
    let run = send(
        &[path.to_str().expect("a plain path")],
        &[&common, flags].concat(),
    );
    assert_eq!(run.rows.len(), 1, "{run}");
    if run.rows[0].status == "delivered" {
        maildir.assert_holds(&batch.expected);
    }
    run
}

fn assert_withheld(run: &Run) {
    assert_eq!(run.status, 75, "{run}");
    let row = &run.rows[0];
    assert_eq!(
        [&row.status[..], &row.class, &row.stage],
        ["deferred", "host", "starttls"],
        "{run}"
    );
}

#[test]
fn a_certificate_that_fits_the_name_is_verified() {
    let (Some(server), Some(certificate)) = (servers::server("POSTFIX"), servers::certificate())
    else {
        return;
    };
    let trusted = ["--tls", "verify", "--tls-ca", &certificate];
    for host in ["localhost", "127.0.0.1"] {
        let run = by_relay(&server, host, &trusted);
        assert_eq!(run.status, 0, "{run}");
        assert!(run.rows[0].tls.starts_with("TLSv1."), "{run}");
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_not_enough_for_verify() {
    let Some(server) = servers::server("POSTFIX") else {
        return;
    };
    assert_withheld(&by_relay(&server, "localhost", &["--tls", "verify"]));
}

#[test]
fn a_server_whose_handshake_fails_gets_mail_in_the_clear_only_where_that_is_allowed() {
    let (Some(server), Some(dns)) = (servers::server("OPENSMTPD"), servers::address("DNSMASQ"))
    else {
        return;
    };
    let run = by_mx_look_up(&server, dns, &["--tls", "may"]);
    assert_eq!(run.status, 0, "{run}");
    assert_eq!(run.rows[0].tls, "", "{run}");
    assert_withheld(&by_mx_look_up(&server, dns, &["--tls", "require"]));
    // One's own relay is told how it is to be spoken to, not found out.
    assert_withheld(&by_relay(&server, "127.0.0.1", &["--tls", "may"]));
}

#[test]
fn a_server_that_offers_no_tls_gets_mail_in_the_clear_only_where_that_is_allowed() {
    let (Some(server), Some(dns)) = (servers::server("SMTP_SINK"), servers::address("DNSMASQ"))
    else {
        return;
    };
    let run = by_mx_look_up(&server, dns, &["--tls", "may"]);
    assert_eq!(run.status, 0, "{run}");
    assert_eq!(run.rows[0].tls, "", "{run}");
    assert_withheld(&by_mx_look_up(&server, dns, &["--tls", "require"]));
}
