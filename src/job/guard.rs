//! What becomes of a batch that is sent: a new job, an old one that goes on, or nothing, because it was sent just now.
//!
//! A second run of the same cron line must not mail anybody twice; the same reminder a week later is a new job. In between
//! lies the guard (`--guard`).

use std::time::Duration;

use super::card::{JobCard, JobState};

/// What to do with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is a new job.
    New,
    /// Its unfinished job goes on.
    GoOn,
    /// Its job was finished or cancelled a short time ago: nothing is sent.
    AlreadyDone,
}

/// Decides. `card`: the newest job of the batch; `guard`: how long a finished job keeps its batch from being sent again;
/// `again`: a person said that it may be (an unfinished job goes on all the same: that never mails anybody twice).
///
/// A job that was finished in the future, because the clock was set back, counts as finished just now.
pub fn decide(card: Option<&JobCard>, now_ms: i64, guard: Duration, again: bool) -> Decision {
    let Some(card) = card else {
        return Decision::New;
    };
    if card.state == JobState::Open {
        return Decision::GoOn;
    }
    let finished = card.finished_ms.or(card.ended_ms);
    let since = now_ms.saturating_sub(finished.unwrap_or(card.created_ms));
    let guarded = since < i64::try_from(guard.as_millis()).unwrap_or(i64::MAX);
    if guarded && !again {
        Decision::AlreadyDone
    } else {
        Decision::New
    }
}
