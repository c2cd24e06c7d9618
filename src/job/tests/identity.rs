//! What makes two batches the same: digests, stamps, and the guard.

use std::time::Duration;

use super::*;
use crate::batch::{Input, ReadOptions, inspect};

fn text_of(inputs: &[&PathBuf]) -> String {
    let inputs: Vec<PathBuf> = inputs.iter().map(|path| path.to_path_buf()).collect();
    digest(&inputs, None, "").unwrap().text
}

#[test]
fn a_digest_changes_with_each_byte_the_order_the_boundaries_and_the_flags() {
    let scratch = Scratch::new();
    let a = scratch.file("1", "a");
    let ab = scratch.file("2", "ab");
    let bc = scratch.file("3", "bc");
    let c = scratch.file("4", "c");
    let abc = scratch.file("5", "abc");
    let empty = scratch.file("6", "");
    let kinds = scratch.file("7", "abfic");
    let inputs = |paths: &[&PathBuf]| -> Vec<PathBuf> {
        paths.iter().map(|path| path.to_path_buf()).collect()
    };
    let with = |paths: &[&PathBuf], to: Option<&PathBuf>, numbering: &str| {
        digest(&inputs(paths), to.map(PathBuf::as_path), numbering)
            .unwrap()
            .text
    };
    let mut all = vec![
        with(&[&ab, &c], None, ""),
        with(&[&a, &bc], None, ""),
        with(&[&c, &ab], None, ""),
        with(&[&abc], None, ""),
        with(&[&kinds], None, ""),
        with(&[&abc, &empty], None, ""),
        with(&[&empty, &abc], None, ""),
        with(&[&ab], Some(&c), ""),
        with(&[&ab], Some(&bc), ""),
        with(&[&abc], None, "mboxo"),
        with(&[&abc], None, "fold"),
    ];
    let content: Vec<u8> = (0..64).collect();
    let path = scratch.dir.path().join("flips");
    for at in 0..content.len() {
        let mut flipped = content.clone();
        flipped[at] ^= 1;
        fs::write(&path, &flipped).unwrap();
        all.push(text_of(&[&path]));
    }
    let count = all.len();
    assert!(all.iter().all(|text| text.len() == 64));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
    let moved = scratch.file("elsewhere/8", "abc");
    assert_eq!(text_of(&[&moved]), text_of(&[&abc]), "a name is no content");
}

#[test]
fn a_maildir_is_digested_in_the_order_in_which_it_is_read() {
    let scratch = Scratch::new();
    let message = |n: u32| format!("From: a@b.test\nTo: c@d.test\nSubject: {n}\n\nx\n");
    for (name, n) in [("m/new/2", 1), ("m/cur/1:2,S", 2), ("m/new/10", 3)] {
        scratch.file(name, &message(n));
    }
    scratch.file("m/new/.hidden", "no message");
    let dir = scratch.dir.path().join("m");
    let mut read = Vec::new();
    inspect(
        vec![Input::from_arg(dir.as_os_str())],
        ReadOptions::new("Mon, 23 Nov 2026 16:00:00 +0000".into()),
        |message| read.push(PathBuf::from(message.source.to_string())),
    )
    .unwrap();
    assert_eq!(digest::maildir_files(&dir).unwrap(), read);
    let before = text_of(&[&dir]);
    fs::write(dir.join("new/.hidden"), "other").unwrap();
    assert_eq!(text_of(&[&dir]), before);
    fs::rename(dir.join("new/10"), dir.join("new/3")).unwrap();
    let after = text_of(&[&dir]);
    assert_ne!(after, before, "the messages have other numbers now");
    scratch.file("m/cur/9", "x");
    assert_ne!(text_of(&[&dir]), after);
}

#[test]
fn what_can_be_read_only_once_or_not_at_all_has_no_digest() {
    let scratch = Scratch::new();
    let fifo = scratch.dir.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
    let missing = scratch.dir.path().join("missing");
    let no_maildir = scratch.path();
    for path in [fifo, missing, PathBuf::from("/dev/null"), no_maildir] {
        let error = digest(std::slice::from_ref(&path), None, "").unwrap_err();
        assert!(error.to_string().contains(&*path.to_string_lossy()));
        let one = scratch.file("one", "x");
        digest(&[one], Some(&path), "").unwrap_err();
    }
}

/// The stamps of a file that was written `age` before it was stamped.
fn stamped(path: &Path, age: Duration) -> Vec<InputStamp> {
    let mut stamps = stamps(&[path.to_path_buf()], None).unwrap();
    let taken = stamps[0].ctime_ns.max(stamps[0].mtime_ns) + age.as_nanos() as i64;
    stamps[0].taken_ns = taken;
    stamps
}

#[test]
fn an_untouched_file_is_known_by_its_stamp_unless_it_was_young_when_it_was_read() {
    let quiet = Duration::from_millis(2001);
    let scratch = Scratch::new();
    let path = scratch.file("b.mbox", "one");
    let card = |age| NewCard {
        inputs: stamped(&path, age),
        numbering: "n".into(),
        ..of_batch(&"12".repeat(32))
    };
    let known = |numbering: &str| {
        let now = stamps(std::slice::from_ref(&path), None).unwrap();
        let found = scratch.state.by_stamps(&now, numbering).unwrap();
        found.map(|digest| digest.text)
    };
    scratch.job(1, card(Duration::from_millis(1999)));
    assert_eq!(known("n"), None, "it may have been written once more");
    scratch.job(2, card(quiet));
    assert_eq!(known("n"), Some("12".repeat(32)));
    assert_eq!(known("other"), None, "other numbers");
    let now = stamps(std::slice::from_ref(&path), Some(&path)).unwrap();
    assert!(scratch.state.by_stamps(&now, "n").unwrap().is_none());
    assert!(scratch.state.by_stamps(&[], "n").unwrap().is_none());
    // Same length, same inode, and the time put back.
    let before = path.metadata().unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(before)
        .unwrap();
    assert_eq!(known("n"), None);
    assert!(matches!(
        unchanged(&card(quiet).inputs),
        Ok(()) | Err(JobError::Changed { .. })
    ));
}

#[test]
fn any_difference_makes_another_stamp_and_a_directory_has_none() {
    let scratch = Scratch::new();
    let path = scratch.file("b.mbox", "one");
    let read = stamped(&path, Duration::from_secs(3)).remove(0);
    let now = stamp(&path).unwrap();
    assert!(now.holds_what(&read));
    let changes: [fn(&mut InputStamp); 8] = [
        |stamp| stamp.dev += 1,
        |stamp| stamp.ino += 1,
        |stamp| stamp.size += 1,
        |stamp| stamp.mtime_ns += 1,
        |stamp| stamp.ctime_ns += 1,
        |stamp| stamp.to_file = true,
        |stamp| stamp.regular = false,
        // A file from the future is young for ever.
        |stamp| stamp.taken_ns = stamp.mtime_ns - 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut other = read.clone();
        change(&mut other);
        assert!(!now.holds_what(&other), "change {number}");
    }
    let other_name = InputStamp {
        path: "/elsewhere".into(),
        ..read.clone()
    };
    assert!(now.holds_what(&other_name));
    let directory = stamp(scratch.dir.path()).unwrap();
    let read = InputStamp {
        taken_ns: i64::MAX,
        ..directory.clone()
    };
    assert!(!directory.holds_what(&read));
}

#[test]
fn files_that_change_after_their_stamps_are_noticed() {
    let scratch = Scratch::new();
    let path = scratch.file("b.mbox", "one");
    let before = stamps(std::slice::from_ref(&path), None).unwrap();
    unchanged(&before).unwrap();
    fs::write(&path, "longer").unwrap();
    assert!(matches!(unchanged(&before), Err(JobError::Changed { .. })));
    let before = stamps(std::slice::from_ref(&path), None).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(unchanged(&before), Err(JobError::Changed { .. })));
}

#[test]
fn the_newest_job_of_a_batch_is_the_one_that_counts() {
    let scratch = Scratch::new();
    let digest = "ab".repeat(32);
    assert_eq!(scratch.state.by_digest(&digest).unwrap(), None);
    scratch.job(10, of_batch(&digest));
    let newest = scratch.job(30, of_batch(&digest));
    scratch.job(40, of_batch(&"cd".repeat(32)));
    scratch.job(50, NewCard::default());
    assert_eq!(scratch.state.by_digest(&digest).unwrap(), Some(newest));
}

#[test]
fn the_guard_decides() {
    let scratch = Scratch::new();
    let hours = |n: i64| n * 3_600_000;
    let card = |state, finished_ms| JobCard {
        state,
        finished_ms,
        created_ms: hours(90),
        ..scratch.job(1, NewCard::default())
    };
    let guard = Duration::from_secs(20 * 3600);
    let now = hours(100);
    use Decision::{AlreadyDone, GoOn, New};
    use JobState::{Cancelled, Finished, Open};
    for (card, again, wanted) in [
        (None, false, New),
        (None, true, New),
        (Some(card(Open, None)), false, GoOn),
        (Some(card(Open, None)), true, GoOn),
        (Some(card(Finished, Some(hours(81)))), false, AlreadyDone),
        (Some(card(Finished, Some(hours(81)))), true, New),
        (Some(card(Finished, Some(hours(80)))), false, New),
        (
            Some(card(Finished, Some(hours(80) + 1))),
            false,
            AlreadyDone,
        ),
        // The clock was set back; or the card does not say when.
        (Some(card(Finished, Some(hours(200)))), false, AlreadyDone),
        (Some(card(Finished, None)), false, AlreadyDone),
        (Some(card(Cancelled, Some(hours(99)))), false, AlreadyDone),
        (Some(card(Cancelled, Some(hours(99)))), true, New),
        (Some(card(Cancelled, Some(hours(1)))), false, New),
    ] {
        let decision = decide(card.as_ref(), now, guard, again);
        assert_eq!(decision, wanted, "{card:?} {again}");
    }
    let done = card(Finished, Some(hours(99)));
    assert_eq!(decide(Some(&done), now, Duration::ZERO, false), New);
    let forever = Duration::MAX;
    assert_eq!(decide(Some(&done), i64::MAX, forever, false), AlreadyDone);
}
