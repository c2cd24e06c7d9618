//! Dot-stuffing (RFC 5321 4.5.2): a line of content that starts with a dot gets a second one, so that the line `.` alone
//! can mean the end.
//!
//! Content is canonical: its lines end in CRLF and it holds no other CR or LF (whoever reads the batch sees to it). A
//! line starts at the content's start and after CRLF, nowhere else; so un-stuffing gives back the very bytes, whatever
//! they are. Most content needs no stuffing: [`needs_stuffing`] is one search at memory speed, and the content can then
//! be sent as it stands, without a copy.
//!
//! INVARIANTS: un-stuff(stuff(x)) = x, wherever either stream is cut; stuffed content holds no line `.` of its own, so
//! its end is where [`Unstuffer`] finds it: at CRLF . CRLF and nothing less. Nothing here fails, panics or buffers.

use memchr::memmem;

/// What ends content whose last line is complete, and empty content.
const END: &[u8] = b".\r\n";
/// What ends content whose last line lacks its CRLF.
const END_OF_OPEN_LINE: &[u8] = b"\r\n.\r\n";

/// True if some line of `content` starts with a dot.
pub fn needs_stuffing(content: &[u8]) -> bool {
    content.starts_with(b".") || memmem::find(content, b"\r\n.").is_some()
}

/// The final dot for `content`: with a CRLF in front of it only where the last line has none (RFC 5321 4.1.1.4 forbids an
/// extra empty line).
pub fn end_of(content: &[u8]) -> &'static [u8] {
    if content.is_empty() || content.ends_with(b"\r\n") {
        END
    } else {
        END_OF_OPEN_LINE
    }
}

/// Appends the whole of `content`, stuffed, to `out`; the final dot ([`end_of`]) is not part of it.
pub fn stuff_into(content: &[u8], out: &mut Vec<u8>) {
    Stuffer::new().push(content, out);
}

/// Where in a line a stuffer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// At the start of a line.
    LineStart,
    /// Within a line.
    Within,
    /// Behind a CR.
    AfterCr,
}

/// Stuffs content that comes in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Stuffer {
    place: Place,
}

impl Default for Stuffer {
    fn default() -> Stuffer {
        Stuffer::new()
    }
}

impl Stuffer {
    /// A stuffer at the start of content.
    pub fn new() -> Stuffer {
        Stuffer {
            place: Place::LineStart,
        }
    }

    /// Appends `chunk`, stuffed, to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while let Some(&first) = rest.first() {
            if self.place == Place::LineStart && first == b'.' {
                out.push(b'.');
            }
            // A run goes up to and including the next LF: only behind one can a line start.
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (run, behind) = rest.split_at(end);
            self.place = self.place_behind(run);
            out.extend_from_slice(run);
            rest = behind;
        }
    }

    /// Where one stands behind `run`, which holds no LF but perhaps at its end.
    fn place_behind(&self, run: &[u8]) -> Place {
        match run {
            [.., b'\r', b'\n'] => Place::LineStart,
            [b'\n'] if self.place == Place::AfterCr => Place::LineStart,
            [.., b'\r'] => Place::AfterCr,
            _ => Place::Within,
        }
    }

    /// The final dot for what was pushed.
    pub fn end(&self) -> &'static [u8] {
        if self.place == Place::LineStart {
            END
        } else {
            END_OF_OPEN_LINE
        }
    }
}

/// How far un-stuffing has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    /// At the start of a line.
    Start,
    /// Within a line.
    Within,
    /// Behind a CR.
    Cr,
    /// Behind a dot at the start of a line; the dot is withheld.
    Dot,
    /// Behind a dot and a CR at the start of a line; both are withheld.
    DotCr,
}

/// What [`Unstuffer::push`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unstuffed {
    /// How many bytes belong to the content and its end; what is behind them does not.
    pub used: usize,
    /// True once the final dot has come.
    pub ended: bool,
}

/// Takes the added dots out of what a client sends after DATA, in pieces, and finds the end.
#[derive(Clone, Copy, Debug)]
pub struct Unstuffer {
    line: Line,
}

impl Default for Unstuffer {
    fn default() -> Unstuffer {
        Unstuffer::new()
    }
}

impl Unstuffer {
    /// An un-stuffer at the start of content.
    pub fn new() -> Unstuffer {
        Unstuffer { line: Line::Start }
    }

    /// Appends the content in `input` to `out`, up to the final dot if it is there. After the end, start anew.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Unstuffed {
        let mut used = 0;
        while used < input.len() {
            if self.line == Line::Within {
                let run = memchr::memchr(b'\r', &input[used..]).unwrap_or(input.len() - used);
                out.extend_from_slice(&input[used..used + run]);
                used += run;
                if used == input.len() {
                    break;
                }
            }
            let byte = input[used];
            used += 1;
            if self.take(byte, out) {
                self.line = Line::Start;
                return Unstuffed { used, ended: true };
            }
        }
        Unstuffed { used, ended: false }
    }

    /// One step of the machine; true at the end of the content.
    fn take(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        match (self.line, byte) {
            (Line::DotCr, b'\n') => return true,
            (Line::Start, b'.') => {
                self.line = Line::Dot;
                return false;
            }
            (Line::Dot, b'\r') => {
                self.line = Line::DotCr;
                return false;
            }
            // The withheld CR was no end after all; the dot before it was an added one and is dropped.
            (Line::DotCr, _) => out.push(b'\r'),
            _ => {}
        }
        let behind_cr = matches!(self.line, Line::Cr | Line::DotCr);
        out.push(byte);
        self.line = match byte {
            b'\n' if behind_cr => Line::Start,
            b'\r' => Line::Cr,
            _ => Line::Within,
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        stuff_into(content, &mut out);
        out
    }

    /// Stuffs in pieces, ends, un-stuffs in pieces; the content that arrives.
    fn round(content: &[u8], cut_out: &[usize], cut_in: &[usize]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut stuffer = Stuffer::new();
        for piece in pieces(content, cut_out) {
            stuffer.push(piece, &mut wire);
        }
        assert_eq!(wire, stuffed(content));
        assert_eq!(stuffer.end(), end_of(content));
        wire.extend_from_slice(stuffer.end());
        wire.extend_from_slice(b"QUIT\r\n");
        let mut arrived = Vec::new();
        let mut unstuffer = Unstuffer::new();
        let mut used = 0;
        for piece in pieces(&wire, cut_in) {
            let step = unstuffer.push(piece, &mut arrived);
            used += step.used;
            if step.ended {
                assert_eq!(&wire[used..], b"QUIT\r\n");
                return arrived;
            }
            assert_eq!(step.used, piece.len());
        }
        panic!("the end was not found");
    }

    fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut rest = bytes;
        let mut pieces = Vec::new();
        for &cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        pieces
    }

    #[test]
    fn dots_at_line_starts_are_doubled_and_no_others() {
        assert_eq!(
            stuffed(b".a\r\n.\r\nb.c\r\n..\r\n"),
            b"..a\r\n..\r\nb.c\r\n...\r\n"
        );
        assert_eq!(stuffed(b"a\n.b\r.c"), b"a\n.b\r.c");
        assert_eq!(stuffed(b"\r\n\r\n.x"), b"\r\n\r\n..x");
    }

    #[test]
    fn need_is_seen() {
        assert!(needs_stuffing(b"."));
        assert!(needs_stuffing(b"a\r\n.b"));
        assert!(!needs_stuffing(b""));
        assert!(!needs_stuffing(b"a.b\r\nc.\r\n"));
    }

    #[test]
    fn the_end_adds_no_empty_line() {
        assert_eq!(end_of(b""), b".\r\n");
        assert_eq!(end_of(b"a\r\n"), b".\r\n");
        assert_eq!(end_of(b"a"), b"\r\n.\r\n");
    }

    #[test]
    fn less_than_crlf_dot_crlf_ends_nothing() {
        for bytes in [
            &b"a\n.\nb\r\n"[..],
            b"a\n.\r\n",
            b"a\r\n.\n",
            b"a\r\n.\rb",
            b"a\r.\r\n",
            b".\n",
            b"..\r\n",
        ] {
            let mut out = Vec::new();
            let step = Unstuffer::new().push(bytes, &mut out);
            assert_eq!((step.used, step.ended), (bytes.len(), false), "{bytes:?}");
        }
    }

    #[test]
    fn every_short_content_survives_every_cut() {
        let letters = *b"a.\r\n";
        for len in 0..6u32 {
            for number in 0..4u32.pow(len) {
                let content: Vec<u8> = (0..len)
                    .map(|i| letters[(number >> (2 * i)) as usize & 3])
                    .collect();
                let mut expected = content.clone();
                if !content.is_empty() && !content.ends_with(b"\r\n") {
                    expected.extend_from_slice(b"\r\n");
                }
                for cut in 0..=content.len() {
                    assert_eq!(round(&content, &[cut], &[cut + 1]), expected);
                }
                assert_eq!(round(&content, &[1; 6], &[1; 24]), expected);
                let needs = stuffed(&content) != content;
                assert_eq!(needs_stuffing(&content), needs);
            }
        }
    }

    proptest! {
        #[test]
        fn unstuffing_undoes_stuffing_at_any_split(
            content in prop::collection::vec(prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            cut_out in prop::collection::vec(0usize..9, 0..60),
            cut_in in prop::collection::vec(0usize..9, 0..60),
        ) {
            let mut expected = content.clone();
            if !content.is_empty() && !content.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(round(&content, &cut_out, &cut_in), expected);
        }
    }
}
