//! How many messages were accepted within the last minute.
//!
//! A ring of half seconds. An entry leaves when all of it is more than a minute old: the count is never too small.
//!
//! INVARIANTS: the sum of the ring is `total`; times that go back are counted as the latest known.

use std::time::{Duration, Instant};

const SLOT: Duration = Duration::from_millis(500);
const SLOTS: u64 = 121;

/// The last minute.
#[derive(Clone, Debug)]
pub struct History {
    origin: Option<Instant>,
    /// The slot that `now` was in at the last call.
    at: u64,
    ring: Box<[u32]>,
    total: u64,
    left: u64,
}

impl History {
    pub fn new() -> History {
        History {
            origin: None,
            at: 0,
            ring: Box::default(),
            total: 0,
            left: 0,
        }
    }

    pub fn add(&mut self, messages: u32, now: Instant) {
        if self.ring.is_empty() {
            self.ring = vec![0; SLOTS as usize].into();
        }
        self.advance(now);
        let slot = &mut self.ring[(self.at % SLOTS) as usize];
        *slot = slot.saturating_add(messages);
        self.total += u64::from(messages);
    }

    /// Messages within the minute that ends at `now`.
    pub fn count(&self, now: Instant) -> u64 {
        let old = self.slot(now).saturating_sub(self.at).min(SLOTS);
        let left: u64 = (1..=old).map(|step| self.entry(step)).sum();
        self.total.saturating_sub(left)
    }

    /// How many have left the minute so far.
    pub fn left_by(&self, now: Instant) -> u64 {
        self.left + (self.total - self.count(now))
    }

    /// When no more than `most` are left.
    pub fn falls_to(&self, most: u64, now: Instant) -> Instant {
        let Some(origin) = self.origin else {
            return now;
        };
        let mut left = self.total;
        for step in 1..=SLOTS {
            if left <= most {
                let slot = self.at + step - 1;
                return now.max(origin + SLOT * u32::try_from(slot).unwrap_or(u32::MAX));
            }
            left = left.saturating_sub(self.entry(step));
        }
        now + SLOT * SLOTS as u32
    }

    /// The entry that leaves at the `step`th advance from now on.
    fn entry(&self, step: u64) -> u64 {
        match self.ring.is_empty() {
            true => 0,
            false => u64::from(self.ring[((self.at + step) % SLOTS) as usize]),
        }
    }

    fn slot(&self, now: Instant) -> u64 {
        let passed = self.origin.map_or(Duration::ZERO, |origin| {
            now.saturating_duration_since(origin)
        });
        (passed.as_millis() / SLOT.as_millis()) as u64
    }

    fn advance(&mut self, now: Instant) {
        self.origin.get_or_insert(now);
        let slot = self.slot(now).max(self.at);
        for _ in 0..(slot - self.at).min(SLOTS) {
            self.at += 1;
            let left = std::mem::take(&mut self.ring[(self.at % SLOTS) as usize]);
            self.total -= u64::from(left);
            self.left += u64::from(left);
        }
        self.at = slot;
    }
}
