//! Reading batches from the outside: files, Maildirs and streams in; arrivals, content and clear errors out.

use mailer::batch::{
    BatchError, BatchErrorKind, BatchReader, BatchStore, Content, ContentError, Input, ReadOptions,
    inspect,
};
use mailer::mail::{MessageNo, RecipientNo, ReversePath};
use mailer::mbox::MboxFlavour;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const FROM: &str = "From x@y.test Mon Jan  1 00:00:00 2024\n";
const DATE: &str = "Mon, 01 Jan 2024 00:00:00 +0000";

fn options() -> ReadOptions {
    ReadOptions::new(DATE.to_owned())
}

/// A directory with one file in it.
fn file(name: &str, bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn paths(paths: &[&Path]) -> Vec<Input> {
    paths
        .iter()
        .map(|path| Input::Path(path.to_path_buf()))
        .collect()
}

/// An arrival in text: the recipients (`!` and the problem for bad ones), and the problems.
struct Read1 {
    recipients: Vec<String>,
    problems: Vec<String>,
}

/// Reads everything, and makes sure that each mailbox can be had again from the loaded message.
fn read_all(
    inputs: Vec<Input>,
    options: ReadOptions,
) -> Result<(Arc<BatchStore>, Vec<Read1>), BatchError> {
    let store = Arc::new(BatchStore::new(options));
    let mut reader = BatchReader::open(inputs, store.clone())?;
    let mut content = Content::new();
    let mut all: Vec<Read1> = Vec::new();
    let mut rows = 0;
    while let Some(arrival) = reader.next_arrival()? {
        assert!(!arrival.recipients.is_empty());
        let loaded = store.load(arrival.message, &mut content);
        let mut texts = Vec::new();
        for arrived in arrival.recipients {
            assert_eq!(
                arrived.no,
                RecipientNo(rows),
                "recipients are numbered without gaps"
            );
            rows += 1;
            assert_eq!(store.message_of(arrived.no), Some(arrival.message));
            texts.push(match &arrived.outcome {
                Ok(mailbox) => {
                    assert!(loaded.is_ok(), "{loaded:?}");
                    assert_eq!(Some(content.reverse_path()), arrival.reverse_path);
                    assert_eq!(&store.mailbox(&content, arrived.no).unwrap(), mailbox);
                    assert_eq!(store.recipient_text(arrived.no), mailbox.as_str());
                    mailbox.to_string()
                }
                Err(problem) => {
                    assert!(!problem.is_warning());
                    format!("!{}", problem.what)
                }
            });
        }
        let problems = arrival.problems.iter().map(ToString::to_string);
        if arrival.message.index() < all.len() {
            let last = all.last_mut().unwrap();
            last.recipients.extend(texts);
            last.problems.extend(problems);
        } else {
            all.push(Read1 {
                recipients: texts,
                problems: problems.collect(),
            });
        }
    }
    assert_eq!(store.recipient_count(), rows as usize);
    assert_eq!(store.message_count(), all.len());
    Ok((store, all))
}

fn recipients(read: &[Read1]) -> Vec<Vec<&str>> {
    read.iter()
        .map(|message| message.recipients.iter().map(String::as_str).collect())
        .collect()
}

fn sent(store: &BatchStore, message: u32) -> String {
    let mut content = Content::new();
    store.load(MessageNo(message), &mut content).unwrap();
    String::from_utf8(content.bytes().to_vec()).unwrap()
}

fn error(inputs: Vec<Input>, options: ReadOptions) -> BatchError {
    read_all(inputs, options).map(|_| ()).unwrap_err()
}

#[test]
fn an_mbox_gives_its_messages_in_order() {
    let text = format!(
        "{FROM}From: a@b.test\nTo: c@d.test, E <e@F.test>\nX-Envelope-From: bounce@b.test\nDate: x\nMessage-ID: <1>\n\n>From here\n\n\
         {FROM}From: a@b.test\nTo: g@h.test\nDate: x\nMessage-ID: <2>\n\ntwo\n"
    );
    let (_dir, path) = file("batch.mbox", &text);
    let (store, read) = read_all(paths(&[&path]), options()).unwrap();
    assert_eq!(
        recipients(&read),
        [vec!["c@d.test", "e@f.test"], vec!["g@h.test"]]
    );
    assert_eq!(
        sent(&store, 0),
        "From: a@b.test\r\nTo: c@d.test, E <e@F.test>\r\nDate: x\r\nMessage-ID: <1>\r\n\r\nFrom here\r\n"
    );
    assert_eq!(
        sent(&store, 1),
        "From: a@b.test\r\nTo: g@h.test\r\nDate: x\r\nMessage-ID: <2>\r\n\r\ntwo\r\n"
    );
    let second = text.rfind("From x@y").unwrap() as u64;
    let (name, offset) = store.place(MessageNo(1)).unwrap();
    assert_eq!((&*name, offset), (path.to_str().unwrap(), second));
}

#[test]
fn the_flavour_decides_about_quotes_and_ends() {
    let body = format!("x\n\n{FROM}>>From y\n");
    let text = format!(
        "{FROM}To: a@b.test\nContent-Length: {}\nDate: x\nMessage-ID: <1>\n\n{body}\n{FROM}To: c@d.test\nContent-Length: 0\n\n\n",
        body.len()
    );
    let (_dir, path) = file("batch.mbox", &text);
    let options = ReadOptions {
        flavour: Some(MboxFlavour::Cl2),
        ..options()
    };
    let (store, read) = read_all(paths(&[&path]), options).unwrap();
    assert_eq!(recipients(&read), [["a@b.test"], ["c@d.test"]]);
    let want = format!("To: a@b.test\nDate: x\nMessage-ID: <1>\n\n{body}").replace('\n', "\r\n");
    assert_eq!(sent(&store, 0), want);
}

#[test]
fn files_of_one_message_and_maildirs_and_mboxes_make_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, to: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("From: s@x.test\nTo: {to}@x.test\n\nhello\n")).unwrap();
        path
    };
    let eml = write("one.eml", "one");
    for (name, to) in [
        ("cur/1:2,S", "four"),
        ("new/2", "three"),
        ("new/1", "two"),
        ("tmp/1", "no"),
        ("new/.hidden", "no"),
    ] {
        write(&format!("md/{name}"), to);
    }
    let mbox = dir.path().join("mbox");
    fs::write(&mbox, format!("{FROM}To: five@x.test\n\n")).unwrap();
    let (store, read) = read_all(paths(&[&eml, &dir.path().join("md"), &mbox]), options()).unwrap();
    let all = recipients(&read).concat();
    assert_eq!(
        all,
        [
            "one@x.test",
            "two@x.test",
            "three@x.test",
            "four@x.test",
            "five@x.test"
        ]
    );
    assert_eq!(
        store.place(MessageNo(3)).unwrap().0,
        dir.path().join("md/cur/1:2,S").to_string_lossy().into()
    );
    assert!(sent(&store, 0).ends_with("To: one@x.test\r\n\r\nhello\r\n"));
}

/// Gives its pieces one by one and counts them.
struct Pieces(VecDeque<Vec<u8>>, Arc<AtomicUsize>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.0.pop_front() else {
            return Ok(0);
        };
        self.1.fetch_add(1, Ordering::Relaxed);
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        if len < piece.len() {
            self.0.push_front(piece.split_off(len));
        }
        Ok(len)
    }
}

fn stream(pieces: Vec<Vec<u8>>) -> (Vec<Input>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let reader = Pieces(pieces.into(), count.clone());
    (
        vec![Input::Stream("standard input".to_owned(), Box::new(reader))],
        count,
    )
}

#[test]
fn a_message_of_a_stream_is_there_before_the_stream_ends() {
    let message =
        |to: &str| format!("{FROM}From: s@x.test\nTo: {to}@x.test\n\nhello {to}\n\n").into_bytes();
    let (inputs, taken) = stream(vec![message("a"), message("b"), message("c")]);
    let store = Arc::new(BatchStore::new(options()));
    let mut reader = BatchReader::open(inputs, store.clone()).unwrap();
    assert_eq!(
        reader.next_arrival().unwrap().unwrap().message,
        MessageNo(0)
    );
    assert_eq!(
        taken.load(Ordering::Relaxed),
        2,
        "only the next separator is waited for"
    );
    assert!(sent(&store, 0).ends_with("hello a\r\n"));
    while reader.next_arrival().unwrap().is_some() {}
    assert!(sent(&store, 2).ends_with("hello c\r\n"));
}

#[test]
fn a_stream_may_be_one_message_and_come_byte_by_byte() {
    let bytes = b"From: s@x.test\r\nTo: a@x.test\r\n\r\nFrom here on\r\n";
    let (inputs, _) = stream(bytes.iter().map(|&b| vec![b]).collect());
    let (store, read) = read_all(inputs, options()).unwrap();
    assert_eq!(recipients(&read), [["a@x.test"]]);
    assert!(sent(&store, 0).ends_with("\r\n\r\nFrom here on\r\n"));
}

#[test]
fn inputs_that_are_no_batch_are_refused_by_name() {
    use BatchErrorKind::{DataErr, NoInput};
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let good = write("good", format!("{FROM}To: a@x.test\n\n").as_bytes());
    let maildir = dir.path().join("maildir");
    for part in ["new", "cur", "tmp"] {
        fs::create_dir_all(maildir.join(part)).unwrap();
    }
    for (path, kind, text) in [
        (dir.path().join("missing"), NoInput, "cannot open"),
        (dir.path().to_path_buf(), NoInput, "no Maildir"),
        (maildir, DataErr, "is empty"),
        (write("empty", b""), DataErr, "is empty"),
        (write("blank", b"\n\n"), DataErr, "is empty"),
        (PathBuf::from("/dev/null"), DataErr, "is empty"),
        (
            write("gz", b"\x1f\x8b\x08\0\0"),
            DataErr,
            "is gzip-compressed",
        ),
        (
            write("zst", b"\x28\xb5\x2f\xfd\0"),
            DataErr,
            "is zstd-compressed",
        ),
        (
            write("elf", b"\x7fELF\0\0\0"),
            DataErr,
            "neither a From_ line nor a header field at byte 0",
        ),
        (
            write("bom", b"\xef\xbb\xbfFrom: a\n"),
            DataErr,
            "byte order mark",
        ),
    ] {
        let error = error(paths(&[&good, &path]), options());
        assert_eq!(error.kind(), kind, "{error}");
        let line = error.to_string();
        assert!(
            line.contains(text) && line.starts_with(path.to_str().unwrap()),
            "{line}"
        );
    }
    let gz = error(paths(&[&dir.path().join("gz")]), options());
    assert!(
        gz.hint().unwrap().starts_with("run: zcat ")
            && gz.hint().unwrap().ends_with("| mailer send -")
    );
    let (inputs, _) = stream(vec![]);
    assert_eq!(
        error(inputs, options()).to_string(),
        "standard input: is empty"
    );
}

#[test]
fn an_unwritable_spool_is_an_error_of_the_machine() {
    let (inputs, _) = stream(vec![b"To: a@x.test\n\n".to_vec()]);
    let options = ReadOptions {
        spool_dir: "/nonexistent".into(),
        ..options()
    };
    assert_eq!(error(inputs, options).kind(), BatchErrorKind::IoErr);
}

#[test]
fn bad_messages_take_nobody_along_and_say_where() {
    let good = |to: &str| format!("{FROM}From: s@x.test\nTo: {to}@x.test\n\nhello\n\n");
    let bad = |rest: &str| format!("{FROM}From: s@x.test\n{rest}\n\n");
    let text = [
        good("a"),
        bad("To: b@x.test, no at, c@x.test\n\nhi"),
        bad("To: d@x.test\n\nnul \0 here"),
        bad("Subject: nobody\n\nhi"),
        bad("To: e@x.test\nno field\n\nhi"),
        bad("Received: from z\nTo: f@x.test\n\nhi"),
        format!("{FROM}\nno header\n\n"),
        good("g"),
    ]
    .concat();
    let (_dir, path) = file("batch.mbox", &text);
    let (_, read) = read_all(paths(&[&path]), options()).unwrap();
    let got = recipients(&read);
    assert_eq!(got[0], ["a@x.test"]);
    assert_eq!(
        got[1],
        [
            "b@x.test",
            "!bad address in To: unexpected 'a': no at",
            "c@x.test"
        ]
    );
    assert_eq!(got[2], ["!a NUL byte"]);
    assert_eq!(got[3], ["!no recipient"]);
    assert_eq!(
        got[4],
        ["!a header line that is no field (no name and colon)"]
    );
    assert_eq!(got[5], ["!it bears Received but no X-Envelope-To"]);
    assert_eq!(got[6], ["!no header"]);
    assert_eq!(got[7], ["g@x.test"]);
    let line = |needle: &str| text[..text.find(needle).unwrap()].matches('\n').count() + 1;
    let place = |needle: &str| {
        format!(
            "line {} (byte {})",
            line(needle),
            text.find(needle).unwrap()
        )
    };
    let name = path.display();
    assert_eq!(
        read[1].problems,
        [format!(
            "{name}: message 2, {}: bad address in To: unexpected 'a': no at",
            place("at, c@x")
        )]
    );
    assert_eq!(
        read[2].problems,
        [format!("{name}: message 3, {}: a NUL byte", place("\0"))]
    );
    assert_eq!(
        read[4].problems,
        [format!(
            "{name}: message 5, {}: a header line that is no field (no name and colon)",
            place("no field")
        )]
    );
}

#[test]
fn an_inbox_goes_out_if_asked_for() {
    let (_dir, path) = file(
        "inbox",
        format!("{FROM}Received: from z\nDelivered-To: f@x.test\nTo: f@x.test\n\nhi\n"),
    );
    let options = ReadOptions {
        resend: true,
        ..options()
    };
    let (_, read) = read_all(paths(&[&path]), options).unwrap();
    assert_eq!(recipients(&read), [["f@x.test"]]);
}

#[test]
fn lines_that_look_like_separators_are_reported_and_sent() {
    let text = format!("{FROM}To: a@x.test\n\nFrom here\n\nFrom there\n{FROM}To: b@x.test\n");
    let (_dir, path) = file("batch.mbox", &text);
    let (store, read) = read_all(paths(&[&path]), options()).unwrap();
    assert_eq!(recipients(&read), [["a@x.test"]]);
    let name = path.display();
    assert_eq!(
        read[0].problems,
        [
            format!(
                "{name}: message 1, line 4 (byte {}): a line begins with 'From ' but bears no date; taken as content",
                text.find("From here").unwrap()
            ),
            format!(
                "{name}: message 1, line 6 (byte {}): a line begins with 'From ' but bears no date; taken as content",
                text.find("From there").unwrap()
            ),
            format!(
                "{name}: message 1, line 7 (byte {}): a From_ line does not follow an empty line; taken as content",
                text.rfind("From x").unwrap()
            ),
        ]
    );
    assert!(sent(&store, 0).contains("From here\r\n\r\nFrom there\r\nFrom x"));
}

#[test]
fn ten_megabytes_of_header_line_hurt_their_own_message_only() {
    let long = "x".repeat(10 << 20);
    let text = format!("{FROM}To: a@x.test\nSubject: {long}\n\nhi\n\n{FROM}To: b@x.test\n\nhi\n");
    let (_dir, path) = file("batch.mbox", &text);
    let (_, read) = read_all(paths(&[&path]), options()).unwrap();
    assert_eq!(
        recipients(&read),
        [["!a header line of more than 1048576 bytes"], ["b@x.test"]]
    );
    let at = text.find("Subject").unwrap();
    assert!(read[0].problems[0].contains(&format!("message 1, line 3 (byte {at})")));
}

#[test]
fn what_changed_after_intake_is_never_sent() {
    let text = format!(
        "{FROM}To: a@x.test\n\none\n\n{FROM}To: b@x.test\n\ntwo\n\n{FROM}To: c@x.test\n\nthree\n"
    );
    let (_dir, path) = file("batch.mbox", &text);
    let (store, _) = read_all(paths(&[&path]), options()).unwrap();
    let mut content = Content::new();
    fs::write(&path, text.replace("one", "eno")).unwrap();
    assert!(matches!(
        store.load(MessageNo(0), &mut content),
        Err(ContentError::Changed)
    ));
    assert!(content.bytes().is_empty());
    assert!(store.load(MessageNo(1), &mut content).is_ok());
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(text.len() as u64 - 1)
        .unwrap();
    assert!(matches!(
        store.load(MessageNo(2), &mut content),
        Err(ContentError::Changed)
    ));
    assert!(store.mailbox(&content, RecipientNo(2)).is_err());
}

#[test]
fn a_renamed_mbox_is_still_read() {
    let (dir, path) = file("batch.mbox", format!("{FROM}To: a@x.test\n\none\n"));
    let (store, _) = read_all(paths(&[&path]), options()).unwrap();
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    assert!(sent(&store, 0).ends_with("one\r\n"));
}

#[test]
fn a_truncated_mboxcl2_says_so() {
    let (_dir, path) = file(
        "batch.mbox",
        format!("{FROM}To: a@x.test\nContent-Length: 9\n\ntwo\n"),
    );
    let options = ReadOptions {
        flavour: Some(MboxFlavour::Cl2),
        ..options()
    };
    let (_, read) = read_all(paths(&[&path]), options).unwrap();
    assert_eq!(
        recipients(&read),
        [["!the file ends 5 bytes before Content-Length says"]]
    );
}

#[test]
fn the_from_option_is_the_reverse_path() {
    let (_dir, path) = file("a.eml", "From: s@x.test\nTo: a@x.test\n\nhi\n");
    let from = Some(ReversePath::parse(b"<>").unwrap());
    let (store, _) = read_all(paths(&[&path]), ReadOptions { from, ..options() }).unwrap();
    let mut content = Content::new();
    store.load(MessageNo(0), &mut content).unwrap();
    assert_eq!(content.reverse_path(), &ReversePath::Null);
}

#[test]
fn one_message_goes_to_very_many() {
    let dir = tempfile::tempdir().unwrap();
    let message = dir.path().join("a.eml");
    fs::write(
        &message,
        "Received: from z\nFrom: s@x.test\nTo: \"All of you\" <list@x.test>\n\nhi\n",
    )
    .unwrap();
    let list = dir.path().join("list");
    let mut text = String::new();
    for i in 0..9000 {
        text += &format!("r{i}@x.test\r\n");
    }
    text += "\n  Ann <r7@X.test>\nno address\n<a@x.test> junk\n";
    text += &format!("{}@x.test\nlast@x.test", "y".repeat(300_000));
    fs::write(&list, &text).unwrap();
    let many = |to_file: &Path| ReadOptions {
        to_file: Some(to_file.to_path_buf()),
        ..options()
    };
    let (store, read) = read_all(paths(&[&message]), many(&list)).unwrap();
    let got = &read[0].recipients;
    assert_eq!(
        (got.len(), got[0].as_str(), got[8999].as_str()),
        (9004, "r0@x.test", "r8999@x.test")
    );
    assert_eq!(
        got[9000..],
        [
            "!bad address in the list of recipients: unexpected 'a': no address",
            "!bad address in the list of recipients: text after '>': <a@x.test> junk",
            "!bad address in the list of recipients: address of more than 254 octets",
            "last@x.test"
        ]
    );
    let at = text.find("<a@x").unwrap();
    assert!(read[0].problems[1].starts_with(&format!(
        "{}: message 1, line 9004 (byte {at})",
        list.display()
    )));
    // The list may be rewritten while the batch is sent.
    fs::write(&list, "other@x.test\n").unwrap();
    assert_eq!(store.recipient_text(RecipientNo(5000)), "r5000@x.test");

    let two = dir.path().join("two");
    fs::write(
        &two,
        format!("{FROM}To: a@x.test\n\n\n{FROM}To: b@x.test\n\n"),
    )
    .unwrap();
    let error_of = |message: &Path, list: &Path| error(paths(&[message]), many(list));
    assert!(
        error_of(&two, &list)
            .to_string()
            .contains("more than the one message")
    );
    fs::write(&list, "\n").unwrap();
    assert!(
        error_of(&message, &list)
            .to_string()
            .ends_with("names no recipient")
    );
    assert_eq!(
        error_of(&message, &dir.path().join("none")).kind(),
        BatchErrorKind::NoInput
    );
}

#[test]
fn a_file_of_a_maildir_that_vanished_is_a_row_of_the_report() {
    let dir = tempfile::tempdir().unwrap();
    for part in ["new", "cur"] {
        fs::create_dir(dir.path().join(part)).unwrap();
    }
    for name in ["1", "2", "3"] {
        fs::write(
            dir.path().join("new").join(name),
            format!("From: s@x.test\nTo: r{name}@x.test\n\n"),
        )
        .unwrap();
    }
    let store = Arc::new(BatchStore::new(options()));
    let mut reader = BatchReader::open(paths(&[dir.path()]), store.clone()).unwrap();
    fs::remove_file(dir.path().join("new/2")).unwrap();
    let mut outcomes = Vec::new();
    while let Some(arrival) = reader.next_arrival().unwrap() {
        outcomes.push(arrival.recipients[0].outcome.is_ok());
    }
    assert_eq!(outcomes, [true, false, true]);
}

#[test]
fn inspect_tells_what_would_be_sent() {
    let text = format!(
        "{FROM}From: S <s@x.test>\nTo: a@x.test, b@\nBcc: c@x.test\nMessage-ID: <1>\n\nhi\n\n{FROM}To: d@x.test\n\na\rb\n"
    );
    let (_dir, path) = file("batch.mbox", &text);
    let mut all = Vec::new();
    inspect(paths(&[&path]), options(), |inspected| all.push(inspected)).unwrap();
    let sent = format!(
        "Date: {DATE}\r\nFrom: S <s@x.test>\r\nTo: a@x.test, b@\r\nMessage-ID: <1>\r\n\r\nhi\r\n"
    );
    let digest = {
        use sha2::Digest;
        mailer::mbox::canonical::hex(&sha2::Sha256::digest(&sent))
    };
    let first = &all[0];
    assert_eq!((first.message, first.offset), (1, 0));
    assert_eq!(first.bytes, text.find(&format!("\n{FROM}")).unwrap() as u64);
    assert_eq!(first.reverse_path.as_deref(), Some("x@y.test"));
    let recipients: Vec<_> = first
        .recipients
        .iter()
        .map(|r| (r.address.as_str(), r.problem.is_none()))
        .collect();
    assert_eq!(
        recipients,
        [("a@x.test", true), ("b@", false), ("c@x.test", true)]
    );
    assert_eq!(first.sha256.as_deref(), Some(digest.as_str()));
    assert_eq!(first.sent_bytes, Some(sent.len() as u64));
    assert_eq!((all[1].sha256.as_deref(), all[1].problems.len()), (None, 1));
    assert_eq!(all[1].recipients[0].address, "d@x.test");
}

#[test]
fn a_problem_becomes_a_verdict_of_one_line() {
    let (_dir, path) = file("batch.mbox", format!("{FROM}To: a\x1b[2J@x.test\n\nhi\n"));
    let store = Arc::new(BatchStore::new(options()));
    let mut reader = BatchReader::open(paths(&[&path]), store).unwrap();
    let arrival = reader.next_arrival().unwrap().unwrap();
    let verdict = arrival.recipients[0]
        .outcome
        .as_ref()
        .unwrap_err()
        .verdict();
    assert_eq!(verdict.status.name(), "invalid");
    assert!(!verdict.text.contains(char::is_control), "{}", verdict.text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_file_gives_every_message_a_row(
        pieces in prop::collection::vec(prop::sample::select(vec![
            FROM, "From x\n", "To: a@x.test\n", "To: a@, b@x.test\n", "Cc: c@x.test,\n d@x.test\n", "X-Envelope-To: <e@x.test>\n",
            "Received: y\n", "Content-Length: 4\n", "\n", "\r\n", "\r", "\0", "ü", "text\n", ">From x\n", "Bcc: (x) g@x.test\n",
        ]), 0..40),
        flavour in prop::sample::select(vec![MboxFlavour::Rd, MboxFlavour::O, MboxFlavour::Cl2]),
        piece_len in 1..50_usize,
    ) {
        let bytes = [FROM, &pieces.concat()].concat().into_bytes();
        let wanted = ReadOptions { flavour: Some(flavour), ..options() };
        let (_dir, path) = file("any", &bytes);
        let (_, from_file) = read_all(paths(&[&path]), wanted.clone()).unwrap();
        let (inputs, _) = stream(bytes.chunks(piece_len).map(<[u8]>::to_vec).collect());
        let (_, from_stream) = read_all(inputs, wanted).unwrap();
        prop_assert_eq!(recipients(&from_file), recipients(&from_stream));
        prop_assert!(!from_file.is_empty());
    }
}

#[test]
fn a_stream_that_fails_is_an_error_with_its_name() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is on fire"))
        }
    }
    let head = io::Cursor::new(format!("{FROM}To: a@x.test\n\n"));
    let input = Input::Stream("standard input".to_owned(), Box::new(head.chain(Broken)));
    let error = error(vec![input], options());
    assert_eq!(error.kind(), BatchErrorKind::IoErr);
    assert!(error.to_string().contains("the disk is on fire"));
}

#[test]
fn a_batch_that_grows_while_it_is_read_does_no_harm() {
    let (_dir, path) = file("batch.mbox", format!("{FROM}To: a@x.test\n\none\n\n"));
    let store = Arc::new(BatchStore::new(options()));
    let mut reader = BatchReader::open(paths(&[&path]), store.clone()).unwrap();
    let mut appended = fs::OpenOptions::new().append(true).open(&path).unwrap();
    write!(appended, "{FROM}To: b@x.test\n\ntwo\n").unwrap();
    while reader.next_arrival().unwrap().is_some() {}
    assert_eq!(store.message_count(), 2);
    assert!(sent(&store, 1).ends_with("two\r\n"));
}
