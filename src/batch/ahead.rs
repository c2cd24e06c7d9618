//! Reading on in a file: one read serves many that follow it.
//!
//! INVARIANT: what is read ahead is never more than what is final in the file, so that it never grows old.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const AHEAD_BYTES: usize = 64 * 1024;

/// What was read of one file, and where.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    at: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// Forgets everything: another file follows.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// Holds `text` instead, which is not in the file yet.
    pub(super) fn hold(&mut self, text: &[u8]) -> &[u8] {
        self.bytes.clear();
        self.bytes.extend_from_slice(text);
        self.at = u64::MAX;
        &self.bytes
    }

    /// The `len` bytes at `at` of `file`, of which the first `end` bytes are final.
    pub(super) fn read(&mut self, file: &File, at: u64, len: usize, end: u64) -> io::Result<&[u8]> {
        let is_held = at
            .checked_sub(self.at)
            .is_some_and(|start| start.saturating_add(len as u64) <= self.bytes.len() as u64);
        if !is_held {
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            if left < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.bytes.clear();
            self.bytes.resize(left.min(AHEAD_BYTES.max(len)), 0);
            if let Err(error) = file.read_exact_at(&mut self.bytes, at) {
                self.bytes.clear();
                return Err(error);
            }
            self.at = at;
        }
        let start = (at - self.at) as usize;
        Ok(&self.bytes[start..start + len])
    }
}
