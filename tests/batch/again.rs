//! Intake that was cut short: the batch is read again, what is known does not arrive again, and what is another batch is refused.

use super::job::{facts, mbox, message, read_job, read_some};
use super::*;
use mailer::batch::BatchErrorKind;

/// Reads `known` messages, dies, and gives the store of the next run.
fn die_after(known: usize, inputs: Vec<Input>, job: &Path) -> Arc<BatchStore> {
    let store = Arc::new(BatchStore::create_in(options(), job).unwrap());
    let mut reader = BatchReader::open(inputs, store.clone()).unwrap();
    assert_eq!(read_some(&mut reader, &store, known).len(), known);
    drop((reader, store));
    let store = Arc::new(BatchStore::reopen(options(), job).unwrap());
    assert_eq!(store.message_count(), known);
    assert!(!store.is_read_to_end());
    store
}

/// What the next run says about its inputs.
fn error_of(inputs: Vec<Input>, store: &Arc<BatchStore>) -> BatchError {
    let known = facts(store);
    let mut reader = BatchReader::open(inputs, store.clone()).unwrap();
    let error = reader.next_arrival().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is not part of this job"), "{text}");
    assert_eq!(facts(store), known);
    assert!(!store.is_read_to_end());
    error
}

#[test]
fn a_batch_that_was_cut_short_at_any_message_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let one = "From: s@x.test\nTo: one@x.test, bad\n\nhello\n";
    for name in ["md/new/1", "md/new/2", "md/cur/1", "a.eml"] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{one}{name}\n")).unwrap();
    }
    let batch = dir.path().join("batch.mbox");
    fs::write(&batch, format!("{}{FROM}To: bad\n\n", mbox(2))).unwrap();
    let inputs = || paths(&[&dir.path().join("md"), &batch, &dir.path().join("a.eml")]);
    let whole = tempfile::tempdir().unwrap();
    let want = facts(&read_job(inputs(), options(), whole.path()));
    assert_eq!(want.len(), 7);
    for known in 0..=7 {
        let job = tempfile::tempdir().unwrap();
        let mut store = die_after(known, inputs(), job.path());
        // It dies again, after one more.
        if known < 6 {
            let mut reader = BatchReader::open(inputs(), store.clone()).unwrap();
            assert_eq!(read_some(&mut reader, &store, 1), [known as u32]);
            drop((reader, store));
            store = Arc::new(BatchStore::reopen(options(), job.path()).unwrap());
        }
        let known = store.message_count();
        let mut reader = BatchReader::open(inputs(), store.clone()).unwrap();
        let arrived = read_some(&mut reader, &store, usize::MAX);
        assert_eq!(arrived, (known as u32..7).collect::<Vec<_>>());
        assert_eq!(facts(&store), want, "cut at {known}");
        assert!(store.is_read_to_end());
        let again = BatchStore::reopen(options(), job.path()).unwrap();
        assert_eq!(facts(&again), want, "cut at {known}, reopened");
        assert!(again.is_read_to_end());
    }
}

#[test]
fn a_batch_that_was_read_to_its_end_is_not_read_again() {
    let (_dir, path) = file("batch.mbox", mbox(2));
    let job = tempfile::tempdir().unwrap();
    read_job(paths(&[&path]), options(), job.path());
    fs::write(&path, mbox(5)).unwrap();
    let missing = path.with_extension("missing");
    for inputs in [paths(&[&path]), paths(&[&missing]), vec![]] {
        let store = Arc::new(BatchStore::reopen(options(), job.path()).unwrap());
        let mut reader = BatchReader::open(inputs, store.clone()).unwrap();
        assert!(reader.next_arrival().unwrap().is_none());
        assert_eq!(store.message_count(), 2);
    }
}

#[test]
fn without_inputs_nothing_arrives_and_nothing_ends() {
    let (_dir, path) = file("batch.mbox", mbox(3));
    let job = tempfile::tempdir().unwrap();
    let store = die_after(1, paths(&[&path]), job.path());
    let mut reader = BatchReader::open(vec![], store.clone()).unwrap();
    assert!(reader.next_arrival().unwrap().is_none());
    assert!(!store.is_read_to_end());
}

#[test]
fn another_batch_is_refused_and_what_is_known_stays() {
    let other = |text: String| {
        let (_dir, path) = file("batch.mbox", mbox(3));
        let job = tempfile::tempdir().unwrap();
        let store = die_after(2, paths(&[&path]), job.path());
        fs::write(&path, text).unwrap();
        error_of(paths(&[&path]), &store)
    };
    let whole = mbox(3);
    for (text, what) in [
        (
            whole.replace("body 1", "BODY 1"),
            "message 2 is another one",
        ),
        (format!("{}{whole}", message(9)), "message 1 is another one"),
        (mbox(1), "fewer messages"),
        ("From: s@x.test\n\nhi\n".to_owned(), "another kind"),
    ] {
        let error = other(text);
        assert_eq!(error.kind(), BatchErrorKind::DataErr);
        assert!(error.to_string().contains(what), "{error}");
    }
    let error = other(String::new());
    assert!(error.to_string().contains("is empty"), "{error}");

    let (_dir, path) = file("batch.mbox", mbox(3));
    let job = tempfile::tempdir().unwrap();
    let store = die_after(2, paths(&[&path]), job.path());
    let error = error_of(paths(&[&path.with_extension("no")]), &store);
    assert_eq!(error.kind(), BatchErrorKind::NoInput);
    let (_dir2, second) = file("second.mbox", mbox(1));
    let job = tempfile::tempdir().unwrap();
    let store = die_after(4, paths(&[&path, &second]), job.path());
    let error = error_of(paths(&[&path]), &store);
    assert!(error.to_string().contains("it is not given now"), "{error}");
}

#[test]
fn other_recipients_of_the_same_bytes_are_another_batch() {
    let (_dir, path) = file(
        "inbox",
        format!("{FROM}Received: z\nTo: f@x.test\n\nhi\n\n{}", mbox(1)),
    );
    let job = tempfile::tempdir().unwrap();
    die_after(1, paths(&[&path]), job.path());
    let options = ReadOptions {
        resend: true,
        ..options()
    };
    let store = Arc::new(BatchStore::reopen(options, job.path()).unwrap());
    let error = error_of(paths(&[&path]), &store);
    assert!(error.to_string().contains("message 1"), "{error}");
}

#[test]
fn a_batch_that_grew_brings_its_new_messages() {
    let (_dir, path) = file("batch.mbox", mbox(3));
    let job = tempfile::tempdir().unwrap();
    let store = die_after(2, paths(&[&path]), job.path());
    fs::write(&path, mbox(4)).unwrap();
    let mut reader = BatchReader::open(paths(&[&path]), store.clone()).unwrap();
    assert_eq!(read_some(&mut reader, &store, 9), [2, 3]);
}

#[test]
fn the_same_batch_may_lie_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let third = dir.path().join("third");
    fs::write(&first, mbox(4)).unwrap();
    let job = tempfile::tempdir().unwrap();
    let mut store = die_after(2, paths(&[&first]), job.path());
    fs::rename(&first, &second).unwrap();
    let mut reader = BatchReader::open(paths(&[&second]), store.clone()).unwrap();
    assert_eq!(read_some(&mut reader, &store, 1), [2]);
    assert!(sent(&store, 0).contains("body 0") && sent(&store, 2).contains("body 2"));
    // The next run does not name it, and finds it all the same.
    drop((reader, store));
    store = Arc::new(BatchStore::reopen(options(), job.path()).unwrap());
    assert!(sent(&store, 0).contains("body 0") && sent(&store, 2).contains("body 2"));
    fs::rename(&second, &third).unwrap();
    let mut reader = BatchReader::open(paths(&[&third]), store.clone()).unwrap();
    assert_eq!(read_some(&mut reader, &store, 9), [3]);
    drop((reader, store));
    let store = BatchStore::reopen(options(), job.path()).unwrap();
    assert!((0..4).all(|n| sent(&store, n).contains(&format!("body {n}"))));
}

#[test]
fn what_was_kept_is_known_when_the_batch_is_read_again() {
    let (_dir, path) = file("batch.mbox", mbox(4));
    let job = tempfile::tempdir().unwrap();
    let store = die_after(2, paths(&[&path]), job.path());
    assert!(store.keep([MessageNo(1)].into_iter()).unwrap().bytes > 0);
    drop(store);
    let store = Arc::new(BatchStore::reopen(options(), job.path()).unwrap());
    assert!(!store.is_read_to_end());
    let mut reader = BatchReader::open(paths(&[&path]), store.clone()).unwrap();
    assert_eq!(read_some(&mut reader, &store, 9), [2, 3]);
    fs::write(&path, "overwritten").unwrap();
    let store = Arc::new(BatchStore::reopen(options(), job.path()).unwrap());
    assert!(store.is_read_to_end());
    assert!(sent(&store, 1).contains("body 1"));
    assert!(store.load(MessageNo(2), &mut Content::new()).is_err());
}

#[test]
fn a_stream_that_was_read_to_its_end_is_read_again_from_its_spool() {
    let (_dir, path) = file("batch.mbox", mbox(3));
    let inputs = || {
        let mut inputs = stream(vec![message(7).into_bytes(), message(8).into_bytes()]).0;
        inputs.extend(paths(&[&path]));
        inputs
    };
    let job = tempfile::tempdir().unwrap();
    let store = die_after(3, inputs(), job.path());
    let mut now = stream(vec![b"not asked".to_vec()]).0;
    now.extend(paths(&[&path]));
    let mut reader = BatchReader::open(now, store.clone()).unwrap();
    assert_eq!(read_some(&mut reader, &store, 9), [3, 4]);
    assert!(sent(&store, 1).contains("body 8"));

    let job = tempfile::tempdir().unwrap();
    let store = die_after(1, inputs(), job.path());
    let error = error_of(inputs(), &store);
    assert!(
        error
            .to_string()
            .contains("standard input: was not read to its end"),
        "{error}"
    );
    assert!(sent(&store, 0).contains("body 7"));
}
