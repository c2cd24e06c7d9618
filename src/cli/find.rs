//! Which job a `send` works on: a new one, an unfinished one that goes on, or none, because the batch was sent already.
//!
//! A batch of files is known by its digest, a stream with `--job NAME` by its name; any other stream is always a new job.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::args::{DeliveryArgs, Flavour, JobArgs, ReadArgs};
use super::batch;
use super::exit::{Exit, Failure};
use crate::job::{
    self, Decision, Digest, Job, JobCard, JobError, JobErrorKind, JobState, NewCard, StateDir,
};
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

/// The flags of a job, as its card keeps them for `mailer resume`.
#[derive(Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Flags {
    /// How its batch is read.
    pub read: ReadArgs,
    /// How it is delivered.
    pub delivery: DeliveryArgs,
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
        (Some(name), _) => by_name(state, name)?,
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

fn by_name(state: &StateDir, name: &str) -> Result<Option<JobCard>> {
    let cards = state.jobs().map_err(failure)?;
    let is_it = |card: &JobCard| card.name.as_deref() == Some(name);
    Ok(cards.into_iter().rev().find(is_it))
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

/// What changes the numbers of messages, or their bytes.
fn numbering(read: &ReadArgs) -> String {
    let flavour = match read.mbox {
        None | Some(Flavour::Mboxrd) => "mboxrd",
        Some(Flavour::Mboxo) => "mboxo",
        Some(Flavour::Mboxcl2) => "mboxcl2",
    };
    let folding = if read.fold_long_lines { " fold" } else { "" };
    let resend = if read.resend { " resend" } else { "" };
    format!("{flavour}{folding}{resend}")
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

/// The flags for the card: a later run may start elsewhere, so paths are absolute.
fn stored(read: &ReadArgs, flags: &DeliveryArgs) -> Result<serde_json::Value> {
    let mut flags = Flags {
        read: read.clone(),
        delivery: flags.clone(),
    };
    let is_file = |path: &&mut PathBuf| path.as_os_str() != "-";
    flags
        .read
        .batch
        .iter_mut()
        .filter(is_file)
        .for_each(absolute);
    flags.read.to_file.iter_mut().for_each(absolute);
    let delivery = &mut flags.delivery;
    for path in [
        &mut delivery.config,
        &mut delivery.credentials,
        &mut delivery.tls_ca,
        &mut delivery.tls_cert,
        &mut delivery.tls_key,
    ] {
        path.iter_mut().for_each(absolute);
    }
    // Where the job lies is not its business, and the time to stop is that of one run.
    delivery.state = None;
    delivery.run_for = None;
    delivery.finish_by = None;
    serde_json::to_value(&flags)
        .map_err(|error| Failure::new(Exit::Software, format!("flags: {error}")).into())
}

fn absolute(path: &mut PathBuf) {
    if let Ok(whole) = std::path::absolute(Path::new(path)) {
        *path = whole;
    }
}

/// An error of the job room as the program's.
pub fn failure(error: JobError) -> anyhow::Error {
    let exit = match error.kind() {
        JobErrorKind::NoInput => Exit::NoInput,
        JobErrorKind::Usage => Exit::Usage,
        JobErrorKind::Data => Exit::Data,
        JobErrorKind::CantCreate => Exit::CantCreate,
        JobErrorKind::Io => Exit::Io,
        JobErrorKind::Busy => Exit::Pending,
        JobErrorKind::Permission => Exit::Permission,
    };
    let failure = Failure::new(exit, &error);
    match error.hint() {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    }
}
