//! Which job a `send` works on: a new one, an unfinished one that goes on, or none, because the batch was sent already.
//!
//! A batch of files is known by its digest, a stream with `--job NAME` by its name; any other stream is always a new job.

use std::time::Duration;

use anyhow::Result;

use super::args::{DeliveryArgs, JobArgs, ReadArgs};
use super::batch;
use super::flags::{JobFlags, numbering};
use super::job::failure;
use crate::job::{self, Decision, Digest, Job, JobCard, JobState, NewCard, StateDir};
use crate::mail::Status;

/// What was found.
pub enum Found {
    /// This job is to be run; it is held by us.
    Run {
        /// The job.
        job: Box<Job>,
        /// Nothing of it has been read yet.
        is_new: bool,
    },
    /// The batch was sent already.
    Done(Box<JobCard>),
}

/// Finds or makes the job.
///
/// # Errors
/// A [`Failure`]: another process works on it, or the state directory cannot be used.
pub fn job(
    state: &StateDir,
    read: &ReadArgs,
    flags: &DeliveryArgs,
    args: &JobArgs,
    guard: Duration,
) -> Result<Found> {
    let is_stream = batch::is_stream(read);
    let digest = match is_stream || args.job.is_some() {
        true => None,
        false => Some(digest(state, read)?),
    };
    let lock = state.lock().map_err(failure)?;
    let known = match (&args.job, &digest) {
        (Some(name), _) => state.by_name(name).map_err(failure)?,
        (None, Some(digest)) => state.by_digest(&digest.text).map_err(failure)?,
        (None, None) => None,
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let mut decision = job::decide(known.as_ref(), now, guard, args.again);
    if let Some(card) = &known
        && args.job.is_some()
        && decision == Decision::AlreadyDone
        && card.state == JobState::Finished
    {
        // More may have come under that name; who got the mail already is known by it.
        decision = Decision::GoOn;
    }
    if known.as_ref().is_some_and(nobody_was_mailed) && decision == Decision::AlreadyDone {
        // All of it was invalid: with other flags it may be something else.
        decision = Decision::New;
    }
    match (decision, known) {
        (Decision::AlreadyDone, Some(card)) => Ok(Found::Done(Box::new(card))),
        (Decision::GoOn, Some(card)) => {
            let mut job = state.take(&card.id).map_err(failure)?;
            drop(lock);
            let flags = stored(read, flags)?;
            job.update(|card| {
                if card.state == JobState::Finished {
                    // Nothing is left of what it was: what comes now is new, and must not be taken for as old as the job.
                    card.renewed_ms = Some(now);
                    card.date = batch::date_now();
                }
                card.state = JobState::Open;
                card.finished_ms = None;
                card.runs += 1;
                card.flags = flags;
            })
            .map_err(failure)?;
            Ok(Found::Run {
                job: Box::new(job),
                is_new: false,
            })
        }
        _ => {
            let card = new_card(read, flags, args, digest)?;
            let job = state.create(&lock, card).map_err(failure)?;
            Ok(Found::Run {
                job: Box::new(job),
                is_new: true,
            })
        }
    }
}

/// True for a finished job of which not one recipient could be tried.
fn nobody_was_mailed(card: &JobCard) -> bool {
    let invalid = card.counts.get(Status::Invalid.name()).copied();
    card.state == JobState::Finished && invalid.unwrap_or(0) == card.recipients
}

/// The digest of the batch: from a card that has it, if the files are what they were then.
fn digest(state: &StateDir, read: &ReadArgs) -> Result<Digest> {
    let to_file = read.to_file.as_deref();
    let numbering = numbering(read);
    let stamps = job::stamps(&read.batch, to_file).map_err(failure)?;
    if let Some(digest) = state.by_stamps(&stamps, &numbering).map_err(failure)? {
        return Ok(digest);
    }
    job::digest(&read.batch, to_file, &numbering).map_err(failure)
}

fn new_card(
    read: &ReadArgs,
    flags: &DeliveryArgs,
    args: &JobArgs,
    digest: Option<Digest>,
) -> Result<NewCard> {
    let cwd = std::env::current_dir().unwrap_or_default();
    let command = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let (digest, inputs) = match digest {
        Some(digest) => (Some(digest.text), digest.inputs),
        None => (None, Vec::new()),
    };
    Ok(NewCard {
        name: args.job.clone(),
        digest,
        date: batch::date_now(),
        cwd: cwd.display().to_string(),
        command: command.collect(),
        inputs,
        numbering: numbering(read),
        flags: stored(read, flags)?,
    })
}

/// The flags for the card. Where the job lies is not its business, and the time to stop is that of one run.
fn stored(read: &ReadArgs, flags: &DeliveryArgs) -> Result<serde_json::Value> {
    let cwd = std::env::current_dir().unwrap_or_default();
    let flags = DeliveryArgs {
        state: None,
        run_for: None,
        finish_by: None,
        ..flags.clone()
    };
    JobFlags::of(read, &flags, &cwd).to_value()
}
