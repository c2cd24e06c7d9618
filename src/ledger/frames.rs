//! The journal's frames, read: whole ones found between whatever a crash or a damaged disk left, and what they say.
//!
//! INVARIANTS: no bytes make it panic; a frame whose checksum is wrong, or whose payload makes no sense, is passed over, and
//! reading goes on with the next mark behind the one that failed, so damage costs no whole frame. Nothing is copied but the list of
//! a run's queues.

use std::net::{IpAddr, Ipv6Addr};

use super::record::{
    ATTEMPT, AttemptRecord, HEAD_LEN, INTENT, LEFT, MARK, NAME, PAYLOAD_MAX, RUN, Recipients,
    Record, SCOPES, STAGES, VERSION, ViaRecord, checksum,
};
use crate::mail::{Enhanced, Passage, QueueId, RecipientNo, Status};

/// Walks over the whole frames of a journal.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    skipped: u64,
}

impl<'a> Frames<'a> {
    /// All frames in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Frames<'a> {
        Frames {
            bytes,
            at: 0,
            skipped: 0,
        }
    }

    /// Bytes passed over so far because no frame that makes sense was in them. A torn frame at the end counts.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn next_mark(&mut self) -> Option<()> {
        let from = self.at;
        let found = memchr::memmem::find(&self.bytes[from..], &MARK);
        self.at = found.map_or(self.bytes.len(), |more| from + more);
        self.skipped += (self.at - from) as u64;
        found.map(|_| ())
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (usize, Record<'a>);

    fn next(&mut self) -> Option<(usize, Record<'a>)> {
        loop {
            if !self.bytes[self.at..].starts_with(&MARK) {
                self.next_mark()?;
            }
            let start = self.at;
            if let Some((record, length)) = read_frame(&self.bytes[start..]) {
                self.at += length;
                return Some((start, record));
            }
            self.at += 1;
            self.skipped += 1;
        }
    }
}

/// How long the frame is that begins with `head`.
pub fn frame_len(head: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(head.get(4..8)?.try_into().ok()?) as usize;
    (head[..2] == MARK && length <= PAYLOAD_MAX).then_some(HEAD_LEN + length)
}

/// The record at the start of `bytes` and the length of its frame, if there is a whole one.
pub fn read_frame(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD_LEN)?;
    let length = frame_len(head)?;
    if head[3] != VERSION {
        return None;
    }
    let payload = rest.get(..length - HEAD_LEN)?;
    let sum = u64::from_le_bytes(head[8..].try_into().ok()?);
    if checksum(&head[2..8], payload) != sum {
        return None;
    }
    Some((decode(head[2], payload)?, length))
}

fn decode(kind: u8, payload: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(payload);
    match kind {
        RUN => {
            let number = reader.u32()?;
            let started_at = reader.i64()?;
            let mut queues = Vec::new();
            while !reader.0.is_empty() {
                queues.push(reader.text()?);
            }
            Some(Record::Run {
                number,
                started_at,
                queues,
            })
        }
        INTENT => Some(Record::Intent {
            at: reader.i64()?,
            via: reader.via()?,
            recipients: reader.recipients()?,
        }),
        NAME => {
            let (queue, name) = (QueueId(reader.u16()?), reader.text()?);
            let is_whole = reader.0.is_empty();
            is_whole.then_some(Record::Name { queue, name })
        }
        ATTEMPT => reader.attempt().map(Record::Attempt),
        LEFT => Some(Record::Left {
            at: reader.i64()?,
            status: reader.one_of(&Status::ALL)?,
            recipients: reader.recipients()?,
        }),
        _ => None,
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let at = self.u8()?;
        all.get(usize::from(at)).copied()
    }

    fn recipients(&mut self) -> Option<Recipients<'a>> {
        let (numbers, rest) = self.0.as_chunks::<4>();
        rest.is_empty().then_some(Recipients(numbers))
    }

    fn via(&mut self) -> Option<ViaRecord<'a>> {
        let all = self.0;
        let queue = QueueId(self.u16()?);
        let ip = match self.u8()? {
            0 => None,
            4 => Some(IpAddr::from(self.array::<4>()?)),
            6 => Some(IpAddr::V6(Ipv6Addr::from(self.array::<16>()?))),
            _ => return None,
        };
        let (mx, tls) = (self.text()?, self.text()?);
        let bytes = &all[..all.len() - self.0.len()];
        Some(ViaRecord {
            queue,
            ip,
            mx,
            tls,
            bytes,
        })
    }

    fn attempt(&mut self) -> Option<AttemptRecord<'a>> {
        let recipient = RecipientNo(self.u32()?);
        let (at, took_ms) = (self.i64()?, self.u32()?);
        let passage = Passage {
            attempts: self.u8()?,
            host_failures: self.u8()?,
            in_doubt: self.one_of(&[false, true])?,
        };
        let status = self.one_of(&Status::ALL)?;
        let (scope, stage) = (self.one_of(&SCOPES)?, self.one_of(&STAGES)?);
        let is_enhanced = self.one_of(&[false, true])?;
        let class = self.u8()?;
        let code = self.u16()?;
        let enhanced = Enhanced::new(class, self.u16()?, self.u16()?);
        let record = AttemptRecord {
            recipient,
            at,
            took_ms,
            passage,
            status,
            scope,
            stage,
            code,
            enhanced: is_enhanced.then_some(enhanced),
            via: self.via()?,
            text: self.text()?,
        };
        self.0.is_empty().then_some(record)
    }
}
