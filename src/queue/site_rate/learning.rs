//! What rate signals taught, and what is tried next. The rules are in the head of the parent file.
//!
//! INVARIANTS: the rate is positive and finite; `held` only moves forward within an episode (from one signal to the first message
//! that was accepted after it). Instants cannot overflow: no rest is longer than a day.

use std::time::{Duration, Instant};

use super::history::History;
use crate::queue::pace::Spacing;

/// So much of an estimate is used.
const BELOW: f64 = 0.985;
/// The slowest rate, per minute, that is ever concluded.
const SLOWEST: f64 = 1.0;
/// Faster than this is no limit any more.
const FASTEST: f64 = 6_000_000.0;
/// Rests after signals in a row, in seconds.
const RESTS: [u64; 10] = [2, 4, 8, 15, 15, 20, 40, 80, 160, 300];
/// The longest wish of a server that is obeyed.
const HINT_MAX: Duration = Duration::from_secs(86_400);
/// A message that was let through alone, and of which nobody reports, is given up after this.
const PROBE_LOST: Duration = Duration::from_secs(60);
/// Two signals within this time: the rate goes down in any case.
const SOON: Duration = Duration::from_secs(20);
/// The time between two steps of the rate, when it grows fast.
const FAST_STEP: Duration = Duration::from_secs(12);
/// The same below a known estimate and when it creeps.
const SLOW_STEP: Duration = Duration::from_secs(30);
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
    /// No minute is to hold more than the rate.
    by_minute: bool,
    phase: Phase,
    held: Instant,
    spacing: Spacing,
    /// Signals with nothing accepted in between.
    row: u32,
    /// The last signal that counted, and what was accepted since.
    signal: Instant,
    accepted: u64,
    /// What had left the minute when it came.
    left: u64,
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
            by_minute: false,
            phase: Phase::Flowing,
            held: now,
            spacing: Spacing::new(spacing, burst),
            row: 0,
            signal: now,
            accepted: 0,
            left: 0,
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
            return;
        }
        self.accepted += u64::from(messages);
        self.row = 0;
        if self.phase != Phase::Flowing {
            self.answered_well(history, now);
        }
        self.grow(history, now);
    }

    /// The message that went alone was accepted: what does that say of the estimate?
    fn answered_well(&mut self, history: &History, now: Instant) {
        self.phase = Phase::Flowing;
        self.stepped = now;
        self.used_up = false;
        let full = self
            .estimate
            .is_some_and(|estimate| history.count(now) as f64 >= estimate * 0.99);
        if full {
            self.estimate = None;
            self.by_minute = false;
            self.step = 1.0;
        }
        self.set_rate(self.rate, now);
    }

    fn grow(&mut self, history: &History, now: Instant) {
        let waited = now.saturating_duration_since(self.stepped);
        let pause = if self.estimate.is_none() {
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
            Some(estimate) if now.saturating_duration_since(self.signal) >= CREEP_AFTER => {
                self.set_rate(self.rate + (estimate * 0.01).max(0.1), now);
                if history.count(now) as f64 > estimate + 1.0 && self.rate > estimate * 1.02 {
                    self.estimate = None;
                    self.step = 0.02;
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
            let estimate = self.estimate_from(count, now);
            self.estimate = Some(estimate);
            self.by_minute = true;
            self.set_rate(estimate * BELOW, now);
        }
        self.rest(history, now, rng);
    }

    /// What the server takes per minute, when a signal comes after accepted messages.
    fn estimate_from(&self, count: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.signal);
        let mut estimate = count;
        if passed >= SOON / 2 && self.accepted >= 5 {
            let between = self.accepted as f64 * 60.0 / passed.as_secs_f64();
            estimate = estimate.max(between);
        }
        estimate = estimate.min(self.rate);
        if passed < SOON {
            estimate = estimate.min(self.rate * 0.85);
        }
        estimate.max(SLOWEST)
    }

    fn rest(&mut self, history: &History, now: Instant, rng: &mut fastrand::Rng) {
        let secs = RESTS[(self.row as usize).min(RESTS.len() - 1)] as f64;
        let rest = Duration::from_secs_f64(secs * (0.9 + 0.2 * rng.f64()));
        self.held = self.held.max(now + rest);
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
