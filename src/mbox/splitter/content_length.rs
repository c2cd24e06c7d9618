//! mboxcl2: the header up to its empty line, for the sake of one field.
//!
//! Only whole lines are looked at; a line that does not end within the smallest window is passed on in pieces, unread (no
//! Content-Length is that long).

use super::{Step, WINDOW_BYTES_MIN};
use crate::mbox::fault::Fault;
use crate::mbox::{line_end_len, without_line_end};

const NAME: &[u8] = b"content-length:";

/// What the header has said so far.
#[derive(Debug, Default)]
pub(super) struct ContentLength {
    found: Option<Result<u64, Fault>>,
    /// True within a line that is passed on in pieces.
    within_line: bool,
    /// True once the empty line was passed.
    ended: bool,
}

impl ContentLength {
    /// `Err` ends the header: with the length of the body, or what is wrong with it.
    pub(super) fn header_step(
        &mut self,
        window: &[u8],
        at_eof: bool,
    ) -> Result<Step, Result<u64, Fault>> {
        if self.ended || (window.is_empty() && at_eof) {
            return Err(self.found.unwrap_or(Err(Fault::NoContentLength)));
        }
        let line = match memchr::memchr(b'\n', window) {
            Some(lf) => &window[..=lf],
            None if at_eof => window,
            None if window.len() < WINDOW_BYTES_MIN => return Ok(Step::More),
            None => {
                self.within_line = true;
                return Ok(Step::Content(window.len()));
            }
        };
        if !self.within_line {
            self.line(line);
        }
        self.within_line = false;
        Ok(Step::Content(line.len()))
    }

    fn line(&mut self, line: &[u8]) {
        self.ended = line_end_len(line) == line.len();
        let Some(name) = line.get(..NAME.len()) else {
            return;
        };
        if name.eq_ignore_ascii_case(NAME) {
            let length = parse(without_line_end(&line[NAME.len()..]));
            self.found = match self.found {
                Some(before) if before != length => Some(Err(Fault::BadContentLength)),
                _ => Some(length),
            };
        }
    }
}

fn parse(value: &[u8]) -> Result<u64, Fault> {
    let value = value.trim_ascii();
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::BadContentLength);
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Fault::BadContentLength)
}
