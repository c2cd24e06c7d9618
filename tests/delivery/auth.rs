//! As whom a relay is spoken to: AUTH, where credentials come from, and that nobody else gets to know them.

use std::os::unix::fs::PermissionsExt;

use mailer::sink::{SinkConfig, SinkTls};
use mailer::smtp::server::{AuthSettings, Mechanism};

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON, keeping};
use crate::relay::{batch, lab, relay, send};

const USER: &str = "newsletter";
const SECRET: &str = "correct-horse-battery";

/// A receiver that takes mail only of the one user, who authenticates by `mechanism`, and offers STARTTLS.
fn guarded(mechanism: Mechanism, rules: &[&str]) -> SinkConfig {
    let mut config = keeping(rules).with_tls(SinkTls::self_signed(&["relay.test"]).unwrap());
    config.server.auth_required = true;
    config.server.auth = Some(AuthSettings {
        mechanisms: vec![mechanism],
        only_in_tls: true,
        ..AuthSettings::new(USER, SECRET)
    });
    config
}

/// The same without TLS.
fn guarded_in_clear() -> SinkConfig {
    let mut config = guarded(Mechanism::Plain, &[]);
    config.tls = None;
    if let Some(auth) = &mut config.server.auth {
        auth.only_in_tls = false;
    }
    config
}

/// A credentials file for the one user with this secret, in the form that the mechanism takes.
fn credentials(lab: &Lab, mechanism: Mechanism, secret: &str) -> String {
    let kind = if mechanism == Mechanism::XOAuth2 {
        "token"
    } else {
        "password"
    };
    let content = format!("user = \"{USER}\"\n{kind} = \"{secret}\"\n");
    let path = lab.file("credentials.toml", content);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Nobody may ever read what credentials are made of.
#[track_caller]
fn assert_secret(lab: &Lab, ended: &Ended) {
    let report = std::fs::read_to_string(lab.path("report.csv")).unwrap_or_default();
    // "AG5ld3..." is how PLAIN begins, "Y29ycm..." how LOGIN says the password.
    for secret in [SECRET, "AG5ld3NsZXR0ZX", "Y29ycmVjdC1ob3JzZ"] {
        assert!(
            !report.contains(secret) && !ended.stderr.contains(secret),
            "{}",
            ended.stderr
        );
    }
}

/// Asserts that the run ended because of the credentials, for a reason in these words, with mail that still waits.
#[track_caller]
fn assert_stopped_for_credentials(lab: &Lab, ended: &Ended, why: &str) {
    ended.assert_status(77);
    let told = &ended.stderr;
    assert!(told.contains("credentials") && told.contains(why), "{told}");
    let waiting = ended.count("deferred") + ended.count("queued");
    assert_eq!(waiting, ended.rows.len(), "{}", ended.odd());
    assert_eq!(lab.sink.stats().messages, 0);
    lab.assert_clean();
    assert_secret(lab, ended);
}

#[test]
fn each_mechanism_of_auth_opens_the_relay() {
    for mechanism in Mechanism::ALL {
        let lab = lab(guarded(mechanism, &[]));
        let path = credentials(&lab, mechanism, SECRET);
        let ended = send(&lab, &relay(&lab), &["--credentials", &path]);
        lab.assert_all_delivered(&ended, 30);
        let stats = lab.sink.stats();
        assert!(stats.auth_sessions > 0, "{stats}");
        assert_eq!(stats.auth_sessions, stats.tls_sessions, "{stats}");
        assert_secret(&lab, &ended);
    }
}

#[test]
fn credentials_can_come_from_the_environment() {
    for (mechanism, variable) in [
        (Mechanism::ScramSha256, "MAILER_RELAY_PASSWORD"),
        (Mechanism::XOAuth2, "MAILER_RELAY_TOKEN"),
    ] {
        let lab = lab(guarded(mechanism, &[]));
        let environment = [("MAILER_RELAY_USER", USER), (variable, SECRET)];
        let path = lab.file("batch.mbox", batch().bytes());
        let relay = lab.sink.address().to_string();
        let flags = ["--allow-loopback", "--relay", &relay];
        let ended = lab.start_in(&environment, &flags, &[&path]).wait();
        lab.assert_all_delivered(&ended, 30);
        assert!(lab.sink.stats().auth_sessions > 0);
        assert_secret(&lab, &ended);
    }
}

#[test]
fn credentials_that_others_can_read_are_refused_before_anything_is_sent() {
    let lab = lab(guarded(Mechanism::Plain, &[]));
    let path = credentials(&lab, Mechanism::Plain, SECRET);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let ended = send(&lab, &relay(&lab), &["--credentials", &path]);
    ended.assert_status(77);
    assert!(ended.stderr.contains("chmod 600"), "{}", ended.stderr);
    assert_eq!(lab.sink.stats().connections, 0);
    assert_secret(&lab, &ended);
}

#[test]
fn credentials_leave_in_clear_only_if_that_is_asked_for() {
    let closed = lab(guarded_in_clear());
    let path = credentials(&closed, Mechanism::Plain, SECRET);
    let ended = send(&closed, &relay(&closed), &["--credentials", &path]);
    // Not offered now may be offered later: the mail waits, as with any server in trouble.
    ended.assert_status(75);
    closed.assert_agrees(&ended);
    let row = &ended.rows[0];
    let seen = [&row.status, &row.class, &row.stage].map(String::as_str);
    assert_eq!(seen, ["deferred", "local", "auth"], "{row:?}");
    assert!(row.reply.contains("without TLS"), "{row:?}");
    let stats = closed.sink.stats();
    assert_eq!((stats.auth_sessions, stats.messages), (0, 0), "{stats}");
    assert_secret(&closed, &ended);

    let open = lab(guarded_in_clear());
    let path = credentials(&open, Mechanism::Plain, SECRET);
    let flags = ["--credentials", &path, "--auth-in-clear"];
    let ended = send(&open, &relay(&open), &flags);
    open.assert_all_delivered(&ended, 30);
    assert!(open.sink.stats().auth_sessions > 0);
    assert_secret(&open, &ended);
}

#[test]
fn a_run_with_wrong_credentials_stops_at_once_and_says_why() {
    for mechanism in Mechanism::ALL {
        let lab = lab(guarded(mechanism, &[]));
        let path = credentials(&lab, mechanism, &format!("not-{SECRET}"));
        // Retries would come soon, and go on for long, if the run did.
        let relay = lab.sink.address().to_string();
        let flags = ["--relay", &relay, "--credentials", &path];
        let ended = lab.send(&batch(), &[&SOON[..], &flags].concat());
        assert_stopped_for_credentials(&lab, &ended, "not valid");
        assert_eq!(lab.sink.stats().auth_sessions, 0);
    }
}

#[test]
fn a_server_that_repeats_the_password_does_not_bring_it_into_the_report() {
    let echo = format!("stage=auth reply=\"535 5.7.8 who says {SECRET} here?\"");
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256] {
        let lab = lab(guarded(mechanism, &[&echo]));
        let path = credentials(&lab, mechanism, SECRET);
        let ended = send(&lab, &relay(&lab), &["--credentials", &path]);
        assert_stopped_for_credentials(&lab, &ended, "who says");
    }
}

#[test]
fn credentials_that_one_relay_refuses_are_no_failure_if_another_has_taken_everything() {
    let refusing = lab(guarded(
        Mechanism::Plain,
        &["stage=auth reply=\"535 5.7.8 not you\""],
    ));
    let taking = lab(guarded(Mechanism::Plain, &[]));
    let path = credentials(&taking, Mechanism::Plain, SECRET);
    let relays = [relay(&refusing), relay(&taking)].concat();
    let one = Batch::to_each(["u@a.test"]);
    let flags = [
        "--relay",
        &relays[0],
        "--relay",
        &relays[1],
        "--credentials",
        &path,
    ];
    // The refusal stops the run, unless the other relay is quicker than who looks for trouble.
    let ended = taking.send(&one, &flags);
    let delivered = ended.count("delivered");
    ended.assert_status(if delivered == 1 { 0 } else { 77 });
    taking.assert_agrees(&ended);
}

#[test]
fn a_relay_that_cannot_check_credentials_now_is_tried_again() {
    let busy = "stage=auth reply=\"454 4.7.0 later\" first=1";
    let lab = lab(guarded(Mechanism::ScramSha256, &[busy]));
    let path = credentials(&lab, Mechanism::ScramSha256, SECRET);
    let relay = lab.sink.address().to_string();
    let flags = ["--relay", &relay, "--credentials", &path];
    let ended = lab.send(&batch(), &[&SOON[..], &flags].concat());
    lab.assert_all_delivered(&ended, 30);
}
