//! `mailer send`: opens the batch, lets the engine run, shows what happens, writes the report, and ends with the right
//! status.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::args::{DeliveryArgs, ReadArgs, SendArgs, ShowArgs};
use super::batch::{self, Stdin};
use super::conclude::conclude;
use super::config;
use super::exit::{Exit, Failure};
use super::watch::watch;
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

/// Delivers a batch with these settings; `flags` are what they were made from, for when they are read again. Returns the status to end with, and the summary.
///
/// # Errors
/// A [`Failure`].
pub fn deliver(
    read: &ReadArgs,
    flags: &DeliveryArgs,
    show: &ShowArgs,
    settings: Settings,
) -> Result<(Exit, String)> {
    let state = batch::make_state(&settings.state)?;
    let report = open_report(show.report.as_deref())?;
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
    let began = Instant::now();
    let stop_after = settings.stop_after;
    let running = run::start(batch.reader, batch.store, settings, batch.reads_stdin)
        .map_err(start_failure)?;
    let stopped = watch(&running, flags, show, began, stop_after)?;
    let end = running.finish();
    let summary = tell(&end, &store, &queues, report, began.elapsed())?;
    if show.prints_summary() {
        eprint!("{summary}");
    }
    Ok((conclude(end, show, stopped)?, summary))
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
        eprintln!("mailer: {problem}");
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
        StartError::Tls(error) => Failure::new(Exit::Config, format!("certificates: {error}")),
        StartError::Routes(text) => Failure::new(Exit::Config, text),
        StartError::Thread(error) => {
            Failure::new(Exit::Software, format!("cannot start a thread: {error}"))
        }
    }
    .into()
}

/// Opens the report before anything is sent: who cannot have a report should know at once.
fn open_report(path: Option<&Path>) -> Result<Option<Box<dyn Write>>> {
    let Some(path) = path else { return Ok(None) };
    if path.as_os_str() == "-" {
        return Ok(Some(Box::new(BufWriter::new(io::stdout().lock()))));
    }
    let file = File::create(path).map_err(|error| {
        Failure::new(
            Exit::CantCreate,
            format!("{}: cannot write the report: {error}", path.display()),
        )
    })?;
    Ok(Some(Box::new(BufWriter::new(file))))
}

/// Writes the report if one is wanted, and makes the summary.
fn tell(
    end: &RunEnd,
    store: &BatchStore,
    queues: &[String],
    report: Option<Box<dyn Write>>,
    took: Duration,
) -> Result<String> {
    let failed =
        |error: io::Error| Failure::new(Exit::Io, format!("cannot write the report: {error}"));
    let mut summary = Summary::default();
    let mut report = report.map(Report::begin).transpose().map_err(failed)?;
    for number in 0..store.message_count() {
        let message = MessageNo(number as u32);
        let Some(record) = store.message(message) else {
            continue;
        };
        for recipient in record.first_recipient()..record.first_recipient() + record.recipients() {
            let recipient = RecipientNo(recipient);
            let outcome = end.ledger.outcome(recipient).map_err(failed)?;
            let plain = report.is_none() && outcome.status == Status::Delivered;
            let text = if plain {
                String::new()
            } else {
                store.recipient_text(recipient)
            };
            summary.add(&text, &outcome);
            if let Some(report) = &mut report {
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
                report.row(&row).map_err(failed)?;
            }
        }
    }
    if let Some(report) = report {
        report.finish().map_err(failed)?;
    }
    Ok(summary.render(store.message_count() as u64, took))
}
