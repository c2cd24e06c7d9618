//! A whole session of the client against a server that says anything at any time.
//!
//! The first three bytes of the input choose how the session is held; the rest is what the server says, 0xfe for the end of what it
//! says for now (the client may go on), 0xfd for a connection that is lost there.

use super::Seen;
use mailer::mail::Status;
use mailer::smtp::auth::{Credentials, Secret};
use mailer::smtp::conversation::Next;
use mailer::smtp::settings::{Protocol, TlsPolicy};
use mailer::smtp::{
    Conversation, Garbled, Lost, Mail, Pipelining, Progress, RecipientEnd, ReplyParser, Settings,
};

/// Words of servers.
pub const WORDS: &[&[u8]] = &[
    b"220 mx\r\n\xfe",
    b"250 ok\r\n\xfe",
    b"250 ok\r\n",
    b"354 go\r\n\xfe",
    b"421 bye\r\n\xfd",
    b"450 later\r\n",
    b"452 4.5.3 too many\r\n",
    b"550 5.1.1 no\r\n",
    b"554 no\r\n",
    b"503 bad\r\n",
    b"250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n\xfe",
    b"250-x\r\n250-PIPELINING\r\n250-LIMITS MAILMAX=2 RCPTMAX=1\r\n250 STARTTLS\r\n\xfe",
    b"250-x\r\n250 AUTH PLAIN LOGIN SCRAM-SHA-256\r\n\xfe",
    b"334 \r\n\xfe",
    b"334 cj14LHM9eCxpPTE=\r\n\xfe",
    b"235 ok\r\n\xfe",
    b"220 go\r\n\xfe",
    b"\xfe",
    b"\xfd",
    b"\r\n",
    b"garbage\r\n",
    b"250-",
    b"250 ok\r\n250 ok\r\n354 go\r\n\xfe",
    b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n\xfe",
    b"250 ok\r\n250 ok\r\n250 taken\r\n\xfe",
];

const RECIPIENTS: [&str; 4] = ["a@b.test", "c@b.test", "d@b.test", "e@b.test"];
/// The client is asked at most so often what to do next.
const STEPS_MAX: usize = 50_000;

fn settings(choice: [u8; 3]) -> Settings {
    let bit = |n: u8| choice[0] & (1 << n) != 0;
    let secret = if bit(6) {
        Secret::Token("t".into())
    } else {
        Secret::Password("x".into())
    };
    Settings {
        level: [Pipelining::None, Pipelining::Classic, Pipelining::Cross]
            [usize::from(choice[1] % 3)],
        tls: [
            TlsPolicy::None,
            TlsPolicy::May,
            TlsPolicy::Require,
            TlsPolicy::Implicit,
        ][usize::from(choice[1] / 3 % 4)],
        auth: bit(0).then(|| Credentials::new("u", secret, None).expect("good ones")),
        auth_in_clear: bit(1),
        protocol: if bit(2) {
            Protocol::Lmtp
        } else {
            Protocol::Smtp
        },
        bdat_bytes_max: if bit(3) { 1000 } else { 0 },
        recipients_max: if bit(4) { 2 } else { 100 },
        ..Settings::new("client.example")
    }
}

/// What the client did so far.
#[derive(Default)]
struct Tally {
    begun: usize,
    ended: usize,
    sent: usize,
    /// Recipients that ended in doubt or delivered cannot be more than those of bodies that were sent.
    certain_or_not: usize,
}

pub fn play(input: &[u8], seen: &mut Seen) {
    let (choice, script) = match input {
        [a, b, c, rest @ ..] => ([*a, *b, *c], rest),
        _ => ([0; 3], input),
    };
    let recipients = &RECIPIENTS[..1 + usize::from(choice[2] % 4)];
    let mail = Mail {
        reverse_path: "news@sender.test",
        recipients,
        size: 700,
        eight_bit: choice[2] & 16 != 0,
        utf8: choice[2] & 32 != 0,
        dsn: None,
    };
    let mut c = Conversation::new(settings(choice)).expect("a good name");
    let (mut parser, mut rest, mut tally) = (ReplyParser::new(), script, Tally::default());
    for step in 0.. {
        assert!(step < STEPS_MAX, "goes round in circles");
        match c.next() {
            Next::Done(end) => {
                tally.ended += 1;
                assert_eq!(end.ends.len(), recipients.len(), "each recipient ends once");
                for end in &end.ends {
                    note(end, &mut tally, seen);
                }
                continue;
            }
            Next::Closed(why) => {
                seen.note(why.map(|verdict| {
                    (
                        verdict.stage.name(),
                        verdict.scope.name(),
                        verdict.status.name(),
                    )
                }));
                break;
            }
            Next::Ready if choice[0] & 32 != 0 && tally.begun > 3 => c.quit(),
            Next::Ready => {
                c.begin(&mail);
                tally.begun += 1;
            }
            Next::StartTls => {
                if parser.is_idle() {
                    c.tls_started()
                } else {
                    c.on_garbled(Garbled::Surplus)
                }
                continue;
            }
            Next::SendBody(_) => {
                tally.begun += usize::from(c.begin_ahead(&mail));
                c.body_sent();
                tally.sent += recipients.len();
            }
            Next::Await(stage) => seen.note(stage.name()),
        }
        check_output(&mut c);
        assert!(c.unanswered() <= 300 && tally.begun - tally.ended <= 2);
        rest = listen(&mut c, &mut parser, rest);
    }
    assert_eq!(tally.begun, tally.ended, "every transaction ends");
    assert!(
        tally.certain_or_not <= tally.sent,
        "nothing is delivered that was not sent"
    );
}

/// What is written is lines, and not without bound.
fn check_output(c: &mut Conversation) {
    let output = c.output();
    assert!(output.is_empty() || output.ends_with(b"\r\n"));
    assert!(output.len() < 64 * 1024);
    output.clear();
}

fn note(end: &RecipientEnd, tally: &mut Tally, seen: &mut Seen) {
    match end {
        RecipientEnd::Verdict(verdict) => {
            let counts = matches!(verdict.status, Status::Delivered | Status::InDoubt);
            tally.certain_or_not += usize::from(counts);
            seen.note((
                verdict.status.name(),
                verdict.scope.name(),
                verdict.stage.name(),
            ));
        }
        RecipientEnd::Again => seen.note("again"),
        RecipientEnd::NotTried => seen.note("not tried"),
    }
}

/// Hands over what the server says next; at the end of the script the connection times out.
fn listen<'a>(c: &mut Conversation, parser: &mut ReplyParser, script: &'a [u8]) -> &'a [u8] {
    let end = script
        .iter()
        .position(|&byte| byte >= 0xfd)
        .unwrap_or(script.len());
    let mut said = &script[..end];
    while !said.is_empty() {
        let (used, progress) = parser.feed(said);
        said = &said[used..];
        match progress {
            Progress::Complete => c.on_reply(parser.reply()),
            Progress::Partial => {}
            Progress::Garbled(garbled) => {
                c.on_garbled(garbled);
                break;
            }
        }
    }
    match script.get(end) {
        None => c.on_lost(Lost::TimedOut, "x"),
        Some(0xfd) => c.on_lost(Lost::Eof, ""),
        Some(_) => {}
    }
    script.get(end + 1..).unwrap_or_default()
}
