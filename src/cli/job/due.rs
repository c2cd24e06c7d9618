//! When pending mail is due again, as near as can be told from the ledger: it keeps what was said, not the moment that was
//! drawn by lot.

use super::view::View;
use crate::cli::config;
use crate::ledger::Attempt;
use crate::mail::Status;
use crate::retry::{Deferral, RetryPolicy};
use crate::smtp::meaning::retry_hint;

/// Tells it with the patience of the job's flags.
pub struct Due {
    policy: RetryPolicy,
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
            // The same answer each time it is asked.
            rng: fastrand::Rng::with_seed(0),
        }
    }

    /// When mail whose last attempt this was is due: milliseconds since 1970. What a person has queued again is due at once; a
    /// server that asked for a time of its own gets it.
    pub fn after(&mut self, last: &Attempt) -> i64 {
        let status = last.verdict.status;
        if status == Status::Queued {
            return last.at;
        }
        let wish = retry_hint(&last.verdict.text).filter(|_| status == Status::Deferred);
        let deferral = Deferral::of(&last.verdict, wish);
        let rest = self.policy.rest(last.passage, deferral, &mut self.rng);
        last.at
            .saturating_add(i64::try_from(rest.as_millis()).unwrap_or(i64::MAX))
    }
}
