//! Rules of the protocol that a client can break, each with a name that statistics and tests use.

/// A rule that a client broke.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Violation {
    /// A LF without CR before it, in a command or in content (RFC 5321 2.3.8).
    BareLf,
    /// A CR without LF after it (RFC 5321 2.3.8).
    BareCr,
    /// A content line of more than 1000 octets with its CRLF (RFC 5321 4.5.3.1.6).
    LongLine,
    /// A command line longer than 512 octets and what the offered extensions add (RFC 5321 4.5.3.1.4).
    LongCommand,
    /// The client sent more than one command at once although PIPELINING was not offered (RFC 2920 3.1).
    PipeliningNotOffered,
    /// EHLO, VRFY, NOOP or the like followed by more in the same group (RFC 2920 3.1).
    NotLastInGroup,
    /// Bytes followed DATA before the 354 was sent (RFC 5321 4.1.1.4).
    ContentBefore354,
    /// Bytes after QUIT (RFC 5321 4.1.1.10).
    DataAfterQuit,
    /// The client spoke before the greeting (RFC 5321 3.1).
    EarlyTalker,
    /// A command where the sequence has no place for it (RFC 5321 4.1.4).
    OutOfSequence,
    /// A verb that is not known.
    UnknownCommand,
    /// A known verb with an argument that does not parse.
    BadSyntax,
    /// A MAIL or RCPT parameter of an extension that was not offered (RFC 5321 2.2.1).
    UnofferedParameter,
    /// Octets above 127 in content without BODY=8BITMIME (RFC 6152).
    EightBitUndeclared,
    /// Octets above 127 in an address without SMTPUTF8 (RFC 6531 3.3).
    Utf8Undeclared,
    /// The content is larger than the SIZE that was declared (RFC 1870 6.3).
    SizeExceedsDeclared,
    /// A line that starts with one dot and goes on with something else: it was not dot-stuffed (RFC 5321 4.5.2).
    UnstuffedDot,
    /// Bytes in clear behind STARTTLS (RFC 3207 4.1); they are thrown away, as CVE-2011-0411 teaches.
    PlaintextAfterStartTls,
    /// The command of an extension that was not offered (RFC 5321 2.2.1).
    UnofferedCommand,
}

impl Violation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Violation; 19] = [
        Violation::BareLf,
        Violation::BareCr,
        Violation::LongLine,
        Violation::LongCommand,
        Violation::PipeliningNotOffered,
        Violation::NotLastInGroup,
        Violation::ContentBefore354,
        Violation::DataAfterQuit,
        Violation::EarlyTalker,
        Violation::OutOfSequence,
        Violation::UnknownCommand,
        Violation::BadSyntax,
        Violation::UnofferedParameter,
        Violation::EightBitUndeclared,
        Violation::Utf8Undeclared,
        Violation::SizeExceedsDeclared,
        Violation::UnstuffedDot,
        Violation::PlaintextAfterStartTls,
        Violation::UnofferedCommand,
    ];

    /// Its name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Violation::BareLf => "bare-lf",
            Violation::BareCr => "bare-cr",
            Violation::LongLine => "long-line",
            Violation::LongCommand => "long-command",
            Violation::PipeliningNotOffered => "pipelining-not-offered",
            Violation::NotLastInGroup => "not-last-in-group",
            Violation::ContentBefore354 => "content-before-354",
            Violation::DataAfterQuit => "data-after-quit",
            Violation::EarlyTalker => "early-talker",
            Violation::OutOfSequence => "out-of-sequence",
            Violation::UnknownCommand => "unknown-command",
            Violation::BadSyntax => "bad-syntax",
            Violation::UnofferedParameter => "unoffered-parameter",
            Violation::EightBitUndeclared => "8-bit-undeclared",
            Violation::Utf8Undeclared => "utf8-undeclared",
            Violation::SizeExceedsDeclared => "size-exceeds-declared",
            Violation::UnstuffedDot => "unstuffed-dot",
            Violation::PlaintextAfterStartTls => "plaintext-after-starttls",
            Violation::UnofferedCommand => "unoffered-command",
        }
    }

    /// Its place in a table of counters.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_of_the_numbers() {
        for (index, violation) in Violation::ALL.into_iter().enumerate() {
            assert_eq!(violation.index(), index);
        }
    }
}
