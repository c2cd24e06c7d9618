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
//! | `terms` | what is known of a site before the first session |
//! | `pace` | a configured rate, kept exactly |
//! | `window` | how many sessions a site may have |
//! | `site_rate` | how many messages: the configured rate, and the learned one |
//! | `session_limit` | how many messages in one session |
//! | `health` | a sick site, or a sick message |
//! | `links` | lists with constant-time removal |
//!
//! INVARIANTS are those of `dispatcher`; absent from here: I/O, threads, clocks, randomness that is not seeded.

mod assign;
mod backlog;
mod delayed;
pub mod dispatcher;
pub mod event;
mod fallback;
pub mod health;
mod intake;
mod links;
mod outcome;
pub mod pace;
pub mod permits;
pub mod promote;
mod ready;
mod sender;
pub mod session_limit;
mod site;
pub mod site_rate;
pub mod terms;
pub mod window;

pub use assign::run_length;
pub use dispatcher::{Dispatcher, DispatcherConfig};
pub use event::{Action, Event, GateView, Outcome, Place, Resolution, Route, SiteView, Snapshot};
pub use fallback::{fallback_of, origin_of};
pub use health::Health;
pub use pace::{Pace, Rate, RateError};
pub use permits::{News, Notice, PermitTable, Permits, Wanted};
pub use promote::{PromoteRules, Promotion, Step};
pub use sender::SenderReplies;
pub use session_limit::SessionLimit;
pub use site_rate::SiteRate;
pub use terms::{Bounds, Learned, SiteTerms};
pub use window::{Admission, Window};
