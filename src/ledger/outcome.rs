//! What the ledger keeps of an attempt, and where a recipient stands in the end: the words of this room.
//!
//! Their form in the journal is in `record`, that in the database in `schema`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::mail::{Enhanced, Passage, QueueId, RecipientNo, Scope, Stage, Status, Verdict};

/// One attempt to deliver to one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// For whom.
    pub recipient: RecipientNo,
    /// What became of it.
    pub verdict: Verdict,
    /// On which way.
    pub via: Via,
    /// What the envelope has been through, this attempt included.
    pub passage: Passage,
    /// When it ended: milliseconds since 1970, UTC.
    pub at: i64,
    /// How long it took, from its first command to its verdict, in milliseconds.
    pub took_ms: u32,
}

impl Attempt {
    /// Attempts so far, whatever they failed of, this one included.
    pub fn attempts(&self) -> u16 {
        u16::from(self.passage.attempts) + u16::from(self.passage.host_failures)
    }
}

#[cfg(test)]
impl Attempt {
    /// The first attempt for the first recipient, refused at RCPT: for tests of what is made of attempts.
    pub fn refused(text: &str, via: Via) -> Attempt {
        let enhanced = Some(Enhanced::new(5, 1, 1));
        let (status, scope) = (Status::Refused, Scope::Recipient);
        Attempt {
            recipient: RecipientNo(0),
            verdict: Verdict::new(status, scope, Stage::Rcpt, 550, enhanced, text),
            via,
            passage: Passage {
                attempts: 1,
                ..Passage::default()
            },
            at: 0,
            took_ms: 0,
        }
    }
}

/// The way an attempt took: all that recipients of one transaction share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Via {
    /// The queue that handled it.
    pub queue: QueueId,
    /// The server's name; empty if there was none to talk to.
    pub mx: Arc<str>,
    /// The server's address, if one was connected to.
    pub ip: Option<IpAddr>,
    /// Protocol and cipher, empty on a plain session.
    pub tls: Arc<str>,
}

impl Via {
    /// No way yet: no server has been talked to.
    pub fn none(queue: QueueId) -> Via {
        Via {
            queue,
            mx: "".into(),
            ip: None,
            tls: "".into(),
        }
    }
}

/// Where a recipient stands in the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Its status.
    pub status: Status,
    /// When the first attempt ended: milliseconds since 1970, UTC.
    pub first_at: Option<i64>,
    /// The latest attempt. Its verdict's status is the recipient's, even where that changed after the attempt (expired,
    /// held), unless the ledger of the run in memory knows better.
    pub last: Option<Attempt>,
}

impl Outcome {
    /// Nothing is known: queued.
    pub const QUEUED: Outcome = Outcome {
        status: Status::Queued,
        first_at: None,
        last: None,
    };
}

/// The text of a verdict that a crash left open.
const INTERRUPTED: &str =
    "the run ended before the reply to the final dot was recorded: it may have been delivered";

/// What is known of mail whose last byte may have left in a run that did not live to record the reply.
pub fn interrupted() -> Verdict {
    let (status, scope, stage) = (Status::InDoubt, Scope::Message, Stage::Dot);
    Verdict::own(status, scope, stage, Enhanced::new(4, 4, 2), INTERRUPTED)
}
