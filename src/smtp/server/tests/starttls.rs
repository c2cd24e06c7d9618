//! STARTTLS: the way into TLS, what is forgotten there, and that nothing said in clear is obeyed inside.

use super::*;

fn offering() -> ServerSettings {
    ServerSettings {
        starttls: true,
        ..ServerSettings::default()
    }
}

fn play(handler: &mut Recorder, flights: &[&[u8]]) -> Run {
    run(&offering(), handler, flights, usize::MAX)
}

#[test]
fn everything_is_forgotten_in_tls_and_ehlo_is_due_again() {
    let flights: [&[u8]; 5] = [
        HELLO,
        b"STARTTLS\r\n",
        b"MAIL FROM:<a@a.test>\r\n",
        HELLO,
        b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n",
    ];
    let mut handler = Recorder::default();
    let run = play(&mut handler, &flights);
    let (clear, inside) = run.out.split_once("<tls>\r\n").unwrap();
    assert!(clear.contains("250 STARTTLS\r\n"), "{clear}");
    assert!(clear.ends_with("220 2.0.0 Ready to start TLS\r\n"));
    assert!(inside.starts_with("503 EHLO first\r\n"), "{inside}");
    assert!(!inside.contains("STARTTLS"), "not offered again: {inside}");
    assert!(inside.ends_with("354 End with <CRLF>.<CRLF>\r\n"));
    assert_eq!(handler.violations, [Violation::OutOfSequence]);
}

#[test]
fn what_came_in_clear_behind_starttls_is_never_obeyed() {
    for delay in [Duration::ZERO, Duration::from_secs(1)] {
        let mut handler = Recorder {
            at_starttls: Decision {
                delay,
                ..Decision::default()
            },
            ..Recorder::default()
        };
        let injected: &[u8] = b"STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@a.test>\r\nRC";
        let run = play(&mut handler, &[HELLO, injected, b"NOOP\r\n", HELLO]);
        let inside = run.out.split_once("<tls>\r\n").unwrap().1;
        assert!(
            inside.starts_with("250 OK\r\n250-sink.test greets client.test\r\n"),
            "{}",
            run.out
        );
        assert_eq!(handler.violations, [Violation::PlaintextAfterStartTls]);
    }
}

#[test]
fn the_dialogue_is_the_same_wherever_it_is_cut() {
    let flights: [&[u8]; 5] = [
        HELLO,
        b"STARTTLS\r\n",
        HELLO,
        ENVELOPE,
        b"x\r\n.\r\nQUIT\r\n",
    ];
    let whole = play(&mut Recorder::default(), &flights);
    for step in 1..40 {
        let mut handler = Recorder::default();
        assert_eq!(run(&offering(), &mut handler, &flights, step), whole);
        assert_eq!(handler.messages.len(), 1);
    }
}

#[test]
fn a_refused_starttls_leaves_the_session_in_clear() {
    let mut handler = Recorder {
        at_starttls: Decision::reply(454, "4.7.0 TLS not available"),
        ..Recorder::default()
    };
    let run = play(
        &mut handler,
        &[HELLO, b"STARTTLS\r\n", b"MAIL FROM:<>\r\nRSET\r\n"],
    );
    assert_eq!(codes(&run), ["220", "250", "454", "250", "250"]);
    for (answer, next) in [(Answer::Drop, Next::Drop), (Answer::Silence, Next::Read)] {
        handler.at_starttls = Decision {
            answer,
            ..Decision::default()
        };
        let run = play(&mut handler, &[HELLO, b"STARTTLS\r\n", b"NOOP\r\n"]);
        assert_eq!((run.next, codes(&run).len()), (next, 2));
    }
}

#[test]
fn starttls_has_its_place() {
    for (flights, code, violation) in [
        (&[&b"STARTTLS\r\n"[..]][..], "503", Violation::OutOfSequence),
        (
            &[HELLO, b"MAIL FROM:<>\r\n", b"STARTTLS\r\n"],
            "503",
            Violation::OutOfSequence,
        ),
        (
            &[HELLO, b"STARTTLS\r\n", HELLO, b"STARTTLS\r\n"],
            "503",
            Violation::OutOfSequence,
        ),
        (&[HELLO, b"STARTTLS x\r\n"], "501", Violation::BadSyntax),
    ] {
        let mut handler = Recorder::default();
        let out = play(&mut handler, flights).out;
        let last = out.lines().last().unwrap();
        assert!(last.starts_with(code), "{out}");
        assert_eq!(handler.violations, [violation]);
    }
    let (run, handler) = talk(&[HELLO, b"STARTTLS\r\n"]);
    assert_eq!(codes(&run), ["220", "250", "502"], "not offered");
    assert_eq!(handler.violations, [Violation::UnofferedCommand]);
}

#[test]
fn surplus_bytes_leave_behind_the_reply() {
    let mut handler = Recorder {
        at_starttls: Decision {
            surplus: b"250 forged\r\n".to_vec(),
            ..Decision::default()
        },
        ..Recorder::default()
    };
    let run = play(&mut handler, &[HELLO, b"STARTTLS\r\n"]);
    assert!(
        run.out
            .ends_with("220 2.0.0 Ready to start TLS\r\n250 forged\r\n<tls>\r\n")
    );
}
