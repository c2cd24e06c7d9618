//! Turns per message: how often the client waits for the server, counted between the two.
//!
//! One session carries 150 messages of one destination. From the third transaction on, a server that offers PIPELINING
//! must cost one turn a message (RFC 2920 3.1: the next message's commands leave with the final dot), and one that does not four
//! (MAIL, RCPT, DATA, dot).

use super::maildir::Maildir;
use super::proxy::{Proxy, Session};
use super::run::{CLEAR, send};
use super::{batch, servers};

const MESSAGES: usize = 150;
/// EHLO, the first two transactions and QUIT may cost what they cost in lock step.
const OPENING_FLIGHTS: usize = 1 + 2 * 4 + 1;
/// STARTTLS, a handshake of TLS 1.2 and the second EHLO.
const TLS_FLIGHTS: usize = 1 + 2 + 1;

fn turns_per_message(name: &'static str, most: f64) {
    let Some(session) = one_session(name, CLEAR) else {
        return;
    };
    assert_eq!(session.ends.len(), MESSAGES, "an end a message");
    let turns = session.turns_per_message(2);
    println!(
        "turns: {name}: {turns:.3} a message from the third on, {} in the whole session of {MESSAGES}",
        session.flights
    );
    assert!(turns <= most, "{turns} turns a message: {session:?}");
    let all = OPENING_FLIGHTS as f64 + most * MESSAGES as f64;
    assert!(session.flights as f64 <= all, "{session:?}");
}

/// Inside TLS the ends of messages cannot be seen; the waits of the whole session can.
fn turns_inside_tls(name: &'static str) {
    let Some(session) = one_session(name, &["--tls", "require"]) else {
        return;
    };
    println!(
        "turns: {name}: {} in the whole session of {MESSAGES} inside TLS",
        session.flights
    );
    let all = (OPENING_FLIGHTS + TLS_FLIGHTS) as f64 + ONE * MESSAGES as f64;
    assert!(session.flights as f64 <= all, "{session:?}");
}

/// Sends the messages, checks that they arrive, and returns what the proxy saw.
fn one_session(name: &'static str, tls: &[&str]) -> Option<Session> {
    let server = servers::server(name)?;
    let proxy = Proxy::before(server.address);
    let maildir = Maildir::watch(&server.maildir);
    let batch = batch::of_size(&format!("turns-{name}"), MESSAGES, 2048);
    let path = batch.write();
    let relay = proxy.address.to_string();
    // Said as the site's limit, so that runs are cut for one session. Cut for twenty, the last forty messages come singly.
    let place = tempfile::tempdir().expect("a directory for the configuration");
    let config = place.path().join("mailer.toml");
    std::fs::write(&config, "max_sessions = 1\n").expect("room for it");
    let config = config.to_str().expect("a plain path");
    let flags = ["--relay", &relay, "--allow-loopback", "--config", config];
    let run = send(
        &[path.to_str().expect("a plain path")],
        &[&flags, tls].concat(),
    );
    assert_eq!(run.status, 0, "{run}");

    let mut sessions = proxy.sessions();
    assert_eq!(sessions.len(), 1, "one session carries all: {sessions:?}");
    maildir.assert_holds(&batch.expected);
    sessions.pop()
}

/// One turn a message, and one in fifty more.
const ONE: f64 = 1.02;

#[test]
fn a_message_costs_postfix_one_turn() {
    turns_per_message("POSTFIX", ONE);
}

#[test]
fn a_message_costs_exim_one_turn() {
    turns_per_message("EXIM", ONE);
}

#[test]
fn a_message_costs_sendmail_one_turn() {
    turns_per_message("SENDMAIL", ONE);
}

#[test]
fn a_message_costs_smtp_server_one_turn() {
    turns_per_message("SMTP_SERVER", ONE);
}

#[test]
fn a_message_costs_smtp_sink_one_turn() {
    turns_per_message("SMTP_SINK", ONE);
}

#[test]
fn a_message_costs_opensmtpd_which_offers_no_pipelining_four_turns() {
    turns_per_message("OPENSMTPD", 4.0);
}

#[test]
fn a_message_costs_aiosmtpd_which_offers_no_pipelining_four_turns() {
    turns_per_message("AIOSMTPD", 4.0);
}

#[test]
fn a_message_inside_tls_costs_postfix_one_turn() {
    turns_inside_tls("POSTFIX");
}

#[test]
fn a_message_inside_tls_costs_exim_one_turn() {
    turns_inside_tls("EXIM");
}

#[test]
fn a_message_inside_tls_costs_sendmail_one_turn() {
    turns_inside_tls("SENDMAIL");
}

#[test]
fn a_message_inside_tls_costs_smtp_server_one_turn() {
    turns_inside_tls("SMTP_SERVER");
}
