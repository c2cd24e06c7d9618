//! The unread bytes of a stream: a buffer of fixed size that is filled at the end and consumed at the beginning.

use crate::mbox::splitter::WINDOW_BYTES_MIN;
use std::io;

const BUFFER_BYTES: usize = 256 * 1024;

/// A window onto a stream, with its place in it.
#[derive(Debug)]
pub(super) struct Window {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    at_eof: bool,
    offset: u64,
    line: u64,
}

impl Window {
    pub(super) fn new() -> Window {
        Window {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            at_eof: false,
            offset: 0,
            line: 1,
        }
    }

    /// Forgets everything: a new stream begins.
    pub(super) fn restart(&mut self) {
        self.start = 0;
        self.end = 0;
        self.at_eof = false;
        self.offset = 0;
        self.line = 1;
    }

    /// The unread bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// True once the stream ends with these bytes.
    pub(super) fn is_at_eof(&self) -> bool {
        self.at_eof
    }

    /// Where in the stream the unread bytes begin.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The line they begin in, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Drops the first `len` bytes.
    pub(super) fn consume(&mut self, len: usize) {
        self.line += newlines(&self.bytes()[..len]);
        self.start += len;
        self.offset += len as u64;
    }

    /// Reads once. Must not be asked for more than [`WINDOW_BYTES_MIN`] unread bytes.
    pub(super) fn fill(
        &mut self,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if self.buffer.len() - self.end < WINDOW_BYTES_MIN {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let position = self.offset + (self.end - self.start) as u64;
        let len = loop {
            match read(position, &mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.end += len;
        self.at_eof = len == 0;
        Ok(())
    }
}

/// How many lines end in `bytes`.
pub(super) fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

const _: () = assert!(BUFFER_BYTES >= 3 * WINDOW_BYTES_MIN);
