//! What rate signals taught, and what is tried next. The rules are in the head of the parent file.
//!
//! INVARIANTS: the rate is positive and finite; `held` only moves forward within an episode (from one signal to the first message
//! that was accepted after it). Instants cannot overflow: no rest is longer than a day.

use std::time::{Duration, Instant};

use super::history::History;
use crate::queue::pace::Spacing;

/// So much of an estimate is used.
const BELOW: f64 = 0.99;
/// The slowest rate, per minute, that is ever concluded.
const SLOWEST: f64 = 1.0;
/// Faster than this is no limit any more.
const FASTEST: f64 = 6_000_000.0;
/// Rests after signals in a row, in seconds.
const RESTS: [u64; 10] = [2, 5, 10, 20, 10, 10, 20, 60, 120, 300];
/// The longest wish of a server that is obeyed.
const HINT_MAX: Duration = Duration::from_secs(86_400);
/// A message that was let through alone, and of which nobody reports, is given up after this.
const PROBE_LOST: Duration = Duration::from_secs(60);
/// Two signals within this time: the rate goes down in any case, the more the more of them follow each other.
const SOON: Duration = Duration::from_secs(20);
/// What the count of the last minute is compared with has to be longer than this.
const MINUTE: Duration = Duration::from_secs(60);
/// Less than this part of it, and the count is wrong.
const FOOLED: f64 = 0.65;
/// The time between two steps of the rate, when it grows fast.
const FAST_STEP: Duration = Duration::from_secs(12);
/// The same below a known estimate and when it creeps.
const SLOW_STEP: Duration = Duration::from_secs(30);
/// The same for an estimate that may be far too low.
const CREEP_SOON: Duration = Duration::from_secs(50);
/// Without a signal for so long, the rate creeps beyond its estimate.
const CREEP_AFTER: Duration = Duration::from_secs(150);

/// What is going on.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Phase {
    /// Messages go at the rate.
    Flowing,
    /// After a signal: nothing before `held`, then one message alone; since when it is on its way.
    Probing(Option<Instant>),
}

/// The learned rate.
#[derive(Clone, Debug)]
pub struct Learning {
    /// Messages per minute.
    rate: f64,
    /// What the server takes, as far as it showed.
    estimate: Option<f64>,
    /// It is not the first guess, or it held when it was put to the test: not to be dropped for one lucky message.
    confirmed: bool,
    /// No minute is to hold more than the rate.
    by_minute: bool,
    phase: Phase,
    held: Instant,
    spacing: Spacing,
    /// Signals with nothing accepted in between.
    row: u32,
    /// Signals in a row that came soon after the one before.
    soon: u32,
    /// The last signal that counted, and what was accepted since.
    signal: Instant,
    accepted: u64,
    /// What had left the minute when it came.
    left: u64,
    /// The estimate comes from a rate that grew fast, or from a time with rests in it: it may be far too low, and is tried sooner.
    fresh: bool,
    /// The last step of the rate, the next one's size, and whether the rate was used up since.
    stepped: Instant,
    step: f64,
    used_up: bool,
}

impl Learning {
    /// From the first signal.
    pub fn from_signal(history: &History, now: Instant, rng: &mut fastrand::Rng) -> Learning {
        let estimate = (history.count(now) as f64).max(SLOWEST);
        let mut learning = Learning::at(estimate, now);
        learning.by_minute = true;
        learning.rest(history, now, rng);
        learning
    }

    /// From an earlier run: at this rate no more complaint came.
    pub fn from_known(rate: f64, now: Instant) -> Learning {
        Learning::at(rate.clamp(SLOWEST, FASTEST) / BELOW, now)
    }

    fn at(estimate: f64, now: Instant) -> Learning {
        let rate = (estimate * BELOW).max(SLOWEST);
        let (spacing, burst) = spacing_of(rate);
        Learning {
            rate,
            estimate: Some(estimate),
            confirmed: false,
            by_minute: false,
            phase: Phase::Flowing,
            held: now,
            spacing: Spacing::new(spacing, burst),
            row: 0,
            soon: 0,
            signal: now,
            accepted: 0,
            left: 0,
            fresh: false,
            stepped: now,
            step: 0.0,
            used_up: false,
        }
    }

    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Whether the rate grew so large that it limits nothing.
    pub fn is_over(&self) -> bool {
        self.rate >= FASTEST
    }

    /// Slots that are free by now, at most `wanted`.
    pub fn free(&mut self, wanted: u32, history: &History, now: Instant) -> u32 {
        let free = self.free_now(wanted, history, now);
        self.used_up |= free < wanted;
        free
    }

    fn free_now(&self, wanted: u32, history: &History, now: Instant) -> u32 {
        if now < self.held {
            return 0;
        }
        match self.phase {
            Phase::Probing(Some(since)) if now < since + PROBE_LOST => 0,
            Phase::Probing(_) => wanted.min(1),
            Phase::Flowing => wanted
                .min(self.spacing.free(now))
                .min(self.room(history, now)),
        }
    }

    /// What the last minute has room for.
    fn room(&self, history: &History, now: Instant) -> u32 {
        if !self.by_minute {
            return u32::MAX;
        }
        (self.rate as u64)
            .saturating_sub(history.count(now))
            .min(u64::from(u32::MAX)) as u32
    }

    pub fn take(&mut self, slots: u32, now: Instant) {
        if slots == 0 {
            return;
        }
        self.spacing.take(slots, now);
        // Who comes only when a slot is due never asks in vain.
        self.used_up |= self.spacing.free(now) == 0;
        if let Phase::Probing(_) = self.phase {
            self.phase = Phase::Probing(Some(now));
        }
    }

    pub fn give_back(&mut self, slots: u32, taken: Instant) {
        self.spacing.give_back(slots);
        self.answered_otherwise(taken);
    }

    /// The message that went alone tells nothing: another one may go.
    pub fn answered_otherwise(&mut self, taken: Instant) {
        if let Phase::Probing(Some(since)) = self.phase
            && taken >= since
        {
            self.phase = Phase::Probing(None);
        }
    }

    /// Whether what was taken then was on its way already when the last signal came.
    fn is_old(&self, taken: Instant) -> bool {
        taken <= self.signal
    }

    /// When at least one slot is free.
    pub fn next(&self, history: &History, now: Instant) -> Instant {
        let at = match self.phase {
            Phase::Probing(Some(since)) => since + PROBE_LOST,
            Phase::Probing(None) => now,
            Phase::Flowing if self.room(history, now) == 0 => history
                .falls_to((self.rate as u64).saturating_sub(1), now)
                .max(self.spacing.next(now)),
            Phase::Flowing => self.spacing.next(now),
        };
        at.max(self.held)
    }

    /// A wish of the server.
    pub fn hold(&mut self, hint: Duration, now: Instant) {
        self.held = self.held.max(now + hint.min(HINT_MAX));
    }

    /// Messages were accepted; `history` does not count them yet.
    pub fn accepted(&mut self, messages: u32, taken: Instant, history: &History, now: Instant) {
        if self.is_old(taken) {
            self.accepted_before(messages, now);
            return;
        }
        self.accepted += u64::from(messages);
        self.row = 0;
        if self.phase != Phase::Flowing {
            self.answered_well(history, now);
        }
        self.grow(history, now);
    }

    /// Messages that the server had taken before it complained, as was not known then: the first guess was too low.
    fn accepted_before(&mut self, messages: u32, now: Instant) {
        if let Some(estimate) = &mut self.estimate
            && !self.confirmed
            && self.by_minute
        {
            *estimate += f64::from(messages);
            let rate = *estimate * BELOW;
            self.set_rate(rate, now);
        }
    }

    /// The message that went alone was accepted: what does that say of the estimate?
    fn answered_well(&mut self, history: &History, now: Instant) {
        self.phase = Phase::Flowing;
        self.stepped = now;
        self.used_up = false;
        if history.left_by(now) > self.left {
            self.confirmed = true;
        } else if !self.confirmed {
            self.estimate = None;
            self.by_minute = false;
            self.step = 1.0;
        }
        self.set_rate(self.rate, now);
    }

    fn grow(&mut self, history: &History, now: Instant) {
        let waited = now.saturating_duration_since(self.stepped);
        let pause = if self.estimate.is_none() || self.fresh {
            FAST_STEP
        } else {
            SLOW_STEP
        };
        let below = self
            .estimate
            .is_some_and(|estimate| self.rate < estimate * BELOW * 0.999);
        if waited < if below { FAST_STEP } else { pause } || !self.used_up {
            return;
        }
        self.stepped = now;
        self.used_up = false;
        match self.estimate {
            None => {
                self.set_rate(self.rate * (1.0 + self.step), now);
                self.step = (self.step * 2.0).min(1.0);
            }
            Some(estimate) if below => self.set_rate((self.rate * 1.5).min(estimate * BELOW), now),
            Some(estimate) if now.saturating_duration_since(self.signal) >= self.creeps_after() => {
                self.set_rate(self.rate + (estimate * 0.01).max(0.1), now);
                if history.count(now) as f64 > estimate + 1.0 && self.rate > estimate * 1.02 {
                    self.estimate = None;
                    self.step = if self.fresh { 0.08 } else { 0.02 };
                }
            }
            Some(_) => {}
        }
    }

    /// A rate signal, to a message whose slot was taken then.
    pub fn signal(
        &mut self,
        taken: Instant,
        history: &History,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        if self.is_old(taken) {
            return;
        }
        let count = (history.count(now) as f64).max(SLOWEST);
        if self.accepted == 0 {
            self.row += 1;
            let rate = self.rate.min(count * BELOW).max(self.rate / 2.0);
            self.set_rate(rate, now);
        } else {
            self.row = 0;
            self.fresh = self.estimate.is_none();
            let estimate = self.estimate_from(count, now);
            self.confirmed = true;
            self.estimate = Some(estimate);
            self.by_minute = true;
            self.set_rate(estimate * BELOW, now);
        }
        self.rest(history, now, rng);
    }

    /// What the server takes per minute, when a signal comes after accepted messages.
    fn estimate_from(&mut self, count: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.signal);
        let mut estimate = count;
        if passed >= SOON / 2 && self.accepted >= 5 {
            let between = self.accepted as f64 * 60.0 / passed.as_secs_f64();
            // Over more than a minute much less went through than in the last one: what counts is not the last minute.
            let fooled = passed >= MINUTE && between < count * FOOLED && !self.has_grown();
            self.fresh |= fooled;
            estimate = if fooled { between } else { count.max(between) };
        }
        estimate = estimate.min(self.rate);
        if passed < SOON {
            self.soon = self.soon.saturating_add(1).min(4);
            let less = 0.015 * f64::from(1 << self.soon);
            estimate = estimate.min(self.rate * (1.0 - less));
        } else {
            self.soon = 0;
        }
        estimate.max(SLOWEST)
    }

    fn creeps_after(&self) -> Duration {
        if self.fresh { CREEP_SOON } else { CREEP_AFTER }
    }

    /// Whether the rate was raised beyond what the estimate allows.
    fn has_grown(&self) -> bool {
        self.estimate
            .is_none_or(|estimate| self.rate > estimate * BELOW * 1.001)
    }

    fn rest(&mut self, history: &History, now: Instant, rng: &mut fastrand::Rng) {
        let secs = RESTS[(self.row as usize).min(RESTS.len() - 1)] as f64;
        let rest = Duration::from_secs_f64(secs * (0.9 + 0.2 * rng.f64()));
        let mut until = now + rest;
        // No longer than until the minute has room again, while that may be what the server waits for.
        let room = self
            .estimate
            .map_or(0, |estimate| (estimate * BELOW) as u64);
        if self.by_minute && history.count(now) >= room {
            let shortest = now + Duration::from_secs(RESTS[0]);
            until = until.min(history.falls_to(room.saturating_sub(1), now).max(shortest));
        }
        self.held = self.held.max(until);
        self.phase = Phase::Probing(None);
        self.signal = now;
        self.left = history.left_by(now);
        self.accepted = 0;
        self.step = 0.0;
    }

    fn set_rate(&mut self, rate: f64, now: Instant) {
        self.rate = rate.clamp(SLOWEST, FASTEST);
        let (spacing, burst) = spacing_of(self.rate);
        self.spacing.set(spacing, burst, now);
    }
}

/// Evenly, with the tolerance that somebody needs who looks 25 ms late.
fn spacing_of(rate: f64) -> (Duration, u32) {
    let spacing = Duration::from_secs_f64(60.0 / rate);
    let late = (0.025 / spacing.as_secs_f64()) as u32;
    (spacing, late + 2)
}
