//! What a server is like ([`ServerSettings`]) and what it decides at each stage ([`Handler`], [`Decision`]).
//!
//! The session knows the protocol, the handler knows what is to be done with the mail. A decision can be anything that real
//! servers do, good and bad: accept, refuse, defer, delay, hang up, never answer.

use std::time::Duration;

use super::sasl::AuthSettings;
use super::violation::Violation;

/// What EHLO offers and which limits hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSettings {
    /// The server's name in greeting and EHLO.
    pub name: String,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 2034.
    pub enhanced_status_codes: bool,
    /// RFC 1870.
    pub size: bool,
    /// RFC 3461. Parameters are accepted; no notification is ever sent.
    pub dsn: bool,
    /// RFC 3030, without BINARYMIME.
    pub chunking: bool,
    /// RFC 3207. Offered until the session is in TLS.
    pub starttls: bool,
    /// RFC 4954: who may authenticate, and how.
    pub auth: Option<AuthSettings>,
    /// MAIL needs AUTH before: 530 5.7.0.
    pub auth_required: bool,
    /// Further EHLO lines, verbatim.
    pub more_extensions: Vec<String>,
    /// LMTP (RFC 2033): LHLO instead of EHLO, and after the content one reply for each recipient that was accepted.
    pub lmtp: bool,
    /// EHLO is refused with 502, so that clients fall back to HELO.
    pub helo_only: bool,
    /// Largest content; more is refused with 552.
    pub content_bytes_max: u64,
    /// Most recipients in a transaction; more get 452 (RFC 5321 4.5.3.1.10).
    pub recipients_max: usize,
    /// So many refused commands end the session with 421.
    pub errors_max: u32,
    /// Content with bare CR or LF is refused with 554 (the strict side of the smuggling defence), not only noted.
    pub refuse_bare_newlines: bool,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            name: "sink.test".into(),
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            enhanced_status_codes: true,
            size: true,
            dsn: false,
            chunking: false,
            starttls: false,
            auth: None,
            auth_required: false,
            more_extensions: Vec::new(),
            lmtp: false,
            helo_only: false,
            content_bytes_max: 100 * 1024 * 1024,
            recipients_max: 1000,
            errors_max: 100,
            refuse_bare_newlines: false,
        }
    }
}

/// The transaction under way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// Empty for the null reverse-path.
    pub reverse_path: String,
    /// Those that were accepted, in their order.
    pub recipients: Vec<String>,
    /// The SIZE parameter of MAIL.
    pub declared_size: Option<u64>,
    /// BODY=8BITMIME was given.
    pub eight_bit: bool,
    /// SMTPUTF8 was given.
    pub smtputf8: bool,
}

/// A reply line (or several, separated by LF in the text).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// What follows them, an enhanced code included.
    pub text: String,
}

impl Reply {
    /// `Reply::new(450, "4.2.1 later")`.
    pub fn new(code: u16, text: impl Into<String>) -> Reply {
        let text = text.into();
        Reply { code, text }
    }
}

/// How a stage is answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Answer {
    /// The stage's usual positive reply.
    #[default]
    Accept,
    /// This reply. Whether the stage succeeded follows from its code.
    Reply(Reply),
    /// No reply; the connection is closed.
    Drop,
    /// No reply, now or ever; the connection stays open.
    Silence,
}

/// An answer with its circumstances.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// How to answer.
    pub answer: Answer,
    /// How long to wait before.
    pub delay: Duration,
    /// Close the connection after the reply. A 421 always does.
    pub close: bool,
    /// Bytes that leave right behind the reply: what somebody on the path to the client might add.
    pub surplus: Vec<u8>,
}

impl Decision {
    /// The usual positive reply, at once.
    pub fn accept() -> Decision {
        Decision::default()
    }

    /// A reply of one's own, at once.
    pub fn reply(code: u16, text: impl Into<String>) -> Decision {
        Decision {
            answer: Answer::Reply(Reply::new(code, text)),
            ..Decision::default()
        }
    }
}

/// Decides what becomes of mail, and takes it.
pub trait Handler {
    /// Before the greeting.
    fn greeting(&mut self) -> Decision {
        Decision::accept()
    }

    /// EHLO or HELO with the client's name.
    fn ehlo(&mut self, _name: &str) -> Decision {
        Decision::accept()
    }

    /// STARTTLS, where it is offered and in its place. If it is accepted the driver is told [`super::Next::StartTls`].
    fn starttls(&mut self) -> Decision {
        Decision::accept()
    }

    /// AUTH has led to the right credentials of this user.
    fn auth(&mut self, _user: &str) -> Decision {
        Decision::accept()
    }

    /// Printable octets without commas that nobody can foresee, for challenges.
    fn nonce(&mut self) -> String;

    /// MAIL; the transaction has no recipients yet.
    fn mail(&mut self, _transaction: &Transaction) -> Decision {
        Decision::accept()
    }

    /// RCPT; `recipient` is not among the transaction's recipients yet.
    fn rcpt(&mut self, _transaction: &Transaction, _recipient: &str) -> Decision {
        Decision::accept()
    }

    /// DATA, or the first BDAT, with at least one recipient.
    fn data(&mut self, _transaction: &Transaction) -> Decision {
        Decision::accept()
    }

    /// The first bytes of the content are there. A reply here is sent early, and the connection closed.
    fn body(&mut self, _transaction: &Transaction) -> Decision {
        Decision::accept()
    }

    /// Some of the content, dot-stuffing taken away where there is any.
    fn content(&mut self, slice: &[u8]);

    /// The final dot, or the end of the last chunk. What is accepted here is the handler's to keep.
    fn dot(&mut self, transaction: &Transaction, content_bytes: u64) -> Decision;

    /// The same in LMTP: a decision for each of the transaction's recipients, in their order. What is accepted for some is the
    /// handler's to keep for those. A missing decision accepts.
    fn dot_each(&mut self, transaction: &Transaction, content_bytes: u64) -> Vec<Decision> {
        vec![self.dot(transaction, content_bytes); transaction.recipients.len()]
    }

    /// RSET.
    fn rset(&mut self) -> Decision {
        Decision::accept()
    }

    /// QUIT.
    fn quit(&mut self) -> Decision {
        Decision::accept()
    }

    /// The transaction under way came to nothing; content handed over is to be forgotten.
    fn abandoned(&mut self) {}

    /// The client broke a rule.
    fn violation(&mut self, _violation: Violation) {}
}
