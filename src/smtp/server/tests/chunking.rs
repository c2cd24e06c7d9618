//! BDAT: chunks of any size cut anywhere, what excludes what, and that no octet of a chunk is ever taken for a command.

use super::*;

fn offering() -> ServerSettings {
    ServerSettings {
        chunking: true,
        ..ServerSettings::default()
    }
}

fn play(flights: &[&[u8]]) -> (Run, Recorder) {
    let mut handler = Recorder::default();
    let run = run(&offering(), &mut handler, flights, usize::MAX);
    (run, handler)
}

const RECIPIENT: &[u8] = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n";

#[test]
fn chunks_join_to_a_message_without_dot_stuffing() {
    let (run, handler) = play(&[
        HELLO,
        RECIPIENT,
        b"BDAT 6\r\n.x\r\n\r",
        b"\nBDAT 0\r\nBDAT 8 LAST\r\n..\r\n.\r\n\r",
        b"NOOP\r\n",
    ]);
    assert!(
        run.out
            .contains("250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n")
    );
    assert!(
        run.out.contains("250 2.0.0 6 octets taken\r\n"),
        "{}",
        run.out
    );
    assert_eq!(
        codes(&run),
        ["220", "250", "250", "250", "250", "250", "250", "250"]
    );
    assert_eq!(handler.messages.len(), 1);
    assert_eq!(handler.messages[0].2, b".x\r\n\r\n..\r\n.\r\n\r");
    assert_eq!(handler.violations, [Violation::BareCr], "cut in a CRLF");
    assert_eq!(handler.content, b"");
}

#[test]
fn the_dialogue_is_the_same_wherever_it_is_cut() {
    let flights: [&[u8]; 6] = [
        HELLO,
        RECIPIENT,
        b"BDAT 12\r\nQUIT\r\nBDAT 1BDAT 8 last\r\n\r\n.\r\na\r\n",
        b"MAIL FROM:<>\r\nRCPT TO:<no@b.test>\r\nBDAT 6 LAST\r\nQUIT\r\nRSET\r\n",
        RECIPIENT,
        b"BDAT 3 LAST\r\nb\r\nQUIT\r\n",
    ];
    let play = |step: usize| {
        let mut handler = Recorder {
            at_rcpt: vec![("no", Decision::reply(550, "5.1.1 no"))],
            ..Recorder::default()
        };
        let run = run(&offering(), &mut handler, &flights, step);
        (run, handler.messages, handler.violations)
    };
    let whole = play(usize::MAX);
    assert_eq!(whole.1.len(), 2);
    assert_eq!(whole.1[0].2, b"QUIT\r\nBDAT 1\r\n.\r\na\r\n");
    assert_eq!(whole.2, []);
    assert_eq!(
        codes(&whole.0)[5..],
        [
            "250", "250", "550", "554", "250", "250", "250", "250", "221"
        ]
    );
    for step in 1..80 {
        assert_eq!(play(step), whole, "cut every {step} bytes");
    }
}

#[test]
fn data_and_bdat_exclude_each_other_until_rset() {
    let (run, handler) = play(&[
        HELLO,
        RECIPIENT,
        b"BDAT 3\r\na\r\n",
        b"DATA\r\n",
        b"BDAT 6 LAST\r\nQUIT\r\n",
        b"MAIL FROM:<>\r\n",
        b"RSET\r\n",
        ENVELOPE,
        b"b\r\n.\r\n",
    ]);
    assert_eq!(
        codes(&run)[5..],
        ["503", "503", "503", "250", "250", "250", "354", "250"][..]
    );
    assert_eq!(handler.messages.len(), 1);
    assert_eq!(handler.messages[0].2, b"b\r\n");
}

#[test]
fn a_refused_chunk_spoils_those_behind_it_until_rset() {
    for at_data in [
        Decision::reply(450, "4.2.0 later"),
        Decision {
            delay: Duration::from_secs(1),
            ..Decision::reply(450, "4.2.0 later")
        },
    ] {
        let mut handler = Recorder {
            at_data,
            ..Recorder::default()
        };
        let flights: [&[u8]; 4] = [
            HELLO,
            RECIPIENT,
            b"BDAT 6\r\nQUIT\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<>\r\n",
            b"RSET\r\nMAIL FROM:<>\r\n",
        ];
        let run = run(&offering(), &mut handler, &flights, usize::MAX);
        let codes: Vec<&str> = codes(&run)[4..]
            .iter()
            .copied()
            .filter(|&code| code != "<pa")
            .collect();
        assert_eq!(codes, ["450", "503", "503", "503", "250", "250"]);
        assert_eq!(handler.messages.len(), 0);
    }
}

#[test]
fn sizes_are_limited_by_chunk_and_by_message() {
    let settings = ServerSettings {
        content_bytes_max: 10,
        ..offering()
    };
    for (chunks, codes_wanted) in [
        (&b"BDAT 11\r\n12345678901RSET\r\n"[..], &["552", "250"][..]),
        (b"BDAT 18446744073709551615\r\nxxx", &[]),
        (
            b"BDAT 8\r\n12345678BDAT 3\r\n123NOOP\r\n",
            &["250", "552", "250"],
        ),
        (b"BDAT 8\r\n12345678BDAT 2 LAST\r\n12", &["250", "250"]),
        (
            b"BDAT 8\r\n12345678BDAT 3 LAST\r\n123MAIL FROM:<>\r\n",
            &["250", "552", "250"],
        ),
    ] {
        let mut handler = Recorder::default();
        let flights = [HELLO, RECIPIENT, chunks];
        let run = run(&settings, &mut handler, &flights, usize::MAX);
        assert_eq!(codes(&run)[4..], *codes_wanted, "{}", run.out);
        let is_taken = codes_wanted == ["250", "250"];
        assert_eq!(handler.messages.len(), usize::from(is_taken));
        assert!(handler.content.is_empty(), "kept for nothing");
    }
}

#[test]
fn a_chunk_without_its_place_is_swallowed_and_refused() {
    let chunk: &[u8] = b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n";
    let (run, handler) = play(&[HELLO, chunk]);
    assert_eq!(codes(&run)[2..], ["503", "250"]);
    assert_eq!(handler.violations, [Violation::OutOfSequence]);
    let (run, handler) = talk(&[HELLO, RECIPIENT, chunk]);
    assert_eq!(codes(&run)[4..], ["502", "250"]);
    assert_eq!(handler.violations, [Violation::UnofferedCommand]);
    let mut handler = Recorder {
        at_greeting: Decision::reply(554, "5.7.1 not you"),
        ..Recorder::default()
    };
    let run = super::run(&offering(), &mut handler, &[chunk], usize::MAX);
    assert_eq!(codes(&run), ["554", "502", "503"]);
    let (run, handler) = play(&[HELLO, RECIPIENT, b"BDAT 3\r\na\r\nRCPT TO:<c@c.test>\r\n"]);
    assert_eq!(codes(&run)[4..], ["250", "503"]);
    assert_eq!(handler.violations, [Violation::OutOfSequence]);
}

#[test]
fn a_size_that_cannot_be_read_ends_the_session() {
    let (run, handler) = play(&[HELLO, RECIPIENT, b"BDAT x\r\nMAIL FROM:<>\r\n"]);
    assert_eq!(codes(&run)[4..], ["521"]);
    assert_eq!(run.next, Next::Close);
    assert_eq!(handler.violations, [Violation::BadSyntax]);
}

#[test]
fn the_last_chunk_is_judged_as_the_dot_is() {
    let last: &[u8] = b"BDAT 3 LAST\r\na\r\n";
    for (decision, next, reply) in [
        (
            Decision::reply(554, "5.7.1 spam"),
            Next::Read,
            "554 5.7.1 spam\r\n250 2.1.0 OK\r\n",
        ),
        (
            Decision {
                answer: Answer::Drop,
                ..Decision::default()
            },
            Next::Drop,
            "250 2.1.5 OK\r\n",
        ),
    ] {
        let mut handler = Recorder {
            at_dot: decision,
            ..Recorder::default()
        };
        let flights: [&[u8]; 4] = [HELLO, RECIPIENT, last, b"MAIL FROM:<>\r\n"];
        let run = run(&offering(), &mut handler, &flights, usize::MAX);
        assert_eq!(run.next, next);
        assert!(run.out.ends_with(reply), "{}", run.out);
    }
}

#[test]
fn handlers_can_delay_drop_and_speak_early() {
    let slow = Decision {
        delay: Duration::from_secs(1),
        ..Decision::default()
    };
    let drop = Decision {
        answer: Answer::Drop,
        ..Decision::default()
    };
    let early = Decision::reply(552, "5.3.4 enough");
    for (at_data, at_body, end) in [
        (
            slow.clone(),
            Decision::default(),
            "<pause>\r\n250 2.0.0 OK: taken\r\n",
        ),
        (
            Decision::default(),
            slow,
            "<pause>\r\n250 2.0.0 OK: taken\r\n",
        ),
        (drop.clone(), Decision::default(), "250 2.1.5 OK\r\n"),
        (Decision::default(), drop, "250 2.1.5 OK\r\n"),
        (Decision::default(), early, "552 5.3.4 enough\r\n"),
    ] {
        let mut handler = Recorder {
            at_data,
            at_body,
            ..Recorder::default()
        };
        let flights: [&[u8]; 3] = [HELLO, RECIPIENT, b"BDAT 3 LAST\r\na\r\n"];
        let run = run(&offering(), &mut handler, &flights, usize::MAX);
        assert!(run.out.ends_with(end), "{}", run.out);
        let is_taken = end.contains("taken");
        assert_eq!(handler.messages.len(), usize::from(is_taken));
    }
}
