//! What servers offer, refuse and leave out; and that content arrives octet for octet.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use mailer::sink::SinkConfig;
use sha2::{Digest, Sha256};

use crate::batch::Batch;
use crate::lab::{Ended, Lab, keeping};
use crate::retries::NO_RETRY;

const EIGHT_BIT: &str =
    "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n";

/// A receiver whose offers are changed by `change`.
fn offering(change: impl FnOnce(&mut SinkConfig)) -> Lab {
    let mut config = keeping(&[]);
    change(&mut config);
    Lab::new("SYNTHETIC", config)
}

/// Status, code, enhanced status, class and stage of a recipient's row.
#[track_caller]
fn verdict<'a>(ended: &'a Ended, recipient: &str) -> [&'a str; 5] {
    let row = ended.row(recipient);
    [
        &row.status,
        &row.code,
        &row.enhanced,
        &row.class,
        &row.stage,
    ]
    .map(String::as_str)
}

#[test]
fn a_server_that_knows_only_helo_gets_everything() {
    let lab = offering(|config| config.server.helo_only = true);
    let ended = lab.send(&Batch::to_domain("old.test", 30), &NO_RETRY);
    lab.assert_all_delivered(&ended, 30);
}

#[test]
fn a_server_without_extensions_gets_everything_in_lock_step() {
    let lab = offering(|config| {
        let server = &mut config.server;
        (server.pipelining, server.eight_bit_mime, server.smtputf8) = (false, false, false);
        (server.enhanced_status_codes, server.size) = (false, false);
    });
    let batch = Batch::to_domain("plain.test", 30);
    let ended = lab.send(&batch, &[&NO_RETRY[..], &["--max-workers", "1"]].concat());
    lab.assert_all_delivered(&ended, 30);
    let stats = lab.sink.stats();
    // MAIL, RCPT, DATA and the dot, each answered before the next leaves.
    assert!(stats.reused_turns_per_message() >= 4.0, "{stats}");
}

#[test]
fn a_server_with_pipelining_gets_an_envelope_in_one_flight() {
    let lab = offering(|_| {});
    let ended = lab.send(&Batch::to_domain("fast.test", 30), &["--max-workers", "1"]);
    lab.assert_all_delivered(&ended, 30);
    let stats = lab.sink.stats();
    assert!(stats.reused_turns_per_message() <= 2.0, "{stats}");
}

#[test]
fn eight_bit_mail_is_refused_where_the_server_cannot_take_it_and_arrives_unchanged_elsewhere() {
    let body = "Größe: 5 µm\n".as_bytes();
    for offered in [false, true] {
        let lab = offering(|config| config.server.eight_bit_mime = offered);
        let mut batch = Batch::default();
        batch
            .add_with(&["u@a.test"], EIGHT_BIT, body)
            .add(&["v@a.test"]);
        let ended = lab.send(&batch, &NO_RETRY);
        ended.assert_status(if offered { 0 } else { 1 });
        lab.assert_agrees(&ended);
        assert_eq!(ended.row("v@a.test").status, "delivered");
        if offered {
            let messages = lab.sink.messages();
            let eight = messages
                .iter()
                .find(|one| one.eight_bit)
                .expect("BODY=8BITMIME");
            assert!(eight.content.ends_with("Größe: 5 µm\r\n".as_bytes()));
        } else {
            assert_eq!(verdict(&ended, "u@a.test")[..3], ["refused", "", "5.6.3"]);
        }
    }
}

#[test]
fn an_address_beyond_ascii_needs_smtputf8() {
    for offered in [false, true] {
        let lab = offering(|config| config.server.smtputf8 = offered);
        let ended = lab.send(&Batch::to_each(["jürgen@a.test", "v@a.test"]), &NO_RETRY);
        ended.assert_status(if offered { 0 } else { 1 });
        lab.assert_agrees(&ended);
        let expected = if offered {
            ["delivered", "250", "2.0.0"]
        } else {
            ["refused", "", "5.6.7"]
        };
        assert_eq!(verdict(&ended, "jürgen@a.test")[..3], expected);
        assert_eq!(
            lab.sink
                .messages()
                .iter()
                .filter(|one| one.smtputf8)
                .count(),
            usize::from(offered)
        );
    }
}

#[test]
fn a_domain_beyond_ascii_is_sent_in_a_labels() {
    let lab = Lab::with_rules(&[]);
    let ended = lab.send(&Batch::to_each(["u@bücher.test"]), &[]);
    lab.assert_all_delivered(&ended, 1);
    assert_eq!(lab.sink.messages()[0].recipients, ["u@xn--bcher-kva.test"]);
}

#[test]
fn a_message_larger_than_the_server_takes_is_refused_before_it_is_sent() {
    let lab = offering(|config| config.server.content_bytes_max = 2000);
    let mut batch = Batch::default();
    batch
        .add_with(&["u@a.test"], "", "0123456789\n".repeat(500).as_bytes())
        .add(&["v@a.test"]);
    let ended = lab.send(&batch, &NO_RETRY);
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    assert_eq!(verdict(&ended, "u@a.test")[..3], ["refused", "", "5.3.4"]);
    assert_eq!(lab.sink.stats().refusals, 0, "it was not even asked");
}

#[test]
fn each_refusal_for_good_is_reported_with_the_words_of_the_server() {
    let rules = [
        "domain=rcpt.test stage=rcpt reply=\"550 5.1.1 no such user\"",
        "domain=data.test stage=data reply=\"554 5.5.1 no data\"",
        "domain=dot.test stage=dot reply=\"554 5.7.1 looks like spam\"",
        "domain=plain.test stage=rcpt reply=\"553 nobody\"",
        "domain=body.test stage=body reply=\"552 5.3.4 enough\"",
    ];
    let lab = Lab::with_rules(&rules);
    let names = ["rcpt", "data", "dot", "plain", "body", "fine"];
    let ended = lab.send(
        &Batch::to_each(names.map(|name| format!("u@{name}.test"))),
        &NO_RETRY,
    );
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    assert_eq!(
        verdict(&ended, "u@rcpt.test"),
        ["refused", "550", "5.1.1", "recipient", "rcpt"]
    );
    assert_eq!(
        verdict(&ended, "u@data.test"),
        ["refused", "554", "5.5.1", "message", "data"]
    );
    assert_eq!(
        verdict(&ended, "u@dot.test"),
        ["refused", "554", "5.7.1", "message", "dot"]
    );
    assert_eq!(verdict(&ended, "u@plain.test")[..2], ["refused", "553"]);
    assert_eq!(
        verdict(&ended, "u@body.test")[..3],
        ["refused", "552", "5.3.4"]
    );
    assert_eq!(verdict(&ended, "u@fine.test")[..1], ["delivered"]);
    assert!(ended.row("u@dot.test").reply.contains("looks like spam"));
    assert!(
        ended.stderr.contains("5 of 6 recipients failed"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_refused_sender_ends_the_message_and_not_the_session() {
    let lab = Lab::with_rules(&["stage=mail reply=\"550 5.7.1 not from you\" first=1"]);
    let ended = lab.send(&Batch::to_domain("a.test", 10), &["--max-workers", "1"]);
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    assert_eq!((ended.count("refused"), ended.count("delivered")), (1, 9));
    assert_eq!(lab.sink.stats().connections, 1);
}

#[test]
fn envelope_fields_and_blind_copies_never_leave() {
    let lab = Lab::with_rules(&[]);
    let mut batch = Batch::default();
    let fields = "Bcc: secret@elsewhere.test,\n more@elsewhere.test\nbCC : third@elsewhere.test\n\
                  Return-Path: <back@batch.test>\nx-envelope-to: <w@a.test>\n";
    batch.add_with(&["u@a.test"], fields, b"Bcc: in the body it is text\n");
    let plain =
        "From: sender@batch.test\nTo: x@a.test\nBcc: y@a.test\nMessage-ID: <2@batch.test>\n\ntwo\n";
    let first = lab.file("one.mbox", batch.bytes());
    let second = lab.file("two.eml", plain);
    let ended = lab.start_with(&[], &[&first, &second]).wait();
    lab.assert_all_delivered(&ended, 4);
    for message in lab.sink.messages() {
        let text = String::from_utf8(message.content)
            .unwrap()
            .to_ascii_lowercase();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        for gone in [
            "bcc",
            "x-envelope",
            "return-path",
            "elsewhere.test",
            "y@a.test",
        ] {
            assert!(!header.contains(gone), "{gone} in {header}");
        }
        assert!(
            body.starts_with("bcc: in the body") || body == "two\r\n",
            "{body}"
        );
    }
}

#[test]
fn lines_that_begin_with_dots_arrive_as_they_were() {
    let lab = Lab::with_rules(&[]);
    let bodies = [
        ".\n",
        "..\n.a\n\n.\n..\n",
        "end without newline\n.",
        "\n\n.\n\n",
        "",
        "x\n.\r\n.\n",
    ];
    let mut batch = Batch::default();
    for (n, body) in bodies.iter().enumerate() {
        batch.add_with(&[&format!("u{n}@a.test")], "", body.as_bytes());
    }
    // Each body as a file of its own: an mbox could not keep the last newline apart.
    let paths: Vec<_> = (0..bodies.len())
        .map(|n| {
            let header = crate::batch::message(n + 1, &[&format!("u{n}@a.test")], "");
            lab.file(&format!("{n}.eml"), header + bodies[n])
        })
        .collect();
    let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    let ended = lab.start_with(&[], &paths).wait();
    lab.assert_all_delivered(&ended, bodies.len());
    let mut arrived: BTreeMap<String, String> = BTreeMap::new();
    for message in lab.sink.messages() {
        let text = String::from_utf8(message.content).unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
        arrived.insert(message.recipients[0].clone(), body);
    }
    for (n, body) in bodies.iter().enumerate() {
        let mut expected = body.replace("\r\n", "\n").replace('\n', "\r\n");
        if !expected.is_empty() && !expected.ends_with("\r\n") {
            expected.push_str("\r\n");
        }
        assert_eq!(arrived[&format!("u{n}@a.test")], expected, "{body:?}");
    }
}

#[test]
fn the_newsletter_arrives_exactly_as_inspect_says_it_would_be_sent() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/newsletter.mbox");
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_mailer"));
    let shown = inspect
        .args(["inspect", "--json"])
        .arg(&fixture)
        .output()
        .unwrap();
    let mut expected = Vec::new();
    for line in shown
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message: serde_json::Value = serde_json::from_slice(line).unwrap();
        for recipient in message["recipients"].as_array().unwrap() {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            expected.push((
                text(&recipient["address"]),
                text(&message["sha256"]),
                text(&message["reverse_path"]),
            ));
        }
    }
    let lab = Lab::with_rules(&[]);
    let ended = lab.start_with(&[], &[&fixture]).wait();
    ended.assert_status(0);
    let mut arrived = Vec::new();
    for message in lab.sink.messages() {
        let digest = Sha256::digest(&message.content);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        for recipient in message.recipients {
            arrived.push((recipient, digest.clone(), message.reverse_path.clone()));
        }
    }
    expected.sort();
    arrived.sort();
    assert!(expected.len() > 1000, "{}", expected.len());
    assert!(
        arrived == expected,
        "{} arrived, {} expected",
        arrived.len(),
        expected.len()
    );
    assert_eq!(ended.count("delivered"), expected.len());
    lab.assert_clean();
}
