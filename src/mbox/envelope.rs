//! The envelope of a message, derived from its header: reverse-path and recipients.
//!
//! Reverse-path, the first that is there: `X-Envelope-From`, `--from`, `Return-Path`, the From_ line if its sender is a full
//! address, `Sender`, the first mailbox of `From`. Recipients: the `X-Envelope-To` fields, else the `Resent-` ones (RFC 5322
//! 3.6.6), else `To`, `Cc` and `Bcc`; each mailbox once.
//!
//! A message that has been on a journey (`Received`, `Delivered-To`) is somebody's inbox, not part of a batch: without
//! `X-Envelope-To` or the user's word ([`Rules::resend`]) it is refused, or a mistyped path would mail everybody who ever wrote.
//!
//! INVARIANT: what is first there counts, even if it is bad: an address that cannot be read never falls through to the next rule.

use super::field::FieldKind;
use super::from_line;
use super::header::{Field, Fields};
use crate::mail::address::AddressError;
use crate::mail::address_list::AddressList;
use crate::mail::{Mailbox, ReversePath};
use std::collections::HashSet;
use std::fmt;

/// Up to so many recipients are compared one by one; more go through a hash table.
const COMPARED_MAX: usize = 16;

/// What the user said about envelopes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// `--from`.
    pub from: Option<&'a ReversePath>,
    /// `--resend`: messages that have been on a journey are fine.
    pub resend: bool,
    /// The recipients come from elsewhere (`--to-file`): the header names none.
    pub recipients_elsewhere: bool,
}

/// A recipient that the header names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// Where its addr-spec begins in the header.
    pub start: u32,
    /// The octets of its addr-spec.
    pub len: u32,
    /// The field it stands in.
    pub field: FieldKind,
    /// The mailbox; offsets of errors count from the beginning of the header.
    pub mailbox: Result<Mailbox, AddressError>,
}

/// Why there is no envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnvelopeFault {
    /// Nothing says who sends the message.
    NoReversePath,
    /// What says it cannot be read.
    BadReversePath(FieldKind, AddressError),
    /// The message has been on a journey, as this field says.
    Journey(FieldKind),
    /// Nobody to send it to.
    NoRecipients,
}

impl EnvelopeFault {
    /// Where in the header.
    pub fn offset(self) -> usize {
        match self {
            EnvelopeFault::BadReversePath(_, error) => error.offset,
            _ => 0,
        }
    }

    /// What its author can do about it.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            EnvelopeFault::NoReversePath => Some("give it a From field, or use --from"),
            EnvelopeFault::BadReversePath(..) => None,
            EnvelopeFault::Journey(_) => {
                Some("this looks like an inbox; to send it on all the same use --resend")
            }
            EnvelopeFault::NoRecipients => Some("give it a To or X-Envelope-To field"),
        }
    }
}

impl fmt::Display for EnvelopeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeFault::NoReversePath => f.write_str("no sender"),
            EnvelopeFault::BadReversePath(field, error) => {
                write!(f, "bad address in {}: {}", field.name(), error.fault)
            }
            EnvelopeFault::Journey(field) => {
                write!(f, "it bears {} but no X-Envelope-To", field.name())
            }
            EnvelopeFault::NoRecipients => f.write_str("no recipient"),
        }
    }
}

/// Refuses a message that has been on a journey, unless that is fine.
pub fn check_journey(fields: &Fields, rules: &Rules<'_>) -> Result<(), EnvelopeFault> {
    if rules.resend || rules.recipients_elsewhere || fields.has(FieldKind::EnvelopeTo) {
        return Ok(());
    }
    match [FieldKind::Received, FieldKind::DeliveredTo]
        .into_iter()
        .find(|&kind| fields.has(kind))
    {
        Some(kind) => Err(EnvelopeFault::Journey(kind)),
        None => Ok(()),
    }
}

/// The reverse-path of the message with this `header` and From_ line.
pub fn reverse_path(
    header: &[u8],
    fields: &Fields,
    from_line: &[u8],
    rules: &Rules<'_>,
) -> Result<ReversePath, EnvelopeFault> {
    let first = |kind| fields.of_kind(kind).next();
    if let Some(field) = first(FieldKind::EnvelopeFrom) {
        return read(header, field, ReversePath::parse);
    }
    if let Some(from) = rules.from {
        return Ok(from.clone());
    }
    if let Some(field) = first(FieldKind::ReturnPath) {
        return read(header, field, ReversePath::parse);
    }
    let sender = from_line::sender(super::without_line_end(from_line));
    if let Some(Ok(ReversePath::Mailbox(mailbox))) = sender.map(ReversePath::parse) {
        return Ok(ReversePath::Mailbox(mailbox));
    }
    match first(FieldKind::Sender).or(first(FieldKind::From)) {
        Some(field) => read(header, field, ReversePath::parse_first),
        None => Err(EnvelopeFault::NoReversePath),
    }
}

fn read(
    header: &[u8],
    field: &Field,
    parse: impl Fn(&[u8]) -> Result<ReversePath, AddressError>,
) -> Result<ReversePath, EnvelopeFault> {
    let value = field.value();
    parse(&header[value.clone()]).map_err(|error| {
        let offset = value.start + error.offset;
        EnvelopeFault::BadReversePath(field.kind, AddressError { offset, ..error })
    })
}

/// Puts the recipients that the header names into `out`, in order, each mailbox once; bad addresses among them.
pub fn recipients(header: &[u8], fields: &Fields, rules: &Rules<'_>, out: &mut Vec<Recipient>) {
    const RESENT: [FieldKind; 3] = [
        FieldKind::ResentTo,
        FieldKind::ResentCc,
        FieldKind::ResentBcc,
    ];
    out.clear();
    if rules.recipients_elsewhere {
        return;
    }
    let kinds: &[FieldKind] = if fields.has(FieldKind::EnvelopeTo) {
        &[FieldKind::EnvelopeTo]
    } else if RESENT.iter().any(|&kind| fields.has(kind)) {
        &RESENT
    } else {
        &[FieldKind::To, FieldKind::Cc, FieldKind::Bcc]
    };
    let mut seen = HashSet::new();
    for field in fields.iter().filter(|field| kinds.contains(&field.kind)) {
        let value = field.value();
        for entry in AddressList::new(&header[value.clone()]) {
            if entry
                .mailbox
                .as_ref()
                .is_ok_and(|mailbox| !is_new(mailbox, out, &mut seen))
            {
                continue;
            }
            out.push(Recipient {
                start: (value.start + entry.range.start) as u32,
                len: entry.range.len() as u32,
                field: field.kind,
                mailbox: entry.mailbox.map_err(|error| AddressError {
                    offset: value.start + error.offset,
                    ..error
                }),
            });
        }
    }
}

/// True if `mailbox` is not among `known`. `seen` takes over once there are many.
fn is_new(mailbox: &Mailbox, known: &[Recipient], seen: &mut HashSet<Mailbox>) -> bool {
    let mut mailboxes = known
        .iter()
        .filter_map(|recipient| recipient.mailbox.as_ref().ok());
    if known.len() < COMPARED_MAX {
        return mailboxes.all(|other| other != mailbox);
    }
    if seen.is_empty() {
        seen.extend(mailboxes.cloned());
    }
    seen.insert(mailbox.clone())
}

#[cfg(test)]
mod tests;
