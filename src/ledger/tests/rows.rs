//! The view `report` of the database against the report that this program writes.

use super::*;
use crate::report::rows::{COLUMNS, Report, Row};
use rusqlite::Connection;

fn view(directory: &Path) -> Vec<Vec<String>> {
    let connection = Connection::open(directory.join("ledger.sqlite")).unwrap();
    let mut statement = connection.prepare("SELECT * FROM report").unwrap();
    assert!(statement.column_names().eq(COLUMNS));
    let rows = statement.query_map([], |row| {
        (0..COLUMNS.len()).map(|column| row.get(column)).collect()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn report(directory: &Path) -> Vec<Vec<String>> {
    let snapshot = Snapshot::read(directory).unwrap();
    let mut report = Report::begin(Vec::new()).unwrap();
    for (recipient, outcome) in all(directory) {
        let (message, text) = Everybody.person(recipient).unwrap();
        let queue = outcome
            .last
            .as_ref()
            .map_or("", |last| snapshot.queue_name(last.via.queue));
        let row = Row {
            message: message.ordinal(),
            recipient: &text,
            outcome: &outcome,
            queue,
        };
        report.row(&row).unwrap();
    }
    let bytes = report.finish().unwrap();
    let mut reader = csv::Reader::from_reader(&bytes[..]);
    let rows = reader
        .records()
        .map(|row| row.unwrap().iter().map(str::to_owned).collect());
    rows.collect()
}

#[test]
fn the_view_has_the_rows_of_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        queues: vec!["general".into(), "big, \"bad\" one".into()],
        ..Options::default()
    };
    let mut ledger = open_with(directory.path(), options);
    let mut writer = Writer::new(ledger.journal());
    for (no, status) in (0..).zip(Status::ALL) {
        // A millisecond of each length, before and after the epoch.
        let mut attempt = attempt(
            no,
            status,
            [1_700_000_000_123, -1, 0, 7, 1_700_000_000_500, 999][no as usize % 6],
        );
        attempt.via.queue = QueueId((no % 2) as u16);
        attempt.verdict.text = "no, \"such\" user\u{2014}'; --".into();
        writer.attempt(&attempt);
    }
    let none = Attempt {
        via: Via::none(QueueId(0)),
        ..attempt(20, Status::Refused, 5)
    };
    writer.attempt(&none);
    writer.left(9, Status::Expired, &[RecipientNo(30), RecipientNo(20)]);
    write(&mut writer, 31, Step::Intent, 8);
    drop(writer);
    ledger.finish().unwrap();
    // The next run finds one of them interrupted.
    let mut ledger = open(directory.path());
    assert_eq!(view(directory.path()).last().unwrap()[2], "sending");
    ledger.finish().unwrap();
    let rows = view(directory.path());
    assert_eq!(rows.len(), Status::ALL.len() + 3);
    assert_eq!(rows, report(directory.path()));
}

#[test]
fn the_schema_explains_itself() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).finish().unwrap();
    let connection = Connection::open(directory.path().join("ledger.sqlite")).unwrap();
    let sql: String = connection
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE name = 'recipient'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(
        sql.contains("-- the recipient's number in the batch, from 0"),
        "{sql}"
    );
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

#[test]
fn every_queue_keeps_its_name_however_many_there_are_and_whatever_its_length() {
    let mut queues: Vec<String> = (0..1000).map(|n| format!("queue-{n}")).collect();
    queues.push("q".repeat(3000));
    assert!(record::are_kept(queues.iter().map(String::as_str)));
    let count = queues.len() as u32;
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        queues: queues.clone(),
        ..Options::default()
    };
    let mut ledger = open_with(directory.path(), options);
    let mut writer = Writer::new(ledger.journal());
    for no in 0..count {
        let mut attempt = attempt(no, Status::Delivered, 1);
        attempt.via.queue = QueueId(no as u16);
        writer.attempt(&attempt);
    }
    drop(writer);
    let assert_named = || {
        let snapshot = Snapshot::read(directory.path()).unwrap();
        let mut names = Vec::new();
        let name = |outcome: &Outcome| {
            snapshot
                .queue_name(outcome.last.as_ref().unwrap().via.queue)
                .to_owned()
        };
        snapshot
            .each(|_, outcome| names.push(name(outcome)))
            .unwrap();
        assert_eq!(names, queues);
    };
    assert_named();
    ledger.finish().unwrap();
    assert_named();
    let long = ["x".repeat(60_000), "y".repeat(6000)];
    assert!(!record::are_kept(long.iter().map(String::as_str)));
}

#[test]
fn a_queue_has_the_name_that_it_had_at_the_time_in_every_segment_and_after_the_fold() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    let journal = ledger.journal();
    let mut writer = Writer::new(ledger.journal());
    let mut no = 0;
    // Equal ways, but for what the queue is called.
    let mut attempt_of = |queue: u16, writer: &mut Writer| {
        let mut attempt = attempt(no, Status::Delivered, 0);
        attempt.via = Via::none(QueueId(queue));
        no += 1;
        writer.attempt(&attempt);
        writer.flush().unwrap();
    };
    attempt_of(0, &mut writer);
    journal.name_queue(QueueId(7), "a.test").unwrap();
    attempt_of(7, &mut writer);
    journal.name_queue(QueueId(7), "b.test").unwrap();
    journal.name_queue(QueueId(5), "c.test").unwrap();
    attempt_of(7, &mut writer);
    ledger.rotate().unwrap();
    attempt_of(7, &mut writer);
    attempt_of(5, &mut writer);
    journal.name_queue(QueueId(7), "a.test").unwrap();
    attempt_of(7, &mut writer);
    attempt_of(0, &mut writer);
    let expected = [
        "general", "a.test", "b.test", "b.test", "c.test", "a.test", "general",
    ];
    let column = COLUMNS.iter().position(|name| *name == "queue").unwrap();
    let queues = |rows: Vec<Vec<String>>| -> Vec<String> {
        rows.into_iter().map(|mut row| row.remove(column)).collect()
    };
    assert_eq!(queues(report(directory.path())), expected);
    drop((writer, ledger));
    // As after kill -9: the next run folds what this one left.
    let mut ledger = open(directory.path());
    assert_eq!(queues(report(directory.path())), expected);
    ledger.finish().unwrap();
    assert_eq!(queues(view(directory.path())), expected);
    assert_eq!(queues(report(directory.path())), expected);
}
