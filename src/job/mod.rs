//! Jobs: what stays of a batch between runs, apart from what the ledger and the batch room keep in its directory.
//!
//! One job is one directory below the state directory, with a card (`job.json`) that says what it is and a lock that says who
//! runs it:
//!
//! | file | what |
//! |---|---|
//! | `STATE/lock` | held while a job is looked for and made, so that two runs of a batch become one job |
//! | `STATE/jobs/ID/job.json` | the card: replaced as a whole, never changed in place |
//! | `STATE/jobs/ID/lock` | held by the process that works on the job; its text says which |
//! | `STATE/jobs/.new-ID`, `STATE/jobs/.gone-ID` | a job that is being made or removed: no job yet, or none any more |
//!
//! INVARIANTS: whoever has a [`Job`] is the only one who changes its directory; a directory under a job's name has a card from
//! the first moment on; none of these files is reached through a symbolic link, and none is used that another user could have
//! written; a batch whose job exists is never taken for a new one because a card is damaged ([`StateDir::by_digest`]).
//!
//! Limits: the locks are those of flock(2), which some network file systems do not have.

mod card;
mod digest;
mod error;
mod files;
mod guard;
mod held;
mod id;
mod lock;
pub mod path_text;
mod stamp;
mod state;

pub use card::{CARD_VERSION, JobCard, JobState, NewCard};
pub use digest::{Digest, digest};
pub use error::{JobError, JobErrorKind};
pub use guard::{Decision, decide};
pub use held::Job;
pub use lock::{Holder, StateLock};
pub use stamp::{InputStamp, stamp, stamps, unchanged};
pub use state::{Listing, StateDir};

#[cfg(test)]
mod tests;
