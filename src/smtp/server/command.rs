//! Command lines as a server reads them: RFC 5321 4.1.1, with the parameters of SIZE (RFC 1870), 8BITMIME (RFC 6152),
//! SMTPUTF8 (RFC 6531) and DSN (RFC 3461).
//!
//! Strict where a client's mistake would otherwise go unnoticed (angle brackets are demanded, a space after the colon is
//! not accepted), since its users want to learn of them. Source routes are accepted and dropped (RFC 5321 appendix C).
//! Never panics, whatever the bytes.

/// A command, parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// EHLO with the client's name.
    Ehlo(&'a str),
    /// LHLO with the client's name (RFC 2033).
    Lhlo(&'a str),
    /// HELO with the client's name.
    Helo(&'a str),
    /// MAIL FROM: path and parameters.
    Mail(&'a str, Parameters),
    /// RCPT TO: path and parameters.
    Rcpt(&'a str, Parameters),
    /// DATA.
    Data,
    /// BDAT (RFC 3030) with the octets that follow and whether they are the last.
    Bdat(u64, bool),
    /// AUTH (RFC 4954): mechanism and initial response.
    Auth(&'a str, Option<&'a str>),
    /// RSET.
    Rset,
    /// NOOP, with or without words.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY.
    Vrfy,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// A line of HTTP: a browser that was led here (no SMTP client says these).
    Http,
    /// Any other verb.
    Unknown,
}

/// Why a line is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The reply code.
    pub code: u16,
    /// Enhanced code and text.
    pub text: &'static str,
}

const fn refusal(code: u16, text: &'static str) -> Refusal {
    Refusal { code, text }
}

/// An argument where none belongs, or none where one does.
const BAD_ARGUMENT: Refusal = refusal(501, "5.5.4 Bad argument");
const BAD_PATH: Refusal = refusal(
    501,
    "5.1.3 Bad address: <local@domain> expected after the colon",
);
const BAD_PARAMETER: Refusal = refusal(501, "5.5.4 Bad parameter value");
const UNKNOWN_PARAMETER: Refusal = refusal(555, "5.5.4 Unknown parameter");

/// What follows the line cannot be told from commands any more: the session ends (RFC 7504 2 has the code).
pub const BAD_CHUNK: Refusal = refusal(521, "5.5.4 BDAT size [LAST] expected");

/// The extension that a parameter belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extension {
    /// RFC 1870.
    Size,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 3461.
    Dsn,
    /// RFC 4954.
    Auth,
}

/// Parameters of MAIL and RCPT.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parameters {
    /// `SIZE=`.
    pub size: Option<u64>,
    /// `BODY=8BITMIME`.
    pub eight_bit: bool,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// Extensions whose parameters were used, in their order.
    pub used: Vec<Extension>,
}

/// Longest path with its brackets (RFC 5321 4.5.3.1.3).
const PATH_BYTES_MAX: usize = 256;

/// Parses a line, its line end taken off.
pub fn parse(line: &[u8]) -> Result<Command<'_>, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| refusal(500, "5.5.2 Not UTF-8"))?;
    if text.bytes().any(|b| b.is_ascii_control()) {
        return Err(refusal(500, "5.5.2 Control character in command"));
    }
    let (verb, argument) = match text.split_once(' ') {
        Some((verb, argument)) => (verb, Some(argument)),
        None => (text, None),
    };
    // Verbs have four letters but for STARTTLS and HTTP's; upper-casing into a small array costs no allocation.
    let mut upper = [0; 8];
    let Some(upper) = upper.get_mut(..verb.len()) else {
        return Ok(Command::Unknown);
    };
    upper.copy_from_slice(verb.as_bytes());
    upper.make_ascii_uppercase();
    match &*upper {
        b"EHLO" => client_name(argument).map(Command::Ehlo),
        b"LHLO" => client_name(argument).map(Command::Lhlo),
        b"HELO" => client_name(argument).map(Command::Helo),
        b"MAIL" => path(argument, "FROM:")
            .and_then(|(path, rest)| Ok(Command::Mail(path, mail_parameters(rest)?))),
        b"RCPT" => path(argument, "TO:")
            .and_then(|(path, rest)| Ok(Command::Rcpt(path, rcpt_parameters(rest)?))),
        b"DATA" => without_argument(argument, Command::Data),
        b"BDAT" => chunk(argument),
        b"AUTH" => auth(argument),
        b"RSET" => without_argument(argument, Command::Rset),
        b"QUIT" => without_argument(argument, Command::Quit),
        b"NOOP" => Ok(Command::Noop),
        // RFC 3207 4: no parameters.
        b"STARTTLS" => without_argument(argument, Command::StartTls),
        b"VRFY" => argument.map(|_| Command::Vrfy).ok_or(BAD_ARGUMENT),
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"CONNECT" | b"OPTIONS" | b"HOST:" => {
            Ok(Command::Http)
        }
        _ => Ok(Command::Unknown),
    }
}

fn without_argument<'a>(
    argument: Option<&str>,
    command: Command<'a>,
) -> Result<Command<'a>, Refusal> {
    // RFC 5321 4.1.1: trailing white space SHOULD be tolerated.
    match argument {
        Some(argument) if !argument.trim_end().is_empty() => Err(BAD_ARGUMENT),
        _ => Ok(command),
    }
}

/// RFC 3030 2: `BDAT SP chunk-size [SP "LAST"]`.
fn chunk(argument: Option<&str>) -> Result<Command<'static>, Refusal> {
    let mut words = argument.unwrap_or_default().split_ascii_whitespace();
    let (size, last, more) = (words.next(), words.next(), words.next());
    let is_last = match last {
        None => Some(false),
        Some(word) => word.eq_ignore_ascii_case("LAST").then_some(true),
    };
    // `u64::from_str` would take a sign too.
    let size = size.filter(|size| size.bytes().all(|b| b.is_ascii_digit()));
    match (size.map(str::parse), is_last, more) {
        (Some(Ok(size)), Some(is_last), None) => Ok(Command::Bdat(size, is_last)),
        _ => Err(BAD_CHUNK),
    }
}

/// RFC 4954 4: `AUTH mechanism [initial-response]`.
fn auth(argument: Option<&str>) -> Result<Command<'_>, Refusal> {
    let mut words = argument.unwrap_or_default().split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => Ok(Command::Auth(mechanism, initial)),
        _ => Err(BAD_ARGUMENT),
    }
}

fn client_name(argument: Option<&str>) -> Result<&str, Refusal> {
    match argument.map(str::trim_end) {
        Some(name) if !name.is_empty() && !name.contains(' ') && name.is_ascii() => Ok(name),
        _ => Err(refusal(
            501,
            "5.5.4 A domain or an address literal is expected",
        )),
    }
}

/// The path after `keyword`, without its brackets and source route, and what follows it.
fn path<'a>(argument: Option<&'a str>, keyword: &str) -> Result<(&'a str, &'a str), Refusal> {
    let argument = argument.ok_or(BAD_ARGUMENT)?;
    let word = argument.get(..keyword.len()).ok_or(BAD_ARGUMENT)?;
    if !word.eq_ignore_ascii_case(keyword) {
        return Err(BAD_ARGUMENT);
    }
    let inner = argument[keyword.len()..]
        .strip_prefix('<')
        .ok_or(BAD_PATH)?;
    let end = closing_bracket(inner).ok_or(BAD_PATH)?;
    let (path, rest) = (&inner[..end], &inner[end + 1..]);
    if path.len() + 2 > PATH_BYTES_MAX {
        return Err(refusal(501, "5.1.3 Path too long"));
    }
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return Err(BAD_PATH);
    }
    // RFC 5321 4.1.1.3 and appendix C: a source route is accepted and ignored.
    let path = match path.strip_prefix('@') {
        Some(route) => route.split_once(':').ok_or(BAD_PATH)?.1,
        None => path,
    };
    if path.is_empty() || is_mailbox(path) || path.eq_ignore_ascii_case("postmaster") {
        Ok((path, rest))
    } else {
        Err(BAD_PATH)
    }
}

/// Where the bracket that ends the path is: not within a quoted local part.
fn closing_bracket(inner: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Something before and after the last `@`, without spaces and brackets outside of quotes.
fn is_mailbox(path: &str) -> bool {
    path.rsplit_once('@').is_some_and(|(local, domain)| {
        let is_quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
        let is_clean = |text: &str| {
            !text
                .bytes()
                .any(|b| matches!(b, b' ' | b'<' | b'>' | b',' | b'"'))
        };
        !local.is_empty()
            && (is_quoted || is_clean(local) && !local.contains('@'))
            && !domain.is_empty()
            && is_clean(domain)
    })
}

fn mail_parameters(rest: &str) -> Result<Parameters, Refusal> {
    let mut found = Parameters::default();
    for word in rest.split_ascii_whitespace() {
        let (name, value) = key_and_value(word);
        match (name.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(size)) => {
                found.used.push(Extension::Size);
                found.size = Some(size.parse().map_err(|_| BAD_PARAMETER)?);
            }
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("8BITMIME") => {
                found.used.push(Extension::EightBitMime);
                found.eight_bit = true;
            }
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("7BIT") => {
                found.used.push(Extension::EightBitMime);
            }
            ("SMTPUTF8", None) => {
                found.used.push(Extension::SmtpUtf8);
                found.smtputf8 = true;
            }
            ("RET" | "ENVID", Some(_)) => found.used.push(Extension::Dsn),
            // RFC 4954 5: who submitted it first; of no use here.
            ("AUTH", Some(_)) => found.used.push(Extension::Auth),
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => {
                return Err(BAD_PARAMETER);
            }
            _ => return Err(UNKNOWN_PARAMETER),
        }
    }
    Ok(found)
}

fn rcpt_parameters(rest: &str) -> Result<Parameters, Refusal> {
    let mut found = Parameters::default();
    for word in rest.split_ascii_whitespace() {
        let (name, value) = key_and_value(word);
        match (name.to_ascii_uppercase().as_str(), value) {
            ("NOTIFY" | "ORCPT", Some(_)) => found.used.push(Extension::Dsn),
            ("NOTIFY" | "ORCPT", None) => return Err(BAD_PARAMETER),
            _ => return Err(UNKNOWN_PARAMETER),
        }
    }
    Ok(found)
}

fn key_and_value(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_lines_are_understood() {
        assert_eq!(parse(b"EHLO a.test"), Ok(Command::Ehlo("a.test")));
        assert_eq!(
            parse(b"helo [127.0.0.1] "),
            Ok(Command::Helo("[127.0.0.1]"))
        );
        assert_eq!(
            parse(b"MAIL FROM:<>"),
            Ok(Command::Mail("", Parameters::default()))
        );
        assert_eq!(parse(b"data"), Ok(Command::Data));
        assert_eq!(parse(b"NOOP hello there"), Ok(Command::Noop));
        assert_eq!(parse(b"GET / HTTP/1.1"), Ok(Command::Http));
        assert_eq!(parse(b"STARTTLSSS x"), Ok(Command::Unknown));
        assert_eq!(parse(b"BDAT 12"), Ok(Command::Bdat(12, false)));
        assert_eq!(parse(b"bdat 0 last "), Ok(Command::Bdat(0, true)));
        assert_eq!(
            parse(b"auth plain AHg="),
            Ok(Command::Auth("plain", Some("AHg=")))
        );
        assert_eq!(parse(b"StartTLS"), Ok(Command::StartTls));
        let Ok(Command::Mail(path, parameters)) =
            parse(b"mail from:<\"a>b\"@c.test> SIZE=12 body=8bitmime SMTPUTF8")
        else {
            panic!("a MAIL command")
        };
        assert_eq!(path, "\"a>b\"@c.test");
        assert_eq!(
            (parameters.size, parameters.eight_bit, parameters.smtputf8),
            (Some(12), true, true)
        );
        assert_eq!(
            parse(b"RCPT TO:<@relay.test,@b.test:u@c.test>"),
            Ok(Command::Rcpt("u@c.test", Parameters::default()))
        );
        assert_eq!(
            parse(b"RCPT TO:<Postmaster>"),
            Ok(Command::Rcpt("Postmaster", Parameters::default()))
        );
    }

    #[test]
    fn mistakes_of_clients_are_refused() {
        let long = format!("RCPT TO:<{}@a.test>", "x".repeat(250));
        for line in [
            "EHLO",
            "EHLO a b",
            "MAIL",
            "MAIL FROM",
            "MAIL FROM:a@b.test",
            "MAIL FROM: <a@b.test>",
            "MAIL FROM:<a@b.test",
            "MAIL FROM:<a@b.test>SIZE=1",
            "MAIL FROM:<a@b.test> SIZE=-1",
            "MAIL FROM:<a@b.test> SIZE",
            "MAIL FROM:<a@b.test> WHAT=1",
            "RCPT TO:<a>",
            "RCPT TO:<a@>",
            "RCPT TO:<@b.test>",
            "RCPT TO:<a b@c.test>",
            "RCPT TO:<a@b@c.test>",
            "RCPT TO:<a@b.test,c@d.test>",
            "DATA now",
            "QUIT a",
            "STARTTLS now",
            "VRFY",
            "AUTH",
            "AUTH PLAIN x y",
            "BDAT",
            "BDAT LAST",
            "BDAT -1",
            "BDAT +1",
            "BDAT 1 FIRST",
            "BDAT 1 LAST x",
            "BDAT 18446744073709551616",
            "NOOP \u{0}",
            &long,
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse(b"RCPT TO:<\xff@a.test>").is_err());
    }
}
