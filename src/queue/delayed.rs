//! Deferred envelopes that wait for their time, and the few other instants at which a dispatcher has to wake.
//!
//! [`Delayed`] is a heap of 24-byte entries: due time in milliseconds since the first deferral (32 bits reach 49 days; a
//! run that plans further is clamped there), destination, envelope. Envelopes with the same due time come out by
//! destination and message, so that the recipients of one message travel together again.
//!
//! [`Timers`] is for things that exist once per site, destination or worker: the end of a pause, the next look-up, a run
//! given ahead that was not begun. An entry may be stale when it comes out; whoever asked checks.
//!
//! INVARIANT: nothing comes out before it is due (milliseconds are rounded up).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::mail::Envelope;

/// The delayed heap.
#[derive(Default, Debug)]
pub(super) struct Delayed {
    epoch: Option<Instant>,
    heap: BinaryHeap<Reverse<Entry>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    due_ms: u32,
    destination: u32,
    envelope: Envelope,
}

impl Entry {
    fn key(&self) -> (u32, u32, u32, u32) {
        let Envelope {
            message, recipient, ..
        } = self.envelope;
        (self.due_ms, self.destination, message.0, recipient.0)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Delayed {
    /// Keeps `envelope` of the destination with index `destination` until `due`.
    pub(super) fn push(
        &mut self,
        due: Instant,
        destination: u32,
        envelope: Envelope,
        now: Instant,
    ) {
        let epoch = *self.epoch.get_or_insert(now);
        let nanos = due.saturating_duration_since(epoch).as_nanos();
        let due_ms = u32::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u32::MAX);
        self.heap.push(Reverse(Entry {
            due_ms,
            destination,
            envelope,
        }));
    }

    /// The instant at which the first one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let Reverse(first) = self.heap.peek()?;
        Some(self.epoch? + Duration::from_millis(u64::from(first.due_ms)))
    }

    /// Takes out one that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(u32, Envelope)> {
        if self.next()? > now {
            return None;
        }
        let Reverse(first) = self.heap.pop()?;
        Some((first.destination, first.envelope))
    }

    /// Takes out all of them, due or not, in order of destination.
    pub(super) fn drain(&mut self) -> Vec<(u32, Envelope)> {
        let mut all: Vec<_> = std::mem::take(&mut self.heap)
            .into_iter()
            .map(|Reverse(entry)| (entry.destination, entry.envelope))
            .collect();
        all.sort_by_key(|(destination, envelope)| (*destination, envelope.recipient));
        all
    }

    /// Takes out those whose destination fulfils a condition, due or not, in order of destination. O(n).
    pub(super) fn take_of(&mut self, is_wanted: impl Fn(u32) -> bool) -> Vec<(u32, Envelope)> {
        let mut taken = Vec::new();
        self.heap.retain(|Reverse(entry)| {
            let is_kept = !is_wanted(entry.destination);
            if !is_kept {
                taken.push((entry.destination, entry.envelope));
            }
            is_kept
        });
        taken.sort_by_key(|(destination, envelope)| (*destination, envelope.recipient));
        taken
    }

    /// The same, with the instants at which they are due.
    pub(super) fn take_with_due(
        &mut self,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Vec<(u32, Envelope, Instant)> {
        let Some(epoch) = self.epoch else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        self.heap.retain(|Reverse(entry)| {
            let is_kept = !is_wanted(entry.destination);
            if !is_kept {
                let due = epoch + Duration::from_millis(u64::from(entry.due_ms));
                taken.push((entry.destination, entry.envelope, due));
            }
            is_kept
        });
        taken.sort_by_key(|(destination, envelope, _)| (*destination, envelope.recipient));
        taken
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Envelope)> {
        self.heap
            .iter()
            .map(|Reverse(entry)| (entry.destination, entry.envelope))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// True if none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

/// What a timer is for; the number is the index of the site, destination or worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// A site's pause, or its time without new sessions, may be over.
    Site(u32),
    /// A site's pace may have a slot.
    Pace(u32),
    /// The queue's own pace may have one.
    Hold,
    /// Nothing may have been heard from a site's sessions for long, while mail waits for them.
    Patience(u32),
    /// A destination's name may be looked up again.
    Destination(u32),
    /// The run that was given ahead to a worker under this serial number should have begun.
    Ahead(u32, u64),
}

/// Instants at which something may have to be done.
#[derive(Default, Debug)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

impl Timers {
    /// Wakes for `timer` at `at`.
    pub(super) fn push(&mut self, at: Instant, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// The next instant.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out one whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{MessageNo, RecipientNo};

    fn envelope(message: u32, recipient: u32) -> Envelope {
        Envelope::new(MessageNo(message), RecipientNo(recipient))
    }

    #[test]
    fn an_entry_takes_twenty_four_bytes() {
        assert_eq!(std::mem::size_of::<Entry>(), 24);
    }

    #[test]
    fn nothing_comes_out_early_and_recipients_of_a_message_come_out_together() {
        let now = Instant::now();
        let due = now + Duration::from_micros(1_500);
        let mut delayed = Delayed::default();
        for (message, recipient) in [(1, 2), (0, 0), (1, 3), (0, 1)] {
            delayed.push(due, 5, envelope(message, recipient), now);
        }
        delayed.push(now + Duration::from_secs(9), 5, envelope(2, 4), now);
        assert_eq!(delayed.pop_due(due - Duration::from_nanos(1)), None);
        let wake = delayed.next().unwrap();
        assert!(wake >= due && wake <= due + Duration::from_millis(1));
        let order: Vec<_> = std::iter::from_fn(|| delayed.pop_due(wake))
            .map(|(_, envelope)| envelope.recipient.0)
            .collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(delayed.len(), 1);
    }

    #[test]
    fn a_due_time_beyond_the_range_is_clamped() {
        let now = Instant::now();
        let mut delayed = Delayed::default();
        delayed.push(
            now + Duration::from_secs(86_400 * 400),
            0,
            envelope(0, 0),
            now,
        );
        assert!(delayed.next().unwrap() > now + Duration::from_secs(86_400 * 40));
        assert_eq!(delayed.drain().len(), 1);
        assert!(delayed.is_empty());
    }

    #[test]
    fn timers_come_out_in_order_of_time() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.push(now + Duration::from_secs(2), Timer::Site(1));
        timers.push(now + Duration::from_secs(1), Timer::Destination(2));
        assert_eq!(timers.pop_due(now), None);
        let later = now + Duration::from_secs(3);
        assert_eq!(timers.pop_due(later), Some(Timer::Destination(2)));
        assert_eq!(timers.pop_due(later), Some(Timer::Site(1)));
        assert_eq!(timers.next(), None);
    }
}
