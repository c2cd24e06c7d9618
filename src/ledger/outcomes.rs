//! What came of a run, for its report: the statuses that memory holds, with the details that were recorded.
//!
//! Both agree unless something could not be written: then the status of memory stands, and details that belong to another one are
//! not shown for it.

use super::Ledger;
use super::error::LedgerError;
use super::outcome::Outcome;
use super::snapshot::{Cursor, Snapshot};
use crate::mail::{QueueId, RecipientNo, Status};

/// Outcomes of ascending recipients: statuses from memory, the rest from what was recorded.
#[derive(Debug)]
pub struct Outcomes<'a> {
    ledger: &'a Ledger,
    snapshot: Snapshot,
    cursor: Cursor,
    failure: Option<LedgerError>,
}

impl<'a> Outcomes<'a> {
    pub(super) fn new(ledger: &'a Ledger, snapshot: Snapshot) -> Outcomes<'a> {
        Outcomes {
            ledger,
            snapshot,
            cursor: Cursor::default(),
            failure: None,
        }
    }

    /// Where a recipient stands. Cheap for one behind the last that was asked for. What cannot be read costs the details,
    /// not the status: see [`Outcomes::failure`].
    pub fn outcome(&mut self, recipient: RecipientNo) -> Outcome {
        let status = self.ledger.status(recipient);
        let read = self.cursor.outcome(&self.snapshot, recipient);
        let recorded = read.unwrap_or_else(|error| {
            self.failure.get_or_insert(error);
            Outcome::QUEUED
        });
        if recorded.status == status {
            return recorded;
        }
        // An attempt that settles is told by its record. If that could not be written, the one before is not shown for it.
        let is_told = !matches!(
            status,
            Status::Delivered | Status::Refused | Status::Invalid | Status::Suppressed
        );
        Outcome {
            status,
            last: recorded.last.filter(|_| is_told),
            ..recorded
        }
    }

    /// The name of the queue with this number in these outcomes.
    pub fn queue_name(&self, queue: QueueId) -> &str {
        self.snapshot.queue_name(queue)
    }

    /// What kept details from being read, if anything did.
    pub fn failure(&self) -> Option<&LedgerError> {
        self.failure.as_ref()
    }
}
