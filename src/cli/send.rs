//! `mailer send`: opens the batch, lets the engine run, shows what happens, writes the report, and ends with the right
//! status.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::args::{DeliveryArgs, ReadArgs, SendArgs, ShowArgs};
use super::batch::{self, Stdin};
use super::conclude::conclude;
use super::config;
use super::exit::{Exit, Failure};
use super::say;
use super::target::Target;
use super::watch::{Told, watch};
use crate::batch::{BatchStore, inspect};
use crate::engine::run::{self, RunEnd, StartError};
use crate::engine::settings::Settings;
use crate::mail::{MessageNo, RecipientNo, Status};
use crate::report::rows::{Report, Row};
use crate::report::summary::{Summary, plural};

/// Runs the command.
///
/// # Errors
/// A [`Failure`]; verdicts on mail are no errors.
pub fn run(args: &SendArgs) -> Result<Exit> {
    let settings = config::settings(&args.delivery)?;
    deliver(&args.read, &args.delivery, &args.show, settings).map(|(exit, _)| exit)
}

/// Delivers a batch with these settings; `flags` are what they were made from, for when they are read again. Returns
/// the status to end with, and the summary.
///
/// # Errors
/// A [`Failure`].
pub fn deliver(
    read: &ReadArgs,
    flags: &DeliveryArgs,
    show: &ShowArgs,
    mut settings: Settings,
) -> Result<(Exit, String)> {
    let state = batch::make_state(&settings.state)?;
    let mut read_by_us = read.batch.clone();
    read_by_us.extend(read.to_file.clone());
    read_by_us.extend(
        [flags.config.clone(), flags.credentials.clone()]
            .into_iter()
            .flatten(),
    );
    let report = match &show.report {
        Some(path) => Some(Target::open(path, &read_by_us)?),
        None => None,
    };
    let stdin = if read.strict {
        refuse_invalid(read, &state)?
    } else {
        Stdin::Live
    };
    let batch = batch::open(read, &stdin, &state)?;
    let store = Arc::clone(&batch.store);
    let queues: Vec<String> = settings
        .queues
        .iter()
        .map(|queue| queue.name.clone())
        .collect();
    let (workers_max, why) = run::workers_allowed(&settings).map_err(start_failure)?;
    settings.workers_max = workers_max;
    if let Some(why) = why.filter(|_| !show.quiet) {
        eprintln!("mailer: {why}");
    }
    let began = Instant::now();
    let stop_after = settings.stop_after;
    let mut told = Told::listen()?;
    let running =
        run::start(batch.reader, batch.store, settings, batch.is_live).map_err(start_failure)?;
    let stopped = watch(&mut told, &running, flags, show, began, stop_after);
    let end = running.finish();
    let (summary, report_failure) = tell(&end, &store, &queues, report, began.elapsed());
    if show.prints_summary() {
        say::to_stderr(&summary);
    }
    let trouble = report_failure.map(|error| {
        let path = show.report.as_deref().unwrap_or(Path::new("-"));
        format!(
            "{}: the report could not be written: {error}",
            path.display()
        )
    });
    Ok((conclude(end, show, stopped, trouble)?, summary))
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

fn start_failure(error: StartError) -> anyhow::Error {
    match error {
        StartError::Ledger(error) => Failure::new(
            Exit::CantCreate,
            format!("cannot make a file in the state directory: {error}"),
        )
        .hint("name another one with --state DIR"),
        StartError::Resolver(text) => Failure::new(Exit::Network, format!("no resolver: {text}"))
            .hint("name a server with --dns ADDR:PORT"),
        StartError::Bind(ip, error) => Failure::new(Exit::Config, format!("bind {ip}: {error}"))
            .hint("name an address of this machine"),
        StartError::Tls(error) if error.path.is_some() => {
            Failure::new(Exit::Config, format!("certificates: {error}"))
        }
        StartError::Tls(error) => {
            Failure::new(Exit::Software, format!("TLS cannot be used: {error}"))
                .hint("look at the configuration of OpenSSL on this machine")
        }
        StartError::Routes(text) => Failure::new(Exit::Config, text),
        StartError::Limits(text) => Failure::new(Exit::CantCreate, text),
        StartError::Thread(error) => {
            Failure::new(Exit::Software, format!("cannot start a thread: {error}"))
        }
    }
    .into()
}

/// Writes the report if one is wanted, and makes the summary, whatever becomes of the report.
fn tell(
    end: &RunEnd,
    store: &BatchStore,
    queues: &[String],
    report: Option<Target>,
    took: Duration,
) -> (String, Option<io::Error>) {
    let mut summary = Summary::default();
    end.stopped_sites
        .iter()
        .for_each(|site| summary.add_stopped(site));
    let mut failure = None;
    let mut report = report.and_then(|target| keep(Report::begin(target), &mut failure));
    for number in 0..store.message_count() {
        let message = MessageNo(number as u32);
        let Some(record) = store.message(message) else {
            continue;
        };
        for recipient in record.first_recipient()..record.first_recipient() + record.recipients() {
            let recipient = RecipientNo(recipient);
            let outcome = end.ledger.outcome(recipient);
            let plain = report.is_none() && outcome.status == Status::Delivered;
            let text = if plain {
                String::new()
            } else {
                store.recipient_text(recipient)
            };
            summary.add(&text, &outcome);
            let queue = outcome
                .last
                .as_ref()
                .and_then(|last| last.via.queue.index().checked_sub(1));
            let queue = queue.map_or("general", |at| queues.get(at).map_or("", String::as_str));
            let row = Row {
                message: message.ordinal(),
                recipient: &text,
                outcome: &outcome,
                queue,
            };
            report =
                report.and_then(|mut report| keep(report.row(&row).map(|()| report), &mut failure));
        }
    }
    if let Some(report) = report {
        let finished = report.finish().and_then(Target::finish);
        keep(finished, &mut failure);
    }
    (summary.render(store.message_count() as u64, took), failure)
}

/// The value, or the first failure noted.
fn keep<T>(outcome: io::Result<T>, failure: &mut Option<io::Error>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            failure.get_or_insert(error);
            None
        }
    }
}

#[cfg(test)]
mod tests;
