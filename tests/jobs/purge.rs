//! `mailer purge`: what is forgotten, and what never is.

use mailer::job::{Job, JobState};

use crate::made::{BATCH, Desk, latin, reading};

const DAY: i64 = 86_400_000;

fn ended(desk: &Desk, name: &str, state: JobState, days_ago: i64) -> Job {
    let batch = desk.file("batch.mbox", latin(BATCH));
    let mut job = desk.job(Some(name), &reading(&[&batch]));
    let at = jiff::Timestamp::now().as_millisecond() - days_ago * DAY;
    job.update(|card| {
        card.state = state;
        card.ended_ms = Some(at);
        card.finished_ms = (state != JobState::Open).then_some(at);
    })
    .unwrap();
    job
}

fn names(desk: &Desk) -> Vec<String> {
    let cards = desk.state.jobs().unwrap().into_iter();
    let mut names: Vec<String> = cards.filter_map(|card| card.name).collect();
    names.sort();
    names
}

#[test]
fn only_what_is_over_for_long_and_in_nobodys_hands_is_forgotten() {
    let desk = Desk::new();
    desk.run(&["purge", "--older-than", "30d"]).assert(0);
    drop(ended(&desk, "old", JobState::Finished, 31));
    drop(ended(&desk, "dropped", JobState::Cancelled, 40));
    drop(ended(&desk, "young", JobState::Finished, 29));
    drop(ended(&desk, "unfinished", JobState::Open, 50));
    let held = ended(&desk, "running", JobState::Finished, 60);
    let said = desk.run(&["purge", "--older-than", "30d", "--dry-run"]);
    said.assert(0)
        .assert_out(&["would forget ", " old, finished "]);
    assert_eq!(names(&desk).len(), 5);
    let said = desk.run(&["purge", "--older-than", "30d"]);
    said.assert(0)
        .assert_out(&[" old, finished ", " dropped, cancelled "])
        .assert_err(&["1 unfinished job of that age kept"]);
    assert_eq!(said.out.lines().count(), 2, "{}", said.out);
    assert_eq!(names(&desk), ["running", "unfinished", "young"]);
    drop(held);
    desk.run(&["purge", "--older-than", "30d"]).assert(0);
    assert_eq!(names(&desk), ["unfinished", "young"]);
    let left = std::fs::read_dir(desk.state.path().join("jobs")).unwrap();
    assert_eq!(left.count(), 2, "nothing is left of them");
    desk.run(&["purge"]).assert(64);
    desk.run(&["purge", "--older-than", "soon"]).assert(64);
}

#[test]
fn a_job_with_a_damaged_card_is_kept_and_told() {
    let desk = Desk::new();
    let job = ended(&desk, "old", JobState::Finished, 31);
    std::fs::write(job.dir().join("job.json"), "{").unwrap();
    let (dir, said) = (
        job.dir().to_owned(),
        desk.run(&["purge", "--older-than", "1d"]),
    );
    said.assert(0).assert_err(&["kept: ", job.id()]);
    assert!(dir.exists());
}
