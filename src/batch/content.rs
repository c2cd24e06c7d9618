//! A message in a worker's hands: the canonical bytes and what must be known to send them.
//!
//! A worker uses its [`Content`] again from message to message. It holds one until the next is loaded, so that the further
//! transactions of a message to very many need not load it again.

use crate::mail::{Enhanced, MessageNo, ReversePath, Scope, Stage, Status, Verdict};
use crate::mbox::canonical::Facts;
use crate::mbox::envelope::EnvelopeFault;
use crate::mbox::fault::FaultAt;
use crate::mbox::header::Fields;
use std::fmt;
use std::io;

/// Buffers larger than this are given back before the next message.
const OCTETS_KEPT: usize = 1024 * 1024;

/// A loaded message.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub(super) message: Option<MessageNo>,
    /// The message as it lies in the file, while it is being loaded.
    pub(super) raw: Vec<u8>,
    pub(super) fields: Fields,
    pub(super) bytes: Vec<u8>,
    pub(super) facts: Facts,
    pub(super) reverse_path: ReversePath,
    pub(super) is_signed: bool,
}

impl Content {
    /// An empty one, to be loaded.
    pub fn new() -> Content {
        Content::default()
    }

    /// The message that is loaded.
    pub fn message(&self) -> Option<MessageNo> {
        self.message
    }

    /// What leaves, before dot-stuffing: CRLF line ends, the last line complete.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts the fields of its signatures before the message, which counts as signed from now on, also if there are none.
    pub fn sign(&mut self, fields: &[u8]) {
        self.bytes.splice(..0, fields.iter().copied());
        self.is_signed = true;
    }

    /// True if it was signed since it was loaded.
    pub fn is_signed(&self) -> bool {
        self.is_signed
    }

    /// True if there are octets above 127 (8BITMIME).
    pub fn is_eight_bit(&self) -> bool {
        self.facts.eight_bit
    }

    /// True if there are some in the header (SMTPUTF8).
    pub fn has_utf8_header(&self) -> bool {
        self.facts.utf8_header
    }

    /// The reverse-path of its envelopes.
    pub fn reverse_path(&self) -> &ReversePath {
        &self.reverse_path
    }

    pub(super) fn forget(&mut self) {
        self.message = None;
        self.is_signed = false;
        self.raw.clear();
        self.raw.shrink_to(OCTETS_KEPT);
        self.bytes.clear();
        self.bytes.shrink_to(OCTETS_KEPT);
        self.reverse_path = ReversePath::Null;
    }

    pub(super) fn drop_raw(&mut self) {
        self.raw.clear();
        self.raw.shrink_to(OCTETS_KEPT);
    }
}

/// Why a message cannot be loaded.
#[derive(Debug)]
pub enum ContentError {
    /// The file does not hold what it held at intake.
    Changed,
    /// It is not there now, or cannot be opened.
    Open(io::Error),
    /// It cannot be read now.
    Io(io::Error),
    /// It was found unfit at intake.
    Invalid,
    /// Its content is unfit.
    Unfit(FaultAt),
    /// It has no envelope.
    Envelope(EnvelopeFault),
}

impl ContentError {
    /// What a failed read of an open regular file amounts to: one that is too short is not what it was.
    pub(super) fn read(error: io::Error) -> ContentError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ContentError::Changed,
            _ => ContentError::Io(error),
        }
    }

    /// True if the message may be loaded another time. A file that is not there may be on a disk that is not mounted yet.
    pub fn may_pass(&self) -> bool {
        matches!(self, ContentError::Open(_) | ContentError::Io(_))
    }

    /// The verdict on the recipients of the message. A file that is not there, or that cannot be opened for want of
    /// descriptors, is no reason to give a message up.
    pub fn verdict(&self) -> Verdict {
        let (status, scope, enhanced) = if self.may_pass() {
            (Status::Deferred, Scope::Local, Enhanced::new(4, 3, 0))
        } else {
            (Status::Invalid, Scope::Message, Enhanced::new(5, 6, 0))
        };
        Verdict::own(status, scope, Stage::Batch, enhanced, &self.to_string())
    }
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentError::Changed => f.write_str("the batch file changed after it was read"),
            ContentError::Open(error) => write!(f, "the batch file cannot be opened: {error}"),
            ContentError::Io(error) => write!(f, "cannot read the batch file: {error}"),
            ContentError::Invalid => f.write_str("the message was found invalid"),
            ContentError::Unfit(at) => at.fmt(f),
            ContentError::Envelope(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ContentError {}
