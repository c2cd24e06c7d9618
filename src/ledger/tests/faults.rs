//! Faults of our own machine: full disks, failing syncs, directories that cannot be written or vanish.

use super::*;
use std::fs::{self, File};

fn device(path: &str) -> File {
    File::options().append(true).open(path).unwrap()
}

#[test]
fn a_journal_on_a_full_disk_is_broken_for_good() {
    let journal = Arc::new(Journal::new(device("/dev/full"), 0, false));
    let mut writer = Writer::new(Arc::clone(&journal));
    writer.attempt(&attempt(0, Status::Delivered, 1));
    assert!(!writer.is_empty());
    let error = writer.flush().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(journal.is_broken() && writer.is_empty());
    // Room that comes back changes nothing: who was told of the failure counts on it.
    let directory = tempfile::tempdir().unwrap();
    let _ = journal.rotate(create_segment(directory.path(), 1, |_| Ok(())).unwrap(), 0);
    writer
        .intend(1, &via(0), [RecipientNo(0)].into_iter())
        .unwrap_err();
    journal.append(b"x").unwrap_err();
    journal.sync().unwrap_err();
    assert_eq!(fs::read(segment_path(directory.path(), 1)).unwrap(), b"");
}

#[test]
fn a_sync_that_fails_breaks_the_journal() {
    // A device takes everything and cannot be synced.
    for sync_each in [false, true] {
        let journal = Arc::new(Journal::new(device("/dev/null"), 0, sync_each));
        let mut writer = Writer::new(Arc::clone(&journal));
        let written = writer.intend(1, &via(0), [RecipientNo(0)].into_iter());
        assert_eq!(written.is_err(), sync_each);
        journal.sync().unwrap_err();
        assert!(journal.is_broken());
        writer.attempt(&attempt(0, Status::Delivered, 1));
        writer.flush().unwrap_err();
    }
}

#[test]
fn nothing_is_appended_to_a_journal_that_is_folded() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    let journal = ledger.journal();
    ledger.finish().unwrap();
    journal.append(b"x").unwrap_err();
    assert!(!journal.is_broken());
    ledger.tick_at(Instant::now() + SYNC_EVERY * 2).unwrap();
    ledger.finish().unwrap();
}

#[test]
fn a_ledger_that_cannot_be_made_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for place in [&file, &directory.path().join("none"), Path::new("/proc")] {
        let error = Ledger::open(place, Options::default(), Arc::new(Everybody)).unwrap_err();
        assert!(
            error.to_string().contains(place.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_directory_that_vanishes_is_seen_within_a_tick() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    fs::remove_dir_all(directory.path()).unwrap();
    let error = ledger.tick_at(Instant::now() + SYNC_EVERY * 2).unwrap_err();
    assert!(matches!(error, LedgerError::Io(..)), "{error}");
}

#[test]
fn a_fold_that_fails_leaves_the_journal_and_the_report_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    ledger.admit(RecipientNo(1));
    let mut writer = Writer::new(ledger.journal());
    write(&mut writer, 0, step_of('D'), 1);
    ledger.note(RecipientNo(0), Status::Delivered);
    ledger.leave(RecipientNo(1), Status::Queued);
    drop(writer);
    // Where the database should be built stands something that cannot be removed.
    let building = fold::building_path(directory.path());
    fs::create_dir(&building).unwrap();
    ledger.finish().unwrap_err();
    let mut outcomes = ledger.outcomes().unwrap();
    let told = outcomes.outcome(RecipientNo(0));
    assert_eq!(told.last, Some(attempt(0, Status::Delivered, 1)));
    assert_eq!(outcomes.outcome(RecipientNo(1)), Outcome::QUEUED);
    fs::remove_dir(&building).unwrap();
    ledger.finish().unwrap();
    assert_eq!(all(directory.path())[0].1, told);
}

#[test]
fn what_could_not_be_recorded_costs_details_and_no_status() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    ledger.admit(RecipientNo(2));
    let mut writer = Writer::new(ledger.journal());
    write(&mut writer, 0, step_of('F'), 1);
    write(&mut writer, 1, step_of('F'), 1);
    writer.flush().unwrap();
    // These records are lost; the engine says so and goes on to its end.
    ledger.note(RecipientNo(0), Status::Delivered);
    ledger.leave(RecipientNo(1), Status::Expired);
    ledger.note(RecipientNo(2), Status::Delivered);
    ledger.finish().unwrap();
    let mut outcomes = ledger.outcomes().unwrap();
    let mut outcome = |no| outcomes.outcome(RecipientNo(no));
    assert_eq!(
        (outcome(0).status, outcome(0).last),
        (Status::Delivered, None)
    );
    assert_eq!(
        (outcome(1).status, outcome(1).last.is_some()),
        (Status::Expired, true)
    );
    assert_eq!(
        (outcome(2).status, outcome(2).last),
        (Status::Delivered, None)
    );
}

#[test]
fn a_journal_cut_at_any_byte_is_recovered_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(directory.path());
    let mut writer = Writer::new(ledger.journal());
    let path = segment_path(directory.path(), 1);
    let mut ends = Vec::new();
    for (no, letter) in (0..).zip("DRIF".chars()) {
        write(&mut writer, no, step_of(letter), 1);
        writer.flush().unwrap();
        ends.push(fs::read(&path).unwrap().len());
    }
    drop((writer, ledger));
    let whole = fs::read(&path).unwrap();
    let statuses = [
        Status::Delivered,
        Status::Refused,
        Status::InDoubt,
        Status::Deferred,
    ];
    for end in 0..=whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let ledger = open(directory.path());
        let known = ends.iter().filter(|each| **each <= end).count();
        assert_eq!(ledger.len(), known, "cut at {end}");
        for (no, status) in (0..).zip(&statuses[..known]) {
            assert_eq!(ledger.standing(RecipientNo(no)).status, *status);
        }
        drop(ledger);
        for number in segments(directory.path()).unwrap().into_iter().skip(1) {
            fs::remove_file(segment_path(directory.path(), number)).unwrap();
        }
    }
}

#[test]
fn a_row_that_was_changed_by_hand_to_nonsense_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    write(&mut Writer::new(ledger.journal()), 3, step_of('D'), 1);
    ledger.finish().unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("ledger.sqlite")).unwrap();
    connection
        .execute("UPDATE recipient SET status = 'gone'", [])
        .unwrap();
    drop(connection);
    let error =
        Ledger::open(directory.path(), Options::default(), Arc::new(Everybody)).unwrap_err();
    assert!(error.to_string().contains("recipient 3"), "{error}");
    assert!(
        Snapshot::read(directory.path())
            .unwrap()
            .outcome(RecipientNo(3))
            .is_err()
    );
    fs::write(
        directory.path().join("ledger.sqlite"),
        "no database at all, but long enough to be looked at",
    )
    .unwrap();
    assert!(Snapshot::read(directory.path()).is_err());
}

#[test]
fn a_database_that_is_a_link_is_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let (there, here) = (scratch.path().join("there"), scratch.path().join("here"));
    for directory in [&there, &here] {
        fs::create_dir(directory).unwrap();
    }
    let mut ledger = open(&there);
    write(&mut Writer::new(ledger.journal()), 0, step_of('D'), 1);
    ledger.finish().unwrap();
    std::os::unix::fs::symlink(there.join("ledger.sqlite"), here.join("ledger.sqlite")).unwrap();
    let error = Snapshot::read(&here).unwrap_err();
    assert!(matches!(error, LedgerError::Damaged(..)), "{error}");
    assert!(error.to_string().contains("no regular file"), "{error}");
    Snapshot::read(&there).unwrap();
}
