//! Replies: bytes of a server become a code, an enhanced status and text, however the network has cut them.
//!
//! [`ReplyParser::feed`] takes what was read and says how much of it belongs to the reply under way; what is behind that
//! reply stays with the caller. The parser owns one [`Reply`] that is overwritten by the next one, so that a session in
//! its stride allocates nothing for replies.
//!
//! A line ends at LF; a CR just before it is dropped. RFC 5321 2.3.8 asks for CRLF, but servers that end replies with a
//! bare LF exist, and no content's boundary hangs on it: a line more than expected is a surplus reply, which ends the
//! session. All other bytes, NUL and controls included, are kept as they are and made printable only by a verdict.
//!
//! INVARIANTS: the code is 200 to 599; all lines of a reply bear the same code (RFC 5321 4.2.1); a line has at most
//! [`LINE_BYTES_MAX`] bytes, a reply at most [`TEXT_BYTES_MAX`] bytes of text and [`LINES_MAX`] lines. What breaks one of
//! these is [`Garbled`], after which the stream cannot be trusted: the session must end. Nothing here panics.

use std::fmt;

use crate::mail::Enhanced;

/// The longest line that is read, its end included. RFC 5321 4.5.3.1.5 allows 512; real servers exceed it.
pub const LINE_BYTES_MAX: usize = 4096;
/// The longest text of one reply, over all its lines.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// The most lines of one reply.
pub const LINES_MAX: usize = 128;
/// A longer text buffer is given back before the next reply, so that one long reply does not cost memory for ever.
const TEXT_BYTES_KEPT: usize = 4096;

/// One reply of the server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reply {
    /// 200 to 599 (0 only before the first reply was read).
    pub code: u16,
    /// The enhanced status at the start of the text, if it fits the code (RFC 2034 section 4).
    pub enhanced: Option<Enhanced>,
    /// The lines' texts, without code and line ends, separated by LF.
    text: Vec<u8>,
}

impl Reply {
    /// The texts of the lines, in order; at least one, perhaps empty.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|&byte| byte == b'\n')
    }

    /// The text for people: lines joined by a space, the enhanced status (kept apart) taken off, bytes that are no
    /// UTF-8 replaced. Controls are still in it: `Verdict::new` replaces them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.lines() {
            let line = self.without_enhanced(line);
            if !text.is_empty() && !line.is_empty() {
                text.push(' ');
            }
            text.push_str(&String::from_utf8_lossy(line));
        }
        text
    }

    /// `line` without the enhanced status of this reply at its start.
    fn without_enhanced<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        match (self.enhanced, parse_enhanced(line)) {
            (Some(ours), Some((theirs, rest))) if ours == theirs => rest,
            _ => line,
        }
    }

    /// Makes room for the next reply in the same memory.
    fn clear(&mut self) {
        self.code = 0;
        self.enhanced = None;
        self.text.clear();
        if self.text.capacity() > TEXT_BYTES_KEPT {
            self.text.shrink_to(TEXT_BYTES_KEPT);
        }
    }
}

/// What is wrong with bytes that should have been a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Garbled {
    /// A line does not start with a code of 200 to 599 followed by a space, a hyphen or the line's end.
    NoCode,
    /// The lines of one reply bear different codes (RFC 5321 4.2.1 forbids it).
    CodeChanged,
    /// A line of more than [`LINE_BYTES_MAX`] bytes.
    LineTooLong,
    /// More than [`LINES_MAX`] lines or [`TEXT_BYTES_MAX`] bytes in one reply.
    TooLong,
    /// A reply that no command asked for, or bytes behind the last expected reply.
    Surplus,
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Garbled::NoCode => "a line of the reply has no valid code",
            Garbled::CodeChanged => "the lines of one reply bear different codes",
            Garbled::LineTooLong => "a line of the reply is too long",
            Garbled::TooLong => "the reply is too long",
            Garbled::Surplus => "a reply that no command asked for",
        })
    }
}

/// How far a reply has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// All bytes were taken; the reply is not complete yet.
    Partial,
    /// [`ReplyParser::reply`] is complete.
    Complete,
    /// The bytes are no reply: end the session.
    Garbled(Garbled),
}

/// Reads one reply after another from bytes that may be cut anywhere.
#[derive(Debug, Default)]
pub struct ReplyParser {
    reply: Reply,
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    /// Lines of the reply under way that were complete; 0 between replies.
    lines: usize,
}

impl ReplyParser {
    /// A parser that expects the start of a reply.
    pub fn new() -> ReplyParser {
        ReplyParser::default()
    }

    /// Takes bytes up to the end of the reply under way, never beyond. Returns how many were taken.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Progress) {
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[used..]) {
            let piece = &input[used..used + end];
            used += end + 1;
            match self.end_line(piece) {
                Progress::Partial => {}
                settled => return (used, settled),
            }
        }
        let rest = &input[used..];
        if self.line.len() + rest.len() >= LINE_BYTES_MAX {
            return (input.len(), Progress::Garbled(Garbled::LineTooLong));
        }
        self.line.extend_from_slice(rest);
        (input.len(), Progress::Partial)
    }

    /// The reply that was completed last. Meaningful only after [`Progress::Complete`].
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// True between replies: no byte of a further reply has been taken.
    pub fn is_idle(&self) -> bool {
        self.lines == 0 && self.line.is_empty()
    }

    /// A line is complete: `piece` is its last part, without LF.
    fn end_line(&mut self, piece: &[u8]) -> Progress {
        if self.line.len() + piece.len() >= LINE_BYTES_MAX {
            return Progress::Garbled(Garbled::LineTooLong);
        }
        if self.line.is_empty() {
            return self.take_line(piece);
        }
        self.line.extend_from_slice(piece);
        let line = std::mem::take(&mut self.line);
        let progress = self.take_line(&line);
        self.line = line;
        self.line.clear();
        progress
    }

    /// Adds one line, still with its CR, to the reply.
    fn take_line(&mut self, line: &[u8]) -> Progress {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some((code, more, text)) = split_line(line) else {
            return Progress::Garbled(Garbled::NoCode);
        };
        if self.lines == 0 {
            self.reply.clear();
            self.reply.code = code;
            self.reply.enhanced = fitting_enhanced(code, text);
        } else if self.reply.code != code {
            return Progress::Garbled(Garbled::CodeChanged);
        } else {
            self.reply.text.push(b'\n');
        }
        if self.lines == LINES_MAX || self.reply.text.len() + text.len() > TEXT_BYTES_MAX {
            return Progress::Garbled(Garbled::TooLong);
        }
        self.reply.text.extend_from_slice(text);
        if more {
            self.lines += 1;
            return Progress::Partial;
        }
        self.lines = 0;
        Progress::Complete
    }
}

/// Code, whether further lines follow, and text of a line (RFC 5321 4.2). A code with nothing behind it is a last line:
/// "the SP may be omitted" there, and clients are asked to bear it.
fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code = number(digits)?;
    if !(200..=599).contains(&code) {
        return None;
    }
    match rest.split_first() {
        None => Some((code, false, rest)),
        Some((b' ', text)) => Some((code, false, text)),
        Some((b'-', text)) => Some((code, true, text)),
        Some(_) => None,
    }
}

/// The enhanced status at the start of `text`, if its class is the code's first digit; else it is ignored (RFC 2034
/// section 4 requires that they agree).
fn fitting_enhanced(code: u16, text: &[u8]) -> Option<Enhanced> {
    let (enhanced, _) = parse_enhanced(text)?;
    (u16::from(enhanced.class) == code / 100).then_some(enhanced)
}

/// `class.subject.detail` (RFC 3463 section 2) and what is behind it and its space.
fn parse_enhanced(text: &[u8]) -> Option<(Enhanced, &[u8])> {
    let end = text
        .iter()
        .take(10)
        .position(|&byte| byte == b' ')
        .unwrap_or(text.len());
    let mut parts = text[..end].split(|&byte| byte == b'.');
    let class = number(parts.next()?).filter(|class| matches!(class, 2 | 4 | 5))?;
    let subject = number(parts.next()?)?;
    let detail = number(parts.next()?)?;
    if parts.next().is_some() {
        return None;
    }
    let rest = text[end..].strip_prefix(b" ").unwrap_or(&text[end..]);
    Some((Enhanced::new(class as u8, subject, detail), rest))
}

/// One to three digits as a number.
fn number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All replies in `bytes`, which come in pieces of the lengths of `cuts`, and how it ended.
    fn parse_all(bytes: &[u8], cuts: &[usize]) -> (Vec<Reply>, Progress) {
        let mut parser = ReplyParser::new();
        let mut replies = Vec::new();
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(bytes.len()));
        let mut start = 0;
        while start < bytes.len() {
            let end = (start + cuts.next().unwrap().max(1)).min(bytes.len());
            while start < end {
                let (used, progress) = parser.feed(&bytes[start..end]);
                start += used;
                match progress {
                    Progress::Complete => replies.push(parser.reply().clone()),
                    Progress::Partial => assert_eq!(start, end, "a partial reply leaves no byte"),
                    garbled => return (replies, garbled),
                }
            }
        }
        let idle = parser.is_idle();
        (
            replies,
            if idle {
                Progress::Complete
            } else {
                Progress::Partial
            },
        )
    }

    fn one(bytes: &[u8]) -> Reply {
        let (mut replies, progress) = parse_all(bytes, &[]);
        assert_eq!(progress, Progress::Complete);
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    fn garbled(bytes: &[u8]) -> Garbled {
        match parse_all(bytes, &[]) {
            (_, Progress::Garbled(garbled)) => garbled,
            other => panic!("not garbled: {other:?}"),
        }
    }

    #[test]
    fn a_reply_has_code_enhanced_status_and_text() {
        let reply = one(b"550 5.1.1 no such user\r\n");
        assert_eq!(reply.code, 550);
        assert_eq!(reply.enhanced, Some(Enhanced::new(5, 1, 1)));
        assert_eq!(reply.text(), "no such user");
    }

    #[test]
    fn lines_of_a_reply_are_joined_and_lose_their_enhanced_status() {
        let reply = one(b"550-5.7.1 blocked,\r\n550-5.7.1\r\n550 5.7.1 see x.test\r\n");
        assert_eq!(reply.text(), "blocked, see x.test");
        assert_eq!(reply.lines().count(), 3);
    }

    #[test]
    fn an_enhanced_status_of_another_class_is_ignored_and_stays_in_the_text() {
        let reply = one(b"450 5.1.1 later\r\n");
        assert_eq!(reply.enhanced, None);
        assert_eq!(reply.text(), "5.1.1 later");
        for text in ["5.1 x", "5.1.1.1 x", "5.1234.1 x", "5..1 x", "5.1.1x"] {
            let reply = one(format!("550 {text}\r\n").as_bytes());
            assert_eq!((reply.enhanced, reply.text().as_str()), (None, text));
        }
    }

    #[test]
    fn a_bare_code_and_a_bare_line_feed_are_borne() {
        assert_eq!(one(b"250\r\n").code, 250);
        assert_eq!(one(b"250 ok\n").text(), "ok");
        assert_eq!(one(b"250-a\n250 b\r\n").text(), "a b");
    }

    #[test]
    fn what_is_no_reply_is_garbled() {
        for bytes in [
            &b"hello\r\n"[..],
            b"\r\n",
            b"25\r\n",
            b"2500 x\r\n",
            b"199 x\r\n",
            b"600 x\r\n",
            b"250_x\r\n",
            b" 250 x\r\n",
            b"250-a\r\n\r\n",
        ] {
            assert_eq!(garbled(bytes), Garbled::NoCode, "{bytes:?}");
        }
        assert_eq!(garbled(b"250-a\r\n251 b\r\n"), Garbled::CodeChanged);
    }

    #[test]
    fn limits_hold_exactly() {
        let line = |len: usize| [b"250 ".to_vec(), vec![b'x'; len - 6], b"\r\n".to_vec()].concat();
        assert_eq!(one(&line(LINE_BYTES_MAX)).text().len(), LINE_BYTES_MAX - 6);
        assert_eq!(garbled(&line(LINE_BYTES_MAX + 1)), Garbled::LineTooLong);
        assert_eq!(garbled(&[b'2'; LINE_BYTES_MAX]), Garbled::LineTooLong);

        let lines = |count| [b"250-x\r\n".repeat(count - 1), b"250 x\r\n".to_vec()].concat();
        assert_eq!(one(&lines(LINES_MAX)).lines().count(), LINES_MAX);
        assert_eq!(garbled(&lines(LINES_MAX + 1)), Garbled::TooLong);

        let long = [b"250-".to_vec(), vec![b'x'; 4000], b"\r\n".to_vec()].concat();
        assert_eq!(garbled(&long.repeat(17)), Garbled::TooLong);
    }

    #[test]
    fn an_endless_line_never_grows_the_buffer_beyond_its_limit() {
        let mut parser = ReplyParser::new();
        let mut fed = 0;
        while parser.feed(b"2").1 == Progress::Partial {
            fed += 1;
            assert!(fed < LINE_BYTES_MAX);
        }
        assert!(parser.line.capacity() <= 2 * LINE_BYTES_MAX);
    }

    #[test]
    fn memory_of_a_long_reply_is_given_back() {
        let long = [
            b"250-".to_vec(),
            vec![b'x'; 4000],
            b"\r\n".to_vec(),
            b"250-y\r\n".to_vec(),
        ]
        .concat();
        let mut parser = ReplyParser::new();
        parser.feed(&long.repeat(10));
        parser.feed(b"250 z\r\n");
        assert!(parser.reply.text.capacity() > TEXT_BYTES_KEPT);
        parser.feed(b"250 z\r\n");
        assert!(parser.reply.text.capacity() <= TEXT_BYTES_KEPT);
    }

    #[test]
    fn replies_are_the_same_wherever_the_bytes_are_cut() {
        let bytes =
            b"220 mx.test\r\n250-mx.test\r\n250-SIZE 1\r\n250 8BITMIME\r\n452 4.5.3 many\r\n";
        let whole = parse_all(bytes, &[]);
        assert_eq!(whole.0.len(), 3);
        for cut in 1..bytes.len() {
            assert_eq!(parse_all(bytes, &[cut]), whole);
        }
        assert_eq!(parse_all(bytes, &vec![1; bytes.len()]), whole);
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_and_never_panic(
            bytes in prop::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'), Just(b'-'), Just(b' '),
                Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(1usize..20, 0..40),
        ) {
            let (replies, progress) = parse_all(&bytes, &cuts);
            prop_assert_eq!((&replies, progress), (&parse_all(&bytes, &[]).0, parse_all(&bytes, &[]).1));
            for reply in replies {
                prop_assert!((200..=599).contains(&reply.code));
                let _ = reply.text();
            }
        }

        #[test]
        fn what_a_server_means_is_what_is_read(
            code in 200u16..600,
            lines in prop::collection::vec("[ -~]{0,60}", 1..6),
            cuts in prop::collection::vec(1usize..9, 0..60),
        ) {
            let mut bytes = Vec::new();
            for (i, line) in lines.iter().enumerate() {
                let mark = if i + 1 == lines.len() { ' ' } else { '-' };
                bytes.extend_from_slice(format!("{code}{mark}{line}\r\n").as_bytes());
            }
            let (replies, progress) = parse_all(&bytes, &cuts);
            prop_assert_eq!(progress, Progress::Complete);
            prop_assert_eq!(replies.len(), 1);
            prop_assert_eq!(replies[0].code, code);
            let read: Vec<Vec<u8>> = replies[0].lines().map(<[u8]>::to_vec).collect();
            let meant: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(read, meant);
        }
    }
}
