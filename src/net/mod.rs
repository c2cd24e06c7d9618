//! Sockets: opening a connection and moving bytes over it, each against an absolute deadline. No SMTP, no policy.

pub mod connect;
pub mod tls;
pub mod wire;

pub use connect::{can_bind, connect, connect_unix};
pub use tls::{Agreed, Tls, TlsError, TlsFiles, TlsNeeds};
pub use wire::{Wire, WireError};
