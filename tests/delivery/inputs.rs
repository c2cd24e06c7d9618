//! From what a batch can be read: standard input while it arrives, files, Maildirs, lists of recipients; and files that
//! change under way.

use std::collections::BTreeMap;
use std::path::Path;

use crate::batch::{Batch, FROM_LINE, message};
use crate::lab::{Ended, Lab};

#[test]
fn messages_on_standard_input_are_delivered_while_they_arrive() {
    let lab = Lab::with_rules(&[]);
    let mut program = lab.start_with(&["-"], &[]);
    program.write(FROM_LINE);
    for n in 1..=10usize {
        // The line that begins the next message ends this one; nothing of the next is there yet.
        let recipient = format!("u@d{n}.test");
        program.write(format!("{}x\n\n{FROM_LINE}", message(n, &[&recipient], "")));
        lab.wait_until(|stats| stats.messages == n as u64);
    }
    program.write(message(11, &["u@d11.test"], "") + "x\n");
    lab.assert_all_delivered(&program.wait(), 11);
}

#[test]
fn files_maildirs_and_single_messages_are_one_batch_in_their_order() {
    let lab = Lab::with_rules(&[]);
    for sub in ["m", "m/new", "m/cur", "m/tmp"] {
        std::fs::create_dir(lab.path(sub)).unwrap();
    }
    let text = |n: usize| message(n, &[&format!("u{n}@d{}.test", n % 3)], "") + "x\n";
    let mbox = lab.file(
        "a.mbox",
        Batch::to_each(["u1@d1.test", "u2@d2.test"]).bytes(),
    );
    lab.file("m/new/1.a", text(3));
    lab.file("m/cur/2.b:2,S", text(4));
    lab.file("m/tmp/3.c", text(99));
    let single = lab.file("b.eml", text(5));
    let mut program = lab.start_with(&[], &[&mbox, &lab.path("m"), Path::new("-"), &single]);
    program.write(message(5, &["v5@d1.test"], "").replace("<5@", "<6@") + "x\n");
    let ended = program.wait();
    ended.assert_status(0);
    let recipients: Vec<&str> = ended
        .rows
        .iter()
        .map(|row| row.recipient.as_str())
        .collect();
    assert_eq!(recipients.len(), 6, "{recipients:?}");
    assert_eq!(recipients[..2], ["u1@d1.test", "u2@d2.test"]);
    assert_eq!(recipients[4..], ["v5@d1.test", "u5@d2.test"]);
    let mut arrived: Vec<String> = lab
        .sink
        .messages()
        .into_iter()
        .flat_map(|one| one.recipients)
        .collect();
    let mut reported = recipients
        .iter()
        .map(|one| one.to_string())
        .collect::<Vec<_>>();
    arrived.sort();
    reported.sort();
    assert_eq!(arrived, reported);
    lab.assert_clean();
}

#[test]
fn one_message_goes_to_three_thousand_recipients_of_a_file() {
    let lab = Lab::with_rules(&["stage=rcpt reply=\"550 5.1.1 unknown\" first=1"]);
    let list: String = (0..3000)
        .map(|n| format!("u{n}@d{}.test\n", n % 30))
        .collect();
    let list = lab.file("members.txt", list);
    let letter = "From: a@batch.test\nTo: members:;\nMessage-ID: <1@batch.test>\n\nhello\n";
    let letter = lab.file("letter.eml", letter);
    let arguments = [
        "--from",
        "news@batch.test",
        "--to-file",
        list.to_str().unwrap(),
    ];
    let ended = lab.start_with(&arguments, &[&letter]).wait();
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    assert_eq!(
        (ended.count("delivered"), ended.count("refused")),
        (2999, 1)
    );
    let messages = lab.sink.messages();
    assert!(
        messages
            .iter()
            .all(|one| one.recipients.len() <= 50 && one.reverse_path == "news@batch.test")
    );
    assert!(
        messages.len() <= 30 * 3,
        "recipients share transactions: {}",
        messages.len()
    );
}

/// The bodies that arrived, by recipient.
fn bodies(lab: &Lab) -> BTreeMap<String, String> {
    let body = |content: Vec<u8>| {
        String::from_utf8(content)
            .unwrap()
            .split_once("\r\n\r\n")
            .unwrap()
            .1
            .to_owned()
    };
    let messages = lab.sink.messages().into_iter();
    messages
        .map(|one| (one.recipients[0].clone(), body(one.content)))
        .collect()
}

#[test]
fn quoting_of_each_mbox_flavour_is_taken_away() {
    let body = ">From a\n>>From b\nend\n";
    for (flavour, expected) in [
        ("mboxrd", "From a\r\n>From b\r\nend\r\n"),
        ("mboxo", "From a\r\n>>From b\r\nend\r\n"),
    ] {
        let lab = Lab::with_rules(&[]);
        let mut batch = Batch::default();
        batch
            .add_with(&["u@a.test"], "", body.as_bytes())
            .add(&["v@a.test"]);
        let ended = lab.send(&batch, &["--mbox", flavour]);
        lab.assert_all_delivered(&ended, 2);
        assert_eq!(bodies(&lab)["u@a.test"], expected, "{flavour}");
    }
}

#[test]
fn content_length_decides_where_messages_of_an_mboxcl2_end() {
    let lab = Lab::with_rules(&[]);
    let body = "one\n\nFrom here on it is still the same message\n\n>From unquoted\n";
    let mut batch = Batch::default();
    let field = format!("Content-Length: {}\n", body.len());
    batch.add_with(&["u@a.test"], &field, body.as_bytes());
    batch.add_with(&["v@a.test"], "Content-Length: 6\n", b"hello\n");
    let ended = lab.send(&batch, &["--mbox", "mboxcl2"]);
    lab.assert_all_delivered(&ended, 2);
    assert_eq!(bodies(&lab)["u@a.test"], body.replace('\n', "\r\n"));
}

#[test]
fn a_recipient_named_twice_in_a_message_gets_it_once() {
    let lab = Lab::with_rules(&[]);
    let mut batch = Batch::default();
    batch
        .add(&["u@a.test", "u@A.TEST", "v@a.test", "u@a.test"])
        .add(&["u@a.test"]);
    let ended = lab.send(&batch, &[]);
    lab.assert_all_delivered(&ended, 3);
}

/// Delivers 20 messages by one worker, changes the file while the reply to the first is held back, and asserts that
/// nothing but the first is sent. Returns the end of the run.
#[track_caller]
fn change_under_way(change: impl FnOnce(&Path)) -> Ended {
    let lab = Lab::with_rules(&["stage=dot delay=3s first=1"]);
    let program = lab.start(&Batch::to_domain("a.test", 20), &["--max-workers", "1"]);
    // It is counted before its reply is held back, and the next message is read when the reply is there.
    lab.wait_until(|stats| stats.messages == 1);
    change(&lab.path("batch.mbox"));
    let ended = program.wait();
    ended.assert_status(1);
    assert_eq!(
        (ended.count("delivered"), ended.count("invalid")),
        (1, 19),
        "{}",
        ended.odd()
    );
    assert_eq!(lab.received(), [(1, "u1@a.test".to_owned())]);
    for (n, row) in ended.rows.iter().enumerate() {
        assert_eq!(row.recipient, format!("u{}@a.test", n + 1), "{row:?}");
    }
    lab.assert_clean();
    ended
}

#[test]
fn what_a_changed_file_holds_is_never_sent() {
    let ended = change_under_way(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, text.replace("hello", "hullo")).unwrap();
    });
    let row = ended.rows.last().unwrap();
    assert!(row.reply.contains("changed after it was read"), "{row:?}");
    assert_eq!(
        (row.stage.as_str(), row.recipient.as_str()),
        ("batch", "u20@a.test")
    );
}

#[test]
fn what_a_truncated_file_does_not_hold_any_more_is_invalid() {
    change_under_way(|path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(100).unwrap();
    });
}

#[test]
fn a_message_without_an_empty_line_before_it_reaches_nobody_it_is_not_for() {
    let text = format!(
        "{FROM_LINE}{}for one\n{FROM_LINE}{}for two\n\n{FROM_LINE}{}for three\n",
        message(1, &["x1@a.test"], ""),
        message(2, &["x2@a.test"], ""),
        message(3, &["x3@a.test"], "")
    );
    let lab = Lab::with_rules(&[]);
    let path = lab.file("batch.mbox", &text);
    let ended = lab.start_with(&[], &[&path]).wait();
    ended.assert_status(1);
    let row = ended.row("x1@a.test");
    assert_eq!(row.status, "invalid", "{row:?}");
    assert!(
        row.reply
            .contains("a From_ line without an empty line before it"),
        "{row:?}"
    );
    assert!(
        ended.stderr.contains("put an empty line before it"),
        "{}",
        ended.stderr
    );
    assert_eq!(lab.received(), [(3, "x3@a.test".to_owned())]);
    assert_eq!(bodies(&lab)["x3@a.test"], "for three\r\n");
    lab.assert_clean();

    let strict = Lab::with_rules(&[]);
    let path = strict.file("batch.mbox", &text);
    let ended = strict.start_with(&["--strict"], &[&path]).wait();
    ended.assert_status(65);
    assert_eq!(strict.received(), []);
}

#[test]
fn a_file_that_is_replaced_or_removed_under_way_changes_nothing() {
    let lab = Lab::with_rules(&["stage=dot delay=1s first=1"]);
    let program = lab.start(&Batch::to_domain("a.test", 20), &["--max-workers", "1"]);
    lab.wait_until(|stats| stats.messages == 1);
    std::fs::remove_file(lab.path("batch.mbox")).unwrap();
    lab.assert_all_delivered(&program.wait(), 20);
}

#[test]
fn a_spool_that_is_full_ends_the_reading_and_what_was_read_is_delivered() {
    let lab = Lab::with_rules(&[]);
    let mut batch = Batch::default();
    for n in 0..2500 {
        let body = "0123456789\n".repeat(200);
        batch.add_with(&[&format!("u{n}@a.test")], "", body.as_bytes());
    }
    // The shell's unit is 512 or 1024 bytes.
    let limits = "trap '' XFSZ; ulimit -f 4000";
    let ended = lab.send_limited(limits, &batch, &[]);
    ended.assert_status(74);
    let read = ended.rows.len();
    assert!((500..2400).contains(&read), "{read}");
    assert_eq!(ended.count("delivered"), read, "{}", ended.odd());
    lab.assert_agrees(&ended);
    let state = lab.path("state");
    let told = format!("{}/jobs/", state.display());
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    let told = ": cannot write the spool";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    let how_far = format!("; {read} messages were read before, standard input up to byte ");
    assert!(ended.stderr.contains(&how_far), "{}", ended.stderr);
}
