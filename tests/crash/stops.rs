//! Signals, and receivers that never answer in time.

use std::collections::HashSet;

use mailer::ledger::Snapshot;

use crate::knife::{Moment, until};
use crate::lab::SOON;
use crate::run::{Ended, Run, jobs, settle};
use crate::stage::Stage;

/// What is in doubt is sent again soon.
const FLAGS: [&str; 8] = [
    SOON[0],
    SOON[1],
    SOON[2],
    SOON[3],
    "--in-doubt-wait",
    "200ms",
    "--max-workers",
    "12",
];

/// Starts a run and waits until `messages` have been taken.
fn start_until(stage: &Stage, flags: &[&str], messages: u64) -> Run {
    let path = stage.lab.file("batch.mbox", stage.batch.bytes());
    let mut run = Run::start(&stage.lab, flags, Some(&path), None);
    Moment::Taken(messages).wait(&mut run, &stage.lab);
    run
}

fn again(stage: &Stage, flags: &[&str]) -> Ended {
    Run::start(&stage.lab, flags, Some(&stage.lab.path("batch.mbox")), None).wait()
}

/// The places of the rows with one of these statuses.
fn places(ended: &Ended, statuses: &[&str]) -> HashSet<usize> {
    let rows = ended.rows.iter().enumerate();
    rows.filter(|(_, row)| statuses.contains(&row.status.as_str()))
        .map(|(place, _)| place)
        .collect()
}

#[test]
fn a_signal_leaves_nobody_in_doubt_and_the_next_run_sends_to_the_others() {
    for seed in 0..4 {
        let stage = Stage::polite(seed, 200, "100ms");
        let mut left = 200;
        loop {
            let run = start_until(&stage, &FLAGS, fastrand::Rng::with_seed(seed).u64(0..100));
            run.terminate();
            let ended = run.wait();
            assert_eq!(places(&ended, &["in-doubt", "held"]), HashSet::new());
            let delivered = places(&ended, &["delivered"]);
            let taken = stage.taken_at(&stage.lab);
            for (place, taken) in taken.iter().enumerate() {
                assert_eq!(
                    *taken,
                    u32::from(delivered.contains(&place)),
                    "{seed}: {place}"
                );
            }
            left -= 50;
            assert!(matches!(ended.status, 0 | 75), "{}", ended.stderr);
            if left <= 0 || ended.status == 0 {
                break;
            }
        }
        let ended = again(&stage, &FLAGS);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        assert!(stage.taken_at(&stage.lab).iter().all(|taken| *taken == 1));
    }
}

#[test]
fn a_signal_waits_for_receivers_that_take_five_seconds_to_answer() {
    let stage = Stage::polite(5, 24, "5s");
    let mut run = start_until(&stage, &FLAGS, 0);
    // Some have got their last byte and have not been answered yet.
    until(&mut run, || sending(&stage) >= 4);
    run.terminate();
    let ended = run.wait();
    assert_eq!(ended.status, 75, "{}", ended.stderr);
    settle(&stage.lab);
    assert_eq!(places(&ended, &["in-doubt", "held"]), HashSet::new());
    let delivered = places(&ended, &["delivered"]);
    assert!(delivered.len() >= 4, "{}", ended.stderr);
    for (place, taken) in stage.taken_at(&stage.lab).iter().enumerate() {
        assert_eq!(*taken, u32::from(delivered.contains(&place)), "{place}");
    }
    let ended = Run::resume(&stage.lab, None).wait();
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    settle(&stage.lab);
    assert!(stage.taken_at(&stage.lab).iter().all(|taken| *taken == 1));
}

/// How many recipients are being sent to, as the job's ledger says.
fn sending(stage: &Stage) -> u64 {
    let job = jobs(&stage.lab).pop();
    job.map_or(0, |job| Snapshot::read(&job).unwrap().sending())
}

#[test]
fn a_second_signal_leaves_in_doubt_at_most_what_was_under_way_and_only_that_goes_out_twice() {
    for seed in 0..3 {
        let stage = Stage::polite(seed, 200, "400ms");
        let run = start_until(&stage, &FLAGS, 20);
        let ended = run.terminate_for_good();
        assert_eq!(ended.status, 75, "{}", ended.stderr);
        settle(&stage.lab);
        let (in_doubt, delivered) = (
            places(&ended, &["in-doubt"]),
            places(&ended, &["delivered"]),
        );
        assert!(!in_doubt.is_empty(), "{seed}");
        let first = stage.taken_at(&stage.lab);
        for (place, taken) in first.iter().enumerate() {
            let known = in_doubt.contains(&place) || delivered.contains(&place);
            assert!(*taken == 0 || known, "{seed}: {place}");
            assert!(
                *taken == 1 || !delivered.contains(&place),
                "{seed}: {place}"
            );
        }
        let ended = again(&stage, &FLAGS);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        for (place, taken) in stage.taken_at(&stage.lab).iter().enumerate() {
            let doubt = u32::from(in_doubt.contains(&place));
            let wanted = if doubt > 0 { first[place] + 1 } else { 1 };
            assert_eq!(*taken, wanted, "{seed}: {place}");
        }
    }
}

#[test]
fn a_receiver_that_never_answers_the_dot_in_time_gets_two_mails_at_most() {
    let stage = Stage::polite(1, 60, "1500ms");
    let flags = [&FLAGS[..], &["--dot-timeout", "300ms"]].concat();
    let ended = start_until(&stage, &flags, 0).wait();
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert_eq!(places(&ended, &["held"]).len(), stage.mails.len());
    settle(&stage.lab);
    assert!(stage.taken_at(&stage.lab).iter().all(|taken| *taken == 2));
    // Held mail is for a person: no later run touches it.
    let ended = again(&stage, &flags);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(stage.taken_at(&stage.lab).iter().all(|taken| *taken == 2));
}

#[test]
fn a_receiver_that_never_answers_the_dot_in_time_gets_one_mail_where_doubt_is_held() {
    let stage = Stage::polite(2, 60, "1500ms");
    let flags = [
        &FLAGS[..],
        &["--dot-timeout", "300ms", "--in-doubt", "hold"],
    ]
    .concat();
    let ended = start_until(&stage, &flags, 0).wait();
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert_eq!(places(&ended, &["held"]).len(), stage.mails.len());
    settle(&stage.lab);
    assert!(stage.taken_at(&stage.lab).iter().all(|taken| *taken == 1));
}

#[test]
fn the_second_doubt_of_a_recipient_is_held_also_when_the_first_was_a_crash() {
    let stage = Stage::polite(3, 60, "1500ms");
    let flags = [&FLAGS[..], &["--dot-timeout", "60s"]].concat();
    let run = start_until(&stage, &flags, 10);
    assert!(run.kill());
    settle(&stage.lab);
    let first = stage.taken_at(&stage.lab);
    assert!(first.iter().any(|taken| *taken > 0));
    let flags = [&FLAGS[..], &["--dot-timeout", "300ms"]].concat();
    let ended = again(&stage, &flags);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert_eq!(places(&ended, &["held"]).len(), stage.mails.len());
    settle(&stage.lab);
    assert!(stage.taken_at(&stage.lab).iter().all(|taken| *taken == 2));
}
