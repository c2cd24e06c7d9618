//! Limits that a receiver may enforce: the condition of a rule that depends on what the client has done so far.
//!
//! Real servers take so many messages a minute, or refuse everybody for a while. Whoever sends learns of it by replies alone;
//! with these rules a sender's behaviour at such servers can be tried. (How many sessions they let in and how many messages
//! each may carry are settings of the receiver.)
//!
//! INVARIANT: a limit counts what it let pass, for each address of the receiver by itself. Times are those of the machine's
//! monotonic clock, handed in.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When a rule applies, beyond its stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// So many matches passed within the time before.
    Rate(u32, Duration),
    /// The first part of each period since the receiver was started.
    Storm {
        /// The length of a period.
        every: Duration,
        /// How long the rule applies in it.
        lasts: Duration,
    },
}

/// What a limit looks at.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When it is.
    pub now: Instant,
    /// The address that the client connected to.
    pub server: IpAddr,
}

/// A limit at work.
#[derive(Debug)]
pub(super) struct Meter {
    limit: Limit,
    began: Instant,
    passed: Mutex<HashMap<IpAddr, VecDeque<Instant>>>,
}

impl Meter {
    pub(super) fn new(limit: Limit, began: Instant) -> Meter {
        Meter {
            limit,
            began,
            passed: Mutex::default(),
        }
    }

    /// True if the limit is reached; else what is looked at passes, and counts.
    pub(super) fn is_reached(&self, moment: &Moment) -> bool {
        match self.limit {
            Limit::Rate(most, per) => self.is_too_fast(moment, most, per),
            Limit::Storm { every, lasts } => {
                let age = moment.now.saturating_duration_since(self.began);
                age.as_nanos() % every.as_nanos().max(1) < lasts.as_nanos()
            }
        }
    }

    fn is_too_fast(&self, moment: &Moment, most: u32, per: Duration) -> bool {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = passed.entry(moment.server).or_default();
        while passed
            .front()
            .is_some_and(|first| moment.now.saturating_duration_since(*first) >= per)
        {
            passed.pop_front();
        }
        if passed.len() >= most as usize {
            return true;
        }
        passed.push_back(moment.now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(now: Instant) -> Moment {
        Moment {
            now,
            server: [127, 0, 0, 1].into(),
        }
    }

    fn reached(meter: &Meter, moment: Moment) -> bool {
        meter.is_reached(&moment)
    }

    #[test]
    fn a_rate_counts_what_passed_within_the_time_before_for_each_address() {
        let start = Instant::now();
        let meter = Meter::new(Limit::Rate(2, Duration::from_secs(60)), start);
        let at = |secs| moment(start + Duration::from_secs(secs));
        assert!(!reached(&meter, at(0)) && !reached(&meter, at(10)));
        assert!(reached(&meter, at(59)), "two passed in the last minute");
        let elsewhere = Moment {
            server: [127, 0, 0, 2].into(),
            ..at(59)
        };
        assert!(!reached(&meter, elsewhere));
        assert!(!reached(&meter, at(60)), "the first is a minute ago");
        assert!(reached(&meter, at(61)));
        assert!(!reached(&meter, at(70)));
    }

    #[test]
    fn a_storm_comes_back() {
        let start = Instant::now();
        let (every, lasts) = (Duration::from_secs(60), Duration::from_secs(20));
        let meter = Meter::new(Limit::Storm { every, lasts }, start);
        let in_storm = |secs| reached(&meter, moment(start + Duration::from_secs(secs)));
        assert!(in_storm(0) && in_storm(19) && !in_storm(20) && !in_storm(59));
        assert!(in_storm(60) && !in_storm(85));
    }
}
