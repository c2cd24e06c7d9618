//! Queues: who carries which mail when. Decisions only; threads, sockets and clocks are the engine's.
//!
//! | file | what |
//! |---|---|
//! | `event` | what a dispatcher is told and what it wants done |
//! | `dispatcher` | the state machine of one queue |
//! | `intake` | how mail comes in; what is known of destinations |
//! | `assign` | mail and workers are brought together |
//! | `release` | workers that nobody needs are let go |
//! | `outcome` | what workers report, and what follows for the mail |
//! | `judge` | what follows for the site |
//! | `open` | sessions that are opened and closed, and their permits |
//! | `sender` | what replies say of us as the sender, and when that stops a site |
//! | `backlog` | destinations and their waiting lists |
//! | `site` | sites, their gate, and the ring that shares workers out |
//! | `ready` | workers and the ready list |
//! | `delayed` | the delayed heap and other times to wake |
//! | `operate` | what the operator orders: mail is held, released, left or refused |
//! | `fallback` | which mail goes to the fallback relay |
//! | `flow` | what is handed out when: slots of a pace, the length of a run, whether a session pays |
//! | `promote` | when a site gets a queue of its own, and how its mail moves there and back |
//! | `permits` | what all queues share: permits for workers and for sessions, rates |
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
mod flow;
pub mod health;
mod intake;
mod judge;
mod links;
mod open;
mod operate;
mod outcome;
pub mod pace;
pub mod permits;
pub mod promote;
mod ready;
mod release;
mod sender;
pub mod session_limit;
mod site;
pub mod site_rate;
pub mod terms;
pub mod window;

pub use dispatcher::{Dispatcher, DispatcherConfig};
pub use event::{Action, Event, GateView, Outcome, Place, Resolution, Route, SiteView, Snapshot};
pub use fallback::{fallback_of, origin_of};
pub use flow::run_length;
pub use health::Health;
pub use operate::{Answer, Order, SiteReport, Whom};
pub use pace::{Pace, Rate, RateError};
pub use permits::{
    Feedback, Grant, News, Notice, Permit, PermitTable, Permits, Phase, SiteStatus, Slots, Wanted,
};
pub use promote::{PromoteRules, Promotion, Step, Unpromoted};
pub use sender::SenderReplies;
pub use session_limit::SessionLimit;
pub use site_rate::SiteRate;
pub use terms::{Bounds, Learned, OwnLimits, SiteTerms};
pub use window::{Admission, Window};
