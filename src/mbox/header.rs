//! A header as a table of its fields, with the rules that it must obey.
//!
//! [`Fields::scan`] reads a whole header block (the bytes before the empty line) once and remembers where each field and its value
//! lie: 16 bytes per field, in a table that is reused from message to message. A header that does not pass is refused with the
//! offset of what is wrong: a line that is no field would become the beginning of the body for some receivers and not for others.
//!
//! Lines of fields that never leave may be longer than 998 octets (composers write all recipients into one): see `limits`.

use super::check::LINE_OCTETS_MAX;
use super::fault::{Fault, FaultAt};
use super::field::{FieldKind, split_name};
use super::without_line_end;
use std::ops::Range;

/// The most fields of a header.
pub const FIELDS_MAX: usize = 1_000_000;

/// One field of a header block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    start: u32,
    value: u32,
    end: u32,
}

impl Field {
    /// The whole field with its line ends.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Its value: behind the colon, folding and last line end included.
    pub fn value(&self) -> Range<usize> {
        self.value as usize..self.end as usize
    }
}

/// The fields of one header.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    all: Vec<Field>,
}

impl Fields {
    /// Reads the header `block`. The offsets of faults count from its beginning.
    pub fn scan(&mut self, block: &[u8], long_lines_allowed: bool) -> Result<(), FaultAt> {
        self.all.clear();
        let mut start = 0;
        while start < block.len() {
            let end =
                memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |lf| start + lf + 1);
            let line = &block[start..end];
            let kind = self.line(line, start, end)?;
            let allowed = long_lines_allowed || kind.never_leaves();
            check_line(line, kind, allowed).map_err(|(fault, offset)| at(fault, start + offset))?;
            start = end;
        }
        if self.all.is_empty() {
            return Err(at(Fault::NoHeader, 0));
        }
        Ok(())
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.all.iter()
    }

    /// The fields of one kind in order.
    pub fn of_kind(&self, kind: FieldKind) -> impl Iterator<Item = &Field> {
        self.iter().filter(move |field| field.kind == kind)
    }

    /// True if there is a field of this kind.
    pub fn has(&self, kind: FieldKind) -> bool {
        self.of_kind(kind).next().is_some()
    }

    /// Takes a line in and gives the kind of the field that it belongs to.
    fn line(&mut self, line: &[u8], start: usize, end: usize) -> Result<FieldKind, FaultAt> {
        let end =
            u32::try_from(end).map_err(|_| at(Fault::HeaderTooLarge(u32::MAX as usize), start))?;
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // A folded line (RFC 5322 2.2.3).
            let last = self.all.last_mut().ok_or(at(Fault::NoField, start))?;
            last.end = end;
            return Ok(last.kind);
        }
        let (name, value) = split_name(line).ok_or(at(Fault::NoField, start))?;
        if self.all.len() == FIELDS_MAX {
            return Err(at(Fault::TooManyFields(FIELDS_MAX), start));
        }
        let kind = FieldKind::of(name);
        self.all.push(Field {
            kind,
            start: start as u32,
            value: (start + value) as u32,
            end,
        });
        Ok(kind)
    }
}

fn at(fault: Fault, offset: usize) -> FaultAt {
    FaultAt {
        fault,
        offset: offset as u64,
    }
}

fn check_line(line: &[u8], kind: FieldKind, long_allowed: bool) -> Result<(), (Fault, usize)> {
    let text = without_line_end(line);
    // A CR at the very end of the header, without LF, is none of a line end.
    let text = if line.ends_with(b"\n") { text } else { line };
    if let Some(i) = memchr::memchr2(b'\r', 0, text) {
        return Err((
            if text[i] == 0 {
                Fault::Nul
            } else {
                Fault::StrayCr
            },
            i,
        ));
    }
    if text.len() > LINE_OCTETS_MAX && !long_allowed {
        return Err((Fault::LongLine, 0));
    }
    if !kind.never_leaves() && !text.is_ascii() {
        std::str::from_utf8(text).map_err(|error| (Fault::HeaderNotUtf8, error.valid_up_to()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(block: &[u8]) -> Result<Vec<(FieldKind, String)>, (Fault, u64)> {
        let mut fields = Fields::default();
        fields
            .scan(block, false)
            .map_err(|at| (at.fault, at.offset))?;
        Ok(fields
            .iter()
            .map(|field| {
                let value = String::from_utf8_lossy(&block[field.value()]).into_owned();
                (field.kind, value)
            })
            .collect())
    }

    #[test]
    fn folded_lines_belong_to_their_field() {
        assert_eq!(
            scan(b"to: a,\r\n\tb\r\nSubject:c\n"),
            Ok(vec![
                (FieldKind::To, " a,\r\n\tb\r\n".to_owned()),
                (FieldKind::Other, "c\n".to_owned())
            ])
        );
    }

    #[test]
    fn what_is_no_header_is_refused_where_it_goes_wrong() {
        let long = [b"A: b\nC: ", &[b'x'; 996][..], b"\n"].concat();
        for (block, fault, offset) in [
            (&b""[..], Fault::NoHeader, 0),
            (b" a: b\n", Fault::NoField, 0),
            (b"A: b\nno field\n", Fault::NoField, 5),
            (b"A: b\n>From x\n", Fault::NoField, 5),
            (b"A: b\0\n", Fault::Nul, 4),
            (b"A: b\rc\n", Fault::StrayCr, 4),
            (b"A: b\r", Fault::StrayCr, 4),
            (b"A: b\r\r\n", Fault::StrayCr, 4),
            (b"A: \xfc\n", Fault::HeaderNotUtf8, 3),
            (&long, Fault::LongLine, 5),
        ] {
            assert_eq!(scan(block), Err((fault, offset)), "{block:?}");
        }
    }

    #[test]
    fn fields_that_never_leave_may_be_long() {
        let long = [b"X-Envelope-To: ", &[b'x'; 5000][..], b"\n"].concat();
        assert!(scan(&long).is_ok());
    }
}
