//! `mailer purge`: forgets jobs that are over, with their ledgers and copies.
//!
//! What is forgotten is not known any more: the batch of such a job is a new one when it is sent again. Unfinished jobs are
//! never forgotten; jobs that somebody works on are left for the next time.

use std::time::Duration;

use anyhow::Result;

use super::args::PurgeArgs;
use super::exit::Exit;
use super::{job, say};
use crate::job::{JobCard, JobError, JobState, StateDir};
use crate::mail::verdict::printable;
use crate::report::summary::plural;

/// Runs the command.
///
/// # Errors
/// A [`Failure`](super::exit::Failure): the state directory cannot be used, or a job cannot be removed; the others are.
pub fn run(args: &PurgeArgs) -> Result<Exit> {
    let Some(state) = job::look(&args.state)? else {
        return Ok(Exit::Done);
    };
    let listing = state.listing().map_err(job::failure)?;
    let now = job::now_ms();
    let (mut kept, mut failure) = (0, None);
    for card in &listing.cards {
        if !is_older(card, now, args.older_than) {
            kept += u64::from(is_stale(card, now, args.older_than));
            continue;
        }
        let removed = args.dry_run || {
            let removed = remove(&state, &card.id, now, args.older_than);
            removed.unwrap_or_else(|error| {
                failure.get_or_insert(error);
                false
            })
        };
        if removed {
            say::to_stdout(&told(card, args.dry_run))?;
        }
    }
    if kept > 0 {
        let jobs = plural(kept, "unfinished job");
        say::complain(format!(
            "{jobs} of that age kept; see mailer jobs, mailer cancel JOB"
        ));
    }
    for (_, error) in &listing.unreadable {
        say::complain(format!("kept: {error}"));
    }
    match failure {
        None => Ok(Exit::Done),
        Some(error) => Err(job::failure(error)),
    }
}

fn is_older(card: &JobCard, now: i64, age: Duration) -> bool {
    job::over_since(card).is_some_and(|over| is_before(over, now, age))
}

/// An unfinished job that nothing was done for in that time.
fn is_stale(card: &JobCard, now: i64, age: Duration) -> bool {
    card.state == JobState::Open && is_before(card.ended_ms.unwrap_or(card.created_ms), now, age)
}

fn is_before(at: i64, now: i64, age: Duration) -> bool {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    now.saturating_sub(at) >= age
}

/// Removes a job, if that is still right once nobody else can work on it.
fn remove(state: &StateDir, id: &str, now: i64, age: Duration) -> Result<bool, JobError> {
    match state.take(id) {
        Ok(job) if is_older(job.card(), now, age) => state.remove(job).map(|()| true),
        Ok(_) | Err(JobError::Held { .. } | JobError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn told(card: &JobCard, dry_run: bool) -> String {
    let verb = if dry_run { "would forget" } else { "forgot" };
    let over = job::over_since(card).map_or_else(String::new, job::local_time);
    let (id, state) = (&card.id, card.state.name());
    let name = card.name.as_deref().unwrap_or_default();
    let from = job::origin(card);
    let name = if name.is_empty() {
        String::new()
    } else {
        format!(" {}", printable(name, 40))
    };
    format!("{verb} {id}{name}, {state} {over}, from {from}\n")
}
