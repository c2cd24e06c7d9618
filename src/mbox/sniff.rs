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
    /// UTF-8 with a byte order mark.
    ByteOrderMark,
    /// Neither header nor From_ line at this offset.
    Junk(usize),
}

/// U+FEFF at the beginning of a UTF-8 text, where some editors put it.
pub const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

const MAGIC: [(&[u8], FileKind); 9] = [
    (b"\x1f\x8b", FileKind::Compressed("gzip", "zcat")),
    (b"\x28\xb5\x2f\xfd", FileKind::Compressed("zstd", "zstdcat")),
    (b"BZh", FileKind::Compressed("bzip2", "bzcat")),
    (b"\xfd7zXZ\0", FileKind::Compressed("xz", "xzcat")),
    (b"PK\x03\x04", FileKind::Compressed("zip", "unzip -p")),
    (b"\x04\x22\x4d\x18", FileKind::Compressed("lz4", "lz4cat")),
    (UTF8_MARK, FileKind::ByteOrderMark),
    (b"\xff\xfe", FileKind::Utf16),
    (b"\xfe\xff", FileKind::Utf16),
];

/// What a file is that begins with `head`.
pub fn kind(head: &[u8]) -> FileKind {
    for (magic, kind) in MAGIC {
        // "BZh" could begin a field's name; a field has a colon.
        if head.starts_with(magic) && split_name(head).is_none() {
            return kind;
        }
    }
    let mut start = 0;
    while line_end_len(&head[start..]) > 0 {
        start += line_end_len(&head[start..]);
    }
    let text = &head[start..];
    if text.is_empty() {
        FileKind::Empty
    } else if text.starts_with(FROM) {
        FileKind::Mbox
    } else if split_name(text).is_some() {
        FileKind::Message
    } else {
        FileKind::Junk(start)
    }
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
            (b"\xef\xbb\xbfFrom a", FileKind::ByteOrderMark),
            (b"\xff\xfeF\0r\0o\0m\0", FileKind::Utf16),
            (b"\nhello world\n", FileKind::Junk(1)),
            (b"\x7fELF\x02", FileKind::Junk(0)),
            (b"\0\0\0", FileKind::Junk(0)),
        ] {
            assert_eq!(kind(head), want, "{head:?}");
        }
    }
}
