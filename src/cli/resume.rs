//! `mailer resume`: goes on with an unfinished job, as it was begun; without a name, with every one that nobody runs, oldest
//! first: the line for cron.
//!
//! A signal, and the time of `--run-for` and `--finish-by`, are for the whole command: once it is to end, no other job is begun.
//!
//! Standard input is not read again: of a job whose mail came by a pipe, what was read is delivered. Nor are files that do not
//! hold any more what the job was made of: what an earlier run has read is in the job, and the rest is somebody else's mail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::args::ResumeArgs;
use super::batch::{self, Batch, Stdin};
use super::deliver::{self, Plan};
use super::exit::{Exit, Failure};
use super::flags::JobFlags;
use super::job::view;
use super::target::Target;
use super::watch::Told;
use super::{config, exit, job, say};
use crate::batch::{BatchReader, BatchStore};
use crate::engine::settings::Settings;
use crate::job::{Job, JobCard, JobError, JobState, StateDir};
use crate::mail::Status;

/// Runs the command. Ends with the gravest status of the jobs that were run; nothing to do is fine.
///
/// # Errors
/// A [`Failure`]: the job that was named cannot be run.
pub fn run(args: &ResumeArgs) -> Result<Exit> {
    if let Some(text) = &args.job {
        let (state, job) = job::take(&args.state(), text)?;
        return match job.card().state {
            JobState::Open => go_on(&state, job, args, &mut Span::begin(args)?),
            JobState::Finished => Ok(already_done(&job)),
            JobState::Cancelled => {
                let text = format!("job {} is cancelled: nothing more of it is sent", job.id());
                Err(Failure::new(Exit::Usage, text).into())
            }
        };
    }
    let Some(state) = job::look(&args.state())? else {
        return Ok(Exit::Done);
    };
    let mut span = Span::begin(args)?;
    let listing = state.listing().map_err(job::failure)?;
    let mut worst = Exit::Done;
    let mut unfinished = listing.cards;
    unfinished.retain(|card| card.state == JobState::Open);
    let mut left = unfinished.into_iter();
    while !span.is_over()
        && let Some(card) = left.next()
    {
        let exit = match state.take(&card.id) {
            Ok(job) if job.card().state == JobState::Open => {
                // One job that cannot go on keeps no other from it.
                go_on(&state, job, args, &mut span).unwrap_or_else(|error| exit::report(&error))
            }
            Ok(_) | Err(JobError::Held { .. } | JobError::NotFound { .. }) => Exit::Done,
            Err(error) => exit::report(&job::failure(error)),
        };
        worst = graver(worst, exit);
    }
    // What another process works on is not ours to go on with.
    let is_free = |card: &JobCard| !matches!(state.holder(&card.id), Ok(Some(_)));
    let not_begun = left.filter(is_free).count() as u64;
    if not_begun > 0 {
        say::complain(format!(
            "stopped: {} not gone on with; `mailer resume` does",
            match not_begun {
                1 => "1 unfinished job was".to_owned(),
                more => format!("{more} unfinished jobs were"),
            }
        ));
        worst = graver(worst, Exit::Pending);
    }
    for (_, error) in listing.unreadable {
        worst = graver(worst, exit::report(&job::failure(error)));
    }
    Ok(worst)
}

/// The time from the start of the command until it is to end: all its jobs share it.
struct Span {
    told: Told,
    /// `--run-for` or `--finish-by`, whichever comes first.
    end: Option<Instant>,
}

impl Span {
    fn begin(args: &ResumeArgs) -> Result<Span> {
        let flags = &args.delivery;
        let by = flags.finish_by;
        let by = by.map(|time| time.until(&jiff::ZonedDateTime::now()));
        let time = flags.run_for.into_iter().chain(by).min();
        Ok(Span {
            told: Told::listen()?,
            end: time.and_then(|time| Instant::now().checked_add(time)),
        })
    }

    /// True if nothing more is to be begun.
    fn is_over(&mut self) -> bool {
        self.told.is_ended() || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// A run that begins now has what is left.
    fn limit(&self, settings: &mut Settings) {
        let Some(end) = self.end else { return };
        let left = end.saturating_duration_since(Instant::now());
        settings.retry.run_for = settings.retry.run_for.min(left);
        settings.stop_after = Some(settings.stop_after.map_or(left, |after| after.min(left)));
    }
}

/// Ends as the last run did, and says so if that was not well.
fn already_done(job: &Job) -> Exit {
    let exit = Exit::from_status(job.card().exit.unwrap_or(0));
    if exit != Exit::Done {
        let id = job.id();
        say::complain(format!(
            "job {id} is finished, and not everybody has got it; `mailer report {id} --failed` shows who"
        ));
    }
    exit
}

/// Anything pending is to be resumed; but a failure to do the work is to be looked at first.
fn graver(one: Exit, other: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::Done => 0,
        Exit::Failures => 1,
        Exit::Pending => 2,
        _ => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}

fn go_on(state: &StateDir, mut job: Job, args: &ResumeArgs, span: &mut Span) -> Result<Exit> {
    let mut flags = JobFlags::from_card(job.card())?;
    flags.read.command = "resume";
    flags.overlay(&args.delivery)?;
    flags.delivery.state = Some(state.path().to_path_buf());
    let mut settings = config::settings(&flags.delivery)?;
    let inputs: Vec<_> = job.card().inputs.iter().map(|at| at.path.clone()).collect();
    let report = match &args.show.report {
        Some(path) => Some(Target::open(path, &inputs)?),
        None => None,
    };
    let batch = open(&flags, &job)?;
    let is_cut = batch.reader.is_none() && !batch.store.is_read_to_end();
    let id = job.id().to_owned();
    job.update(|card| card.runs += 1).map_err(job::failure)?;
    span.limit(&mut settings);
    settings.portion = args.part.portion();
    let plan = Plan {
        job,
        batch,
        settings,
        report,
    };
    let (exit, _) = deliver::deliver(plan, &flags.delivery, &args.show, &mut span.told)?;
    if is_cut {
        finish_cut(state, &id)?;
    }
    Ok(exit)
}

/// A job whose pipe was cut is over once nobody is pending: what did not come by it never will.
fn finish_cut(state: &StateDir, id: &str) -> Result<()> {
    let mut job = match state.take(id) {
        Ok(job) => job,
        // Somebody goes on with it already.
        Err(JobError::Held { .. } | JobError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(job::failure(error)),
    };
    let card = job.card();
    let mut pending = Status::ALL.into_iter().filter(|status| status.is_pending());
    let is_pending = pending.any(|status| card.counts.contains_key(status.name()));
    if is_pending || card.state != JobState::Open {
        return Ok(());
    }
    let now = job::now_ms();
    let finish = |card: &mut JobCard| {
        card.state = JobState::Finished;
        card.finished_ms = Some(now);
    };
    job.update(finish).map_err(job::failure)
}

/// The batch, and the rest of its files if an earlier run has not come to their end.
fn open(flags: &JobFlags, job: &Job) -> Result<Batch> {
    let options = view::options(flags, job.card(), job.dir())?;
    let store = Arc::new(BatchStore::reopen(options, job.dir()).map_err(batch::failure)?);
    // Asked of the card: what the pipe was called may be gone by now, or something else.
    let card = job.card();
    let was_stream = card.digest.is_none() && card.inputs.is_empty();
    let is_over = store.is_read_to_end() || was_stream;
    let reader = if is_over || card.name.is_some() {
        None
    } else {
        Some(read_on(flags, card, Arc::clone(&store))?)
    };
    Ok(Batch {
        reader,
        store,
        is_live: false,
    })
}

/// Reads the files on, if they are the batch still: the reader knows what it has met before, but behind that, and in a job
/// that died before its first message was read, anything would do.
fn read_on(flags: &JobFlags, card: &JobCard, store: Arc<BatchStore>) -> Result<BatchReader> {
    let inputs = batch::inputs(&flags.read, &Stdin::Live)?;
    let reader = match changed(flags, card) {
        // The reader says what is wrong with one that is not there.
        Some(path) if path.exists() => BatchReader::open_changed(&path, store),
        _ => BatchReader::open(inputs, store).map_err(batch::failure)?,
    };
    Ok(reader)
}

/// The file, or one of those, that makes the batch another one than it was; `None` if all is as it was, under the same names.
fn changed(flags: &JobFlags, card: &JobCard) -> Option<PathBuf> {
    let is_stamped = card.inputs.iter().all(|stamp| stamp.regular);
    let differs = crate::job::unchanged(&card.inputs).err();
    if is_stamped && differs.is_none() {
        return None;
    }
    // Touched, copied back, or a Maildir: the content says.
    let to_file = flags.read.to_file.as_deref();
    let now = crate::job::digest(&flags.read.batch, to_file, &card.numbering);
    match (now, &card.digest) {
        (Ok(now), Some(digest)) if now.text == *digest => None,
        _ => match differs {
            Some(JobError::Changed { path }) => Some(path),
            _ => card.inputs.first().map(|stamp| stamp.path.clone()),
        },
    }
}
