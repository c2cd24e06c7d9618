//! The intake thread and the router thread.
//!
//! Intake finds the boundaries of messages and makes envelopes; the router finds the destination of each recipient, makes
//! one clone of the message per destination (a run of envelopes that refer to its content), and posts it to the queue
//! that handles the destination. Neither ever waits for anybody's network: inboxes are unbounded, backlogs hold
//! references only. Between the two is a bounded channel, so that reading does not run far ahead of routing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::book::Entry;
use super::past::{self, Past};
use super::queue::Inbox;
use super::resolve::Policies;
use super::settings::Trip;
use super::shared::Shared;
use super::teller::Teller;
use crate::batch::{Arrival, BatchError, BatchReader};
use crate::ledger::{Attempt, Via};
use crate::mail::{DestinationId, Domain, Envelope, QueueId, RecipientNo, Status, Verdict};
use crate::queue::event::Event;
use crate::retry;
use crate::route::{self, Interner, RouteTable};
use crate::smtp::TlsPolicy;

/// The names of destinations, by number.
pub type DestinationNames = Arc<boxcar::Vec<Arc<str>>>;

/// Messages handed from intake to router at once.
const CHUNK: usize = 64;
/// Problems kept for the face to show; all of them are in the report.
const PROBLEMS_KEPT: usize = 20;

/// A recipient on its way to the router.
#[derive(Debug)]
pub struct Addressed {
    /// The envelope, with what it has been through in earlier runs.
    pub envelope: Envelope,
    /// It is not to be tried before, since an earlier run has tried it.
    pub not_before: Option<Instant>,
    /// Where its mail goes.
    pub domain: Domain,
}

/// What reading the batch came to.
#[derive(Debug, Default)]
pub struct ReadEnd {
    /// Why it ended early, if it did.
    pub error: Option<BatchError>,
    /// The first problems with messages and addresses.
    pub problems: Vec<String>,
    /// How many there were.
    pub problem_count: u64,
    /// Recipients that a named job knew already.
    pub repeated: u64,
}

/// What intake is to read.
pub struct Reading {
    /// What earlier runs of the job have left, if there were any.
    pub past: Option<Past>,
    /// The batch, unless earlier runs have read it to its end.
    pub reader: Option<BatchReader>,
    /// More may be long in coming, so each message goes on at once.
    pub is_live: bool,
}

/// The intake thread: hands on what earlier runs have left, then reads the batch to its end.
pub fn take_in(reading: Reading, shared: &Shared, to_router: &Sender<Vec<Addressed>>) -> ReadEnd {
    let mut end = ReadEnd::default();
    let mut teller = Teller::new(shared.book.clone(), QueueId::GENERAL);
    if let Some(past) = &reading.past {
        past::take_up(past, shared, &mut teller, to_router);
    }
    let Some(mut reader) = reading.reader else {
        return end;
    };
    let mut pending = Pending::default();
    loop {
        match reader.next_arrival() {
            Ok(Some(arrival)) => {
                let past = reading.past.as_ref();
                admit(&arrival, past, shared, &mut pending, &mut end);
            }
            Ok(None) => break,
            Err(error) => {
                end.error = Some(error);
                break;
            }
        }
        let is_full = pending.len() >= CHUNK || reading.is_live;
        if is_full && !pending.hand_on(shared, &mut teller, to_router) {
            return end;
        }
    }
    pending.hand_on(shared, &mut teller, to_router);
    end.repeated = reader.repeated();
    end
}

/// What has been read and not handed on.
#[derive(Default)]
struct Pending {
    addressed: Vec<Addressed>,
    /// Verdicts on mail that is not sent at all.
    unsent: Vec<Attempt>,
    /// Mail that another run may take.
    left: Vec<(RecipientNo, Status)>,
}

impl Pending {
    fn len(&self) -> usize {
        self.addressed.len() + self.unsent.len() + self.left.len()
    }

    /// Hands it on, once it can be found again by a later run: the journal must name nobody whom the index does not know. False
    /// if that cannot be ensured: then nothing of it is sent.
    fn hand_on(
        &mut self,
        shared: &Shared,
        teller: &mut Teller,
        to_router: &Sender<Vec<Addressed>>,
    ) -> bool {
        let addressed = std::mem::replace(&mut self.addressed, Vec::with_capacity(CHUNK));
        let unsent = std::mem::take(&mut self.unsent);
        let mut left = std::mem::take(&mut self.left);
        if let Err(error) = shared.store.flush() {
            shared.book.fail(&error);
            let addressed = addressed.iter().map(|one| one.envelope.recipient);
            let unsent = unsent.iter().map(|one| one.recipient);
            left.extend(addressed.chain(unsent).map(|who| (who, Status::Queued)));
            shared.book.enter(Entry::Left { recipients: left });
            return false;
        }
        unsent.iter().for_each(|attempt| teller.add(attempt));
        teller.tell();
        if !left.is_empty() {
            teller.leave(left);
        }
        let _ = to_router.send(addressed);
        true
    }
}

/// Tells the ledger who is to get the message, settles what cannot be sent, and hands on the rest, but for those whom an
/// earlier run has settled, although its index of them is lost.
fn admit(
    arrival: &Arrival<'_>,
    past: Option<&Past>,
    shared: &Shared,
    pending: &mut Pending,
    end: &mut ReadEnd,
) {
    let Some(last) = arrival.recipients.last() else {
        return;
    };
    shared.settings.trip.at("intake");
    let gauges = &shared.gauges;
    gauges
        .messages
        .fetch_add(u64::from(arrival.is_complete), Relaxed);
    gauges
        .recipients
        .fetch_add(arrival.recipients.len() as u64, Relaxed);
    shared.book.enter(Entry::Admitted { last: last.no });
    for problem in arrival.problems {
        end.problem_count += 1;
        if end.problems.len() < PROBLEMS_KEPT {
            let hint = problem
                .hint()
                .map(|hint| format!("; {hint}"))
                .unwrap_or_default();
            end.problems.push(format!("{problem}{hint}"));
        }
    }
    let mut rng = fastrand::Rng::new();
    for recipient in arrival.recipients {
        let left = past.map_or(Some(Default::default()), |past| {
            past.left(recipient.no, &mut rng)
        });
        let Some((passage, not_before)) = left else {
            continue;
        };
        let mut envelope = Envelope::new(arrival.message, recipient.no);
        envelope.passage = passage;
        let unsent = match &recipient.outcome {
            Ok(mailbox) => shared.settings.suppression.verdict(mailbox).ok_or(mailbox),
            Err(problem) => Ok(problem.verdict()),
        };
        match unsent {
            Ok(verdict) => pending.unsent.push(unsent_attempt(&envelope, verdict)),
            Err(mailbox) if !shared.settings.portion.takes(mailbox.domain()) => {
                pending.left.push((recipient.no, retry::pending(passage)));
            }
            Err(mailbox) => pending.addressed.push(Addressed {
                envelope,
                not_before,
                domain: mailbox.domain().clone(),
            }),
        }
    }
}

/// What the ledger is told of a recipient whose mail is not sent at all: it cannot be, or must not.
pub fn unsent_attempt(envelope: &Envelope, verdict: Verdict) -> Attempt {
    Attempt {
        recipient: envelope.recipient,
        verdict,
        via: Via::none(QueueId::GENERAL),
        passage: envelope.passage,
        at: jiff::Timestamp::now().as_millisecond(),
        took_ms: 0,
    }
}

/// The router's state.
pub struct Router {
    routes: Arc<RouteTable>,
    /// If all mail goes to relays: the policies that tell destinations apart.
    relayed: Option<Arc<Policies>>,
    known: HashMap<Domain, (DestinationId, QueueId)>,
    relay_numbers: HashMap<(QueueId, Option<TlsPolicy>), DestinationId>,
    interner: Interner,
    inboxes: Vec<Sender<Inbox>>,
    /// Queues forward mail to one another until the end of the run.
    forwards: bool,
}

impl Router {
    /// A router to these inboxes; `relayed` holds the TLS policies, if all mail goes to relays and not to MX hosts; `promotes`:
    /// sites may get queues of their own.
    pub fn new(
        routes: Arc<RouteTable>,
        relayed: Option<Arc<Policies>>,
        inboxes: Vec<Sender<Inbox>>,
        promotes: bool,
    ) -> Router {
        let forwards = promotes || routes.has_mx_patterns();
        let (known, relay_numbers, interner) = Default::default();
        Router {
            routes,
            relayed,
            known,
            relay_numbers,
            interner,
            inboxes,
            forwards,
        }
    }

    /// The names of destinations by their numbers: the router adds to them, resolvers read them.
    pub fn names(&self) -> DestinationNames {
        self.interner.names()
    }

    /// The router thread: posts what intake hands it until there is no more, and says so to the queues.
    pub fn work(mut self, from_intake: &Receiver<Vec<Addressed>>, trip: &Trip) {
        for chunk in from_intake {
            trip.at("router");
            let mut queues: HashMap<DestinationId, QueueId> = HashMap::new();
            let mut postponed: HashMap<DestinationId, Vec<(Envelope, Instant)>> = HashMap::new();
            let mut fresh = Vec::with_capacity(chunk.len());
            for addressed in chunk {
                let (destination, queue) = self.destination_of(&addressed.domain);
                queues.insert(destination, queue);
                let envelope = addressed.envelope;
                match addressed.not_before {
                    Some(due) => postponed
                        .entry(destination)
                        .or_default()
                        .push((envelope, due)),
                    None => fresh.push((envelope.message, envelope.recipient, destination)),
                }
            }
            for (destination, envelopes) in route::clones(fresh) {
                self.post(
                    queues[&destination],
                    Event::Post {
                        destination,
                        envelopes,
                    },
                );
            }
            for (destination, envelopes) in postponed {
                self.post(
                    queues[&destination],
                    Event::Postponed {
                        destination,
                        envelopes,
                    },
                );
            }
        }
        self.close_input();
    }

    fn post(&self, queue: QueueId, event: Inbox) {
        let _ = self.inboxes[queue.index()].send(event);
    }

    /// Nothing more will be posted. Where MX patterns are configured, or sites are promoted, queues still forward to one
    /// another: there, the end of the run tells them.
    fn close_input(&self) {
        if self.forwards {
            return;
        }
        for inbox in &self.inboxes {
            let _ = inbox.send(Event::InputClosed);
        }
    }

    /// The destination of a domain's mail, and the queue that handles it.
    fn destination_of(&mut self, domain: &Domain) -> (DestinationId, QueueId) {
        if let Some(known) = self.known.get(domain) {
            return *known;
        }
        let queue = self.routes.queue_of(domain.as_str());
        let mut intern = || self.interner.intern(domain.as_str()).0;
        let number = match &self.relayed {
            None => intern(),
            Some(policies) => {
                // The same relay in two queues is two destinations, since a destination belongs to one queue; and so is
                // it under two policies, since a transaction obeys one. Any of its domains can stand for them all: the
                // policy that its name leads to is that of each.
                let kind = (queue, policies.of_domain(domain.as_str()));
                *self.relay_numbers.entry(kind).or_insert_with(intern)
            }
        };
        self.known.insert(domain.clone(), (number, queue));
        (number, queue)
    }
}
