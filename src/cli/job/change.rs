//! What a person decides about recipients of a job that nobody works on: written to its ledger, and the card goes by it.
//!
//! The journal has the decision, safe from a power loss, before anything is said to the person.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::view::View;
use super::{failure, ledger_failure, now_ms};
use crate::batch::BatchStore;
use crate::cli::exit::{Exit, Failure};
use crate::job::{Job, JobCard, JobState, StateDir};
use crate::ledger::{Ledger, Options, People, Writer};
use crate::mail::{MessageNo, RecipientNo, Status};

/// The people of a batch.
struct Folk(BatchStore);

impl People for Folk {
    fn person(&self, recipient: RecipientNo) -> Option<(MessageNo, String)> {
        self.0.person(recipient)
    }
}

/// Gives recipients of a job another status. `store`: its batch.
///
/// # Errors
/// A [`Failure`]: the ledger cannot be read or written.
pub fn leave(
    dir: &Path,
    store: BatchStore,
    status: Status,
    recipients: &[RecipientNo],
) -> Result<()> {
    let people = Arc::new(Folk(store));
    let mut ledger = Ledger::open(dir, Options::default(), people).map_err(ledger_failure)?;
    let mut writer = Writer::new(ledger.journal());
    writer.left(now_ms(), status, recipients);
    let written = writer.flush();
    drop(writer);
    // What was written before is folded in any case.
    let finished = ledger.finish();
    written.map_err(|error| {
        let text = format!("{}: the ledger cannot be written: {error}", dir.display());
        Failure::new(Exit::Io, text).hint("make room in the state directory")
    })?;
    finished.map_err(ledger_failure)
}

/// What is queued again is as old as that: it expires `--expire` from now.
///
/// # Errors
/// A [`Failure`].
pub fn renew(job: &mut Job) -> Result<()> {
    let now = now_ms();
    job.update(|card| card.renewed_ms = Some(now))
        .map_err(failure)
}

/// Brings the card of a job in line with its ledger. A cancelled job stays one.
///
/// # Errors
/// A [`Failure`].
pub fn refresh(state: &StateDir, job: &mut Job) -> Result<()> {
    let view = View::open_held(state, job.card().clone())?;
    let counts = view.counts()?;
    let (recipients, is_read) = (view.recipients(), view.store.is_read_to_end());
    job.update(|card| note(card, recipients, is_read, &counts, now_ms()))
        .map_err(failure)
}

/// What the counts of all recipients say of a job.
fn note(
    card: &mut JobCard,
    recipients: u64,
    is_read: bool,
    counts: &[u64; Status::ALL.len()],
    now: i64,
) {
    let pairs = || Status::ALL.into_iter().zip(*counts);
    card.recipients = recipients;
    card.read_to_end |= is_read;
    card.counts = pairs()
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| (status.name().to_owned(), count))
        .collect();
    if card.state == JobState::Cancelled {
        return;
    }
    let is_pending = pairs().any(|(status, count)| status.is_pending() && count > 0);
    if is_pending || !card.read_to_end {
        card.state = JobState::Open;
        card.finished_ms = None;
        card.exit = card.exit.map(|_| Exit::Pending as u8);
        return;
    }
    let fine = [Status::Delivered, Status::Suppressed];
    let has_failures = pairs().any(|(status, count)| !fine.contains(&status) && count > 0);
    card.state = JobState::Finished;
    card.finished_ms = card.finished_ms.or(Some(now));
    let exit = if has_failures {
        Exit::Failures
    } else {
        Exit::Done
    };
    card.exit = Some(exit as u8);
}
