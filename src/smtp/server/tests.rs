//! The session as a whole: dialogues, cut anywhere, and random bytes. Violations have a file of their own.

use super::*;

mod auth;
mod chunking;
mod limits;
mod lmtp;
mod starttls;
mod violations;

/// Takes what comes; decisions can be scripted by stage.
#[derive(Default)]
struct Recorder {
    messages: Vec<(String, Vec<String>, Vec<u8>)>,
    content: Vec<u8>,
    violations: Vec<Violation>,
    at_rcpt: Vec<(&'static str, Decision)>,
    at_data: Decision,
    at_body: Decision,
    at_dot: Decision,
    at_dot_each: Option<Vec<Decision>>,
    at_greeting: Decision,
    at_starttls: Decision,
    at_auth: Decision,
    abandoned: usize,
}

impl Handler for Recorder {
    fn greeting(&mut self) -> Decision {
        self.at_greeting.clone()
    }

    fn starttls(&mut self) -> Decision {
        self.at_starttls.clone()
    }

    fn auth(&mut self, user: &str) -> Decision {
        assert_eq!(user, "user");
        self.at_auth.clone()
    }

    fn nonce(&mut self) -> String {
        "nonce".into()
    }

    fn rcpt(&mut self, _: &Transaction, recipient: &str) -> Decision {
        let scripted = self
            .at_rcpt
            .iter()
            .find(|(name, _)| recipient.starts_with(name));
        scripted
            .map(|(_, decision)| decision.clone())
            .unwrap_or_default()
    }

    fn data(&mut self, _: &Transaction) -> Decision {
        self.at_data.clone()
    }

    fn body(&mut self, _: &Transaction) -> Decision {
        self.at_body.clone()
    }

    fn content(&mut self, slice: &[u8]) {
        self.content.extend_from_slice(slice);
    }

    fn dot(&mut self, transaction: &Transaction, bytes: u64) -> Decision {
        assert_eq!(bytes, self.content.len() as u64);
        assert!(!transaction.recipients.is_empty());
        let content = std::mem::take(&mut self.content);
        let recipients = transaction.recipients.clone();
        self.messages
            .push((transaction.reverse_path.clone(), recipients, content));
        self.at_dot.clone()
    }

    fn dot_each(&mut self, transaction: &Transaction, bytes: u64) -> Vec<Decision> {
        let decision = self.dot(transaction, bytes);
        let each = self.at_dot_each.clone();
        each.unwrap_or_else(|| vec![decision; transaction.recipients.len()])
    }

    fn abandoned(&mut self) {
        self.content.clear();
        self.abandoned += 1;
    }

    fn violation(&mut self, violation: Violation) {
        self.violations.push(violation);
    }
}

/// How a dialogue went: replies (pauses as `<pause>`, the way into TLS as `<tls>`) and its end.
#[derive(PartialEq, Eq, Debug)]
struct Run {
    out: String,
    next: Next,
}

/// Feeds flights to a session; within a flight the input is cut after every `step` bytes.
fn run(settings: &ServerSettings, handler: &mut Recorder, flights: &[&[u8]], step: usize) -> Run {
    let mut session = Session::new(Arc::new(settings.clone()));
    let mut out = Vec::new();
    let mut next = session.open(false, &mut out, handler);
    for flight in flights {
        let mut pending = Vec::new();
        for piece in flight.chunks(step) {
            pending.extend_from_slice(piece);
            loop {
                if matches!(next, Next::Close | Next::Drop) {
                    break;
                }
                if let Next::Pause(_) = next {
                    out.extend_from_slice(b"<pause>\r\n");
                }
                let progress = session.receive(&pending, &mut out, handler);
                pending.drain(..progress.used);
                next = progress.next;
                if next == Next::StartTls {
                    out.extend_from_slice(b"<tls>\r\n");
                    session.secured(handler);
                    next = Next::Read;
                    // What the session left would now pass for words inside TLS.
                    continue;
                }
                if next == Next::Read {
                    break;
                }
            }
        }
    }
    session.close(handler);
    let out = String::from_utf8(out).unwrap();
    Run { out, next }
}

fn codes(run: &Run) -> Vec<&str> {
    run.out
        .lines()
        .filter(|line| line.as_bytes()[3] != b'-')
        .map(|line| &line[..3])
        .collect()
}

/// A dialogue of several flights with the default settings: codes, violations and messages.
fn talk(flights: &[&[u8]]) -> (Run, Recorder) {
    let mut handler = Recorder::default();
    let run = run(
        &ServerSettings::default(),
        &mut handler,
        flights,
        usize::MAX,
    );
    (run, handler)
}

const HELLO: &[u8] = b"EHLO client.test\r\n";
const ENVELOPE: &[u8] = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n";

#[test]
fn a_pipelined_dialogue_delivers() {
    let flights: [&[u8]; 4] = [
        HELLO,
        b"MAIL FROM:<a@a.test> SIZE=100\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n",
        b"Subject: x\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<d@d.test>\r\nDATA\r\n",
        b"second\r\n.\r\nQUIT\r\n",
    ];
    let (run, handler) = talk(&flights);
    assert_eq!(
        codes(&run),
        [
            "220", "250", "250", "250", "250", "354", "250", "250", "250", "354", "250", "221"
        ]
    );
    assert_eq!(run.next, Next::Close);
    assert_eq!(handler.violations, []);
    assert_eq!(handler.messages.len(), 2);
    assert_eq!(handler.messages[0].1, ["b@b.test", "c@b.test"]);
    assert_eq!(handler.messages[0].2, b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(handler.messages[1].0, "");
    assert!(
        run.out
            .contains("250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n"),
        "{}",
        run.out
    );
    assert!(run.out.contains("\r\n250 2.1.0 OK\r\n"));
}

#[test]
fn the_dialogue_is_the_same_wherever_it_is_cut() {
    let flights: [&[u8]; 5] = [
        HELLO,
        b"NOOP\r\n",
        b"MAIL FROM:<a@a.test>\r\nRCPT TO:<no@b.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n",
        b"x\r\n..\r\ny\n.\r\nz\r\n.\r\nRSET\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<slow@d.test>\r\nDATA\r\n",
        b".\r\nQUIT\r\n",
    ];
    let play = |step: usize| {
        let slow = Decision {
            delay: Duration::from_secs(1),
            ..Decision::reply(250, "2.1.5 at last")
        };
        let mut handler = Recorder {
            at_rcpt: vec![("no", Decision::reply(550, "5.1.1 no")), ("slow", slow)],
            ..Recorder::default()
        };
        let run = run(&ServerSettings::default(), &mut handler, &flights, step);
        (run, handler.messages, handler.violations)
    };
    let whole = play(usize::MAX);
    assert_eq!(whole.1.len(), 2);
    assert_eq!(whole.2, [Violation::BareLf]);
    for step in 1..60 {
        assert_eq!(play(step), whole, "cut every {step} bytes");
    }
}

#[test]
fn a_delayed_reply_keeps_its_place() {
    let slow = Decision {
        delay: Duration::from_millis(1),
        ..Decision::accept()
    };
    let mut handler = Recorder {
        at_rcpt: vec![("b", slow)],
        ..Recorder::default()
    };
    let run = run(
        &ServerSettings::default(),
        &mut handler,
        &[HELLO, ENVELOPE],
        usize::MAX,
    );
    assert!(
        run.out
            .ends_with("250 2.1.0 OK\r\n<pause>\r\n250 2.1.5 OK\r\n354 End with <CRLF>.<CRLF>\r\n")
    );
}

#[test]
fn refusals_of_all_recipients_make_data_fail_without_a_violation() {
    let mut handler = Recorder {
        at_rcpt: vec![("b", Decision::reply(450, "4.2.1 later"))],
        ..Recorder::default()
    };
    let run = run(
        &ServerSettings::default(),
        &mut handler,
        &[HELLO, ENVELOPE, b"RSET\r\n"],
        usize::MAX,
    );
    assert_eq!(codes(&run), ["220", "250", "250", "450", "554", "250"]);
    assert_eq!((handler.violations.len(), handler.abandoned), (0, 1));
}

#[test]
fn four_two_one_and_drops_end_the_session_there() {
    for (decision, next, reply) in [
        (
            Decision::reply(421, "4.3.2 closing"),
            Next::Close,
            "421 4.3.2 closing\r\n",
        ),
        (
            Decision {
                close: true,
                ..Decision::reply(550, "no")
            },
            Next::Close,
            "550 no\r\n",
        ),
        (
            Decision {
                answer: Answer::Drop,
                ..Decision::default()
            },
            Next::Drop,
            "250 2.1.0 OK\r\n",
        ),
        (
            Decision {
                answer: Answer::Silence,
                ..Decision::default()
            },
            Next::Read,
            "250 2.1.0 OK\r\n",
        ),
    ] {
        let mut handler = Recorder {
            at_rcpt: vec![("b", decision)],
            ..Recorder::default()
        };
        let run = run(
            &ServerSettings::default(),
            &mut handler,
            &[HELLO, ENVELOPE, b"QUIT\r\n"],
            usize::MAX,
        );
        assert_eq!(run.next, next);
        assert!(run.out.ends_with(reply), "{}", run.out);
    }
}

#[test]
fn the_dot_can_be_refused_or_left_unanswered() {
    for (decision, next, reply) in [
        (
            Decision::reply(554, "5.7.1 spam"),
            Next::Read,
            "554 5.7.1 spam\r\n",
        ),
        (
            Decision {
                answer: Answer::Drop,
                ..Decision::default()
            },
            Next::Drop,
            "<CRLF>.<CRLF>\r\n",
        ),
    ] {
        let mut handler = Recorder {
            at_dot: decision,
            ..Recorder::default()
        };
        let run = run(
            &ServerSettings::default(),
            &mut handler,
            &[HELLO, ENVELOPE, b"x\r\n.\r\n"],
            usize::MAX,
        );
        assert_eq!(
            (run.next, run.out.ends_with(reply)),
            (next, true),
            "{}",
            run.out
        );
    }
}

#[test]
fn an_early_reply_to_the_body_ends_the_session() {
    let mut handler = Recorder {
        at_body: Decision::reply(552, "5.3.4 enough"),
        ..Recorder::default()
    };
    let run = run(
        &ServerSettings::default(),
        &mut handler,
        &[HELLO, ENVELOPE, b"x\r\n"],
        usize::MAX,
    );
    assert!(run.out.ends_with("552 5.3.4 enough\r\n"));
    assert_eq!(
        (run.next, handler.abandoned, handler.messages.len()),
        (Next::Close, 1, 0)
    );
}

#[test]
fn a_greeting_that_refuses_leaves_nothing_but_quit() {
    let mut handler = Recorder {
        at_greeting: Decision::reply(554, "5.7.1 not you"),
        ..Recorder::default()
    };
    let run = run(
        &ServerSettings::default(),
        &mut handler,
        &[HELLO, b"QUIT\r\n"],
        usize::MAX,
    );
    assert_eq!(codes(&run), ["554", "503", "221"]);
}

#[test]
fn after_helo_no_extension_is_offered() {
    let flights: [&[u8]; 5] = [
        b"EHLO a.test\r\n",
        b"HELO a.test\r\n",
        b"MAIL FROM:<a@a.test> SIZE=1\r\n",
        b"MAIL FROM:<a@a.test>\r\n",
        b"RCPT TO:<b@b.test>\r\n",
    ];
    let settings = ServerSettings {
        helo_only: true,
        ..ServerSettings::default()
    };
    let mut handler = Recorder::default();
    let run = run(&settings, &mut handler, &flights, usize::MAX);
    assert_eq!(codes(&run), ["220", "502", "250", "555", "250", "250"]);
    assert!(
        run.out.ends_with("250 OK\r\n250 OK\r\n"),
        "no enhanced codes: {}",
        run.out
    );
    assert_eq!(handler.violations, [Violation::UnofferedParameter]);
}

#[test]
fn random_bytes_are_survived_and_mean_the_same_however_cut() {
    let words: [&[u8]; 18] = [
        b"EHLO a.test\r\n",
        b"HELO b\r\n",
        b"MAIL FROM:<a@a.test>\r\n",
        b"RCPT TO:<b@b.test>\r\n",
        b"RCPT TO:<no@b.test>\r\n",
        b"DATA\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b".\r\n",
        b"\r\n",
        b".",
        b"\r",
        b"\n",
        b"\xff\x00",
        b"x y\r\n",
        b"..\r\n",
        b"VRFY x\r\n",
    ];
    let mut rng = fastrand::Rng::with_seed(3);
    for round in 0..3000 {
        let mut input = Vec::new();
        for _ in 0..rng.usize(1..30) {
            input.extend_from_slice(words[rng.usize(..words.len())]);
        }
        let play = |step: usize| {
            let mut handler = Recorder {
                at_rcpt: vec![("no", Decision::reply(550, "5.1.1 no"))],
                ..Recorder::default()
            };
            let run = run(&ServerSettings::default(), &mut handler, &[&input], step);
            (run, handler.messages)
        };
        let whole = play(usize::MAX);
        let step = rng.usize(1..12);
        assert_eq!(
            play(step),
            whole,
            "round {round}: {:?}",
            input.escape_ascii().to_string()
        );
    }
}
