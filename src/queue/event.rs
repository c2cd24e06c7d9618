//! What a queue's dispatcher is told, and what it wants done: the closed vocabulary between it and its thread.
//!
//! The queue thread receives [`Event`]s from its inbox, hands each to `Dispatcher::on`, and carries out the [`Action`]s
//! in the order in which they come. `P` is whatever the engine's workers need to reach a destination (its MX hosts and
//! addresses): the dispatcher keeps it and hands it on, and never looks into it.
//!
//! What a worker has to keep to:
//!
//! - One assignment is one destination and a run of envelopes. It ends with exactly one [`Event::Finished`] that accounts
//!   for each of its envelopes: settled, deferred, or returned untried. A worker that owes nothing is ready.
//! - When it begins the last message it holds it says [`Event::Ready`] with `ahead`; it may then find one more
//!   assignment for the same site in its channel. It takes assignments in the order given.
//! - When the session is open that an assignment asks for it says [`Event::Opened`]; before that it counts as being opened.
//! - When it closes a session before it has finished a run, or while it waits, it says [`Event::Closed`].
//! - [`Action::Recall`] is carried out by the queue thread: take the assignment given ahead back out of the worker's
//!   channel if it is still there, and answer with [`Event::Recalled`] in any case.
//! - It never ends by itself: it is retired, and then says [`Event::Gone`]; a guard says it for one that panicked. Until that
//!   is received the dispatcher may still assign: the queue thread adds what lies in the dead worker's channel to what
//!   is returned (the channel's receiving end can travel with the message, so that nothing falls between).
//!
//! What the engine has to keep to: each inbox is first in, first out. Notices of the permit table become
//! [`Event::PermitFree`] and [`Event::PermitWanted`], always. [`Event::InputClosed`] is sent to a queue only when no
//! queue that may forward to it has mail. Mail in [`Action::Forward`], `Refuse` and `Leave` is not the dispatcher's any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::operate::{Answer, Order};
use super::permits::Permit;
use super::promote::Step;
use super::sender::SenderReplies;
use crate::mail::{DestinationId, Envelope, QueueId, SiteId, SourceNo, Status, Verdict, WorkerId};
use crate::retry::Deferral;

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event<P> {
    /// The router posts a run of envelopes, usually one clone of a message.
    Post {
        /// Where they go.
        destination: DestinationId,
        /// The envelopes; those of one message stand together.
        envelopes: Vec<Envelope>,
    },
    /// Another queue found that this one handles the destination.
    Forwarded {
        /// Where they go.
        destination: DestinationId,
        /// The envelopes; may be empty.
        envelopes: Vec<Envelope>,
        /// Envelopes that are not to be tried before their instants.
        delayed: Vec<(Envelope, Instant)>,
        /// What the other queue knew of the destination, with the first envelopes it forwards.
        route: Option<Route<P>>,
        /// The destination is handed over with it; else it is mail that came to the wrong place.
        takes_over: bool,
    },
    /// A site is promoted to a queue of its own, or comes back.
    Promotion(Step),
    /// Mail that an earlier run left, each envelope not to be tried before its instant.
    Postponed {
        /// Where it goes.
        destination: DestinationId,
        /// The envelopes and their times; those of one message stand together.
        envelopes: Vec<(Envelope, Instant)>,
    },
    /// The answer to [`Action::Resolve`].
    Resolved {
        /// Which destination.
        destination: DestinationId,
        /// What is known of it now.
        resolution: Resolution<P>,
    },
    /// A worker can take a run.
    Ready {
        /// Who.
        worker: WorkerId,
        /// True: it begins the last message it holds and can take one more run for the same site. False: it waits.
        ahead: bool,
    },
    /// A worker has opened the session that its assignment needs.
    Opened {
        /// Who.
        worker: WorkerId,
        /// How long that took, from the first connection that was tried.
        setup: Duration,
    },
    /// A worker has finished its oldest assignment.
    Finished {
        /// Who.
        worker: WorkerId,
        /// What became of it.
        outcome: Outcome,
    },
    /// A worker closed its session with `site`; it is about to open another, or waits without one.
    Closed {
        /// Who.
        worker: WorkerId,
        /// The site of the session.
        site: SiteId,
    },
    /// The answer to [`Action::Recall`].
    Recalled {
        /// Who.
        worker: WorkerId,
        /// The whole run, or nothing if the worker had taken it already.
        envelopes: Vec<Envelope>,
    },
    /// A worker's thread has ended, or could not be started. What it was given and neither returns here nor has
    /// reported is taken as settled: whoever lets a thread end must have settled it.
    Gone {
        /// Who.
        worker: WorkerId,
        /// What it was given and did not touch.
        returned: Vec<(DestinationId, Vec<Envelope>)>,
    },
    /// A permit this queue was refused may be free.
    PermitFree {
        /// Which.
        permit: Permit,
    },
    /// Another queue waits for permits that this one holds.
    PermitWanted {
        /// Which.
        permit: Permit,
    },
    /// The operator changed limits: of this queue, or of the permit table.
    LimitsChanged {
        /// The most workers this queue may have from now on.
        workers_max: u32,
    },
    /// The operator orders something; answered by [`Action::Answer`].
    Order {
        /// The number that the answer is to bear.
        number: u64,
        /// What.
        order: Order,
    },
    /// The time given by `wake_at` has come.
    Wake,
    /// No more mail will be posted or forwarded.
    InputClosed,
    /// No new transactions: what waits is left for another run.
    Stop,
}

/// Where a destination's mail goes.
#[derive(Clone, PartialEq, Debug)]
pub struct Route<P> {
    /// The site that serves it.
    pub site: SiteId,
    /// What a worker needs to reach it.
    pub plan: P,
    /// Until when this may be believed.
    pub expires: Instant,
}

/// What the resolver pool found out.
#[derive(Clone, Debug)]
pub enum Resolution<P> {
    /// The destination has hosts.
    Known {
        /// They are these.
        route: Route<P>,
        /// The specific queue that handles hosts of this name, if there is one.
        queue: Option<QueueId>,
    },
    /// It never will: no such domain, null MX. Its mail is refused.
    Refused(Arc<Verdict>),
    /// Not now: the name server failed or was silent.
    Failed(Arc<Verdict>),
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Envelopes to be tried again, and why.
    pub deferred: Vec<(Envelope, Deferral)>,
    /// The number of envelopes that are settled (delivered, refused, or otherwise reported as final).
    pub settled: u32,
    /// Messages that were accepted for somebody.
    pub accepted: u32,
    /// Messages that were tried, and the time that took, the opening of the session aside.
    pub tried: u32,
    /// See `tried`.
    pub spent: Duration,
    /// The server ended the session after it had accepted this many messages on it.
    pub ended_after: Option<u32>,
    /// The worker ended a session itself after it had accepted this many messages.
    pub carried: Option<u32>,
    /// Envelopes nobody tried, in order.
    pub returned: Vec<Envelope>,
    /// The host could not be talked to or the connection was lost: what it said or did. The mail that was under way is
    /// in `deferred` with the host class (or in doubt), the rest in `returned`.
    pub host_failed: Option<Arc<Verdict>>,
    /// The site with which a session is still open.
    pub session: Option<SiteId>,
    /// What the replies say of us as the sender.
    pub sender: SenderReplies,
}

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum Action<P> {
    /// Look the destination up and answer with [`Event::Resolved`].
    Resolve {
        /// Which.
        destination: DestinationId,
    },
    /// Start a worker thread. Its first assignment follows.
    Spawn {
        /// Its number.
        worker: WorkerId,
    },
    /// Hand a run to a worker.
    Assign {
        /// Who.
        worker: WorkerId,
        /// Where the run goes.
        destination: DestinationId,
        /// The site that serves it: a session open to another site is closed first.
        site: SiteId,
        /// The source address that the session is made from.
        source: SourceNo,
        /// The messages after which the session is to be ended by us.
        messages_per_session: Option<u32>,
        /// How to reach it.
        plan: P,
        /// The run's number: later runs have higher ones.
        serial: u64,
        /// The run.
        envelopes: Vec<Envelope>,
    },
    /// Take back what a worker was given ahead, if it has not begun with it.
    Recall {
        /// Who.
        worker: WorkerId,
    },
    /// Tell a worker to give back, at its next message, what it has not begun of this run and of those before it; it goes on
    /// with later ones.
    GiveBack {
        /// Who.
        worker: WorkerId,
        /// The run's number.
        serial: u64,
    },
    /// Close the session and end the thread.
    Retire {
        /// Who.
        worker: WorkerId,
    },
    /// Hand mail to the queue that handles it, as [`Event::Forwarded`].
    Forward {
        /// Who handles it.
        queue: QueueId,
        /// Where it goes.
        destination: DestinationId,
        /// The mail; may be empty.
        envelopes: Vec<Envelope>,
        /// Mail that is not to be tried before these instants; may be empty.
        delayed: Vec<(Envelope, Instant)>,
        /// What is known of the destination.
        route: Option<Route<P>>,
        /// The other queue handles the destination from now on.
        takes_over: bool,
    },
    /// Start the queue for a promoted site: tell it, and then this one, [`Step::Begun`]; or this one [`Step::Failed`].
    Promote {
        /// Which queue.
        queue: QueueId,
        /// For which site.
        site: SiteId,
        /// The first destination that it serves.
        destination: DestinationId,
    },
    /// Tell another queue, as [`Event::Promotion`].
    Pass {
        /// Which.
        queue: QueueId,
        /// What.
        step: Step,
    },
    /// Settle mail as refused.
    Refuse {
        /// Where it would have gone.
        destination: DestinationId,
        /// The mail.
        envelopes: Vec<Envelope>,
        /// Why.
        verdict: Arc<Verdict>,
    },
    /// Leave mail in this state: nothing more is done with it in this run.
    Leave {
        /// Where it would go.
        destination: DestinationId,
        /// The mail.
        envelopes: Vec<Envelope>,
        /// Queued, deferred, in doubt, expired or held.
        status: Status,
        /// What hinders it, where that is known of the site or the name rather than of the mail itself.
        why: Option<Arc<Verdict>>,
    },
    /// Tell people that nothing more is sent to a site in this run, since its servers refuse us as the sender. Its mail
    /// is left by the actions that follow, now and later.
    SiteStopped {
        /// Which.
        site: SiteId,
        /// A destination that it serves.
        destination: DestinationId,
        /// What its servers say.
        verdict: Arc<Verdict>,
        /// The envelopes that are left at once.
        left: usize,
    },
    /// What an order has come to.
    Answer(Answer<P>),
}

/// Where an envelope is, seen from a dispatcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In its destination's waiting list.
    Waiting,
    /// In the delayed heap.
    Delayed,
}

/// The figures of a queue, for progress and control.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Snapshot {
    /// Worker threads, those that are ending included.
    pub workers: usize,
    /// Workers on the ready list: they wait for mail.
    pub ready: usize,
    /// Envelopes in waiting lists.
    pub waiting: usize,
    /// Those of them that the operator holds.
    pub held: usize,
    /// Envelopes in the delayed heap.
    pub delayed: usize,
    /// Envelopes in the hands of workers.
    pub in_hand: usize,
    /// Destinations being looked up.
    pub resolving: usize,
    /// Loop steps made since the start: the price of its decisions, in a unit that does not depend on the machine.
    pub steps: u64,
    /// The queue's own rate, or that of all source addresses, has no slot for any message before.
    pub held_until: Option<Instant>,
    /// Nor for a further session before.
    pub sessions_after: Option<Instant>,
}

/// What a queue knows of a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteView {
    /// Which site.
    pub site: SiteId,
    /// Envelopes that wait for it here.
    pub waiting: usize,
    /// Workers of this queue that serve it or keep a session to it.
    pub workers: usize,
    /// Whether it takes mail.
    pub gate: GateView,
    /// Envelopes that were left because it is stopped.
    pub left: usize,
    /// Its pace has no slot for a message before; `None`: it has, or nobody asked.
    pub held_until: Option<Instant>,
    /// That of one source address at least has none before.
    pub rests_until: Option<Instant>,
    /// Nor for a further session before.
    pub sessions_after: Option<Instant>,
    /// Enough mail waits that a further session would pay.
    pub session_pays: bool,
}

/// Whether a site takes mail, and why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateView {
    /// It does.
    Open,
    /// Only through sessions that are open: a new one failed a short time ago.
    Narrow,
    /// It failed: nothing is tried for a while.
    Paused,
    /// The pause is over; one worker may try.
    Probe,
    /// One worker is trying.
    Probing,
    /// It refuses us as the sender: nothing more is tried in this run.
    Stopped,
}
