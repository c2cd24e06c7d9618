//! Rates: slots for messages, and what a run tells about a site's window and pace.
//!
//! Slots are taken for a whole run when it is handed out, and what was not used is given back. Of the rates of site and
//! source address, queue, and source address the strictest binds: what a later one does not give goes back to those before.
//!
//! A slot is a transaction of at most as many recipients as the configuration allows. A server that takes fewer at once sees
//! more transactions than slots.

use std::time::{Duration, Instant};

use super::site::Wish;
use super::{News, Notice, Permit, PermitTable};
use crate::mail::{QueueId, SiteId, SourceNo};
use crate::queue::pace::Pace;

/// What was granted of the slots that were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    /// So many messages may be handed out.
    pub granted: u32,
    /// If none: when there will be some.
    pub next: Option<Instant>,
    /// Until then there are none for any site either: the pace is the queue's, or that of all source addresses.
    pub for_all: bool,
}

impl Slots {
    fn none(next: Instant, for_all: bool) -> Slots {
        Slots {
            granted: 0,
            next: Some(next),
            for_all,
        }
    }
}

/// What a finished run tells about the site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Feedback {
    /// Messages that were accepted for somebody.
    pub accepted: u32,
    /// Messages that were put off since we send too fast.
    pub rate_signals: u32,
    /// Messages that were answered, but neither accepted nor with such a signal.
    pub otherwise: u32,
    /// How long the server asked us to wait then.
    pub hint: Option<Duration>,
    /// The host could not be talked to, or the connection was lost.
    pub host_failed: bool,
    /// The session was turned away while others of ours work: so many.
    pub session_refused: bool,
    /// See `session_refused`.
    pub working: u32,
    /// The server ended the session after this many messages.
    pub ended_after: Option<u32>,
    /// We ended the session ourselves after this many messages.
    pub carried: Option<u32>,
}

impl PermitTable {
    /// Takes slots for messages that are to be handed out now.
    pub fn take_messages(
        &mut self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        wanted: u32,
        now: Instant,
    ) -> Slots {
        let Some(lane) = self.sites.get_mut(&site).and_then(|site| site.lane(source)) else {
            debug_assert!(false, "no session with {site:?}");
            return Slots::none(now, false);
        };
        let of_site = lane.rate.take(wanted, now);
        if of_site == 0 && wanted > 0 {
            let next = lane.rate.next(now).unwrap_or(now);
            lane.note_rest(queue, Wish::Slot, next);
            return Slots::none(next, false);
        }
        let mut granted = of_site;
        let queue_rate = self
            .queues
            .get_mut(&queue)
            .and_then(|own| own.rate.as_mut());
        let of_queue = take(queue_rate, granted, now);
        granted = of_queue;
        granted = take(self.source_rates[source.index()].as_mut(), granted, now);
        self.give_back_partly(site, queue, source, [of_site, of_queue], granted, now);
        if granted > 0 || wanted == 0 {
            return Slots {
                granted,
                next: None,
                for_all: false,
            };
        }
        let queue_rate = self.queues.get(&queue).and_then(|own| own.rate.as_ref());
        let of_queue = queue_rate.map_or(now, |pace| pace.next(now));
        let all = of_queue.max(self.sources_next(now));
        if all > now {
            Slots::none(all, true)
        } else {
            Slots::none(self.source_next(source, now), false)
        }
    }

    fn give_back_partly(
        &mut self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        [of_site, of_queue]: [u32; 2],
        granted: u32,
        now: Instant,
    ) {
        if of_site > granted
            && let Some(lane) = self.sites.get_mut(&site).and_then(|site| site.lane(source))
        {
            lane.rate.give_back(of_site - granted, now);
        }
        if of_queue > granted
            && let Some(pace) = self
                .queues
                .get_mut(&queue)
                .and_then(|own| own.rate.as_mut())
        {
            pace.give_back(of_queue - granted, now);
        }
    }

    /// Gives slots back that were taken at `taken` and not used.
    pub fn give_back_messages(
        &mut self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        slots: u32,
        taken: Instant,
    ) {
        self.give_back_partly(site, queue, source, [slots, slots], 0, taken);
        if let Some(Some(pace)) = self.source_rates.get_mut(source.index()) {
            pace.give_back(slots, taken);
        }
        self.end_rests(site, source, self.seen.unwrap_or(taken));
    }

    /// Tells the queues that were told to rest for longer than they have to by now: a message that went alone was answered,
    /// slots came back.
    fn end_rests(&mut self, site: SiteId, source: SourceNo, now: Instant) {
        let Some(lane) = self.sites.get_mut(&site).and_then(|site| site.lane(source)) else {
            return;
        };
        for queue in lane.rests_to_end(now) {
            self.notices
                .push(Notice::new(queue, Permit::Slot(site), News::Free));
        }
    }

    /// Learns from a finished run that was handed out at `taken`.
    pub fn report(
        &mut self,
        site: SiteId,
        source: SourceNo,
        feedback: &Feedback,
        taken: Instant,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        self.seen = Some(now);
        let Some(lane) = self.sites.get_mut(&site).and_then(|site| site.lane(source)) else {
            return;
        };
        if feedback.accepted > 0 {
            lane.window.accepted(feedback.accepted, lane.working(), now);
            lane.rate.accepted(feedback.accepted, taken, now);
        }
        if feedback.otherwise > 0 {
            lane.rate.answered_otherwise(taken);
        }
        if feedback.rate_signals > 0 {
            lane.rate.signal(taken, feedback.hint, now, rng);
        }
        if let Some(messages) = feedback.ended_after {
            lane.limit.note_ended(messages);
            lane.window.session_cut(now);
        }
        if let Some(messages) = feedback.carried {
            lane.limit.note_carried(messages);
        }
        if feedback.session_refused {
            lane.window.session_refused(feedback.working, now);
        } else if feedback.host_failed {
            lane.window.host_error(now);
        }
        self.end_rests(site, source, now);
        self.notify_site(site);
    }

    /// When a message may leave from this address, as far as the rate of the address goes.
    pub(super) fn source_next(&self, source: SourceNo, now: Instant) -> Instant {
        match self.source_rates.get(source.index()) {
            Some(Some(pace)) => pace.next(now),
            _ => now,
        }
    }

    /// When a message may leave from any address.
    pub(super) fn sources_next(&self, now: Instant) -> Instant {
        let all = (0..self.sources).map(|number| self.source_next(SourceNo(number), now));
        all.min().unwrap_or(now)
    }
}

fn take(pace: Option<&mut Pace>, wanted: u32, now: Instant) -> u32 {
    pace.map_or(wanted, |pace| pace.take(wanted, now))
}
