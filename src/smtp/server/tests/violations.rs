//! Every violation with a dialogue that commits it and one, nearly the same, that does not.

use super::*;

/// A violation, the flights of a dialogue that commits it and of one that does not.
type Case<'a> = (Violation, &'a [&'a [u8]], &'a [&'a [u8]]);

fn check(table: &[Case<'_>]) {
    for (violation, bad, good) in table {
        let seen = talk(bad).1.violations;
        assert!(
            seen.contains(violation),
            "{violation:?} not seen in {bad:?}"
        );
        assert_eq!(talk(good).1.violations, [], "{violation:?}");
    }
}

/// The greetings and an envelope, then one flight.
fn after_data(flight: &[u8]) -> [&[u8]; 3] {
    [HELLO, ENVELOPE, flight]
}

#[test]
fn violations_of_content() {
    let long_line = [&[b'x'; 999][..], b"\r\n.\r\n"].concat();
    let fitting_line = [&[b'x'; 998][..], b"\r\n.\r\n"].concat();
    let clean = after_data(b"a\r\n.\r\n");
    let accent = b"\xc3\xa9\r\n.\r\n";
    let eight: &[u8] = b"MAIL FROM:<a@a.test> BODY=8BITMIME\r\nRCPT TO:<b@b.test>\r\nDATA\r\n";
    let small: &[u8] = b"MAIL FROM:<a@a.test> SIZE=2\r\nRCPT TO:<b@b.test>\r\nDATA\r\n";
    check(&[
        (Violation::BareLf, &after_data(b"a\n\r\n.\r\n"), &clean),
        (Violation::BareCr, &after_data(b"a\rb\r\n.\r\n"), &clean),
        (
            Violation::LongLine,
            &after_data(&long_line),
            &after_data(&fitting_line),
        ),
        (
            Violation::EightBitUndeclared,
            &after_data(accent),
            &[HELLO, eight, accent],
        ),
        (
            Violation::SizeExceedsDeclared,
            &[HELLO, small, b"a\r\n.\r\n"],
            &[HELLO, small, b"\r\n.\r\n"],
        ),
        (
            Violation::UnstuffedDot,
            &after_data(b".a\r\n.\r\n"),
            &after_data(b"..a\r\n.\r\n"),
        ),
    ]);
}

#[test]
fn violations_of_lines_and_words() {
    let long_noop = [b"NOOP ", &[b'x'; 506][..], b"\r\n"].concat();
    let fitting_noop = [b"NOOP ", &[b'x'; 505][..], b"\r\n"].concat();
    check(&[
        (
            Violation::BareLf,
            &[HELLO, b"NOOP\n"],
            &[HELLO, b"NOOP\r\n"],
        ),
        (
            Violation::LongCommand,
            &[HELLO, &long_noop],
            &[HELLO, &fitting_noop],
        ),
        (
            Violation::UnknownCommand,
            &[HELLO, b"WIZ\r\n"],
            &[HELLO, b"RSET\r\n"],
        ),
        (
            Violation::BadSyntax,
            &[HELLO, b"MAIL FROM: <a@a.test>\r\n"],
            &[HELLO, b"MAIL FROM:<a@a.test>\r\n"],
        ),
        (
            Violation::Utf8Undeclared,
            &[HELLO, "MAIL FROM:<é@a.test>\r\n".as_bytes()],
            &[HELLO, "MAIL FROM:<é@a.test> SMTPUTF8\r\n".as_bytes()],
        ),
        (
            Violation::UnofferedParameter,
            &[HELLO, b"MAIL FROM:<a@a.test> RET=HDRS\r\n"],
            &[HELLO, b"MAIL FROM:<a@a.test> SIZE=1\r\n"],
        ),
    ]);
}

#[test]
fn violations_of_sequence_and_groups() {
    let helo: &[u8] = b"HELO a.test\r\n";
    let twice: &[u8] = b"MAIL FROM:<>\r\nMAIL FROM:<>\r\n";
    let reset_between: &[u8] = b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n";
    let early = [ENVELOPE, b"x\r\n.\r\n"].concat();
    check(&[
        (
            Violation::OutOfSequence,
            &[b"MAIL FROM:<>\r\n"],
            &[HELLO, b"MAIL FROM:<>\r\n"],
        ),
        (
            Violation::OutOfSequence,
            &[HELLO, twice],
            &[HELLO, reset_between],
        ),
        (
            Violation::OutOfSequence,
            &[HELLO, b"DATA\r\n"],
            &[HELLO, ENVELOPE],
        ),
        (
            Violation::PipeliningNotOffered,
            &[helo, b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\n"],
            &[helo, b"MAIL FROM:<>\r\n", b"RCPT TO:<b@b.test>\r\n"],
        ),
        (
            Violation::NotLastInGroup,
            &[HELLO, b"NOOP\r\nMAIL FROM:<>\r\n"],
            &[HELLO, b"NOOP\r\n", b"MAIL FROM:<>\r\n"],
        ),
        (
            Violation::ContentBefore354,
            &[HELLO, &early],
            &after_data(b"x\r\n.\r\n"),
        ),
        (
            Violation::DataAfterQuit,
            &[HELLO, b"QUIT\r\nNOOP\r\n"],
            &[HELLO, b"RSET\r\nQUIT\r\n"],
        ),
    ]);
}

#[test]
fn a_client_that_speaks_first_is_noted() {
    for early in [false, true] {
        let mut handler = Recorder::default();
        Session::new(Arc::default()).open(early, &mut Vec::new(), &mut handler);
        assert_eq!(handler.violations.contains(&Violation::EarlyTalker), early);
    }
}
