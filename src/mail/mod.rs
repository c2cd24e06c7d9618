//! The words that every other layer speaks: ids, envelopes, addresses, verdicts.
//!
//! Nothing here does I/O, reads a clock or knows of threads. All of it is small: an envelope is a reference (which
//! message, which recipient), never content, so that a backlog of a million costs megabytes.

pub mod address;
mod address_lexer;
pub mod address_list;
pub mod domain;
pub mod envelope;
pub mod id;
pub mod verdict;

pub use address::{Mailbox, ReversePath};
pub use domain::Domain;
pub use envelope::{Envelope, Passage};
pub use id::{DestinationId, MessageNo, QueueId, RecipientNo, SiteId, SourceNo, WorkerId};
pub use verdict::{Enhanced, Scope, Stage, Status, Verdict};
