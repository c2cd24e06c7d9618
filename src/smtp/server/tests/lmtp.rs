//! LMTP: its own greeting words, and a reply for each recipient.

use super::*;

fn lmtp() -> ServerSettings {
    ServerSettings {
        lmtp: true,
        chunking: true,
        ..ServerSettings::default()
    }
}

const LHLO: &[u8] = b"LHLO client.test\r\n";
const THREE: &[u8] = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<no@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n";

fn refusing_no() -> Recorder {
    Recorder {
        at_rcpt: vec![("no", Decision::reply(550, "5.1.1 no"))],
        ..Recorder::default()
    }
}

#[test]
fn each_accepted_recipient_has_a_reply_in_order() {
    let mut handler = refusing_no();
    handler.at_dot_each = Some(vec![
        Decision::accept(),
        Decision::reply(452, "4.2.2 mailbox full"),
    ]);
    let flights: [&[u8]; 3] = [LHLO, THREE, b"x\r\n.\r\nQUIT\r\n"];
    let whole = run(&lmtp(), &mut handler, &flights, usize::MAX);
    assert!(whole.out.starts_with("220 sink.test LMTP\r\n"));
    assert!(whole.out.contains("250-PIPELINING\r\n"), "{}", whole.out);
    assert!(
        whole
            .out
            .ends_with("250 2.0.0 OK: taken\r\n452 4.2.2 mailbox full\r\n221 2.0.0 Bye\r\n"),
        "{}",
        whole.out
    );
    assert_eq!(handler.messages[0].1, ["b@b.test", "c@b.test"]);
    assert_eq!(handler.violations, []);
    for step in 1..60 {
        let mut handler = Recorder {
            at_dot_each: handler.at_dot_each.clone(),
            ..refusing_no()
        };
        assert_eq!(run(&lmtp(), &mut handler, &flights, step), whole);
    }
}

#[test]
fn a_reply_that_waits_holds_those_behind_it() {
    let slow = Decision {
        delay: Duration::from_secs(1),
        ..Decision::default()
    };
    for (each, end) in [
        (
            vec![slow.clone(), slow.clone()],
            "<pause>\r\n250 2.0.0 OK: taken\r\n<pause>\r\n250 2.0.0 OK: taken\r\n250 2.0.0 OK\r\n",
        ),
        (
            Vec::new(),
            "250 2.0.0 OK: taken\r\n250 2.0.0 OK: taken\r\n250 2.0.0 OK\r\n",
        ),
        (
            vec![Decision::reply(421, "4.3.2 closing")],
            "421 4.3.2 closing\r\n",
        ),
        (
            vec![
                Decision::accept(),
                Decision {
                    answer: Answer::Drop,
                    ..Decision::default()
                },
            ],
            "354 End with <CRLF>.<CRLF>\r\n250 2.0.0 OK: taken\r\n",
        ),
        (
            vec![Decision {
                answer: Answer::Silence,
                ..Decision::default()
            }],
            "354 End with <CRLF>.<CRLF>\r\n",
        ),
    ] {
        let mut handler = refusing_no();
        handler.at_dot_each = Some(each);
        let flights: [&[u8]; 3] = [LHLO, THREE, b"x\r\n.\r\nNOOP\r\n"];
        let run = run(&lmtp(), &mut handler, &flights, usize::MAX);
        assert!(run.out.ends_with(end), "{}", run.out);
    }
}

#[test]
fn a_message_refused_as_a_whole_is_refused_for_each() {
    let settings = ServerSettings {
        content_bytes_max: 2,
        ..lmtp()
    };
    let flights: [&[u8]; 3] = [LHLO, THREE, b"xx\r\n.\r\n"];
    let run = run(&settings, &mut refusing_no(), &flights, usize::MAX);
    assert_eq!(codes(&run)[6..], ["354", "552", "552"][..]);
}

#[test]
fn the_last_chunk_is_answered_for_each_too() {
    let flights: [&[u8]; 2] = [
        LHLO,
        b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@b.test>\r\nBDAT 1\r\nxBDAT 2 LAST\r\n\r\n",
    ];
    let run = run(&lmtp(), &mut Recorder::default(), &flights, usize::MAX);
    assert_eq!(codes(&run)[2..], ["250"; 6]);
}

#[test]
fn the_greetings_of_the_other_protocol_are_unknown() {
    let flights: [&[u8]; 3] = [HELLO, b"HELO client.test\r\n", LHLO];
    let mut handler = Recorder::default();
    let lmtp_run = run(&lmtp(), &mut handler, &flights, usize::MAX);
    assert_eq!(codes(&lmtp_run), ["220", "500", "500", "250"]);
    assert_eq!(handler.violations, [Violation::UnknownCommand; 2]);
    let (smtp_run, _) = talk(&[LHLO]);
    assert_eq!(codes(&smtp_run), ["220", "500"]);
    let flights: [&[u8]; 3] = [
        LHLO,
        b"MAIL FROM:<>\r\nRCPT TO:<no@b.test>\r\n",
        b"DATA\r\n",
    ];
    let refused = run(&lmtp(), &mut refusing_no(), &flights, usize::MAX);
    assert_eq!(codes(&refused).last(), Some(&"503"), "RFC 2033 4.2");
}
