//! Commands: what may be said, and what can never be.

use super::*;
use proptest::prelude::*;

fn line(command: Command<'_>) -> Result<String, BadCommand> {
    let mut out = b"before".to_vec();
    let written = write(command, &mut out);
    let line = String::from_utf8(out[6..].to_vec()).unwrap();
    assert!(
        written.is_ok() != line.is_empty(),
        "on an error nothing is written"
    );
    written.map(|()| line)
}

fn rcpt(path: &str, utf8: bool) -> Result<String, BadCommand> {
    line(Command::Rcpt(path, RcptParameters { utf8, dsn: None }))
}

fn mail(path: &str) -> Result<String, BadCommand> {
    line(Command::Mail(path, MailParameters::default()))
}

#[test]
fn commands_are_what_the_protocol_says() {
    let all = MailParameters {
        size: Some(1234),
        eight_bit: true,
        utf8: true,
        dsn: None,
    };
    assert_eq!(
        line(Command::Ehlo("a.example")).unwrap(),
        "EHLO a.example\r\n"
    );
    assert_eq!(
        line(Command::Helo("[192.0.2.1]")).unwrap(),
        "HELO [192.0.2.1]\r\n"
    );
    assert_eq!(mail("").unwrap(), "MAIL FROM:<>\r\n");
    assert_eq!(
        line(Command::Mail("ä@x.test", all)).unwrap(),
        "MAIL FROM:<ä@x.test> SIZE=1234 BODY=8BITMIME SMTPUTF8\r\n"
    );
    assert_eq!(
        rcpt("\"a b\"@x.test", false).unwrap(),
        "RCPT TO:<\"a b\"@x.test>\r\n"
    );
    assert_eq!(line(Command::Data).unwrap(), "DATA\r\n");
    assert_eq!(line(Command::StartTls).unwrap(), "STARTTLS\r\n");
    assert_eq!(
        line(Command::Lhlo("a.example")).unwrap(),
        "LHLO a.example\r\n"
    );
    assert_eq!(line(Command::BdatLast(7)).unwrap(), "BDAT 7 LAST\r\n");
}

#[test]
fn paths_that_are_harmless_pass() {
    for path in [
        "a@b",
        "a.b+c=d@x.test",
        "a..b@docomo.test",
        "\"\\\"<>@\"@x.test",
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
        "a@x_y.test",
    ] {
        assert!(mail(path).is_ok(), "{path}");
    }
}

#[test]
fn paths_that_could_mean_something_else_are_refused() {
    for path in [
        "a",
        "@x.test",
        "a@",
        "a b@x.test",
        "a@x.test> SIZE=1",
        "a@x.test\r\nDATA",
        "a\n@x.test",
        "\"a\r\n\"@x.test",
        "\"a@x.test",
        "\"a\\\"@x.test",
        "\"a\"b@x.test",
        "<a@x.test>",
        "a@b@c",
        "@relay.test:a@x.test",
        "a@x.test\0",
        "a@x.test\u{7f}",
        "a@[1 2]",
        "a@[]",
        "a@[1>]",
        "a@x.test ",
        "\t@x.test",
    ] {
        assert_eq!(mail(path), Err(BadCommand::Path), "{path:?}");
        assert_eq!(rcpt(path, true), Err(BadCommand::Path));
    }
    assert_eq!(rcpt("a\u{85}@x.test", true), Err(BadCommand::Path));
    assert_eq!(rcpt("", false), Err(BadCommand::Path));
    assert_eq!(rcpt("é@x.test", false), Err(BadCommand::NotAscii));
}

#[test]
fn lines_have_their_limit_and_parameters_raise_it() {
    let path = |len: usize| format!("{}@x.test", "a".repeat(len - 7));
    let longest = LINE_BYTES_MAX - "MAIL FROM:<>\r\n".len();
    assert_eq!(mail(&path(longest)).unwrap().len(), LINE_BYTES_MAX);
    assert_eq!(mail(&path(longest + 1)), Err(BadCommand::TooLong));
    let sized = MailParameters {
        size: Some(u64::MAX),
        eight_bit: true,
        utf8: true,
        dsn: None,
    };
    assert!(line(Command::Mail(&path(longest), sized)).is_ok());
}

#[test]
fn our_own_name_is_a_full_name_or_a_literal() {
    for name in [
        "mail.example",
        "a-b.c1.example",
        "[192.0.2.1]",
        "[IPv6:::1]",
        "1.example",
    ] {
        assert_eq!(check_hello(name), Ok(()), "{name}");
    }
    for name in [
        "",
        "host",
        "a..b",
        ".a.b",
        "a.b.",
        "-a.b",
        "a_b.c",
        "192.0.2.1",
        "[192.0.2.1",
        "[a.b]",
        "a.example\r\nMAIL",
        "é.example",
        "a b.c",
    ] {
        assert_eq!(check_hello(name), Err(BadCommand::Name), "{name}");
    }
    assert_eq!(
        check_hello(&format!("{}.b", "a".repeat(64))),
        Err(BadCommand::Name)
    );
}

#[test]
fn auth_says_base64_and_nothing_else() {
    let auth = |mechanism, initial| line(Command::Auth(mechanism, initial));
    assert_eq!(auth("PLAIN", Some("AGE=")).unwrap(), "AUTH PLAIN AGE=\r\n");
    assert_eq!(auth("LOGIN", None).unwrap(), "AUTH LOGIN\r\n");
    assert_eq!(auth("EXTERNAL", Some("")).unwrap(), "AUTH EXTERNAL =\r\n");
    assert_eq!(line(Command::Response("")).unwrap(), "\r\n");
    for bad in ["a b", "a\r\nQUIT", "*", "\u{e4}"] {
        assert_eq!(line(Command::Response(bad)), Err(BadCommand::Auth));
        assert_eq!(auth("PLAIN", Some(bad)), Err(BadCommand::Auth));
        assert_eq!(auth(bad, None), Err(BadCommand::Auth));
    }
    let longest = "A".repeat(RESPONSE_BYTES_MAX - 2);
    assert!(line(Command::Response(&longest)).is_ok());
    assert_eq!(
        line(Command::Response(&format!("{longest}A"))),
        Err(BadCommand::TooLong)
    );
    assert_eq!(auth("PLAIN", Some(&longest)), Err(BadCommand::TooLong));
}

#[test]
fn notifications_are_asked_for_in_parameters() {
    let dsn = Dsn {
        ret: Some(dsn::Ret::Full),
        envid: Some("e+1".into()),
        notify: Some(dsn::Notify::Never),
        orcpt: true,
    };
    let parameters = MailParameters {
        dsn: Some(&dsn),
        ..MailParameters::default()
    };
    assert_eq!(
        line(Command::Mail("a@x.test", parameters)).unwrap(),
        "MAIL FROM:<a@x.test> RET=FULL ENVID=e+2B1\r\n"
    );
    let parameters = RcptParameters {
        dsn: Some(&dsn),
        ..RcptParameters::default()
    };
    assert_eq!(
        line(Command::Rcpt("a@x.test", parameters)).unwrap(),
        "RCPT TO:<a@x.test> NOTIFY=NEVER ORCPT=rfc822;a@x.test\r\n"
    );
    let bad = Dsn {
        envid: Some("a\r\nDATA".into()),
        ..Dsn::default()
    };
    let parameters = MailParameters {
        dsn: Some(&bad),
        ..MailParameters::default()
    };
    assert_eq!(
        line(Command::Mail("", parameters)),
        Err(BadCommand::EnvelopeId)
    );
}

proptest! {
    #[test]
    fn whatever_is_asked_one_line_leaves_and_the_path_is_closed_once(
        path in prop_oneof![any::<String>(), "[a-c\"\\\\@<> .\r\n\\[\\]]{0,12}"],
        utf8 in any::<bool>(),
    ) {
        let mut out = Vec::new();
        if write(Command::Rcpt(&path, RcptParameters { utf8, dsn: None }), &mut out).is_ok() {
            let body = out.strip_suffix(b"\r\n").unwrap();
            prop_assert!(!body.iter().any(|&byte| byte < 0x20 || byte == 0x7f));
            prop_assert!(utf8 || body.is_ascii());
            // Outside the quoted string, '>' and space come nowhere but at the end of the path and behind RCPT.
            let inside = &path[if path.starts_with('"') { path.rfind('"').unwrap() } else { 0 }..];
            prop_assert!(!inside.contains(['>', ' ', '<']));
        } else {
            prop_assert!(out.is_empty());
        }
    }
}
