//! What cannot be read or sent: refused by name and place, and nothing else with it.

use super::*;
use mailer::batch::BatchErrorKind;
use mailer::mbox::MboxFlavour;

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
        (write("wide", b"\xff\xfeF\0r\0o\0m\0"), DataErr, "is UTF-16"),
        (
            write("mac", b"From: a@x.test\rTo: b@x.test\r\rhi\r"),
            DataErr,
            "lines end in bare CR (old Mac)",
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
}

#[test]
fn who_has_a_compressed_batch_is_told_what_to_type() {
    let (_dir, gz) = file("gz", b"\x1f\x8b\x08\0\0");
    let inspecting = ReadOptions {
        command: "inspect",
        ..options()
    };
    assert_eq!(
        error(paths(&[&gz]), inspecting.clone()).hint().unwrap(),
        format!(
            "decompress it first, for instance: zcat {} | mailer inspect -",
            gz.display()
        )
    );
    let (inputs, _) = stream(vec![fs::read(&gz).unwrap()]);
    assert_eq!(
        error(inputs, inspecting).hint().unwrap(),
        "decompress it on its way: ... | zcat | mailer inspect -"
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
    // A directory below a file: nobody can make it, not even root in another test.
    let (_dir, path) = file("file", "");
    let options = ReadOptions {
        spool_dir: path.join("spool"),
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
fn lines_that_begin_like_separators_are_reported_and_sent() {
    let text = format!("{FROM}To: a@x.test\n\nFrom here\n\nFrom there\n");
    let (_dir, path) = file("batch.mbox", &text);
    let (store, read) = read_all(paths(&[&path]), options()).unwrap();
    assert_eq!(recipients(&read), [["a@x.test"]]);
    let warning = |line: usize, needle: &str| {
        format!(
            "{}: message 1, line {line} (byte {}): a line begins with 'From ' but bears no date; taken as content",
            path.display(),
            text.find(needle).unwrap()
        )
    };
    assert_eq!(
        read[0].problems,
        [warning(4, "From here"), warning(6, "From there")]
    );
    assert!(sent(&store, 0).ends_with("From here\r\n\r\nFrom there\r\n"));
}

#[test]
fn two_messages_that_became_one_go_to_nobody() {
    let text = format!(
        "{FROM}To: a@x.test\n\nfor a\n{FROM}To: b@x.test\n\nfor b\n\n{FROM}To: c@x.test\n\nfor c\n"
    );
    let (_dir, path) = file("batch.mbox", &text);
    let (_, read) = read_all(paths(&[&path]), options()).unwrap();
    let refused = "!a From_ line without an empty line before it";
    assert_eq!(recipients(&read), [[refused], ["c@x.test"]]);
    let at = text.find(&format!("{FROM}To: b")).unwrap();
    assert!(read[0].problems[0].contains(&format!("message 1, line 5 (byte {at})")));
}

#[test]
fn a_marked_mbox_behind_another_one_does_not_get_lost_in_it() {
    let one = format!("\u{feff}{FROM}To: a@x.test\n\n\u{feff}From afar\n\n");
    let two = format!("\u{feff}{FROM}To: b@x.test\n\nfor b\n\n{FROM}To: c@x.test\n\nfor c\n");
    let text = format!("{one}{two}");
    let refused = "!a From_ line with a byte order mark before it";
    for piece_len in [1, 7, 1000] {
        let (inputs, _) = stream(
            text.as_bytes()
                .chunks(piece_len)
                .map(<[u8]>::to_vec)
                .collect(),
        );
        let (_, read) = read_all(inputs, options()).unwrap();
        assert_eq!(recipients(&read), [[refused], ["c@x.test"]]);
        let at = text.rfind('\u{feff}').unwrap();
        assert!(
            read[0].problems[0].contains(&format!("line 6 (byte {at})")),
            "{:?}",
            read[0].problems
        );
    }
    let (inputs, _) = stream(vec![one.clone().into_bytes()]);
    assert_eq!(
        recipients(&read_all(inputs, options()).unwrap().1),
        [["a@x.test"]]
    );
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
fn a_header_that_is_too_large_says_which_limit_it_is() {
    let field = format!("X-A: {}\n", "x".repeat(900)).repeat(1200);
    let (_dir, path) = file("batch.mbox", format!("{FROM}To: a@x.test\n{field}\nhi\n"));
    let (_, read) = read_all(paths(&[&path]), options()).unwrap();
    let said = "!a header of more than 1048576 bytes, lists of recipients not counted";
    assert_eq!(recipients(&read), [[said]]);
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
fn a_changed_file_does_not_change_whom_a_report_names() {
    let text = format!(
        "{FROM}To: a@x.test, \"b c\"@X.test (z), ü\x1b@, d@bücher.test\n\none\n\n{FROM}To: e@x.test\n\n\0\n"
    );
    let (_dir, path) = file("batch.mbox", &text);
    let (store, read) = read_all(paths(&[&path]), options()).unwrap();
    assert_eq!(read.len(), 2);
    let named = || -> Vec<String> {
        (0..5)
            .map(|n| store.recipient_text(RecipientNo(n)))
            .collect()
    };
    let want = [
        "a@x.test",
        "\"b c\"@x.test",
        "ü?@",
        "d@xn--bcher-kva.test",
        "e@x.test",
    ];
    assert_eq!(named(), want);
    for changed in [
        text.replace('x', "yy"),
        text[..50].to_owned(),
        String::new(),
    ] {
        fs::write(&path, changed).unwrap();
        assert_eq!(named(), want);
    }
}

#[test]
fn a_message_in_hand_is_not_read_again_for_its_next_recipients() {
    let (_dir, path) = file(
        "batch.mbox",
        format!("{FROM}To: a@x.test, b@x.test, c@\n\none\n"),
    );
    let (store, _) = read_all(paths(&[&path]), options()).unwrap();
    let mut content = Content::new();
    store.load(MessageNo(0), &mut content).unwrap();
    fs::write(&path, "").unwrap();
    store.load(MessageNo(0), &mut content).unwrap();
    assert!(content.bytes().ends_with(b"one\r\n"));
    let second = store.mailbox(&content, RecipientNo(1)).unwrap();
    assert_eq!(second.as_str(), "b@x.test");
    let bad = store.mailbox(&content, RecipientNo(2));
    assert!(matches!(bad, Err(ContentError::Invalid)), "{bad:?}");
    let changed = store.load(MessageNo(0), &mut Content::new());
    assert!(matches!(changed, Err(ContentError::Changed)), "{changed:?}");
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
