//! `mailer send`: finds the job that the batch is, and runs it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::args::{DeliveryArgs, JobArgs, ReadArgs, SendArgs, ShowArgs};
use super::batch::{self, Stdin};
use super::deliver::{self, Plan};
use super::exit::{Exit, Failure};
use super::find::{self, Found};
use super::job::view::View;
use super::target::Target;
use super::watch::Told;
use super::{config, job, sample, say};
use crate::batch::inspect;
use crate::engine::settings::Settings;
use crate::job::{Job, JobCard, JobState, StateDir};
use crate::report::summary::plural;

/// Runs the command.
///
/// # Errors
/// A [`Failure`]; verdicts on mail are no errors.
pub fn run(args: &SendArgs) -> Result<Exit> {
    let mut settings = config::settings(&args.delivery)?;
    if let Some(guard) = args.job.guard {
        settings.guard = guard;
    }
    if let Some(to) = &args.sample.test_to {
        return sample::run(args, to, settings);
    }
    settings.portion = args.part.portion();
    send(&args.read, &args.job, &args.delivery, &args.show, settings).map(|(exit, _)| exit)
}

/// Sends a batch with these settings; `flags` are what they were made from, for when they are read again. Returns
/// the status to end with, and the summary.
///
/// # Errors
/// A [`Failure`].
pub fn send(
    read: &ReadArgs,
    job: &JobArgs,
    flags: &DeliveryArgs,
    show: &ShowArgs,
    settings: Settings,
) -> Result<(Exit, String)> {
    // First: nothing is made for a command line that cannot be carried out.
    batch::check(read)?;
    let report = match &show.report {
        Some(path) => Some(Target::open(path, &read_by_us(read, flags))?),
        None => None,
    };
    let state = StateDir::open(&settings.state).map_err(job::failure)?;
    let stdin = if read.strict {
        refuse_invalid(read, state.path())?
    } else {
        Stdin::Live
    };
    let (job, is_new) = match find::job(&state, read, flags, job, settings.guard)? {
        Found::Run { job, is_new } => (*job, is_new),
        Found::Done(card) => {
            let exit = already_done(&card);
            if let Some(target) = report {
                write_report(&state, &card, target)?;
            }
            return Ok((exit, String::new()));
        }
    };
    let opened = batch::open(read, &stdin, &job, is_new);
    // The digest was another reading: what was swapped in between is not the batch that it stands for.
    let opened = opened.and_then(|batch| match is_new {
        true => unchanged(&job).map(|()| batch),
        false => Ok(batch),
    });
    let batch = match opened {
        Ok(batch) => batch,
        Err(error) => {
            if is_new {
                // Nothing was read: there is nothing to go on with.
                let _ = state.remove(job);
            }
            return Err(error);
        }
    };
    let plan = Plan {
        job,
        batch,
        settings,
        report,
    };
    deliver::deliver(plan, flags, show, &mut Told::listen()?)
}

fn unchanged(held: &Job) -> Result<()> {
    crate::job::unchanged(&held.card().inputs).map_err(job::failure)
}

/// The files that a report must not overwrite.
fn read_by_us(read: &ReadArgs, flags: &DeliveryArgs) -> Vec<PathBuf> {
    let named = [&read.to_file, &flags.config, &flags.credentials];
    let named = named.into_iter().flatten();
    read.batch.iter().chain(named).cloned().collect()
}

/// The report of the job that was done already: who asked for one gets it.
fn write_report(state: &StateDir, card: &JobCard, target: Target) -> Result<()> {
    let view = View::open(state, card.clone())?;
    let (written, _) = super::report::csv(&view, false, target)?;
    written.and_then(Target::finish).map_err(|error| {
        Failure::new(
            Exit::Io,
            format!("the report could not be written: {error}"),
        )
        .into()
    })
}

/// Says when the batch was sent, and ends as that run did.
fn already_done(card: &JobCard) -> Exit {
    let when = card
        .finished_ms
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    let when = when.map(|at| {
        let at = at.to_zoned_datetime(jiff::tz::TimeZone::system());
        format!(" at {}", at.strftime("%Y-%m-%d %H:%M"))
    });
    let counts: Vec<String> = card
        .counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let job = card.name.as_deref().unwrap_or(&card.id);
    say::complain(format!(
        "nothing was sent: this batch was {} as job {job}{} ({}); --again sends it to everybody again",
        if card.state == JobState::Cancelled {
            "cancelled"
        } else {
            "sent"
        },
        when.unwrap_or_default(),
        counts.join(", ")
    ));
    Exit::from_status(card.exit.unwrap_or(0))
}

/// `--strict`: reads the whole batch first, and refuses it if anything in it is invalid.
fn refuse_invalid(read: &ReadArgs, state: &Path) -> Result<Stdin> {
    let stdin = batch::copy_stdin(read, state)?;
    let mut problems = Vec::new();
    let mut count = 0;
    inspect(
        batch::inputs(read, &stdin)?,
        batch::options(read, state)?,
        |message| {
            for problem in message
                .problems
                .iter()
                .filter(|problem| !problem.is_warning())
            {
                count += 1;
                if problems.len() < 10 {
                    problems.push(problem.to_string());
                }
            }
        },
    )
    .map_err(batch::failure)?;
    for problem in &problems {
        say::complain(problem);
    }
    if count > 0 {
        return Err(Failure::new(
            Exit::Data,
            format!(
                "--strict: {} in the batch; nothing was sent",
                plural(count, "problem")
            ),
        )
        .hint("`mailer inspect` shows all of them")
        .into());
    }
    Ok(stdin)
}
