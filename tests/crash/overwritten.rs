//! Another batch in the place of the one whose run was killed: nobody gets wrong mail, and what was read is not forgotten.

use std::path::Path;

use crate::knife::Moment;
use crate::lab::SOON;
use crate::run::{Ended, Run, jobs, settle};
use crate::stage::Stage;

const MESSAGES: usize = 300;

/// How a batch comes into another one's place.
#[derive(Clone, Copy, Debug)]
enum How {
    /// The file is written over.
    InPlace,
    /// Another file gets its name.
    Renamed,
}

fn put(path: &Path, bytes: &[u8], how: How) {
    match how {
        How::InPlace => std::fs::write(path, bytes).unwrap(),
        How::Renamed => {
            let beside = path.with_extension("new");
            std::fs::write(&beside, bytes).unwrap();
            std::fs::rename(&beside, path).unwrap();
        }
    }
}

fn start(stage: &Stage, path: &Path, flags: &[&str]) -> Run {
    let own = ["--in-doubt-wait", "200ms", "--max-workers", "8"];
    let flags = [&SOON[..], &own, flags].concat();
    Run::start(&stage.lab, &flags, Some(path), None)
}

/// Kills a run after some messages; how often each mail was taken by then.
fn crash(stage: &Stage, path: &Path, flags: &[&str]) -> Vec<u32> {
    let mut run = start(stage, path, flags);
    Moment::Taken(60).wait(&mut run, &stage.lab);
    assert!(run.kill());
    settle(&stage.lab);
    stage.taken_at(&stage.lab)
}

fn send(stage: &Stage, path: &Path, flags: &[&str]) -> Ended {
    let ended = start(stage, path, flags).wait();
    settle(&stage.lab);
    ended
}

#[test]
fn another_batch_is_another_job_and_the_first_goes_on_when_its_file_is_back() {
    for how in [How::InPlace, How::Renamed] {
        let stage = Stage::polite(1, MESSAGES, "20ms");
        let other = Stage::polite(2, MESSAGES, "20ms");
        let path = stage.lab.file("batch.mbox", stage.batch.bytes());
        let before = crash(&stage, &path, &[]);
        put(&path, other.batch.bytes(), how);
        let ended = send(&stage, &path, &[]);
        assert_eq!(ended.status, 0, "{how:?}: {}", ended.stderr);
        assert_eq!(jobs(&stage.lab).len(), 2, "{how:?}");
        assert!(other.taken_at(&stage.lab).iter().all(|taken| *taken == 1));
        assert_eq!(stage.taken_at(&stage.lab), before, "{how:?}");
        put(&path, stage.batch.bytes(), how);
        let ended = send(&stage, &path, &[]);
        assert_eq!(ended.status, 0, "{how:?}: {}", ended.stderr);
        assert_eq!(jobs(&stage.lab).len(), 2, "{how:?}");
        assert!(other.taken_at(&stage.lab).iter().all(|taken| *taken == 1));
        let after = stage.taken_at(&stage.lab);
        let twice = after.iter().filter(|taken| **taken == 2).count();
        assert!(after.iter().all(|taken| matches!(taken, 1 | 2)), "{how:?}");
        assert!(twice <= 8, "{how:?}: {twice} of eight workers");
    }
}

#[test]
fn what_a_named_job_knows_of_an_overwritten_file_is_invalid_and_the_new_mail_is_sent() {
    for how in [How::InPlace, How::Renamed] {
        let stage = Stage::polite(3, MESSAGES, "20ms");
        let other = Stage::polite(4, MESSAGES, "20ms");
        let path = stage.lab.file("batch.mbox", stage.batch.bytes());
        let named = ["--job", "news"];
        let before = crash(&stage, &path, &named);
        put(&path, other.batch.bytes(), how);
        let ended = send(&stage, &path, &named);
        assert_eq!(ended.status, 1, "{how:?}: {}", ended.stderr);
        assert_eq!(jobs(&stage.lab).len(), 1, "{how:?}");
        assert!(other.taken_at(&stage.lab).iter().all(|taken| *taken == 1));
        // Their bytes are gone: nobody gets the old mail any more, and least of all the new one in its place.
        assert_eq!(stage.taken_at(&stage.lab), before, "{how:?}");
        let count = |status: &str| ended.rows.iter().filter(|row| row.status == status).count();
        let delivered = before.iter().filter(|taken| **taken > 0).count();
        let known = ended.rows.len() - other.mails.len();
        assert_eq!(
            count("delivered") + count("invalid"),
            ended.rows.len(),
            "{how:?}"
        );
        // Those in doubt that were taken are invalid now, too: eight workers had one each at most.
        let sure = count("delivered") - other.mails.len();
        assert!(sure <= delivered && delivered <= sure + 8, "{how:?}");
        assert!(known > delivered, "{how:?}");
    }
}
