//! What a file is, by its first bytes: an mbox, a single message, or something that nobody should send.

use super::field::split_name;
use super::from_line::FROM;
use super::line_end_len;

/// How many bytes of a file [`kind`] wants to see, if there are as many.
pub const SNIFF_BYTES: usize = 8 * 1024;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// Nothing, or empty lines only.
    Empty,
    /// It begins with a From_ line.
    Mbox,
    /// It begins with a header field.
    Message,
    /// Compressed: by what, and the command that unpacks it to its standard output.
    Compressed(&'static str, &'static str),
    /// UTF-16, as its byte order mark says.
    Utf16,
    /// Lines that end in CR alone.
    BareCr,
    /// Neither header nor From_ line at this offset.
    Junk(usize),
}

/// U+FEFF at the beginning of a UTF-8 text, where some editors put it.
pub const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

const MAGIC: [(&[u8], FileKind); 8] = [
    (b"\x1f\x8b", FileKind::Compressed("gzip", "zcat")),
    (b"\x28\xb5\x2f\xfd", FileKind::Compressed("zstd", "zstdcat")),
    (b"BZh", FileKind::Compressed("bzip2", "bzcat")),
    (b"\xfd7zXZ\0", FileKind::Compressed("xz", "xzcat")),
    (b"PK\x03\x04", FileKind::Compressed("zip", "unzip -p")),
    (b"\x04\x22\x4d\x18", FileKind::Compressed("lz4", "lz4cat")),
    (b"\xff\xfe", FileKind::Utf16),
    (b"\xfe\xff", FileKind::Utf16),
];

/// What a file is that begins with `head`. A byte order mark of UTF-8 is passed over.
pub fn kind(head: &[u8]) -> FileKind {
    for (magic, kind) in MAGIC {
        // "BZh" could begin a field's name; a field has a colon.
        if head.starts_with(magic) && split_name(head).is_none() {
            return kind;
        }
    }
    let mut start = utf8_mark_len(head);
    while line_end_len(&head[start..]) > 0 {
        start += line_end_len(&head[start..]);
    }
    let text = &head[start..];
    if text.is_empty() {
        FileKind::Empty
    } else if is_bare_cr(text) {
        FileKind::BareCr
    } else if text.starts_with(FROM) {
        FileKind::Mbox
    } else if split_name(text).is_some() {
        FileKind::Message
    } else {
        FileKind::Junk(start)
    }
}

/// The length of the byte order mark at the beginning of `head`: 0 if there is none.
pub fn utf8_mark_len(head: &[u8]) -> usize {
    if head.starts_with(UTF8_MARK) {
        UTF8_MARK.len()
    } else {
        0
    }
}

/// True if `text` is made of lines, and CR ends them. The last byte does not count: its LF may be cut off.
fn is_bare_cr(text: &[u8]) -> bool {
    let within = &text[..text.len() - 1];
    memchr::memchr(b'\r', within).is_some()
        && memchr::memchr2(b'\n', 0, text).is_none()
        && std::str::from_utf8(text).map_or_else(|error| error.error_len().is_none(), |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        for (head, want) in [
            (&b""[..], FileKind::Empty),
            (b"\r\n\n", FileKind::Empty),
            (b"From a", FileKind::Mbox),
            (b"\n\nFrom a", FileKind::Mbox),
            (b"Subject: a", FileKind::Message),
            (b"BZh9: a", FileKind::Message),
            (b"BZh91AY&SY", FileKind::Compressed("bzip2", "bzcat")),
            (b"\x1f\x8b\x08\x00", FileKind::Compressed("gzip", "zcat")),
            (b"PK\x03\x04\x14", FileKind::Compressed("zip", "unzip -p")),
            (b"\xef\xbb\xbfFrom a", FileKind::Mbox),
            (b"\xef\xbb\xbfTo: a", FileKind::Message),
            (b"\xef\xbb\xbf\n", FileKind::Empty),
            (b"\xef\xbb\xbf\nhello\n", FileKind::Junk(4)),
            (b"From a\rTo: b\r\rhi\r", FileKind::BareCr),
            (b"To: a\rTo: b", FileKind::BareCr),
            (b"\r\r", FileKind::BareCr),
            (b"To: a\r", FileKind::Message),
            (b"\xff\xfeF\0r\0o\0m\0", FileKind::Utf16),
            (b"\nhello world\n", FileKind::Junk(1)),
            (b"\x7fELF\x02", FileKind::Junk(0)),
            (b"\0\0\0", FileKind::Junk(0)),
        ] {
            assert_eq!(kind(head), want, "{head:?}");
        }
    }
}
