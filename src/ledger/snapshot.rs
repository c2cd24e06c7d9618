//! A look at any job's ledger, whether somebody runs it or not: nothing is changed and nobody is waited for.
//!
//! The journal's segments are read first, the last of them before the others; then the database, in one transaction; then what
//! the database does not have yet is replayed on top of it. So whatever is seen, all that was written before it is seen too:
//! a segment before one that holds something takes no more records, and one that was folded and deleted in between is in
//! the database by then.
//!
//! An intent that is open shows as what it would be if its run died now: in doubt, or held for the second time. Whether the run
//! lives is not known here; [`Snapshot::is_sending`] says of whom this is to be asked.
//!
//! Limits: the transaction stays open as long as the snapshot lives, and the fold of a live run waits for it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use super::error::LedgerError;
use super::journal::{segment_path, segments};
use super::outcome::{Attempt, Outcome, Via, interrupted};
use super::replay::{Details, Line, Names, Place, Segments, Sending, Touch, read_segment};
use super::store::{Row, Store};
use crate::mail::{QueueId, RecipientNo, Status, Verdict};

/// Rows that are read at once.
const PAGE: usize = 512;

/// The ledger of a job at one moment.
#[derive(Debug)]
pub struct Snapshot {
    store: Option<Store>,
    segments: Segments,
    /// Recipients that the segments say something new of, in order.
    changed: Vec<Changed>,
    names: Names,
    ways: HashMap<i64, Via>,
}

#[derive(Debug)]
struct Changed {
    recipient: RecipientNo,
    line: Line,
    was_sending: bool,
    /// As the database has it.
    row_status: Option<Status>,
}

impl Snapshot {
    /// Looks at the ledger in `directory`.
    ///
    /// # Errors
    /// If it cannot be read. A job that nothing was recorded of has an empty ledger, which is no error.
    pub fn read(directory: &Path) -> Result<Snapshot, LedgerError> {
        Snapshot::read_with(directory, Names::new(&["general".to_owned()]))
    }

    /// The same, with numbers for some queues.
    pub(super) fn read_with(directory: &Path, mut names: Names) -> Result<Snapshot, LedgerError> {
        let numbers = segments(directory).map_err(LedgerError::io(directory))?;
        let mut parts = Vec::new();
        // From the last to the first: when something was seen in a segment, the one before is sealed.
        for number in numbers.into_iter().rev() {
            let path = segment_path(directory, number);
            let bytes = read_segment(directory, number).map_err(LedgerError::io(&path))?;
            parts.extend(bytes.map(|bytes| (number, bytes)));
        }
        let store = Store::open(directory)?;
        let meta = match &store {
            Some(store) => store.begin_reading()?,
            None => Default::default(),
        };
        let ways = match &store {
            Some(store) => store.ways(&mut names)?,
            None => HashMap::new(),
        };
        let mut segments = Segments::after(meta.run);
        for (_, bytes) in parts
            .into_iter()
            .rev()
            .filter(|(number, _)| *number > meta.folded)
        {
            segments.push(bytes, &mut names);
        }
        let touches = segments.touches();
        let mut snapshot = Snapshot {
            store,
            segments,
            changed: Vec::new(),
            names,
            ways,
        };
        snapshot.changed = snapshot.changes(&touches)?;
        Ok(snapshot)
    }

    fn changes(&self, touches: &[Touch]) -> Result<Vec<Changed>, LedgerError> {
        let mut changed = Vec::new();
        let mut finder = self.store.as_ref().map(Store::finder).transpose()?;
        let mut sending = match &self.store {
            Some(store) => VecDeque::from(store.sending()?),
            None => VecDeque::new(),
        };
        let mut add = |recipient, touches: &[Touch]| -> Result<(), LedgerError> {
            let row = match &mut finder {
                Some(finder) => finder.find(recipient)?,
                None => None,
            };
            changed.push(self.change(recipient, row.as_ref(), touches));
            Ok(())
        };
        for group in touches.chunk_by(|a, b| a.recipient == b.recipient) {
            let recipient = group[0].recipient;
            while let Some(first) = sending.front().copied().filter(|first| *first <= recipient) {
                sending.pop_front();
                if first < recipient {
                    add(first, &[])?;
                }
            }
            add(recipient, group)?;
        }
        for recipient in sending {
            add(recipient, &[])?;
        }
        Ok(changed)
    }

    fn change(&self, recipient: RecipientNo, row: Option<&Row>, touches: &[Touch]) -> Changed {
        let mut line = row.map_or(Line::NEW, |row| row.line);
        line.replay(touches, &self.segments);
        let was_sending = line.sending != Sending::No;
        line.interrupt(&self.segments);
        Changed {
            recipient,
            line,
            was_sending,
            row_status: row
                .filter(|row| row.line.sending == Sending::No)
                .map(|row| row.line.standing.status),
        }
    }

    /// Where a recipient stands.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn outcome(&self, recipient: RecipientNo) -> Result<Outcome, LedgerError> {
        self.outcome_by(recipient, |store| store.finder()?.find(recipient))
    }

    fn outcome_by(
        &self,
        recipient: RecipientNo,
        find: impl FnOnce(&Store) -> Result<Option<Row>, LedgerError>,
    ) -> Result<Outcome, LedgerError> {
        let changed = self.changed(recipient);
        let needs_row = changed.is_none_or(|changed| {
            matches!(changed.line.details, Details::Row | Details::InterruptedRow)
        });
        let row = match &self.store {
            Some(store) if needs_row => find(store)?,
            _ => None,
        };
        let line = changed.map(|changed| changed.line);
        let line = line.or_else(|| row.as_ref().map(|row| row.line));
        Ok(line.map_or(Outcome::QUEUED, |line| {
            self.outcome_of(recipient, &line, row.as_ref())
        }))
    }

    fn changed(&self, recipient: RecipientNo) -> Option<&Changed> {
        let at = self
            .changed
            .binary_search_by_key(&recipient, |changed| changed.recipient);
        at.ok().map(|at| &self.changed[at])
    }

    fn outcome_of(&self, recipient: RecipientNo, line: &Line, row: Option<&Row>) -> Outcome {
        let last = match line.details {
            Details::None => None,
            Details::Row | Details::InterruptedRow => {
                row.and_then(|row| row.attempt(line, &self.ways))
            }
            Details::Attempt(place) => self.segments.attempt(place).map(|attempt| {
                let queue = self.segments.queue(place, attempt.via.queue);
                attempt.to_attempt(queue)
            }),
            Details::Interrupted(place) => self.interrupted(recipient, place),
        };
        let standing = line.standing;
        let last = last.map(|last| Attempt {
            verdict: Verdict {
                status: standing.status,
                ..last.verdict
            },
            passage: standing.passage,
            ..last
        });
        Outcome {
            status: standing.status,
            first_at: line.standing.first_at,
            last,
        }
    }

    fn interrupted(&self, recipient: RecipientNo, place: Place) -> Option<Attempt> {
        let (at, via) = self.segments.intent(place)?;
        Some(Attempt {
            recipient,
            verdict: interrupted(),
            via: via.to_via(self.segments.queue(place, via.queue)),
            passage: Default::default(),
            at,
            took_ms: 0,
        })
    }

    /// Calls `f` with every recipient that something is known of, in order. Those it is not called with are queued.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn each(&self, mut f: impl FnMut(RecipientNo, &Outcome)) -> Result<(), LedgerError> {
        let mut changed = self.changed.iter().peekable();
        let mut from = Some(RecipientNo(0));
        while let (Some(store), Some(first)) = (&self.store, from) {
            let page = store.rows_from(first, PAGE)?;
            let last = page.last().filter(|_| page.len() == PAGE);
            from = last.and_then(|row| row.recipient.0.checked_add(1).map(RecipientNo));
            for row in page {
                while let Some(one) = changed.next_if(|one| one.recipient < row.recipient) {
                    f(
                        one.recipient,
                        &self.outcome_of(one.recipient, &one.line, None),
                    );
                }
                let own = changed.next_if(|one| one.recipient == row.recipient);
                let line = own.map_or(row.line, |one| one.line);
                f(
                    row.recipient,
                    &self.outcome_of(row.recipient, &line, Some(&row)),
                );
            }
        }
        for one in changed {
            f(
                one.recipient,
                &self.outcome_of(one.recipient, &one.line, None),
            );
        }
        Ok(())
    }

    /// How many recipients stand at each status, in the order of [`Status::ALL`], of those that something is known of.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn counts(&self) -> Result<[u64; Status::ALL.len()], LedgerError> {
        let mut counts = [0; Status::ALL.len()];
        let place = |status| Status::ALL.iter().position(|each| *each == status);
        if let Some(store) = &self.store {
            counts = store.counts()?;
        }
        for changed in &self.changed {
            if let Some(at) = changed.row_status.and_then(place) {
                counts[at] -= 1;
            }
            if let Some(at) = place(changed.line.standing.status) {
                counts[at] += 1;
            }
        }
        Ok(counts)
    }

    /// True if an intent of the recipient is open: it is being sent to, if the run is alive.
    pub fn is_sending(&self, recipient: RecipientNo) -> bool {
        self.changed(recipient)
            .is_some_and(|changed| changed.was_sending)
    }

    /// How many recipients are being sent to, if the run is alive.
    pub fn sending(&self) -> u64 {
        let sending = self.changed.iter().filter(|changed| changed.was_sending);
        sending.count() as u64
    }

    /// The name of the queue with this number in the outcomes of this snapshot.
    pub fn queue_name(&self, queue: QueueId) -> &str {
        self.names.name(queue)
    }

    /// The number of the last run that is known of; 0 if there was none.
    pub fn run(&self) -> u32 {
        self.segments.run()
    }

    /// Bytes of the journal that no record could be read from: the torn end of a crash, or damage.
    pub fn skipped(&self) -> u64 {
        self.segments.skipped()
    }
}

/// Reads outcomes of ascending recipients, a page of rows at a time.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    page: VecDeque<Row>,
    /// The page holds all rows from here ..
    from: u32,
    /// .. to before here.
    to: u64,
}

impl Cursor {
    /// Where a recipient stands.
    pub(super) fn outcome(
        &mut self,
        snapshot: &Snapshot,
        recipient: RecipientNo,
    ) -> Result<Outcome, LedgerError> {
        snapshot.outcome_by(recipient, |store| self.find(store, recipient))
    }

    fn find(&mut self, store: &Store, recipient: RecipientNo) -> Result<Option<Row>, LedgerError> {
        let no = u64::from(recipient.0);
        if no < u64::from(self.from) || no >= self.to {
            self.page = store.rows_from(recipient, PAGE)?.into();
            let last = self.page.back().filter(|_| self.page.len() == PAGE);
            self.to = last.map_or(u64::MAX, |row| u64::from(row.recipient.0) + 1);
        }
        self.from = recipient.0;
        while self
            .page
            .front()
            .is_some_and(|row| row.recipient < recipient)
        {
            self.page.pop_front();
        }
        let is_it = self
            .page
            .front()
            .is_some_and(|row| row.recipient == recipient);
        self.from += u32::from(is_it);
        Ok(if is_it { self.page.pop_front() } else { None })
    }
}
