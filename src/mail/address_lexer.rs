//! The lexical tokens of RFC 5322 addresses: white space, comments, atoms, quoted strings, address literals.
//!
//! Works on raw header bytes: folded lines are white space here. Comments nest (RFC 5322 3.2.2) down to a limit, counted and
//! not recursed into, so that a header full of parentheses costs neither stack nor quadratic time: whoever scans on from a
//! comma after an unterminated comment meets the nesting limit after as many openings.

use super::address::{AddressError, AddressFault};

/// How deep comments may nest.
const COMMENT_DEPTH_MAX: u32 = 32;

/// A position in a header value, with the token readers.
pub(super) struct Lexer<'a> {
    input: &'a [u8],
    pos: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a [u8], pos: usize) -> Lexer<'a> {
        Lexer { input, pos }
    }

    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.input.get(self.pos).copied()
    }

    pub(super) fn bump(&mut self) {
        self.pos += 1;
    }

    /// `fault` at this position.
    pub(super) fn fault(&self, fault: AddressFault) -> AddressError {
        AddressError {
            offset: self.pos,
            fault,
        }
    }

    /// Skips white space, line ends of folded lines, and comments.
    pub(super) fn skip_cfws(&mut self) -> Result<(), AddressError> {
        while let Some(b) = self.peek() {
            match b {
                b' ' | b'\t' | b'\r' | b'\n' => self.pos += 1,
                b'(' => self.skip_comment()?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Skips the comment that begins here.
    pub(super) fn skip_comment(&mut self) -> Result<(), AddressError> {
        let unterminated = self.fault(AddressFault::UnterminatedComment);
        let mut depth = 0;
        while let Some(b) = self.peek() {
            self.pos += 1;
            match b {
                b'(' if depth == COMMENT_DEPTH_MAX => {
                    return Err(AddressError {
                        fault: AddressFault::CommentTooDeep,
                        ..unterminated
                    });
                }
                b'(' => depth += 1,
                b')' if depth == 1 => return Ok(()),
                b')' => depth -= 1,
                b'\\' => self.pos = (self.pos + 1).min(self.input.len()),
                _ => {}
            }
        }
        Err(unterminated)
    }

    /// Reads the quoted string that begins here and gives its meaning, octet by octet, to `each`: without quotes, escapes and
    /// the line ends of folding (RFC 5322 3.2.4).
    pub(super) fn quoted(&mut self, mut each: impl FnMut(u8)) -> Result<(), AddressError> {
        let unterminated = self.fault(AddressFault::UnterminatedQuote);
        self.pos += 1;
        while let Some(b) = self.peek() {
            self.pos += 1;
            match b {
                b'"' => return Ok(()),
                b'\r' | b'\n' => {}
                b'\\' => {
                    let escaped = self.peek().ok_or(unterminated)?;
                    self.pos += 1;
                    each(escaped);
                }
                _ => each(b),
            }
        }
        Err(unterminated)
    }

    /// The atom that begins here: empty if none does. Octets of UTF-8 belong to atoms (RFC 6532 3.2).
    pub(super) fn atom(&mut self) -> &'a [u8] {
        let start = self.pos;
        while self.peek().is_some_and(is_atext) {
            self.pos += 1;
        }
        &self.input[start..self.pos]
    }

    /// The address literal that begins here, brackets included. What cannot be in one ends the attempt at once.
    pub(super) fn literal(&mut self) -> Result<&'a [u8], AddressError> {
        let bad = self.fault(AddressFault::BadLiteral);
        let start = self.pos;
        self.pos += 1;
        while let Some(b) = self.peek() {
            self.pos += 1;
            match b {
                b']' => return Ok(&self.input[start..self.pos]),
                b'.' | b':' | b'-' => {}
                _ if b.is_ascii_alphanumeric() => {}
                _ => break,
            }
        }
        Err(bad)
    }
}

/// RFC 5322 3.2.3 atext, with the octets of UTF-8 (RFC 6532).
pub(super) fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}
