//! Why a batch cannot be read at all; what is wrong with a single message is a [`Problem`](super::Problem) instead.

use crate::mail::verdict::printable;
use std::fmt;
use std::io;
use std::path::Path;

/// The classes of exit status (sysexits.h) that a batch can end a run with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BatchErrorKind {
    /// There is no such input, or it may not be read (66).
    NoInput,
    /// The input is not what it should be (65).
    DataErr,
    /// Reading or spooling failed on the way (74).
    IoErr,
}

/// A batch that cannot be read: one line that names the input, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchError {
    kind: BatchErrorKind,
    text: String,
    hint: Option<String>,
}

impl BatchError {
    pub(super) fn new(kind: BatchErrorKind, name: &str, what: &str) -> BatchError {
        BatchError {
            kind,
            text: format!("{}: {what}", printable(name, 4096)),
            hint: None,
        }
    }

    pub(super) fn data(name: &str, what: &str) -> BatchError {
        BatchError::new(BatchErrorKind::DataErr, name, what)
    }

    /// A named file cannot be opened.
    pub fn open(path: &Path, error: &io::Error) -> BatchError {
        let kind = BatchErrorKind::NoInput;
        BatchError::new(
            kind,
            &path.to_string_lossy(),
            &format!("cannot open: {error}"),
        )
    }

    pub(super) fn read(name: &str, error: &io::Error) -> BatchError {
        BatchError::new(
            BatchErrorKind::IoErr,
            name,
            &format!("cannot read: {error}"),
        )
    }

    pub(super) fn spool(dir: &Path, error: &io::Error) -> BatchError {
        let name = dir.to_string_lossy();
        BatchError::new(
            BatchErrorKind::IoErr,
            &name,
            &format!("cannot write the spool: {error}"),
        )
    }

    /// Adds how far the batch was read before: what was read is delivered all the same.
    pub(super) fn after(mut self, name: &str, messages: usize, offset: u64) -> BatchError {
        let name = printable(name, 4096);
        self.text.push_str(&format!(
            "; {messages} messages were read before, {name} up to byte {offset}"
        ));
        self
    }

    /// Adds what becomes of a batch that cannot be read again to its end: what was read of it is delivered all the same.
    pub(super) fn rest_is_lost(mut self) -> BatchError {
        self.text
            .push_str("; what had not been read of the batch is not part of this job");
        self
    }

    /// The same of one that can be put back.
    pub(super) fn rest_waits(self) -> BatchError {
        let hint = "once it is what it was, `mailer resume` reads it on; `mailer cancel` gives the rest up";
        self.rest_is_lost().hint_is(hint)
    }

    pub(super) fn hint_is(mut self, hint: impl Into<String>) -> BatchError {
        self.hint = Some(hint.into());
        self
    }

    /// Which exit status it calls for.
    pub fn kind(&self) -> BatchErrorKind {
        self.kind
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for BatchError {}

/// What to do about a compressed input: a command that can be typed as it stands. `name`: its file, unless it is a stream;
/// `command`: what the user wanted `mailer` to do.
pub(super) fn unpack_hint(unpack: &str, name: Option<&str>, command: &str) -> String {
    match name {
        Some(name) => {
            let file = shell_word(name).unwrap_or_else(|| "FILE".to_owned());
            format!("decompress it first, for instance: {unpack} {file} | mailer {command} -")
        }
        // An archive cannot be read from a pipe.
        None if unpack.contains(' ') => "unpack it into a file first".to_owned(),
        None => format!("decompress it on its way: ... | {unpack} | mailer {command} -"),
    }
}

/// `name` as a word of a shell's command line; `None` if it cannot be shown as it is.
fn shell_word(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./+,:@%=-".contains(c);
    if printable(name, name.len()) != name || name.contains(char::REPLACEMENT_CHARACTER) {
        return None;
    }
    // Or it would be taken for an option.
    let here = if name.starts_with('-') { "./" } else { "" };
    Some(if !name.is_empty() && name.chars().all(is_plain) {
        format!("{here}{name}")
    } else {
        format!("'{here}{}'", name.replace('\'', "'\\''"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_can_be_typed_as_it_stands() {
        for (unpack, name, command) in [
            (
                "zcat",
                Some("/a/b-c.gz"),
                "zcat /a/b-c.gz | mailer inspect -",
            ),
            ("zcat", Some("a b.gz"), "zcat 'a b.gz' | mailer inspect -"),
            (
                "zcat",
                Some("it's;$x.gz"),
                "zcat 'it'\\''s;$x.gz' | mailer inspect -",
            ),
            ("xzcat", Some("-a.xz"), "xzcat ./-a.xz | mailer inspect -"),
            ("zcat", Some("a\u{1b}b"), "zcat FILE | mailer inspect -"),
            ("zcat", Some("a\u{fffd}b"), "zcat FILE | mailer inspect -"),
            ("zcat", None, "... | zcat | mailer inspect -"),
            ("unzip -p", None, "unpack it into a file first"),
            (
                "unzip -p",
                Some("a.zip"),
                "unzip -p a.zip | mailer inspect -",
            ),
        ] {
            let hint = unpack_hint(unpack, name, "inspect");
            assert!(hint.ends_with(command), "{hint}");
        }
    }
}
