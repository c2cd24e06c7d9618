//! What is said encrypted, and what is not said at all: the policies, and what becomes of mail where one cannot be met.
//!
//! The receiver says of each message whether it came inside TLS, the report says by which protocol and whose certificate.

use std::path::{Path, PathBuf};

use mailer::sink::certificate::{Authority, Certificate};
use mailer::sink::{SinkConfig, SinkTls};

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON, keeping};
use crate::retries::NO_RETRY;

/// Two domains with servers of their own, and two (`may.test`, `bank.test`) that share one.
const ZONE: &str = "a.test MX 10 mx.a.test\nmx.a.test A 127.0.8.1\n\
     b.test MX 10 mx.b.test\nmx.b.test A 127.0.8.2\n\
     may.test MX 10 mx.shared.test\nbank.test MX 10 mx.shared.test\nmx.shared.test A 127.0.8.3\n";
const NAMES: [&str; 3] = ["mx.a.test", "mx.b.test", "mx.shared.test"];
/// The handshake is given up soon.
const IMPATIENT: [&str; 2] = ["--timeout", "1s"];

fn with_certificate(certificate: Certificate, rules: &[&str]) -> Lab {
    Lab::new(ZONE, keeping(rules).with_tls(SinkTls::new(certificate)))
}

/// A receiver that offers STARTTLS with a certificate that nobody vouches for.
fn offering(rules: &[&str]) -> Lab {
    let tls = SinkTls::self_signed(&NAMES).unwrap();
    Lab::new(ZONE, keeping(rules).with_tls(tls))
}

/// One that does not offer it.
fn plain() -> Lab {
    Lab::new(ZONE, SinkConfig::keeping())
}

/// Writes an authority's certificate to where `--tls-ca` can find it.
fn trust(lab: &Lab, authority: &Authority) -> PathBuf {
    lab.file("ca.pem", authority.certificate_pem().unwrap())
}

fn send(lab: &Lab, batch: &Batch, parts: &[&[&str]]) -> Ended {
    lab.send(batch, &parts.concat())
}

/// Asserts that everybody's mail waits for a session that policy allows, and that the receiver was told nothing of it.
#[track_caller]
fn assert_withheld(lab: &Lab, ended: &Ended) {
    ended.assert_status(75);
    assert_eq!(ended.count("deferred"), ended.rows.len());
    for row in &ended.rows {
        let seen = (row.class.as_str(), row.stage.as_str(), row.tls.as_str());
        assert_eq!(seen, ("host", "starttls", ""), "{row:?}");
    }
    let stats = lab.sink.stats();
    assert_eq!((stats.messages, stats.recipients), (0, 0), "{stats}");
    lab.assert_agrees(ended);
}

/// How many messages came inside TLS, and how many in all.
fn arrived(lab: &Lab) -> (u64, u64) {
    let stats = lab.sink.stats();
    (stats.tls_messages, stats.messages)
}

#[test]
fn tls_is_used_where_it_is_offered_and_reported() {
    let lab = offering(&[]);
    let ended = lab.send(&Batch::to_domain("a.test", 40), &NO_RETRY);
    lab.assert_all_delivered(&ended, 40);
    assert_eq!(arrived(&lab), (40, 40));
    for row in &ended.rows {
        let words: Vec<&str> = row.tls.split(' ').collect();
        // Which version is up to the library of the receiver: not its newest.
        assert!(["TLSv1.2", "TLSv1.3"].contains(&words[0]), "{row:?}");
        assert!(
            words[1].contains("ECDSA") || words[1].starts_with("TLS_"),
            "{row:?}"
        );
        assert_eq!(words[2..], ["unverified", "mx.a.test"], "{row:?}");
    }
}

#[test]
fn a_server_of_tls_1_2_is_reported_as_such() {
    let tls = SinkTls {
        tls12_only: true,
        ..SinkTls::self_signed(&NAMES).unwrap()
    };
    let lab = Lab::new(ZONE, keeping(&[]).with_tls(tls));
    let ended = lab.send(&Batch::to_domain("a.test", 1), &NO_RETRY);
    lab.assert_all_delivered(&ended, 1);
    assert!(
        ended.rows[0].tls.starts_with("TLSv1.2 "),
        "{:?}",
        ended.rows
    );
}

#[test]
fn without_an_offer_mail_goes_in_clear_unless_policy_asks_for_more() {
    let lab = plain();
    let ended = lab.send(&Batch::to_domain("a.test", 20), &NO_RETRY);
    lab.assert_all_delivered(&ended, 20);
    assert!(ended.rows.iter().all(|row| row.tls.is_empty()));
    for policy in ["require", "verify"] {
        let lab = plain();
        let batch = Batch::to_domain("a.test", 20);
        let ended = send(&lab, &batch, &[&NO_RETRY, &["--tls", policy]]);
        assert_withheld(&lab, &ended);
    }
}

#[test]
fn none_never_uses_tls() {
    let lab = offering(&[]);
    let batch = Batch::to_domain("a.test", 20);
    let ended = send(&lab, &batch, &[&NO_RETRY, &["--tls", "none"]]);
    lab.assert_all_delivered(&ended, 20);
    assert_eq!((arrived(&lab), lab.sink.stats().tls_sessions), ((0, 20), 0));
    assert!(ended.rows.iter().all(|row| row.tls.is_empty()));
}

#[test]
fn a_refused_starttls_is_gone_without_only_where_policy_allows_it() {
    let refusal = "stage=starttls reply=\"454 4.7.0 not now\"";
    let batch = Batch::to_domain("a.test", 10);
    let lab = offering(&[refusal]);
    let ended = send(&lab, &batch, &[&NO_RETRY]);
    lab.assert_all_delivered(&ended, 10);
    assert_eq!(arrived(&lab), (0, 10));
    for policy in ["require", "verify"] {
        let lab = offering(&[refusal]);
        let ended = send(&lab, &batch, &[&NO_RETRY, &["--tls", policy]]);
        assert_withheld(&lab, &ended);
        assert_eq!(ended.rows[0].code, "454", "{:?}", ended.rows[0]);
    }
}

#[test]
fn verify_sends_to_the_right_name_under_a_trusted_authority() {
    let authority = Authority::new("Test authority").unwrap();
    let lab = with_certificate(authority.issue(&NAMES).unwrap(), &[]);
    let ca = trust(&lab, &authority);
    let arguments = ["--tls", "verify", "--tls-ca", ca.to_str().unwrap()];
    let ended = send(
        &lab,
        &Batch::to_domain("b.test", 10),
        &[&NO_RETRY, &arguments],
    );
    lab.assert_all_delivered(&ended, 10);
    assert_eq!(arrived(&lab), (10, 10));
    for row in &ended.rows {
        assert!(row.tls.contains(" verified "), "{row:?}");
    }
}

#[test]
fn verify_sends_nothing_to_anybody_else() {
    let (authority, stranger) = ("Test authority", "Somebody else");
    let (authority, stranger) = (
        Authority::new(authority).unwrap(),
        Authority::new(stranger).unwrap(),
    );
    let self_signed = mailer::sink::certificate::self_signed(&NAMES).unwrap();
    for (certificate, why) in [
        (authority.issue(&["mx.b.test"]).unwrap(), "ostname"),
        (authority.issue(&["a.test"]).unwrap(), "ostname"),
        (authority.issue_expired(&NAMES).unwrap(), "expired"),
        (stranger.issue(&NAMES).unwrap(), "issuer"),
        (self_signed, "self-signed"),
    ] {
        let lab = with_certificate(certificate, &[]);
        let ca = trust(&lab, &authority);
        let arguments = ["--tls", "verify", "--tls-ca", ca.to_str().unwrap()];
        let ended = send(
            &lab,
            &Batch::to_domain("a.test", 3),
            &[&NO_RETRY, &arguments],
        );
        assert_withheld(&lab, &ended);
        assert!(ended.rows[0].reply.contains(why), "{:?}", ended.rows[0]);
    }
    // Without --tls-ca the system's authorities count, and they know nothing of this one.
    let lab = with_certificate(authority.issue(&NAMES).unwrap(), &[]);
    let ended = send(
        &lab,
        &Batch::to_domain("a.test", 3),
        &[&NO_RETRY, &["--tls", "verify"]],
    );
    assert_withheld(&lab, &ended);
}

#[test]
fn a_queue_or_a_domain_can_have_a_policy_of_its_own() {
    for config in [
        "[queue.strict]\ndomains = [\"a.test\"]\ntls = \"require\"\n",
        "[domain.\"a.test\"]\ntls = \"require\"\n",
        // A domain's goes before its queue's, and that before the general one.
        "tls = \"none\"\n[queue.q]\ndomains = [\"a.test\"]\ntls = \"may\"\n[domain.\"a.test\"]\ntls = \"verify\"\n",
    ] {
        let lab = plain();
        let file = lab.file("mailer.toml", config);
        let batch = Batch::to_each(["u@a.test", "v@a.test", "u@b.test", "v@b.test"]);
        let ended = send(
            &lab,
            &batch,
            &[&NO_RETRY, &["--config", file.to_str().unwrap()]],
        );
        ended.assert_status(75);
        lab.assert_agrees(&ended);
        let delivered = [(3, "u@b.test".to_owned()), (4, "v@b.test".to_owned())];
        assert_eq!(ended.delivered(), delivered, "{config}");
        assert_eq!(ended.row("u@a.test").stage, "starttls", "{config}");
    }
    let lab = offering(&[]);
    let file = lab.file("mailer.toml", "[domain.\"b.test\"]\ntls = \"none\"\n");
    let batch = Batch::to_each(["u@a.test", "u@b.test"]);
    let ended = send(
        &lab,
        &batch,
        &[&NO_RETRY, &["--config", file.to_str().unwrap()]],
    );
    lab.assert_all_delivered(&ended, 2);
    assert!(ended.row("u@a.test").tls.starts_with("TLSv1."));
    assert_eq!(ended.row("u@b.test").tls, "");
}

#[test]
fn after_handshakes_that_kept_failing_mail_goes_in_clear_where_tls_is_a_wish() {
    for fault in ["garbage", "stall", "drop"] {
        let lab = offering(&[&format!("stage=starttls {fault} first=1")]);
        let batch = Batch::to_domain("a.test", 1);
        let ended = send(&lab, &batch, &[&NO_RETRY, &IMPATIENT]);
        assert_withheld(&lab, &ended);

        let lab = offering(&[&format!("stage=starttls {fault}")]);
        let batch = Batch::to_domain("a.test", 20);
        let ended = send(&lab, &batch, &[&SOON, &IMPATIENT, &["--max-workers", "1"]]);
        lab.assert_all_delivered(&ended, 20);
        assert_eq!(arrived(&lab), (0, 20), "{fault}");
        assert!(ended.rows.iter().all(|row| row.tls.is_empty()));
        let again = ended.rows.iter().filter(|row| row.attempts != "1");
        assert!(
            (1..20).contains(&again.count()),
            "some had to wait, and the others need not learn it again: {:#?}",
            ended.rows
        );
    }
}

#[test]
fn one_handshake_that_failed_opens_nobody_s_mail() {
    for fault in ["garbage", "stall", "drop"] {
        let lab = offering(&[&format!("stage=starttls {fault} first=1")]);
        let batch = Batch::to_domain("a.test", 20);
        let ended = send(&lab, &batch, &[&SOON, &IMPATIENT]);
        lab.assert_all_delivered(&ended, 20);
        assert_eq!(arrived(&lab), (20, 20), "{fault}: {}", ended.odd());
    }
}

#[test]
fn after_a_handshake_that_failed_nothing_is_in_clear_where_tls_is_a_must() {
    for fault in ["garbage", "stall", "drop"] {
        let require = ["--tls", "require"];
        // Long enough for some attempts, all of which fail.
        let lab = offering(&[&format!("stage=starttls {fault}")]);
        let batch = Batch::to_domain("a.test", 3);
        let program = lab.start(
            &batch,
            &[&SOON[..], &["--timeout", "100ms"], &require].concat(),
        );
        lab.wait_until(|stats| stats.connections >= 4);
        program.terminate();
        assert_withheld(&lab, &program.wait());

        let lab = offering(&[&format!("stage=starttls {fault} first=1")]);
        let ended = send(&lab, &batch, &[&SOON, &IMPATIENT, &require]);
        lab.assert_all_delivered(&ended, 3);
        assert_eq!(arrived(&lab), (3, 3), "{fault}");
    }
}

#[test]
fn words_put_behind_the_go_ahead_for_tls_end_the_session() {
    let forged = "stage=starttls inject=\"250 2.0.0 forged\"";
    for policy in ["may", "require"] {
        let lab = offering(&[forged]);
        let batch = Batch::to_domain("a.test", 1);
        let ended = send(&lab, &batch, &[&NO_RETRY, &["--tls", policy]]);
        assert_withheld(&lab, &ended);
        let reply = &ended.rows[0].reply;
        assert!(
            reply.contains("protocol error") && !reply.contains("forged"),
            "{reply}"
        );
        assert_eq!(lab.sink.stats().tls_sessions, 0, "no handshake was begun");
    }
}

/// One worker, a session opened for may.test, then mail for bank.test whose certificate must be verified; all of it over
/// the same server. Returns how the mail for may.test went.
#[track_caller]
fn deliver_to_both(general: &str, rules: &[&str]) -> String {
    let authority = Authority::new("Test authority").unwrap();
    let lab = with_certificate(authority.issue(&NAMES).unwrap(), rules);
    let ca = trust(&lab, &authority);
    let config = format!(
        "tls = \"{general}\"\nmax_workers = 1\nidle = \"60s\"\n[domain.\"bank.test\"]\ntls = \"verify\"\n"
    );
    let config = lab.file("mailer.toml", config);
    let flags = [
        "--config",
        config.to_str().unwrap(),
        "--tls-ca",
        ca.to_str().unwrap(),
    ];
    let mut batch = Batch::to_domain("may.test", 2);
    let first = batch.bytes().len();
    for n in 1..=6 {
        batch.add(&[&format!("u{n}@bank.test")]);
    }
    let mut program = lab.start_with(&flags, &[Path::new("-")]);
    // A message is complete when the next one begins.
    program.write(&batch.bytes()[..first]);
    lab.wait_until(|stats| stats.messages == 1);
    program.write(&batch.bytes()[first..]);
    let ended = program.wait();
    lab.assert_all_delivered(&ended, 8);
    for row in ended
        .rows
        .iter()
        .filter(|row| row.recipient.ends_with("@bank.test"))
    {
        assert!(row.tls.contains(" verified mx."), "{row:?}");
    }
    assert!(lab.sink.stats().connections >= 2);
    ended.row("u1@may.test").tls.clone()
}

#[test]
fn an_open_session_is_not_used_for_a_domain_whose_policy_it_does_not_meet() {
    assert!(deliver_to_both("may", &[]).contains(" unverified "));
    assert_eq!(deliver_to_both("none", &[]), "");
}

#[test]
fn mail_given_ahead_is_not_begun_in_a_session_that_its_policy_forbids() {
    // While the second message waits for its 354, its worker is given the mail for the other domain ahead.
    let held_back = ["stage=data delay=500ms after=1 first=1"];
    assert!(deliver_to_both("may", &held_back).contains(" unverified "));
    assert_eq!(deliver_to_both("none", &held_back), "");
}

#[test]
fn a_certificate_that_does_not_fit_one_domain_s_policy_takes_no_tls_from_others() {
    let lab = offering(&[]);
    let config = "max_workers = 1\n[domain.\"bank.test\"]\ntls = \"verify\"\n";
    let file = lab.file("mailer.toml", config);
    let batch = Batch::to_each(["u@bank.test", "u@may.test", "v@may.test"]);
    let soon = [
        "--retry-min",
        "100ms",
        "--retry-max",
        "200ms",
        "--run-for",
        "3s",
    ];
    let ended = send(
        &lab,
        &batch,
        &[&soon, &["--config", file.to_str().unwrap()]],
    );
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(ended.row("u@bank.test").status, "deferred");
    assert_eq!(arrived(&lab), (2, 2), "{:#?}", ended.rows);
}

#[test]
fn certificates_that_cannot_be_used_are_an_error_of_the_configuration() {
    let lab = offering(&[]);
    let ca = lab.file("ca.pem", "no certificate");
    let batch = Batch::to_domain("a.test", 2);
    for policy in ["none", "may", "verify"] {
        let flags = ["--tls", policy, "--tls-ca", ca.to_str().unwrap()];
        let ended = send(&lab, &batch, &[&NO_RETRY, &flags]);
        ended.assert_status(78);
        assert!(ended.stderr.contains("ca.pem"), "{}", ended.stderr);
    }
    assert_eq!(lab.sink.stats().connections, 0);
}

#[test]
fn a_session_that_policy_left_in_clear_carries_no_mail_that_wants_tls_where_it_is_offered() {
    let lab = offering(&[]);
    let config = lab.file("mailer.toml", "[domain.\"may.test\"]\ntls = \"none\"\n");
    let flags = ["--config", config.to_str().unwrap(), "--max-workers", "1"];
    let batch = Batch::to_each(["a@may.test", "b@may.test", "u@bank.test", "v@bank.test"]);
    let mut program = lab.start_with(&flags, &[Path::new("-")]);
    // A message is complete when the next one begins: the first one alone decides how the session is opened.
    let first = batch.bytes().len() / 2;
    program.write(&batch.bytes()[..first]);
    lab.wait_until(|stats| stats.messages == 1);
    program.write(&batch.bytes()[first..]);
    let ended = program.wait();
    lab.assert_all_delivered(&ended, 4);
    assert_eq!(ended.row("a@may.test").tls, "");
    for recipient in ["u@bank.test", "v@bank.test"] {
        assert!(!ended.row(recipient).tls.is_empty(), "{:#?}", ended.rows);
    }
}
