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

    pub(super) fn open(path: &Path, error: &io::Error) -> BatchError {
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
