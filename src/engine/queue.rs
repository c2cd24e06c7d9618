//! A queue's thread: an actor around the dispatcher. It receives events, asks the dispatcher, and does as told.
//!
//! It owns its workers' channels and never waits for anything but its inbox. It ends when its input is closed, all its
//! mail is settled, and its workers are gone.
//!
//! An assignment given ahead is taken back by receiving it from the worker's own channel: whoever receives it first has
//! it, so it can never be in two hands.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use super::guard::{Alive, Watch};
use super::permits::SharedPermits;
use super::promoted::Slots;
use super::resolve::Exchange;
use super::router::DestinationNames;
use super::shared::Shared;
use super::stops::StoppedSite;
use super::teller::Teller;
use super::worker::{Run, Worker};
use crate::ledger::{Attempt, Via};
use crate::mail::{
    DestinationId, Envelope, Passage, QueueId, SiteId, Stage, Status, Verdict, WorkerId,
};
use crate::queue::event::{Action, Event};
use crate::queue::{Answer, Dispatcher, Step, origin_of};

/// What arrives at a queue.
pub type Inbox = Event<Arc<Exchange>>;
type Act = Action<Arc<Exchange>>;

/// Events handled before the gauges are set again.
const EVENTS_AT_ONCE: usize = 256;
/// A worker's stack: it calls no deep recursion, and ten thousand of them must fit.
const STACK_BYTES: usize = 256 * 1024;

/// A look-up that is wanted.
#[derive(Debug)]
pub struct Question {
    /// Who asks.
    pub queue: QueueId,
    /// About which destination.
    pub destination: DestinationId,
}

/// The ways out of a queue.
#[derive(Clone)]
pub struct Ways {
    /// To the resolver pool.
    pub questions: Sender<Question>,
    /// To all queues' inboxes, by number.
    pub inboxes: Vec<Sender<Inbox>>,
    /// The names of destinations.
    pub names: DestinationNames,
    /// To whoever gave a queue an order.
    pub answers: Sender<(QueueId, Answer<Arc<Exchange>>)>,
    /// The permits all queues share.
    pub permits: Arc<SharedPermits>,
    /// Over the threads that queues start.
    pub watch: Watch,
    /// The queues for promoted sites.
    pub slots: Arc<Slots>,
}

/// A queue's thread.
pub struct QueueThread {
    id: QueueId,
    dispatcher: Dispatcher<Arc<Exchange>>,
    inbox: Receiver<Inbox>,
    ways: Ways,
    shared: Arc<Shared>,
    workers: HashMap<WorkerId, Hand>,
    /// Runs for workers whose threads could not be started; they are returned when the worker's guard says it is gone.
    unheard: HashMap<WorkerId, Vec<(DestinationId, Vec<Envelope>)>>,
    ending: Vec<JoinHandle<()>>,
    input_closed: bool,
    actions: Vec<Act>,
    /// Sites that were stopped, with their numbers in [`Shared::stops`].
    stopped: Vec<(SiteId, usize)>,
    teller: Teller,
    /// Its share of the workers, as the permit table knows it.
    weight: u32,
}

/// A worker as its queue holds it.
struct Hand {
    /// `None` once it is retired.
    runs: Option<Sender<Run>>,
    /// The worker's own channel, to take back what it has not begun.
    back: Receiver<Run>,
    /// Runs up to this number are to be given back.
    mark: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl QueueThread {
    /// A queue around its dispatcher.
    pub fn new(
        id: QueueId,
        dispatcher: Dispatcher<Arc<Exchange>>,
        inbox: Receiver<Inbox>,
        ways: Ways,
        shared: Arc<Shared>,
    ) -> QueueThread {
        QueueThread {
            teller: Teller::new(shared.book.clone(), id),
            id,
            dispatcher,
            inbox,
            ways,
            shared,
            workers: HashMap::new(),
            unheard: HashMap::new(),
            ending: Vec::new(),
            input_closed: false,
            actions: Vec::new(),
            stopped: Vec::new(),
            weight: 0,
        }
    }

    /// Works until everything is settled and nothing more can come.
    pub fn work(mut self) {
        while !(self.input_closed && self.dispatcher.is_idle() && self.workers.is_empty()) {
            let Some(event) = self.wait() else { break };
            self.handle(event);
            for _ in 1..EVENTS_AT_ONCE {
                let Ok(event) = self.inbox.try_recv() else {
                    break;
                };
                self.handle(event);
            }
            self.weigh();
            self.show();
        }
        self.ways.permits.close(self.id);
        for thread in self.ending {
            // A worker that panicked has settled its mail in its guard.
            let _ = thread.join();
        }
    }

    fn wait(&self) -> Option<Inbox> {
        match self.dispatcher.wake_at() {
            None => self.inbox.recv().ok(),
            Some(instant) => match self.inbox.recv_deadline(instant) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => Some(Event::Wake),
                Err(RecvTimeoutError::Disconnected) => None,
            },
        }
    }

    fn handle(&mut self, event: Inbox) {
        self.shared.settings.trip.at("queue");
        let event = match event {
            Event::InputClosed => {
                self.input_closed = true;
                Event::InputClosed
            }
            Event::Gone { worker, returned } => self.bury(worker, returned),
            other => other,
        };
        let mut actions = std::mem::take(&mut self.actions);
        self.dispatcher
            .on(event, Instant::now(), &*self.ways.permits, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action);
        }
        self.actions = actions;
    }

    /// A worker's thread is at its end: what is still in its channel is returned too.
    fn bury(
        &mut self,
        worker: WorkerId,
        mut returned: Vec<(DestinationId, Vec<Envelope>)>,
    ) -> Inbox {
        returned.extend(self.unheard.remove(&worker).into_iter().flatten());
        if let Some(hand) = self.workers.remove(&worker) {
            returned.extend(
                hand.back
                    .try_iter()
                    .map(|run| (run.destination, run.envelopes)),
            );
            self.ending.push(hand.thread);
        }
        self.ending.retain(|thread| !thread.is_finished());
        Event::Gone { worker, returned }
    }

    fn carry_out(&mut self, action: Act) {
        match action {
            Action::Resolve { destination } => {
                let _ = self.ways.questions.send(Question {
                    queue: self.id,
                    destination,
                });
            }
            Action::Spawn { worker } => self.spawn(worker),
            Action::Assign {
                worker,
                destination,
                site,
                source,
                messages_per_session,
                plan,
                serial,
                envelopes,
            } => {
                self.assign(
                    worker,
                    Run {
                        destination,
                        site,
                        source,
                        messages_per_session,
                        exchange: plan,
                        serial,
                        envelopes,
                    },
                );
            }
            Action::Recall { worker } => self.recall(worker),
            Action::GiveBack { worker, serial } => {
                if let Some(hand) = self.workers.get(&worker) {
                    hand.mark.store(serial, Release);
                }
            }
            Action::Answer(answer) => {
                // Who does not wait for it any more does not need it.
                let _ = self.ways.answers.send((self.id, answer));
            }
            Action::Retire { worker } => {
                if let Some(hand) = self.workers.get_mut(&worker) {
                    hand.runs = None;
                }
            }
            Action::Forward {
                queue,
                destination,
                envelopes,
                delayed,
                route,
                takes_over,
            } => {
                let event = Event::Forwarded {
                    destination,
                    envelopes,
                    delayed,
                    route,
                    takes_over,
                };
                let _ = self.ways.inboxes[queue.index()].send(event);
            }
            Action::Promote {
                queue,
                site,
                destination,
            } => self.promote(queue, site, destination),
            Action::Pass { queue, step } => self.pass(queue, step),
            Action::Refuse {
                envelopes, verdict, ..
            } => self.tell(&envelopes, &verdict),
            Action::Leave {
                envelopes,
                status,
                why,
                ..
            } => self.leave(envelopes, status, why.as_deref()),
            Action::SiteStopped {
                site,
                destination,
                verdict,
                left,
            } => self.note_stop(site, destination, verdict, left),
        }
    }

    /// Starts the queue for a promoted site: it hears first which site it has, then of its mail.
    fn promote(&mut self, queue: QueueId, site: SiteId, destination: DestinationId) {
        if self
            .ways
            .slots
            .open(queue, &self.ways, &self.shared)
            .is_err()
        {
            return self.handle(Event::Promotion(Step::Failed { queue }));
        }
        let name = self.ways.names.get(destination.index());
        let name = name.map_or("promoted", |name| &**name);
        // Before anything is sent from it. What cannot be recorded ends the run.
        self.shared.book.name_queue(queue, name);
        if let Some(gauges) = self.shared.gauges.queues.get(queue.index()) {
            gauges.rename(name);
        }
        self.ways.permits.open(queue);
        let begun = Step::Begun { queue, site };
        let _ = self.ways.inboxes[queue.index()].send(Event::Promotion(begun.clone()));
        self.handle(Event::Promotion(begun));
    }

    /// Tells another queue about a promotion.
    fn pass(&self, queue: QueueId, step: Step) {
        if let Step::Vacated { queue: own } = step {
            // Before the general queue may take it again.
            self.ways.permits.close(own);
            if let Some(gauges) = self.shared.gauges.queues.get(own.index()) {
                gauges.rename("");
            }
        }
        let _ = self.ways.inboxes[queue.index()].send(Event::Promotion(step));
    }

    /// Tells the permit table what share of the workers this queue is due, if that has changed.
    fn weigh(&mut self) {
        let weight = self.dispatcher.weight();
        if weight != self.weight {
            self.weight = weight;
            self.ways.permits.set_queue_weight(self.id, weight);
        }
    }

    fn spawn(&mut self, worker: WorkerId) {
        let (runs, own) = unbounded();
        let back = own.clone();
        let mark = Arc::new(AtomicU64::new(0));
        let body = Worker::new(
            worker,
            self.id,
            Arc::clone(&self.shared),
            self.ways.inboxes[self.id.index()].clone(),
            (own, Arc::clone(&mark)),
        );
        let name = format!("worker {}/{}", self.id.0, worker.0);
        let (as_watched, watch) = (name.clone(), self.ways.watch.clone());
        let alive = Alive::new(Arc::clone(&self.shared));
        let spawned = std::thread::Builder::new()
            .name(name)
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _alive = alive;
                watch.over_worker(&as_watched, || body.work());
            });
        // If no thread is to be had, the closure is dropped, and the guard on the worker's desk says that it is gone.
        if let Ok(thread) = spawned {
            self.workers.insert(
                worker,
                Hand {
                    runs: Some(runs),
                    back,
                    mark,
                    thread,
                },
            );
        }
    }

    fn assign(&mut self, worker: WorkerId, run: Run) {
        let hand = self
            .workers
            .get(&worker)
            .and_then(|hand| hand.runs.as_ref());
        let refused = match hand {
            Some(runs) => runs.send(run).err().map(|error| error.0),
            None => Some(run),
        };
        if let Some(run) = refused {
            self.unheard
                .entry(worker)
                .or_default()
                .push((run.destination, run.envelopes));
        }
    }

    fn recall(&mut self, worker: WorkerId) {
        let back = self.workers.get(&worker).map(|hand| hand.back.try_recv());
        let envelopes = match back {
            Some(Ok(run)) => run.envelopes,
            Some(Err(TryRecvError::Empty | TryRecvError::Disconnected)) | None => Vec::new(),
        };
        self.handle(Event::Recalled { worker, envelopes });
    }

    /// Tells the ledger of a verdict that no worker was needed for.
    fn tell(&mut self, envelopes: &[Envelope], verdict: &Verdict) {
        self.note(envelopes, verdict);
        // What names and hosts say is never about the batch: it was an order.
        match verdict.stage {
            Stage::Batch => self.teller.tell_as_ordered(),
            _ => self.teller.tell(),
        }
    }

    fn note(&mut self, envelopes: &[Envelope], verdict: &Verdict) {
        let at = jiff::Timestamp::now().as_millisecond();
        for envelope in envelopes {
            self.teller.add(&Attempt {
                recipient: envelope.recipient,
                verdict: verdict.clone(),
                via: Via::none(self.id),
                passage: envelope.passage,
                at,
                took_ms: 0,
            });
        }
    }

    /// Leaves mail for this run. Mail that was never tried gets the reason that holds for its destination.
    fn leave(&mut self, envelopes: Vec<Envelope>, status: Status, why: Option<&Verdict>) {
        if let Some(why) = why {
            let untried: Vec<Envelope> = envelopes
                .iter()
                .filter(|envelope| envelope.passage == Passage::default())
                .copied()
                .collect();
            let pending = Verdict {
                status: Status::Deferred,
                ..why.clone()
            };
            if !untried.is_empty() {
                // Nobody was asked about these: that is no result.
                self.teller.tell();
                // In groups smaller than those that the teller tells of itself, as results.
                for some in untried.chunks(16) {
                    self.note(some, &pending);
                    self.teller.tell_as_ordered();
                }
            }
        }
        let recipients = envelopes
            .iter()
            .map(|envelope| (envelope.recipient, status))
            .collect();
        self.teller.leave(recipients);
    }

    /// A site refuses us as the sender: people are to know.
    fn note_stop(
        &mut self,
        site: SiteId,
        destination: DestinationId,
        verdict: Arc<Verdict>,
        left: usize,
    ) {
        let (origin, is_fallback) = origin_of(destination);
        let name = self.ways.names.get(origin.index());
        let to_relays = is_fallback || !self.shared.settings.relays.is_empty();
        let at = self.shared.stops.add(StoppedSite {
            domain: name.filter(|_| !to_relays).map(|name| name.to_string()),
            verdict,
            left,
        });
        self.stopped.push((site, at));
    }

    fn show(&self) {
        for (site, at) in &self.stopped {
            if let Some(view) = self.dispatcher.site(*site) {
                self.shared.stops.set_left(*at, view.left);
            }
        }
        let Some(gauges) = self.shared.gauges.queues.get(self.id.index()) else {
            return;
        };
        let snapshot = self.dispatcher.snapshot();
        gauges.workers.store(snapshot.workers as u64, Relaxed);
        gauges.ready.store(snapshot.ready as u64, Relaxed);
        gauges.in_hand.store(snapshot.in_hand as u64, Relaxed);
        gauges.waiting.store(snapshot.waiting as u64, Relaxed);
        gauges.held.store(snapshot.held as u64, Relaxed);
        gauges.delayed.store(snapshot.delayed as u64, Relaxed);
    }
}
