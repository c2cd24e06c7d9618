//! What makes a message unfit to be sent: nothing of such a message ever leaves.

use std::fmt;

/// A reason to refuse a message of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// A NUL octet (RFC 5322 4: obsolete; servers cut lines there).
    Nul,
    /// A CR that no LF follows (RFC 5321 2.3.8: must not be sent; the root of SMTP smuggling).
    StrayCr,
    /// A line of more than 998 octets (RFC 5322 2.1.1).
    LongLine,
    /// A line of the header that is neither a field nor the continuation of one.
    NoField,
    /// The message has no header at all.
    NoHeader,
    /// Octets in the header that are not UTF-8: no server may be sent them (RFC 6532 3.1).
    HeaderNotUtf8,
    /// A single line of the header is longer than so many octets.
    HeaderLineTooLong(usize),
    /// The header is larger than so many octets, lists of recipients not counted.
    HeaderTooLarge(usize),
    /// The lists of recipients in the header are larger than so many octets.
    ListsTooLarge(usize),
    /// The header has more than so many fields.
    TooManyFields(usize),
    /// The message is larger than so many octets.
    TooLarge(u64),
    /// A complete From_ line that no empty line precedes: two messages that became one, and nobody may get both.
    LostSeparator,
    /// A complete From_ line with a byte order mark before it: the same.
    MarkedSeparator,
    /// A stream of messages ends within a line: who wrote it may have been stopped.
    CutOff,
    /// mboxcl2: no Content-Length field.
    NoContentLength,
    /// mboxcl2: a Content-Length that is no number, or two that differ.
    BadContentLength,
    /// mboxcl2: where Content-Length says the message ends, no separator follows.
    WrongContentLength,
    /// mboxcl2: the file ends so many bytes before the message does.
    Truncated(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Nul => f.write_str("a NUL byte"),
            Fault::StrayCr => f.write_str("a CR without LF"),
            Fault::LongLine => f.write_str("a line of more than 998 bytes"),
            Fault::NoField => f.write_str("a header line that is no field (no name and colon)"),
            Fault::NoHeader => f.write_str("no header"),
            Fault::HeaderNotUtf8 => f.write_str("bytes in the header that are not UTF-8"),
            Fault::HeaderLineTooLong(max) => write!(f, "a header line of more than {max} bytes"),
            Fault::HeaderTooLarge(max) => write!(
                f,
                "a header of more than {max} bytes, lists of recipients not counted"
            ),
            Fault::ListsTooLarge(max) => {
                write!(
                    f,
                    "lists of recipients in the header of more than {max} bytes"
                )
            }
            Fault::TooManyFields(max) => write!(f, "a header of more than {max} fields"),
            Fault::TooLarge(max) => write!(f, "a message of more than {max} bytes"),
            Fault::LostSeparator => f.write_str("a From_ line without an empty line before it"),
            Fault::MarkedSeparator => f.write_str("a From_ line with a byte order mark before it"),
            Fault::CutOff => {
                f.write_str("the input ends here, within a line: the message may be cut off")
            }
            Fault::NoContentLength => f.write_str("no Content-Length, which mboxcl2 needs"),
            Fault::BadContentLength => f.write_str("a bad Content-Length"),
            Fault::WrongContentLength => {
                f.write_str("no separator where Content-Length says that the message ends")
            }
            Fault::Truncated(missing) => {
                write!(
                    f,
                    "the file ends {missing} bytes before Content-Length says"
                )
            }
        }
    }
}

impl Fault {
    /// What its author can do about it.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Fault::LongLine => {
                Some("encode it (quoted-printable or base64), or use --fold-long-lines")
            }
            Fault::StrayCr => {
                Some("if lines end in bare CR (old Mac), convert them: tr '\\r' '\\n'")
            }
            Fault::ListsTooLarge(_) => {
                Some("put the addresses into a file of their own: --to-file")
            }
            Fault::HeaderNotUtf8 => Some("encode it as RFC 2047 asks, or convert it to UTF-8"),
            Fault::LostSeparator => {
                Some("if a message begins here, put an empty line before it, else quote it: >From")
            }
            Fault::MarkedSeparator => Some("if a message begins here, take the mark away"),
            Fault::CutOff => Some("if it is whole, end it with a newline"),
            Fault::NoContentLength | Fault::BadContentLength | Fault::WrongContentLength => {
                Some("is it mboxrd? then leave --mbox away")
            }
            _ => None,
        }
    }
}

/// A fault and where it is, counted from the first byte of the raw message (its From_ line, if it has one).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultAt {
    /// The reason.
    pub fault: Fault,
    /// The offset within the message.
    pub offset: u64,
}

impl fmt::Display for FaultAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at its byte {}", self.fault, self.offset)
    }
}

impl std::error::Error for FaultAt {}
