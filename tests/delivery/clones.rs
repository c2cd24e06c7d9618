//! Messages with several recipients: a clone for each destination, all of the same content, a verdict for each recipient.

use std::time::Duration;

use mailer::sink::SinkConfig;

use crate::batch::Batch;
use crate::lab::{Lab, SOON, keeping};

fn recipients(count: usize, domain: &str) -> Vec<String> {
    (1..=count).map(|n| format!("u{n}@{domain}")).collect()
}

fn to_all(recipients: &[String]) -> Batch {
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut batch = Batch::default();
    batch.add(&recipients);
    batch
}

/// The number of recipients of each transaction, sorted.
fn sizes(lab: &Lab) -> Vec<usize> {
    let messages = lab.sink.messages();
    let mut sizes: Vec<_> = messages.iter().map(|one| one.recipients.len()).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn a_message_to_three_domains_becomes_three_transactions_of_the_same_content() {
    let lab = Lab::with_rules(&[]);
    let mut batch = Batch::default();
    let all = [
        "a@one.test",
        "b@two.test",
        "c@one.test",
        "d@three.test",
        "e@two.test",
    ];
    batch.add_with(&all, "To: everybody:;\n", b"line\n.dot\n\nend\n");
    let ended = lab.send(&batch, &[]);
    lab.assert_all_delivered(&ended, 5);
    let messages = lab.sink.messages();
    assert_eq!(sizes(&lab), [1, 2, 2]);
    assert!(
        messages
            .iter()
            .all(|one| one.content == messages[0].content)
    );
    assert!(
        messages[0]
            .content
            .ends_with(b"\r\n\r\nline\r\n.dot\r\n\r\nend\r\n")
    );
    let order: Vec<&str> = ended
        .rows
        .iter()
        .map(|row| row.recipient.as_str())
        .collect();
    assert_eq!(order, all, "the report is in input order");
}

#[test]
fn recipients_of_one_domain_share_a_transaction_up_to_fifty() {
    let lab = Lab::with_rules(&[]);
    let ended = lab.send(&to_all(&recipients(120, "big.test")), &[]);
    lab.assert_all_delivered(&ended, 120);
    assert_eq!(sizes(&lab), [20, 50, 50]);
}

#[test]
fn the_configured_number_of_recipients_is_kept() {
    let lab = Lab::with_rules(&[]);
    let config = lab.file("mailer.toml", "max_recipients = 3\n");
    let batch = to_all(&recipients(10, "big.test"));
    let ended = lab.send(&batch, &["--config", config.to_str().unwrap()]);
    lab.assert_all_delivered(&ended, 10);
    assert_eq!(sizes(&lab), [1, 3, 3, 3]);
}

#[test]
fn too_many_recipients_for_a_server_are_split_and_nobody_is_tried_in_vain() {
    let mut config = keeping(&[]);
    config.server.recipients_max = 7;
    let lab = Lab::new("SYNTHETIC", config);
    let ended = lab.send(&to_all(&recipients(30, "small.test")), &SOON);
    lab.assert_all_delivered(&ended, 30);
    assert!(sizes(&lab).iter().all(|size| *size <= 7));
    assert!(
        ended.rows.iter().all(|row| row.attempts == "1"),
        "{}",
        ended.odd()
    );
}

#[test]
fn each_recipient_has_a_verdict_of_its_own() {
    let zone = "a.test MX 10 mx.test\nb.a.test MX 10 mx.test\nmx.test A 127.0.3.1\nSYNTHETIC\n";
    let rules = [
        "domain=b.a.test stage=rcpt reply=\"550 5.1.1 no such user\"",
        "domain=later.test stage=rcpt reply=\"450 4.2.1 later\" first=1",
        "domain=never.test stage=dot reply=\"554 5.7.1 not this\"",
    ];
    let lab = Lab::new(zone, keeping(&rules));
    let mut batch = Batch::default();
    batch.add(&[
        "x@a.test",
        "x@b.a.test",
        "x@later.test",
        "y@never.test",
        "x@fine.test",
    ]);
    let ended = lab.send(&batch, &SOON);
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    let rows = ended.rows.iter();
    let seen: Vec<_> = rows
        .map(|row| {
            (
                row.status.as_str(),
                row.code.as_str(),
                row.stage.as_str(),
                row.attempts.as_str(),
            )
        })
        .collect();
    let expected = [
        ("delivered", "250", "dot", "1"),
        ("refused", "550", "rcpt", "1"),
        ("delivered", "250", "dot", "2"),
        ("refused", "554", "dot", "1"),
        ("delivered", "250", "dot", "1"),
    ];
    assert_eq!(seen, expected, "{}", ended.odd());
}

#[test]
fn recipients_of_one_transaction_are_refused_deferred_and_accepted_side_by_side() {
    // Every second recipient is new to the greylist of each attempt: 451, then 250.
    let config = SinkConfig {
        greylist: Some(Duration::ZERO),
        ..keeping(&["stage=rcpt reply=\"550 5.1.1 no such user\" first=4 after=4"])
    };
    let lab = Lab::new("SYNTHETIC", config);
    let ended = lab.send(&to_all(&recipients(10, "one.test")), &SOON);
    ended.assert_status(1);
    lab.assert_agrees(&ended);
    for (at, row) in ended.rows.iter().enumerate() {
        let refused = (4..8).contains(&at);
        let expected = if refused {
            ("refused", "1")
        } else {
            ("delivered", "2")
        };
        assert_eq!(
            (row.status.as_str(), row.attempts.as_str()),
            expected,
            "{row:?}"
        );
    }
}
