//! What is taken up when the files of the job fail.

use std::sync::Arc;

use crossbeam_channel::unbounded;

use super::*;
use crate::batch::{BatchReader, Input, ReadOptions};
use crate::engine::book::scratch::scratch;
use crate::engine::settings::Settings;
use crate::engine::status::Gauges;
use crate::mail::QueueId;
use crate::net::{Tls, TlsFiles, TlsNeeds};

const BATCH: &str =
    "From x@y.test Thu Jan  1 00:00:00 2026\nFrom: x@y.test\nTo: a@a.test, b@a.test\n\nhi\n";

#[test]
fn an_address_that_cannot_be_read_is_the_run_s_error_and_its_recipient_stays_queued() {
    let dir = tempfile::tempdir().unwrap();
    let batch = dir.path().join("batch.mbox");
    std::fs::write(&batch, BATCH).unwrap();
    let options = || ReadOptions::new(String::new());
    let job = dir.path().join("job");
    std::fs::create_dir(&job).unwrap();
    let store = Arc::new(BatchStore::create_in(options(), &job).unwrap());
    let mut reader = BatchReader::open(vec![Input::Path(batch)], Arc::clone(&store)).unwrap();
    while reader.next_arrival().unwrap().is_some() {}
    store.flush().unwrap();
    drop((reader, store));
    let store = Arc::new(BatchStore::reopen(options(), &job).unwrap());
    assert_eq!(store.recipient_count(), 2);
    // The disk fails after the batch was reopened.
    std::fs::write(job.join("addresses"), "").unwrap();
    let scratch = scratch();
    let past = Past::of(&scratch.ledger, &store, &Settings::default()).unwrap();
    let tls = Tls::new(&TlsFiles::default(), TlsNeeds::default()).unwrap();
    let gauges = Arc::new(Gauges::new(&[]));
    let book = scratch.book.clone();
    let shared = Shared::new(Settings::default(), tls, store, book.clone(), gauges);
    let mut teller = Teller::new(book, QueueId::GENERAL);
    let (to_router, routed) = unbounded();
    take_up(&past, &shared, &mut teller, &to_router);
    assert!(routed.try_iter().flatten().next().is_none());
    let (mut failures, mut left) = (0, Vec::new());
    for entry in scratch.entries.try_iter() {
        match entry {
            Entry::Failed(_) => failures += 1,
            Entry::Left { recipients } => left.extend(recipients),
            Entry::Admitted { last } => assert_eq!(last, RecipientNo(1)),
            other => panic!("{other:?}"),
        }
    }
    assert!(failures > 0);
    let queued = [0, 1].map(|no| (RecipientNo(no), Status::Queued));
    assert_eq!(left, queued);
}
