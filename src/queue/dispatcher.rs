//! The dispatcher of one queue: a pure state machine, events in, actions out.
//!
//! The queue thread owns one, tells it what has happened and what time it is, and carries out what it answers. It owns
//! the queue's backlog, ready list and delayed heap; all it shares with other queues are [`Permits`]. The same seed,
//! events and permits give the same actions, so every rule can be simulated (`tests/simulation.rs`).
//!
//! An event changes the state and marks the sites it concerns; then mail and workers are brought together in one place
//! (`assign.rs`): a ready worker whose session to the site is open, one that may be given a run ahead, the most recently
//! ready one, a new one while permits allow; else the mail waits.
//!
//! INVARIANTS, after every event:
//! - each envelope posted is waiting, delayed, in one worker's hands, or was handed out in a final action;
//! - workers are at most `workers_max`; every worker and every session stands for one permit;
//! - no worker is ready, and none could be spawned, while mail waits that it could carry: a known destination, a site that
//!   takes mail, a session permit to be had;
//! - a site nobody serves gets the next worker that becomes free or has used up its quantum.
//!
//! Cost: O(1) per envelope and event but for the delayed heap (O(log n)). It never panics on what a peer says, since no
//! byte of a peer comes here; events that no correct thread sends are ignored (debug builds assert).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::backlog::{Backlog, State};
use super::delayed::{Delayed, Timer, Timers};
use super::event::{Action, Event, Place, SiteView, Snapshot};
use super::links::Links;
use super::operate::Orders;
use super::permits::Permits;
use super::promote::{Promotion, Promotions};
use super::ready::Workers;
use super::site::{Gate, Site, Sites};
use crate::mail::{DestinationId, Envelope, QueueId, SiteId};
use crate::retry::RetryPolicy;

/// A worker stays ready for this long at least: with no time at all one that is kept would be due at every moment.
const IDLE_MIN: Duration = Duration::from_millis(1);

/// The settings of a dispatcher.
#[derive(Clone, Debug)]
pub struct DispatcherConfig {
    /// Which queue it is.
    pub queue: QueueId,
    /// The most workers it may have (`max_workers`), at least 1.
    pub workers_max: u32,
    /// The longest run, but for the recipients of its last message.
    pub run_max: usize,
    /// The most recipients of one transaction: recipients of one message are kept together up to a multiple of it.
    pub recipients_max: usize,
    /// How long a worker stays ready before it is retired: the life of the connection cache.
    pub idle: Duration,
    /// How long a run given ahead may wait for its worker before it is recalled, if somebody else could take it.
    pub recall_after: Duration,
    /// Envelopes after which a worker turns to another site, if that needs it more.
    pub quantum: usize,
    /// Time after which it does.
    pub quantum_time: Duration,
    /// Distinct messages a site may refuse because of the sender, none accepted in between, before it is stopped; 0: any.
    pub sender_refusals: u32,
    /// Failures after which mail goes to the fallback relay; `None`: there is none.
    pub fallback_after: Option<u32>,
    /// What it has to do with the promotion of sites.
    pub promotion: Promotion,
    /// The number of source addresses, at least 1.
    pub sources: u8,
    /// What must wait for each session of a site before a further one is opened, in units of what could be sent in the
    /// time that its opening takes; 0: nothing.
    pub session_backlog: u32,
    /// When deferred mail is tried again, and until when.
    pub retry: RetryPolicy,
}

impl DispatcherConfig {
    /// The defaults for a queue.
    pub fn new(queue: QueueId, workers_max: u32) -> DispatcherConfig {
        DispatcherConfig {
            queue,
            workers_max,
            run_max: 64,
            recipients_max: 50,
            idle: Duration::from_secs(2),
            recall_after: Duration::from_secs(2),
            quantum: 64,
            quantum_time: Duration::from_secs(5),
            sender_refusals: 10,
            fallback_after: None,
            promotion: Promotion::Never,
            sources: 1,
            session_backlog: 0,
            retry: RetryPolicy::default(),
        }
    }
}

/// The dispatcher of one queue. See the module's header.
#[derive(Debug)]
pub struct Dispatcher<P> {
    pub(super) config: DispatcherConfig,
    pub(super) rng: fastrand::Rng,
    pub(super) backlog: Backlog<P>,
    pub(super) sites: Sites,
    /// The links of the lists that sites keep of their destinations.
    pub(super) destination_links: Links,
    pub(super) workers: Workers,
    pub(super) delayed: Delayed,
    pub(super) timers: Timers,
    pub(super) in_hand: usize,
    pub(super) serial: u64,
    pub(super) input_closed: bool,
    pub(super) stopped: bool,
    /// What the operator has ordered.
    pub(super) orders: Orders,
    /// True while a permit for one more worker was refused.
    pub(super) worker_refused: bool,
    /// No worker is spawned before: a thread has just failed.
    pub(super) spawn_after: Option<Instant>,
    /// Sites that have queues of their own, or the one whose queue this is.
    pub(super) promotions: Promotions,
    /// No message leaves this queue before: its own pace, or that of all source addresses, has no slot.
    pub(super) hold_until: Option<Instant>,
    /// No session is opened before.
    pub(super) sessions_after: Option<Instant>,
    /// Sites that wait for `hold_until` with sessions that could go on, in order.
    pub(super) starved: VecDeque<u32>,
    /// After the next rest the ring begins, not those that wait with sessions.
    pub(super) ring_begins: bool,
    /// Sites to look at before the event is over.
    pub(super) touched: Vec<u32>,
    /// Sites whose ready workers were passed over in favour of others.
    pub(super) passed_over: Vec<u32>,
    /// Workers that became ready in this event.
    pub(super) newly_ready: Vec<u32>,
    pub(super) steps: u64,
}

/// What one event brings along: the time, the shared permits, and where actions go.
pub(super) struct Turn<'a, P> {
    pub(super) now: Instant,
    pub(super) permits: &'a dyn Permits,
    pub(super) actions: &'a mut Vec<Action<P>>,
}

impl<P: Clone> Dispatcher<P> {
    /// A dispatcher without mail or workers. The seed decides all jitter.
    pub fn new(mut config: DispatcherConfig, seed: u64) -> Dispatcher<P> {
        config.workers_max = config.workers_max.max(1);
        config.run_max = config.run_max.max(1);
        config.idle = config.idle.max(IDLE_MIN);
        config.recipients_max = config.recipients_max.max(1);
        let sites = Sites::new(config.session_backlog);
        Dispatcher {
            promotions: Promotions::new(config.promotion),
            config,
            rng: fastrand::Rng::with_seed(seed),
            backlog: Backlog::default(),
            sites,
            destination_links: Links::default(),
            workers: Workers::default(),
            delayed: Delayed::default(),
            timers: Timers::default(),
            in_hand: 0,
            serial: 0,
            input_closed: false,
            stopped: false,
            orders: Orders::default(),
            worker_refused: false,
            spawn_after: None,
            hold_until: None,
            sessions_after: None,
            starved: VecDeque::new(),
            ring_begins: false,
            touched: Vec::new(),
            passed_over: Vec::new(),
            newly_ready: Vec::new(),
            steps: 0,
        }
    }

    /// Tells it what has happened; what is to be done is appended to `actions`.
    pub fn on(
        &mut self,
        event: Event<P>,
        now: Instant,
        permits: &dyn Permits,
        actions: &mut Vec<Action<P>>,
    ) {
        let mut turn = Turn {
            now,
            permits,
            actions,
        };
        let freed = match event {
            Event::PermitFree { permit } => Some(permit),
            _ => None,
        };
        self.wake(&mut turn);
        self.apply(event, &mut turn);
        self.settle(&mut turn);
        if let Some(permit) = freed {
            self.decline_unused(permit, &mut turn);
        }
        self.watch_all(now);
        self.tend(&mut turn);
        self.ask_for_queues(&mut turn);
    }

    fn apply(&mut self, event: Event<P>, t: &mut Turn<'_, P>) {
        match event {
            Event::Post {
                destination,
                envelopes,
            } => self.post(destination, envelopes, t),
            Event::Postponed {
                destination,
                envelopes,
            } => self.postponed(destination, envelopes, t),
            Event::Forwarded {
                destination,
                envelopes,
                delayed,
                route,
                takes_over,
            } => {
                self.handed(destination, route, takes_over, t);
                self.forwarded(destination, envelopes, delayed, t);
            }
            Event::Promotion(step) => self.step(step, t),
            Event::Resolved {
                destination,
                resolution,
            } => self.resolved(destination, resolution, t),
            Event::Ready { worker, ahead } => self.announced(worker, ahead),
            Event::Finished { worker, outcome } => self.finished(worker, outcome, t),
            Event::Opened { worker, setup } => self.opened(worker, setup, t),
            Event::Closed { worker, site } => self.closed(worker, site, t),
            Event::Recalled { worker, envelopes } => self.recalled(worker, envelopes, t),
            Event::Gone { worker, returned } => self.gone(worker, returned, t),
            Event::PermitFree { permit } => self.permit_free(permit),
            Event::PermitWanted { permit } => self.permit_wanted(permit, t),
            Event::LimitsChanged { workers_max } => self.limits_changed(workers_max),
            Event::Order { number, order } => self.obey(number, order, t),
            Event::Wake => {}
            Event::InputClosed => self.input_closed = true,
            Event::Stop => self.stop(t),
        }
    }

    /// When it wants [`Event::Wake`], if nothing else happens before.
    pub fn wake_at(&self) -> Option<Instant> {
        let idle = self.workers.ready.front();
        let idle = idle.map(|w| self.workers[w].ready_since + self.config.idle);
        [
            self.timers.next(),
            self.delayed.next(),
            idle,
            self.spawn_after,
            self.tend_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due by now.
    fn wake(&mut self, t: &mut Turn<'_, P>) {
        if self.spawn_after.is_some_and(|after| after <= t.now) {
            self.spawn_after = None;
        }
        while let Some(timer) = self.timers.pop_due(t.now) {
            self.steps += 1;
            match timer {
                Timer::Site(s) => self.gate_time_is_over(s, t.now),
                Timer::Pace(s) => self.pace_time_is_over(s, t.now),
                Timer::Hold => self.hold_time_is_over(t.now),
                Timer::Patience(s) => self.patience_is_over(s, t.now),
                Timer::Destination(d) => self.ask_again(d, t),
                Timer::Ahead(w, serial) => self.ahead_is_late(w, serial, t),
            }
        }
        let mut due: Option<((u32, bool), Vec<Envelope>)> = None;
        while let Some((d, envelope)) = self.delayed.pop_due(t.now) {
            self.steps += 1;
            let place = (d, is_second_try(&envelope));
            match &mut due {
                Some((same, envelopes)) if *same == place => envelopes.push(envelope),
                other => {
                    if let Some(((d, in_front), envelopes)) = other.replace((place, vec![envelope]))
                    {
                        self.admit(d, envelopes, in_front, t);
                    }
                }
            }
        }
        if let Some(((d, in_front), envelopes)) = due {
            self.admit(d, envelopes, in_front, t);
        }
    }

    /// The time of a pause, or of a narrow gate, may be over.
    fn gate_time_is_over(&mut self, s: u32, now: Instant) {
        let gate = match self.sites[s].gate {
            Gate::Paused(until) if until <= now => Gate::Probe,
            Gate::Narrow(until) if until <= now => Gate::Open,
            _ => return,
        };
        self.sites[s].gate = gate;
        self.touch(s);
    }

    /// Marks a site to be looked at before the event is over.
    pub(super) fn touch(&mut self, s: u32) {
        if !std::mem::replace(&mut self.sites[s].touched, true) {
            self.touched.push(s);
        }
    }

    /// The figures of the queue.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            workers: self.workers.len(),
            ready: self.workers.ready.len(),
            waiting: self.backlog.waiting,
            held: self.backlog.held,
            delayed: self.delayed.len(),
            in_hand: self.in_hand,
            resolving: self.backlog.resolving,
            steps: self.steps,
            held_until: self.hold_until,
            sessions_after: self.sessions_after,
        }
    }

    /// True if no mail is left: none waits, none is delayed, none is in a worker's hands.
    pub fn is_idle(&self) -> bool {
        self.backlog.waiting == 0 && self.delayed.is_empty() && self.in_hand == 0
    }

    /// True if no mail and no worker is left.
    pub fn is_drained(&self) -> bool {
        self.is_idle() && self.workers.len() == 0
    }

    /// What is known of a site.
    pub fn site(&self, site: SiteId) -> Option<SiteView> {
        let s = self.sites.find(site)?;
        Some(self.sites[s].view(self.config.session_backlog))
    }

    /// All sites.
    pub fn sites(&self) -> impl Iterator<Item = SiteView> + '_ {
        let backlog = self.config.session_backlog;
        self.sites.iter().map(move |site: &Site| site.view(backlog))
    }

    /// Every envelope it holds, with its destination and place. For tests and for what is copied at the end of a run.
    pub fn envelopes(&self) -> impl Iterator<Item = (Place, DestinationId, Envelope)> + '_ {
        let waiting = self.backlog.iter().flat_map(|destination| {
            let list = destination.waiting.iter();
            list.map(|envelope| (Place::Waiting, destination.id, *envelope))
        });
        let delayed = self
            .delayed
            .iter()
            .map(|(d, envelope)| (Place::Delayed, self.backlog[d].id, envelope));
        waiting.chain(delayed)
    }

    /// True if the destination's hosts are known here.
    pub fn knows(&self, destination: DestinationId) -> bool {
        let d = self.backlog.find(destination);
        d.is_some_and(|d| matches!(self.backlog[d].state, State::Known { .. }))
    }
}

/// True for the second attempt of a recipient, which goes before the first ones of others: what was greylisted is accepted now,
/// and no session is added where nothing is ever accepted. Later attempts stand in line, so that nobody waits for mail that is
/// put off for ever.
fn is_second_try(envelope: &Envelope) -> bool {
    envelope.passage.attempts == 1 && envelope.passage.host_failures == 0
}
