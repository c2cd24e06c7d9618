//! The second pass over an index: the tables are filled with what the first found good.

use super::frame::Parts;
use super::index::{HAS_KEYS, Moved};
use super::record::{MESSAGE_BYTES, MessageRecord, RECIPIENT_BYTES, RecipientRecord};

/// What stands before the records of a flush.
pub(super) struct MessagesHead {
    pub(super) first_message: usize,
    pub(super) first_recipient: usize,
    pub(super) messages: usize,
    pub(super) recipients: usize,
    pub(super) flags: u32,
    pub(super) addresses_end: u64,
    pub(super) addresses_hash: u64,
}

impl MessagesHead {
    pub(super) fn read(parts: &mut Parts<'_>) -> Option<MessagesHead> {
        let mut number = || parts.u32().map(|number| number as usize);
        Some(MessagesHead {
            first_message: number()?,
            first_recipient: number()?,
            messages: number()?,
            recipients: number()?,
            flags: parts.u32()?,
            addresses_end: parts.u64()?,
            addresses_hash: parts.u64()?,
        })
    }

    pub(super) fn keys(&self) -> usize {
        if self.flags & HAS_KEYS != 0 {
            self.recipients
        } else {
            0
        }
    }
}

/// Fills the tables with what the first pass found good.
pub(super) struct SecondPass {
    pub(super) messages: boxcar::Vec<MessageRecord>,
    pub(super) recipients: boxcar::Vec<RecipientRecord>,
    pub(super) keys: Vec<u128>,
    /// The bytes of what was kept.
    pub(super) kept_len: u64,
    /// In the order of messages; of one that was moved twice the last place counts.
    pub(super) moved: std::iter::Peekable<std::vec::IntoIter<Moved>>,
}

impl SecondPass {
    pub(super) fn new(mut moved: Vec<Moved>, kept_len: u64) -> SecondPass {
        moved.sort_by_key(|moved| moved.message); // stable
        SecondPass {
            messages: boxcar::Vec::new(),
            recipients: boxcar::Vec::new(),
            keys: Vec::new(),
            kept_len,
            moved: moved.into_iter().peekable(),
        }
    }

    pub(super) fn take(&mut self, payload: &[u8]) -> Option<()> {
        let mut parts = Parts(payload);
        let head = MessagesHead::read(&mut parts)?;
        let messages = parts.bytes(head.messages * MESSAGE_BYTES)?;
        // Recipients enter before their messages, as always.
        for bytes in parts
            .bytes(head.recipients * RECIPIENT_BYTES)?
            .as_chunks()
            .0
        {
            self.recipients.push(RecipientRecord::from_bytes(bytes));
        }
        for bytes in messages.as_chunks().0 {
            let mut record = MessageRecord::from_bytes(bytes);
            let number = self.messages.count() as u32;
            while let Some(moved) = self.moved.next_if(|moved| moved.message == number) {
                // Where the copy is cut off, the batch file may still be right.
                if moved.offset.saturating_add(u64::from(record.length())) <= self.kept_len {
                    record = record.moved(moved.source, moved.offset);
                }
            }
            self.messages.push(record);
        }
        let keys = parts.bytes(head.keys() * size_of::<u128>())?;
        let keys = keys.as_chunks().0.iter();
        self.keys
            .extend(keys.map(|bytes| u128::from_le_bytes(*bytes)));
        Some(())
    }
}
