//! The same batch sent twice: at the same time, one run after another, within and after the guard, after a crash.

use crate::knife::Moment;
use crate::lab::SOON;
use crate::run::{Ended, Run, jobs, settle};
use crate::stage::Stage;

fn start(stage: &Stage, name: &str, flags: &[&str]) -> Run {
    // Written once: it must not change below a run that reads it.
    let mut path = stage.lab.path("batch.mbox");
    if !path.exists() {
        path = stage.lab.file("batch.mbox", stage.batch.bytes());
    }
    let soon = ["--in-doubt-wait", "200ms"];
    let flags = [&SOON[..], &soon, flags].concat();
    Run::named(&stage.lab, name, &flags, Some(&path), None)
}

fn send(stage: &Stage, flags: &[&str]) -> Ended {
    start(stage, "run", flags).wait()
}

/// Everybody's mail was taken so often.
#[track_caller]
fn assert_taken(stage: &Stage, times: u32) {
    settle(&stage.lab);
    let taken = stage.taken_at(&stage.lab);
    assert!(taken.iter().all(|taken| *taken == times), "{taken:?}");
}

#[test]
fn a_second_run_beside_the_first_sends_nothing_and_says_who_does() {
    let stage = Stage::polite(1, 100, "300ms");
    let mut first = start(&stage, "first", &[]);
    Moment::Taken(1).wait(&mut first, &stage.lab);
    let second = start(&stage, "second", &[]);
    let second = second.wait();
    assert_eq!(second.status, 75, "{}", second.stderr);
    let holder = format!("process {}", first.pid());
    assert!(second.stderr.contains(&holder), "{}", second.stderr);
    assert!(second.rows.is_empty());
    let first = first.wait();
    assert_eq!(first.status, 0, "{}", first.stderr);
    assert_taken(&stage, 1);
}

#[test]
fn of_two_runs_that_start_at_once_one_wins() {
    for seed in 0..5 {
        let stage = Stage::polite(seed, 60, "20ms");
        let [one, other] = ["one", "other"].map(|name| start(&stage, name, &[]));
        let (one, other) = (one.wait(), other.wait());
        let [winner, loser] = match one.rows.is_empty() {
            false => [one, other],
            true => [other, one],
        };
        assert_eq!(winner.status, 0, "{}", winner.stderr);
        // The loser may come so late that the winner is done.
        let late = loser.stderr.contains("nothing was sent");
        assert_eq!(loser.status, if late { 0 } else { 75 }, "{}", loser.stderr);
        assert!(loser.rows.is_empty());
        assert_eq!(jobs(&stage.lab).len(), 1);
        assert_taken(&stage, 1);
    }
}

#[test]
fn a_finished_batch_is_not_sent_again_within_the_guard_and_is_after_it() {
    let stage = Stage::polite(1, 60, "1ms");
    assert_eq!(send(&stage, &[]).status, 0);
    let again = send(&stage, &[]);
    assert_eq!(again.status, 0);
    assert!(
        again.stderr.contains("nothing was sent"),
        "{}",
        again.stderr
    );
    assert!(again.stderr.contains("--again"), "{}", again.stderr);
    assert_taken(&stage, 1);
    assert_eq!(send(&stage, &["--guard", "0s"]).status, 0);
    assert_taken(&stage, 2);
    assert_eq!(send(&stage, &["--again"]).status, 0);
    assert_taken(&stage, 3);
    assert_eq!(jobs(&stage.lab).len(), 3);
    assert_eq!(send(&stage, &[]).status, 0);
    assert_taken(&stage, 3);
}

#[test]
fn a_batch_that_is_not_sent_again_ends_with_the_status_of_its_job() {
    let stage = Stage::new(1, 120, 1);
    let first = send(&stage, &[]);
    assert_eq!(first.status, 1, "{}", first.stderr);
    let taken = stage.taken_at(&stage.lab);
    let again = send(&stage, &[]);
    assert_eq!(again.status, 1, "{}", again.stderr);
    assert!(
        again.stderr.contains("nothing was sent"),
        "{}",
        again.stderr
    );
    assert_eq!(stage.taken_at(&stage.lab), taken);
}

#[test]
fn after_a_crash_the_batch_goes_on_even_with_again_or_without_a_guard() {
    for (seed, flags) in [&["--again"][..], &["--guard", "0s"]]
        .into_iter()
        .enumerate()
    {
        let stage = Stage::polite(seed as u64, 200, "50ms");
        let mut run = start(&stage, "run", &["--max-workers", "4"]);
        Moment::Taken(40).wait(&mut run, &stage.lab);
        assert!(run.kill());
        settle(&stage.lab);
        let before = stage.taken_at(&stage.lab);
        let ended = send(&stage, flags);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        assert_eq!(jobs(&stage.lab).len(), 1);
        let twice = stage.taken_at(&stage.lab).into_iter().zip(before);
        let twice = twice.filter(|(taken, before)| {
            assert!(*taken >= 1 && taken - before <= 1);
            *taken == 2
        });
        // Four workers, a transaction each, of which a message to many is one for each of its domains.
        assert!(twice.count() <= 4);
    }
}
