//! The server side against a client that sends anything: nothing panics, and the messages taken do not depend on how it was cut.

use std::sync::Arc;

use super::{Seen, pieces};
use mailer::smtp::server::{Decision, Handler, Next, ServerSettings, Session, Transaction};

/// Words of clients.
pub const WORDS: &[&[u8]] = &[
    b"EHLO a.test\r\n",
    b"HELO b\r\n",
    b"LHLO c.test\r\n",
    b"MAIL FROM:<a@a.test>\r\n",
    b"MAIL FROM:<> SIZE=100 BODY=8BITMIME\r\n",
    b"RCPT TO:<b@b.test>\r\n",
    b"RCPT TO:<no@b.test>\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 3 LAST\r\nabc",
    b"BDAT 18446744073709551615\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"VRFY x\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"..x\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\xff",
    b"AUTH PLAIN ",
    b"=\r\n",
    b"Subject: x\r\n\r\nbody\r\n",
];

/// Keeps what it is given.
#[derive(Default, PartialEq, Eq, Debug)]
struct Keeper {
    content: Vec<u8>,
    messages: Vec<(String, Vec<String>, Vec<u8>)>,
}

impl Handler for Keeper {
    fn nonce(&mut self) -> String {
        "nonce".into()
    }

    fn rcpt(&mut self, _: &Transaction, recipient: &str) -> Decision {
        if recipient.starts_with("no") {
            Decision::reply(550, "5.1.1 no")
        } else {
            Decision::accept()
        }
    }

    fn content(&mut self, slice: &[u8]) {
        self.content.extend_from_slice(slice);
    }

    fn dot(&mut self, transaction: &Transaction, content_bytes: u64) -> Decision {
        assert_eq!(content_bytes, self.content.len() as u64);
        assert!(!transaction.recipients.is_empty());
        let content = std::mem::take(&mut self.content);
        let recipients = transaction.recipients.clone();
        self.messages
            .push((transaction.reverse_path.clone(), recipients, content));
        Decision::accept()
    }

    fn abandoned(&mut self) {
        self.content.clear();
    }
}

fn run(choice: u8, input: &[&[u8]]) -> (Keeper, Vec<u8>) {
    let settings = ServerSettings {
        chunking: choice & 1 != 0,
        lmtp: choice & 2 != 0,
        refuse_bare_newlines: choice & 4 != 0,
        recipients_max: 3,
        errors_max: 20,
        content_bytes_max: 2000,
        ..ServerSettings::default()
    };
    let mut session = Session::new(Arc::new(settings));
    let (mut keeper, mut out, mut pending) = (Keeper::default(), Vec::new(), Vec::new());
    let mut next = session.open(false, &mut out, &mut keeper);
    for piece in input {
        pending.extend_from_slice(piece);
        while !matches!(next, Next::Close | Next::Drop) {
            let progress = session.receive(&pending, &mut out, &mut keeper);
            assert!(progress.used <= pending.len());
            pending.drain(..progress.used);
            next = progress.next;
            if next == Next::Read {
                break;
            }
        }
    }
    session.close(&mut keeper);
    (keeper, out)
}

pub fn play(input: &[u8], seen: &mut Seen) {
    let (choice, script) = input
        .split_first()
        .map_or((0, input), |(first, rest)| (*first, rest));
    let (keeper, out) = run(choice, &[script]);
    let (cut, cut_out) = run(choice, &pieces(script));
    assert_eq!(keeper, cut, "what is taken does not depend on how it came");
    assert_eq!(
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&cut_out)
    );
    assert!(out.is_empty() || out.ends_with(b"\r\n"));
    for line in out.split_inclusive(|&byte| byte == b'\n') {
        assert!(
            line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'),
            "{line:?}"
        );
        assert!(
            !line[..line.len() - 2].iter().any(u8::is_ascii_control),
            "{line:?}"
        );
        seen.note(&line[..3]);
    }
    seen.note(keeper.messages.len());
}
