//! The ledger's thread: the only one that touches the ledger. Workers and queues tell it what happened, in groups, once
//! it is in the journal.
//!
//! It ends when the batch has been read to its end and every recipient is settled for this run; that is the end of the
//! run. It hands the ledger back, for the last fold and the report. About once a second it makes what was written so far
//! survive a loss of power: the batch's index first, since the journal names recipients by their numbers in it.
//!
//! If a thread of the run has panicked, nobody may be left who could settle some recipients: then it ends when the batch
//! has been read and the last worker is gone.
//!
//! A record that cannot be written is fatal: `stop` is called at once, so that no new transaction is begun, and
//! what is still under way is waited for. Its verdicts are in memory and in the report; a later run takes for in doubt
//! what the journal says was begun.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::guard::Watch;
use super::shared::{EarlyEnd, Shared};
use super::status::Gauges;
use super::stop_on::Breaker;
use crate::batch::BatchStore;
use crate::ledger::{Journal, Ledger, LedgerError, People};
use crate::mail::verdict::printable;
use crate::mail::{MessageNo, QueueId, RecipientNo, Status};

/// How often what was recorded is made to survive a loss of power.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What the ledger's thread is told.
#[derive(Debug)]
pub enum Entry {
    /// Recipients up to this one are known now.
    Admitted {
        /// The last of them.
        last: RecipientNo,
    },
    /// The batch has been read to its end.
    ReadToEnd,
    /// What became of some recipients in attempts that are in the journal.
    Noted {
        /// The queue whose worker made them.
        queue: QueueId,
        /// Who, and what became of it.
        attempts: Vec<(RecipientNo, Status)>,
        /// It was settled by the operator, not by a server.
        is_ordered: bool,
    },
    /// These recipients are not tried again in this run.
    Left {
        /// Who, and in which state.
        recipients: Vec<(RecipientNo, Status)>,
    },
    /// Something could not be recorded.
    Failed(io::Error),
    /// Something that the end of the run depends on has changed.
    Wake,
}

/// The way to the ledger, for every thread of a run.
#[derive(Clone, Debug)]
pub struct Book {
    entries: Sender<Entry>,
    journal: Arc<Journal>,
}

impl Book {
    /// The way to the thread that receives `entries`, with the journal of its ledger.
    pub fn new(entries: Sender<Entry>, journal: Arc<Journal>) -> Book {
        Book { entries, journal }
    }

    /// The journal.
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// Tells the ledger's thread. When that has ended, nobody needs to hear it any more.
    pub fn enter(&self, entry: Entry) {
        let _ = self.entries.send(entry);
    }

    /// What is recorded of `queue` from now on is of the queue that is called `name`.
    pub fn name_queue(&self, queue: QueueId, name: &str) {
        if let Err(error) = self.journal.name_queue(queue, name) {
            self.fail(&error);
        }
    }

    /// Something could not be recorded.
    pub fn fail(&self, error: &io::Error) {
        self.enter(Entry::Failed(io::Error::new(
            error.kind(),
            error.to_string(),
        )));
    }
}

impl People for BatchStore {
    fn person(&self, recipient: RecipientNo) -> Option<(MessageNo, String)> {
        BatchStore::person(self, recipient)
    }
}

/// Keeps the ledger until the run is over.
///
/// `stop` is called when the run has to stop: something could not be recorded, or a rule of `--stop-on` has come true.
pub fn keep(
    ledger: Ledger,
    entries: &Receiver<Entry>,
    shared: &Shared,
    watch: &Watch,
    stop: impl Fn(),
) -> (Ledger, Option<LedgerError>) {
    let mut keeper = Keeper {
        ledger,
        shared,
        watch,
        stop,
        breaker: Breaker::new(shared.settings.stop_on.clone()),
        failure: None,
        synced_at: Instant::now(),
        is_dirty: false,
    };
    let mut read_to_end = false;
    let is_deserted = || shared.breakdown().is_some() && shared.workers_alive.load(SeqCst) == 0;
    while !(read_to_end && (keeper.ledger.unsettled() == 0 || is_deserted())) {
        match entries.recv_timeout(keeper.time_to_sync()) {
            Ok(entry) => {
                read_to_end |= matches!(entry, Entry::ReadToEnd);
                keeper.enter(entry);
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Every sender gone before the end: only if the threads of the run are gone, so nothing more will come.
            Err(RecvTimeoutError::Disconnected) => break,
        }
        keeper.sync_if_due();
    }
    // What the last workers have said before they went.
    for entry in entries.try_iter() {
        keeper.enter(entry);
    }
    (keeper.ledger, keeper.failure)
}

/// The state of the ledger's thread.
struct Keeper<'a, F> {
    ledger: Ledger,
    shared: &'a Shared,
    watch: &'a Watch,
    stop: F,
    breaker: Breaker,
    failure: Option<LedgerError>,
    synced_at: Instant,
    /// Something was heard since.
    is_dirty: bool,
}

impl<F: Fn()> Keeper<'_, F> {
    fn time_to_sync(&self) -> Duration {
        SYNC_EVERY.saturating_sub(self.synced_at.elapsed())
    }

    /// Workers write their intents to the journal and tell nobody until the verdict is there, which may take many minutes:
    /// so the journal itself is asked.
    fn sync_if_due(&mut self) {
        if self.synced_at.elapsed() < SYNC_EVERY {
            return;
        }
        self.synced_at = Instant::now();
        if !std::mem::take(&mut self.is_dirty) && !self.shared.book.journal.is_unsynced() {
            return;
        }
        let synced = self.shared.store.sync();
        let synced = synced
            .map_err(|error| self.ledger.failure(error))
            .and_then(|()| self.ledger.tick());
        self.note_failure(synced);
    }

    fn enter(&mut self, entry: Entry) {
        self.is_dirty = true;
        let (shared, ledger) = (self.shared, &mut self.ledger);
        let entered = self.watch.over("ledger", || {
            shared.settings.trip.at("ledger");
            enter(ledger, &entry, &shared.gauges)
        });
        match entered {
            Some(outcome) => {
                self.note_failure(outcome);
                self.judge(&entry);
            }
            None => doubt(&mut self.ledger, &entry),
        }
        self.shared.gauges.show_counts(&self.ledger.counts());
    }

    /// Applies the rules of `--stop-on` to what servers and the DNS have said.
    fn judge(&mut self, entry: &Entry) {
        let Entry::Noted {
            attempts,
            is_ordered: false,
            ..
        } = entry
        else {
            return;
        };
        if self.breaker.is_idle() {
            return;
        }
        let store = &self.shared.store;
        for (recipient, status) in attempts {
            self.breaker.note(*status, || {
                let address = store.recipient_text(*recipient);
                let (_, domain) = address.rsplit_once('@')?;
                Some(printable(&domain.to_lowercase(), 255))
            });
        }
        if let Some(said) = self.breaker.judge() {
            // In this order: who sees the run stop must find out why.
            self.shared.end_early(EarlyEnd::Rule(said));
            (self.stop)();
        }
    }

    fn note_failure(&mut self, outcome: Result<(), LedgerError>) {
        if let Err(error) = outcome
            && self.failure.is_none()
        {
            self.failure = Some(error);
            (self.stop)();
        }
    }
}

/// The ledger has panicked over `entry`: who may have been delivered to, and is not known as such, is in doubt.
fn doubt(ledger: &mut Ledger, entry: &Entry) {
    let Entry::Noted { attempts, .. } = entry else {
        return;
    };
    for (recipient, status) in attempts {
        let is_known = ledger.standing(*recipient).status == *status;
        if *status == Status::Delivered && !is_known {
            ledger.doubt(*recipient);
        }
    }
}

pub(super) fn enter(
    ledger: &mut Ledger,
    entry: &Entry,
    gauges: &Gauges,
) -> Result<(), LedgerError> {
    match entry {
        Entry::Admitted { last } => ledger.admit(*last),
        Entry::ReadToEnd | Entry::Wake => {}
        Entry::Noted {
            queue: QueueId(queue),
            attempts,
            ..
        } => {
            let gauge = gauges.queues.get(usize::from(*queue));
            for (recipient, status) in attempts {
                if let Some(gauge) = gauge.filter(|_| !status.is_pending()) {
                    gauge.settled.fetch_add(1, Relaxed);
                }
                ledger.note(*recipient, *status);
            }
        }
        Entry::Left { recipients } => {
            for (recipient, status) in recipients {
                ledger.leave(*recipient, *status);
            }
        }
        Entry::Failed(error) => {
            let error = io::Error::new(error.kind(), error.to_string());
            return Err(ledger.failure(error));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod scratch {
    //! A ledger in a directory that goes away, for the tests of those who write to it.

    use super::*;
    use crate::batch::ReadOptions;
    use crate::ledger::Options;
    use crossbeam_channel::unbounded;

    pub struct Scratch {
        pub book: Book,
        pub entries: Receiver<Entry>,
        pub ledger: Ledger,
        pub directory: tempfile::TempDir,
    }

    pub fn ledger_in(directory: &std::path::Path) -> Ledger {
        let options = Options {
            sync_each: false,
            segment_bytes: 1 << 20,
            queues: vec!["general".into()],
            hold_in_doubt: false,
        };
        let store = Arc::new(BatchStore::new(ReadOptions::new(String::new())));
        Ledger::open(directory, options, store).unwrap()
    }

    pub fn scratch() -> Scratch {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger_in(directory.path());
        let (to_ledger, entries) = unbounded();
        let book = Book::new(to_ledger, ledger.journal());
        Scratch {
            book,
            entries,
            ledger,
            directory,
        }
    }
}
