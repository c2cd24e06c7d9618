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
/// Longer than mail is tried for.
const LONG_AGO_MS: i64 = 10 * 86_400_000;

/// The directory of the only job.
fn only_job(desk: &Desk) -> PathBuf {
    let jobs = desk.state.jobs().unwrap();
    assert_eq!(jobs.len(), 1);
    desk.state.job_dir(&jobs[0].id)
}

/// Changes a card as no program does.
fn change_card(desk: &Desk, change: impl FnOnce(&mut serde_json::Value)) {
    let path = only_job(desk).join("job.json");
    let mut card = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut card);
    fs::write(path, card.to_string()).unwrap();
}

/// The only job was made long ago.
fn age_job(desk: &Desk) {
    change_card(desk, |card| {
        card["created_ms"] = (card["created_ms"].as_i64().unwrap() - LONG_AGO_MS).into();
    });
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

#[test]
fn nothing_is_sent_under_a_name_while_a_damaged_card_may_have_it() {
    let (desk, net) = (Desk::new(), Net::new(&[]));
    letter(&desk, "letter.eml", &["one@a.test"]);
    let named = ["letter.eml", "--job", "news"];
    net.send(&desk, &named).assert(0);
    let card = only_job(&desk).join("job.json");
    let whole = fs::read(&card).unwrap();
    let id = desk.state.jobs().unwrap()[0].id.clone();
    fs::write(&card, "{").unwrap();
    net.send(&desk, &named).assert(65).assert_err(&[
        &id,
        "its card cannot be used",
        "hint: restore ",
        "job.json",
    ]);
    assert_eq!(net.taken(), ["one@a.test"], "nobody got it twice");
    // Of a later version of this program: what its name is can be told.
    fs::write(&card, &whole).unwrap();
    change_card(&desk, |card| card["version"] = 99.into());
    net.send(&desk, &named).assert(65);
    assert_eq!(net.taken().len(), 1);
    net.send(&desk, &["letter.eml", "--job", "other"]).assert(0);
    assert_eq!(net.taken().len(), 2);
    fs::write(&card, &whole).unwrap();
    net.send(&desk, &named).assert(0);
    assert_eq!(net.taken().len(), 2, "it is known again who has got it");
}

#[test]
fn new_mail_of_a_job_that_never_was_finished_has_all_its_time() {
    let net = Net::new(&["domain=c.test stage=rcpt first=2 reply=450"]);
    let desk = Desk::new();
    letter(&desk, "1.eml", &["old@c.test"]);
    let named = ["--job", "news"];
    net.send(&desk, &[&["1.eml"], &named[..], &NO_RETRY].concat())
        .assert(75);
    age_job(&desk);
    let ledger = rusqlite::Connection::open(only_job(&desk).join("ledger.sqlite")).unwrap();
    let sql =
        "UPDATE recipient SET first_attempt = first_attempt - ?1, last_attempt = last_attempt - ?1";
    assert_eq!(ledger.execute(sql, [LONG_AGO_MS]).unwrap(), 1);
    drop(ledger);
    letter(&desk, "2.eml", &["new@c.test"]);
    net.send(&desk, &[&["2.eml"], &named[..], &SOON].concat())
        .assert(1);
    // The new one was deferred first, and tried again.
    assert_eq!(net.taken(), ["new@c.test"]);
    assert_eq!(desk.fate("news", "old@c.test"), "expired");
    assert_eq!(net.sink.stats().refusals, 2, "it was not tried again");
    // A person wants it tried again, as if it were new.
    desk.run(&["retry", "news", "--refused"]).assert(0);
    desk.run(&["resume", "news"]).assert(0);
    assert_eq!(net.taken(), ["new@c.test", "old@c.test"]);
}

#[test]
fn mail_that_came_yesterday_to_a_job_of_long_ago_is_no_older_than_that() {
    let net = Net::new(&["domain=c.test stage=rcpt first=2 reply=450"]);
    let desk = Desk::new();
    letter(&desk, "1.eml", &["one@c.test"]);
    let named = ["1.eml", "--job", "news"];
    net.send(&desk, &[&named[..], &NO_RETRY].concat())
        .assert(75);
    age_job(&desk);
    net.send(&desk, &[&named[..], &SOON].concat()).assert(0);
    assert_eq!(net.taken(), ["one@c.test"]);
}

#[test]
fn a_run_on_a_damaged_ledger_says_what_every_command_says() {
    let (desk, net) = (
        Desk::new(),
        Net::new(&["domain=c.test stage=rcpt first=1 reply=450"]),
    );
    letter(&desk, "1.eml", &["one@c.test"]);
    net.send(&desk, &[&["1.eml"], &NO_RETRY[..]].concat())
        .assert(75);
    let ledger = rusqlite::Connection::open(only_job(&desk).join("ledger.sqlite")).unwrap();
    let sql = "UPDATE recipient SET status = 'nonsense'";
    assert_eq!(ledger.execute(sql, []).unwrap(), 1);
    drop(ledger);
    let said = desk.run(&["resume"]);
    said.assert(65).assert_err(&["the row of recipient 0"]);
    assert!(!said.err.contains("make room"), "{}", said.err);
}
