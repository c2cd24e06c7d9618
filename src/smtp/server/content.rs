//! The content of a message on its way in: finds its end, takes the dot-stuffing away, notes what is wrong with it.
//! Chunks (RFC 3030) are counted, not searched: [`Content::chunked`] has no end of its own, and dots are just dots.
//!
//! Bytes may come cut anywhere. What belongs to the message is handed on in slices of the input, without copying. The end is
//! CRLF "." CRLF and nothing else (RFC 5321 4.1.1.4): a bare LF or CR never ends a line, so that no other server's reading of
//! the same bytes can smuggle a second message past this one (CVE-2023-51764 and its kin).
//!
//! INVARIANT: the slices handed on, joined, do not depend on how the input was cut.

/// What was found wrong with the content so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flaws {
    /// A LF without CR.
    pub bare_lf: bool,
    /// A CR without LF.
    pub bare_cr: bool,
    /// A line of more than 1000 octets.
    pub long_line: bool,
    /// An octet above 127.
    pub eight_bit: bool,
    /// A line that began with one dot and went on otherwise.
    pub unstuffed_dot: bool,
}

/// Longest line with its CRLF, the added dot not counted (RFC 5321 4.5.3.1.6).
const LINE_BYTES_MAX: usize = 1000;

/// Where in a line the reader is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Nothing of the line was read.
    LineStart,
    /// The line's first dot was read and taken away.
    Dot,
    /// A dot and a CR at the start of a line; the CR was not handed on yet.
    DotCr,
    /// Inside a line.
    Text,
    /// After a CR inside a line; it was handed on.
    Cr,
}

/// Reads one message's content.
#[derive(Debug)]
pub struct Content {
    at: At,
    line_bytes: usize,
    bytes: u64,
    flaws: Flaws,
    /// No dot-stuffing, no final dot.
    is_chunked: bool,
}

impl Default for Content {
    fn default() -> Content {
        Content::new()
    }
}

impl Content {
    /// Ready for the first byte after the 354.
    pub fn new() -> Content {
        Content {
            at: At::LineStart,
            line_bytes: 0,
            bytes: 0,
            flaws: Flaws::default(),
            is_chunked: false,
        }
    }

    /// Ready for the first chunk; the caller hands over chunks only, and knows the end.
    pub fn chunked() -> Content {
        Content {
            is_chunked: true,
            ..Content::new()
        }
    }

    /// Nothing more comes: what the last byte left open is a flaw.
    pub fn end_chunks(&mut self) {
        self.flaws.bare_cr |= self.at == At::Cr;
    }

    /// Octets of the message so far, without stuffing and without the final dot.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was wrong so far.
    pub fn flaws(&self) -> Flaws {
        self.flaws
    }

    /// Reads on. Returns how many bytes were used if the end was among them (the rest is the next command's); `None` if all
    /// was used and more is to come.
    pub fn feed(&mut self, input: &[u8], mut emit: impl FnMut(&[u8])) -> Option<usize> {
        // What lies between `start` and `next` belongs to the message and was not handed on yet.
        let (mut start, mut next) = (0, 0);
        while let Some(&byte) = input.get(next) {
            match self.at {
                At::LineStart if byte == b'.' && !self.is_chunked => {
                    self.hand_on(&input[start..next], &mut emit);
                    self.at = At::Dot;
                    next += 1;
                    start = next;
                }
                At::LineStart => self.at = At::Text,
                At::Dot if byte == b'\r' => {
                    self.at = At::DotCr;
                    next += 1;
                    start = next;
                }
                At::Dot => {
                    self.flaws.unstuffed_dot |= byte != b'.';
                    self.at = At::Text;
                }
                At::DotCr if byte == b'\n' => return Some(next + 1),
                At::DotCr => {
                    self.flaws.bare_cr = true;
                    self.hand_on(b"\r", &mut emit);
                    self.line_bytes += 1;
                    self.at = At::Text;
                }
                At::Text => next = self.text(input, next),
                At::Cr => {
                    if byte == b'\n' {
                        self.end_line();
                        next += 1;
                    } else {
                        self.flaws.bare_cr = true;
                        self.at = At::Text;
                    }
                }
            }
        }
        self.hand_on(&input[start..], &mut emit);
        None
    }

    /// Goes over text up to the next CR; returns where to go on.
    fn text(&mut self, input: &[u8], from: usize) -> usize {
        let rest = &input[from..];
        match memchr::memchr2(b'\r', b'\n', rest) {
            None => {
                self.line_bytes += rest.len();
                input.len()
            }
            Some(length) => {
                self.line_bytes += length + 1;
                if rest[length] == b'\r' {
                    self.at = At::Cr;
                } else {
                    self.flaws.bare_lf = true;
                }
                from + length + 1
            }
        }
    }

    fn end_line(&mut self) {
        self.flaws.long_line |= self.line_bytes + 1 > LINE_BYTES_MAX;
        self.line_bytes = 0;
        self.at = At::LineStart;
    }

    fn hand_on(&mut self, slice: &[u8], emit: &mut impl FnMut(&[u8])) {
        if !slice.is_empty() {
            self.bytes += slice.len() as u64;
            self.flaws.eight_bit |= !slice.is_ascii();
            emit(slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is handed on, the flaws and what is left over, with the input cut at `cuts`.
    fn read(input: &[u8], cuts: &[usize]) -> (Vec<u8>, Flaws, Option<Vec<u8>>) {
        let mut content = Content::new();
        let mut out = Vec::new();
        let mut from = 0;
        for &to in cuts.iter().chain([&input.len()]) {
            if let Some(used) = content.feed(&input[from..to], |slice| out.extend_from_slice(slice))
            {
                return (out, content.flaws(), Some(input[from + used..].to_vec()));
            }
            from = to;
        }
        assert_eq!(content.bytes(), out.len() as u64);
        (out, content.flaws(), None)
    }

    /// Input, message, and what is left over if the end was found.
    type Case = (&'static [u8], &'static [u8], Option<&'static [u8]>);

    const CASES: [Case; 14] = [
        (b".\r\nQUIT", b"", Some(b"QUIT")),
        (b"a\r\n.\r\n", b"a\r\n", Some(b"")),
        (b"\r\n.\r\n", b"\r\n", Some(b"")),
        (b"..a\r\n..\r\n.\r\n", b".a\r\n.\r\n", Some(b"")),
        (b"a\n.\n.\r\nb\r\n.\r\n", b"a\n.\n.\r\nb\r\n", Some(b"")),
        (b"a\n.\r\nb\r\n.\r\nX", b"a\n.\r\nb\r\n", Some(b"X")),
        (b"a\r.\r\r\n.\r\n", b"a\r.\r\r\n", Some(b"")),
        (b"a\r\n.\n.\r\nb\r\n.\r\n", b"a\r\n\n.\r\nb\r\n", Some(b"")),
        (b"a\r\n.\r.\r\nb\r\n.\r\n", b"a\r\n\r.\r\nb\r\n", Some(b"")),
        (b"a\r\n.\r\rb\r\n.\r\n", b"a\r\n\r\rb\r\n", Some(b"")),
        (b".x\r\n.\r\n", b"x\r\n", Some(b"")),
        (b"a.\r\n.\r\n", b"a.\r\n", Some(b"")),
        (b"a\r\n.", b"a\r\n", None),
        (b"a\r\n.\r", b"a\r\n", None),
    ];

    #[test]
    fn only_crlf_dot_crlf_ends_whatever_the_cuts() {
        for (input, message, rest) in CASES {
            let whole = read(input, &[]);
            assert_eq!(whole.0, message, "{:?}", input.escape_ascii().to_string());
            assert_eq!(
                whole.2.as_deref(),
                rest,
                "{:?}",
                input.escape_ascii().to_string()
            );
            for first in 0..=input.len() {
                for second in first..=input.len() {
                    assert_eq!(read(input, &[first, second]), whole);
                }
            }
        }
    }

    #[test]
    fn flaws_are_named_and_clean_content_has_none() {
        let flaws = |input: &[u8]| read(input, &[]).1;
        assert_eq!(flaws(b"a\r\n..\r\n\r\n.\r\n"), Flaws::default());
        assert!(flaws(b"a\nb\r\n.\r\n").bare_lf);
        assert!(flaws(b"a\rb\r\n.\r\n").bare_cr);
        assert!(flaws(b"a\r\n.\rb\r\n.\r\n").bare_cr);
        assert!(flaws(b".a\r\n.\r\n").unstuffed_dot);
        assert!(flaws(b"\xc3\xa9\r\n.\r\n").eight_bit);
        let line = |length: usize| [&vec![b'x'; length][..], b"\r\n.\r\n"].concat();
        assert!(!flaws(&line(998)).long_line);
        assert!(flaws(&line(999)).long_line);
        let stuffed = [b"..".to_vec(), line(997)].concat();
        assert!(!flaws(&stuffed).long_line, "the added dot does not count");
    }

    #[test]
    fn random_bytes_mean_the_same_however_they_are_cut() {
        let mut rng = fastrand::Rng::with_seed(5);
        let alphabet = b"..\r\r\n\na\xff";
        for _ in 0..20_000 {
            let length = rng.usize(..24);
            let input: Vec<u8> = (0..length)
                .map(|_| alphabet[rng.usize(..alphabet.len())])
                .collect();
            let mut cuts: Vec<usize> = (0..3).map(|_| rng.usize(..=length)).collect();
            cuts.sort_unstable();
            assert_eq!(
                read(&input, &cuts),
                read(&input, &[]),
                "{:?}",
                input.escape_ascii().to_string()
            );
        }
    }
}
