//! One message at intake: its header collected, its body checked, all of it hashed, while it streams by.
//!
//! [`MessageScan`] is fed what the splitter (or the plain file) gives and keeps the header only: the body is looked at and
//! dropped. One scan is reused for message after message, so that the steady state allocates nothing.
//!
//! INVARIANT: after a fault the header kept is the whole lines before it, so that recipients met by then can be named in the
//! report.
//!
//! Limits: a line of the header [`HEADER_LINE_OCTETS_MAX`], all its lines [`HEADER_OCTETS_MAX`], those of recipient lists apart:
//! [`LISTS_OCTETS_MAX`], because a message to a million people is legitimate; a message [`MESSAGE_OCTETS_MAX`].

use super::check::LineCheck;
use super::fault::{Fault, FaultAt};
use super::field::{FieldKind, split_name};
use super::line_end_len;
use xxhash_rust::xxh3::Xxh3Default;

/// The longest physical line of a header, line end included.
pub const HEADER_LINE_OCTETS_MAX: usize = 1024 * 1024;
/// The largest header, lists of recipients not counted.
pub const HEADER_OCTETS_MAX: usize = 1024 * 1024;
/// The most octets of recipient lists in a header.
pub const LISTS_OCTETS_MAX: usize = 64 * 1024 * 1024;
/// The largest message.
pub const MESSAGE_OCTETS_MAX: u64 = 1024 * 1024 * 1024;
/// A header buffer larger than this is given back after its message.
const HEADER_OCTETS_KEPT: usize = 256 * 1024;

/// A message that passes by.
#[derive(Clone)]
pub struct MessageScan {
    long_lines_allowed: bool,
    from_line: Vec<u8>,
    header: Vec<u8>,
    /// Where in `header` the line under way begins.
    line_start: usize,
    /// Octets of the header's lines: of recipient lists, and of all else.
    list_octets: usize,
    other_octets: usize,
    /// The line before belongs to a recipient list.
    in_list: bool,
    /// `None` in the header.
    body: Option<LineCheck>,
    hash: Xxh3Default,
    length: u64,
    fault: Option<FaultAt>,
}

impl MessageScan {
    /// A scan that waits for its first message. `long_lines_allowed`: lines over 998 octets will be folded later.
    pub fn new(long_lines_allowed: bool) -> MessageScan {
        MessageScan {
            long_lines_allowed,
            from_line: Vec::new(),
            header: Vec::new(),
            line_start: 0,
            list_octets: 0,
            other_octets: 0,
            in_list: false,
            body: None,
            hash: Xxh3Default::new(),
            length: 0,
            fault: None,
        }
    }

    /// A new message begins with this From_ line; empty if it has none.
    pub fn begin(&mut self, from_line: &[u8]) {
        self.from_line.clear();
        self.from_line.extend_from_slice(from_line);
        self.header.clear();
        self.header.shrink_to(HEADER_OCTETS_KEPT);
        self.line_start = 0;
        self.list_octets = 0;
        self.other_octets = 0;
        self.in_list = false;
        self.body = None;
        self.hash.reset();
        self.hash.update(from_line);
        self.length = from_line.len() as u64;
        self.fault = None;
    }

    /// The next bytes of its content.
    pub fn content(&mut self, run: &[u8]) {
        self.hash.update(run);
        if self.fault.is_none()
            && let Err(fault) = self.judge(run)
        {
            self.fault = Some(fault);
            self.header.truncate(self.line_start);
        }
        self.length += run.len() as u64;
    }

    /// The splitter found the message unfit.
    pub fn fault(&mut self, fault: Fault) {
        let offset = self.length;
        self.fault.get_or_insert(FaultAt { fault, offset });
    }

    /// The message is over; gives the first fault, counted from its first byte.
    pub fn finish(&mut self) -> Option<FaultAt> {
        if self.fault.is_none()
            && let Some(body) = &mut self.body
        {
            self.fault = body.finish().err();
        }
        self.fault
    }

    /// The first fault so far.
    pub fn first_fault(&self) -> Option<FaultAt> {
        self.fault
    }

    /// Its bytes, From_ line included.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The XXH3-64 of these bytes.
    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    /// Its From_ line.
    pub fn from_line(&self) -> &[u8] {
        &self.from_line
    }

    /// Its header, without the empty line behind it.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    fn judge(&mut self, run: &[u8]) -> Result<(), FaultAt> {
        if self.length + run.len() as u64 > MESSAGE_OCTETS_MAX {
            return Err(FaultAt {
                fault: Fault::TooLarge(MESSAGE_OCTETS_MAX),
                offset: MESSAGE_OCTETS_MAX,
            });
        }
        let mut rest = run;
        while self.body.is_none() && !rest.is_empty() {
            let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
            let (piece, behind) = rest.split_at(len);
            self.header_piece(piece)?;
            rest = behind;
        }
        match &mut self.body {
            Some(body) => body.feed(rest),
            None => Ok(()),
        }
    }

    /// A line of the header, or a part of one.
    fn header_piece(&mut self, piece: &[u8]) -> Result<(), FaultAt> {
        if self.header.len() - self.line_start + piece.len() > HEADER_LINE_OCTETS_MAX {
            return Err(self.header_fault(Fault::HeaderLineTooLong(HEADER_LINE_OCTETS_MAX)));
        }
        self.header.extend_from_slice(piece);
        if !piece.ends_with(b"\n") {
            return Ok(());
        }
        let line = &self.header[self.line_start..];
        if line_end_len(line) == line.len() {
            let offset = (self.from_line.len() + self.header.len()) as u64;
            self.header.truncate(self.line_start);
            self.body = Some(LineCheck::new(offset, self.long_lines_allowed));
            return Ok(());
        }
        if !matches!(line[0], b' ' | b'\t') {
            let kind = split_name(line).map_or(FieldKind::Other, |(name, _)| FieldKind::of(name));
            self.in_list = kind.is_recipient_list();
        }
        let (octets, max, fault) = if self.in_list {
            let fault = Fault::ListsTooLarge(LISTS_OCTETS_MAX);
            (&mut self.list_octets, LISTS_OCTETS_MAX, fault)
        } else {
            let fault = Fault::HeaderTooLarge(HEADER_OCTETS_MAX);
            (&mut self.other_octets, HEADER_OCTETS_MAX, fault)
        };
        *octets += line.len();
        if *octets > max {
            return Err(self.header_fault(fault));
        }
        self.line_start = self.header.len();
        Ok(())
    }

    /// `fault` at the line under way.
    fn header_fault(&self, fault: Fault) -> FaultAt {
        FaultAt {
            fault,
            offset: (self.from_line.len() + self.line_start) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(from_line: &str, content: &[u8], piece: usize) -> MessageScan {
        let mut scan = MessageScan::new(false);
        scan.begin(b"to be forgotten");
        scan.content(b"X: y\n\n\0");
        scan.begin(from_line.as_bytes());
        content.chunks(piece).for_each(|run| scan.content(run));
        scan.finish();
        scan
    }

    #[test]
    fn any_cut_gives_the_same() {
        let content = b"A: b\r\n c\r\n\r\nbody\nmore";
        for piece in 1..=content.len() {
            let scan = scan("From x\n", content, piece);
            assert_eq!(scan.header(), b"A: b\r\n c\r\n");
            assert_eq!(scan.from_line(), b"From x\n");
            assert_eq!(scan.length(), 7 + content.len() as u64);
            let raw = [b"From x\n", &content[..]].concat();
            assert_eq!(scan.hash(), xxhash_rust::xxh3::xxh3_64(&raw));
            assert_eq!(scan.fault, None);
        }
    }

    #[test]
    fn a_fault_of_the_body_counts_from_the_first_byte() {
        let scan = scan("From x\n", b"A: b\n\nab\0", 1);
        let want = FaultAt {
            fault: Fault::Nul,
            offset: 15,
        };
        assert_eq!(scan.fault, Some(want));
    }

    #[test]
    fn endless_headers_are_given_up() {
        let line = [
            b"A: ",
            &vec![b'x'; 2 * HEADER_LINE_OCTETS_MAX][..],
            b"\n\nbody",
        ]
        .concat();
        let content = [b"To: a@b.test\n", &line[..]].concat();
        let long = scan("", &content, 1000);
        let want = Fault::HeaderLineTooLong(HEADER_LINE_OCTETS_MAX);
        assert_eq!(
            long.fault,
            Some(FaultAt {
                fault: want,
                offset: 13
            })
        );
        assert_eq!(long.header(), b"To: a@b.test\n");
        assert_eq!(long.length(), content.len() as u64);

        let large = scan("", &b"A: b\n".repeat(HEADER_OCTETS_MAX / 5 + 1), 65536);
        assert_eq!(
            large.fault.map(|at| at.fault),
            Some(Fault::HeaderTooLarge(HEADER_OCTETS_MAX))
        );
    }

    #[test]
    fn a_list_of_very_many_recipients_is_no_fault() {
        let content = [
            b"To: a@b.test",
            &b",\n c@d.example".repeat(200_000)[..],
            b"\n\n",
        ]
        .concat();
        let list = scan("", &content, 65536);
        assert_eq!(list.fault, None);
        assert_eq!(list.header().len(), content.len() - 1);

        let line = [&b",\n "[..], &b"c@d.example, ".repeat(70_000)].concat();
        let content = [&b"To: a@b.test"[..], &line.repeat(80), b"\n\n"].concat();
        assert_eq!(
            scan("", &content, 65536).fault.map(|at| at.fault),
            Some(Fault::ListsTooLarge(LISTS_OCTETS_MAX))
        );
    }
}
