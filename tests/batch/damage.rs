//! Files of a job that a crash tore or a disk spoiled: whole messages or none, and the batch can be read to its end all the same.

use super::job::{facts, look, mbox, read_job, read_some};
use super::*;

/// A job of a small batch: its directory, what it knows, and where its batch is.
struct Job {
    _dir: tempfile::TempDir,
    path: PathBuf,
    job: tempfile::TempDir,
    facts: Vec<String>,
}

fn job() -> Job {
    let (dir, path) = file("batch.mbox", mbox(3));
    let job = tempfile::tempdir().unwrap();
    let store = read_job(paths(&[&path]), options(), job.path());
    Job {
        facts: facts(&store),
        _dir: dir,
        path,
        job,
    }
}

impl Job {
    /// With `name` in its directory holding `bytes`, the messages that are there again are the first ones, and the rest can be
    /// read. Gives how many there are.
    fn assert_prefix(&self, name: &str, bytes: &[u8], how: &str) -> usize {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.job.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        fs::write(copy.path().join(name), bytes).unwrap();
        let seen = look(copy.path());
        let store = Arc::new(BatchStore::reopen(options(), copy.path()).unwrap());
        let count = store.message_count();
        assert_eq!(facts(&seen), self.facts[..count], "{name} {how}, looked at");
        assert_eq!(
            seen.is_read_to_end(),
            store.is_read_to_end(),
            "{name} {how}"
        );
        assert_eq!(facts(&store), self.facts[..count], "{name} {how}");
        let recipients = store.recipient_count();
        assert_eq!(recipients, 3 * count, "{name} {how}");
        let mut reader = BatchReader::open(paths(&[&self.path]), store.clone()).unwrap();
        let arrived = read_some(&mut reader, &store, usize::MAX);
        let rest: Vec<u32> = (count as u32..3).collect();
        assert_eq!(arrived, rest, "{name} {how}");
        assert_eq!(facts(&store), self.facts, "{name} {how}");
        let again = BatchStore::reopen(options(), copy.path()).unwrap();
        assert_eq!(facts(&again), self.facts, "{name} {how}, reopened");
        assert!(again.is_read_to_end());
        count
    }
}

#[test]
fn a_cut_leaves_whole_messages() {
    let job = job();
    for name in ["index", "addresses"] {
        let bytes = fs::read(job.job.path().join(name)).unwrap();
        let counts: Vec<usize> = (0..=bytes.len())
            .map(|len| job.assert_prefix(name, &bytes[..len], &format!("cut at {len}")))
            .collect();
        assert!(counts.is_sorted(), "{name}: {counts:?}");
        assert_eq!((counts[0], *counts.last().unwrap()), (0, 3), "{name}");
        assert!((1..3).all(|n| counts.contains(&n)), "{name}: {counts:?}");
    }
}

#[test]
fn a_flipped_bit_leaves_whole_messages() {
    let job = job();
    for name in ["index", "addresses"] {
        let bytes = fs::read(job.job.path().join(name)).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let count = job.assert_prefix(name, &flipped, &format!("flipped at {at}"));
            // Only the last frame, which says that the batch is over, holds no message.
            assert!(count < 3 || name == "index" && at + 16 >= bytes.len());
        }
    }
}

#[test]
fn what_stands_behind_the_end_is_cut_off() {
    let job = job();
    for name in ["index", "addresses"] {
        let bytes = fs::read(job.job.path().join(name)).unwrap();
        let longer = [&bytes[..], &[0xfe; 40]].concat();
        assert_eq!(job.assert_prefix(name, &longer, "longer"), 3);
    }
}

#[test]
fn an_index_of_another_version_is_left_alone() {
    let job = job();
    let path = job.job.path().join("index");
    let mut bytes = fs::read(&path).unwrap();
    // A frame of a kind that this version does not know, whole in itself.
    let head = [200, 1, 0, 0, 0, 0];
    let sums = [&head[..], &xxhash_rust::xxh3::xxh3_64(b"").to_le_bytes()].concat();
    bytes.extend_from_slice(&[0xfe, 0xfd]);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&sums).to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = BatchStore::reopen(options(), job.job.path()).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_spool_that_cannot_be_opened_is_an_error_and_no_damage() {
    let (_dir, path) = file("batch.mbox", mbox(1));
    let (_dir2, list) = file("list", "a@x.test\nb@x.test\n");
    let many = ReadOptions {
        to_file: Some(list),
        ..options()
    };
    let lists = tempfile::tempdir().unwrap();
    let one = "From: s@x.test\nTo: one@x.test\n\nhello\n";
    let streams = tempfile::tempdir().unwrap();
    let stream = Input::Stream("standard input".to_owned(), Box::new(one.as_bytes()));
    let kept = tempfile::tempdir().unwrap();
    let jobs = [
        (&lists, many.clone(), "to-file-1"),
        (&streams, options(), "stdin-1"),
        (&kept, options(), "content"),
    ];
    read_job(paths(&[&path]), many, lists.path());
    read_job(vec![stream], options(), streams.path());
    let store = read_job(paths(&[&path]), options(), kept.path());
    assert!(store.keep([MessageNo(0)].into_iter()).unwrap().bytes > 0);
    drop(store);
    for (job, options, spool) in jobs {
        let (spool, index) = (job.path().join(spool), job.path().join("index"));
        let known = facts(&BatchStore::reopen(options.clone(), job.path()).unwrap());
        assert_eq!(known.len(), 1, "{spool:?}");
        let (before, away) = (fs::read(&index).unwrap(), spool.with_extension("away"));
        fs::rename(&spool, &away).unwrap();
        // It is there, but no symbolic link is followed: as good as a want of descriptors.
        std::os::unix::fs::symlink(&away, &spool).unwrap();
        let error = BatchStore::reopen(options.clone(), job.path()).unwrap_err();
        assert_eq!(error.kind(), mailer::batch::BatchErrorKind::IoErr);
        let name = spool.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(fs::read(&index).unwrap(), before, "{spool:?}");
        fs::remove_file(&spool).unwrap();
        fs::rename(&away, &spool).unwrap();
        let again = BatchStore::reopen(options, job.path()).unwrap();
        assert_eq!((facts(&again), again.cut_bytes()), (known, 0), "{spool:?}");
    }
}

#[test]
fn an_address_that_cannot_be_read_is_no_invalid_one() {
    let job = job();
    let store = BatchStore::reopen(options(), job.job.path()).unwrap();
    fs::write(job.job.path().join("addresses"), "").unwrap();
    let address = store.address(RecipientNo(0));
    let is_io = matches!(address, Some((MessageNo(0), Err(ContentError::Io(_)))));
    assert!(is_io, "{address:?}");
    let mut content = Content::new();
    store.load(MessageNo(0), &mut content).unwrap();
    let mailbox = store.mailbox(&content, RecipientNo(0)).unwrap_err();
    assert_eq!(mailbox.verdict().status, Status::Deferred, "{mailbox:?}");
}
