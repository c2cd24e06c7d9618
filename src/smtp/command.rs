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

use super::dsn::{self, Dsn};

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
/// The longest response to a challenge of AUTH, CRLF included (RFC 4954 section 4).
pub const RESPONSE_BYTES_MAX: usize = 12288;

/// A command of the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// EHLO with our name.
    Ehlo(&'a str),
    /// HELO with our name.
    Helo(&'a str),
    /// LHLO with our name (RFC 2033).
    Lhlo(&'a str),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH: the mechanism, and the first message in base64 if it goes with the command (RFC 4954).
    Auth(&'a str, Option<&'a str>),
    /// A response to a challenge of AUTH, in base64.
    Response(&'a str),
    /// MAIL FROM with its parameters.
    Mail(&'a str, MailParameters<'a>),
    /// RCPT TO with its parameters.
    Rcpt(&'a str, RcptParameters<'a>),
    /// DATA.
    Data,
    /// BDAT for the whole content: so many octets, and LAST (RFC 3030).
    BdatLast(u64),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
}

/// The parameters of MAIL. Only what the server offers may be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MailParameters<'a> {
    /// SIZE: octets of the content with CRLF line ends, before dot-stuffing (RFC 1870 section 5).
    pub size: Option<u64>,
    /// BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531): addresses may hold UTF-8.
    pub utf8: bool,
    /// RET and ENVID (RFC 3461).
    pub dsn: Option<&'a Dsn>,
}

/// The parameters of RCPT. Only what the server offers may be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RcptParameters<'a> {
    /// The transaction uses SMTPUTF8.
    pub utf8: bool,
    /// NOTIFY and ORCPT (RFC 3461).
    pub dsn: Option<&'a Dsn>,
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
    /// The envelope identifier for notifications cannot be sent.
    EnvelopeId,
    /// Not the name of a mechanism of AUTH, or not base64.
    Auth,
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
            BadCommand::EnvelopeId => {
                "the envelope identifier is empty, too long, or not printable ASCII"
            }
            BadCommand::Auth => "what was to be said for AUTH is no mechanism or no base64",
        })
    }
}

impl std::error::Error for BadCommand {}

/// Appends `command` with its CRLF to `out`; on an error `out` is as it was.
pub fn write(command: Command<'_>, out: &mut Vec<u8>) -> Result<(), BadCommand> {
    let start = out.len();
    let bytes_max = match command {
        Command::Mail(_, parameters) => LINE_BYTES_MAX + parameters.bytes_allowed(),
        Command::Rcpt(_, RcptParameters { dsn: Some(_), .. }) => LINE_BYTES_MAX + dsn::RCPT_BYTES,
        Command::Response(_) => RESPONSE_BYTES_MAX,
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
        Command::Lhlo(name) => write_named(b"LHLO ", name, out)?,
        Command::StartTls => out.extend_from_slice(b"STARTTLS"),
        Command::Auth(mechanism, initial) => write_auth(mechanism, initial, out)?,
        Command::Response(response) => {
            check_base64(response)?;
            out.extend_from_slice(response.as_bytes());
        }
        Command::Mail(path, parameters) => {
            if !parameters.dsn.is_none_or(Dsn::is_sayable) {
                return Err(BadCommand::EnvelopeId);
            }
            // RFC 5321 4.1.1.2: the null reverse-path is "<>".
            if !path.is_empty() {
                check_path(path, parameters.utf8)?;
            }
            write_path(b"MAIL FROM:<", path, out);
            parameters.write(out);
        }
        Command::Rcpt(path, parameters) => {
            check_path(path, parameters.utf8)?;
            write_path(b"RCPT TO:<", path, out);
            if let Some(dsn) = parameters.dsn {
                dsn.write_rcpt(path, out);
            }
        }
        Command::Data => out.extend_from_slice(b"DATA"),
        Command::BdatLast(octets) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "BDAT {octets} LAST");
        }
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

fn write_auth(mechanism: &str, initial: Option<&str>, out: &mut Vec<u8>) -> Result<(), BadCommand> {
    // RFC 4422 3.1: upper-case letters, digits, hyphen and underscore.
    let is_name_byte =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if !(1..=20).contains(&mechanism.len()) || !mechanism.bytes().all(is_name_byte) {
        return Err(BadCommand::Auth);
    }
    out.extend_from_slice(b"AUTH ");
    out.extend_from_slice(mechanism.as_bytes());
    if let Some(initial) = initial {
        check_base64(initial)?;
        out.push(b' ');
        // RFC 4954 section 4: a message of no octets is "=".
        let is_empty = initial.is_empty();
        out.extend_from_slice(if is_empty { b"=" } else { initial.as_bytes() });
    }
    Ok(())
}

/// Checks that `text` has no byte but those of base64: then it can be no second command either.
fn check_base64(text: &str) -> Result<(), BadCommand> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if text.bytes().all(fits) {
        Ok(())
    } else {
        Err(BadCommand::Auth)
    }
}

fn write_path(verb: &[u8], path: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(verb);
    out.extend_from_slice(path.as_bytes());
    out.push(b'>');
}

impl MailParameters<'_> {
    /// What these parameters add to the length a MAIL command may have.
    fn bytes_allowed(self) -> usize {
        let size = if self.size.is_some() { SIZE_BYTES } else { 0 };
        let body = if self.eight_bit { BODY_BYTES } else { 0 };
        let utf8 = if self.utf8 { SMTPUTF8_BYTES } else { 0 };
        let dsn = if self.dsn.is_some() {
            dsn::MAIL_BYTES
        } else {
            0
        };
        size + body + utf8 + dsn
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
        if let Some(dsn) = self.dsn {
            dsn.write_mail(out);
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
mod tests;
