//! Servers that take what others did not: the fallback relay.

use std::path::Path;

use mailer::smtp::server::AuthSettings;

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON, keeping};
use crate::retries::NO_RETRY;

/// What nobody takes at its own server is taken by 127.0.9.9.
const ZONE: &str = "late.test MX 10 mx.late.test\nmx.late.test A 127.0.5.1\n\
                    down.test MX 10 mx.down.test\nmx.down.test A 127.0.5.2\nSYNTHETIC\n";

/// The arguments for a fallback relay beside the receiver.
fn fallback(lab: &Lab) -> [String; 2] {
    let relay = format!("127.0.9.9:{}", lab.sink.port());
    ["--fallback".to_owned(), relay]
}

#[track_caller]
fn send(lab: &Lab, batch: &Batch, arguments: &[&str]) -> Ended {
    let fallback = fallback(lab);
    let fallback = fallback.each_ref().map(String::as_str);
    lab.send(batch, &[&fallback[..], arguments].concat())
}

#[test]
fn mail_that_is_deferred_three_times_goes_to_the_fallback_relay() {
    let lab = Lab::new(
        ZONE,
        keeping(&["server=127.0.5.1 stage=rcpt reply=\"450 4.7.1 later\""]),
    );
    let ended = send(&lab, &Batch::to_each(["u@late.test", "u@fine.test"]), &SOON);
    lab.assert_all_delivered(&ended, 2);
    let row = ended.row("u@late.test");
    assert_eq!(
        (row.mx.as_str(), row.ip.as_str()),
        ("127.0.9.9", "127.0.9.9")
    );
    assert_eq!(row.attempts, "4");
    assert_eq!(ended.row("u@fine.test").attempts, "1");
}

#[test]
fn all_mail_for_a_server_that_is_down_goes_there_untried() {
    let lab = Lab::new(ZONE, keeping(&["server=127.0.5.2 stage=connect drop"]));
    let ended = send(&lab, &Batch::to_domain("down.test", 50), &SOON);
    lab.assert_all_delivered(&ended, 50);
    assert!(ended.rows.iter().all(|row| row.mx == "127.0.9.9"));
    let tried: u32 = ended
        .rows
        .iter()
        .map(|row| row.attempts.parse::<u32>().unwrap())
        .sum();
    assert!(tried < 100, "most of it was tried once only: {tried}");
}

#[test]
fn failures_of_an_earlier_run_count() {
    let lab = Lab::new(
        ZONE,
        keeping(&["server=127.0.5.1 stage=rcpt reply=\"450 4.7.1 later\""]),
    );
    let config = lab.file("mailer.toml", "fallback_after = 1\n");
    lab.send(&Batch::to_each(["u@late.test"]), &NO_RETRY)
        .assert_status(75);
    let fallback = fallback(&lab);
    let fallback = fallback.each_ref().map(String::as_str);
    let config = ["--config", config.to_str().unwrap()];
    let second = lab.send_again(&[&fallback[..], &config, &SOON].concat());
    lab.assert_all_delivered(&second, 1);
    assert_eq!(second.rows[0].mx, "127.0.9.9");
    assert_eq!(second.rows[0].attempts, "2");
}

#[test]
fn a_name_that_does_not_exist_and_a_refusal_for_good_are_not_tried_elsewhere() {
    let rules = ["server=127.0.5.1 stage=rcpt reply=\"550 5.1.1 unknown\""];
    let lab = Lab::new(ZONE, keeping(&rules));
    let batch = Batch::to_each(["u@late.test", "u@unknown.invalid"]);
    let ended = send(&lab, &batch, &SOON);
    ended.assert_status(1);
    assert_eq!(ended.count("refused"), 2, "{:?}", ended.rows);
    assert_eq!(lab.sink.stats().messages, 0);
}

#[test]
fn credentials_are_for_the_fallback_relay_and_never_for_mail_hosts() {
    let mut config = keeping(&["server=127.0.5.1 stage=rcpt reply=\"450 4.7.1 later\""]);
    config.server.auth = Some(AuthSettings {
        only_in_tls: false,
        ..AuthSettings::new("news", "secret")
    });
    let lab = Lab::new(ZONE, config);
    let secret = lab.file("secret", "user = \"news\"\npassword = \"secret\"\n");
    make_private(&secret);
    let credentials = ["--credentials", secret.to_str().unwrap(), "--auth-in-clear"];
    let batch = Batch::to_each(["u@late.test", "u@fine.test"]);
    let ended = send(&lab, &batch, &[&SOON[..], &credentials].concat());
    lab.assert_all_delivered(&ended, 2);
    assert_eq!(lab.sink.stats().auth_sessions, 1);
}

fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_rehearsal_has_no_fallback_relay() {
    let lab = Lab::new(ZONE, keeping(&[]));
    let batch = lab.file("batch.mbox", Batch::to_domain("late.test", 1).bytes());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mailer"));
    let ended = command
        .args(["rehearse", "--rule", "stage=rcpt reply=\"450 4.7.1 later\""])
        .args(fallback(&lab))
        .args(SOON)
        .args(["--run-for", "2s"])
        .arg(batch)
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    assert_eq!(lab.sink.stats().connections, 0);
}
