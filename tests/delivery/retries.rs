//! What becomes of mail that was not taken at once: tried again by another worker, in doubt, held, deferred or expired.
//!
//! Each row of a table has a laboratory of its own; the receiver misbehaves for the first transaction, then no more.

use std::time::Duration;

use mailer::sink::SinkConfig;

use crate::batch::Batch;
use crate::lab::{AT_ONCE, Lab, SOON, keeping};

/// The next attempt would be after the end of the run: what is deferred is left at once.
pub const NO_RETRY: [&str; 6] = [
    "--retry-min",
    "30m",
    "--retry-max",
    "4h",
    "--run-for",
    "60s",
];
/// Mail in doubt is sent again soon.
const DOUBT_SOON: [&str; 2] = ["--in-doubt-wait", "50ms"];

/// One server with one address: an attempt cannot go on anywhere else.
const ONE_SERVER: &str = "late.test MX 10 mx.late.test\nmx.late.test A 127.0.5.1\n";

fn one() -> Batch {
    Batch::to_each(["u@late.test"])
}

/// Sends one message to a receiver that obeys `rule`; it must arrive once, by the second attempt.
#[track_caller]
fn assert_second_attempt_delivers(rule: &str, arguments: &[&str]) {
    let lab = Lab::new(ONE_SERVER, keeping(&[rule]));
    let ended = lab.send(&one(), &[&SOON[..], &DOUBT_SOON, arguments].concat());
    assert_eq!(ended.status, Some(0), "{rule}: {}", ended.stderr);
    lab.assert_all_delivered(&ended, 1);
    assert_eq!(ended.rows[0].attempts, "2", "{rule}: {:?}", ended.rows);
}

#[test]
fn a_refusal_for_now_at_any_stage_is_tried_again() {
    for stage in ["greeting", "ehlo", "mail", "rcpt", "data", "dot"] {
        for reply in ["451 4.3.0 not now", "421 4.3.2 closing", "450"] {
            let rule = format!("stage={stage} reply=\"{reply}\" first=1");
            assert_second_attempt_delivers(&rule, &[]);
        }
    }
}

#[test]
fn a_connection_dropped_at_any_stage_is_made_again() {
    for stage in [
        "connect", "greeting", "ehlo", "mail", "rcpt", "data", "body", "dot",
    ] {
        assert_second_attempt_delivers(&format!("stage={stage} drop first=1"), &[]);
    }
}

#[test]
fn silence_at_any_stage_ends_with_the_deadline_of_the_stage() {
    for stage in ["connect", "greeting", "ehlo", "mail", "rcpt", "data"] {
        let rule = format!("stage={stage} silence first=1");
        assert_second_attempt_delivers(&rule, &["--timeout", "300ms"]);
    }
    assert_second_attempt_delivers("stage=dot silence first=1", &["--dot-timeout", "300ms"]);
}

#[test]
fn a_deferred_message_is_tried_again_by_another_worker() {
    let lab = Lab::with_rules(&["stage=rcpt reply=\"451 4.7.1 later\" first=1"]);
    let config = lab.file("mailer.toml", format!("idle = \"60s\"\n{AT_ONCE}"));
    let arguments = [&SOON[..], &["--config", config.to_str().unwrap()]].concat();
    let ended = lab.send(&one(), &arguments);
    lab.assert_all_delivered(&ended, 1);
    assert_eq!(ended.rows[0].attempts, "2");
    // The first worker still holds its session, ready to be used; the second attempt is somebody else's.
    assert_eq!(lab.sink.messages()[0].session, 2);
}

#[test]
fn a_lone_worker_tries_again_itself() {
    let lab = Lab::with_rules(&["stage=rcpt reply=\"451 4.7.1 later\" first=1"]);
    let config = lab.file("mailer.toml", "idle = \"60s\"\nmax_workers = 1\n");
    let arguments = [&SOON[..], &["--config", config.to_str().unwrap()]].concat();
    let ended = lab.send(&one(), &arguments);
    lab.assert_all_delivered(&ended, 1);
    assert_eq!(ended.rows[0].attempts, "2");
    assert_eq!(lab.sink.messages()[0].session, 1);
}

#[test]
fn a_server_s_wish_when_to_come_back_replaces_the_back_off() {
    let wish = "stage=rcpt reply=\"451 4.7.1 greylisted, try again in 1 seconds\" first=1";
    let lab = Lab::with_rules(&[wish]);
    let ended = lab.send(
        &Batch::to_domain("a.test", 1),
        &["--retry-min", "10m", "--retry-max", "1h"],
    );
    lab.assert_all_delivered(&ended, 1);
    assert_eq!(ended.rows[0].attempts, "2", "{}", ended.odd());
}

#[test]
fn greylisted_mail_is_all_delivered_by_the_second_attempt() {
    let config = SinkConfig {
        greylist: Some(Duration::ZERO),
        ..keeping(&[])
    };
    let lab = Lab::new("SYNTHETIC", config);
    let batch = Batch::to_each((0..120).map(|n| format!("u{n}@d{}.test", n % 6)));
    let ended = lab.send(&batch, &SOON);
    lab.assert_all_delivered(&ended, 120);
    assert!(
        ended.rows.iter().all(|row| row.attempts == "2"),
        "{}",
        ended.odd()
    );
}

#[test]
fn a_storm_of_faults_loses_nobody_and_sends_nobody_anything_twice() {
    let stages = ["greeting", "ehlo", "mail", "rcpt", "data"];
    let mut rules = vec!["stage=connect drop chance=0.03".to_owned()];
    for stage in stages {
        rules.push(format!("stage={stage} drop chance=0.02"));
        rules.push(format!(
            "stage={stage} reply=\"421 4.3.2 closing\" chance=0.02"
        ));
        rules.push(format!(
            "stage={stage} reply=\"451 4.3.0 later\" chance=0.02"
        ));
    }
    rules.push("stage=dot reply=\"451 4.3.0 later\" chance=0.05".to_owned());
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let lab = Lab::with_rules(&rules);
    let mut batch = Batch::default();
    for n in 0..700 {
        let recipients = [0, 1, 7].map(|step| format!("u{n}@d{}.test", (n + step) % 20));
        batch.add(&recipients.each_ref().map(String::as_str));
    }
    let ended = lab.send(&batch, &["--retry-min", "20ms", "--retry-max", "200ms"]);
    lab.assert_all_delivered(&ended, 2100);
    assert!(
        ended
            .rows
            .iter()
            .any(|row| row.attempts.parse::<u32>().unwrap() > 1)
    );
}

#[test]
fn a_limit_of_messages_per_session_is_nobodys_fault() {
    let config = SinkConfig {
        messages_per_connection_max: Some(5),
        ..keeping(&[])
    };
    let lab = Lab::new("SYNTHETIC", config);
    // Retries in half an hour: if one were needed, the run would end without delivery.
    let ended = lab.send(&Batch::to_domain("limit.test", 100), &NO_RETRY);
    lab.assert_all_delivered(&ended, 100);
    assert!(
        ended.rows.iter().all(|row| row.attempts == "1"),
        "{}",
        ended.odd()
    );
    assert!(lab.sink.stats().connections >= 20);
}

#[test]
fn a_lost_reply_after_the_dot_is_reported_as_in_doubt() {
    let lab = Lab::with_rules(&["domain=lost.test stage=dot lose-reply"]);
    let batch = Batch::to_each(["u@lost.test", "u@fine.test"]);
    let ended = lab.send(&batch, &NO_RETRY);
    // The wait before mail in doubt is sent again is half an hour, and only asked to run for a minute.
    ended.assert_status(75);
    let row = ended.row("u@lost.test");
    assert_eq!(
        (
            row.status.as_str(),
            row.stage.as_str(),
            row.attempts.as_str()
        ),
        ("in-doubt", "dot", "1")
    );
    assert_eq!(lab.received(), ended.pairs(&["delivered", "in-doubt"]));
    lab.assert_clean();
}

#[test]
fn mail_in_doubt_is_sent_again_once() {
    let lab = Lab::with_rules(&["stage=dot lose-reply first=1"]);
    let ended = lab.send(&one(), &DOUBT_SOON);
    ended.assert_status(0);
    assert_eq!(
        (ended.count("delivered"), ended.rows[0].attempts.as_str()),
        (1, "2")
    );
    let stats = lab.sink.stats();
    assert_eq!(
        (stats.messages, stats.duplicates),
        (2, Some(1)),
        "the price of not losing it"
    );
}

#[test]
fn mail_in_doubt_for_the_second_time_is_held() {
    let lab = Lab::with_rules(&["stage=dot lose-reply"]);
    let ended = lab.send(&one(), &DOUBT_SOON);
    ended.assert_status(1);
    assert_eq!(
        (ended.count("held"), ended.rows[0].attempts.as_str()),
        (1, "2")
    );
    assert_eq!(lab.sink.stats().messages, 2, "never a third time");
}

#[test]
fn what_is_deferred_at_the_end_of_the_run_is_reported_so() {
    let lab = Lab::with_rules(&["domain=never.test stage=rcpt reply=\"451 4.7.1 later\""]);
    let ended = lab.send(&Batch::to_each(["u@never.test", "u@fine.test"]), &NO_RETRY);
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    let row = ended.row("u@never.test");
    let seen = [
        &row.status,
        &row.code,
        &row.enhanced,
        &row.class,
        &row.stage,
        &row.attempts,
    ];
    assert_eq!(seen, ["deferred", "451", "4.7.1", "recipient", "rcpt", "1"]);
    assert!(
        ended.stderr.contains("1 of 2 recipients still pending"),
        "{}",
        ended.stderr
    );
}

#[test]
fn mail_deferred_for_too_long_expires() {
    let lab = Lab::with_rules(&["domain=never.test stage=rcpt reply=\"451 4.7.1 later\""]);
    let arguments = [&SOON[..], &["--expire", "1s"]].concat();
    let ended = lab.send(&Batch::to_each(["u@never.test", "u@fine.test"]), &arguments);
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    assert_eq!(ended.row("u@never.test").status, "expired");
    assert_ne!(ended.row("u@never.test").attempts, "1");
}
