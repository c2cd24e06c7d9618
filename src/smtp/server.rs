//! The server side of SMTP (RFC 5321) without I/O: bytes in, replies out, decisions asked of a [`Handler`].
//!
//! The driver calls [`Session::open`] once, then [`Session::receive`] with whatever bytes it has, as often as they come. Every
//! complete command in the input is processed and all replies are collected, so that a pipelining client sees one flight.
//! What the session did not use (part of a command line) the driver offers again, with more. [`Next`] says how to go on;
//! before it obeys, the driver sends what is in `out`.
//!
//! INVARIANTS: a recipient is in the transaction only if its RCPT was accepted, and [`Handler::dot`] is called only after a
//! 354; what the handler is told does not depend on how the input was cut (but for rules about what travels together). Content
//! ends at CRLF.CRLF only. Bytes of a client never panic; a line is kept up to [`LINE_BYTES_KEPT`], recipients and content
//! up to the settings' limits.
//!
//! Violations of the protocol are reported to the handler and otherwise answered as usual; only bare newlines can be made to
//! refuse a message.
//!
//! STARTTLS (RFC 3207): after [`Next::StartTls`] the driver shakes hands and calls [`Session::secured`]. What came in clear
//! behind the command is thrown away unread, so that nothing said outside TLS is obeyed inside (CVE-2011-0411).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

mod auth;
mod body;
mod chunk;
mod command;
mod content;
mod obey;
mod policy;
mod reply;
mod sasl;
#[cfg(test)]
mod tests;
mod violation;

pub use policy::{Answer, Decision, Handler, Reply, ServerSettings, Transaction};
pub use sasl::{AuthSettings, Mechanism};
pub use violation::Violation;

use chunk::Chunks;
use command::Command;
use content::Content;
use sasl::Exchange;

/// Longest command line that is looked at; of longer ones the rest is thrown away and they are refused. RFC 4954 4 demands so
/// much for the lines of AUTH.
pub const LINE_BYTES_KEPT: usize = 12_288;

/// How the driver goes on, once it has sent the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Read more from the client.
    Read,
    /// Wait so long, then call [`Session::receive`] with the unused input, even if that is empty.
    Pause(Duration),
    /// Close the connection, letting the client read what was sent.
    Close,
    /// Close the connection at once.
    Drop,
    /// Shake hands as a TLS server, then call [`Session::secured`]. All input was used.
    StartTls,
}

/// What [`Session::receive`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// How many bytes of the input are done with.
    pub used: usize,
    /// How to go on.
    pub next: Next,
}

/// What the next byte of input belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// A command line.
    Command,
    /// The rest of a command line that is too long.
    OverlongCommand,
    /// The content of a message; true once the handler was asked about its first bytes.
    Content(bool),
    /// A chunk of which so many octets are still to come.
    Chunk(u64),
    /// Nothing: no reply is ever sent again.
    Deaf,
}

/// One connection's conversation.
pub struct Session {
    settings: Arc<ServerSettings>,
    phase: Phase,
    /// EHLO or HELO was accepted.
    introduced: bool,
    /// It was EHLO.
    extended: bool,
    /// Inside TLS.
    secured: bool,
    /// AUTH has succeeded.
    authenticated: bool,
    /// AUTH is under way: lines are responses.
    exchange: Option<Exchange>,
    /// The greeting was a refusal: nothing but QUIT is of use (RFC 5321 3.1).
    turned_away: bool,
    /// MAIL was accepted: `transaction` means something.
    in_transaction: bool,
    /// MAIL was tried since the last reset; what follows it in the same group may be refused without being wrong.
    mail_tried: bool,
    /// RCPT was tried in this transaction.
    rcpt_tried: bool,
    transaction: Transaction,
    content: Content,
    /// BDAT was used in this transaction, and how that stands.
    chunks: Option<Chunks>,
    /// What is answered once the octets of the chunk are in.
    chunk: chunk::Chunk,
    errors: u32,
    /// A reply that waits for a pause to end, and how to go on after it.
    held: Option<(Vec<u8>, Option<Next>)>,
    /// Replies to the content that are still due: LMTP has one for each recipient.
    due: VecDeque<Decision>,
    /// Set by whatever ends the processing of input.
    next: Option<Next>,
}

impl Session {
    /// A session before its greeting.
    pub fn new(settings: Arc<ServerSettings>) -> Session {
        Session {
            settings,
            phase: Phase::Command,
            introduced: false,
            extended: false,
            secured: false,
            authenticated: false,
            exchange: None,
            turned_away: false,
            in_transaction: false,
            mail_tried: false,
            rcpt_tried: false,
            transaction: Transaction::default(),
            content: Content::new(),
            chunks: None,
            chunk: chunk::Chunk::default(),
            errors: 0,
            held: None,
            due: VecDeque::new(),
            next: None,
        }
    }

    /// The greeting. `early` says that the client has spoken already.
    pub fn open(&mut self, early: bool, out: &mut Vec<u8>, handler: &mut impl Handler) -> Next {
        if early {
            handler.violation(Violation::EarlyTalker);
        }
        let protocol = if self.settings.lmtp { "LMTP" } else { "ESMTP" };
        let greeting = format!("{} {protocol}", self.settings.name);
        let decision = handler.greeting();
        self.turned_away = !self.settle(decision, 220, &greeting, out);
        self.next.take().unwrap_or(Next::Read)
    }

    /// Processes input. Also to be called, with what is left of it, when a pause is over.
    pub fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> Progress {
        if let Some((reply, next)) = self.held.take() {
            out.extend_from_slice(&reply);
            self.next = next;
            self.answer_due(out);
        }
        let mut used = 0;
        while self.next.is_none() && used < input.len() {
            let rest = &input[used..];
            let step = match self.phase {
                Phase::Command => self.command_line(rest, out, handler),
                Phase::OverlongCommand => self.overlong_line(rest, out, handler),
                Phase::Content(asked) => self.take_content(asked, rest, out, handler),
                Phase::Chunk(left) => self.take_chunk(left, rest, out, handler),
                Phase::Deaf => rest.len(),
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        let next = self.next.take().unwrap_or(Next::Read);
        if next == Next::StartTls {
            // Bytes in clear behind STARTTLS must never be taken for the client's words inside TLS.
            used = input.len();
        }
        Progress { used, next }
    }

    /// The connection is inside TLS now: after STARTTLS, or before [`Session::open`] where TLS comes first (RFC 8314).
    /// All that was learned before is forgotten (RFC 3207 4.2): the client has to say EHLO again.
    pub fn secured(&mut self, handler: &mut impl Handler) {
        self.reset(handler);
        self.secured = true;
        (self.introduced, self.extended) = (false, false);
        (self.authenticated, self.exchange) = (false, None);
    }

    /// The client has closed the connection, or it is closed for another reason.
    pub fn close(&mut self, handler: &mut impl Handler) {
        self.reset(handler);
    }

    /// True while content is being received: the driver need not hurry to send anything.
    pub fn is_in_content(&self) -> bool {
        matches!(self.phase, Phase::Content(_) | Phase::Chunk(_))
    }

    // ---- Lines -------------------------------------------------------------------------------------------------------

    /// Processes one command line; returns its length, 0 if it is not complete.
    fn command_line(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> usize {
        let Some(end) = memchr::memchr(b'\n', input) else {
            if input.len() < LINE_BYTES_KEPT + 2 {
                return 0;
            }
            self.phase = Phase::OverlongCommand;
            return input.len();
        };
        let line = match input[..end].strip_suffix(b"\r") {
            Some(line) => line,
            None => {
                handler.violation(Violation::BareLf);
                &input[..end]
            }
        };
        if line.contains(&b'\r') {
            handler.violation(Violation::BareCr);
        }
        let is_last = end + 1 == input.len();
        if line.len() > LINE_BYTES_KEPT {
            self.refuse_overlong(out, handler);
        } else if let Some(exchange) = self.exchange.take() {
            if !is_last {
                handler.violation(Violation::NotLastInGroup);
            }
            self.auth_line(exchange, line, out, handler);
        } else {
            match command::parse(line) {
                Ok(command) => {
                    self.check_line(&command, line.len() + 2, is_last, handler);
                    self.obey(command, out, handler);
                }
                Err(refusal) => {
                    handler.violation(Violation::BadSyntax);
                    self.error(refusal.code, refusal.text, out);
                    if refusal == command::BAD_CHUNK {
                        self.end_with(Next::Close);
                    }
                }
            }
        }
        end + 1
    }

    /// Throws away the rest of a line that is too long, then refuses it.
    fn overlong_line(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> usize {
        match memchr::memchr(b'\n', input) {
            None => input.len(),
            Some(end) => {
                self.phase = Phase::Command;
                self.refuse_overlong(out, handler);
                end + 1
            }
        }
    }

    fn refuse_overlong(&mut self, out: &mut Vec<u8>, handler: &mut impl Handler) {
        handler.violation(Violation::LongCommand);
        self.exchange = None;
        // RFC 5321 4.5.3.1.10 names 500 for lines that are too long.
        self.error(500, "5.5.2 Line too long", out);
    }

    /// Rules about a line's length and what travels with it.
    fn check_line(
        &self,
        command: &Command<'_>,
        bytes: usize,
        is_last: bool,
        handler: &mut impl Handler,
    ) {
        // RFC 5321 4.5.3.1.4, and the additions of RFC 1870 3, RFC 6152 3, RFC 6531 3.4, RFC 3461 4 and RFC 4954 3.
        let dsn = if self.settings.dsn { 500 } else { 0 };
        let auth = if self.settings.auth.is_some() { 500 } else { 0 };
        let bytes_max = match command {
            Command::Mail(..) => 512 + 26 + 17 + 10 + dsn + auth,
            Command::Rcpt(..) => 512 + 10 + dsn,
            Command::Auth(..) => LINE_BYTES_KEPT,
            _ => 512,
        };
        if bytes > bytes_max {
            handler.violation(Violation::LongCommand);
        }
        if is_last {
            return;
        }
        match command {
            // RFC 3207 4: the last command in a group. Whether it is obeyed or not.
            Command::StartTls => handler.violation(Violation::PlaintextAfterStartTls),
            Command::Data => handler.violation(Violation::ContentBefore354),
            Command::Quit => handler.violation(Violation::DataAfterQuit),
            // Its octets travel with it.
            Command::Bdat(..) => {}
            _ if !self.offers_pipelining() => handler.violation(Violation::PipeliningNotOffered),
            Command::Ehlo(_)
            | Command::Lhlo(_)
            | Command::Helo(_)
            | Command::Auth(..)
            | Command::Vrfy
            | Command::Noop => {
                handler.violation(Violation::NotLastInGroup);
            }
            _ => {}
        }
    }

    fn offers_pipelining(&self) -> bool {
        self.extended && self.settings.pipelining
    }

    fn reset(&mut self, handler: &mut impl Handler) {
        if self.in_transaction || self.is_in_content() {
            handler.abandoned();
        }
        self.in_transaction = false;
        self.mail_tried = false;
        self.rcpt_tried = false;
        self.chunks = None;
        self.transaction.recipients.clear();
    }
}
