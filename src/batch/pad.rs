//! Numbers that stand for nobody any more.
//!
//! After a loss of power a job's journal may name recipients that its index has lost. Who comes next must not get their
//! numbers: he would count as sent to.

use super::record::{MessageParts, MessageRecord, RecipientRecord};
use super::store::BatchStore;
use std::io;

impl BatchStore {
    /// Takes the next `recipients` numbers out of use: they count as one message that cannot be sent. False if there is no
    /// source that it could be in: all of the index is lost then.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn pad(&self, recipients: u32) -> io::Result<bool> {
        if recipients == 0 || self.sources.count() == 0 {
            return Ok(recipients == 0);
        }
        let first_recipient = self.recipients.count() as u32;
        for _ in 0..recipients {
            self.recipients.push(RecipientRecord::new(0, 0, false));
            if let Some(index) = &self.index {
                index.push_key(fastrand::u128(..));
            }
        }
        self.messages.push(MessageRecord::new(&MessageParts {
            source: 0,
            offset: 0,
            length: 0,
            hash: 0,
            first_recipient,
            recipients,
            invalid: true,
            to_file: false,
            marked: false,
        }));
        self.flush().map(|()| true)
    }
}
