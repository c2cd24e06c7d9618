//! A verdict: what became of one recipient's mail in one attempt, or in the end. A value, never an `Err`: a 550 is data.
//!
//! Who is hurt ([`Scope`]) and at which command ([`Stage`]) travel with it, because the dispatcher draws different
//! conclusions from "this mailbox is unknown" and "this host is down", and because people want to read both in the report.

use std::borrow::Cow;
use std::fmt;

/// Where a recipient stands. The names are those of the report's `status` column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Nothing has been tried yet.
    Queued,
    /// A server took responsibility for it (2xx to the final dot, RFC 5321 4.2.5).
    Delivered,
    /// Refused for good: a 5xx, a domain that does not exist, a null MX.
    Refused,
    /// Refused for now, or not reachable; to be tried again.
    Deferred,
    /// The final dot was sent, and its reply never came: it may have been delivered.
    InDoubt,
    /// In doubt for the second time, or held by wish: left for a person to decide.
    Held,
    /// Deferred for longer than `--expire`.
    Expired,
    /// On a suppression list: not sent by intention.
    Suppressed,
    /// The message or the address cannot be sent at all (bad address, NUL in the message ...).
    Invalid,
}

impl Status {
    /// All of them, in the order of the summary.
    pub const ALL: [Status; 9] = [
        Status::Delivered,
        Status::Refused,
        Status::Deferred,
        Status::InDoubt,
        Status::Held,
        Status::Expired,
        Status::Suppressed,
        Status::Invalid,
        Status::Queued,
    ];

    /// Its place in [`Status::ALL`], for counts by status.
    pub fn index(self) -> usize {
        Status::ALL
            .iter()
            .position(|each| *each == self)
            .expect("ALL names every status")
    }

    /// The word in the report.
    pub fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Delivered => "delivered",
            Status::Refused => "refused",
            Status::Deferred => "deferred",
            Status::InDoubt => "in-doubt",
            Status::Held => "held",
            Status::Expired => "expired",
            Status::Suppressed => "suppressed",
            Status::Invalid => "invalid",
        }
    }

    /// True if a later attempt may still change it.
    pub fn is_pending(self) -> bool {
        matches!(self, Status::Queued | Status::Deferred | Status::InDoubt)
    }
}

/// Who is hurt by a failure (the column `class`). Wider scopes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// Our own machine or network: no resolver, no route, out of descriptors.
    Local,
    /// The destination as a whole: its domain does not exist, has a null MX, or its DNS does not answer.
    Domain,
    /// The host: connect, greeting, EHLO, TLS, or the connection was lost.
    Host,
    /// This session only: 421 after some messages, a session limit. No penalty for the host.
    Session,
    /// The rate at which we send.
    Rate,
    /// The message: replies to MAIL, DATA or the final dot.
    Message,
    /// One recipient: the reply to its RCPT, or its address.
    Recipient,
}

impl Scope {
    /// The word in the report.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Local => "local",
            Scope::Domain => "domain",
            Scope::Host => "host",
            Scope::Session => "session",
            Scope::Rate => "rate",
            Scope::Message => "message",
            Scope::Recipient => "recipient",
        }
    }
}

/// What was being done when the outcome became known: the command that the reply answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// Reading the batch: address syntax, forbidden bytes.
    Batch,
    /// Looking up the destination's MX hosts and their addresses.
    Dns,
    /// Opening the TCP connection.
    Connect,
    /// Waiting for the 220 greeting.
    Greeting,
    /// EHLO, or HELO after it.
    Ehlo,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, up to its 354 (or BDAT).
    Data,
    /// While the content was being written.
    Body,
    /// The final dot.
    Dot,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
}

impl Stage {
    /// All of them, in the order of a message's way.
    pub const ALL: [Stage; 14] = [
        Stage::Batch,
        Stage::Dns,
        Stage::Connect,
        Stage::Greeting,
        Stage::Ehlo,
        Stage::StartTls,
        Stage::Auth,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Body,
        Stage::Dot,
        Stage::Rset,
        Stage::Quit,
    ];

    /// Those of a session with a server, from its connection to its end.
    pub fn of_session() -> impl Iterator<Item = Stage> {
        let is_within = |stage: &Stage| !matches!(stage, Stage::Batch | Stage::Dns);
        Stage::ALL.into_iter().filter(is_within)
    }

    /// The word in the report's `stage` column.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Batch => "batch",
            Stage::Dns => "dns",
            Stage::Connect => "connect",
            Stage::Greeting => "greeting",
            Stage::Ehlo => "ehlo",
            Stage::StartTls => "starttls",
            Stage::Auth => "auth",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Data => "data",
            Stage::Body => "body",
            Stage::Dot => "dot",
            Stage::Rset => "rset",
            Stage::Quit => "quit",
        }
    }
}

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Enhanced {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl Enhanced {
    /// `Enhanced::new(5, 1, 1)` is 5.1.1.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Enhanced {
        Enhanced {
            class,
            subject,
            detail,
        }
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// What became of one recipient's mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Where the recipient stands now.
    pub status: Status,
    /// Who is hurt. For a delivery: [`Scope::Recipient`].
    pub scope: Scope,
    /// The command that was answered, or what was being done.
    pub stage: Stage,
    /// The reply code, 0 if no reply is behind the verdict.
    pub code: u16,
    /// The enhanced status: the server's, else one of our own where RFC 3463 has a fitting one.
    pub enhanced: Option<Enhanced>,
    /// The reply's text or our own explanation: one line, no control characters ([`Verdict::new`] sees to it).
    pub text: String,
}

impl Verdict {
    /// The longest text that is kept, in bytes: peers can send more, reports need not carry it.
    pub const TEXT_MAX: usize = 512;

    /// A verdict of our own making, without a reply behind it.
    pub fn own(
        status: Status,
        scope: Scope,
        stage: Stage,
        enhanced: Enhanced,
        text: &str,
    ) -> Verdict {
        Verdict::new(status, scope, stage, 0, Some(enhanced), text)
    }

    /// A verdict with all its parts. Whatever `text` holds (bytes of a peer), what is kept is printable and short, so
    /// that it can neither repaint a terminal nor forge a line of a file.
    pub fn new(
        status: Status,
        scope: Scope,
        stage: Stage,
        code: u16,
        enhanced: Option<Enhanced>,
        text: &str,
    ) -> Verdict {
        Verdict {
            status,
            scope,
            stage,
            code,
            enhanced,
            text: printable_text(text, Verdict::TEXT_MAX).into_owned(),
        }
    }
}

/// `text` with control characters, line breaks and direction overrides replaced by `?`, cut to at most `bytes_max`.
pub fn printable(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars() {
        let c = if is_unprintable(c) { '?' } else { c };
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// As [`printable`], without a copy where nothing has to be changed.
pub fn printable_text(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let is_plain = text.bytes().all(|b| matches!(b, b' '..=b'~'));
    match is_plain && text.len() <= bytes_max {
        true => text.into(),
        false => printable(text, bytes_max).into(),
    }
}

/// C0 and C1 controls, DEL, line and paragraph separators, and the characters that change the direction of text.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_cannot_repaint_a_terminal_or_break_a_line() {
        let verdict = Verdict::new(
            Status::Refused,
            Scope::Recipient,
            Stage::Rcpt,
            550,
            None,
            "no\u{1b}[2J\r\n550\u{9b}x\u{202e}y",
        );
        assert_eq!(verdict.text, "no?[2J??550?x?y");
    }

    #[test]
    fn plain_text_stays_and_all_else_is_made_printable() {
        for text in ["", " ok ~", "a\tb", "\u{7f}", "é", "12345678"] {
            assert_eq!(printable_text(text, 6), printable(text, 6), "{text:?}");
        }
        assert!(matches!(printable_text("plain", 5), Cow::Borrowed("plain")));
    }

    #[test]
    fn long_text_is_cut_at_a_character_boundary() {
        assert_eq!(printable("ééé", 5), "éé");
    }

    #[test]
    fn enhanced_codes_print_with_dots() {
        assert_eq!(Enhanced::new(5, 1, 10).to_string(), "5.1.10");
    }
}
