//! How a run begins: what the database and the segments of earlier runs say, and a segment of its own.
//!
//! INVARIANTS: a segment has its name only once it says which run it belongs to; a segment that the database has is never
//! read, and is deleted. Errors: what cannot be read or made, with its path.

use std::io::Write;
use std::path::Path;

use super::error::LedgerError;
use super::journal::{Journal, create_segment, segment_path, segments};
use super::replay::{Recovery, read_segment};
use super::store::Store;
use super::{Options, fold, record};
use crate::mail::{RecipientNo, Status};

/// What earlier runs recorded, the segments that are not folded, and the last segment there ever was.
pub(super) fn recover(directory: &Path) -> Result<(Recovery, Vec<u64>, u64), LedgerError> {
    let numbers = segments(directory).map_err(LedgerError::io(directory))?;
    let mut recovery = Recovery::default();
    let mut folded = 0;
    if let Some(store) = Store::open(directory)? {
        let meta = store.begin_reading()?;
        (folded, recovery.run) = (meta.folded, meta.run);
        store.recover(&mut recovery)?;
        store.end_reading()?;
    }
    let mut sealed = Vec::new();
    for number in &numbers {
        let path = segment_path(directory, *number);
        if *number <= folded {
            fold::remove(&path)?;
        } else {
            let bytes = read_segment(directory, *number).map_err(LedgerError::io(&path))?;
            recovery.replay(&bytes.unwrap_or_default());
            sealed.push(*number);
        }
    }
    recovery.interrupt();
    let last = numbers.last().copied().unwrap_or(0).max(folded);
    Ok((recovery, sealed, last))
}

/// Begins a run with a segment of its own: that it began, and who is held from now on.
pub(super) fn start_segment(
    directory: &Path,
    number: u64,
    options: &Options,
    recovery: &mut Recovery,
) -> Result<Journal, LedgerError> {
    let mut frames = Vec::new();
    put_run(&mut frames, recovery.run.saturating_add(1), options);
    if options.hold_in_doubt {
        let held = hold_in_doubt(recovery);
        let at = jiff::Timestamp::now().as_millisecond();
        record::put_left(&mut frames, at, Status::Held, &held);
    }
    let path = segment_path(directory, number);
    let file = create_segment(directory, number, |file| file.write_all(&frames))
        .map_err(LedgerError::io(&path))?;
    Ok(Journal::new(file, frames.len() as u64, options.sync_each))
}

fn hold_in_doubt(recovery: &mut Recovery) -> Vec<RecipientNo> {
    let mut held = Vec::new();
    for (no, standing) in (0..).zip(&mut recovery.standings) {
        if standing.status == Status::InDoubt {
            standing.leave(Status::Held);
            held.push(RecipientNo(no));
        }
    }
    held
}

/// Appends that this run begins, or goes on in another segment.
pub(super) fn put_run(frames: &mut Vec<u8>, run: u32, options: &Options) {
    let now = jiff::Timestamp::now().as_millisecond();
    record::put_run(frames, run, now, &options.queues);
}
