//! What is remembered of each message and each recipient: places and numbers, never content or addresses.
//!
//! The fields are packed into 32-bit words, because the tables add a byte per entry and alignment would make eight of it: a
//! message with one recipient takes 48 bytes of table in all.

/// A message: where its bytes are and how to know them again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageRecord {
    offset: [u32; 2],
    hash: [u32; 2],
    length: u32,
    first_recipient: u32,
    recipients: u32,
    /// The source above, flags in the lowest eight bits.
    source_and_flags: u32,
}

/// The most sources that a record can name.
pub(super) const SOURCES_MAX: usize = 1 << 24;
/// A [`MessageRecord`] in the index.
pub(super) const MESSAGE_BYTES: usize = 32;
/// A [`RecipientRecord`] in the index.
pub(super) const RECIPIENT_BYTES: usize = 8;
const INVALID: u32 = 1;
const TO_FILE: u32 = 2;
const MARKED: u32 = 4;

/// The parts of a [`MessageRecord`].
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageParts {
    pub(super) source: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) hash: u64,
    pub(super) first_recipient: u32,
    pub(super) recipients: u32,
    pub(super) invalid: bool,
    pub(super) to_file: bool,
    pub(super) marked: bool,
}

impl MessageRecord {
    pub(super) fn new(parts: &MessageParts) -> MessageRecord {
        let mut flags = 0;
        if parts.invalid {
            flags |= INVALID;
        }
        if parts.to_file {
            flags |= TO_FILE;
        }
        if parts.marked {
            flags |= MARKED;
        }
        MessageRecord {
            offset: split(parts.offset),
            hash: split(parts.hash),
            // Larger ones are invalid and never read again.
            length: u32::try_from(parts.length).unwrap_or(u32::MAX),
            first_recipient: parts.first_recipient,
            recipients: parts.recipients,
            source_and_flags: parts.source << 8 | flags,
        }
    }

    /// The record as bytes of the index.
    pub(super) fn to_bytes(self) -> [u8; MESSAGE_BYTES] {
        let [o, p] = self.offset;
        let [h, i] = self.hash;
        let words = [
            o,
            p,
            h,
            i,
            self.length,
            self.first_recipient,
            self.recipients,
            self.source_and_flags,
        ];
        let mut bytes = [0; MESSAGE_BYTES];
        for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record that gave these bytes.
    pub(super) fn from_bytes(bytes: &[u8; MESSAGE_BYTES]) -> MessageRecord {
        let word = |n: usize| word(bytes, n);
        MessageRecord {
            offset: [word(0), word(1)],
            hash: [word(2), word(3)],
            length: word(4),
            first_recipient: word(5),
            recipients: word(6),
            source_and_flags: word(7),
        }
    }

    /// The same message, but for its place: in a spool, at an offset.
    pub(super) fn moved(self, source: u32, offset: u64) -> MessageRecord {
        MessageRecord {
            offset: split(offset),
            source_and_flags: source << 8 | (self.source_and_flags & 0xff & !MARKED),
            ..self
        }
    }

    pub(super) fn source(&self) -> usize {
        (self.source_and_flags >> 8) as usize
    }

    /// Where it begins in its file; for a message of a Maildir the number of its file.
    pub(super) fn offset(&self) -> u64 {
        join(self.offset)
    }

    pub(super) fn hash(&self) -> u64 {
        join(self.hash)
    }

    /// Its raw bytes, From_ line included.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The number of its first recipient.
    pub fn first_recipient(&self) -> u32 {
        self.first_recipient
    }

    /// How many recipients it has: at least one, which for a message without any stands for the message itself.
    pub fn recipients(&self) -> u32 {
        self.recipients
    }

    /// True if nothing of it may be sent.
    pub fn is_invalid(&self) -> bool {
        self.source_and_flags & INVALID != 0
    }

    /// True if it is a file of a Maildir with a byte order mark before the message.
    pub(super) fn is_marked(&self) -> bool {
        self.source_and_flags & MARKED != 0
    }

    /// True if its recipients stand in the file of `--to-file`.
    pub fn is_to_file(&self) -> bool {
        self.source_and_flags & TO_FILE != 0
    }
}

/// A recipient: where the text of its address is, in the spool of addresses or in the file of `--to-file`.
///
/// From the highest bit: 48 of the place, 15 of the length, one that tells a mailbox from what only stands in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecipientRecord {
    place: [u32; 2],
}

/// The first place that a record cannot name.
pub(super) const PLACES_MAX: u64 = 1 << 48;
const LENGTHS_MAX: usize = 1 << 15;

impl RecipientRecord {
    /// `at` must be less than [`PLACES_MAX`]; a text of 32 KiB or more is cut.
    pub(super) fn new(at: u64, len: usize, is_mailbox: bool) -> RecipientRecord {
        let len = len.min(LENGTHS_MAX - 1) as u64;
        RecipientRecord {
            place: split(at << 16 | len << 1 | u64::from(is_mailbox)),
        }
    }

    /// The record as bytes of the index.
    pub(super) fn to_bytes(self) -> [u8; RECIPIENT_BYTES] {
        let [high, low] = self.place.map(u32::to_le_bytes);
        let mut bytes = [0; RECIPIENT_BYTES];
        bytes[..4].copy_from_slice(&high);
        bytes[4..].copy_from_slice(&low);
        bytes
    }

    /// The record that gave these bytes.
    pub(super) fn from_bytes(bytes: &[u8; RECIPIENT_BYTES]) -> RecipientRecord {
        RecipientRecord {
            place: [word(bytes, 0), word(bytes, 1)],
        }
    }

    pub(super) fn at(self) -> u64 {
        join(self.place) >> 16
    }

    /// 0 if there is no text.
    pub(super) fn len(self) -> usize {
        (join(self.place) >> 1) as usize % LENGTHS_MAX
    }

    /// True if the text is a mailbox in wire form.
    pub(super) fn is_mailbox(self) -> bool {
        self.place[1] & 1 != 0
    }
}

fn word(bytes: &[u8], n: usize) -> u32 {
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| bytes[4 * n + i]);
    u32::from_le_bytes([a, b, c, d])
}

fn split(number: u64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

fn join([high, low]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_what_went_in() {
        let record = MessageRecord::new(&MessageParts {
            source: (SOURCES_MAX - 1) as u32,
            offset: 0x0123_4567_89ab_cdef,
            length: 77,
            hash: 0xfedc_ba98_7654_3210,
            first_recipient: 5,
            recipients: 6,
            invalid: false,
            to_file: true,
            marked: true,
        });
        assert_eq!(record.source(), SOURCES_MAX - 1);
        assert_eq!(record.offset(), 0x0123_4567_89ab_cdef);
        assert_eq!(record.hash(), 0xfedc_ba98_7654_3210);
        assert!(record.is_to_file() && !record.is_invalid());
        assert_eq!(MessageRecord::from_bytes(&record.to_bytes()), record);
        let moved = record.moved(3, 99);
        assert_eq!((moved.source(), moved.offset()), (3, 99));
        assert_eq!(moved.hash(), record.hash());
        assert!(moved.is_to_file() && !moved.is_marked());
    }

    #[test]
    fn a_recipient_gives_back_what_went_in() {
        for (at, len, is_mailbox) in [
            (0, 0, false),
            (PLACES_MAX - 1, LENGTHS_MAX - 1, false),
            (0x1234_5678_9abc, 254, true),
        ] {
            let record = RecipientRecord::new(at, len, is_mailbox);
            let got = (record.at(), record.len(), record.is_mailbox());
            assert_eq!(got, (at, len, is_mailbox));
            assert_eq!(RecipientRecord::from_bytes(&record.to_bytes()), record);
        }
        assert_eq!(
            RecipientRecord::new(7, 1 << 40, true).len(),
            LENGTHS_MAX - 1
        );
    }

    #[test]
    fn a_message_with_one_recipient_stays_within_56_bytes() {
        // A table entry is the record and a flag, aligned.
        let message = std::mem::size_of::<(MessageRecord, bool)>();
        let recipient = std::mem::size_of::<(RecipientRecord, bool)>();
        assert!(message + recipient <= 56, "{message} + {recipient}");
    }
}
