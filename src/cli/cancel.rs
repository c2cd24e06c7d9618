//! `mailer cancel`: nothing more of a job is sent.
//!
//! What is known of it stays: whose mail is pending can be written out (`mailer report JOB --failed --to-dir DIR`), and the
//! same batch is not taken for a new one right away.

use anyhow::Result;

use super::args::CancelArgs;
use super::exit::Exit;
use super::job::view::View;
use super::{job, say};
use crate::job::JobState;
use crate::mail::Status;
use crate::report::summary::plural;

/// Runs the command.
///
/// # Errors
/// A [`Failure`](super::exit::Failure): there is no such job, or somebody works on it.
pub fn run(args: &CancelArgs) -> Result<Exit> {
    let (state, mut job) = job::take(&args.state, &args.job)?;
    let id = job.id().to_owned();
    match job.card().state {
        JobState::Open => {}
        over => {
            say::complain(format!("job {id} is {} already", over.name()));
            return Ok(Exit::Done);
        }
    }
    let now = job::now_ms();
    job.update(|card| {
        card.state = JobState::Cancelled;
        card.finished_ms = Some(now);
    })
    .map_err(job::failure)?;
    // It is cancelled now, whatever can be found out about its mail.
    let counts = View::open_held(&state, job.card().clone())?.counts()?;
    let pending = Status::ALL.into_iter().zip(counts);
    let pending: u64 = pending
        .filter(|(status, _)| status.is_pending())
        .map(|(_, count)| count)
        .sum();
    job::change::refresh(&state, &mut job)?;
    let mut said = format!(
        "job {id} is cancelled; {} still pending will get nothing more of it\n",
        plural(pending, "recipient")
    );
    if pending > 0 {
        let report = job::typed(&format!("report {id} --failed --to-dir DIR"), &args.state);
        said.push_str(&format!("their messages: {report}\n"));
    }
    say::to_stdout(&said)?;
    Ok(Exit::Done)
}
