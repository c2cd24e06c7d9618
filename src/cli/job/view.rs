//! A look at a job, whether somebody works on it or not: its card, its batch and its ledger as they are now.
//!
//! Nothing of the job is changed and nobody is kept from working on it, so a look needs no room on the disk. The ledger is
//! read before the tables of the batch: whoever it names is in them.
//!
//! INVARIANT: what is shown as in doubt is not on its way at this moment: that is asked of the job's lock.

use std::path::Path;

use anyhow::Result;

use super::{failure, ledger_failure};
use crate::batch::{BatchStore, ReadOptions};
use crate::cli::batch;
use crate::cli::flags::JobFlags;
use crate::job::{Holder, JobCard, JobState, StateDir};
use crate::ledger::{Outcome, Snapshot};
use crate::mail::{MessageNo, RecipientNo, Status};

/// A job at one moment.
pub struct View {
    /// Its card.
    pub card: JobCard,
    /// The flags of its runs.
    pub flags: JobFlags,
    /// Who works on it, if anybody does.
    pub running: Option<Option<Holder>>,
    /// Its batch.
    pub store: BatchStore,
    /// Its ledger.
    pub ledger: Snapshot,
}

impl View {
    /// Looks at the job with this card.
    ///
    /// # Errors
    /// A [`Failure`](crate::cli::exit::Failure): its files cannot be read.
    pub fn open(state: &StateDir, card: JobCard) -> Result<View> {
        let running = state.holder(&card.id).map_err(failure)?;
        View::open_with(state, card, running)
    }

    /// The same for a job that is held by us: nobody else works on it.
    ///
    /// # Errors
    /// A [`Failure`](crate::cli::exit::Failure): its files cannot be read.
    pub fn open_held(state: &StateDir, card: JobCard) -> Result<View> {
        BatchStore::sweep(&state.job_dir(&card.id));
        View::open_with(state, card, None)
    }

    fn open_with(state: &StateDir, card: JobCard, running: Option<Option<Holder>>) -> Result<View> {
        let dir = state.job_dir(&card.id);
        let ledger = Snapshot::read(&dir).map_err(ledger_failure)?;
        let flags = JobFlags::from_card(&card)?;
        let options = options(&flags, &card, &dir)?;
        let store = BatchStore::look(options, &dir).map_err(batch::failure)?;
        Ok(View {
            card,
            flags,
            running,
            store,
            ledger,
        })
    }

    /// True if somebody works on it.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// How many recipients the batch has, as far as it was read.
    pub fn recipients(&self) -> u64 {
        self.store.recipient_count() as u64
    }

    /// Calls `f` with every recipient in the order of the batch: its message, itself and what became of it. One that is being
    /// sent to right now is queued for who asks.
    ///
    /// # Errors
    /// A [`Failure`](crate::cli::exit::Failure): the ledger cannot be read.
    pub fn each(&self, mut f: impl FnMut(MessageNo, RecipientNo, &Outcome)) -> Result<()> {
        let count = self.store.recipient_count() as u32;
        let mut message = 0;
        let mut tell = |recipient: u32, outcome: &Outcome| {
            // Messages are in the order of their recipients.
            while self
                .store
                .message(MessageNo(message))
                .is_some_and(|record| record.first_recipient() + record.recipients() <= recipient)
            {
                message += 1;
            }
            f(MessageNo(message), RecipientNo(recipient), outcome);
        };
        let mut next = 0;
        let told = self.ledger.each(|recipient, outcome| {
            if recipient.0 >= count {
                return;
            }
            (next..recipient.0).for_each(|gap| tell(gap, &Outcome::QUEUED));
            let is_leaving = self.is_running() && self.ledger.is_sending(recipient);
            tell(
                recipient.0,
                if is_leaving {
                    &Outcome::QUEUED
                } else {
                    outcome
                },
            );
            next = recipient.0 + 1;
        });
        told.map_err(ledger_failure)?;
        (next..count).for_each(|gap| tell(gap, &Outcome::QUEUED));
        Ok(())
    }

    /// How many recipients stand at each status, in the order of [`Status::ALL`].
    ///
    /// # Errors
    /// A [`Failure`](crate::cli::exit::Failure): the ledger cannot be read.
    pub fn counts(&self) -> Result<[u64; Status::ALL.len()]> {
        let mut counts = [0; Status::ALL.len()];
        self.each(|_, _, outcome| {
            if let Some(at) = Status::ALL.iter().position(|each| *each == outcome.status) {
                counts[at] += 1;
            }
        })?;
        Ok(counts)
    }

    /// True for a recipient who has not got it and will not by itself, or about whom a person must decide.
    pub fn is_failed(&self, status: Status) -> bool {
        match status {
            Status::Refused | Status::Expired | Status::Invalid => true,
            Status::Held | Status::InDoubt => true,
            Status::Queued | Status::Deferred => self.card.state == JobState::Cancelled,
            Status::Delivered | Status::Suppressed => false,
        }
    }

    /// True for one of these who surely has not got it: what was in doubt once may have arrived.
    pub fn surely_failed(&self, outcome: &Outcome) -> bool {
        let was_in_doubt = outcome
            .last
            .as_ref()
            .is_some_and(|last| last.passage.in_doubt);
        let is_doubtful = matches!(outcome.status, Status::Held | Status::InDoubt);
        self.is_failed(outcome.status) && !is_doubtful && !was_in_doubt
    }
}

/// How the batch of a job was read.
///
/// # Errors
/// A [`Failure`](crate::cli::exit::Failure): the card's flags are wrong.
pub fn options(flags: &JobFlags, card: &JobCard, dir: &Path) -> Result<ReadOptions> {
    Ok(ReadOptions {
        date: card.date.clone(),
        command: "send",
        ..batch::options(&flags.read, dir)?
    })
}
