//! The batch: files, Maildirs and standard input as messages with envelopes, read once to know them and again to send them.
//!
//! [`BatchReader`] streams over the inputs and hands out one [`Arrival`] per message; what it learns goes into tables of small
//! records ([`BatchStore`]) that workers share. Content stays in the files: a worker [loads](BatchStore::load) a message
//! with `pread`, its hash is checked, and only then the canonical bytes are made. Addresses, and standard input, go to spool files:
//! unlinked ones, or those of a job's directory, where an index makes that the batch survives its process
//! ([`BatchStore::create_in`], [`BatchStore::flush`], [`BatchStore::reopen`], [`BatchStore::keep`]).
//!
//! INVARIANTS: every message of the batch has at least one recipient record, so that it appears in the report; bytes that
//! changed since intake are never sent; memory grows by tens of bytes per message, whatever the messages hold.

mod addresses;
mod again;
mod ahead;
mod content;
mod error;
mod fill;
mod frame;
mod index;
mod inspect;
mod intake;
mod judge;
mod keep;
mod keys;
mod mailbox;
mod maildir;
mod many;
mod options;
mod pad;
mod problem;
mod raw;
mod reader;
mod record;
mod reopen;
mod source;
mod store;
mod to_file;
mod window;

pub use content::{Content, ContentError};
pub use error::{BatchError, BatchErrorKind};
pub use inspect::{Inspected, InspectedRecipient, inspect};
pub use keep::Kept;
pub use mailbox::each_message;
pub use options::ReadOptions;
pub use problem::{Problem, What};
pub use reader::{Arrival, Arrived, BatchReader};
pub use record::{MessageRecord, RecipientRecord};
pub use source::Input;
pub use store::BatchStore;
