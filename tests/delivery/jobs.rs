//! Going on without the batch: `mailer resume` sends what the job remembers, over the way that it remembers.

use crate::batch::Batch;
use crate::lab::Lab;

/// The first attempt is too early, and the next one is after the end of the first run.
const LATE: &str =
    "domain=late.test stage=rcpt reply=\"450 4.7.1 later, try again in 1 seconds\" first=1";
const SHORT: [&str; 2] = ["--run-for", "500ms"];

#[test]
fn a_batch_that_is_another_one_by_now_or_gone_is_resumed_with_the_right_bytes() {
    for is_gone in [false, true] {
        let lab = Lab::with_rules(&[LATE]);
        let first = lab.send(&Batch::to_each(["u@late.test"]), &SHORT);
        first.assert_status(75);
        let path = lab.file("batch.mbox", Batch::to_domain("wrong.test", 9).bytes());
        if is_gone {
            std::fs::remove_file(&path).unwrap();
        }
        let report = lab.path("report.csv").display().to_string();
        let ended = lab.resume(&["--report", &report]);
        lab.assert_all_delivered(&ended, 1);
        assert_eq!(ended.rows[0].attempts, "2");
        assert_eq!(ended.rows[0].first_attempt, first.rows[0].first_attempt);
        let content = lab.sink.messages()[0].content.clone();
        assert!(content.ends_with(b"\r\n\r\nhello\r\n"), "{content:?}");
    }
}

#[test]
fn all_jobs_that_nobody_runs_are_resumed_and_one_that_is_run_says_by_whom() {
    let lab = Lab::with_rules(&[LATE, "domain=slow.test stage=dot delay=3s first=1"]);
    lab.send(&Batch::to_each(["u@late.test"]), &SHORT)
        .assert_status(75);
    let slow = lab.start(&Batch::to_each(["u@slow.test"]), &["--job", "slow"]);
    lab.wait_until(|stats| stats.messages == 1);
    let all = lab.resume(&[]);
    assert_eq!((all.status, all.stderr.as_str()), (Some(0), ""));
    assert_eq!(lab.received().len(), 2);
    let named = lab.resume(&["slow"]);
    assert_eq!(named.status, Some(75), "{}", named.stderr);
    let who = slow.id().to_string();
    assert!(named.stderr.contains(&who), "{}", named.stderr);
    slow.wait().assert_status(0);
    lab.assert_clean();
}

#[test]
fn with_nothing_left_to_do_nothing_is_done_or_said() {
    let lab = Lab::with_rules(&[]);
    lab.send(&Batch::to_each(["u@a.test"]), &[])
        .assert_status(0);
    let ended = lab.resume(&[]);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(lab.sink.stats().messages, 1);
}
