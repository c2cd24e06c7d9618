//! Being stopped: what is under way ends, nothing new begins, and the report tells the three apart.

use crate::batch::{Batch, FROM_LINE, message};
use std::time::{Duration, Instant};

use crate::lab::{Ended, FOUR, Lab, PATIENCE, Program, Row, SOON, keeping};

#[test]
fn the_first_signal_lets_transactions_under_way_end_and_begins_no_other() {
    let lab = Lab::with_rules(&["stage=dot delay=2s first=4"]);
    let program = lab.start(&Batch::to_domain("a.test", 400), &FOUR);
    // Four are taken and their replies held back.
    lab.wait_until(|stats| stats.messages == 4);
    program.terminate();
    let ended = program.wait();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(
        (ended.count("delivered"), ended.count("queued")),
        (4, 396),
        "{}",
        ended.odd()
    );
    assert!(
        ended
            .stderr
            .contains("stopped by a signal: 396 of 400 recipients"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_second_signal_cuts_connections_and_what_was_under_way_is_in_doubt() {
    let lab = Lab::with_rules(&["stage=dot delay=10m first=4"]);
    let program = lab.start(&Batch::to_domain("a.test", 400), &FOUR);
    lab.wait_until(|stats| stats.messages == 4);
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    assert_eq!(
        (ended.count("in-doubt"), ended.count("queued")),
        (4, 396),
        "{}",
        ended.odd()
    );
    assert_told_apart(&ended, "in-doubt", "dot");
    // They are in doubt and not lost: the receiver did take them.
    assert_eq!(lab.received(), ended.pairs(&["in-doubt"]));
    lab.assert_clean();
}

#[test]
fn what_was_cut_before_its_content_is_deferred_and_not_in_doubt() {
    let lab = Lab::with_rules(&["stage=data delay=10m"]);
    let program = lab.start(&Batch::to_domain("a.test", 10), &["--max-workers", "1"]);
    lab.wait_until(|stats| stats.connections == 1);
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    assert_eq!(
        (ended.count("in-doubt"), ended.count("delivered")),
        (0, 0),
        "{}",
        ended.odd()
    );
    assert_eq!(ended.count("deferred") + ended.count("queued"), 10);
    assert_told_apart(&ended, "deferred", "data");
    assert_eq!(lab.sink.stats().messages, 0);
}

#[test]
fn the_time_that_was_given_ends_the_run_as_a_signal_does() {
    let lab = Lab::with_rules(&["stage=dot delay=500ms"]);
    let program = lab.start(
        &Batch::to_domain("a.test", 400),
        &["--max-workers", "4", "--run-for", "2s"],
    );
    let ended = program.wait();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    // At this rate all of it would take fifty seconds.
    assert!(ended.count("queued") > 0, "{}", ended.odd());
    assert_eq!(ended.count("queued") + ended.count("delivered"), 400);
}

#[test]
fn a_wait_for_a_greeting_is_cut_too() {
    let lab = Lab::with_rules(&["stage=greeting delay=10m"]);
    let program = lab.start(&Batch::to_domain("a.test", 10), &["--max-workers", "1"]);
    lab.wait_until(|stats| stats.connections == 1);
    let ended = program.terminate_for_good();
    ended.assert_status(75);
    assert_told_apart(&ended, "deferred", "greeting");
    assert_eq!(ended.count("deferred") + ended.count("queued"), 10);
}

/// Asserts that rows of this status say that we stopped, and that no server is blamed.
#[track_caller]
fn assert_told_apart(ended: &Ended, status: &str, stage: &str) {
    let of_status = |row: &&Row| row.status == status;
    for row in ended.rows.iter().filter(of_status) {
        assert!(row.reply.contains("this run was stopped"), "{row:?}");
        assert_eq!(row.stage, stage, "{row:?}");
    }
    assert!(ended.count(status) > 0, "{}", ended.odd());
}

/// Starts to send mail to 40 domains, more than there are resolvers, whose look-ups would take a quarter of an hour.
fn start_without_answers(lab: &Lab, arguments: &[&str]) -> Program {
    let silent = [&["--dns-timeout", "20m"], arguments].concat();
    lab.start(
        &Batch::to_each((0..40).map(|n| format!("u@d{n}.quiet.test"))),
        &silent,
    )
}

#[test]
fn a_signal_ends_the_wait_for_the_dns() {
    let lab = Lab::new("SILENT quiet.test\n", keeping(&[]));
    let program = start_without_answers(&lab, &[]);
    let end = Instant::now() + PATIENCE;
    while lab.dns.counts().queries == 0 {
        assert!(Instant::now() < end, "nothing is looked up");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    program.terminate();
    let ended = program.wait();
    ended.assert_status(75);
    assert_eq!(ended.count("queued"), 40, "{}", ended.odd());
}

#[test]
fn the_time_of_a_run_ends_the_wait_for_the_dns() {
    let lab = Lab::new("SILENT quiet.test\n", keeping(&[]));
    let ended = start_without_answers(&lab, &["--run-for", "1s"]).wait();
    ended.assert_status(75);
    assert_eq!(ended.count("queued"), 40, "{}", ended.odd());
    assert!(ended.stderr.contains("--run-for"), "{}", ended.stderr);
}

#[test]
fn a_signal_ends_the_wait_for_retries() {
    let lab = Lab::with_rules(&["domain=later.test stage=rcpt reply=\"451 4.7.1 later\""]);
    // The first retry is due in five minutes.
    let program = lab.start(&Batch::to_each(["u@later.test", "u@fine.test"]), &[]);
    lab.wait_until(|stats| stats.messages == 1 && stats.refusals == 1);
    program.terminate();
    let ended = program.wait();
    ended.assert_status(75);
    lab.assert_agrees(&ended);
    assert_eq!(
        (ended.count("delivered"), ended.count("deferred")),
        (1, 1),
        "{}",
        ended.odd()
    );
}

#[test]
fn a_signal_ends_the_wait_for_standard_input() {
    let lab = Lab::with_rules(&[]);
    let mut program = lab.start_with(&SOON, &[]);
    program.write(format!(
        "{FROM_LINE}{}x\n\n{FROM_LINE}",
        message(1, &["u@a.test"], "")
    ));
    lab.wait_until(|stats| stats.messages == 1);
    // Standard input is still open.
    let ended = program.terminate_for_good();
    // All that was read is delivered, but what was still to come is not.
    ended.assert_status(75);
    assert!(
        ended.stderr.contains("not read to its end"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.count("delivered"), 1, "{}", ended.odd());
    lab.assert_agrees(&ended);
}
