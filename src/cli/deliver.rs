//! A run of a job: from the held job to its report, its card and the exit status.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::args::{DeliveryArgs, ShowArgs};
use super::batch::Batch;
use super::conclude::conclude;
use super::exit::{Exit, Failure};
use super::flags::JobFlags;
use super::job as cli_job;
use super::say;
use super::target::Target;
use super::watch::{Told, watch};
use crate::batch::BatchStore;
use crate::engine::run::{self, RunEnd, StartError, Work};
use crate::engine::settings::Settings;
use crate::engine::start;
use crate::hosts::HostStore;
use crate::job::{self, Job, JobState};
use crate::ledger::{Ledger, Options};
use crate::mail::{MessageNo, RecipientNo, Status};
use crate::report::rows::{Report, Row};
use crate::report::summary::Summary;
use crate::retry::InDoubt;

/// What a run needs, apart from the flags.
pub struct Plan {
    /// The job, held by us.
    pub job: Job,
    /// Its batch.
    pub batch: Batch,
    /// How it is delivered.
    pub settings: Settings,
    /// Where the report goes, if one is wanted.
    pub report: Option<Target>,
}

/// Runs the job until its end or until `told` says so. Returns the status to end with, and the summary.
///
/// # Errors
/// A [`Failure`].
pub fn deliver(
    plan: Plan,
    flags: &DeliveryArgs,
    show: &ShowArgs,
    told: &mut Told,
) -> Result<(Exit, String)> {
    let Plan {
        mut job,
        batch,
        mut settings,
        report,
    } = plan;
    let store = Arc::clone(&batch.store);
    let (workers_max, why) = run::workers_allowed(&settings).map_err(start_failure)?;
    settings.workers_max = workers_max;
    if let Some(why) = why.filter(|_| !show.quiet) {
        eprintln!("mailer: {why}");
    }
    match job.card().name {
        Some(_) => settings.came_since = Some(since(&job)),
        None => settings.age = age(&job),
    }
    let ledger = open_ledger(&job, &store, &settings)?;
    check_numbers(&job, &batch, &ledger)?;
    let memory = open_memory(&settings);
    let began = Instant::now();
    let stop_after = settings.stop_after;
    let work = Work {
        reader: batch.reader,
        store: batch.store,
        ledger,
        is_live: batch.is_live,
        memory,
        job_dir: Some(job.dir().to_owned()),
    };
    let running = start::start(work, settings).map_err(start_failure)?;
    if let Some(error) = running.control_failure().filter(|_| !show.quiet) {
        say::complain(format!(
            "job {} cannot be controlled while it runs: {error}",
            job.id()
        ));
    }
    if let Err(error) = job.sync() {
        say::complain(error);
        running.stop();
    }
    let stopped = watch(told, &running, flags, show, began, stop_after);
    let end = running.finish();
    let wants_summary = show.prints_summary() || show.is_rehearsal;
    let (summary, report_failure) = match report.is_some() || wants_summary {
        true => tell(&end, &store, report, began.elapsed()),
        false => (String::new(), None),
    };
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
    keep_unsettled(&end, &store, &job);
    if let Some(error) = &end.memory_trouble {
        say::complain(format!(
            "{error}: what was learned of receivers is not kept"
        ));
    }
    let facts = Facts::of(&end, &store);
    let concluded = conclude(end, job.id(), show, stopped, trouble);
    let exit = match &concluded {
        Ok(exit) => *exit,
        Err(error) => error
            .downcast_ref::<Failure>()
            .map_or(Exit::Software, |failure| failure.exit),
    };
    note(&mut job, &facts, exit);
    Ok((concluded?, summary))
}

/// The memory of hosts, if it is wanted. Whatever is wrong with it is said, and no reason not to send.
fn open_memory(settings: &Settings) -> Option<HostStore> {
    if !settings.memory {
        return None;
    }
    let opened = HostStore::open(&settings.state);
    if let Some(warning) = opened.warning {
        say::complain(warning);
    }
    opened.store
}

/// How old the mail of a job is that came all at once. A clock that was set back makes it no older than it is.
fn age(job: &Job) -> Duration {
    let age = cli_job::now_ms().saturating_sub(since(job)).max(0);
    Duration::from_millis(age as u64)
}

/// None of a job's mail is older than this.
fn since(job: &Job) -> i64 {
    let card = job.card();
    card.renewed_ms.unwrap_or(card.created_ms)
}

/// The ledger of a job.
///
/// # Errors
/// A [`Failure`].
pub fn open_ledger(job: &Job, store: &Arc<BatchStore>, settings: &Settings) -> Result<Ledger> {
    let queues = settings.queues.iter().map(|queue| queue.name.clone());
    let options = Options {
        sync_each: settings.sync,
        segment_bytes: settings.segment_bytes,
        queues: std::iter::once("general".to_owned())
            .chain(queues)
            .collect(),
        hold_in_doubt: settings.retry.in_doubt == InDoubt::Hold,
    };
    Ledger::open(job.dir(), options, Arc::clone(store) as _).map_err(cli_job::ledger_failure)
}

/// A loss of power may cost the index of a job what its journal still has. From a batch of files that is read again; but
/// only if it is what it was, since the journal knows recipients by their numbers. Who is new under a name must not get the
/// numbers of others, and count as sent to: these numbers are out of use.
fn check_numbers(job: &Job, batch: &Batch, ledger: &Ledger) -> Result<()> {
    if batch.reader.is_none() || ledger.len() <= batch.store.recipient_count() {
        return Ok(());
    }
    let card = job.card();
    if let Some(name) = &card.name {
        let lost = ledger.len() - batch.store.recipient_count();
        let padded = batch.store.pad(lost as u32);
        if padded.map_err(|error| super::job::ledger_failure(ledger.failure(error)))? {
            return Ok(());
        }
        let text =
            format!("job {name} has lost its index: nothing new can be sent under that name");
        return Err(Failure::new(Exit::Io, text)
            .hint("choose another name for what is new")
            .into());
    }
    let read = JobFlags::from_card(card)?.read;
    let digest = job::digest(&read.batch, read.to_file.as_deref(), &card.numbering);
    let digest = digest.map_err(cli_job::failure)?;
    if card.digest.as_deref() == Some(&digest.text) {
        return Ok(());
    }
    let text = format!(
        "job {} has lost a part of its index, and its batch is not what it was: nothing was sent",
        job.id()
    );
    Err(Failure::new(Exit::Data, text)
        .hint("put the batch back as it was, and go on then")
        .into())
}

/// Before a run ends with mail unsettled, that mail is copied: the batch file may be another one tomorrow.
fn keep_unsettled(end: &RunEnd, store: &BatchStore, job: &Job) {
    let is_unsettled = |message: &MessageNo| {
        store.message(*message).is_some_and(|record| {
            let first = record.first_recipient();
            (first..first + record.recipients()).any(|recipient| {
                end.ledger
                    .standing(RecipientNo(recipient))
                    .status
                    .is_pending()
            })
        })
    };
    let all = (0..store.message_count() as u32).map(MessageNo);
    let what = match store.keep(all.filter(is_unsettled)) {
        Ok(kept) => match kept.unreadable {
            0 => return,
            1 => "1 message could not be copied".to_owned(),
            some => format!("{some} messages could not be copied"),
        },
        Err(error) => format!("unsettled messages could not be copied ({error})"),
    };
    say::complain(format!(
        "job {}: {what}: keep the batch as it is until `mailer resume` has sent them",
        job.id()
    ));
}

/// What the card is told of a run.
struct Facts {
    counts: Vec<(Status, u64)>,
    recipients: u64,
    is_read_to_end: bool,
}

impl Facts {
    fn of(end: &RunEnd, store: &BatchStore) -> Facts {
        let counts = Status::ALL.map(|status| (status, end.ledger.count(status)));
        Facts {
            counts: counts.into_iter().filter(|(_, count)| *count > 0).collect(),
            recipients: end.ledger.len() as u64,
            is_read_to_end: store.is_read_to_end(),
        }
    }
}

/// The card says how the run ended.
fn note(job: &mut Job, facts: &Facts, exit: Exit) {
    let pending = facts.counts.iter().any(|(status, _)| status.is_pending());
    let is_over = facts.is_read_to_end && !pending;
    let now = cli_job::now_ms();
    let noted = job.update(|card| {
        card.runs = card.runs.max(1);
        card.ended_ms = Some(now);
        card.exit = Some(exit as u8);
        card.read_to_end = facts.is_read_to_end;
        card.recipients = facts.recipients;
        let names = facts.counts.iter();
        card.counts = names
            .map(|(status, count)| (status.name().to_owned(), *count))
            .collect();
        if is_over {
            card.state = JobState::Finished;
            card.finished_ms = Some(now);
        }
    });
    if let Err(error) = noted {
        say::complain(error);
    }
}

/// Why nothing can be started, as the program says it.
pub fn start_failure(error: StartError) -> anyhow::Error {
    match error {
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
    report: Option<Target>,
    took: Duration,
) -> (String, Option<io::Error>) {
    let mut summary = Summary::default();
    end.stopped_sites
        .iter()
        .for_each(|site| summary.add_stopped(site));
    let mut failure = None;
    let mut report = report.and_then(|target| keep(Report::begin(target), &mut failure));
    let mut outcomes = match end.ledger.outcomes() {
        Ok(outcomes) => outcomes,
        Err(error) => return (String::new(), Some(io::Error::other(error))),
    };
    for number in 0..store.message_count() {
        let message = MessageNo(number as u32);
        let Some(record) = store.message(message) else {
            continue;
        };
        for recipient in record.first_recipient()..record.first_recipient() + record.recipients() {
            let recipient = RecipientNo(recipient);
            let outcome = outcomes.outcome(recipient);
            let plain = report.is_none() && outcome.status == Status::Delivered;
            let text = if plain {
                String::new()
            } else {
                store.recipient_text(recipient)
            };
            summary.add(&text, &outcome);
            let via = outcome.last.as_ref().map(|last| &last.via);
            let row = Row {
                message: message.ordinal(),
                recipient: &text,
                outcome: &outcome,
                queue: via.map_or("general", |via| outcomes.queue_name(via.queue)),
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
