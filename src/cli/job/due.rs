//! When pending mail is due again, as near as can be told from the ledger: it keeps what was said, not the moment that was
//! drawn by lot.

use std::time::{Duration, Instant};

use super::view::View;
use crate::cli::config;
use crate::ledger::Attempt;
use crate::mail::Passage;
use crate::retry::{Deferral, Next, RetryPolicy};

/// Tells it with the patience of the job's flags.
pub struct Due {
    policy: RetryPolicy,
    now: Instant,
    rng: fastrand::Rng,
}

impl Due {
    /// For this job. A configuration that cannot be read now costs exactness only.
    pub fn of(view: &View) -> Due {
        let defaults = RetryPolicy::default();
        let flags = &view.flags.delivery;
        let policy = match config::settings(flags) {
            Ok(settings) => RetryPolicy {
                retry_min: settings.retry.min,
                retry_max: settings.retry.max,
                in_doubt_wait: settings.retry.in_doubt_wait,
                ..defaults
            },
            Err(_) => RetryPolicy {
                retry_min: flags.retry_min.unwrap_or(defaults.retry_min),
                retry_max: flags.retry_max.unwrap_or(defaults.retry_max),
                in_doubt_wait: flags.in_doubt_wait.unwrap_or(defaults.in_doubt_wait),
                ..defaults
            },
        };
        Due {
            policy,
            now: Instant::now(),
            // The same answer each time it is asked.
            rng: fastrand::Rng::with_seed(0),
        }
    }

    /// When mail whose last attempt this was is due: milliseconds since 1970.
    pub fn after(&mut self, last: &Attempt) -> i64 {
        let deferral = Deferral::of(&last.verdict, None);
        let counted = last.passage;
        let mut before = Passage {
            attempts: counted.attempts.saturating_sub(1),
            host_failures: counted.host_failures.saturating_sub(1),
            in_doubt: false,
        };
        let wait = match self
            .policy
            .after(&mut before, deferral, self.now, &mut self.rng)
        {
            Next::At(at) => at.saturating_duration_since(self.now),
            Next::Now | Next::Leave(_) => Duration::ZERO,
        };
        last.at
            .saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }
}
