//! The ledger of a job: what became of each recipient, so that a run which ends at any moment loses none and sends nobody
//! anything twice without saying so.
//!
//! | file | holds |
//! |---|---|
//! | `journal`, `record`, `frames` | the log that every worker appends to before it matters; its frames, written and read |
//! | `standing`, `replay` | what a record changes, and segments of the journal read again |
//! | `segments` | how a run finds what earlier ones left, and begins its own segment |
//! | `store`, `schema`, `fold`, `pen` | the database: read, its tables, and how segments are put into it |
//! | `outcomes`, `snapshot` | what came of a run; a look at a job that somebody else may be running |
//!
//! [`Ledger`] is kept by one thread. Workers write to the journal themselves ([`Writer`]) and tell that thread what is written
//! already; it keeps a status for each recipient (three bytes), syncs the journal every second, and folds segments that are
//! full into the database. Recovery reads the database and then the journal: see `standing` for what wins.
//!
//! INVARIANTS: a recipient is *settled for this run* at most once; counts by status add up to the number of recipients that are
//! known; a journal is deleted only when the database that has it is safe from a power loss.
//!
//! Limits: a recipient's number is believed if its record's checksum is right, and memory goes by the highest.

pub mod error;
mod fold;
pub mod frames;
pub mod journal;
pub mod outcome;
mod outcomes;
mod pen;
pub mod record;
mod replay;
mod schema;
mod segments;
pub mod snapshot;
pub mod standing;
mod store;

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::LedgerError;
pub use journal::{Journal, Writer};
pub use outcome::{Attempt, Outcome, Via};
pub use outcomes::Outcomes;
pub use snapshot::Snapshot;
pub use standing::Standing;

use crate::mail::{MessageNo, RecipientNo, Status};
use journal::{create_segment, segment_path};
use replay::{Names, Recovery};
use segments::{put_run, recover, start_segment};

/// The journal is synced at most so often. Who keeps the ledger ticks every second, give or take what its own syncs take: a
/// tick that comes a little early must not be the one that is left out.
const SYNC_EVERY: Duration = Duration::from_millis(500);
/// After somebody kept the database locked, the next fold is tried after this time.
const FOLD_AGAIN: Duration = Duration::from_secs(60);

/// Who the recipients are, for the rows of the database.
pub trait People {
    /// The message and the address of a recipient, if there is such a one.
    fn person(&self, recipient: RecipientNo) -> Option<(MessageNo, String)>;
}

/// How a ledger is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Each intent is safe from a power loss before the byte it speaks of may leave (`--sync`).
    pub sync_each: bool,
    /// A segment of the journal is folded when it is so long.
    pub segment_bytes: u64,
    /// The names of this run's queues, by their ids.
    pub queues: Vec<String>,
    /// Mail that an earlier run left in doubt is held (`--in-doubt hold`).
    pub hold_in_doubt: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sync_each: false,
            segment_bytes: 8 * 1024 * 1024,
            queues: vec!["general".to_owned()],
            hold_in_doubt: false,
        }
    }
}

/// What became of every recipient.
pub struct Ledger {
    directory: PathBuf,
    options: Options,
    people: Arc<dyn People + Send + Sync>,
    journal: Arc<Journal>,
    run: u32,
    /// The segment that is appended to.
    segment: u64,
    /// Segments before it that are not folded yet.
    sealed: Vec<u64>,
    rows: Vec<Row>,
    /// All rows before this one are admitted.
    admitted: usize,
    /// What earlier runs left pending, in the order of recipients.
    pending: Vec<(RecipientNo, Standing)>,
    /// What servers asked for whose mail is among it.
    wishes: HashMap<RecipientNo, Duration>,
    counts: [u64; Status::ALL.len()],
    unsettled: u64,
    skipped: u64,
    sync_due: Instant,
    fold_due: Instant,
    /// The directory's entries are safe from a power loss.
    is_rooted: bool,
    is_finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    status: Status,
    is_admitted: bool,
    is_settled: bool,
}

const BLANK: Row = Row {
    status: Status::Queued,
    is_admitted: false,
    is_settled: false,
};

impl Ledger {
    /// Opens the ledger of a job, whose directory is there, for another run: reads what earlier runs recorded and begins a new
    /// segment of the journal. Nobody else may have it open: the job's lock sees to that.
    ///
    /// # Errors
    /// If something cannot be read or made.
    pub fn open(
        directory: &Path,
        options: Options,
        people: Arc<dyn People + Send + Sync>,
    ) -> Result<Ledger, LedgerError> {
        fold::remove(&fold::building_path(directory))?;
        let (mut recovery, sealed, last) = recover(directory)?;
        let journal = start_segment(directory, last + 1, &options, &mut recovery)?;
        let now = Instant::now();
        let mut ledger = Ledger {
            directory: directory.to_path_buf(),
            people,
            journal: Arc::new(journal),
            options,
            run: recovery.run.saturating_add(1),
            segment: last + 1,
            sealed,
            rows: Vec::new(),
            admitted: 0,
            pending: Vec::new(),
            wishes: HashMap::new(),
            counts: [0; Status::ALL.len()],
            unsettled: 0,
            skipped: recovery.skipped,
            sync_due: now + SYNC_EVERY,
            fold_due: now,
            is_rooted: false,
            is_finished: false,
        };
        ledger.take_over(recovery)?;
        Ok(ledger)
    }

    /// Goes on from what earlier runs left.
    fn take_over(&mut self, mut recovery: Recovery) -> Result<(), LedgerError> {
        if self.options.sync_each {
            self.sync()?;
        }
        self.wishes = std::mem::take(&mut recovery.wishes);
        for (no, standing) in (0..).zip(&recovery.standings) {
            if standing.status.is_pending() && *standing != Standing::NEW {
                self.pending.push((RecipientNo(no), *standing));
            }
            self.counts[position(standing.status)] += 1;
            self.rows.push(Row {
                status: standing.status,
                is_admitted: false,
                is_settled: !standing.status.is_pending(),
            });
        }
        Ok(())
    }

    /// The journal that workers write to.
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// A failure to write into the directory of the ledger's job, as one of the ledger.
    pub fn failure(&self, error: std::io::Error) -> LedgerError {
        LedgerError::Io(self.directory.clone(), error)
    }

    /// The number of this run, from 1.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Bytes of the journal that no record could be read from when the ledger was opened: the torn end of a crash, or damage.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Admits all recipients up to and including `last`: those that are pending are unsettled from now on.
    pub fn admit(&mut self, last: RecipientNo) {
        self.make_room(last);
        for at in self.admitted..=last.index() {
            self.admit_row(at);
        }
        self.admitted = self.admitted.max(last.index() + 1);
    }

    /// Admits one recipient, whatever is with those before it.
    pub fn admit_again(&mut self, recipient: RecipientNo) {
        self.make_room(recipient);
        self.admit_row(recipient.index());
    }

    fn make_room(&mut self, last: RecipientNo) {
        let wanted = last.index() + 1;
        if wanted > self.rows.len() {
            self.counts[position(Status::Queued)] += (wanted - self.rows.len()) as u64;
            self.rows.resize(wanted, BLANK);
        }
    }

    fn admit_row(&mut self, at: usize) {
        let row = &mut self.rows[at];
        if !std::mem::replace(&mut row.is_admitted, true) && !row.is_settled {
            self.unsettled += 1;
        }
    }

    /// Notes an attempt that is in the journal already. Delivered, refused and invalid recipients are settled by it; the
    /// others wait for another attempt, or for [`Ledger::leave`].
    pub fn note(&mut self, recipient: RecipientNo, status: Status) {
        self.admit_again(recipient);
        if !status.is_pending() {
            self.set_status(recipient, status);
            self.settle(recipient);
        } else if self.status(recipient).is_pending() {
            self.set_status(recipient, status);
        }
    }

    /// Leaves a recipient as it is for this run. A final state is that of a record in the journal. Mail that is pending stands
    /// as its attempts say, here as there (see `standing`): who leaves it knows only what its envelope has been through.
    pub fn leave(&mut self, recipient: RecipientNo, status: Status) {
        self.admit_again(recipient);
        if !status.is_pending() {
            self.set_status(recipient, status);
        }
        self.settle(recipient);
    }

    /// A recipient may have been delivered to, and what is known of that was lost on the way here.
    pub fn doubt(&mut self, recipient: RecipientNo) {
        self.admit_again(recipient);
        self.set_status(recipient, Status::InDoubt);
        self.settle(recipient);
    }

    fn set_status(&mut self, recipient: RecipientNo, status: Status) {
        let row = &mut self.rows[recipient.index()];
        self.counts[position(row.status)] -= 1;
        self.counts[position(status)] += 1;
        row.status = status;
    }

    fn settle(&mut self, recipient: RecipientNo) {
        let row = &mut self.rows[recipient.index()];
        assert!(
            !row.is_settled,
            "recipient {} is settled twice",
            recipient.0
        );
        row.is_settled = true;
        self.unsettled -= 1;
    }

    /// Recipients that are admitted and not settled for this run.
    pub fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// How many recipients stand at `status`.
    pub fn count(&self, status: Status) -> u64 {
        self.counts[position(status)]
    }

    /// All counts, in the order of [`Status::ALL`].
    pub fn counts(&self) -> [u64; Status::ALL.len()] {
        self.counts
    }

    /// Recipients that are known: admitted, or recorded by an earlier run, or before one of these.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if no recipient is known.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where a recipient stands. The status is that of now; the rest is what earlier runs left, for those they left pending.
    pub fn standing(&self, recipient: RecipientNo) -> Standing {
        let found = self
            .pending
            .binary_search_by_key(&recipient, |(recipient, _)| *recipient);
        let left = found.map_or(Standing::NEW, |at| self.pending[at].1);
        Standing {
            status: self.status(recipient),
            ..left
        }
    }

    fn status(&self, recipient: RecipientNo) -> Status {
        self.rows
            .get(recipient.index())
            .map_or(Status::Queued, |row| row.status)
    }

    /// How long after its last attempt the server of a recipient's deferred mail asked to be left alone, if it did and an
    /// earlier run heard it.
    pub fn wish(&self, recipient: RecipientNo) -> Option<Duration> {
        self.wishes.get(&recipient).copied()
    }

    /// What is due: about once a second the journal is synced; a segment that is full is sealed, and what is sealed is folded.
    /// Cheap when nothing is due.
    ///
    /// # Errors
    /// If something cannot be written or synced: nothing more may be sent then.
    pub fn tick(&mut self) -> Result<(), LedgerError> {
        self.tick_at(Instant::now())
    }

    fn tick_at(&mut self, now: Instant) -> Result<(), LedgerError> {
        if now < self.sync_due || self.is_finished {
            return Ok(());
        }
        self.sync_due = now + SYNC_EVERY;
        let path = segment_path(&self.directory, self.segment);
        // What is appended to a file without a name is lost.
        path.symlink_metadata().map_err(LedgerError::io(&path))?;
        self.sync()?;
        if self.journal.len() >= self.options.segment_bytes {
            self.rotate()?;
        }
        if !self.sealed.is_empty() && now >= self.fold_due {
            match self.fold() {
                Err(error) if error.is_busy() => self.fold_due = now + FOLD_AGAIN,
                other => other?,
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LedgerError> {
        let path = segment_path(&self.directory, self.segment);
        self.journal.sync().map_err(LedgerError::io(&path))?;
        if !self.is_rooted {
            fold::sync_directory(&self.directory)?;
            if let Some(parent) = self.directory.parent().filter(|parent| parent.is_dir()) {
                fold::sync_directory(parent)?;
            }
            self.is_rooted = true;
        }
        Ok(())
    }

    /// Seals the segment and goes on in another one.
    fn rotate(&mut self) -> Result<(), LedgerError> {
        let number = self.segment + 1;
        let path = segment_path(&self.directory, number);
        let mut frames = Vec::new();
        put_run(&mut frames, self.run, &self.options);
        let journal = Arc::clone(&self.journal);
        let names = journal.names();
        for (queue, name) in &*names {
            record::put_name(&mut frames, *queue, name);
        }
        let file = create_segment(&self.directory, number, |file| file.write_all(&frames));
        let file = file.map_err(LedgerError::io(&path))?;
        fold::sync_directory(&self.directory)?;
        self.sealed.push(self.segment);
        self.segment = number;
        let rotated = self.journal.rotate(file, frames.len() as u64);
        rotated.map_err(LedgerError::io(&path))
    }

    /// Folds what is sealed, as many segments at once as make a full one.
    fn fold(&mut self) -> Result<(), LedgerError> {
        while !self.sealed.is_empty() {
            let mut bytes = 0;
            let fits = |number: &&u64| {
                let path = segment_path(&self.directory, **number);
                let is_first = bytes == 0;
                bytes += path.metadata().map_or(0, |file| file.len()).max(1);
                is_first || bytes <= self.options.segment_bytes
            };
            let count = self.sealed.iter().take_while(fits).count();
            fold::fold(&self.directory, &self.sealed[..count], &*self.people)?;
            self.sealed.drain(..count);
        }
        Ok(())
    }

    /// Ends the run, once all writers are gone: everything is folded, safe from a power loss, and the journal is deleted. If
    /// somebody keeps the database locked, the journal stays, safe as well, for the next one who opens the ledger.
    ///
    /// # Errors
    /// If something cannot be written or synced. What the journal has stays there.
    pub fn finish(&mut self) -> Result<(), LedgerError> {
        if !std::mem::replace(&mut self.is_finished, true) {
            self.journal.close();
            self.sealed.push(self.segment);
        }
        match self.fold() {
            Err(error) => {
                self.sync()?;
                if error.is_busy() { Ok(()) } else { Err(error) }
            }
            Ok(()) => Ok(()),
        }
    }

    /// The outcomes of all recipients, for a report.
    ///
    /// # Errors
    /// If what was recorded cannot be read.
    pub fn outcomes(&self) -> Result<Outcomes<'_>, LedgerError> {
        let names = Names::new(&self.options.queues);
        let snapshot = Snapshot::read_with(&self.directory, names)?;
        Ok(Outcomes::new(self, snapshot))
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("directory", &self.directory)
            .field("run", &self.run)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

fn position(status: Status) -> usize {
    Status::ALL
        .iter()
        .position(|each| *each == status)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
