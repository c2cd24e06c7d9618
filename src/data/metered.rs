//! A reader that fails once a row has taken too many bytes: a quote that never ends would take the whole file into memory.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::ROW_BYTES_MAX;

/// What may still be read.
#[derive(Clone)]
pub(super) struct Allowance(Rc<Cell<usize>>);

impl Allowance {
    pub(super) fn new() -> Allowance {
        Allowance(Rc::new(Cell::new(ROW_BYTES_MAX)))
    }

    /// A row has come to its end.
    pub(super) fn renew(&self) {
        self.0.set(ROW_BYTES_MAX);
    }
}

pub(super) struct Metered<R> {
    pub(super) inner: R,
    pub(super) allowance: Allowance,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.get();
        if left == 0 {
            let what = "a row of more than 16 MiB; is there a quote that does not end?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let room = buffer.len().min(left);
        let len = self.inner.read(&mut buffer[..room])?;
        self.allowance.0.set(left - len);
        Ok(len)
    }
}
