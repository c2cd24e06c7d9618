//! Where messages come from: mbox files, files of one message, Maildirs, streams.

use super::*;
use mailer::mail::ReversePath;
use mailer::mbox::MboxFlavour;
use proptest::prelude::*;
use std::io::Write;

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
    let mut content = Content::new();
    store.load(MessageNo(0), &mut content).unwrap();
    assert!(store.mailbox(&content, RecipientNo(1)).is_ok());
    let of_another_message = store.mailbox(&content, RecipientNo(2));
    assert!(of_another_message.is_err(), "{of_another_message:?}");
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
fn a_byte_order_mark_belongs_to_no_message() {
    let message = "Subject: x\nFrom: s@x.test\nTo: a@x.test\nDate: x\nMessage-ID: <1>\n\nhi\n";
    let dir = tempfile::tempdir().unwrap();
    for part in ["new", "cur"] {
        fs::create_dir_all(dir.path().join("md").join(part)).unwrap();
    }
    let mbox = format!("{FROM}{message}");
    for (name, text) in [
        ("md/new/1", message),
        ("md/new/2", message),
        ("a.eml", message),
        ("mbox", &mbox),
    ] {
        // One of the files of the Maildir has none.
        let mark = if name.ends_with('2') { "" } else { "\u{feff}" };
        fs::write(dir.path().join(name), format!("{mark}{text}")).unwrap();
    }
    let mut inputs: Vec<Input> = ["md", "a.eml", "mbox"]
        .map(|name| Input::Path(dir.path().join(name)))
        .into();
    let bytes = format!("\u{feff}{mbox}");
    inputs.extend(stream(bytes.bytes().map(|b| vec![b]).collect()).0);
    let (store, read) = read_all(inputs, options()).unwrap();
    assert_eq!(recipients(&read), [["a@x.test"]; 5]);
    for n in 0..5 {
        assert_eq!(sent(&store, n), message.replace('\n', "\r\n"), "{n}");
    }
    let offsets: Vec<u64> = (0..5)
        .map(|n| store.place(MessageNo(n)).unwrap().1)
        .collect();
    assert_eq!(offsets, [0, 0, 3, 3, 3]);
}

#[test]
fn a_renamed_mbox_is_still_read() {
    let (dir, path) = file("batch.mbox", format!("{FROM}To: a@x.test\n\none\n"));
    let (store, _) = read_all(paths(&[&path]), options()).unwrap();
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    assert!(sent(&store, 0).ends_with("one\r\n"));
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
        let (mut in_file, mut in_stream) = (recipients(&from_file), recipients(&from_stream));
        prop_assert!(!in_file.is_empty());
        // A file may end within a line. Of a stream that does so nobody knows whether it was cut off.
        if !bytes.ends_with(b"\n") {
            let (last, same) = (in_stream.pop().unwrap_or_default(), in_file.pop().unwrap_or_default());
            let is_cut = last.concat().contains("ends here, within a line");
            prop_assert!(is_cut || last == same, "{:?}", last);
        }
        prop_assert_eq!(in_file, in_stream);
    }
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
