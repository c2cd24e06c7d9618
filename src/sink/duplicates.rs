//! Finds messages that reach a recipient twice, the one thing that a bulk sender must never do on its own.
//!
//! A message is known by its Message-ID, else by its content. Only 64-bit hashes are kept: 16 bytes per delivery, and a
//! false alarm is likely only after billions of deliveries.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// So much of the content is searched for the Message-ID field.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// What was delivered to whom, as hashes.
#[derive(Default)]
pub(super) struct Deliveries {
    counts: Mutex<HashMap<u64, u32>>,
}

impl Deliveries {
    /// Notes a delivery to each recipient.
    pub fn note(&self, recipients: &[String], message: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for recipient in recipients {
            let mut hash = Xxh3::new();
            hash.update(&message.to_le_bytes());
            hash.update(recipient.as_bytes());
            *counts.entry(hash.digest()).or_default() += 1;
        }
    }

    /// Deliveries beyond the first of each message to each recipient.
    pub fn duplicates(&self) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.values().map(|&count| u64::from(count) - 1).sum()
    }
}

/// Gathers what names a message while its content passes.
pub(super) struct Fingerprint {
    header: Vec<u8>,
    content: Xxh3,
}

impl Fingerprint {
    pub fn new() -> Fingerprint {
        Fingerprint {
            header: Vec::new(),
            content: Xxh3::new(),
        }
    }

    pub fn update(&mut self, slice: &[u8]) {
        let room = HEADER_BYTES_MAX - self.header.len();
        self.header
            .extend_from_slice(&slice[..slice.len().min(room)]);
        self.content.update(slice);
    }

    /// The message's name as a hash; ready for the next message afterwards.
    pub fn take(&mut self) -> u64 {
        let name = match message_id(&self.header) {
            Some(id) => xxh3_64(id),
            None => self.content.digest(),
        };
        self.reset();
        name
    }

    pub fn reset(&mut self) {
        self.header.clear();
        self.content.reset();
    }
}

/// The value of the Message-ID field, if the header has one.
fn message_id(content: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"message-id:";
    let mut rest = content;
    while !rest.is_empty() && !rest.starts_with(b"\r\n") {
        let end = line_end(rest);
        let (line, after) = rest.split_at(end);
        rest = after;
        if line
            .get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
        {
            let mut value = line[NAME.len()..].trim_ascii();
            // RFC 5322 2.2.3: a long field may begin on its second line.
            if value.is_empty() && after.starts_with(b" ") {
                value = after[..line_end(after)].trim_ascii();
            }
            return (!value.is_empty()).then_some(value);
        }
    }
    None
}

fn line_end(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_id_is_found_in_the_header_only() {
        assert_eq!(
            message_id(b"A: b\r\nMessage-Id: <x@y>\r\n\r\n"),
            Some(&b"<x@y>"[..])
        );
        assert_eq!(
            message_id(b"MESSAGE-ID:\r\n <x@y>\r\nA: b\r\n\r\n"),
            Some(&b"<x@y>"[..])
        );
        assert_eq!(message_id(b"A: b\r\n\r\nMessage-ID: <x@y>\r\n"), None);
        assert_eq!(message_id(b"Message-ID:\r\n"), None);
        assert_eq!(message_id(b""), None);
    }

    #[test]
    fn a_second_delivery_is_a_duplicate_a_second_recipient_is_not() {
        let deliveries = Deliveries::default();
        let name = |content: &[u8]| {
            let mut fingerprint = Fingerprint::new();
            for piece in content.chunks(3) {
                fingerprint.update(piece);
            }
            fingerprint.take()
        };
        let first = name(b"Message-ID: <1>\r\n\r\na\r\n");
        deliveries.note(&["a@a.test".into(), "b@a.test".into()], first);
        deliveries.note(&["a@a.test".into()], name(b"Message-ID: <2>\r\n\r\na\r\n"));
        assert_eq!(deliveries.duplicates(), 0);
        deliveries.note(
            &["a@a.test".into()],
            name(b"X: y\r\nMessage-ID: <1>\r\n\r\nb\r\n"),
        );
        assert_eq!(deliveries.duplicates(), 1);
        let bare = name(b"x\r\n");
        assert!(bare == name(b"x\r\n") && bare != name(b"y\r\n"));
    }
}
