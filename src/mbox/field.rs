//! The header fields that mean something to a sender: which they are, and what is done with them.

/// A field, as far as its name matters here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FieldKind {
    /// `X-Envelope-From`: the reverse-path, whatever else the header says. Never leaves.
    EnvelopeFrom,
    /// `X-Envelope-To`: the recipients, whatever else the header says. Never leaves.
    EnvelopeTo,
    /// `Return-Path`: set by the last server of an earlier journey; must not be sent again (RFC 5321 4.4).
    ReturnPath,
    /// `From`.
    From,
    /// `Sender`.
    Sender,
    /// `To`.
    To,
    /// `Cc`.
    Cc,
    /// `Bcc`: never leaves (RFC 5322 3.6.3, first method).
    Bcc,
    /// `Resent-To`.
    ResentTo,
    /// `Resent-Cc`.
    ResentCc,
    /// `Resent-Bcc`: never leaves.
    ResentBcc,
    /// `Received`: the message has been on a journey before.
    Received,
    /// `Delivered-To`: so it has.
    DeliveredTo,
    /// `Date`.
    Date,
    /// `Message-ID`.
    MessageId,
    /// `Content-Length`: belongs to the mbox in mboxcl2.
    ContentLength,
    /// Any other.
    Other,
}

const NAMES: [(&str, FieldKind); 16] = [
    ("x-envelope-from", FieldKind::EnvelopeFrom),
    ("x-envelope-to", FieldKind::EnvelopeTo),
    ("return-path", FieldKind::ReturnPath),
    ("from", FieldKind::From),
    ("sender", FieldKind::Sender),
    ("to", FieldKind::To),
    ("cc", FieldKind::Cc),
    ("bcc", FieldKind::Bcc),
    ("resent-to", FieldKind::ResentTo),
    ("resent-cc", FieldKind::ResentCc),
    ("resent-bcc", FieldKind::ResentBcc),
    ("received", FieldKind::Received),
    ("delivered-to", FieldKind::DeliveredTo),
    ("date", FieldKind::Date),
    ("message-id", FieldKind::MessageId),
    ("content-length", FieldKind::ContentLength),
];

impl FieldKind {
    /// The kind of the field called `name`, in any case.
    pub fn of(name: &[u8]) -> FieldKind {
        NAMES
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
            .map_or(FieldKind::Other, |&(_, kind)| kind)
    }

    /// The name, in the usual case; empty for [`FieldKind::Other`].
    pub fn name(self) -> &'static str {
        match self {
            FieldKind::EnvelopeFrom => "X-Envelope-From",
            FieldKind::EnvelopeTo => "X-Envelope-To",
            FieldKind::ReturnPath => "Return-Path",
            FieldKind::From => "From",
            FieldKind::Sender => "Sender",
            FieldKind::To => "To",
            FieldKind::Cc => "Cc",
            FieldKind::Bcc => "Bcc",
            FieldKind::ResentTo => "Resent-To",
            FieldKind::ResentCc => "Resent-Cc",
            FieldKind::ResentBcc => "Resent-Bcc",
            FieldKind::Received => "Received",
            FieldKind::DeliveredTo => "Delivered-To",
            FieldKind::Date => "Date",
            FieldKind::MessageId => "Message-ID",
            FieldKind::ContentLength => "Content-Length",
            FieldKind::Other => "",
        }
    }

    /// True for the fields that no receiver ever sees. Content-Length is one of them only in mboxcl2.
    pub fn never_leaves(self) -> bool {
        matches!(
            self,
            FieldKind::EnvelopeFrom
                | FieldKind::EnvelopeTo
                | FieldKind::ReturnPath
                | FieldKind::Bcc
                | FieldKind::ResentBcc
        )
    }

    /// True for lists of recipients: these may be as long as there are people.
    pub fn is_recipient_list(self) -> bool {
        matches!(
            self,
            FieldKind::EnvelopeTo
                | FieldKind::To
                | FieldKind::Cc
                | FieldKind::Bcc
                | FieldKind::ResentTo
                | FieldKind::ResentCc
                | FieldKind::ResentBcc
        )
    }
}

/// The name at the beginning of `line` if it begins a field (RFC 5322 2.2; blanks before the colon as in 4.5), and the offset
/// of its value.
pub fn split_name(line: &[u8]) -> Option<(&[u8], usize)> {
    let len = line
        .iter()
        .take_while(|b| b.is_ascii_graphic() && **b != b':')
        .count();
    let blanks = line[len..]
        .iter()
        .take_while(|&&b| b == b' ' || b == b'\t')
        .count();
    (len > 0 && line.get(len + blanks) == Some(&b':')).then_some((&line[..len], len + blanks + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, kind) in NAMES {
            assert_eq!(FieldKind::of(name.to_ascii_uppercase().as_bytes()), kind);
            assert!(kind.name().eq_ignore_ascii_case(name));
        }
        assert_eq!(FieldKind::of(b"subject"), FieldKind::Other);
    }

    #[test]
    fn a_field_is_a_name_and_a_colon() {
        assert_eq!(split_name(b"To: a"), Some((&b"To"[..], 3)));
        assert_eq!(split_name(b"To \t:a"), Some((&b"To"[..], 5)));
        for line in [
            &b": a"[..],
            b"To a: b",
            b" To: a",
            b"",
            b"To",
            b"T\xc3\xb6: a",
            b"\x01: a",
        ] {
            assert_eq!(split_name(line), None, "{line:?}");
        }
    }
}
