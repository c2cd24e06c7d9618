//! What the table knows of one site: who holds sessions with it, and for each source address its window and its pace.
//!
//! INVARIANTS: the sessions of all lanes together are those of the stock; a lane has at least as many sessions as it is
//! opening. Windows only bound what is taken: a window that shrinks takes nothing away.

use std::time::{Duration, Instant};

use super::stock::Stock;
use crate::mail::{QueueId, SourceNo};
use crate::queue::pace::{Pace, Rate};
use crate::queue::session_limit::SessionLimit;
use crate::queue::site_rate::SiteRate;
use crate::queue::terms::SiteTerms;
use crate::queue::window::{Admission, Window};

/// A rest that could end so much earlier is left as it is.
const SOON: Duration = Duration::from_millis(20);

/// What a queue has to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// A slot for a message.
    Slot,
    /// A session, and a slot for its first message.
    Session,
}

/// One source address at one site.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) window: Window,
    pub(super) rate: SiteRate,
    pub(super) connect_rate: Option<Pace>,
    pub(super) limit: SessionLimit,
    /// Sessions, open or about to be.
    pub(super) held: u32,
    /// Those of them that are being opened.
    pub(super) connecting: u32,
    /// Queues that were told to come again, and when; no queue twice for the same.
    rests: Vec<(QueueId, Wish, Instant)>,
}

impl Lane {
    fn new(terms: &SiteTerms) -> Lane {
        Lane {
            window: Window::new(terms.bounds, terms.learned.as_ref()),
            rate: SiteRate::new(terms),
            connect_rate: terms.connect_rate.map(Pace::new),
            limit: SessionLimit::new(
                terms.messages_per_session,
                terms
                    .learned
                    .and_then(|learned| learned.messages_per_session),
            ),
            held: 0,
            connecting: 0,
            rests: Vec::new(),
        }
    }

    /// A queue is told that it does not get its wish before `until`.
    pub(super) fn note_rest(&mut self, queue: QueueId, wish: Wish, until: Instant) {
        self.rests
            .retain(|(other, same, _)| (*other, *same) != (queue, wish));
        self.rests.push((queue, wish, until));
    }

    /// The queues that may come earlier than they were told; they are forgotten.
    pub(super) fn rests_to_end(&mut self, now: Instant) -> Vec<QueueId> {
        self.rests.retain(|(_, _, until)| *until > now);
        if self.rests.is_empty() {
            return Vec::new();
        }
        let (slot, session) = (self.rate.next(now).unwrap_or(now), self.next(now));
        let mut early = Vec::new();
        self.rests.retain(|(queue, wish, until)| {
            let next = match wish {
                Wish::Slot => slot,
                Wish::Session => session,
            };
            let is_early = *until > next + SOON;
            if is_early && !early.contains(queue) {
                early.push(*queue);
            }
            !is_early
        });
        early
    }

    /// Sessions that could be taken, now or as soon as time allows it. `seen` is any instant that has been.
    pub(super) fn room(&self, seen: Option<Instant>) -> u32 {
        let is_full = |now| self.window.admits(self.held, self.connecting, now) == Admission::Full;
        if seen.is_some_and(is_full) {
            return 0;
        }
        self.window.size().saturating_sub(self.held)
    }

    /// When a session may be opened and carry a message: now, if that is not later.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let connected = self.connect_rate.as_ref().map(|pace| pace.next(now));
        let opened = match self.window.admits(self.held, self.connecting, now) {
            Admission::NotBefore(at) => Some(at),
            Admission::Open | Admission::Full => None,
        };
        let all = [self.rate.next(now), connected, opened];
        all.into_iter().flatten().fold(now, Instant::max)
    }

    /// Sessions that are open.
    pub(super) fn working(&self) -> u32 {
        self.held.saturating_sub(self.connecting)
    }
}

/// One site.
#[derive(Debug)]
pub(super) struct Site {
    /// As they were told; what binds is [`SiteTerms::in_force`].
    pub(super) terms: SiteTerms,
    pub(super) stock: Stock,
    /// By the number of the source address.
    pub(super) lanes: Vec<Lane>,
}

impl Site {
    pub(super) fn new(terms: SiteTerms, sources: u8) -> Site {
        let in_force = terms.in_force();
        Site {
            lanes: (0..sources).map(|_| Lane::new(&in_force)).collect(),
            stock: Stock::default(),
            terms,
        }
    }

    /// Sessions that could be taken, all source addresses together.
    pub(super) fn room(&self, seen: Option<Instant>) -> u32 {
        self.lanes.iter().map(|lane| lane.room(seen)).sum()
    }

    /// Sessions that there may be just now.
    pub(super) fn size(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.window.size()).sum()
    }

    /// Sessions that there may ever be.
    pub(super) fn most(&self) -> u32 {
        let each = self.lanes.iter().map(|lane| lane.window.bounds().max);
        each.fold(0, u32::saturating_add)
    }

    pub(super) fn lane(&mut self, source: SourceNo) -> Option<&mut Lane> {
        self.lanes.get_mut(source.index())
    }

    /// Changes the terms while sessions go on: what was learned is kept.
    pub(super) fn set_terms(&mut self, terms: SiteTerms, now: Instant) {
        let (before, after) = (self.terms.in_force(), terms.in_force());
        for lane in &mut self.lanes {
            lane.window.set_bounds(after.bounds);
            if after.rate != before.rate {
                lane.rate.set_configured(after.rate, now);
            }
            set_pace(&mut lane.connect_rate, after.connect_rate, now);
        }
        self.terms = terms;
    }
}

/// Changes a rate that may be none, and keeps the debt. Without a rate the pace goes on as one that never binds, so that what
/// is taken meanwhile counts when there is one again.
pub(super) fn set_pace(pace: &mut Option<Pace>, rate: Option<Rate>, now: Instant) {
    match (pace.as_mut(), rate) {
        (Some(pace), Some(rate)) => pace.set(rate, now),
        (Some(pace), None) => pace.set_free(),
        (None, rate) => *pace = rate.map(Pace::new),
    }
}
