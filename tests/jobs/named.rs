//! `mailer send`: which job it goes on with, and how old the mail of that job is, against receivers in the test's own process.

use std::fs;
use std::path::PathBuf;

use mailer::job::StateDir;

use crate::made::Desk;
use crate::resume::{Net, letter};

/// Nothing is tried again in this run.
const NO_RETRY: [&str; 4] = ["--retry-min", "1h", "--run-for", "1s"];
/// What is deferred is tried again at once.
const SOON: [&str; 4] = ["--retry-min", "100ms", "--retry-max", "1s"];

/// The directory of the only job.
fn only_job(desk: &Desk) -> PathBuf {
    let jobs = desk.state.jobs().unwrap();
    assert_eq!(jobs.len(), 1);
    desk.state.job_dir(&jobs[0].id)
}

#[test]
fn a_state_directory_below_a_symbolic_link_is_read_after_its_first_fold() {
    let net = Net::new(&["domain=c.test stage=rcpt first=1 reply=450"]);
    let mut desk = Desk::new();
    fs::create_dir(desk.path("real")).unwrap();
    std::os::unix::fs::symlink("real", desk.path("link")).unwrap();
    desk.state = StateDir::open(&desk.path("link/state")).unwrap();
    letter(&desk, "letter.eml", &["one@a.test", "two@c.test"]);
    net.send(&desk, &[&["letter.eml"], &NO_RETRY[..]].concat())
        .assert(75);
    assert!(only_job(&desk).join("ledger.sqlite").exists());
    let id = desk.state.jobs().unwrap()[0].id.clone();
    assert_eq!(desk.fate(&id, "two@c.test"), "deferred");
    net.send(&desk, &[&["letter.eml"], &SOON[..]].concat())
        .assert(0);
    assert_eq!(net.taken(), ["one@a.test", "two@c.test"]);
    assert_eq!(desk.fate(&id, "two@c.test"), "delivered");
}
