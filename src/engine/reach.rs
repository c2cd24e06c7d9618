//! Whether the network can be reached at all: "port 25 is blocked here" looks like one time-out after the other.
//!
//! Many providers drop outgoing connections to port 25 silently. Then nothing is wrong with any receiver, and trying for
//! an hour helps nobody. So: if several sites were tried, all of them timed out, and no server anywhere has answered with
//! as much as a refusal, the run is stopped and says so.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mail::SiteId;

/// Sites that must have timed out before anything is concluded.
const SITES_MIN: usize = 3;
/// Connect time-outs that must have passed since the first attempt: 30 s with the default.
const PATIENCE_TIMEOUTS: u32 = 3;

/// What connecting has been like so far.
#[derive(Debug, Default)]
pub struct Reach {
    answered: AtomicBool,
    silent: Mutex<Silence>,
}

#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    sites: HashSet<SiteId>,
}

impl Reach {
    /// A connection was accepted, or refused: packets come and go.
    pub fn answered(&self) {
        self.answered.store(true, Relaxed);
    }

    /// An attempt that began at `began` got no answer.
    pub fn timed_out(&self, site: SiteId, began: Instant) {
        if self.answered.load(Relaxed) {
            return;
        }
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.since = Some(silent.since.map_or(began, |since| since.min(began)));
        silent.sites.insert(site);
    }

    /// True if nothing has answered for long enough to conclude that the port is blocked here.
    pub fn is_blocked(&self, connect_timeout: Duration, now: Instant) -> bool {
        if self.answered.load(Relaxed) {
            return false;
        }
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = connect_timeout.saturating_mul(PATIENCE_TIMEOUTS);
        silent.sites.len() >= SITES_MIN && silent.since.is_some_and(|since| now >= since + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_silent_sites_and_no_answer_mean_that_the_port_is_blocked() {
        let (reach, began, timeout) = (Reach::default(), Instant::now(), Duration::from_secs(10));
        let later = began + 3 * timeout;
        for site in 0..2 {
            reach.timed_out(SiteId(site), began);
            reach.timed_out(SiteId(site), began + timeout);
        }
        assert!(!reach.is_blocked(timeout, later), "two sites may be down");
        reach.timed_out(SiteId(2), began + timeout);
        assert!(
            !reach.is_blocked(timeout, later - Duration::from_secs(1)),
            "too early"
        );
        assert!(reach.is_blocked(timeout, later));
        reach.answered();
        assert!(!reach.is_blocked(timeout, later));
    }
}
