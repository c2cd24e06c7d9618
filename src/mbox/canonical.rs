//! From the raw bytes of a message to those that leave, before dot-stuffing.
//!
//! One pass over the header: fields that never leave are dropped ([`FieldKind::never_leaves`]), a missing Date or Message-ID is
//! put at the top. One check of the body, then either one copy of it (nothing to change) or a pass line by line: quotes of
//! the mbox taken off, LF made CRLF, over-long lines broken if that is wished. The last line always ends in CRLF.
//!
//! The Message-ID comes from the SHA-256 of the canonical bytes, so that it is the same on every attempt, whatever file the
//! message lies in. Two messages with the same content get the same one (RFC 5322 3.6.4 names content, not copies).
//!
//! INVARIANT: after `Ok`, the output obeys RFC 5321 2.3.8 and RFC 5322 2.1.1. After `Err` it is of no use.

use super::MboxFlavour;
use super::check::{LINE_OCTETS_MAX, LineCheck};
use super::fault::FaultAt;
use super::field::FieldKind;
use super::header::Fields;
use super::{line_end_len, without_line_end};
use crate::mail::ReversePath;
use sha2::{Digest, Sha256};

const CRLF: &[u8] = b"\r\n";

/// What decides about the bytes that leave.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The flavour of the mbox; `None` for a message in a file of its own.
    pub flavour: Option<MboxFlavour>,
    /// Break lines of more than 998 octets instead of refusing the message.
    pub fold_long_lines: bool,
    /// The value of a Date field, for messages without one.
    pub date: &'a str,
}

/// What a server must be able to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// There are octets above 127: 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// Some of them are in the header: SMTPUTF8 (RFC 6531).
    pub utf8_header: bool,
}

/// Splits a message (without its From_ line) into header and body: the lengths of the header, and of it with its empty line.
pub fn split(content: &[u8]) -> (usize, usize) {
    let mut start = 0;
    while start < content.len() {
        let empty_line = line_end_len(&content[start..]);
        if empty_line > 0 {
            return (start, start + empty_line);
        }
        start = memchr::memchr(b'\n', &content[start..]).map_or(content.len(), |lf| start + lf + 1);
    }
    (content.len(), content.len())
}

/// Writes what leaves of `content` (a message without its From_ line) into `out`. `fields` must hold the fields of its
/// header (the bytes before `split(content).0`). Offsets of faults count from the beginning of `content`.
pub fn canonicalise(
    content: &[u8],
    fields: &Fields,
    rules: &Rules<'_>,
    out: &mut Vec<u8>,
) -> Result<Facts, FaultAt> {
    let (header_len, body_start) = split(content);
    out.clear();
    out.reserve(content.len() + content.len() / 32 + 256);
    for field in fields.iter() {
        let is_mbox_artefact =
            field.kind == FieldKind::ContentLength && rules.flavour == Some(MboxFlavour::Cl2);
        if !field.kind.never_leaves() && !is_mbox_artefact {
            push_lines(&content[field.range()], None, b" ", out);
        }
    }
    let header_out_len = out.len();
    if body_start > header_len {
        out.extend_from_slice(CRLF);
    }
    push_body(content, body_start, rules, out)?;
    let facts = Facts {
        eight_bit: !out.is_ascii(),
        utf8_header: !out[..header_out_len].is_ascii(),
    };
    add_missing(content, fields, rules, out);
    Ok(facts)
}

fn push_body(
    content: &[u8],
    start: usize,
    rules: &Rules<'_>,
    out: &mut Vec<u8>,
) -> Result<(), FaultAt> {
    let body = &content[start..];
    let mut check = LineCheck::new(start as u64, rules.fold_long_lines);
    check.feed(body)?;
    check.finish()?;
    let quoted = rules
        .flavour
        .filter(|_| memchr::memmem::find(body, b">From ").is_some());
    match quoted {
        Some(_) => push_lines(body, quoted, b"", out),
        None if check.saw_bare_lf() || check.saw_long_line() => push_lines(body, None, b"", out),
        None => {
            out.extend_from_slice(body);
            if !body.is_empty() && !body.ends_with(CRLF) {
                out.extend_from_slice(CRLF);
            }
        }
    }
    Ok(())
}

/// Appends each line of `text` with CRLF, unquoted as `quoted` has it. Long ones are broken with CRLF and `lead`.
fn push_lines(text: &[u8], quoted: Option<MboxFlavour>, lead: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while !rest.is_empty() {
        let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
        let (line, behind) = rest.split_at(len);
        let mut line = without_line_end(line);
        if quoted.is_some_and(|flavour| flavour.is_quoted(line)) {
            line = &line[1..];
        }
        let mut room = LINE_OCTETS_MAX;
        while line.len() > room {
            let (piece, remainder) = line.split_at(break_at(line, room));
            out.extend_from_slice(piece);
            out.extend_from_slice(CRLF);
            out.extend_from_slice(lead);
            room = LINE_OCTETS_MAX - lead.len();
            line = remainder;
        }
        out.extend_from_slice(line);
        out.extend_from_slice(CRLF);
        rest = behind;
    }
}

/// Where to break `line` so that the first part has at most `octets_max` octets and no UTF-8 sequence is torn apart.
fn break_at(line: &[u8], octets_max: usize) -> usize {
    let is_continuation = |i: &usize| line[*i] & 0xc0 == 0x80;
    (octets_max - 3..=octets_max)
        .rev()
        .find(|i| !is_continuation(i))
        .unwrap_or(octets_max)
}

/// RFC 5322 3.6: Date is required, Message-ID ought to be there.
fn add_missing(content: &[u8], fields: &Fields, rules: &Rules<'_>, out: &mut Vec<u8>) {
    let mut missing = String::new();
    if !fields.has(FieldKind::MessageId) {
        let digest = hex(&Sha256::digest(out.as_slice())[..16]);
        let domain = author_domain(content, fields);
        missing.push_str(&format!("Message-ID: <{digest}.mailer@{domain}>\r\n"));
    }
    if !fields.has(FieldKind::Date) {
        missing.push_str(&format!("Date: {}\r\n", rules.date));
    }
    out.splice(0..0, missing.into_bytes());
}

/// The domain of the first author, for the right-hand side of a Message-ID.
fn author_domain(content: &[u8], fields: &Fields) -> String {
    let from = fields.of_kind(FieldKind::From).next();
    from.and_then(|field| ReversePath::parse_first(&content[field.value()]).ok())
        .and_then(|from| from.mailbox().map(|mailbox| mailbox.domain().to_string()))
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
