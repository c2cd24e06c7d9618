//! Folding: it changes nothing that anybody can see, wherever a crash comes.

use super::*;
use std::fs;
use std::path::PathBuf;

/// A copy of all segments that are there.
fn copies(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = segments(directory).unwrap().into_iter();
    paths
        .map(|number| segment_path(directory, number))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn put_back(copies: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in copies {
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn folding_twice_is_folding_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    let mut writer = Writer::new(ledger.journal());
    for (no, history) in (0..).zip(["I", "BI", "B", "F", "FX", "IF", "D"]) {
        for (at, letter) in (1..).zip(history.chars()) {
            write(&mut writer, no, step_of(letter), at);
        }
    }
    drop(writer);
    let before = all(directory.path());
    let copies = copies(directory.path());
    ledger.finish().unwrap();
    for _ in 0..3 {
        assert!(segments(directory.path()).unwrap().is_empty());
        assert_eq!(all(directory.path()), before);
        // A crash between the commit and the deletion.
        put_back(&copies);
        assert_eq!(all(directory.path()), before);
        fold::fold(directory.path(), &[1], &Everybody).unwrap();
    }
    put_back(&copies);
    let ledger = open(directory.path());
    assert_eq!((ledger.segment, ledger.sealed.len()), (2, 0));
    drop(ledger);
    // The interrupted ones are in doubt now in the database as well, and not for the second time.
    assert_eq!(all(directory.path()), before);
}

#[test]
fn a_database_that_was_not_finished_is_built_again() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(directory.path());
    write(&mut Writer::new(ledger.journal()), 0, step_of('D'), 1);
    drop(ledger);
    let before = all(directory.path());
    fs::write(fold::building_path(directory.path()), "half a database").unwrap();
    let mut ledger = open(directory.path());
    ledger.finish().unwrap();
    assert_eq!(all(directory.path()), before);
    let names = fs::read_dir(directory.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ledger.sqlite"]);
}

#[test]
fn the_first_attempt_is_kept_through_folds_and_runs() {
    let directory = tempfile::tempdir().unwrap();
    for run in 1..=4 {
        let mut ledger = open(directory.path());
        let mut writer = Writer::new(ledger.journal());
        write(&mut writer, 0, step_of('F'), run * 1000);
        write(&mut writer, 1, step_of('I'), run * 1000 + 1);
        write(
            &mut writer,
            2,
            step_of(if run == 1 { 'F' } else { 'Q' }),
            run * 1000 + 2,
        );
        drop(writer);
        if run % 2 == 0 {
            ledger.finish().unwrap();
        }
    }
    let seen = all(directory.path());
    let times = |at: usize| {
        let outcome: &Outcome = &seen[at].1;
        (outcome.first_at.unwrap(), outcome.last.as_ref().unwrap().at)
    };
    assert_eq!(times(0), (1000, 4000));
    assert_eq!(times(1), (1001, 4001));
    assert_eq!(times(2), (1002, 1002));
    assert_eq!(seen[2].1.status, Status::Queued);
}

#[test]
fn an_open_intent_is_shown_as_being_sent_and_ends_with_its_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    let mut writer = Writer::new(ledger.journal());
    write(&mut writer, 0, step_of('F'), 1);
    write(&mut writer, 0, Step::Intent, 2);
    for folded in [false, true] {
        if folded {
            ledger.rotate().unwrap();
            ledger.fold().unwrap();
        }
        let snapshot = Snapshot::read(directory.path()).unwrap();
        assert_eq!(
            (snapshot.sending(), snapshot.is_sending(RecipientNo(0))),
            (1, true)
        );
        assert_eq!(
            snapshot.outcome(RecipientNo(0)).unwrap().status,
            Status::InDoubt
        );
    }
    write(&mut writer, 0, step_of('D'), 3);
    drop(writer);
    ledger.finish().unwrap();
    let snapshot = Snapshot::read(directory.path()).unwrap();
    assert_eq!(snapshot.sending(), 0);
    let outcome = snapshot.outcome(RecipientNo(0)).unwrap();
    assert_eq!(
        (outcome.status, outcome.first_at),
        (Status::Delivered, Some(1))
    );
    assert!(!outcome.last.unwrap().passage.in_doubt);
}

/// A random run of a job, the same in two directories: in one nothing is ever folded.
fn run(rng: &mut fastrand::Rng, clock: &mut i64, plain: &Path, folding: &Path) {
    let options = Options {
        segment_bytes: 4000,
        queues: ["general", "big", "late"][..rng.usize(1..=3)]
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        hold_in_doubt: rng.u8(..8) == 0,
        ..Options::default()
    };
    let mut ledgers = [plain, folding].map(|directory| open_with(directory, options.clone()));
    let [a, b] = &ledgers;
    assert_eq!(a.counts(), b.counts());
    for no in (0..a.len() as u32).map(RecipientNo) {
        assert_eq!(a.standing(no), b.standing(no));
    }
    let mut writers = [Writer::new(a.journal()), Writer::new(b.journal())];
    for _ in 0..rng.usize(..120) {
        *clock += rng.i64(0..3);
        let (no, step) = (rng.u32(..40), rng.choice(STEPS).unwrap().1);
        let queue = QueueId(rng.u16(..3));
        for writer in &mut writers {
            if let Step::Ends(status) = step {
                let mut attempt = attempt(no, status, *clock);
                attempt.via.queue = queue;
                writer.attempt(&attempt);
            } else {
                write(writer, no, step, *clock);
            }
        }
        if rng.u8(..30) == 0 {
            writers
                .iter_mut()
                .for_each(|writer| writer.flush().unwrap());
            crashing_fold(rng, &mut ledgers[1], folding);
        }
    }
    drop(writers);
    if rng.bool() {
        let copies = copies(folding);
        ledgers[1].finish().unwrap();
        let back = rng.usize(..=copies.len());
        put_back(&copies[copies.len() - back..]);
    }
}

fn crashing_fold(rng: &mut fastrand::Rng, ledger: &mut Ledger, directory: &Path) {
    let copies = copies(directory);
    ledger.tick_at(Instant::now() + SYNC_EVERY * 2).unwrap();
    if rng.bool() {
        put_back(&copies[..copies.len() - 1]);
    }
    if rng.bool() {
        fs::write(fold::building_path(directory), "left behind").unwrap();
    }
}

#[test]
fn nothing_that_is_seen_depends_on_folds_or_on_crashes_in_them() {
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [plain, folding] = [directories[0].path(), directories[1].path()];
        let mut clock = 1_700_000_000_000;
        for number in 0..6 {
            run(&mut rng, &mut clock, plain, folding);
            let named = |directory| {
                let snapshot = Snapshot::read(directory).unwrap();
                let seen = all(directory).into_iter().map(|(recipient, mut outcome)| {
                    let name = outcome.last.as_mut().map(|last| {
                        let queue = std::mem::replace(&mut last.via.queue, QueueId(0));
                        snapshot.queue_name(queue).to_owned()
                    });
                    (recipient, outcome, name, snapshot.is_sending(recipient))
                });
                seen.collect::<Vec<_>>()
            };
            assert_eq!(named(plain), named(folding), "seed {seed}, run {number}");
        }
    }
}

#[test]
fn a_fold_waits_for_a_reader_another_time_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(directory.path());
    let mut writer = Writer::new(ledger.journal());
    write(&mut writer, 0, step_of('F'), 1);
    writer.flush().unwrap();
    ledger.rotate().unwrap();
    ledger.fold().unwrap();
    write(&mut writer, 0, step_of('D'), 2);
    drop(writer);
    ledger.rotate().unwrap();
    let reader = Snapshot::read(directory.path()).unwrap();
    let now = Instant::now() + SYNC_EVERY * 2;
    ledger.tick_at(now).unwrap();
    assert_eq!(ledger.sealed.len(), 1, "the reader was not waited for");
    assert_eq!(all(directory.path())[0].1.status, Status::Delivered);
    ledger.finish().unwrap();
    assert_eq!(segments(directory.path()).unwrap().len(), 2);
    drop(reader);
    let mut ledger = open(directory.path());
    assert_eq!(ledger.standing(RecipientNo(0)).status, Status::Delivered);
    ledger.finish().unwrap();
    assert!(segments(directory.path()).unwrap().is_empty());
    assert_eq!(all(directory.path())[0].1.status, Status::Delivered);
}

#[test]
fn twenty_thousand_recipients_in_small_segments() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 512 * 1024,
        ..Options::default()
    };
    let mut ledger = open_with(directory.path(), options);
    ledger.admit(RecipientNo(19_999));
    let mut writer = Writer::new(ledger.journal());
    let mut now = Instant::now();
    for no in (0..20_000u32).map(|n| n * 7919 % 20_000) {
        write(&mut writer, no, Step::Intent, 1);
        writer.attempt(&attempt(no, Status::Delivered, i64::from(no)));
        ledger.note(RecipientNo(no), Status::Delivered);
        if no % 1000 == 0 {
            now += SYNC_EVERY;
            ledger.tick_at(now).unwrap();
        }
    }
    drop(writer);
    assert!(
        ledger.segment > 4 && ledger.sealed.is_empty(),
        "nothing was folded on the way"
    );
    ledger.finish().unwrap();
    assert_eq!(ledger.unsettled(), 0);
    let mut outcomes = ledger.outcomes().unwrap();
    for no in 0..20_000 {
        let last = outcomes.outcome(RecipientNo(no)).last.unwrap();
        assert_eq!(last, attempt(no, Status::Delivered, i64::from(no)));
    }
    assert!(outcomes.failure().is_none());
    assert_eq!(open(directory.path()).count(Status::Delivered), 20_000);
}
