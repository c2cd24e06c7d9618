//! Pace: a configured rate, kept exactly. "600/min" means that no minute whatsoever sees more than 600.
//!
//! Two things together. A generic cell rate algorithm (GCRA) spreads the slots evenly, with a small tolerance, so that a caller
//! who looks a little late loses nothing. A log of what was taken within the last `per` is the guarantee: whatever the pattern
//! of takes and give-backs, no window of that length holds more than `events`. The log has at most 130 entries: takes that are
//! close together share one, which leaves the window with its last take, never too early.
//!
//! Why not the crate `governor`: it answers whether a cell may pass now, and with 8 threads made 8 failed checks per permit
//! (measured). Here a caller takes as many slots as are free at once and is told when the next one is; nobody polls. Neither has
//! governor slots that can be given back, nor a bound for every window: GCRA alone lets burst + rate through in one.
//!
//! With an explicit burst ("600/min burst 50") the rate is a token bucket as others know it: a window sees up to events + burst.
//!
//! INVARIANTS: taken and not given back within any closed window of length `per` <= events (+ burst, if explicit); slots given
//! back are taken from when they were taken, so that they never hide one that was used later. No clock: `now` is an argument, and
//! may stand still but must not go back.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The entries of a log share so many parts of `per`.
const PARTS: u32 = 128;
/// Who looks for a slot may be so late without losing one.
const LATENESS: Duration = Duration::from_millis(25);
/// No window is longer, so that instants cannot overflow.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// So many events per time: "600/min", "100/s", "20/h", "1000/day", "600/min burst 50".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many, at least 1.
    pub events: u32,
    /// In which time.
    pub per: Duration,
    /// How many at once, on top; without it the events are spread evenly.
    pub burst: Option<u32>,
}

const UNITS: [(&str, u64); 12] = [
    ("s", 1),
    ("min", 60),
    ("h", 3600),
    ("day", 86_400),
    ("sec", 1),
    ("second", 1),
    ("m", 60),
    ("minute", 60),
    ("hour", 3600),
    ("hr", 3600),
    ("d", 86_400),
    ("days", 86_400),
];

impl Rate {
    /// So many events per minute, spread evenly.
    pub fn per_minute(events: u32) -> Rate {
        Rate {
            events: events.max(1),
            per: Duration::from_secs(60),
            burst: None,
        }
    }

    /// How many of them a minute has room for, burst not counted.
    pub fn in_a_minute(&self) -> f64 {
        f64::from(self.events) * 60.0 / self.per.as_secs_f64().max(0.001)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.per.as_secs();
        let unit = UNITS.iter().find(|(_, length)| *length == secs);
        match unit {
            Some((name, _)) if self.per.subsec_nanos() == 0 => {
                write!(out, "{}/{name}", self.events)?;
            }
            _ => write!(out, "{}/{}s", self.events, self.per.as_secs_f64())?,
        }
        match self.burst {
            Some(burst) => write!(out, " burst {burst}"),
            None => Ok(()),
        }
    }
}

/// A text that is no rate: what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateError(String);

impl fmt::Display for RateError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}; a rate is written like 600/min, 100/s, 20/h, 1000/day or 600/min burst 50",
            self.0
        )
    }
}

impl std::error::Error for RateError {}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        let (steady, burst) = match text.split_once("burst") {
            None => (text.trim(), None),
            Some((steady, burst)) => (steady.trim(), Some(count(burst.trim(), "the burst")?)),
        };
        let Some((events, per)) = steady.split_once('/') else {
            return Err(RateError(format!("\"{text}\" does not say per what time")));
        };
        Ok(Rate {
            events: count(events.trim(), "the number of events")?,
            per: period(per.trim())?,
            burst,
        })
    }
}

fn count(text: &str, what: &str) -> Result<u32, RateError> {
    let digits: String = text.chars().filter(|c| *c != '_' && *c != ',').collect();
    if digits.is_empty() || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(RateError(format!("{what} is \"{text}\", not a number")));
    }
    match digits.parse::<u32>() {
        Ok(0) => Err(RateError(format!(
            "{what} is 0, which would let nothing through"
        ))),
        Ok(number) => Ok(number),
        Err(_) if digits.bytes().all(|b| b.is_ascii_digit()) => Err(RateError(format!(
            "{what} is {text}, more than {}",
            u32::MAX
        ))),
        Err(_) => Err(RateError(format!(
            "{what} is \"{text}\", not a whole number"
        ))),
    }
}

/// "min", but also "10min" and "0.5s".
fn period(text: &str) -> Result<Duration, RateError> {
    let at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let Some((_, secs)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(RateError(format!(
            "\"{unit}\" is no unit of time (s, min, h, day)"
        )));
    };
    let number = match number.trim() {
        "" => Ok(1.0),
        number => number.parse::<f64>(),
    };
    number
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * *secs as f64).ok())
        .filter(|per| *per >= Duration::from_millis(1) && *per <= LONGEST)
        .ok_or_else(|| RateError(format!("\"{text}\" is no time between 1 ms and a year")))
}

/// Even spacing with a tolerance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spacing {
    spacing: Duration,
    /// How many may go at once.
    burst: u32,
    /// When the next slot is due, were all taken when due.
    due: Option<Instant>,
}

impl Spacing {
    pub(super) fn new(spacing: Duration, burst: u32) -> Spacing {
        Spacing {
            spacing: spacing.max(Duration::from_nanos(1)),
            burst: burst.max(1),
            due: None,
        }
    }

    /// Another spacing from now on. What was taken ahead under the old one is not forgotten, but no longer than it would
    /// have taken under the new one.
    pub(super) fn set(&mut self, spacing: Duration, burst: u32, now: Instant) {
        let due = self.due;
        *self = Spacing::new(spacing, burst);
        self.due = due.map(|due| due.min(now + self.spacing.saturating_mul(self.burst)));
    }

    fn tolerance(&self) -> Duration {
        self.spacing.saturating_mul(self.burst - 1)
    }

    /// Slots that are free by `now`.
    pub(super) fn free(&self, now: Instant) -> u32 {
        let ahead = self
            .due
            .map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        match self.tolerance().checked_sub(ahead) {
            None => 0,
            Some(room) => {
                (room.as_nanos() / self.spacing.as_nanos()).min(u128::from(self.burst - 1)) as u32
                    + 1
            }
        }
    }

    pub(super) fn take(&mut self, slots: u32, now: Instant) {
        let from = self.due.map_or(now, |due| due.max(now));
        self.due = Some(from + self.spacing.saturating_mul(slots));
    }

    /// What was taken beyond what was free holds back no longer than this.
    fn owe_at_most(&mut self, most: Duration, now: Instant) {
        let latest = now + self.tolerance() + most;
        self.due = self.due.map(|due| due.min(latest));
    }

    /// When at least one slot is free.
    pub(super) fn next(&self, now: Instant) -> Instant {
        match self.due {
            Some(due) if due > now + self.tolerance() => due - self.tolerance(),
            _ => now,
        }
    }

    pub(super) fn give_back(&mut self, slots: u32) {
        let back = self.spacing.saturating_mul(slots);
        self.due = self.due.and_then(|due| due.checked_sub(back));
    }
}

/// Takes that lie close together.
#[derive(Clone, Copy, Debug)]
struct Group {
    first: Instant,
    last: Instant,
    slots: u32,
}

/// A rate that is kept: see the head of the file.
#[derive(Clone, Debug)]
pub struct Pace {
    rate: Rate,
    spacing: Spacing,
    log: VecDeque<Group>,
    logged: u64,
    held: Option<Instant>,
    /// The rate is suspended: whatever is asked for is taken, and still logged.
    is_free: bool,
}

impl Pace {
    /// A pace of which nothing was taken yet.
    pub fn new(rate: Rate) -> Pace {
        let rate = Rate {
            events: rate.events.max(1),
            per: rate.per.clamp(Duration::from_millis(1), LONGEST),
            burst: rate.burst.map(|burst| burst.max(1)),
        };
        let (spacing, burst) = spacing_of(&rate);
        Pace {
            rate,
            spacing: Spacing::new(spacing, burst),
            log: VecDeque::new(),
            logged: 0,
            held: None,
            is_free: false,
        }
    }

    /// No rate from now on. What is taken counts all the same, once there is one again.
    pub fn set_free(&mut self) {
        self.is_free = true;
    }

    /// False if there is no rate for now.
    pub fn binds(&self) -> bool {
        !self.is_free
    }

    /// The rate that is kept.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Another rate from now on. What was taken so far counts.
    pub fn set(&mut self, rate: Rate, now: Instant) {
        let old = std::mem::replace(self, Pace::new(rate));
        let (spacing, burst) = spacing_of(&self.rate);
        self.spacing = old.spacing;
        self.spacing.set(spacing, burst, now);
        self.log = old.log;
        self.logged = old.logged;
        self.held = old.held;
    }

    /// Takes the slots that are free by `now`, at most `wanted`.
    pub fn take(&mut self, wanted: u32, now: Instant) -> u32 {
        if self.held.is_some_and(|held| now < held) {
            return 0;
        }
        self.forget(now);
        if self.is_free {
            self.enter(wanted, now);
            return wanted;
        }
        let room = self.limit().saturating_sub(self.logged);
        let slots = wanted
            .min(self.spacing.free(now))
            .min(u32::try_from(room).unwrap_or(u32::MAX));
        if slots > 0 {
            self.spacing.take(slots, now);
            self.enter(slots, now);
        }
        slots
    }

    /// Takes one slot whether it is free or not, for what cannot be held back: the debt is paid back before anything is free
    /// again, but no longer than one window takes. True if it was free.
    pub fn charge(&mut self, now: Instant) -> bool {
        let was_free = self.next(now) <= now;
        self.forget(now);
        if self.is_free {
            self.enter(1, now);
            return true;
        }
        self.spacing.take(1, now);
        self.spacing.owe_at_most(self.rate.per, now);
        self.enter(1, now);
        was_free
    }

    /// When at least one slot is free: `now`, or later.
    pub fn next(&self, now: Instant) -> Instant {
        if self.is_free {
            return now;
        }
        let mut at = self.spacing.next(now).max(self.held.unwrap_or(now));
        let mut logged = self.logged;
        for group in &self.log {
            if logged < self.limit() {
                break;
            }
            logged -= u64::from(group.slots);
            at = at.max(group.last + self.rate.per + Duration::from_nanos(1));
        }
        at
    }

    /// Gives slots back that were taken at `taken` and not used.
    pub fn give_back(&mut self, slots: u32, taken: Instant) {
        let mut back = 0;
        for group in self.log.iter_mut().rev() {
            if group.first <= taken {
                // Given back late: the entry has left the log, or holds fewer. Nothing to gain then.
                back = if group.last >= taken {
                    slots.min(group.slots)
                } else {
                    0
                };
                group.slots -= back;
                break;
            }
        }
        self.logged -= u64::from(back);
        if self.binds() {
            self.spacing.give_back(back);
        }
    }

    /// No slot before `at`.
    pub fn hold_until(&mut self, at: Instant) {
        self.held = Some(self.held.map_or(at, |held| held.max(at)));
    }

    /// What a window may hold at most.
    fn limit(&self) -> u64 {
        u64::from(self.rate.events) + u64::from(self.rate.burst.unwrap_or(0))
    }

    /// Entries that no window which ends now or later can hold leave the log.
    fn forget(&mut self, now: Instant) {
        while let Some(group) = self.log.front() {
            if group.last + self.rate.per >= now {
                break;
            }
            self.logged -= u64::from(group.slots);
            self.log.pop_front();
        }
    }

    fn enter(&mut self, slots: u32, now: Instant) {
        self.logged += u64::from(slots);
        if let Some(group) = self.log.back_mut()
            && now.saturating_duration_since(group.first) < self.rate.per / PARTS
        {
            group.last = group.last.max(now);
            group.slots = group.slots.saturating_add(slots);
            return;
        }
        self.log.push_back(Group {
            first: now,
            last: now,
            slots,
        });
    }
}

/// The spacing of a rate, and how many may go at once: without an explicit burst a hundredth of it, or as many as somebody
/// misses who looks a little late.
fn spacing_of(rate: &Rate) -> (Duration, u32) {
    let spacing = (rate.per / rate.events).max(Duration::from_nanos(1));
    let burst = rate.burst.unwrap_or_else(|| {
        let late = (LATENESS.as_nanos() / spacing.as_nanos()) as u32 + 2;
        late.max(rate.events / 100).min(rate.events)
    });
    (spacing, burst)
}

#[cfg(test)]
mod tests;
