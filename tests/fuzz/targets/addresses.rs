//! Addresses and lists of them: what is read can be said in a command, and reads the same again.

use super::Seen;
use mailer::mail::address_list::AddressList;
use mailer::mail::{Mailbox, ReversePath};
use mailer::smtp::command::{self, Command, LINE_BYTES_MAX, MailParameters, RcptParameters};

/// Words of addresses.
pub const WORDS: &[&[u8]] = &[
    b"a@b.example",
    b"<a@b.example>",
    b"Name <",
    b">",
    b"@",
    b",",
    b";",
    b"group: ",
    b"\"a b\"@",
    b"\\",
    b"\"",
    b"(c)",
    b"(",
    b")",
    b"[127.0.0.1]",
    b"[IPv6:::1]",
    b"xn--bcher-kva.example",
    b"b\xc3\xbccher.example",
    b"\xc3\xbc@x.test",
    b"=?utf-8?q?x?= ",
    b"\r\n ",
    b"\r\n",
    b".",
    b"..",
    b"<@route.test:a@b.test>",
    b"<>",
    b"\xe2\x80\xae",
    b"%",
    b"!",
];

/// `mailbox` stands in a command as one line, and means the same when it is read again.
fn check(mailbox: &Mailbox) {
    let text = mailbox.as_str();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(mailbox.domain().as_str().is_ascii(), "A-labels: {text}");
    assert_eq!(
        format!("{}@{}", mailbox.local(), mailbox.domain().as_str()),
        text
    );
    assert_eq!(
        Mailbox::parse_addr_spec(text.as_bytes()).as_ref(),
        Ok(mailbox),
        "{text:?}"
    );
    assert_eq!(
        Mailbox::parse(format!("<{text}>").as_bytes()).as_ref(),
        Ok(mailbox),
        "{text:?}"
    );
    let utf8 = mailbox.needs_utf8();
    let rcpt = Command::Rcpt(
        text,
        RcptParameters {
            utf8,
            ..RcptParameters::default()
        },
    );
    let mail = Command::Mail(
        text,
        MailParameters {
            utf8,
            ..MailParameters::default()
        },
    );
    for said in [rcpt, mail] {
        let mut line = Vec::new();
        if command::write(said, &mut line).is_err() {
            assert!(line.is_empty(), "nothing is said by half");
            continue;
        }
        let (body, end) = line.split_at(line.len() - 2);
        assert!(
            end == b"\r\n" && !body.iter().any(u8::is_ascii_control),
            "{line:?}"
        );
        assert!(line.len() <= LINE_BYTES_MAX + 64);
    }
}

pub fn play(input: &[u8], seen: &mut Seen) {
    let mut from = 0;
    for entry in AddressList::new(input) {
        assert!(entry.range.start <= entry.range.end && entry.range.end <= input.len());
        assert!(entry.range.start >= from, "entries stand in order");
        from = entry.range.start;
        match entry.mailbox {
            Ok(mailbox) => {
                check(&mailbox);
                let again = Mailbox::parse_addr_spec(&input[entry.range]);
                assert_eq!(again.as_ref(), Ok(&mailbox), "a range reads as its entry");
                seen.note((
                    mailbox.needs_utf8(),
                    mailbox.local().starts_with('"'),
                    mailbox.domain().literal().is_some(),
                ));
            }
            Err(error) => {
                assert!(error.offset <= input.len(), "{error:?}");
                seen.note(error.to_string());
            }
        }
    }
    for path in [ReversePath::parse(input), ReversePath::parse_first(input)] {
        match path {
            Ok(path) => path.mailbox().into_iter().for_each(check_reverse),
            Err(error) => assert!(error.offset <= input.len(), "{error:?}"),
        }
    }
    if let Ok(mailbox) = Mailbox::parse(input) {
        check(&mailbox);
        seen.note("sole");
    }
}

/// A reverse-path may have a longer local part (VERP), so it reads as a reverse-path only.
fn check_reverse(mailbox: &Mailbox) {
    let again = ReversePath::parse(mailbox.as_str().as_bytes());
    assert_eq!(
        again.as_ref().map(ReversePath::as_str),
        Ok(mailbox.as_str())
    );
}
