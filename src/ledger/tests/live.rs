//! Looking at a ledger while threads write to it and its owner folds it.

use super::*;
use crossbeam_channel::{Receiver, bounded, unbounded};

const THREADS: u32 = 3;
const ROUNDS: u32 = 12;

/// Writes what becomes of every third recipient, in order, as many at a time as it is told; says how many these were.
fn work(journal: Arc<Journal>, thread: u32, more: &Receiver<u32>) -> u32 {
    let mut writer = Writer::new(journal);
    let mut count = 0;
    for _ in more.iter().flat_map(|more| 0..more) {
        let no = count * THREADS + thread;
        write(&mut writer, no, Step::Intent, i64::from(no));
        writer.attempt(&attempt(no, Status::Delivered, i64::from(no)));
        count += 1;
    }
    count
}

/// Each thread's recipients are known in the order of writing, and only the last of each may be on its way.
fn assert_prefixes(directory: &Path) {
    let snapshot = Snapshot::read(directory).unwrap();
    let mut next = [0; THREADS as usize];
    let mut on_their_way = [0; THREADS as usize];
    snapshot
        .each(|recipient, outcome| {
            let (thread, n) = (recipient.0 % THREADS, recipient.0 / THREADS);
            let thread = thread as usize;
            assert_eq!(n, next[thread], "one is missing before {recipient:?}");
            assert_eq!(
                on_their_way[thread], 0,
                "{recipient:?} is behind one on its way"
            );
            next[thread] += 1;
            match outcome.status {
                Status::Delivered => assert!(!snapshot.is_sending(recipient)),
                Status::InDoubt => {
                    assert!(snapshot.is_sending(recipient));
                    on_their_way[thread] += 1;
                }
                other => panic!("{recipient:?} is {other:?}"),
            }
        })
        .unwrap();
}

#[test]
fn a_snapshot_of_a_live_journal_is_one_of_a_moment() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 30_000,
        ..Options::default()
    };
    let mut ledger = open_with(directory.path(), options);
    let counts: Vec<u32> = std::thread::scope(|scope| {
        let (look, looks) = bounded(0);
        let seen = directory.path();
        scope.spawn(move || {
            // Until nobody wants to know any more.
            while look.send(()).is_ok() {
                assert_prefixes(seen);
            }
        });
        let start = |thread| {
            let (tell, told) = unbounded();
            let journal = ledger.journal();
            (tell, scope.spawn(move || work(journal, thread, &told)))
        };
        let (tell, workers): (Vec<_>, Vec<_>) = (0..THREADS).map(start).unzip();
        let mut now = Instant::now();
        for _ in 0..ROUNDS {
            tell.iter().for_each(|tell| tell.send(150).unwrap());
            // A snapshot may keep a fold from its commit: then it is tried again.
            now += FOLD_AGAIN;
            ledger.tick_at(now).unwrap();
            looks.recv().unwrap();
        }
        drop(tell);
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(ledger.segment > 2, "nothing was rotated");
    ledger.finish().unwrap();
    let seen = all(directory.path());
    assert_eq!(seen.len(), counts.iter().sum::<u32>() as usize);
    for (recipient, outcome) in seen {
        let RecipientNo(no) = recipient;
        assert!(no / THREADS < counts[(no % THREADS) as usize]);
        let delivered = attempt(no, Status::Delivered, i64::from(no));
        assert_eq!(outcome.last, Some(delivered));
    }
}

#[test]
fn a_job_that_nothing_was_recorded_of_has_an_empty_ledger() {
    let directory = tempfile::tempdir().unwrap();
    assert!(all(directory.path()).is_empty());
    let mut ledger = open(directory.path());
    assert!(all(directory.path()).is_empty());
    assert_eq!((ledger.run(), ledger.is_empty()), (1, true));
    ledger.finish().unwrap();
    assert!(all(directory.path()).is_empty());
    assert_eq!(Snapshot::read(directory.path()).unwrap().run(), 1);
}

#[test]
fn a_segment_has_its_name_only_once_it_says_which_run_it_belongs_to() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(directory.path());
    write(&mut Writer::new(ledger.journal()), 0, step_of('I'), 1);
    let is_under_way = || {
        Snapshot::read(directory.path())
            .unwrap()
            .is_sending(RecipientNo(0))
    };
    let mut frames = Vec::new();
    put_run(&mut frames, ledger.run(), &ledger.options);
    create_segment(directory.path(), 2, |_| {
        assert!(is_under_way() && segments(directory.path())? == [1]);
        Err(std::io::ErrorKind::StorageFull.into())
    })
    .unwrap_err();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    create_segment(directory.path(), 2, |file| {
        file.write_all(&frames[..20])?;
        assert!(is_under_way() && segments(directory.path())? == [1]);
        file.write_all(&frames[20..])
    })
    .unwrap();
    assert!(is_under_way());
    assert_eq!(segments(directory.path()).unwrap(), [1, 2]);
    create_segment(directory.path(), 2, |_| Ok(())).unwrap_err();
}

#[test]
fn what_a_crash_left_of_a_segment_that_was_begun_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let begun = segment_path(directory.path(), 1).with_extension("new");
    std::fs::write(&begun, "torn").unwrap();
    let mut ledger = open(directory.path());
    assert!(!begun.exists());
    write(&mut Writer::new(ledger.journal()), 0, step_of('D'), 1);
    ledger.finish().unwrap();
    assert_eq!(all(directory.path()).len(), 1);
}
