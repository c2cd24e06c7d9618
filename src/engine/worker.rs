//! A worker: one OS thread that holds at most one session and blocks on its socket.
//!
//! It takes runs of envelopes of one destination from its channel, makes transactions of them, and tells the ledger and
//! its queue what became of each. It never looks up DNS and decides nothing about other mail.
//!
//! When it takes up the last message it holds it says so ([`Event::Ready`], ahead): when that message's body is due, the
//! next run can then be in its channel, and its first message's commands leave with that body's final dot. A worker that
//! said so only when it was done would pay a round trip more for every run.
//!
//! INVARIANTS: an attempt is told to the ledger before its outcome is told to the queue, so that the queue can never
//! settle what the ledger has not heard of; the session that is open belongs to the site the queue thinks it does; mail
//! leaves only over a session that its destination's TLS policy and its own servers allow, given ahead or not.
//!
//! This is the connection cache: a session stays with its worker while that waits for mail (`idle`), and is used again if it is
//! with the same site (which stands for address, port and relay; credentials belong to relays), protected as the new
//! mail asks for, no older than `session_age`, and if the server has not said 421 or closed it meanwhile, which a look at the
//! socket shows without a round trip.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::desk::Desk;
use super::dial::{self, Wish};
use super::parcel::Parcel;
use super::queue::Inbox;
use super::resolve::Exchange;
use super::session::{Session, Turn};
use super::shared::Shared;
use super::teller::Teller;
use crate::ledger::{Attempt, Via};
use crate::mail::{
    DestinationId, Envelope, QueueId, Scope, SiteId, SourceNo, Status, Verdict, WorkerId,
};
use crate::queue::event::Event;
use crate::smtp::transaction::{RecipientEnd, TransactionEnd};

/// One assignment: a destination, how to reach it, and a run of envelopes.
#[derive(Debug)]
pub struct Run {
    /// Where it goes.
    pub destination: DestinationId,
    /// The site that serves it.
    pub site: SiteId,
    /// The source address that the session is made from.
    pub source: SourceNo,
    /// The messages after which the session is to be ended by us.
    pub messages_per_session: Option<u32>,
    /// How to reach it.
    pub exchange: Arc<Exchange>,
    /// Its number: those of later runs are higher.
    pub serial: u64,
    /// What goes there; envelopes of one message stand together.
    pub envelopes: Vec<Envelope>,
}

/// The session that a run needs.
struct Target {
    site: SiteId,
    source: SourceNo,
    exchange: Arc<Exchange>,
}

/// A worker's state.
pub struct Worker {
    id: WorkerId,
    queue: QueueId,
    shared: Arc<Shared>,
    inbox: Sender<Inbox>,
    runs: Receiver<Run>,
    /// The stop mark: runs up to this number are given back at the next message.
    mark: Arc<AtomicU64>,
    session: Option<Session>,
    /// Before the desk, so that it goes first if the thread panics: what has ended is told, then the rest is settled.
    teller: Teller,
    desk: Desk,
    /// The transaction under way, and the one given ahead.
    parcel: Parcel,
    next: Parcel,
    /// The run given ahead is for this site, and asks for another session than the one that is open: its policy does, or
    /// its servers are others of the same provider.
    other_session: Option<Target>,
    /// Messages begun on the session, and after how many it is to be ended.
    begun: u32,
    messages_max: Option<u32>,
    /// It is recorded that the content of the transaction under way leaves.
    is_intended: bool,
    /// The server has said, in words that are known of it, that it takes no more in this session.
    is_session_full: bool,
    rng: fastrand::Rng,
}

impl Worker {
    /// A worker of `queue` without a session, that takes its runs from this channel and heeds this stop mark.
    pub fn new(
        id: WorkerId,
        queue: QueueId,
        shared: Arc<Shared>,
        inbox: Sender<Inbox>,
        (runs, mark): (Receiver<Run>, Arc<AtomicU64>),
    ) -> Worker {
        let desk = Desk::new(id, inbox.clone(), shared.book.clone(), Via::none(queue));
        let teller = Teller::new(shared.book.clone(), queue);
        Worker {
            id,
            queue,
            shared,
            inbox,
            runs,
            mark,
            session: None,
            teller,
            desk,
            parcel: Parcel::default(),
            next: Parcel::default(),
            other_session: None,
            begun: 0,
            messages_max: None,
            is_intended: false,
            is_session_full: false,
            rng: fastrand::Rng::new(),
        }
    }

    /// Works until the channel is closed: that is how a worker is retired.
    pub fn work(mut self) {
        while let Ok(run) = self.runs.recv() {
            self.deliver(run);
            self.teller.tell();
            let session = self.session.as_ref().map(|session| session.site);
            while self.desk.finish_first(session) {}
        }
        self.drop_session(None);
        self.shared.sockets.forget(self.queue, self.id);
    }

    /// A run, and those that are given ahead.
    fn deliver(&mut self, run: Run) {
        self.messages_max = run.messages_per_session;
        self.desk
            .take_run(run.destination, run.serial, run.envelopes);
        let mut target = Some(Target {
            site: run.site,
            source: run.source,
            exchange: run.exchange,
        });
        while let Some(this) = target {
            self.deliver_over(&this);
            // What waits for a session of its own gets it, unless the one before came to a bad end.
            target = self
                .other_session
                .take()
                .filter(|_| self.session.is_some() && !self.desk.holds_two());
        }
    }

    /// A session, then transactions until nothing is left for it or it is of no more use.
    fn deliver_over(&mut self, target: &Target) {
        self.heed_mark();
        if self.shared.is_stopping() || self.desk.is_empty() || !self.ensure_session(target) {
            return;
        }
        let mut begun = !self.shared.is_stopping() && self.begin_next();
        while begun {
            self.transact(&target.exchange);
            let goes_on = !self.is_turned_back();
            self.finish_first_of_two();
            begun = !self.parcel.is_empty() || goes_on && self.may_begin() && self.begin_next();
        }
        if !self.parcel.is_empty() {
            self.desk.put_back(&self.parcel.envelopes);
            self.parcel.clear();
        }
        if self.session.is_some() && !self.is_session_fit(false) {
            self.drop_own_session();
        }
    }

    /// Reports the first of two runs as soon as it is done: its queue waits for what was deferred.
    fn finish_first_of_two(&mut self) {
        if self.desk.is_first_done() {
            self.teller.tell();
            let session = self.session.as_ref().map(|session| session.site);
            self.desk.finish_first(session);
        }
    }

    /// Makes sure that a usable session with the site is open. If not, the first transaction's envelopes are deferred.
    fn ensure_session(&mut self, target: &Target) -> bool {
        let Target {
            site,
            source,
            exchange,
        } = target;
        let (site, source) = (*site, *source);
        let ours = self.session.as_ref().is_some_and(|session| {
            session.site == site && session.source == source && serves(session, exchange)
        });
        if ours && self.is_session_fit(true) {
            return true;
        }
        if let Some(old) = self.drop_session(Some(site)) {
            let _ = self.inbox.send(Event::Closed {
                worker: self.id,
                site: old,
            });
        }
        // A dial may take long: what was answered before it is not kept from the ledger meanwhile.
        self.teller.tell();
        let began = Instant::now();
        let wish = Wish {
            site,
            exchange,
            source,
            holder: (self.queue, self.id),
            failures: self.desk.failures(),
            is_again: self.desk.is_next_again(),
        };
        match dial::open(&wish, &self.shared, &mut self.rng) {
            Ok(session) => {
                self.session = Some(session);
                self.begun = 0;
                let _ = self.inbox.send(Event::Opened {
                    worker: self.id,
                    setup: began.elapsed(),
                });
                true
            }
            Err(unreached) => {
                let via = Via {
                    mx: unreached.mx,
                    ip: unreached.ip,
                    ..Via::none(self.queue)
                };
                let mut group = Vec::new();
                self.desk
                    .take_group(self.shared.settings.recipients_max, &mut group);
                for envelope in group {
                    self.end(envelope, unreached.verdict.clone(), &via, began);
                }
                false
            }
        }
    }

    fn is_session_fit(&mut self, was_idle: bool) -> bool {
        let age_max = self.shared.settings.session_age_max;
        !self.is_session_full
            && self.has_room_for_message()
            && self
                .session
                .as_mut()
                .is_some_and(|session| session.is_fit(was_idle, age_max))
    }

    /// False once the session has carried as many messages as the site likes: it is ended by QUIT rather than cut.
    fn has_room_for_message(&self) -> bool {
        self.messages_max.is_none_or(|most| self.begun < most)
    }

    /// Ends the session, if one is open. How it ended is told if it was with the site `told_for`.
    fn drop_session(&mut self, told_for: Option<SiteId>) -> Option<SiteId> {
        self.is_session_full = false;
        let mut session = self.session.take()?;
        // A kill behind the farewell must not leave in doubt what was answered before it.
        self.teller.tell();
        if told_for == Some(session.site) {
            self.desk.note_session_end(session.end());
        }
        if let Some(ip) = session.ip {
            if let Some(level) = session.suspected_level() {
                self.shared.hosts.suspect(ip, level, Instant::now());
            }
            if session.is_chunking_suspect() {
                self.shared.hosts.chunking_failed(ip, Instant::now());
            }
        }
        let site = session.site;
        session.close();
        Some(site)
    }

    /// Ends the session in the middle of the run that it was opened for.
    fn drop_own_session(&mut self) {
        let site = self.session.as_ref().map(|session| session.site);
        self.drop_session(site);
    }

    /// True if the rest of the run goes back: the servers have just said that we send too fast, or refused us as the sender,
    /// and that may stop the site.
    fn is_turned_back(&self) -> bool {
        let stops = self.shared.settings.sender_refusals > 0;
        self.desk.is_too_fast() || stops && self.desk.is_sender_refused()
    }

    fn may_begin(&mut self) -> bool {
        !self.shared.is_stopping() && !self.desk.has_host_failed() && self.is_session_fit(false)
    }

    /// Loads the next message of the run and begins its transaction. False if the run has none left.
    fn begin_next(&mut self) -> bool {
        let mut parcel = std::mem::take(&mut self.parcel);
        let loaded = self.load(&mut parcel);
        if loaded && let Some(session) = &mut self.session {
            session.begin(&parcel.mail(self.shared.settings.dsn.as_ref()));
            self.begun += 1;
        }
        self.parcel = parcel;
        loaded
    }

    /// What the operator holds or ends is given back: it is not begun.
    fn heed_mark(&mut self) {
        self.desk.give_back(self.mark.load(Acquire));
    }

    /// Fills `parcel` with the next message that can be sent; those that cannot are settled as invalid on the way.
    fn load(&mut self, parcel: &mut Parcel) -> bool {
        let recipients_max = self.session.as_ref().map_or(1, Session::recipients_max);
        self.heed_mark();
        while self.may_take() && self.desk.take_group(recipients_max, &mut parcel.envelopes) {
            parcel.began = Instant::now();
            let via = Via::none(self.queue);
            for (envelope, verdict) in
                parcel.load(&self.shared.store, &self.shared.settings.signers)
            {
                self.end(envelope, verdict, &via, parcel.began);
            }
            if !parcel.is_empty() {
                if self.desk.has_room() {
                    let _ = self.inbox.send(Event::Ready {
                        worker: self.id,
                        ahead: true,
                    });
                }
                return true;
            }
        }
        false
    }

    /// False if what is next has to wait for another session.
    fn may_take(&self) -> bool {
        self.other_session.is_none() || self.desk.has_more_of_first()
    }

    /// Drives the transaction under way to its end, and with it the beginning of the next, if that one can be given
    /// ahead: then `parcel` holds the next one afterwards, else nothing.
    fn transact(&mut self, exchange: &Exchange) {
        while let Some(session) = &mut self.session {
            // What left with the dot of the message before is no transaction that was under way: it is not ended, but
            // taken back, and goes untried to its queue.
            if self.shared.is_stopping() {
                session.recall();
            }
            match session.turn() {
                Turn::Body => self.send_body(),
                Turn::Done(end) => {
                    self.settle(end, exchange);
                    std::mem::swap(&mut self.parcel, &mut self.next);
                    self.next.clear();
                    return;
                }
                Turn::Ready | Turn::Handshake => unreachable!("a transaction ends with its ends"),
                Turn::Closed(_) => {
                    self.drop_own_session();
                    return;
                }
            }
        }
    }

    /// The content leaves, once it is recorded that it does.
    fn send_body(&mut self) {
        self.begin_ahead();
        let via = self.way();
        let recipients = self.parcel.envelopes.iter().map(|each| each.recipient);
        if self.teller.intend(&via, recipients).is_err() {
            return self.give_up();
        }
        self.is_intended = true;
        if let Some(session) = &mut self.session {
            session.send_body(self.parcel.content.bytes());
            self.shared.settings.trip.at("worker");
        }
    }

    /// What cannot be recorded is not sent: the session ends before the first byte of the content, and what was begun goes
    /// back untried.
    fn give_up(&mut self) {
        self.drop_own_session();
        for parcel in [&mut self.next, &mut self.parcel] {
            self.desk.put_back(&parcel.envelopes);
            parcel.clear();
        }
    }

    /// Gives the next message ahead, so that its commands leave with the final dot of the body that is due: of this run,
    /// else of the next one, if that is in the channel by now.
    fn begin_ahead(&mut self) {
        let runs_ahead = self.session.as_ref().is_some_and(Session::runs_ahead);
        if !runs_ahead
            || self.shared.is_stopping()
            || self.is_turned_back()
            || !self.has_room_for_message()
            || !self.next.is_empty()
        {
            return;
        }
        if self.desk.has_room()
            && let Ok(run) = self.runs.try_recv()
        {
            let session = self.session.as_ref();
            if !session.is_some_and(|session| serves(session, &run.exchange)) {
                self.other_session = Some(Target {
                    site: run.site,
                    source: run.source,
                    exchange: run.exchange,
                });
            }
            self.messages_max = run.messages_per_session;
            self.desk
                .take_run(run.destination, run.serial, run.envelopes);
        }
        let mut next = std::mem::take(&mut self.next);
        if self.load(&mut next) {
            let dsn = self.shared.settings.dsn.as_ref();
            let session = self.session.as_mut();
            if session.is_some_and(|session| session.begin_ahead(&next.mail(dsn))) {
                self.begun += 1;
            } else {
                self.desk.put_back(&next.envelopes);
                next.clear();
            }
        }
        self.next = next;
    }

    /// The ends of a transaction become attempts, and what was not tried goes back to the run.
    fn settle(&mut self, end: TransactionEnd, exchange: &Exchange) {
        let parcel = std::mem::take(&mut self.parcel);
        let via = self.way();
        let is_taken = |end: &RecipientEnd| matches!(end, RecipientEnd::Verdict(v) if v.status == Status::Delivered);
        if let Some(session) = &mut self.session
            && end.ends.iter().any(is_taken)
        {
            session.trust();
        }
        let mut untried = Vec::new();
        for (envelope, end) in parcel.envelopes.iter().zip(end.ends) {
            match end {
                RecipientEnd::Verdict(mut verdict) => {
                    // A run given ahead is for the same site, so these words are those of its provider, too.
                    dial::judge(&mut verdict, exchange, &self.shared);
                    self.is_session_full |= verdict.scope == Scope::Session;
                    self.end(*envelope, verdict, &via, parcel.began);
                }
                RecipientEnd::Again | RecipientEnd::NotTried => untried.push(*envelope),
            }
        }
        if std::mem::take(&mut self.is_intended) {
            self.teller.untried(&untried);
        }
        self.desk.put_back(&untried);
        self.parcel = parcel;
        self.parcel.clear();
        self.teller.tell_if_due();
    }

    fn end(&mut self, envelope: Envelope, verdict: Verdict, via: &Via, began: Instant) {
        self.desk.end(envelope, &verdict);
        if verdict.status == Status::Deferred
            && verdict.scope == Scope::Recipient
            && let (Some(ip), Some(session)) = (via.ip, &self.session)
        {
            self.shared.hosts.put_off(session.site, ip);
        }
        self.teller.add(&Attempt {
            recipient: envelope.recipient,
            passage: envelope.passage.after(&verdict),
            verdict,
            via: via.clone(),
            at: jiff::Timestamp::now().as_millisecond(),
            took_ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
        });
    }

    fn way(&self) -> Via {
        match &self.session {
            Some(session) => Via {
                mx: Arc::clone(&session.mx),
                ip: session.ip,
                tls: Arc::clone(&session.tls),
                ..Via::none(self.queue)
            },
            None => Via::none(self.queue),
        }
    }
}

/// True if mail for this exchange of the session's site may leave over the session.
fn serves(session: &Session, exchange: &Exchange) -> bool {
    session.satisfies(exchange.tls) && exchange.leads_to(&session.mx, session.ip)
}
