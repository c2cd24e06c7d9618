//! What is wrong with one message or one recipient of a batch, in words that lead to the place.
//!
//! A problem is data: the rest of the batch goes on, and the message appears in the report. Warnings (see
//! [`Problem::is_warning`]) do not keep a message from being sent.

use crate::mail::address::AddressFault;
use crate::mail::verdict::printable;
use crate::mail::{Enhanced, Scope, Stage, Status, Verdict};
use crate::mbox::envelope::EnvelopeFault;
use crate::mbox::fault::Fault;
use std::fmt;
use std::sync::Arc;

/// How much of a bad address is quoted.
const QUOTED_OCTETS_MAX: usize = 80;

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The content cannot be sent.
    Content(Fault),
    /// There is no envelope.
    Envelope(EnvelopeFault),
    /// A recipient that is no address: in which field (or file), why, and the printable beginning of it.
    Address(&'static str, AddressFault, String),
    /// A line that begins as a separator does, without a date (a warning).
    Dateless,
    /// A file of a Maildir that cannot be read.
    Unreadable(String),
}

impl What {
    pub(super) fn address(field: &'static str, fault: AddressFault, text: &[u8]) -> What {
        let text = &text[..text.len().min(2 * QUOTED_OCTETS_MAX)];
        let text = printable(&String::from_utf8_lossy(text), QUOTED_OCTETS_MAX);
        What::Address(field, fault, text)
    }
}

/// A problem and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The name of the file.
    pub source: Arc<str>,
    /// The number of the message in the batch, from 1; `None` if the file is the list of `--to-file`.
    pub message: Option<u64>,
    /// The line in the file, from 1.
    pub line: u64,
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: What,
}

impl Problem {
    /// True if the message is sent all the same.
    pub fn is_warning(&self) -> bool {
        self.what == What::Dateless
    }

    /// What the author of the batch can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match &self.what {
            What::Content(fault) => fault.hint(),
            What::Envelope(fault) => fault.hint(),
            What::Dateless => Some("quote it as >From, as mboxrd asks"),
            What::Address(..) | What::Unreadable(_) => None,
        }
    }

    /// The verdict on a recipient whom this problem keeps from getting mail.
    pub fn verdict(&self) -> Verdict {
        let (scope, enhanced) = match &self.what {
            What::Address(..) => (Scope::Recipient, Enhanced::new(5, 1, 3)),
            What::Envelope(EnvelopeFault::NoRecipients) => (Scope::Message, Enhanced::new(5, 1, 3)),
            What::Envelope(EnvelopeFault::Journey(_)) => (Scope::Message, Enhanced::new(5, 7, 0)),
            What::Envelope(_) => (Scope::Message, Enhanced::new(5, 1, 7)),
            What::Content(Fault::TooLarge(_)) => (Scope::Message, Enhanced::new(5, 3, 4)),
            _ => (Scope::Message, Enhanced::new(5, 6, 0)),
        };
        Verdict::own(
            Status::Invalid,
            scope,
            Stage::Batch,
            enhanced,
            &self.to_string(),
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            source,
            message,
            line,
            offset,
            what,
        } = self;
        let source = printable(source, 1024);
        write!(f, "{source}: ")?;
        if let Some(message) = message {
            write!(f, "message {message}, ")?;
        }
        write!(f, "line {line} (byte {offset}): {what}")
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Content(fault) => fault.fmt(f),
            What::Envelope(fault) => fault.fmt(f),
            What::Address(field, fault, text) if text.is_empty() => {
                write!(f, "bad address in {field}: {fault}")
            }
            What::Address(field, fault, text) => {
                write!(f, "bad address in {field}: {fault}: {text}")
            }
            What::Dateless => {
                f.write_str("a line begins with 'From ' but bears no date; taken as content")
            }
            What::Unreadable(error) => write!(f, "cannot read: {}", printable(error, 256)),
        }
    }
}
