//! Which job a `send` works on: a new one, an unfinished one that goes on, or none, because the batch was sent already.
//!
//! A batch of files is known by its digest, a stream with `--job NAME` by its name; any other stream is always a new job.

use std::time::Duration;

use anyhow::Result;

use super::args::{DeliveryArgs, JobArgs, ReadArgs};
use super::batch;
use super::exit::{Exit, Failure};
use super::flags::{JobFlags, numbering};
use super::job::{failure, now_ms};
use crate::job::{self, Decision, Digest, Job, JobCard, JobState, NewCard, StateDir, StateLock};
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
    let asked = Asked {
        read,
        flags,
        args,
        guard,
        now: now_ms(),
    };
    asked.job(state, lock, known, digest)
}

/// What a person asks for.
struct Asked<'a> {
    read: &'a ReadArgs,
    flags: &'a DeliveryArgs,
    args: &'a JobArgs,
    guard: Duration,
    now: i64,
}

impl Asked<'_> {
    /// Takes the job that is known, or makes one.
    fn job(
        &self,
        state: &StateDir,
        lock: StateLock,
        mut known: Option<JobCard>,
        digest: Option<Digest>,
    ) -> Result<Found> {
        if let Some(card) = &known
            && self.decide(Some(card)) == Decision::GoOn
        {
            let job = state.take(&card.id).map_err(failure)?;
            if self.decide(Some(job.card())) == Decision::GoOn {
                drop(lock);
                return self.go_on(job);
            }
            // Since its card was read, somebody has finished or cancelled it.
            known = Some(job.card().clone());
        }
        match (self.decide(known.as_ref()), known) {
            (Decision::AlreadyDone, Some(card)) => Ok(Found::Done(Box::new(card))),
            _ => {
                let card = new_card(self.read, self.flags, self.args, digest)?;
                let job = state.create(&lock, card).map_err(failure)?;
                Ok(Found::Run {
                    job: Box::new(job),
                    is_new: true,
                })
            }
        }
    }

    fn decide(&self, card: Option<&JobCard>) -> Decision {
        let decision = job::decide(card, self.now, self.guard, self.args.again);
        let Some(card) = card.filter(|_| decision == Decision::AlreadyDone) else {
            return decision;
        };
        if self.args.job.is_some() && card.state == JobState::Finished {
            // More may have come under that name; who got the mail already is known by it.
            return Decision::GoOn;
        }
        if nobody_was_mailed(card) {
            // All of it was invalid: with other flags it may be something else.
            return Decision::New;
        }
        decision
    }

    /// Goes on with a job that is held by us.
    fn go_on(&self, mut job: Job) -> Result<Found> {
        self.check_keys(&job)?;
        let flags = stored(self.read, self.flags)?;
        job.update(|card| {
            if card.state == JobState::Finished {
                // Nothing is left of what it was: what comes now is new, and must not be taken for as old as the job.
                card.renewed_ms = Some(self.now);
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
}

impl Asked<'_> {
    /// What a job knows its mail by cannot change: somebody would get it twice.
    fn check_keys(&self, job: &Job) -> Result<()> {
        let once = JobFlags::from_card(job.card())?.read.once_per_recipient;
        if job.card().name.is_none() || once == self.read.once_per_recipient {
            return Ok(());
        }
        let (how, hint) = match once {
            true => ("with", "give it again"),
            false => ("without", "leave it out"),
        };
        let name = job.card().name.as_deref().unwrap_or_default();
        let what = format!("job {name} was begun {how} --once-per-recipient");
        Err(Failure::new(Exit::Usage, what)
            .hint(format!("{hint}, or give another --job name"))
            .into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_was_cancelled_after_the_look_at_it_does_not_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(&directory.path().join("state")).unwrap();
        let (read, flags, args) = Default::default();
        let asked = Asked {
            read: &read,
            flags: &flags,
            args: &args,
            guard: Duration::from_secs(3600),
            now: now_ms(),
        };
        let lock = || state.lock().unwrap();
        let Found::Run { mut job, is_new } = asked.job(&state, lock(), None, None).unwrap() else {
            panic!("it is not new");
        };
        assert!(is_new);
        let seen = job.card().clone();
        job.update(|card| {
            card.state = JobState::Cancelled;
            card.finished_ms = Some(asked.now);
        })
        .unwrap();
        let error = match asked.job(&state, lock(), Some(seen.clone()), None) {
            Err(error) => error.downcast::<Failure>().unwrap(),
            Ok(_) => panic!("it is held"),
        };
        assert_eq!(error.exit, Exit::Pending);
        let cancelled = job.card().clone();
        drop(job);
        match asked.job(&state, lock(), Some(seen), None).unwrap() {
            Found::Done(card) => assert_eq!(*card, cancelled),
            Found::Run { job, .. } => panic!("{:?}", job.card()),
        }
        assert_eq!(state.find(&cancelled.id).unwrap(), cancelled);
        assert_eq!(state.jobs().unwrap().len(), 1);
    }
}
