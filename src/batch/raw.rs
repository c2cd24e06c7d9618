//! The raw bytes of a message, read again from wherever they still are what they were.
//!
//! A message is looked for where intake found it, where the same batch was found later, and, if it is a file of a Maildir, under
//! the names that a mail reader may have given it.
//!
//! INVARIANT: what is read has the hash that intake saw. Errors: one that may pass goes before one that does not, so that a
//! message is given up only if none of its places can have it any more.

use super::content::ContentError;
use super::record::MessageRecord;
use super::source::{Location, read_from};
use super::store::BatchStore;
use crate::mbox::sniff::UTF8_MARK;
use std::io;

impl BatchStore {
    /// Reads the bytes of a message as they are in the batch.
    pub(super) fn read_raw(
        &self,
        record: &MessageRecord,
        raw: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let source = self
            .sources
            .get(record.source())
            .ok_or(ContentError::Invalid)?;
        let Err(error) = read_at(record, &source.location, raw) else {
            return Ok(());
        };
        match source.found_later() {
            Some(location) => {
                read_at(record, &location, raw).map_err(|later| worth_more(error, later))
            }
            None => Err(error),
        }
    }
}

/// The error that leaves more hope.
fn worth_more(error: ContentError, other: ContentError) -> ContentError {
    if error.may_pass() { error } else { other }
}

/// Reads a message at `location`, or under the name that its file has got since.
fn read_at(
    record: &MessageRecord,
    location: &Location,
    raw: &mut Vec<u8>,
) -> Result<(), ContentError> {
    let (offset, skip) = (record.offset(), mark_len(record));
    let missing = match checked(record, raw, |raw| location.read_exact_at(offset, skip, raw)) {
        Err(ContentError::Open(error)) if error.kind() == io::ErrorKind::NotFound => error,
        outcome => return outcome,
    };
    let mut found: Option<ContentError> = None;
    for path in location.renamed(offset) {
        let Err(error) = checked(record, raw, |raw| read_from(&path, skip, raw)) else {
            return Ok(());
        };
        found = Some(match found {
            Some(before) => worth_more(before, error),
            None => error,
        });
    }
    Err(found.unwrap_or(ContentError::Open(missing)))
}

/// The bytes before the message in a file that holds one.
fn mark_len(record: &MessageRecord) -> u64 {
    if record.is_marked() {
        UTF8_MARK.len() as u64
    } else {
        0
    }
}

/// Lets `read` fill `raw`, and makes sure that the bytes are those of intake.
fn checked(
    record: &MessageRecord,
    raw: &mut Vec<u8>,
    read: impl FnOnce(&mut [u8]) -> Result<(), ContentError>,
) -> Result<(), ContentError> {
    raw.resize(record.length() as usize, 0);
    read(raw)?;
    if xxhash_rust::xxh3::xxh3_64(raw) != record.hash() {
        return Err(ContentError::Changed);
    }
    Ok(())
}
