//! `mailer`: a thread-based, synchronous batch mailer.
//!
//! Layers; imports go down only, and `tests/layers.rs` enforces it:
//!
//! | layer | rooms | never in it |
//! |---|---|---|
//! | face | `cli`, `report`, `progress`, `sink` | sockets and locks in `cli` |
//! | engine | `engine` | printing, argument parsing |
//! | world | `net`, `dns`, `batch`, `control`, `ledger`, `job`, `hosts`, `data` | policy, printing |
//! | decisions | `route`, `queue`, `retry`, `suppression` | I/O, threads, a clock |
//! | formats | `mbox`, `smtp`, `dkim`, `bounce`, `merge` | I/O, threads, a clock |
//! | words | `mail` | I/O, threads, a clock |

pub mod batch;
pub mod bounce;
pub mod cli;
pub mod control;
pub mod data;
pub mod dkim;
pub mod dns;
pub mod engine;
pub mod hosts;
pub mod job;
pub mod ledger;
pub mod mail;
pub mod mbox;
pub mod merge;
pub mod net;
pub mod progress;
pub mod queue;
pub mod report;
pub mod retry;
pub mod route;
pub mod sink;
pub mod smtp;
pub mod suppression;
