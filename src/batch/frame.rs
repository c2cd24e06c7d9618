//! The frames of an index: a length, a checksum, a payload, one behind the other in a file that one process writes.
//!
//! A frame is `FE FD`, its kind, its version, the payload's length (u32), the XXH3-64 of all that from the kind on (u64), the
//! payload; numbers are little-endian. [`Frames`] reads them back and stops at the first that is not whole: what a crash tore
//! off, and whatever stands behind it, since the frames of an index build on those before.
//!
//! INVARIANT: a payload that [`Frames`] gives is the one that was written, whatever became of the file. Memory: the largest
//! frame, never more than the file has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 2] = [0xfe, 0xfd];
/// Magic, kind, version, length, checksum.
pub(super) const HEAD_BYTES: usize = 16;
/// The only version there is.
pub(super) const VERSION: u8 = 1;

/// Appends a frame to `out`, with the payload that `fill` appends.
pub(super) fn push_frame(
    out: &mut Vec<u8>,
    kind: u8,
    fill: impl FnOnce(&mut Vec<u8>),
) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[MAGIC[0], MAGIC[1], kind, VERSION]);
    out.extend_from_slice(&[0; HEAD_BYTES - 4]);
    fill(out);
    let len = out.len() - start - HEAD_BYTES;
    let Ok(len) = u32::try_from(len) else {
        out.truncate(start);
        let text = "more messages at once than a frame of the index can hold";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let frame = &mut out[start..];
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    let sum = checksum(&frame[2..8], &frame[HEAD_BYTES..]);
    frame[8..16].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// The payload's own checksum is a part of what the frame's is taken of: the payload need not be copied behind the head.
fn checksum(head: &[u8], payload: &[u8]) -> u64 {
    let mut both = [0; 14];
    both[..6].copy_from_slice(head);
    both[6..].copy_from_slice(&xxh3_64(payload).to_le_bytes());
    xxh3_64(&both)
}

/// A frame that was found whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) payload: &'a [u8],
    /// Where it begins in the file.
    pub(super) at: u64,
}

/// The frames of a file, in order.
pub(super) struct Frames<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    payload: Vec<u8>,
}

impl<'a> Frames<'a> {
    /// Those of the first `end` bytes of `file`.
    pub(super) fn new(file: &'a File, end: u64) -> Frames<'a> {
        Frames {
            file,
            at: 0,
            end,
            payload: Vec::new(),
        }
    }

    /// The next one; `None` at the end, and at what is no whole frame.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        let left = self.end - self.at;
        let mut head = [0; HEAD_BYTES];
        if left < HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head, self.at)?;
        let [_, _, kind, version, a, b, c, d, sum @ ..] = head;
        let len = u32::from_le_bytes([a, b, c, d]);
        if head[..2] != MAGIC || u64::from(len) > left - HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.payload.resize(len as usize, 0);
        let behind = self.at + HEAD_BYTES as u64;
        self.file.read_exact_at(&mut self.payload, behind)?;
        if checksum(&head[2..8], &self.payload) != u64::from_le_bytes(sum) {
            return Ok(None);
        }
        let at = self.at;
        self.at = behind + u64::from(len);
        Ok(Some(Frame {
            kind,
            version,
            payload: &self.payload,
            at,
        }))
    }

    /// Where the frames that were given end.
    pub(super) fn at(&self) -> u64 {
        self.at
    }
}

/// Takes a payload apart. Every method gives `None` once there is not enough left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Parts<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(len as usize)
    }
}

/// Appends a text behind its length.
pub(super) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let mut frames = Frames::new(&file, bytes.len() as u64);
        let mut all = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            all.push((frame.kind, frame.payload.to_vec()));
        }
        all
    }

    #[test]
    fn frames_are_whole_or_not_there() {
        let want: Vec<(u8, Vec<u8>)> = vec![(1, b"one".to_vec()), (2, vec![]), (3, vec![0xfe; 9])];
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for (kind, payload) in &want {
            push_frame(&mut bytes, *kind, |out| out.extend_from_slice(payload)).unwrap();
            ends.push(bytes.len());
        }
        let whole = |len: usize| ends.iter().filter(|&&end| end <= len).count() - 1;
        for len in 0..=bytes.len() {
            assert_eq!(read(&bytes[..len]), want[..whole(len)], "cut at {len}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(read(&flipped), want[..whole(at)], "bit {bit} of {at}");
            }
        }
    }
}
