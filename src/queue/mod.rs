//! Queues: who carries which mail when. Decisions only; threads, sockets and clocks are the engine's.
//!
//! | file | what |
//! |---|---|
//! | `event` | what a dispatcher is told and what it wants done |
//! | `dispatcher` | the state machine of one queue |
//! | `intake` | how mail comes in; what is known of destinations |
//! | `assign` | mail and workers are brought together |
//! | `outcome` | what workers report, and what follows |
//! | `sender` | what replies say of us as the sender, and when that stops a site |
//! | `backlog` | destinations and their waiting lists |
//! | `site` | sites, their gate, and the ring that shares workers out |
//! | `ready` | workers and the ready list |
//! | `delayed` | the delayed heap and other times to wake |
//! | `fallback` | which mail goes to the fallback relay |
//! | `promote` | when a site gets a queue of its own, and how its mail moves there and back |
//! | `permits` | what all queues share: permits for workers and for sessions |
//! | `links` | lists with constant-time removal |
//!
//! INVARIANTS are those of `dispatcher`; absent from here: I/O, threads, clocks, randomness that is not seeded.

mod assign;
mod backlog;
mod delayed;
pub mod dispatcher;
pub mod event;
mod fallback;
mod intake;
mod links;
mod outcome;
pub mod permits;
pub mod promote;
mod ready;
mod sender;
mod site;

pub use assign::run_length;
pub use dispatcher::{Dispatcher, DispatcherConfig};
pub use event::{Action, Event, GateView, Outcome, Place, Resolution, Route, SiteView, Snapshot};
pub use fallback::{fallback_of, origin_of};
pub use permits::{News, Notice, PermitTable, Permits, Wanted};
pub use promote::{PromoteRules, Promotion, Step};
pub use sender::SenderReplies;
