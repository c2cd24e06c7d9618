//! SMTP without sockets: replies and commands as bytes, what a server offers, dot-stuffing, what each reply means, and
//! the [`Conversation`] that ties them: one session, from the greeting to QUIT.
//!
//! Everything here takes bytes and replies as arguments and returns bytes and values; a thin blocking driver (`net`) does
//! the I/O. So a dialogue can be played in microseconds, and `tests/dialogues.rs` plays some hundred thousand.
//!
//! INVARIANTS: commands written minus replies read is the length of one FIFO ([`pipeline`]); no body leaves without a
//! 354 and an accepted recipient, but by BDAT (RFC 3030), where the server takes it for whom it accepts; at most one
//! transaction of a session is ever in doubt.
mod domains;
mod session;
pub use auth::{Credentials, Mechanism, Secret};
pub use capabilities::Capabilities;
pub use conversation::{Conversation, Next};
pub use dsn::Dsn;
pub use meaning::Lost;
pub use pipeline::{Framing, Pipelining};
pub use reply::{Garbled, Progress, Reply, ReplyParser};
pub use session::no_handshake;
pub use settings::{Protocol, Settings, TlsPolicy};
pub use transaction::{Mail, RecipientEnd, TransactionEnd};
pub mod auth;
pub mod capabilities;
pub mod command;
pub mod conversation;
pub mod dot;
pub mod dsn;
pub mod meaning;
pub mod pipeline;
pub mod reply;
pub mod server;
pub mod settings;
pub mod transaction;
