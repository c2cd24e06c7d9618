//! The recipients in a header value: an address-list (RFC 5322 3.4), read without building anything but the mailboxes.
//!
//! [`AddressList`] walks over a raw value (folded or not) and yields one [`Entry`] per mailbox: the range of its addr-spec
//! within the value and the mailbox, or what is wrong with it. Display names, comments, groups and obsolete routes are passed over;
//! encoded-words are never decoded (an address cannot hide in one, RFC 2047 5). Where people differ from the RFC without
//! doubt about what they mean, it is taken: an unquoted `@` in a display name, `;` between addresses, a missing `;` after a group.
//!
//! INVARIANTS: parsing the range of an entry by itself gives the same mailbox again. After an error the walk goes on behind the
//! next comma, so that one bad address never takes the others of its field along. Each entry consumes at least one byte.
//!
//! Limits: no recursion, time linear in the value (see `address_lexer`); nothing panics.

use super::address::{
    AddressError, AddressFault, LOCAL_OCTETS_MAX, Mailbox, PATH_OCTETS_MAX, parse_addr_spec,
};
use super::address_lexer::{Lexer, is_atext};
use std::ops::Range;

/// One address of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The addr-spec within the value; for an error, the text that was passed over.
    pub range: Range<usize>,
    /// The mailbox. The offset of an error counts from the beginning of the value.
    pub mailbox: Result<Mailbox, AddressError>,
}

/// An iterator over the mailboxes of an address-list.
#[derive(Clone, Debug)]
pub struct AddressList<'a> {
    input: &'a [u8],
    pos: usize,
    in_group: bool,
    local_octets_max: usize,
}

/// What was seen of the entry under way.
#[derive(Default)]
struct Shape {
    /// From the first token to the end of the last one.
    words: Option<Range<usize>>,
    /// An `@` among them.
    has_at: bool,
    /// The addr-spec between angle brackets.
    angle: Option<Range<usize>>,
    /// The first token behind them.
    after_angle: Option<usize>,
}

impl Shape {
    fn word(&mut self, range: Range<usize>) {
        if self.angle.is_some() {
            self.after_angle.get_or_insert(range.start);
        }
        let start = self.words.as_ref().map_or(range.start, |words| words.start);
        self.words = Some(start..range.end);
    }
}

impl<'a> AddressList<'a> {
    /// The recipients in `value`.
    pub fn new(value: &'a [u8]) -> AddressList<'a> {
        AddressList {
            input: value,
            pos: 0,
            in_group: false,
            local_octets_max: LOCAL_OCTETS_MAX,
        }
    }

    /// The senders in `value`: reverse-paths may have a longer local part.
    pub(super) fn reverse(value: &'a [u8]) -> AddressList<'a> {
        AddressList {
            local_octets_max: PATH_OCTETS_MAX,
            ..AddressList::new(value)
        }
    }

    /// Reads tokens up to the end of an entry. `Err` means that the tokens themselves are broken.
    fn scan_entry(&mut self) -> Result<Shape, AddressError> {
        let mut shape = Shape::default();
        let mut lexer = Lexer::new(self.input, self.pos);
        while let Some(b) = lexer.peek() {
            let start = lexer.pos();
            match b {
                b' ' | b'\t' | b'\r' | b'\n' | b'(' => lexer.skip_cfws()?,
                b',' | b';' => {
                    self.in_group &= b == b',';
                    lexer.bump();
                    break;
                }
                b':' if self.in_group || shape.has_at || shape.angle.is_some() => {
                    return Err(lexer.fault(AddressFault::BadGroup));
                }
                b':' => {
                    // What came before was a group's name.
                    self.in_group = true;
                    shape = Shape::default();
                    lexer.bump();
                }
                b'<' if shape.angle.is_some() => {
                    return Err(lexer.fault(AddressFault::TextAfterAngle));
                }
                b'<' => shape.angle = Some(scan_angle(&mut lexer)?),
                _ => {
                    scan_word(&mut lexer)?;
                    shape.has_at |= b == b'@';
                    shape.word(start..lexer.pos());
                }
            }
        }
        self.pos = lexer.pos();
        Ok(shape)
    }

    fn entry(&self, shape: Shape) -> Option<Entry> {
        let range = match (shape.angle, shape.words) {
            (Some(angle), _) => angle,
            (None, Some(words)) => words,
            (None, None) => return None,
        };
        let mailbox = if let Some(offset) = shape.after_angle {
            Err(AddressError {
                offset,
                fault: AddressFault::TextAfterAngle,
            })
        } else if range.is_empty() {
            Err(AddressError {
                offset: range.start,
                fault: AddressFault::NullPath,
            })
        } else {
            parse_addr_spec(&self.input[range.clone()], self.local_octets_max).map_err(|error| {
                AddressError {
                    offset: range.start + error.offset,
                    ..error
                }
            })
        };
        Some(Entry { range, mailbox })
    }

    /// Goes on behind the next comma after an error in the tokens.
    fn resynchronise(&mut self, start: usize, error: AddressError) -> Entry {
        let from = error.offset.max(start).min(self.input.len());
        let comma = memchr::memchr(b',', &self.input[from..]).map(|i| from + i);
        let end = comma.unwrap_or(self.input.len());
        self.pos = comma.map_or(end, |comma| comma + 1);
        let text = &self.input[start..end];
        let lead = text.len() - text.trim_ascii_start().len();
        Entry {
            range: start + lead..start + lead + text.trim_ascii().len(),
            mailbox: Err(error),
        }
    }
}

impl Iterator for AddressList<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        while self.pos < self.input.len() {
            let start = self.pos;
            match self.scan_entry() {
                Ok(shape) => {
                    // Nothing between two commas, or a group without members, is no entry (RFC 5322 4.4).
                    if let Some(entry) = self.entry(shape) {
                        return Some(entry);
                    }
                }
                Err(error) => return Some(self.resynchronise(start, error)),
            }
        }
        None
    }
}

/// One token that is no delimiter: an atom, a dot, an `@`, a quoted string, an address literal.
fn scan_word(lexer: &mut Lexer<'_>) -> Result<(), AddressError> {
    match lexer.peek() {
        Some(b'"') => lexer.quoted(|_| {}),
        Some(b'[') => lexer.literal().map(|_| ()),
        Some(b'@' | b'.') => {
            lexer.bump();
            Ok(())
        }
        Some(b) if is_atext(b) => {
            lexer.atom();
            Ok(())
        }
        other => {
            let c = char::from(other.unwrap_or_default());
            Err(lexer.fault(AddressFault::Unexpected(c)))
        }
    }
}

/// From `<` to `>`: the range of the addr-spec in between, without an obsolete route (`@a,@b:`, RFC 5322 4.4).
fn scan_angle(lexer: &mut Lexer<'_>) -> Result<Range<usize>, AddressError> {
    let unterminated = lexer.fault(AddressFault::UnterminatedAngle);
    lexer.bump();
    lexer.skip_cfws()?;
    if lexer.peek() == Some(b'@') {
        skip_route(lexer, unterminated)?;
    }
    let mut range = lexer.pos()..lexer.pos();
    loop {
        match lexer.peek() {
            None | Some(b',' | b';' | b'<') => return Err(unterminated),
            Some(b'>') => break lexer.bump(),
            Some(b' ' | b'\t' | b'\r' | b'\n' | b'(') => lexer.skip_cfws()?,
            Some(_) => {
                scan_word(lexer)?;
                range.end = lexer.pos();
            }
        }
    }
    Ok(range)
}

fn skip_route(lexer: &mut Lexer<'_>, unterminated: AddressError) -> Result<(), AddressError> {
    loop {
        match lexer.peek() {
            None | Some(b';' | b'<' | b'>') => return Err(unterminated),
            Some(b':') => {
                lexer.bump();
                return lexer.skip_cfws();
            }
            Some(b',') => lexer.bump(),
            Some(b' ' | b'\t' | b'\r' | b'\n' | b'(') => lexer.skip_cfws()?,
            Some(_) => scan_word(lexer)?,
        }
    }
}

#[cfg(test)]
mod tests;
