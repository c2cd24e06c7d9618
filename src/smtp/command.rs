//! Commands: the one place that turns what we want to say into bytes for a server.
//!
//! Whatever reaches [`write()`] - an address of a batch, a host name of a configuration file - can at worst be refused; it
//! can never start a second command or smuggle a parameter. That is why no other code writes command lines.
//!
//! INVARIANTS: what is written is one line that ends in CRLF and holds no other control byte, no byte of 0x80 or above
//! unless SMTPUTF8 was asked for, no space outside a quoted string of an address, and not more bytes than RFC 5321
//! 4.5.3.1.4 and the extensions used allow. On an error nothing is written. Nothing here panics.
//!
//! Limits: source routes (RFC 5321 appendix C) and `<Postmaster>` without a domain are refused. Sense beyond safety (is
//! the local part too long, has it two dots in a row) is for the reader of addresses to judge.

use std::fmt;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest command line without parameters, CRLF included (RFC 5321 4.5.3.1.4).
pub const LINE_BYTES_MAX: usize = 512;
/// What SIZE adds to the length of a MAIL command (RFC 1870 section 3).
const SIZE_BYTES: usize = 26;
/// What BODY adds (RFC 6152 section 2).
const BODY_BYTES: usize = 17;
/// What SMTPUTF8 adds (RFC 6531 section 3.1).
const SMTPUTF8_BYTES: usize = 10;
/// The longest domain (RFC 5321 4.5.3.1.2).
const DOMAIN_BYTES_MAX: usize = 255;

/// A command of the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// EHLO with our name.
    Ehlo(&'a str),
    /// HELO with our name.
    Helo(&'a str),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// MAIL FROM with its parameters.
    Mail(&'a str, MailParameters),
    /// RCPT TO; the flag says that the transaction uses SMTPUTF8.
    Rcpt(&'a str, bool),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
}

/// The parameters of MAIL. Only what the server offers may be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MailParameters {
    /// SIZE: octets of the content with CRLF line ends, before dot-stuffing (RFC 1870 section 5).
    pub size: Option<u64>,
    /// BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531): addresses may hold UTF-8.
    pub utf8: bool,
}

/// Why something cannot be said in a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadCommand {
    /// Not `local-part@domain`, or a byte that has no place in it.
    Path,
    /// A byte of 0x80 or above without SMTPUTF8.
    NotAscii,
    /// Neither a domain name with a dot nor an address literal.
    Name,
    /// The line would be longer than the protocol allows.
    TooLong,
}

impl fmt::Display for BadCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadCommand::Path => "the address cannot be sent in an SMTP command",
            BadCommand::NotAscii => {
                "the address is not ASCII and the transaction does not use SMTPUTF8"
            }
            BadCommand::Name => "the name is neither a full domain name nor an address literal",
            BadCommand::TooLong => "the command line would be too long",
        })
    }
}

impl std::error::Error for BadCommand {}

/// Appends `command` with its CRLF to `out`; on an error `out` is as it was.
pub fn write(command: Command<'_>, out: &mut Vec<u8>) -> Result<(), BadCommand> {
    let start = out.len();
    let bytes_max = match command {
        Command::Mail(_, parameters) => LINE_BYTES_MAX + parameters.bytes_allowed(),
        _ => LINE_BYTES_MAX,
    };
    let written = write_words(command, out).and_then(|()| {
        out.extend_from_slice(b"\r\n");
        if out.len() - start > bytes_max {
            return Err(BadCommand::TooLong);
        }
        Ok(())
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// The command without its CRLF.
fn write_words(command: Command<'_>, out: &mut Vec<u8>) -> Result<(), BadCommand> {
    match command {
        Command::Ehlo(name) => write_named(b"EHLO ", name, out)?,
        Command::Helo(name) => write_named(b"HELO ", name, out)?,
        Command::StartTls => out.extend_from_slice(b"STARTTLS"),
        Command::Mail(path, parameters) => {
            // RFC 5321 4.1.1.2: the null reverse-path is "<>".
            if !path.is_empty() {
                check_path(path, parameters.utf8)?;
            }
            write_path(b"MAIL FROM:<", path, out);
            parameters.write(out);
        }
        Command::Rcpt(path, utf8) => {
            check_path(path, utf8)?;
            write_path(b"RCPT TO:<", path, out);
        }
        Command::Data => out.extend_from_slice(b"DATA"),
        Command::Rset => out.extend_from_slice(b"RSET"),
        Command::Noop => out.extend_from_slice(b"NOOP"),
        Command::Quit => out.extend_from_slice(b"QUIT"),
    }
    Ok(())
}

fn write_named(verb: &[u8], name: &str, out: &mut Vec<u8>) -> Result<(), BadCommand> {
    check_hello(name)?;
    out.extend_from_slice(verb);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn write_path(verb: &[u8], path: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(verb);
    out.extend_from_slice(path.as_bytes());
    out.push(b'>');
}

impl MailParameters {
    /// What these parameters add to the length a MAIL command may have.
    fn bytes_allowed(self) -> usize {
        let size = if self.size.is_some() { SIZE_BYTES } else { 0 };
        let body = if self.eight_bit { BODY_BYTES } else { 0 };
        let utf8 = if self.utf8 { SMTPUTF8_BYTES } else { 0 };
        size + body + utf8
    }

    fn write(self, out: &mut Vec<u8>) {
        if let Some(size) = self.size {
            // Writing to a Vec cannot fail.
            let _ = write!(out, " SIZE={size}");
        }
        if self.eight_bit {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if self.utf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
    }
}

/// Checks our own name: a domain name with at least one dot, or an address literal (RFC 5321 4.1.4).
pub fn check_hello(name: &str) -> Result<(), BadCommand> {
    if is_address_literal(name) || is_host_name(name) {
        Ok(())
    } else {
        Err(BadCommand::Name)
    }
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3).
fn is_address_literal(name: &str) -> bool {
    let Some(inside) = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return false;
    };
    match inside.strip_prefix("IPv6:") {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => inside.parse::<Ipv4Addr>().is_ok(),
    }
}

/// Letters, digits and hyphens in at least two labels, the last of which is not a number (RFC 1123 2.1: that would be an
/// address without its brackets).
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= DOMAIN_BYTES_MAX
        && name.contains('.')
        && name.split('.').all(is_label)
        && !last_is_number
}

/// Checks that `path` is `local-part@domain` and can be nothing else to a server (RFC 5321 4.1.2).
fn check_path(path: &str, utf8: bool) -> Result<(), BadCommand> {
    if !utf8 && !path.is_ascii() {
        return Err(BadCommand::NotAscii);
    }
    // A C1 control is valid UTF-8, and no less a control.
    if path.chars().any(char::is_control) {
        return Err(BadCommand::Path);
    }
    let local_end = if path.starts_with('"') {
        quoted_end(path.as_bytes())
    } else {
        path.bytes().position(|byte| byte == b'@')
    };
    let (local, rest) = local_end
        .and_then(|end| path.split_at_checked(end))
        .ok_or(BadCommand::Path)?;
    let domain = rest.strip_prefix('@').ok_or(BadCommand::Path)?;
    let is_quoted = local.starts_with('"');
    if !is_quoted && (local.is_empty() || !local.bytes().all(is_dot_string_byte)) {
        return Err(BadCommand::Path);
    }
    check_domain(domain)
}

/// Where the quoted string at the start of `path` is over; `None` if it never is.
fn quoted_end(path: &[u8]) -> Option<usize> {
    let mut i = 1;
    loop {
        match path.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// atext of RFC 5322 3.2.3, UTF-8 as RFC 6531 3.3 adds it, and the dot.
fn is_dot_string_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte) || byte >= 0x80
}

/// A domain as it stands behind the `@` of an address: names, or whatever a literal may hold. More is borne than
/// [`check_hello`] would (underscores, a single label): somebody else's name is his own business, if only it is harmless.
fn check_domain(domain: &str) -> Result<(), BadCommand> {
    let literal = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let fits = match literal {
        // dcontent of RFC 5321 4.1.3, without the space that some other grammars allow.
        Some(inside) => {
            !inside.is_empty()
                && inside
                    .bytes()
                    .all(|byte| matches!(byte, 0x21..=0x5a | 0x5e..=0x7e) && byte != b'>')
        }
        None => {
            !domain.is_empty()
                && domain.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | 0x80..)
                })
        }
    };
    if fits && domain.len() <= DOMAIN_BYTES_MAX {
        Ok(())
    } else {
        Err(BadCommand::Path)
    }
}

#[cfg(test)]
mod tests {
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

    fn mail(path: &str) -> Result<String, BadCommand> {
        line(Command::Mail(path, MailParameters::default()))
    }

    #[test]
    fn commands_are_what_the_protocol_says() {
        let all = MailParameters {
            size: Some(1234),
            eight_bit: true,
            utf8: true,
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
            line(Command::Rcpt("\"a b\"@x.test", false)).unwrap(),
            "RCPT TO:<\"a b\"@x.test>\r\n"
        );
        assert_eq!(line(Command::Data).unwrap(), "DATA\r\n");
        assert_eq!(line(Command::StartTls).unwrap(), "STARTTLS\r\n");
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
            assert_eq!(line(Command::Rcpt(path, true)), Err(BadCommand::Path));
        }
        assert_eq!(
            line(Command::Rcpt("a\u{85}@x.test", true)),
            Err(BadCommand::Path)
        );
        assert_eq!(line(Command::Rcpt("", false)), Err(BadCommand::Path));
        assert_eq!(
            line(Command::Rcpt("é@x.test", false)),
            Err(BadCommand::NotAscii)
        );
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

    proptest! {
        #[test]
        fn whatever_is_asked_one_line_leaves_and_the_path_is_closed_once(
            path in prop_oneof![any::<String>(), "[a-c\"\\\\@<> .\r\n\\[\\]]{0,12}"],
            utf8 in any::<bool>(),
        ) {
            let mut out = Vec::new();
            if write(Command::Rcpt(&path, utf8), &mut out).is_ok() {
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
}
