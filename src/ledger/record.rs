//! The journal's records and their form: frames that can be told apart from whatever lies between them.
//!
//! A frame: the mark FF FE, its kind, the version of its form, the length of its payload (32 bits), a checksum (xxh3, 64
//! bits) over kind, version, length and payload, and the payload. Numbers are little-endian. Several threads append to a
//! journal and a process can die at any byte, so a torn frame may lie before whole ones: the reader (see `frames`)
//! passes over damage, byte by byte, to the next whole frame. The mark never occurs in UTF-8, so no text of a server can forge
//! a frame.
//!
//! Encoding appends to a buffer that its owner reuses; decoding borrows. INVARIANTS: no bytes make decoding panic; a frame
//! with a right checksum and a payload that makes no sense is passed over like a damaged one; no payload is longer than
//! [`PAYLOAD_MAX`], so that a damaged length cannot make a reader hash the whole file again and again.

use std::net::IpAddr;
use std::sync::Arc;

use super::outcome::{Attempt, Via};
use crate::mail::{Enhanced, Passage, QueueId, RecipientNo, Scope, Stage, Status, Verdict};

pub(super) const MARK: [u8; 2] = [0xff, 0xfe];
pub(super) const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEAD_LEN: usize = 16;
/// The longest payload that is written, and believed.
pub const PAYLOAD_MAX: usize = 64 * 1024;
/// Recipients in one frame at most.
const RECIPIENTS_MAX: usize = 8 * 1024;
/// Bytes of the names of all queues, with two more for each: thousands of queues.
const QUEUE_NAMES_MAX: usize = PAYLOAD_MAX - 12;
/// Bytes of each other string in a record that are kept.
const STRING_MAX: usize = 1024;

pub(super) const RUN: u8 = 0;
pub(super) const INTENT: u8 = 1;
pub(super) const ATTEMPT: u8 = 2;
pub(super) const LEFT: u8 = 3;
pub(super) const NAME: u8 = 4;

/// By their numbers in files that are on disk: what is new comes last, whatever the order elsewhere.
pub(super) const SCOPES: [Scope; 7] = [
    Scope::Local,
    Scope::Domain,
    Scope::Host,
    Scope::Session,
    Scope::Rate,
    Scope::Message,
    Scope::Recipient,
];

/// The same of stages. Not [`Stage::ALL`], whose order is free to change.
pub(super) const STAGES: [Stage; 14] = [
    Stage::Batch,
    Stage::Dns,
    Stage::Connect,
    Stage::Greeting,
    Stage::Ehlo,
    Stage::StartTls,
    Stage::Auth,
    Stage::Mail,
    Stage::Rcpt,
    Stage::Data,
    Stage::Body,
    Stage::Dot,
    Stage::Rset,
    Stage::Quit,
];

/// The scope of this name.
pub fn scope_named(name: &str) -> Option<Scope> {
    SCOPES.into_iter().find(|scope| scope.name() == name)
}

/// The stage of this name.
pub fn stage_named(name: &str) -> Option<Stage> {
    STAGES.into_iter().find(|stage| stage.name() == name)
}

/// One record, as it lies in a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// A run begins, or goes on in another segment.
    Run {
        /// Counts the runs of the job, from 1.
        number: u32,
        /// When it began: milliseconds since 1970.
        started_at: i64,
        /// The names of its queues, by their ids.
        queues: Vec<&'a str>,
    },
    /// The last byte of a message may leave for these recipients from now on.
    Intent {
        /// When.
        at: i64,
        /// On which way.
        via: ViaRecord<'a>,
        /// For whom.
        recipients: Recipients<'a>,
    },
    /// What became of one recipient in an attempt.
    Attempt(AttemptRecord<'a>),
    /// A queue is called otherwise from here on: it has been given to another site.
    Name {
        /// Which queue.
        queue: QueueId,
        /// Its name.
        name: &'a str,
    },
    /// The state of recipients changed without an attempt.
    Left {
        /// When.
        at: i64,
        /// How they stand now.
        status: Status,
        /// Who.
        recipients: Recipients<'a>,
    },
}

/// An attempt, borrowed from a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(
    missing_docs,
    reason = "the fields are those of `Attempt` and `Verdict`"
)]
pub struct AttemptRecord<'a> {
    pub recipient: RecipientNo,
    pub at: i64,
    pub took_ms: u32,
    pub passage: Passage,
    pub status: Status,
    pub scope: Scope,
    pub stage: Stage,
    pub code: u16,
    pub enhanced: Option<Enhanced>,
    pub via: ViaRecord<'a>,
    pub text: &'a str,
}

/// A way, borrowed from a journal. The queue's number is that of the run that wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields are those of `Via`")]
pub struct ViaRecord<'a> {
    pub queue: QueueId,
    pub ip: Option<IpAddr>,
    pub mx: &'a str,
    pub tls: &'a str,
    /// All of it as it is written: equal ways of one run have equal bytes.
    pub bytes: &'a [u8],
}

/// Numbers of recipients, borrowed from a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recipients<'a>(pub(super) &'a [[u8; 4]]);

impl<'a> Recipients<'a> {
    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = RecipientNo> + 'a {
        self.0
            .iter()
            .map(|bytes| RecipientNo(u32::from_le_bytes(*bytes)))
    }
}

impl AttemptRecord<'_> {
    /// An owned attempt; `queue` is what the queue is called now.
    pub fn to_attempt(self, queue: QueueId) -> Attempt {
        Attempt {
            recipient: self.recipient,
            verdict: Verdict {
                status: self.status,
                scope: self.scope,
                stage: self.stage,
                code: self.code,
                enhanced: self.enhanced,
                text: self.text.to_owned(),
            },
            via: self.via.to_via(queue),
            passage: self.passage,
            at: self.at,
            took_ms: self.took_ms,
        }
    }
}

impl ViaRecord<'_> {
    /// An owned way; `queue` is what the queue is called now.
    pub fn to_via(self, queue: QueueId) -> Via {
        Via {
            queue,
            mx: Arc::from(self.mx),
            ip: self.ip,
            tls: Arc::from(self.tls),
        }
    }
}

/// Appends a frame whose payload `fill` writes.
fn frame(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[kind, VERSION]);
    out.extend_from_slice(&[0; HEAD_LEN - 4]);
    fill(out);
    let length = (out.len() - start - HEAD_LEN) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let (head, payload) = out[start..].split_at_mut(HEAD_LEN);
    let sum = checksum(&head[2..8], payload);
    head[8..].copy_from_slice(&sum.to_le_bytes());
}

/// Of kind, version and length, and of the payload. The first six bytes are the seed: one pass, no copy.
pub(super) fn checksum(head: &[u8], payload: &[u8]) -> u64 {
    let mut seed = [0; 8];
    for (to, from) in seed.iter_mut().zip(head) {
        *to = *from;
    }
    xxhash_rust::xxh3::xxh3_64_with_seed(payload, u64::from_le_bytes(seed))
}

/// Appends the record that a run begins. Names of queues are kept as they are, as long as [`are_kept`] says so; of more than
/// that the last ones are not.
pub fn put_run(out: &mut Vec<u8>, number: u32, started_at: i64, queues: &[String]) {
    frame(out, RUN, |out| {
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&started_at.to_le_bytes());
        let mut room = QUEUE_NAMES_MAX;
        for name in queues {
            match room.checked_sub(name.len() + 2) {
                Some(rest) => room = rest,
                None => break,
            }
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
    });
}

/// Appends that `queue` is called `name` from here on, in this segment.
pub fn put_name(out: &mut Vec<u8>, queue: QueueId, name: &str) {
    frame(out, NAME, |out| {
        out.extend_from_slice(&queue.0.to_le_bytes());
        put_text(out, name);
    });
}

/// True if the record of a run has room for all these names of queues.
pub fn are_kept<'a>(queues: impl Iterator<Item = &'a str>) -> bool {
    queues.map(|name| name.len() + 2).sum::<usize>() <= QUEUE_NAMES_MAX
}

/// Appends that the last byte of a message may leave for `recipients`.
pub fn put_intent(
    out: &mut Vec<u8>,
    at: i64,
    via: &Via,
    mut recipients: impl ExactSizeIterator<Item = RecipientNo>,
) {
    while recipients.len() > 0 {
        frame(out, INTENT, |out| {
            out.extend_from_slice(&at.to_le_bytes());
            put_via(out, via);
            put_recipients(out, recipients.by_ref().take(RECIPIENTS_MAX));
        });
    }
}

/// Appends an attempt.
pub fn put_attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    let verdict = &attempt.verdict;
    let enhanced = verdict.enhanced.unwrap_or(Enhanced::new(0, 0, 0));
    frame(out, ATTEMPT, |out| {
        out.extend_from_slice(&attempt.recipient.0.to_le_bytes());
        out.extend_from_slice(&attempt.at.to_le_bytes());
        out.extend_from_slice(&attempt.took_ms.to_le_bytes());
        out.extend_from_slice(&[
            attempt.passage.attempts,
            attempt.passage.host_failures,
            u8::from(attempt.passage.in_doubt),
            place(&Status::ALL, verdict.status),
            place(&SCOPES, verdict.scope),
            place(&STAGES, verdict.stage),
            u8::from(verdict.enhanced.is_some()),
            enhanced.class,
        ]);
        for word in [verdict.code, enhanced.subject, enhanced.detail] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        put_via(out, &attempt.via);
        put_text(out, &verdict.text);
    });
}

/// Appends that `recipients` stand at `status` from now on.
pub fn put_left(out: &mut Vec<u8>, at: i64, status: Status, recipients: &[RecipientNo]) {
    for some in recipients.chunks(RECIPIENTS_MAX) {
        frame(out, LEFT, |out| {
            out.extend_from_slice(&at.to_le_bytes());
            out.push(place(&Status::ALL, status));
            put_recipients(out, some.iter().copied());
        });
    }
}

fn put_recipients(out: &mut Vec<u8>, recipients: impl Iterator<Item = RecipientNo>) {
    for recipient in recipients {
        out.extend_from_slice(&recipient.0.to_le_bytes());
    }
}

fn put_via(out: &mut Vec<u8>, via: &Via) {
    out.extend_from_slice(&via.queue.0.to_le_bytes());
    match via.ip {
        None => out.push(0),
        Some(IpAddr::V4(v4)) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        Some(IpAddr::V6(v6)) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
    put_text(out, &via.mx);
    put_text(out, &via.tls);
}

/// A string with its length before it: all of it, or as many whole characters as fit.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut kept = text.len().min(STRING_MAX);
    while !text.is_char_boundary(kept) {
        kept -= 1;
    }
    out.extend_from_slice(&(kept as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..kept]);
}

fn place<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter()
        .position(|each| *each == one)
        .map_or(u8::MAX, |at| at as u8)
}
