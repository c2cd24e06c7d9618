//! The end of a run: the exit status, and what a person has to know and do if it is not 0.

use anyhow::Result;

use super::args::ShowArgs;
use super::batch;
use super::exit::{Exit, Failure};
use super::watch::Stopped;
use crate::engine::run::RunEnd;
use crate::mail::Status;

/// The status to end with, and a line on standard error if it is not 0.
///
/// # Errors
/// A [`Failure`], where the run could not do its work.
pub fn conclude(end: RunEnd, show: &ShowArgs, stopped: Option<Stopped>) -> Result<Exit> {
    if let Some(error) = end.ledger_failure {
        return Err(Failure::new(
            Exit::Io,
            format!("the ledger cannot be written: {error}; sending was stopped"),
        )
        .hint("make room in the state directory, or name another one with --state DIR")
        .into());
    }
    if let Some(read) = &end.read {
        for problem in &read.problems {
            eprintln!("mailer: {problem}");
        }
        if read.problem_count > read.problems.len() as u64 {
            eprintln!(
                "mailer: {} problems in all; the report has every one",
                read.problem_count
            );
        }
    }
    if let Some(error) = end.read.and_then(|read| read.error) {
        return Err(batch::failure(error));
    }
    if end.no_dns {
        return Err(Failure::new(
            Exit::Network,
            "no name server answers; nothing can be delivered",
        )
        .hint("check the network and /etc/resolv.conf, or name a server with --dns ADDR:PORT")
        .into());
    }
    if stopped == Some(Stopped::Blocked) {
        return Err(Failure::new(Exit::Network, "no mail server answers: outgoing connections to this port seem to be blocked here")
            .hint("many providers block port 25; ask yours, or send through a relay with --relay HOST:PORT")
            .into());
    }
    let count = |statuses: &[Status]| {
        statuses
            .iter()
            .map(|status| end.ledger.count(*status))
            .sum::<u64>()
    };
    let pending = count(&[Status::Queued, Status::Deferred, Status::InDoubt]);
    let failures = count(&[
        Status::Refused,
        Status::Expired,
        Status::Invalid,
        Status::Held,
    ]);
    let total = end.ledger.len();
    let where_to_look = match &show.report {
        Some(path) if path.as_os_str() != "-" => format!("see {}", path.display()),
        _ => "run with --report FILE to see each".into(),
    };
    if pending > 0 {
        let why = match stopped {
            Some(Stopped::Signal) => "stopped by a signal: ",
            Some(Stopped::Time) => "the time of --run-for is over: ",
            _ => "",
        };
        eprintln!(
            "mailer: {why}{pending} of {total} recipients still pending, {failures} failed; {where_to_look}, and send those again later"
        );
        return Ok(Exit::Pending);
    }
    if failures > 0 {
        eprintln!("mailer: {failures} of {total} recipients failed; {where_to_look}");
        return Ok(Exit::Failures);
    }
    Ok(Exit::Done)
}
