//! Mail that one run leaves and a later one takes up: what it has been through counts, whoever made the attempts.
//!
//! The first run ends before anything could be tried again; the second one is the same command, on the same batch.

use crate::batch::Batch;
use crate::lab::{Ended, Lab, SOON, keeping};
use crate::retries::NO_RETRY;

/// Two servers; the second one is asked only if the first cannot be reached.
const TWO_SERVERS: &str = "late.test MX 10 mx1.late.test\nlate.test MX 20 mx2.late.test\n\
                           mx1.late.test A 127.0.5.1\nmx2.late.test A 127.0.5.2\n";
/// Two recipients, one worker: one after the other.
const ONE_WORKER: [&str; 2] = ["--max-workers", "1"];
/// Mail in doubt is sent again soon.
const DOUBT_SOON: [&str; 2] = ["--in-doubt-wait", "50ms"];

fn one() -> Batch {
    Batch::to_each(["u@late.test"])
}

/// A laboratory in which one message was left by a run whose receiver obeyed this rule.
#[track_caller]
fn left_by(rule: &str) -> (Lab, Ended) {
    let lab = Lab::new(TWO_SERVERS, keeping(&[rule]));
    let first = lab.send(&one(), &NO_RETRY);
    first.assert_status(75);
    (lab, first)
}

/// What `rule` defers in the first run arrives in the second one, by the attempt after those.
#[track_caller]
fn assert_next_run_delivers(rule: &str, class: &str, attempts: u32) {
    let (lab, first) = left_by(rule);
    let before = &first.rows[0];
    let seen = [&before.status, &before.class, &before.attempts];
    assert_eq!(seen, ["deferred", class, &attempts.to_string()], "{rule}");
    let second = lab.send_again(&SOON);
    second.assert_status(0);
    lab.assert_agrees(&second);
    let after = &second.rows[0];
    assert_eq!(after.attempts, (attempts + 1).to_string(), "{rule}");
    assert_eq!(after.first_attempt, before.first_attempt, "{rule}");
    assert!(after.last_attempt > before.last_attempt, "{after:?}");
    assert_eq!(after.mx, "mx1.late.test", "the same host: {rule}");
}

#[test]
fn greylisted_mail_is_delivered_by_the_next_run_through_the_same_host() {
    assert_next_run_delivers(
        "stage=rcpt reply=\"450 4.7.1 greylisted\" first=1",
        "recipient",
        1,
    );
}

#[test]
fn what_was_sent_too_fast_or_refused_for_now_is_delivered_by_the_next_run() {
    let not_now = "stage=dot reply=\"451 4.3.0 not now\" first=1";
    assert_next_run_delivers(not_now, "message", 1);
    // The first two times it only waits for the pace of the site.
    let too_fast = "stage=mail reply=\"451 4.7.28 too fast\" first=3";
    assert_next_run_delivers(too_fast, "rate", 3);
}

#[test]
fn a_host_that_could_not_be_reached_costs_the_recipient_no_attempt() {
    let (lab, first) = left_by("stage=connect drop first=2");
    assert_eq!(first.rows[0].class, "host");
    let passage = |lab: &Lab| {
        let count = |column| lab.ask_ledger(&format!("select {column} from recipient"));
        (count("attempts"), count("host_failures"))
    };
    assert_eq!(passage(&lab), (0, 1));
    let second = lab.send_again(&SOON);
    second.assert_status(0);
    assert_eq!(passage(&lab), (1, 1));
    assert_eq!(second.rows[0].attempts, "2", "both are told to people");
}

#[test]
fn a_back_off_goes_on_in_the_next_run_instead_of_beginning_again() {
    let (lab, first) = left_by("stage=rcpt reply=\"450 4.7.1 greylisted\" first=1");
    let second = lab.send_again(&NO_RETRY);
    second.assert_status(75);
    assert_eq!(lab.sink.stats().connections, 1, "half an hour is not over");
    assert_eq!(second.rows[0].last_attempt, first.rows[0].last_attempt);
    assert_eq!(second.rows[0].reply, first.rows[0].reply);
}

#[test]
fn a_server_s_wish_when_to_come_back_holds_for_the_next_run_too() {
    let wish = "stage=rcpt reply=\"450 4.7.1 greylisted, try again in 3000 seconds\" first=1";
    let (lab, _) = left_by(wish);
    let second = lab.send_again(&[&SOON[..], &["--run-for", "20m"]].concat());
    second.assert_status(75);
    assert_eq!(second.rows[0].attempts, "1");
    assert_eq!(lab.sink.stats().connections, 1);
}

#[test]
fn a_short_wish_is_no_reason_to_rest_for_the_back_off_in_the_next_run() {
    let wish = "stage=rcpt reply=\"450 4.7.1 greylisted, try again in 1 seconds\" first=1";
    let lab = Lab::new(TWO_SERVERS, keeping(&[wish]));
    let at_once = [
        "--retry-min",
        "30m",
        "--retry-max",
        "4h",
        "--run-for",
        "500ms",
    ];
    lab.send(&one(), &at_once).assert_status(75);
    let second = lab.send_again(&["--retry-min", "30m", "--retry-max", "4h"]);
    second.assert_status(0);
    lab.assert_agrees(&second);
}

#[test]
fn what_was_deferred_expires_in_the_next_run_without_another_attempt() {
    let (lab, _) = left_by("stage=rcpt reply=\"450 4.7.1 later\"");
    let second = lab.send_again(&[&SOON[..], &["--expire", "1ms"]].concat());
    second.assert_status(1);
    let row = &second.rows[0];
    assert_eq!(
        (row.status.as_str(), row.attempts.as_str()),
        ("expired", "1")
    );
    assert_eq!(row.reply, "later", "its last reason is kept");
    assert_eq!(lab.sink.stats().connections, 1);
}

#[test]
fn what_was_never_tried_is_tried_once_however_old_it_is() {
    let mut lab = Lab::new("SYNTHETIC", keeping(&["stage=dot delay=2s first=1"]));
    let program = lab.start(&Batch::to_domain("a.test", 3), &ONE_WORKER);
    lab.wait_until(|stats| stats.messages == 1);
    program.terminate();
    let first = program.wait();
    first.assert_status(75);
    assert_eq!((first.count("delivered"), first.count("queued")), (1, 2));
    lab.replace_receiver(&["stage=rcpt reply=\"450 later\" first=1"]);
    let second = lab.send_again(&[&SOON[..], &["--expire", "1ms"]].concat());
    second.assert_status(1);
    assert_eq!((second.count("delivered"), lab.received().len()), (2, 1));
    let expired = second.rows.iter().find(|row| row.status == "expired");
    assert_eq!(expired.map(|row| row.attempts.as_str()), Some("1"));
}

#[test]
fn mail_in_doubt_for_the_second_time_is_held_though_runs_lie_between() {
    let (lab, first) = left_by("stage=dot lose-reply");
    assert_eq!(first.rows[0].status, "in-doubt");
    let second = lab.send_again(&NO_RETRY);
    second.assert_status(75);
    assert_eq!(
        second.rows[0].status, "in-doubt",
        "half an hour is not over"
    );
    assert_eq!(lab.sink.stats().messages, 1);
    let third = lab.send_again(&DOUBT_SOON);
    third.assert_status(1);
    assert_eq!((third.count("held"), lab.sink.stats().messages), (1, 2));
    let fourth = lab.send_again(&DOUBT_SOON);
    assert_eq!((fourth.status, lab.sink.stats().messages), (Some(1), 2));
}

#[test]
fn mail_in_doubt_is_held_at_once_by_a_run_that_is_told_so() {
    let lab = Lab::new(TWO_SERVERS, keeping(&["stage=dot lose-reply"]));
    let ended = lab.send(&one(), &["--in-doubt", "hold"]);
    ended.assert_status(1);
    assert_eq!((ended.count("held"), lab.sink.stats().messages), (1, 1));
}

#[test]
fn mail_that_an_earlier_run_left_in_doubt_is_not_sent_again_by_one_that_holds() {
    let (lab, _) = left_by("stage=dot lose-reply first=1");
    let second = lab.send_again(&["--in-doubt", "hold", "--in-doubt-wait", "50ms"]);
    assert_eq!(lab.sink.stats().messages, 1, "{:?}", second.rows);
    second.assert_status(1);
    assert_eq!(second.count("held"), 1);
}

#[test]
fn mail_in_doubt_stays_so_when_a_later_run_leaves_it_at_a_site_that_is_down() {
    let rules = [
        "stage=dot lose-reply first=1",
        "stage=rcpt reply=\"450 later\" after=1",
    ];
    let mut lab = Lab::new(TWO_SERVERS, keeping(&rules));
    let batch = Batch::to_each(["a@late.test", "b@late.test"]);
    let first = lab.send(&batch, &[&NO_RETRY[..], &ONE_WORKER].concat());
    first.assert_status(75);
    assert_eq!(first.row("a@late.test").status, "in-doubt");
    lab.replace_receiver(&["stage=connect drop"]);
    let longer = ["--in-doubt-wait", "30m", "--run-for", "2h"];
    let slow = ["--retry-min", "10s", "--retry-max", "4h"];
    let program = lab.start_with(&[&longer[..], &slow].concat(), &[&lab.path("batch.mbox")]);
    lab.wait_until(|stats| stats.connections >= 4);
    program.terminate();
    let second = program.wait();
    second.assert_status(75);
    let row = second.row("a@late.test");
    assert_eq!(
        (row.status.as_str(), row.stage.as_str()),
        ("in-doubt", "dot")
    );
    lab.replace_receiver(&[]);
    let third = lab.send_again(&[&SOON[..], &["--run-for", "10s"]].concat());
    third.assert_status(75);
    assert_eq!(
        third.row("a@late.test").status,
        "in-doubt",
        "it still rests"
    );
    assert_eq!(lab.received(), third.delivered());
}

#[test]
fn the_report_of_each_run_has_every_recipient_of_the_job() {
    let rules = ["domain=b.test stage=rcpt reply=\"450 4.7.1 later\" first=1"];
    let lab = Lab::with_rules(&rules);
    let mut batch = Batch::to_each(["u@a.test", "u@b.test", "not an address"]);
    batch.add(&["x@a.test", "x@unknown.invalid"]);
    let first = lab.send(&batch, &NO_RETRY);
    first.assert_status(75);
    let second = lab.send_again(&SOON);
    second.assert_status(1);
    let who = |ended: &Ended| -> Vec<_> {
        let rows = ended.rows.iter();
        rows.map(|row| (row.message, row.recipient.clone()))
            .collect()
    };
    assert_eq!(who(&first), who(&second));
    for (before, after) in first.rows.iter().zip(&second.rows) {
        if before.status != "deferred" {
            assert_eq!(format!("{before:?}"), format!("{after:?}"));
        }
    }
    lab.assert_agrees(&second);
}
