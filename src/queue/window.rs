//! The window: how many sessions one (site, source address) may have. It finds its size from replies alone.
//!
//! It starts small and grows by one for each *cohort* (as many accepted messages as it has sessions), while it is used up.
//! At the first host error of a cohort it shrinks; the others of the same cohort are the same news and change nothing.
//!
//! A session that is turned away while others work means a ceiling - or the beginning of a storm in which the others are about
//! to fail as well. So a ceiling is only believed when a further cohort was accepted by those others; until then openings wait
//! (and go one at a time, a second apart), and nothing shrinks. A ceiling is tried with one session now and then, after a time
//! that doubles up to four minutes: a raised limit is found soon, and a fixed one costs one attempt in hundreds.
//!
//! The same wait holds after any session that was cut or could not be opened: the next opening goes alone, and what it meets
//! decides. The first accepted message ends the suspicion, and the window is at once what it was.
//!
//! INVARIANTS: 1 <= `size()` <= `max`; a ceiling is exceeded by one session at most. No clock: `now` is an argument. Nothing
//! here can fail or panic, whatever the order of calls.

use std::time::{Duration, Instant};

use super::terms::{Bounds, Learned};

/// The next opening after one that failed waits so long, from the second failure in a row on.
const REST: Duration = Duration::from_secs(1);
/// So many failures in a row pass at that pace, as long as a passing storm lasts (see `STORM`); then the wait doubles.
const STEADY_RESTS: u32 = 30;
/// The longest wait.
const REST_MAX: Duration = Duration::from_secs(60);
/// A ceiling is first tried again after this.
const PROBE_MIN: Duration = Duration::from_secs(10);
/// The time between two trials of a ceiling.
const PROBE_MAX: Duration = Duration::from_secs(240);
/// Messages between two trials of a ceiling, unless [`PROBE_MAX`] is over.
const PROBE_MESSAGES: u32 = 150;

/// Whether a further session may be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Yes.
    Open,
    /// Not before a report changes something.
    Full,
    /// Not before this instant.
    NotBefore(Instant),
}

/// Something went wrong; until a message is accepted, openings go one at a time.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    failures: u32,
    not_before: Instant,
    /// So many sessions worked when one more was turned away.
    ceiling: Option<u32>,
    /// Messages accepted since.
    accepted: u32,
}

/// When a ceiling is tried.
#[derive(Clone, Copy, Debug)]
struct Probe {
    since: Option<Instant>,
    after: Duration,
    messages: u32,
    due: bool,
}

impl Probe {
    fn new(after: Duration) -> Probe {
        Probe {
            since: None,
            after,
            messages: 0,
            due: false,
        }
    }
}

/// The window of one (site, source address).
#[derive(Clone, Debug)]
pub struct Window {
    bounds: Bounds,
    size: f64,
    ceiling: Option<u32>,
    probe: Probe,
    suspicion: Option<Suspicion>,
    /// Messages to be accepted before another host error counts.
    cohort: u32,
}

impl Window {
    /// A window as it is before the first session.
    pub fn new(bounds: Bounds, learned: Option<&Learned>) -> Window {
        let bounds = bounds.tidy();
        let known = learned.map_or(0, |learned| learned.window);
        Window {
            size: f64::from(known.max(bounds.start).min(bounds.max)),
            ceiling: learned
                .and_then(|learned| learned.sessions_ceiling)
                .map(|ceiling| ceiling.max(1)),
            probe: Probe::new(PROBE_MAX / 4),
            suspicion: None,
            cohort: 0,
            bounds,
        }
    }

    /// Sessions that it has room for: 1 to `max`.
    pub fn size(&self) -> u32 {
        let grown = (self.size as u32).clamp(1, self.bounds.max);
        match self.ceiling {
            None => grown,
            Some(ceiling) => grown.min(ceiling.saturating_add(u32::from(self.probe.due))),
        }
    }

    /// The number of sessions of which one more was turned away, if that is believed.
    pub fn ceiling(&self) -> Option<u32> {
        self.ceiling
    }

    /// The bounds it moves between.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Whether the window may still grow: runs are kept short then, so that news come in time.
    pub fn can_grow(&self) -> bool {
        self.bounds.step > 0.0
            && self.size() < self.ceiling.unwrap_or(u32::MAX).min(self.bounds.max)
    }

    /// Whether a further session may be opened, when `held` are held and `connecting` of these do not work yet.
    pub fn admits(&self, held: u32, connecting: u32, now: Instant) -> Admission {
        if held >= self.size() {
            return Admission::Full;
        }
        match self.suspicion {
            Some(_) if connecting > 0 => Admission::Full,
            Some(suspicion) if now < suspicion.not_before => {
                Admission::NotBefore(suspicion.not_before)
            }
            _ => Admission::Open,
        }
    }

    /// So many messages were accepted while `working` sessions were past their connect phase.
    pub fn accepted(&mut self, messages: u32, working: u32, now: Instant) {
        if messages == 0 {
            return;
        }
        self.cohort = self.cohort.saturating_sub(messages);
        self.weigh_suspicion(messages, working, now);
        self.weigh_ceiling(messages, working, now);
        if working >= self.size() && self.suspicion.is_none() {
            let grown = f64::from(self.bounds.step) * f64::from(messages) / self.size.max(1.0);
            let most = self
                .ceiling
                .map_or(self.bounds.max, |ceiling| ceiling.saturating_add(1));
            let most = f64::from(most.min(self.bounds.max)).max(self.size.floor());
            self.size = (self.size + grown).min(most);
        }
    }

    /// A host could not be talked to, or a session broke: fewer, at the first such error of a cohort.
    pub fn host_error(&mut self, now: Instant) {
        self.suspect(now, None);
        if self.cohort > 0 {
            return;
        }
        let size = f64::from(self.size());
        self.size = (size - (size / 8.0).max(1.0)).max(1.0);
        self.cohort = self.size as u32;
    }

    /// A further session was turned away while `working` others worked.
    pub fn session_refused(&mut self, working: u32, now: Instant) {
        if self.ceiling.is_some_and(|ceiling| working >= ceiling) {
            let after = (self.probe.after * 2).min(PROBE_MAX);
            self.probe = Probe {
                since: Some(now),
                ..Probe::new(after)
            };
            return;
        }
        let believed = self.suspicion.and_then(|suspicion| {
            // Turned away, a cohort taken by the others meanwhile, turned away again: no storm looks like that.
            suspicion
                .ceiling
                .filter(|ceiling| working >= *ceiling && suspicion.accepted > *ceiling)
        });
        match believed {
            Some(ceiling) => self.believe(ceiling, now),
            None => self.suspect(now, (working > 0).then_some(working)),
        }
    }

    /// The server ended a session that had carried messages: no fault, but the next opening goes alone.
    pub fn session_cut(&mut self, now: Instant) {
        let suspicion = self.suspicion.get_or_insert(Suspicion {
            failures: 0,
            not_before: now,
            ceiling: None,
            accepted: 0,
        });
        // Those that were to prove a ceiling fail as well: it was a storm.
        suspicion.ceiling = None;
    }

    /// Other bounds from now on. What was learned stays as far as they allow it. A higher start holds at once.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        let before = std::mem::replace(&mut self.bounds, bounds.tidy());
        if self.bounds.start > before.start {
            self.size = self.size.max(f64::from(self.bounds.start));
        }
        self.size = self.size.min(f64::from(self.bounds.max));
    }

    fn suspect(&mut self, now: Instant, ceiling: Option<u32>) {
        let before = self.suspicion;
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let rest = match failures {
            1 => REST / 2,
            n if n <= STEADY_RESTS => REST,
            n => REST
                .saturating_mul(1 << (n - STEADY_RESTS).min(6))
                .min(REST_MAX),
        };
        self.suspicion = Some(Suspicion {
            failures,
            not_before: now + rest,
            ceiling,
            accepted: 0,
        });
    }

    fn weigh_suspicion(&mut self, messages: u32, working: u32, now: Instant) {
        let Some(suspicion) = &mut self.suspicion else {
            return;
        };
        suspicion.accepted = suspicion.accepted.saturating_add(messages);
        let Some(refused_at) = suspicion.ceiling else {
            self.suspicion = None;
            return;
        };
        if working > refused_at {
            // There was room for one more after all.
            self.suspicion = None;
        } else if suspicion.accepted > refused_at && now >= suspicion.not_before {
            self.believe(refused_at, now);
        }
    }

    /// More than `ceiling` sessions are turned away; that is tried again later.
    fn believe(&mut self, ceiling: u32, now: Instant) {
        self.suspicion = None;
        self.ceiling = Some(ceiling);
        self.size = self.size.min(f64::from(ceiling)).max(1.0);
        self.probe = Probe {
            since: Some(now),
            ..Probe::new(PROBE_MIN)
        };
    }

    fn weigh_ceiling(&mut self, messages: u32, working: u32, now: Instant) {
        let Some(ceiling) = self.ceiling else {
            return;
        };
        if working > ceiling {
            self.ceiling = None;
            self.size = self.size.max(f64::from(working.min(self.bounds.max)));
            return;
        }
        if working < ceiling {
            return;
        }
        self.probe.messages = self.probe.messages.saturating_add(messages);
        let waited = now.saturating_duration_since(*self.probe.since.get_or_insert(now));
        let enough = self.probe.messages >= PROBE_MESSAGES || waited >= PROBE_MAX;
        if waited >= self.probe.after && enough && ceiling < self.bounds.max {
            self.probe.due = true;
            self.size = self.size.max(f64::from(ceiling + 1));
        }
    }
}

#[cfg(test)]
mod tests;
