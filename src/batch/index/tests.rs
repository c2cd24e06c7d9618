//! Writes and syncs of the index that fail.

use super::*;
use crate::batch::{BatchReader, Input, ReadOptions};
use std::sync::Arc;

fn options() -> ReadOptions {
    ReadOptions::new("Mon, 01 Jan 2024 00:00:00 +0000".to_owned())
}

fn write_batch(path: &Path, messages: usize) {
    let text: String = (0..messages)
        .map(|n| format!("From a@b.test Mon Jan  1 00:00:00 2024\nTo: r{n}@x.test\n\n{n}\n\n"))
        .collect();
    std::fs::write(path, text).unwrap();
}

/// Everything is read by one who does not flush; then `spoil` has its way.
fn read_unflushed(dir: &Path) -> BatchStore {
    let path = dir.join("batch.mbox");
    write_batch(&path, 3);
    let job = dir.join("job");
    std::fs::create_dir(&job).unwrap();
    let store = Arc::new(BatchStore::create_in(options(), &job).unwrap());
    let mut reader = BatchReader::open(vec![Input::Path(path)], store.clone()).unwrap();
    for _ in 0..3 {
        reader.next_arrival().unwrap().unwrap();
    }
    drop(reader);
    Arc::into_inner(store).unwrap()
}

fn index_of(store: &mut BatchStore) -> &mut Index {
    store.index.as_mut().unwrap()
}

#[test]
fn a_write_that_failed_is_made_up_for_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = read_unflushed(dir.path());
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let good = std::mem::replace(&mut index_of(&mut store).file, full);
    for _ in 0..2 {
        let error = store.flush().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    // As if half of it had been written.
    let len = good.metadata().unwrap().len();
    good.write_all_at(&[0xfe, 0xfd, SOURCE, 7, 7, 7, 7], len)
        .unwrap();
    index_of(&mut store).file = good;
    store.flush().unwrap();
    store.flush().unwrap();
    let again = BatchStore::reopen(options(), &dir.path().join("job")).unwrap();
    assert_eq!((again.message_count(), again.cut_bytes()), (3, 0));
    let texts: Vec<String> = (0..3)
        .map(|n| again.recipient_text(crate::mail::RecipientNo(n)))
        .collect();
    assert_eq!(texts, ["r0@x.test", "r1@x.test", "r2@x.test"]);
}

#[test]
fn nothing_is_written_after_a_sync_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = read_unflushed(dir.path());
    // A pipe cannot be synced.
    let (_reader, writer) = io::pipe().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(writer));
    let good = std::mem::replace(&mut index_of(&mut store).file, pipe);
    store.sync().unwrap_err();
    index_of(&mut store).file = good;
    let error = store.flush().unwrap_err();
    assert!(error.to_string().contains("earlier sync"), "{error}");
    store.sync().unwrap_err();
    let kept = store.keep([crate::mail::MessageNo(0)].into_iter());
    kept.unwrap_err();
    let again = BatchStore::reopen(options(), &dir.path().join("job")).unwrap();
    assert_eq!(again.message_count(), 0);
}
