//! Replies, however cut, and what EHLO's reply offers.

use super::{Seen, pieces};
use mailer::mail::verdict::{Scope, Stage, Status, Verdict};
use mailer::smtp::reply::{LINES_MAX, TEXT_BYTES_MAX};
use mailer::smtp::{Capabilities, Garbled, Progress, Reply, ReplyParser, capabilities};

/// Words of replies.
pub const WORDS: &[&[u8]] = &[
    b"250 ",
    b"250-",
    b"250\r\n",
    b"354 go\r\n",
    b"421 4.3.2 bye\r\n",
    b"550 5.1.1 ",
    b"5.1.1",
    b"2.1.0 ",
    b"\r\n",
    b"\n",
    b"\r",
    b"250-x\r\n250 y\r\n",
    b"199 ",
    b"600 ",
    b"550 5.1000.1 ",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// Words of EHLO's reply.
pub const OFFERS: &[&[u8]] = &[
    b"250-",
    b"250 ",
    b"\r\n",
    b"PIPELINING",
    b"SIZE ",
    b"SIZE 10240000",
    b"18446744073709551616",
    b"8BITMIME",
    b"SMTPUTF8",
    b"CHUNKING",
    b"STARTTLS",
    b"DSN",
    b"ENHANCEDSTATUSCODES",
    b"AUTH ",
    b"AUTH=",
    b"PLAIN LOGIN SCRAM-SHA-256",
    b"XOAUTH2",
    b"LIMITS ",
    b"MAILMAX=1",
    b"RCPTMAX=0",
    b"RCPTDOMAINMAX=",
    b"4294967296",
    b"****",
    b"220 ****0***",
];

/// What a stream of replies was read as: all replies, and what ended it.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<Garbled>) {
    let mut parser = ReplyParser::new();
    let mut replies = Vec::new();
    for chunk in chunks {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (used, progress) = parser.feed(rest);
            assert!(used > 0 && used <= rest.len(), "takes what it says");
            rest = &rest[used..];
            match progress {
                Progress::Complete => {
                    assert!(parser.is_idle());
                    replies.push(parser.reply().clone());
                }
                Progress::Partial => assert!(rest.is_empty(), "stops at the end only"),
                Progress::Garbled(garbled) => return (replies, Some(garbled)),
            }
        }
    }
    (replies, None)
}

pub fn replies(input: &[u8], seen: &mut Seen) {
    let (whole, garbled) = read([input]);
    let (cut, garbled_cut) = read(pieces(input));
    assert_eq!(
        (&whole, garbled),
        (&cut, garbled_cut),
        "cutting changes nothing"
    );
    for reply in &whole {
        check(reply);
        seen.note((
            reply.code / 10,
            reply.enhanced.is_some(),
            reply.lines().count().min(9),
        ));
    }
    seen.note(garbled.map(|garbled| garbled.to_string()));
}

fn check(reply: &Reply) {
    assert!((200..600).contains(&reply.code));
    assert!((1..=LINES_MAX).contains(&reply.lines().count()));
    assert!(reply.lines().map(<[u8]>::len).sum::<usize>() <= TEXT_BYTES_MAX);
    if let Some(enhanced) = reply.enhanced {
        assert_eq!(u16::from(enhanced.class), reply.code / 100, "RFC 2034 4");
    }
    let text = reply.text();
    let verdict = Verdict::new(
        Status::Deferred,
        Scope::Host,
        Stage::Rcpt,
        reply.code,
        reply.enhanced,
        &text,
    );
    assert!(verdict.text.len() <= Verdict::TEXT_MAX);
    assert!(
        !verdict.text.chars().any(char::is_control),
        "{:?}",
        verdict.text
    );
}

pub fn capabilities(input: &[u8], seen: &mut Seen) {
    // Whatever comes, as the lines behind the server's name.
    let text = [b"250-mx.test\r\n250-", input, b"\r\n250 HELP\r\n"].concat();
    for reply in [read([&text[..]]).0, read([input]).0].concat() {
        let offered = Capabilities::from_ehlo(&reply);
        assert_eq!(offered, Capabilities::from_ehlo(&reply));
        assert_ne!(
            offered.size_max,
            Some(0),
            "0 says that there is no limit, RFC 1870 4"
        );
        assert!(offered.size || offered.size_max.is_none());
        let limits = offered.limits;
        for limit in [limits.mail_max, limits.rcpt_max, limits.rcpt_domain_max] {
            assert_ne!(limit, Some(0), "a limit of nothing would stop all mail");
        }
        seen.note(
            format!(
                "{:?}",
                Capabilities {
                    size_max: None,
                    ..offered
                }
            )
            .replace(|c: char| c.is_ascii_digit(), ""),
        );
        seen.note(capabilities::is_masked_greeting(&reply));
    }
}
