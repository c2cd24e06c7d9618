//! Relaxed canonicalisation of header fields and bodies (RFC 6376 3.4.2, 3.4.4).
//!
//! Input has CRLF line ends, as all content that leaves. Nothing of a body is copied: its canonical form is handed on in slices
//! of it.

use memchr::{memchr, memchr2, memmem};

/// A message as its header, with the line end of its last field, and its body.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    if message.starts_with(b"\r\n") {
        return (&[], &message[2..]);
    }
    match memmem::find(message, b"\r\n\r\n") {
        Some(at) => (&message[..at + 2], &message[at + 4..]),
        None => (message, &[]),
    }
}

/// The fields of a header, folded as they are, without their last line end.
pub fn fields(header: &[u8]) -> Vec<&[u8]> {
    let (mut fields, mut rest) = (Vec::with_capacity(16), header);
    while !rest.is_empty() {
        let mut end = 0;
        loop {
            end += memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |at| at + 1);
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (field, behind) = rest.split_at(end);
        fields.push(field.strip_suffix(b"\r\n").unwrap_or(field));
        rest = behind;
    }
    fields
}

/// True if `field` has this name.
pub fn is_named(field: &[u8], name: &str) -> bool {
    let Some((start, behind)) = field.split_at_checked(name.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(name.as_bytes()) && behind.trim_ascii_start().first() == Some(&b':')
}

/// Appends a field in canonical form, without a line end.
pub fn field(field: &[u8], out: &mut Vec<u8>) {
    let colon = memchr(b':', field).unwrap_or(field.len());
    let (name, value) = field.split_at(colon);
    out.extend(name.trim_ascii_end().iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let words = value.get(1..).unwrap_or_default();
    let words = words.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    for (at, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// Hands on the canonical form of a body, slice by slice.
pub fn body(body: &[u8], mut part: impl FnMut(&[u8])) {
    let (mut rest, mut empty_lines) = (body, 0_usize);
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        rest = behind;
        let line = trim_end(line);
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty_lines) {
            part(b"\r\n");
        }
        words(line, &mut part);
        part(b"\r\n");
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut line = line.strip_suffix(b"\r").unwrap_or(line);
    while let [start @ .., b' ' | b'\t'] = line {
        line = start;
    }
    line
}

/// A line without white space at its end: each run of it becomes one space.
fn words(line: &[u8], part: &mut impl FnMut(&[u8])) {
    let (mut start, mut at) = (0, 0);
    while let Some(found) = memchr2(b' ', b'\t', &line[at..]) {
        let space = at + found;
        at = space + 1;
        let is_plain = line[space] == b' ' && !matches!(line.get(at), Some(b' ' | b'\t'));
        if is_plain {
            continue;
        }
        part(&line[start..space]);
        part(b" ");
        while matches!(line.get(at), Some(b' ' | b'\t')) {
            at += 1;
        }
        start = at;
    }
    part(&line[start..]);
}
