//! The ledger thread: the only one that touches the ledger. Workers and queues tell it what happened, in groups.
//!
//! It ends when the batch has been read to its end and every recipient is settled for this run; that is the end of the
//! run. It hands the ledger back, for the report.
//!
//! If a thread of the run has panicked, nobody may be left who could settle some recipients: then it ends when the batch
//! has been read and the last worker is gone.
//!
//! A record that cannot be written is fatal: `on_failure` is called at once, so that no new transaction is begun, and
//! what is still under way is waited for; what could not be recorded is in the error that the run ends with.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crossbeam_channel::Receiver;

use super::guard::Watch;
use super::shared::Shared;
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
    /// Something that the end of the run depends on has changed.
    Wake,
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
    shared: &Shared,
    watch: &Watch,
    on_failure: impl Fn(),
) -> (Ledger, Option<io::Error>) {
    let gauges = &shared.gauges;
    let mut failure = None;
    let mut read_to_end = false;
    let is_deserted = || shared.breakdown().is_some() && shared.workers_alive.load(SeqCst) == 0;
    let mut enter_watched = |ledger: &mut Ledger, entry: Entry| {
        let entered = watch.over("ledger", || {
            shared.settings.trip.at("ledger");
            enter(ledger, &entry, gauges)
        });
        match entered {
            Some(Ok(())) => {}
            Some(Err(error)) if failure.is_none() => {
                failure = Some(error);
                on_failure();
            }
            Some(Err(_)) => {}
            None => doubt(ledger, &entry),
        }
        gauges.show_counts(&ledger.counts());
    };
    while !(read_to_end && (ledger.unsettled() == 0 || is_deserted())) {
        // Every sender gone before the end: only if the threads of the run are gone, so nothing more will come.
        let Ok(entry) = entries.recv() else { break };
        read_to_end |= matches!(entry, Entry::ReadToEnd);
        enter_watched(&mut ledger, entry);
    }
    // What the last workers have said before they went.
    for entry in entries.try_iter() {
        enter_watched(&mut ledger, entry);
    }
    (ledger, failure)
}

/// The ledger has panicked over `entry`: who may have been delivered to, and is not known as such, is in doubt.
fn doubt(ledger: &mut Ledger, entry: &Entry) {
    let Entry::Attempts(attempts) = entry else {
        return;
    };
    for attempt in attempts {
        let is_known = ledger.outcome(attempt.recipient).status == attempt.verdict.status;
        if attempt.verdict.status == Status::Delivered && !is_known {
            ledger.leave(attempt.recipient, Status::InDoubt);
        }
    }
}

fn enter(ledger: &mut Ledger, entry: &Entry, gauges: &Gauges) -> io::Result<()> {
    match entry {
        Entry::Admitted { last } => ledger.admit(*last),
        Entry::ReadToEnd | Entry::Wake => {}
        Entry::Attempts(attempts) => {
            let mut outcome = Ok(());
            for attempt in attempts {
                count_settled(gauges, attempt);
                outcome = outcome.and(ledger.record(attempt));
            }
            return outcome;
        }
        Entry::Left { recipients } => {
            for (recipient, status) in recipients {
                ledger.leave(*recipient, *status);
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
