//! Ending in time, or because somebody says so, and going on: the next run of the same batch sends the rest, once.

use std::process::{Command, Stdio};

use crate::batch::Batch;
use crate::lab::{FOUR, Lab, SOON, keeping};

#[test]
fn a_run_whose_time_is_over_ends_what_it_has_begun_and_the_next_one_sends_the_rest() {
    let lab = Lab::new("SYNTHETIC", keeping(&["stage=dot delay=200ms"]));
    let batch = Batch::to_domain("a.test", 40);
    let first = lab.send(&batch, &[&FOUR[..], &["--run-for", "600ms"]].concat());
    first.assert_status(75);
    assert!(
        first.stderr.contains("the time of --run-for is over"),
        "{}",
        first.stderr
    );
    assert!(first.count("queued") > 0, "{}", first.odd());
    assert_eq!(first.count("delivered") + first.count("queued"), 40);
    lab.assert_agrees(&first);
    lab.assert_all_delivered(&lab.send_again(&[]), 40);
}

#[test]
fn runs_of_no_time_at_all_lose_nothing() {
    let lab = Lab::with_rules(&["stage=dot delay=20ms"]);
    let batch = Batch::to_domain("a.test", 30);
    let mut ended = lab.send(&batch, &["--run-for", "0s"]);
    for _ in 0..40 {
        if ended.status == Some(0) {
            break;
        }
        ended.assert_status(75);
        ended = lab.send_again(&["--run-for", "150ms"]);
    }
    lab.assert_all_delivered(&ended, 30);
}

#[test]
fn after_a_signal_the_next_run_sends_the_rest_and_nobody_gets_mail_twice() {
    let lab = Lab::with_rules(&["stage=dot delay=1s first=4"]);
    let program = lab.start(&Batch::to_domain("a.test", 100), &FOUR);
    lab.wait_until(|stats| stats.messages == 4);
    program.terminate();
    program.wait().assert_status(75);
    lab.assert_all_delivered(&lab.send_again(&[]), 100);
}

#[test]
fn after_two_signals_only_what_was_under_way_may_come_twice() {
    let lab = Lab::with_rules(&["stage=dot delay=10m first=4"]);
    let program = lab.start(&Batch::to_domain("a.test", 100), &FOUR);
    lab.wait_until(|stats| stats.messages == 4);
    let first = program.terminate_for_good();
    first.assert_status(75);
    assert_eq!(first.count("in-doubt"), 4, "{}", first.odd());
    let held = lab.send_again(&["--run-for", "20s"]);
    held.assert_status(75);
    assert_eq!((held.count("delivered"), held.count("in-doubt")), (96, 4));
    assert_eq!(lab.sink.stats().duplicates, Some(0));
    let last = lab.send_again(&["--in-doubt-wait", "50ms"]);
    last.assert_status(0);
    let stats = lab.sink.stats();
    assert_eq!((stats.messages, stats.duplicates), (104, Some(4)));
}

#[test]
fn nobody_reads_the_report_and_no_mail_is_lost_for_that() {
    let lab = Lab::with_rules(&[]);
    let batch = lab.file("batch.mbox", Batch::to_domain("a.test", 2000).bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailer"));
    command
        .args(["send", "--allow-loopback", "--hello", "client.test"])
        .args(["--dns", &lab.dns.address().to_string()])
        .args(["--port", &lab.sink.port().to_string()])
        .args(["--report", "-", "--state"])
        .args([lab.path("state"), batch])
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(74), "{ended:?}");
    assert_eq!(lab.received().len(), 2000);
    let again = lab.send_again(&SOON);
    assert_eq!(lab.received().len(), 2000);
    assert!(
        again.stderr.contains("nothing was sent"),
        "{}",
        again.stderr
    );
    lab.assert_clean();
}

#[test]
fn a_run_that_is_stopped_while_it_reads_has_read_the_rest_in_the_next_one() {
    let lab = Lab::with_rules(&[]);
    let program = lab.start(&Batch::to_domain("a.test", 6000), &FOUR);
    lab.wait_until(|stats| stats.messages >= 5);
    program.terminate();
    let first = program.wait();
    first.assert_status(75);
    lab.assert_agrees(&first);
    lab.assert_all_delivered(&lab.send_again(&[]), 6000);
}

#[test]
fn a_run_ends_at_the_time_of_day_that_was_asked_for() {
    let lab = Lab::with_rules(&["stage=dot delay=500ms"]);
    let path = lab.file("batch.mbox", Batch::to_domain("a.test", 400).bytes());
    // In a time zone where a minute begins ten seconds from now.
    let now = jiff::Timestamp::now();
    let east = (110 - now.as_second() % 60) % 60;
    let zone = format!("LAB-00:00:{east:02}");
    let there =
        now.to_zoned_datetime(jiff::tz::TimeZone::UTC) + jiff::Span::new().seconds(east + 15);
    let time = there.strftime("%H:%M").to_string();
    let arguments = [&["--allow-loopback", "--finish-by", &time], &FOUR[..]].concat();
    let first = lab.start_in(&[("TZ", &zone)], &arguments, &[&path]).wait();
    first.assert_status(75);
    assert!(first.count("delivered") > 0, "{}", first.stderr);
    lab.assert_agrees(&first);
}
