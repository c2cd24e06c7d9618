//! One message to very many, and what `inspect` tells.

use super::*;
use mailer::batch::{BatchErrorKind, inspect};

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
    assert!(
        read[0].problems[1].starts_with(&format!("{}: line 9004 (byte {at}): ", list.display()))
    );
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
fn a_list_may_have_a_byte_order_mark_comments_and_blank_lines() {
    let (dir, list) = file(
        "list",
        "\u{feff}a@x.test\n# not: b@x.test\n\n \t\n  #c@x.test\nno address\r\nd@x.test\n",
    );
    let message = dir.path().join("a.eml");
    fs::write(&message, "From: s@x.test\n\nhi\n").unwrap();
    let options = ReadOptions {
        to_file: Some(list.clone()),
        ..options()
    };
    let (store, read) = read_all(paths(&[&message]), options).unwrap();
    let bad = "!bad address in the list of recipients: unexpected 'a': no address";
    assert_eq!(recipients(&read), [["a@x.test", bad, "d@x.test"]]);
    assert!(read[0].problems[0].starts_with(&format!("{}: line 6 (byte ", list.display())));
    assert_eq!(store.recipient_text(RecipientNo(2)), "d@x.test");
}

#[test]
fn what_is_no_list_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let message = dir.path().join("a.eml");
    fs::write(&message, "From: s@x.test\n\nhi\n").unwrap();
    let list = dir.path().join("list");
    let error_of = |list: &Path| {
        let to_file = Some(list.to_path_buf());
        error(
            paths(&[&message]),
            ReadOptions {
                to_file,
                ..options()
            },
        )
    };
    let utf16: Vec<u8> = "\u{feff}a@x.test\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let many_bad = "x\n".repeat(22);
    for (bytes, text) in [
        (
            &b"\x1f\x8b\x08\x08abc\x00\nx\ny\nz"[..],
            "list: is gzip-compressed",
        ),
        (b"BZh91AY&SY\x01\xff\n\xfe\n", "list: is bzip2-compressed"),
        (
            b"a@x.test\nELF\0\n",
            "list: is no list of addresses: a control character at byte 12",
        ),
        (&utf16, "list: is UTF-16"),
        (
            many_bad.as_bytes(),
            "list: names no recipient: not one of its 22 lines is an address",
        ),
        (b"\xef\xbb\xbf", "list: names no recipient"),
        (b"#\n", "list: names no recipient"),
    ] {
        fs::write(&list, bytes).unwrap();
        let error = error_of(&list);
        assert_eq!(error.kind(), BatchErrorKind::DataErr, "{error}");
        assert!(error.to_string().ends_with(text), "{error}");
    }
    let directory = error_of(dir.path());
    assert_eq!(directory.kind(), BatchErrorKind::NoInput);
    assert!(
        directory
            .to_string()
            .ends_with("is a directory, not a list of addresses")
    );
    fs::write(&list, b"J\xfcrgen <a@x.test>\nBZh@x.test\nb\x1b@x.test\n").unwrap();
    let to_file = Some(list);
    let (_, read) = read_all(
        paths(&[&message]),
        ReadOptions {
            to_file,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(recipients(&read)[0][..2], ["a@x.test", "BZh@x.test"]);
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
