//! Messages as they lie in files: mbox separators and quoting, header fields, envelopes, and the bytes that may leave.
//!
//! Everything here works on byte slices that somebody else has read; nothing does I/O. A message passes through twice:
//!
//! 1. At intake, streaming: [`splitter`] finds where messages begin and end, [`scan`] collects the header (bounded), checks the
//!    content ([`check`]) and hashes it; [`envelope`] derives the reverse-path and the recipients from the header.
//! 2. When it is sent: [`canonical`] turns the raw bytes into those that leave, under the same checks.
//!
//! INVARIANT: whatever a file holds, nothing here panics or keeps more than a header of it in memory, and canonical bytes hold no
//! NUL, no CR or LF by itself, and no line of more than 998 octets (RFC 5321 2.3.8, RFC 5322 2.1.1).

pub mod canonical;
pub mod check;
pub mod envelope;
pub mod fault;
pub mod field;
pub mod from_line;
pub mod header;
pub mod scan;
pub mod sniff;
pub mod splitter;

/// How messages are told apart and quoted in an mbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MboxFlavour {
    /// mboxrd: `From ` and `>From ` and `>>From ` at the beginning of a line got one `>` more; reversible.
    #[default]
    Rd,
    /// mboxo: only `From ` got a `>`.
    O,
    /// mboxcl2: nothing is quoted, the Content-Length field says where the message ends.
    Cl2,
}

impl MboxFlavour {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            MboxFlavour::Rd => "mboxrd",
            MboxFlavour::O => "mboxo",
            MboxFlavour::Cl2 => "mboxcl2",
        }
    }

    /// True if the reader of this flavour takes one `>` off `line`.
    pub fn is_quoted(self, line: &[u8]) -> bool {
        match self {
            MboxFlavour::Rd => {
                let quotes = line.iter().take_while(|&&b| b == b'>').count();
                quotes > 0 && line[quotes..].starts_with(b"From ")
            }
            MboxFlavour::O => line.starts_with(b">From "),
            MboxFlavour::Cl2 => false,
        }
    }
}

/// The line end at the beginning of `bytes`: its length, 0 if there is none (or only a CR as yet).
pub(crate) fn line_end_len(bytes: &[u8]) -> usize {
    match bytes {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    }
}

/// `line` without the LF or CRLF at its end.
pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
