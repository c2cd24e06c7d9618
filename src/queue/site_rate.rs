//! The rate of one (site, source address): a configured maximum, kept exactly, and one that is learned from rate signals.
//!
//! Servers say "too fast" and nothing more. They may count within a sliding minute, within each minute of the clock, or with
//! a bucket that fills again; limits change. So nothing is assumed but what their replies show:
//!
//! - The first signal gives an estimate: what was accepted within the last minute. Openings of the gate follow after a rest
//!   that grows with each signal in a row; each lets one message through, alone, and its reply decides. If it is accepted while the
//!   minute is still as full as when the signal came, the server does not count minutes: the estimate is dropped and the rate
//!   doubles until the next signal. Otherwise the estimate held, and messages go at a little less than that (`BELOW` in `learning`), evenly spaced, so that the
//!   next signal, if any, costs one or two attempts.
//! - Between two signals the server took exactly what it was willing to: that is the second estimate.
//! - Up to the estimate the rate recovers fast. Then it creeps, and once it is past the estimate without a signal its
//!   steps double: a limit that was raised is found in minutes.
//!
//! INVARIANTS: a configured rate is never exceeded; without one and without a signal there is no limit; while messages rest,
//! none goes; of the messages in flight when a signal comes, further signals change nothing. Randomness is passed in.

use std::time::{Duration, Instant};

use super::pace::{Pace, Rate};
use super::terms::SiteTerms;

mod history;
mod learning;

use history::History;
use learning::Learning;

/// The rate of one (site, source address).
#[derive(Clone, Debug)]
pub struct SiteRate {
    configured: Option<Pace>,
    history: History,
    /// What an earlier run learned, until it is first used.
    known: Option<f64>,
    learning: Option<Learning>,
}

impl SiteRate {
    /// As it is before the first session.
    pub fn new(terms: &SiteTerms) -> SiteRate {
        SiteRate {
            configured: terms.rate.map(Pace::new),
            history: History::new(),
            known: terms.learned.and_then(|learned| learned.rate_per_minute),
            learning: None,
        }
    }

    /// Another configured rate from now on, or none. What was taken and learned counts.
    pub fn set_configured(&mut self, rate: Option<Rate>, now: Instant) {
        match (&mut self.configured, rate) {
            (Some(pace), Some(rate)) => pace.set(rate, now),
            (Some(pace), None) => pace.set_free(),
            (None, rate) => self.configured = rate.map(Pace::new),
        }
    }

    /// Takes slots for messages: those free by `now`, at most `wanted`.
    pub fn take(&mut self, wanted: u32, now: Instant) -> u32 {
        self.recall(now);
        let mut slots = wanted;
        if let Some(learning) = &mut self.learning {
            slots = learning.free(slots, &self.history, now);
        }
        if let Some(pace) = &mut self.configured {
            slots = pace.take(slots, now);
        }
        if let Some(learning) = &mut self.learning {
            learning.take(slots, now);
        }
        slots
    }

    /// When at least one slot is free; `None` if nothing limits the rate.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let configured = self.configured.as_ref().map(|pace| pace.next(now));
        let learning = self.learning.as_ref();
        configured.max(learning.map(|learning| learning.next(&self.history, now)))
    }

    /// Gives slots back that were taken at `taken` and not used.
    pub fn give_back(&mut self, slots: u32, taken: Instant) {
        if slots == 0 {
            return;
        }
        if let Some(pace) = &mut self.configured {
            pace.give_back(slots, taken);
        }
        if let Some(learning) = &mut self.learning {
            learning.give_back(slots, taken);
        }
    }

    /// Messages were accepted whose slots were taken at `taken`.
    pub fn accepted(&mut self, messages: u32, taken: Instant, now: Instant) {
        if messages == 0 {
            return;
        }
        if let Some(learning) = &mut self.learning {
            learning.accepted(messages, taken, &self.history, now);
            if learning.is_over() {
                self.learning = None;
            }
        }
        self.history.add(messages, now);
    }

    /// A message whose slot was taken at `taken` was answered, but neither accepted nor with a rate signal (greylisting, an
    /// unknown user).
    pub fn answered_otherwise(&mut self, taken: Instant) {
        if let Some(learning) = &mut self.learning {
            learning.answered_otherwise(taken);
        }
    }

    /// The server said, to a message whose slot was taken at `taken`, that we send too fast, and perhaps when to come again.
    pub fn signal(
        &mut self,
        taken: Instant,
        hint: Option<Duration>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        self.recall(now);
        match &mut self.learning {
            Some(learning) => learning.signal(taken, &self.history, now, rng),
            None => self.learning = Some(Learning::from_signal(&self.history, now, rng)),
        }
        if let (Some(learning), Some(hint)) = (&mut self.learning, hint) {
            learning.hold(hint, now);
        }
    }

    /// Messages per minute that are sent at most; `None` without a limit.
    pub fn per_minute(&self) -> Option<f64> {
        let configured = self
            .configured
            .as_ref()
            .filter(|pace| pace.binds())
            .map(|pace| pace.rate().in_a_minute());
        match (configured, self.learned()) {
            (Some(configured), Some(learned)) => Some(configured.min(learned)),
            (configured, learned) => configured.or(learned),
        }
    }

    /// Whether messages are counted: there is a rate, or there was one and may be again.
    pub fn counts(&self) -> bool {
        self.configured.is_some() || self.learned().is_some()
    }

    /// The learned rate, per minute.
    pub fn learned(&self) -> Option<f64> {
        self.learning.as_ref().map(Learning::rate).or(self.known)
    }

    /// Whether a learned rate is what limits.
    pub fn is_learned(&self) -> bool {
        self.learned().is_some() && self.learned() == self.per_minute()
    }

    /// What an earlier run learned holds from the first use on.
    fn recall(&mut self, now: Instant) {
        if let Some(known) = self.known.take() {
            self.learning = Some(Learning::from_known(known, now));
        }
    }
}

#[cfg(test)]
mod tests;
