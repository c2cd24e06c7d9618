//! Sockets: opening a connection and moving bytes over it, each against an absolute deadline. No SMTP, no policy.

pub mod connect;
pub mod wire;

pub use connect::connect;
pub use wire::{Wire, WireError};
