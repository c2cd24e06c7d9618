//! The end of a run: the exit status, and what a person has to know and do if it is not 0.

use anyhow::Result;

use super::args::ShowArgs;
use super::batch;
use super::exit::{Exit, Failure};
use super::say;
use super::watch::Stopped;
use crate::engine::run::RunEnd;
use crate::engine::shared::EarlyEnd;
use crate::ledger::Ledger;
use crate::mail::Status;

/// The status to end with, and a line on standard error if it is not 0. `job` is the name of the job; `report_failure` says
/// what became of the report, if it could not be written.
///
/// # Errors
/// A [`Failure`], where the run could not do its work.
pub fn conclude(
    mut end: RunEnd,
    job: &str,
    show: &ShowArgs,
    stopped: Option<Stopped>,
    report_failure: Option<String>,
) -> Result<Exit> {
    show_problems(&end);
    let counts = counts(&end.ledger);
    if let Some(failure) = fatal(&mut end, job, stopped) {
        say::complain(&counts);
        return Err(failure);
    }
    if let Some(text) = report_failure {
        return Err(Failure::new(Exit::Io, format!("{text}; {counts}")).into());
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
    // A run that was stopped while its input was still open: nobody knows what was to come.
    let cut_short = end.read.is_none();
    if pending == 0 && failures == 0 && !cut_short {
        return Ok(Exit::Done);
    }
    let why = cause(&end, stopped);
    let where_to_look = match &show.report {
        Some(path) if path.as_os_str() != "-" => format!("see {}", path.display()),
        _ if show.is_rehearsal => "run with --report FILE to see each".into(),
        _ => format!("`mailer report {job}` shows each"),
    };
    let total = end.ledger.len();
    if cut_short {
        say::complain(
            "the input was not read to its end: what was still to come has not been sent",
        );
    }
    if pending > 0 || cut_short {
        let go_on = match show.is_rehearsal {
            true => String::new(),
            false => format!("; `mailer resume {job}` goes on"),
        };
        say::complain(format!(
            "{why}{pending} of {total} recipients still pending, {failures} failed; {where_to_look}{go_on}"
        ));
        return Ok(Exit::Pending);
    }
    say::complain(format!(
        "{why}{failures} of {total} recipients failed; {where_to_look}"
    ));
    Ok(Exit::Failures)
}

/// Why the run ended before its work was done, in front of what is left.
fn cause(end: &RunEnd, stopped: Option<Stopped>) -> String {
    match (&end.early_end, stopped) {
        (Some(EarlyEnd::Order), _) => "stopped by `mailer ctl stop`: ".into(),
        (Some(EarlyEnd::Rule(said)), _) => format!("stopped by --stop-on {said}; "),
        (None, Some(Stopped::Signal)) => "stopped by a signal: ".into(),
        (None, Some(Stopped::Time)) => "the time of --run-for is over: ".into(),
        (None, _) => String::new(),
    }
}

fn show_problems(end: &RunEnd) {
    if let Some(forgiven) = &end.forgiven {
        say::complain(format!(
            "a bug in mailer: its thread `{}` has panicked and was replaced: {}",
            forgiven.thread, forgiven.text
        ));
    }
    let Some(read) = &end.read else { return };
    for problem in &read.problems {
        say::complain(problem);
    }
    if read.problem_count > read.problems.len() as u64 {
        say::complain(format!(
            "{} problems in all; the report has every one",
            read.problem_count
        ));
    }
}

/// What kept the run from doing its work, if anything did.
fn fatal(end: &mut RunEnd, job: &str, stopped: Option<Stopped>) -> Option<anyhow::Error> {
    if let Some(breakdown) = &end.breakdown {
        let text = format!(
            "a bug in mailer: its thread `{}` has panicked, and sending was stopped: {}",
            breakdown.thread, breakdown.text
        );
        return Some(Failure::new(Exit::Software, text).into());
    }
    if let Some(error) = &end.ledger_failure {
        if let Some(error) = end.read.as_ref().and_then(|read| read.error.as_ref()) {
            say::complain(error);
        }
        let text = format!("the ledger cannot be written: {error}; sending was stopped");
        let hint = format!("make room in the state directory, then `mailer resume {job}`");
        return Some(Failure::new(Exit::Io, text).hint(hint).into());
    }
    if let Some(error) = end.read.as_mut().and_then(|read| read.error.take()) {
        return Some(batch::failure(error));
    }
    if end.no_dns {
        let text = "no name server answers; nothing can be delivered";
        let hint = "check the network and /etc/resolv.conf, or name a server with --dns ADDR:PORT";
        return Some(Failure::new(Exit::Network, text).hint(hint).into());
    }
    // One relay of several may refuse us, and the others have taken all there is.
    let waiting = [Status::Queued, Status::Deferred, Status::InDoubt];
    let is_left = end.read.is_none() || waiting.iter().any(|one| end.ledger.count(*one) > 0);
    if let Some(why) = end.trouble.as_ref().filter(|_| is_left) {
        let text = format!("the relay does not accept our credentials: {why}");
        let hint = "check --credentials or MAILER_RELAY_USER";
        return Some(Failure::new(Exit::Permission, text).hint(hint).into());
    }
    match stopped {
        Some(Stopped::Blocked) => {
            let text =
                "no mail server answers: outgoing connections to this port seem to be blocked here";
            let hint = "many providers block port 25; ask yours, or send through a relay with --relay HOST:PORT";
            Some(Failure::new(Exit::Network, text).hint(hint).into())
        }
        _ => None,
    }
}

/// `12 delivered, 3 deferred of 15 recipients`.
fn counts(ledger: &Ledger) -> String {
    let mut parts = Vec::new();
    for status in Status::ALL {
        let count = ledger.count(status);
        if count > 0 {
            parts.push(format!("{count} {}", status.name()));
        }
    }
    let parts = if parts.is_empty() {
        "nobody".into()
    } else {
        parts.join(", ")
    };
    format!("{parts} of {} recipients", ledger.len())
}
