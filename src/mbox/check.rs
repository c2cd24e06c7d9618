//! The rules of RFC 5321 2.3.8 and RFC 5322 2.1.1 about bytes and lines, checked while content streams by.
//!
//! One machine judges a body at intake and again, as a whole, when it is sent: [`LineCheck`]. It carries two numbers from run to
//! run and finds the three bytes that matter with one vectorised search. Lines are measured as they lie in the file: a quoted
//! `>From ` line counts its quote.

use super::fault::{Fault, FaultAt};

/// The longest line, without CRLF (RFC 5322 2.1.1).
pub const LINE_OCTETS_MAX: usize = 998;

/// A check of one message's body.
#[derive(Clone, Debug)]
pub struct LineCheck {
    long_lines_allowed: bool,
    /// Offset of the next byte within the message.
    offset: u64,
    /// Octets of the line under way.
    column: usize,
    /// The byte before was a CR.
    after_cr: bool,
    bare_lf: bool,
    long_line: bool,
}

impl LineCheck {
    /// A check that begins at `offset` within the message, at the start of a line.
    pub fn new(offset: u64, long_lines_allowed: bool) -> LineCheck {
        LineCheck {
            long_lines_allowed,
            offset,
            column: 0,
            after_cr: false,
            bare_lf: false,
            long_line: false,
        }
    }

    /// Checks the next bytes. After an error the check is over.
    pub fn feed(&mut self, run: &[u8]) -> Result<(), FaultAt> {
        let mut done = 0; // bytes of the run that are accounted for
        for i in memchr::memchr3_iter(b'\n', b'\r', 0, run) {
            if self.after_cr && (i > done || run[i] != b'\n') {
                break; // judged below
            }
            self.column += i - done;
            match run[i] {
                b'\n' => self.line_end(i)?,
                b'\r' => self.after_cr = true,
                _ => return Err(self.at(Fault::Nul, i as u64)),
            }
            done = i + 1;
        }
        if self.after_cr && done < run.len() {
            return Err(self.at_previous(done));
        }
        self.column += run.len() - done;
        self.offset += run.len() as u64;
        Ok(())
    }

    /// The end of the body: the last line may lack its line end.
    pub fn finish(&mut self) -> Result<(), FaultAt> {
        if self.after_cr {
            return Err(self.at_previous(0));
        }
        self.measure(0)
    }

    /// True if a LF without CR was met.
    pub fn saw_bare_lf(&self) -> bool {
        self.bare_lf
    }

    /// True if a line was longer than allowed, and that was allowed.
    pub fn saw_long_line(&self) -> bool {
        self.long_line
    }

    fn line_end(&mut self, i: usize) -> Result<(), FaultAt> {
        self.measure(i)?;
        self.bare_lf |= !self.after_cr;
        self.after_cr = false;
        self.column = 0;
        Ok(())
    }

    /// `i`: where in the run the line, or its CR, ends.
    fn measure(&mut self, i: usize) -> Result<(), FaultAt> {
        if self.column <= LINE_OCTETS_MAX {
            return Ok(());
        }
        self.long_line = true;
        if self.long_lines_allowed {
            return Ok(());
        }
        let line_start = self.offset + i as u64 - u64::from(self.after_cr) - self.column as u64;
        Err(FaultAt {
            fault: Fault::LongLine,
            offset: line_start,
        })
    }

    fn at(&self, fault: Fault, i: u64) -> FaultAt {
        FaultAt {
            fault,
            offset: self.offset + i,
        }
    }

    /// The CR that was the last byte accounted for.
    fn at_previous(&self, done: usize) -> FaultAt {
        FaultAt {
            fault: Fault::StrayCr,
            offset: self.offset + done as u64 - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome for `body`, the same however it is cut in two.
    fn check(body: &[u8], long_lines_allowed: bool) -> Result<(bool, bool), (Fault, u64)> {
        let outcome = |cut: usize| {
            let mut check = LineCheck::new(100, long_lines_allowed);
            check
                .feed(&body[..cut])
                .and_then(|()| check.feed(&body[cut..]))
                .and_then(|()| check.finish())
                .map(|()| (check.saw_bare_lf(), check.saw_long_line()))
                .map_err(|at| (at.fault, at.offset - 100))
        };
        let whole = outcome(0);
        for cut in 1..=body.len() {
            assert_eq!(outcome(cut), whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn good_lines_pass() {
        assert_eq!(check(b"", false), Ok((false, false)));
        assert_eq!(check(b"a\r\n\r\nb\r\n", false), Ok((false, false)));
        assert_eq!(check(b"a\r\nb\n", false), Ok((true, false)));
        let longest = [&[b'x'; 998][..], b"\r\n", &[b'x'; 998]].concat();
        assert_eq!(check(&longest, false), Ok((false, false)));
    }

    #[test]
    fn each_fault_is_found_where_it_is() {
        assert_eq!(check(b"a\r\nb\0c", false), Err((Fault::Nul, 4)));
        assert_eq!(check(b"a\rb\r\n", false), Err((Fault::StrayCr, 1)));
        assert_eq!(check(b"a\r\r\n", false), Err((Fault::StrayCr, 1)));
        assert_eq!(check(b"a\r\0", false), Err((Fault::StrayCr, 1)));
        assert_eq!(check(b"a\n\r", false), Err((Fault::StrayCr, 2)));
        for line_end in [&b""[..], b"\n", b"\r\n"] {
            let long = [b"ab\n", &[b'x'; 999][..], line_end].concat();
            assert_eq!(check(&long, false), Err((Fault::LongLine, 3)));
            assert_eq!(check(&long, true), Ok((true, true)));
        }
    }
}
