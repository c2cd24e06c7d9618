//! An envelope: one recipient of one message, on its way.
//!
//! A message with several recipients is cloned by the router: one run of envelopes per destination, each of which refers
//! to the message's content by number, so that content is stored once (in the batch itself). Envelopes of one message that
//! stand next to each other in a destination's waiting list travel in one transaction.
//!
//! INVARIANT: at any moment an envelope is in exactly one place: the router's hand, a waiting list, a delayed heap, a
//! worker's hands, or settled. The simulation of the dispatcher checks it after every event.

use super::id::{MessageNo, RecipientNo, WorkerId};

/// One recipient of one message: a reference, 16 bytes, never content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The message whose content is to be sent.
    pub message: MessageNo,
    /// The recipient it is for.
    pub recipient: RecipientNo,
    /// The worker that made the last attempt: another one is preferred for the next. `None` before the first.
    pub last_worker: Option<LastWorker>,
    /// How far it has come in its attempts.
    pub passage: Passage,
}

/// A worker number squeezed so that `Option<LastWorker>` takes four bytes.
pub type LastWorker = std::num::NonZeroU32;

/// What an envelope has been through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passage {
    /// Attempts that count against the recipient (a reply was about this mail or this recipient). Saturates.
    pub attempts: u8,
    /// Attempts that failed before the recipient was named (connect, greeting, lost connection). Saturates.
    pub host_failures: u8,
    /// True once an attempt ended in doubt: the final dot was sent and its reply never came.
    pub in_doubt: bool,
}

impl Envelope {
    /// An envelope that nobody has tried yet.
    pub fn new(message: MessageNo, recipient: RecipientNo) -> Envelope {
        Envelope {
            message,
            recipient,
            last_worker: None,
            passage: Passage::default(),
        }
    }

    /// Remembers who made the latest attempt.
    pub fn tried_by(&mut self, worker: WorkerId) {
        self.last_worker = LastWorker::new(worker.0.wrapping_add(1));
    }

    /// True if `worker` made the latest attempt.
    pub fn was_tried_by(&self, worker: WorkerId) -> bool {
        self.last_worker.is_some() && self.last_worker == LastWorker::new(worker.0.wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_stays_within_sixteen_bytes() {
        assert_eq!(std::mem::size_of::<Envelope>(), 16);
    }

    #[test]
    fn the_last_worker_is_remembered_even_if_it_is_worker_zero() {
        let mut envelope = Envelope::new(MessageNo(0), RecipientNo(0));
        assert!(!envelope.was_tried_by(WorkerId(0)));
        envelope.tried_by(WorkerId(0));
        assert!(envelope.was_tried_by(WorkerId(0)));
        assert!(!envelope.was_tried_by(WorkerId(1)));
    }
}
