//! The ledger thread: the only one that touches the ledger. Workers and queues tell it what happened, in groups.
//!
//! It ends when the batch has been read to its end and every recipient is settled for this run; that is the end of the
//! run. It hands the ledger back, for the report.
//!
//! A record that cannot be written is fatal: `on_failure` is called at once, so that no new transaction is begun, and
//! what is still under way is waited for; what could not be recorded is in the error that the run ends with.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::Receiver;

use super::status::Gauges;
use crate::ledger::{Attempt, Ledger};
use crate::mail::{QueueId, RecipientNo, Status};

/// What the ledger thread is told.
#[derive(Debug)]
pub enum Entry {
    /// Recipients up to this one are known now.
    Admitted {
        /// The last of them.
        last: RecipientNo,
    },
    /// The batch has been read to its end.
    ReadToEnd,
    /// What became of some recipients in an attempt.
    Attempts(Vec<Attempt>),
    /// These recipients are not tried again in this run.
    Left {
        /// Who, and in which state.
        recipients: Vec<(RecipientNo, Status)>,
    },
}

/// Keeps the ledger until the run is over.
///
/// `on_failure` is called once, when a record could not be written.
pub fn keep(
    mut ledger: Ledger,
    entries: &Receiver<Entry>,
    gauges: &Arc<Gauges>,
    on_failure: impl Fn(),
) -> (Ledger, Option<io::Error>) {
    let mut failure = None;
    let mut read_to_end = false;
    while !(read_to_end && ledger.unsettled() == 0) {
        // Every sender gone before the end: only if the threads of the run are gone, so nothing more will come.
        let Ok(entry) = entries.recv() else { break };
        read_to_end |= matches!(entry, Entry::ReadToEnd);
        if let Err(error) = enter(&mut ledger, entry, gauges)
            && failure.is_none()
        {
            failure = Some(error);
            on_failure();
        }
        gauges.show_counts(&ledger.counts());
    }
    (ledger, failure)
}

fn enter(ledger: &mut Ledger, entry: Entry, gauges: &Gauges) -> io::Result<()> {
    match entry {
        Entry::Admitted { last } => ledger.admit(last),
        Entry::ReadToEnd => {}
        Entry::Attempts(attempts) => {
            let mut outcome = Ok(());
            for attempt in &attempts {
                count_settled(gauges, attempt);
                outcome = outcome.and(ledger.record(attempt));
            }
            return outcome;
        }
        Entry::Left { recipients } => {
            for (recipient, status) in recipients {
                ledger.leave(recipient, status);
            }
        }
    }
    Ok(())
}

fn count_settled(gauges: &Gauges, attempt: &Attempt) {
    let QueueId(queue) = attempt.via.queue;
    if let Some(queue) = gauges
        .queues
        .get(usize::from(queue))
        .filter(|_| !attempt.verdict.status.is_pending())
    {
        queue.settled.fetch_add(1, Relaxed);
    }
}
