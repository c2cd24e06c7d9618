//! SMTP without sockets: replies and commands as bytes, what a server offers, dot-stuffing, what each reply means, and
//! the [`Conversation`] that ties them: one session, from the greeting to QUIT.
//!
//! Everything here takes bytes and replies as arguments and returns bytes and values; a thin blocking driver (`net`) does
//! the I/O. So a dialogue can be played in microseconds, and `tests/dialogues.rs` plays some hundred thousand.
//!
//! INVARIANTS: commands written minus replies read is the length of one FIFO ([`pipeline`]); no body leaves without a
//! 354 and an accepted recipient; at most one transaction of a session is ever in doubt.
mod session;
pub use capabilities::Capabilities;
pub use conversation::{Conversation, Next, Settings};
pub use meaning::Lost;
pub use pipeline::Pipelining;
pub use reply::{Garbled, Progress, Reply, ReplyParser};
pub use transaction::{Mail, RecipientEnd, TransactionEnd};
pub mod capabilities;
pub mod command;
pub mod conversation;
pub mod dot;
pub mod meaning;
pub mod pipeline;
pub mod reply;
pub mod server;
pub mod transaction;
