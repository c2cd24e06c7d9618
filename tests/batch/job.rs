//! A batch that survives its process: what was flushed is there again, and what was kept outlives its file.

use super::*;
use mailer::mbox::MboxFlavour;
use std::os::unix::fs::PermissionsExt;

/// All that can be had of a batch, a text for each message.
pub fn facts(store: &BatchStore) -> Vec<String> {
    let mut content = Content::new();
    let messages = (0..store.message_count() as u32).map(MessageNo);
    messages
        .map(|message| {
            let record = store.message(message).unwrap();
            let loaded = store.load(message, &mut content);
            let mut text = format!("{record:?} {:?} {loaded:?}\n", store.place(message));
            if loaded.is_ok() {
                let bytes = String::from_utf8_lossy(content.bytes());
                text += &format!("{:?} {bytes:?}\n", content.reverse_path());
            }
            let first = record.first_recipient();
            for no in (first..first + record.recipients()).map(RecipientNo) {
                let person = store.person(no);
                let (of, address) = store.address(no).unwrap();
                assert_eq!((of, store.message_of(no)), (message, Some(message)));
                assert_eq!(person, Some((message, store.recipient_text(no))));
                if loaded.is_ok() {
                    assert_eq!(
                        address.as_ref().ok(),
                        store.mailbox(&content, no).ok().as_ref()
                    );
                }
                text += &format!("{person:?} {address:?}\n");
            }
            text
        })
        .collect()
}

/// Reads `count` messages at most, or arrivals of one, each flushed before the next.
pub fn read_some(reader: &mut BatchReader, store: &BatchStore, count: usize) -> Vec<u32> {
    let mut arrived = Vec::new();
    while arrived.len() < count
        && let Some(arrival) = reader.next_arrival().unwrap()
    {
        arrived.push(arrival.message.0);
        store.flush().unwrap();
    }
    arrived
}

/// Reads a batch of a job in `dir` to its end.
pub fn read_job(inputs: Vec<Input>, options: ReadOptions, dir: &Path) -> Arc<BatchStore> {
    let store = Arc::new(BatchStore::create_in(options, dir).unwrap());
    let mut reader = BatchReader::open(inputs, store.clone()).unwrap();
    read_some(&mut reader, &store, usize::MAX);
    assert!(store.is_read_to_end());
    store
}

/// A look at the batch in `dir`, which changes nothing there.
pub fn look(dir: &Path) -> BatchStore {
    look_with(options(), dir)
}

fn look_with(options: ReadOptions, dir: &Path) -> BatchStore {
    let before = files(dir);
    let store = BatchStore::look(options, dir).unwrap();
    assert_eq!(files(dir), before, "something was changed by a look");
    store
}

/// Everything in a directory.
fn files(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn assert_reopens(store: &BatchStore, dir: &Path) {
    let seen = look_with(store.options().clone(), dir);
    assert_eq!(facts(&seen), facts(store));
    assert!(seen.is_read_to_end());
    for _ in 0..2 {
        let again = BatchStore::reopen(store.options().clone(), dir).unwrap();
        assert_eq!(facts(&again), facts(store));
        assert_eq!(again.recipient_count(), store.recipient_count());
        assert!(again.is_read_to_end());
        assert_eq!(again.cut_bytes(), 0);
    }
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

pub fn message(n: usize) -> String {
    format!(
        "{FROM}From: s@x.test\nTo: r{n}@x.test, not an address, Ann <a{n}@Y.test>\nMessage-ID: <{n}@x.test>\n\nbody {n}\n\n"
    )
}

pub fn mbox(count: usize) -> String {
    (0..count).map(message).collect()
}

#[test]
fn an_mbox_of_each_flavour_is_there_again() {
    for flavour in [MboxFlavour::Rd, MboxFlavour::O, MboxFlavour::Cl2] {
        let text = format!(
            "{FROM}From: s@x.test\nTo: a@b.test, bad, c@d.test\nContent-Length: 8\n\n>>From y\n\n\
             {FROM}From: s@x.test\nTo: bad\nContent-Length: 2\n\n\0\n\n{FROM}Content-Length: 2\n\nx\n\n"
        );
        let (dir, path) = file("batch.mbox", &text);
        let options = ReadOptions {
            flavour: Some(flavour),
            ..options()
        };
        let job = tempfile::tempdir().unwrap();
        let store = read_job(paths(&[&path]), options, job.path());
        assert_eq!(store.message_count(), 3);
        assert_reopens(&store, job.path());
        // An open file is still read once it is renamed; after a crash there is only the name.
        let before = facts(&store);
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        assert_eq!(facts(&store), before);
        let again = BatchStore::reopen(store.options().clone(), job.path()).unwrap();
        let mut content = Content::new();
        let error = again.load(MessageNo(0), &mut content).unwrap_err();
        assert!(error.to_string().contains("cannot be opened"), "{error}");
    }
}

#[test]
fn files_maildirs_and_streams_are_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let one = "From: s@x.test\nTo: one@x.test\n\nhello\n";
    for (name, mark) in [
        ("md/new/1", ""),
        ("md/cur/2:2,S", "\u{feff}"),
        ("a.eml", "\u{feff}"),
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{mark}{one}{name}\n")).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", dir.path().join("md/new/3")).unwrap();
    let mut inputs: Vec<Input> = ["md", "a.eml"]
        .map(|name| Input::Path(dir.path().join(name)))
        .into();
    inputs.extend(stream(vec![mbox(2).into_bytes()]).0);
    inputs.extend(stream(vec![one.into()]).0);
    let job = tempfile::tempdir().unwrap();
    let store = read_job(inputs, options(), job.path());
    assert_eq!(store.message_count(), 7);
    assert_reopens(&store, job.path());
}

#[test]
fn a_message_to_very_many_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let eml = write("a.eml", "From: s@x.test\nTo: list@x.test\n\nhi\n");
    let text: String = (0..5000).map(|n| format!("r{n}@x.test\n")).collect();
    let list = write("list", &format!("{text}bad\n{}\n", "y".repeat(9000)));
    let options = ReadOptions {
        to_file: Some(list.clone()),
        ..options()
    };
    let job = tempfile::tempdir().unwrap();
    let store = Arc::new(BatchStore::create_in(options.clone(), job.path()).unwrap());
    let mut reader = BatchReader::open(paths(&[&eml]), store.clone()).unwrap();
    read_some(&mut reader, &store, 1);
    fs::write(&list, "other@x.test\n").unwrap();
    assert_eq!(store.recipient_count(), 5002);
    // All of them are in the files before the first of them is handed on.
    assert_reopens(&store, job.path());
    let reopened = Arc::new(BatchStore::reopen(options, job.path()).unwrap());
    let mut reader = BatchReader::open(paths(&[&eml]), reopened.clone()).unwrap();
    assert!(reader.next_arrival().unwrap().is_none());
    drop(reopened);
    let spool = job.path().join("to-file-1");
    let mut bytes = fs::read(&spool).unwrap();
    bytes[7] ^= 1;
    fs::write(&spool, bytes).unwrap();
    let spoiled = BatchStore::reopen(store.options().clone(), job.path()).unwrap();
    assert_eq!(spoiled.message_count(), 0, "a list that is not what it was");
}

#[test]
fn two_messages_with_a_list_leave_nothing_to_send() {
    let (_dir, path) = file("two", mbox(2));
    let (_dir2, list) = file("list", "a@x.test\n");
    let options = ReadOptions {
        to_file: Some(list),
        ..options()
    };
    let job = tempfile::tempdir().unwrap();
    let store = Arc::new(BatchStore::create_in(options.clone(), job.path()).unwrap());
    let mut reader = BatchReader::open(paths(&[&path]), store.clone()).unwrap();
    assert!(reader.next_arrival().is_err());
    store.flush().unwrap();
    let again = BatchStore::reopen(options, job.path()).unwrap();
    assert_eq!((again.message_count(), again.recipient_count()), (0, 0));
    assert!(!again.is_read_to_end());
}

#[test]
fn what_was_not_flushed_is_not_there() {
    let (_dir, path) = file("batch.mbox", mbox(5));
    let job = tempfile::tempdir().unwrap();
    let store = Arc::new(BatchStore::create_in(options(), job.path()).unwrap());
    let mut reader = BatchReader::open(paths(&[&path]), store.clone()).unwrap();
    read_some(&mut reader, &store, 2);
    let flushed = facts(&store);
    reader.next_arrival().unwrap().unwrap();
    let again = BatchStore::reopen(options(), job.path()).unwrap();
    assert_eq!(facts(&again), flushed);
    assert!(!again.is_read_to_end());
}

#[test]
fn a_job_that_died_before_its_batch_was_made_has_an_empty_one() {
    let (_dir, path) = file("batch.mbox", mbox(1));
    for has_addresses in [false, true] {
        let job = tempfile::tempdir().unwrap();
        if has_addresses {
            fs::write(job.path().join("addresses"), "").unwrap();
        }
        let store = Arc::new(BatchStore::reopen(options(), job.path()).unwrap());
        assert_eq!(store.message_count(), 0);
        let mut reader = BatchReader::open(paths(&[&path]), store.clone()).unwrap();
        assert_eq!(read_some(&mut reader, &store, 9), [0]);
        // An index that is lost, or addresses, is no batch that is empty.
        for name in ["index", "addresses"] {
            let lost = fs::read(job.path().join(name)).unwrap();
            fs::remove_file(job.path().join(name)).unwrap();
            assert!(BatchStore::reopen(options(), job.path()).is_err(), "{name}");
            fs::write(job.path().join(name), lost).unwrap();
        }
        let store = BatchStore::reopen(options(), job.path()).unwrap();
        assert_eq!(store.message_count(), 1);
    }
}

#[test]
fn a_job_is_not_made_over_another_and_must_be_there() {
    let job = tempfile::tempdir().unwrap();
    assert!(BatchStore::reopen(options(), &job.path().join("none")).is_err());
    let _store = BatchStore::create_in(options(), job.path()).unwrap();
    let error = BatchStore::create_in(options(), job.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    let planted = tempfile::tempdir().unwrap();
    let victim = planted.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, planted.path().join("addresses")).unwrap();
    assert!(BatchStore::create_in(options(), planted.path()).is_err());
    std::os::unix::fs::symlink(&victim, planted.path().join("index")).unwrap();
    assert!(BatchStore::reopen(options(), planted.path()).is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

/// What became of the batch file, and which of its three messages can still be loaded.
fn assert_loads(change: impl Fn(&Path), want: [bool; 3]) {
    let (_dir, path) = file("batch.mbox", mbox(3));
    let job = tempfile::tempdir().unwrap();
    let store = read_job(paths(&[&path]), options(), job.path());
    let before: Vec<String> = (0..3).map(|n| sent(&store, n)).collect();
    drop(store);
    change(&path);
    let again = BatchStore::reopen(options(), job.path()).unwrap();
    let mut content = Content::new();
    for n in 0..3 {
        let loaded = again.load(MessageNo(n as u32), &mut content);
        assert_eq!(loaded.is_ok(), want[n], "message {n}: {loaded:?}");
        match loaded {
            Ok(()) => assert_eq!(content.bytes(), before[n].as_bytes()),
            Err(error) => assert!(error.to_string().contains("changed"), "{error}"),
        }
        let text = again.recipient_text(RecipientNo(3 * n as u32));
        assert_eq!(text, format!("r{n}@x.test"), "known all the same");
    }
}

#[test]
fn what_changed_between_runs_is_never_sent_and_the_rest_is() {
    assert_loads(|_| (), [true; 3]);
    let changed = || mbox(3).replace("body 1", "BODY 1");
    assert_loads(
        |path| fs::write(path, changed()).unwrap(),
        [true, false, true],
    );
    assert_loads(
        |path| fs::write(path, &mbox(3)[..message(0).len() + 20]).unwrap(),
        [true, false, false],
    );
    assert_loads(|path| fs::write(path, mbox(7)).unwrap(), [true; 3]);
    let replace = |path: &Path, text: &str| {
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    assert_loads(|path| replace(path, &changed()), [true, false, true]);
    assert_loads(|path| replace(path, &mbox(3)), [true; 3]);
    let in_front = format!("{}{}", message(9), mbox(3));
    assert_loads(|path| replace(path, &in_front), [false; 3]);
}

#[test]
fn what_is_missing_between_runs_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, away) = (dir.path().join("disk"), dir.path().join("away"));
    fs::create_dir_all(disk.join("md/new")).unwrap();
    fs::create_dir_all(disk.join("md/cur")).unwrap();
    let eml = "From: s@x.test\nTo: one@x.test\n\nhello\n";
    for name in ["md/new/1", "a.eml"] {
        fs::write(disk.join(name), eml).unwrap();
    }
    fs::write(disk.join("batch.mbox"), mbox(2)).unwrap();
    let inputs = ["batch.mbox", "md", "a.eml"].map(|name| disk.join(name));
    let job = tempfile::tempdir().unwrap();
    drop(read_job(
        paths(&[&inputs[0], &inputs[1], &inputs[2]]),
        options(),
        job.path(),
    ));
    // The disk is not mounted when the job goes on, and is later.
    fs::rename(&disk, &away).unwrap();
    let store = BatchStore::reopen(options(), job.path()).unwrap();
    let mut content = Content::new();
    for n in 0..4 {
        let error = store.load(MessageNo(n), &mut content).unwrap_err();
        assert!(matches!(error, ContentError::Open(_)), "{n}: {error:?}");
        let verdict = error.verdict();
        assert_eq!(
            (verdict.status, verdict.scope),
            (Status::Deferred, Scope::Local),
            "{n}"
        );
        let said = "the batch file cannot be opened: ";
        assert!(verdict.text.starts_with(said), "{n}: {verdict:?}");
    }
    fs::rename(&away, &disk).unwrap();
    for n in 0..4 {
        store.load(MessageNo(n), &mut content).unwrap();
    }
}

#[test]
fn a_maildir_file_that_a_mail_reader_renamed_is_found_and_no_other_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let md = dir.path();
    fs::create_dir(md.join("new")).unwrap();
    fs::create_dir(md.join("cur")).unwrap();
    // One begins with a byte order mark, and stands behind others: its place is its number, not an offset.
    let eml = |n: usize| {
        let mark = if n == 3 { "\u{feff}" } else { "" };
        format!("{mark}From: s@x.test\nTo: r{n}@x.test\n\nhello {n}\n")
    };
    for (n, name) in ["new/1.a.h", "new/2.b.h", "cur/3.c.h:2,", "cur/4.d.h:2,S"]
        .iter()
        .enumerate()
    {
        fs::write(md.join(name), eml(n + 1)).unwrap();
    }
    let job = tempfile::tempdir().unwrap();
    let store = read_job(paths(&[md]), options(), job.path());
    let texts: Vec<Option<String>> = (0..4).map(|n| loaded(&store, n)).collect();
    assert!(texts.iter().all(Option::is_some));
    drop(store);
    fs::rename(md.join("new/1.a.h"), md.join("cur/1.a.h:2,RS")).unwrap();
    fs::rename(md.join("cur/3.c.h:2,"), md.join("cur/3.c.h:2,FS")).unwrap();
    // Another message has the name of the second, and one that begins like the fourth is no rename of it.
    fs::remove_file(md.join("new/2.b.h")).unwrap();
    fs::write(md.join("cur/2.b.h:2,S"), eml(9)).unwrap();
    fs::rename(md.join("cur/4.d.h:2,S"), md.join("cur/4.d.hh:2,S")).unwrap();
    let store = BatchStore::reopen(options(), job.path()).unwrap();
    assert_eq!(loaded(&store, 0), texts[0]);
    assert_eq!(loaded(&store, 2), texts[2]);
    let mut content = Content::new();
    let second = store.load(MessageNo(1), &mut content).unwrap_err();
    assert!(matches!(second, ContentError::Changed), "{second:?}");
    let fourth = store.load(MessageNo(3), &mut content).unwrap_err();
    assert!(matches!(fourth, ContentError::Open(_)), "{fourth:?}");
    // The right one beside the wrong one: the hash decides.
    fs::write(md.join("cur/2.b.h:2,T"), eml(2)).unwrap();
    let store = BatchStore::reopen(options(), job.path()).unwrap();
    assert_eq!(loaded(&store, 1), texts[1]);
}

#[test]
fn what_was_kept_outlives_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let eml = "From: s@x.test\nTo: one@x.test\n\nhello\n";
    let marked = dir.path().join("md/new/1");
    fs::create_dir_all(dir.path().join("md/cur")).unwrap();
    fs::create_dir_all(marked.parent().unwrap()).unwrap();
    fs::write(&marked, format!("\u{feff}{eml}")).unwrap();
    let single = dir.path().join("a.eml");
    fs::write(&single, eml).unwrap();
    let path = dir.path().join("batch.mbox");
    fs::write(&path, format!("{}{FROM}To: bad\n\n\0\n", mbox(3))).unwrap();
    let mut inputs = paths(&[&path, &dir.path().join("md"), &single]);
    inputs.extend(stream(vec![message(8).into_bytes()]).0);
    let job = tempfile::tempdir().unwrap();
    let store = read_job(inputs, options(), job.path());
    let texts: Vec<Option<String>> = (0..7).map(|n| loaded(&store, n)).collect();
    fs::write(&path, mbox(3).replace("body 1", "BODY 1")).unwrap();
    let all = || (0..7).map(MessageNo);
    // Message 1 has changed, 3 is invalid, 6 is in the spool of the stream.
    let kept = [0, 2, 4, 5].map(|n| u64::from(store.message(MessageNo(n)).unwrap().length()));
    let missing = dir.path().join("a.away");
    fs::rename(&single, &missing).unwrap();
    let told = store
        .keep([MessageNo(1), MessageNo(5)].into_iter())
        .unwrap();
    assert_eq!((told.bytes, told.unreadable), (0, 1), "changed; not there");
    fs::rename(&missing, &single).unwrap();
    let told = store.keep(all()).unwrap();
    assert_eq!((told.bytes, told.unreadable), (kept.iter().sum(), 0));
    store.sync().unwrap();
    for gone in [&path, &marked, &single] {
        fs::write(gone, "overwritten").unwrap();
    }
    for round in 0..2 {
        let again = BatchStore::reopen(options(), job.path()).unwrap();
        assert!(again.is_read_to_end());
        for n in 0..7 {
            let want = texts[n as usize].clone().filter(|_| n != 1);
            assert_eq!(loaded(&again, n), want, "message {n}, round {round}");
        }
        // What is in the job's files is not copied again.
        assert_eq!(again.keep(all()).unwrap(), Kept::default());
    }
    // If the copy is lost the file counts again.
    fs::write(job.path().join("content"), "").unwrap();
    fs::write(&path, mbox(3)).unwrap();
    let again = BatchStore::reopen(options(), job.path()).unwrap();
    assert_eq!(loaded(&again, 0), texts[0]);
}

/// What leaves of a message, if it can be loaded.
fn loaded(store: &BatchStore, message: u32) -> Option<String> {
    let mut content = Content::new();
    store.load(MessageNo(message), &mut content).ok()?;
    String::from_utf8(content.bytes().to_vec()).ok()
}

#[test]
fn a_nameless_batch_keeps_nothing() {
    let (_dir, path) = file("batch.mbox", mbox(2));
    let (store, _) = read_all(paths(&[&path]), options()).unwrap();
    store.flush().unwrap();
    store.sync().unwrap();
    let kept = store.keep([MessageNo(0)].into_iter()).unwrap();
    assert_eq!(kept, Kept::default());
    assert!(store.is_read_to_end());
}
