//! AUTH: the exchanges as replies, their place in a session, and what they leave.

use super::*;

fn offering() -> ServerSettings {
    ServerSettings {
        auth: Some(AuthSettings::new("user", "pencil")),
        auth_required: true,
        starttls: true,
        ..ServerSettings::default()
    }
}

fn play(flights: &[&[u8]]) -> (Run, Recorder) {
    let mut handler = Recorder::default();
    let run = run(&offering(), &mut handler, flights, usize::MAX);
    (run, handler)
}

/// `NUL user NUL pencil`.
const RIGHT: &[u8] = b"AUTH PLAIN AHVzZXIAcGVuY2ls\r\n";

#[test]
fn mail_waits_for_auth() {
    let (run, handler) = play(&[
        HELLO,
        b"MAIL FROM:<>\r\n",
        RIGHT,
        b"MAIL FROM:<> AUTH=<>\r\n",
    ]);
    assert!(
        run.out
            .contains("250-AUTH SCRAM-SHA-256 PLAIN LOGIN XOAUTH2\r\n250 STARTTLS\r\n"),
        "{}",
        run.out
    );
    assert!(run.out.contains("530 5.7.0 "), "{}", run.out);
    assert!(
        run.out
            .ends_with("235 2.7.0 Authenticated\r\n250 2.1.0 OK\r\n")
    );
    assert_eq!(handler.violations, []);
}

#[test]
fn each_way_through_the_exchanges_has_its_replies() {
    for (lines, codes_wanted) in [
        (&["AUTH PLAIN", "AHVzZXIAcGVuY2ls"][..], &["334", "235"][..]),
        (&["AUTH PLAIN AHVzZXIAcGVuY2lsMg=="], &["535"]),
        (&["AUTH PLAIN ="], &["501"]),
        (&["AUTH PLAIN !"], &["501"]),
        (&["AUTH PLAIN", "*", "NOOP"], &["334", "501", "250"]),
        (&["AUTH PLAIN", "QUIT", "NOOP"], &["334", "501", "250"]),
        (
            &["auth login", "dXNlcg==", "cGVuY2ls"],
            &["334", "334", "235"],
        ),
        (&["AUTH LOGIN dXNlcg==", "cGVu"], &["334", "535"]),
        (
            &["AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHBlbmNpbAEB"],
            &["235"],
        ),
        (&["AUTH XOAUTH2 dXNlcj11", ""], &["334", "535"]),
        (
            &["AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==", "*"],
            &["334", "501"],
        ),
        (&["AUTH CRAM-MD5", "NOOP"], &["504", "250"]),
    ] {
        let lines: Vec<Vec<u8>> = lines
            .iter()
            .map(|line| format!("{line}\r\n").into())
            .collect();
        let mut flights = vec![HELLO];
        flights.extend(lines.iter().map(Vec::as_slice));
        let whole = play(&flights).0;
        assert_eq!(codes(&whole)[2..], *codes_wanted, "{}", whole.out);
        for step in 1..20 {
            let again = run(&offering(), &mut Recorder::default(), &flights, step);
            assert_eq!(again, whole, "cut every {step} bytes");
        }
    }
    let (run, _) = play(&[HELLO, b"AUTH PLAIN\r\n", b"*\r\n", b"AUTH LOGIN\r\n"]);
    assert!(run.out.contains("334 \r\n"), "an empty challenge");
    assert!(run.out.ends_with("334 VXNlcm5hbWU6\r\n"), "{}", run.out);
}

#[test]
fn auth_has_its_place_and_its_end() {
    let twice: &[&[u8]] = &[HELLO, RIGHT, RIGHT];
    let unasked: &[&[u8]] = &[RIGHT];
    let in_tls: &[&[u8]] = &[HELLO, RIGHT, b"STARTTLS\r\n", HELLO, b"MAIL FROM:<>\r\n"];
    let after_rset: &[&[u8]] = &[HELLO, RIGHT, b"RSET\r\n", HELLO, b"MAIL FROM:<>\r\n"];
    let in_transaction: &[&[u8]] = &[HELLO, RIGHT, b"MAIL FROM:<>\r\n", RIGHT];
    for (flights, code, violations) in [
        (twice, "503", &[Violation::OutOfSequence][..]),
        (unasked, "502", &[Violation::UnofferedCommand]),
        (in_tls, "530", &[]),
        (after_rset, "250", &[]),
        (in_transaction, "503", &[Violation::OutOfSequence]),
    ] {
        let (run, handler) = play(flights);
        assert_eq!(codes(&run).last(), Some(&code), "{}", run.out);
        assert_eq!(handler.violations, violations);
    }
    let (run, handler) = play(&[HELLO, b"AUTH LOGIN\r\nMAIL FROM:<>\r\n", b"NOOP\r\n"]);
    assert_eq!(
        codes(&run)[2..],
        ["334", "501", "250"],
        "no command is obeyed"
    );
    assert!(handler.violations.contains(&Violation::NotLastInGroup));
    let (run, _) = talk(&[HELLO, RIGHT]);
    assert_eq!(codes(&run)[2..], ["502"], "not offered");
}

#[test]
fn the_handler_has_the_last_word() {
    for (at_auth, last) in [
        (Decision::reply(454, "4.7.0 later"), "530"),
        (Decision::accept(), "250"),
    ] {
        let mut handler = Recorder {
            at_auth,
            ..Recorder::default()
        };
        let flights: [&[u8]; 3] = [HELLO, RIGHT, b"MAIL FROM:<>\r\n"];
        let run = run(&offering(), &mut handler, &flights, usize::MAX);
        assert_eq!(codes(&run).last(), Some(&last));
    }
}

#[test]
fn auth_can_be_kept_to_tls() {
    let mut settings = offering();
    settings.auth = settings.auth.map(|auth| AuthSettings {
        only_in_tls: true,
        mechanisms: vec![Mechanism::Plain],
        ..auth
    });
    let flights: [&[u8]; 5] = [HELLO, RIGHT, b"STARTTLS\r\n", HELLO, RIGHT];
    let run = run(&settings, &mut Recorder::default(), &flights, usize::MAX);
    let (clear, inside) = run.out.split_once("<tls>").unwrap();
    assert!(!clear.contains("AUTH P"), "{clear}");
    assert!(clear.contains("538 5.7.11 "), "{clear}");
    assert!(inside.contains("250 AUTH PLAIN\r\n"), "{inside}");
    assert!(inside.ends_with("235 2.7.0 Authenticated\r\n"));
}

#[test]
fn a_response_that_is_too_long_ends_the_exchange() {
    let long = [&vec![b'A'; LINE_BYTES_KEPT + 4][..], b"\r\n"].concat();
    let fitting = [&vec![b'A'; LINE_BYTES_KEPT][..], b"\r\n"].concat();
    let (run, _) = play(&[HELLO, b"AUTH PLAIN\r\n", &long, b"NOOP\r\n"]);
    assert_eq!(codes(&run)[2..], ["334", "500", "250"]);
    let (run, handler) = play(&[HELLO, b"AUTH PLAIN\r\n", &fitting]);
    assert_eq!(codes(&run)[2..], ["334", "501"]);
    assert_eq!(handler.violations, [Violation::BadSyntax], "many NULs");
}

#[test]
fn everything_offered_random_bytes_mean_the_same_however_cut() {
    let words: [&[u8]; 20] = [
        b"EHLO a.test\r\n",
        b"LHLO a.test\r\n",
        b"MAIL FROM:<a@a.test>\r\n",
        b"RCPT TO:<b@b.test>\r\n",
        b"RCPT TO:<no@b.test>\r\n",
        b"DATA\r\n",
        b"BDAT 5\r\n",
        b"BDAT 3 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT\r\n",
        RIGHT,
        b"AUTH LOGIN\r\n",
        b"dXNlcg==\r\n",
        b"*\r\n",
        b"STARTTLS\r\n",
        b"RSET\r\n",
        b"a\r\n",
        b".\r\n",
        b"\r",
        b"\n",
    ];
    let mut rng = fastrand::Rng::with_seed(8);
    for round in 0..4000 {
        let settings = ServerSettings {
            chunking: true,
            lmtp: round % 2 == 0,
            auth_required: round % 4 < 2,
            // What travels with STARTTLS depends on the cuts by its nature.
            starttls: false,
            ..offering()
        };
        let mut input = Vec::new();
        for _ in 0..rng.usize(1..30) {
            input.extend_from_slice(words[rng.usize(..words.len())]);
        }
        let play = |step: usize, starttls: bool| {
            let mut handler = Recorder {
                at_rcpt: vec![("no", Decision::reply(550, "5.1.1 no"))],
                ..Recorder::default()
            };
            let settings = ServerSettings {
                starttls,
                ..settings.clone()
            };
            let run = run(&settings, &mut handler, &[&input], step);
            (run, handler.messages)
        };
        let whole = play(usize::MAX, false);
        let step = rng.usize(1..12);
        let shown = input.escape_ascii().to_string();
        assert_eq!(play(step, false), whole, "round {round}: {shown}");
        play(step, true);
    }
}
