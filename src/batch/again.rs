//! A batch that an earlier run had begun to read: where its inputs are now, and what of it is known.
//!
//! A batch that was read to its end is not read again; it may have been found under another name, and is looked for there, too. One
//! that was not is read from its beginning. Messages that are known must come by as they were, in the same order: then
//! those behind them are the ones that were still to be read. A stream cannot be read again: the spool holds what was read of
//! it, which is enough if an input behind it had been begun.
//!
//! INVARIANT: nothing arrives of a batch that is not the one that was begun. What is known stays in the tables, whatever the
//! inputs have become, and is sent if its bytes can be had.

use super::error::{BatchError, BatchErrorKind};
use super::index::Known;
use super::reader::BatchReader;
use super::source::{Input, Place, Prepared, Preparing, Source};
use super::store::BatchStore;

/// What there is to be read again.
pub(super) fn again(inputs: Vec<Input>, store: &BatchStore, known: &Known) -> Vec<Prepared> {
    let is_over = store.is_read_to_end();
    let sources = store.sources.iter().take(known.sources);
    let mut sources = sources.filter(|(_, source)| !source.is_kept()).peekable();
    let mut preparing = Preparing::default();
    let mut prepared = Vec::new();
    for input in inputs {
        let known = sources.next();
        let result = match known {
            Some((number, source)) => {
                let is_last = sources.peek().is_none();
                find(input, (number, source), is_last, &mut preparing, store)
            }
            None => preparing
                .prepare(input, &store.options)
                .map_err(BatchError::rest_waits),
        };
        prepared.push(result.unwrap_or_else(Prepared::Lost));
    }
    if is_over {
        return Vec::new();
    }
    if let Some((_, source)) = sources.next().filter(|_| !prepared.is_empty()) {
        prepared.push(Prepared::Lost(changed(&source.name, "it is not given now")));
    }
    prepared
}

/// Finds a source of an earlier run again.
fn find(
    input: Input,
    (number, source): (usize, &Source),
    is_last: bool,
    preparing: &mut Preparing,
    store: &BatchStore,
) -> Result<Prepared, BatchError> {
    if let Place::Spool(_) = source.location.place {
        return if is_last {
            let what = "was not read to its end, and cannot be read again";
            Err(BatchError::data(&source.name, what).rest_is_lost())
        } else {
            Ok(Prepared::Again(number))
        };
    }
    let prepared = preparing
        .prepare(input, &store.options)
        .map_err(BatchError::rest_waits)?;
    let Prepared::Known(found) = prepared else {
        return Err(changed(&source.name, "it was no stream then"));
    };
    let was_maildir = matches!(source.location.place, Place::Maildir(_));
    let is_maildir = matches!(found.location.place, Place::Maildir(_));
    if found.flavour != source.flavour || was_maildir != is_maildir {
        return Err(changed(&source.name, "it is a file of another kind"));
    }
    store
        .found(number, found.location)
        .map_err(|error| BatchError::spool(store.spool_dir(), &error))?;
    Ok(Prepared::Again(number))
}

/// An input is not what it was.
pub(super) fn changed(name: &str, how: &str) -> BatchError {
    let what = format!("has changed since it was first read: {how}");
    BatchError::new(BatchErrorKind::DataErr, name, &what).rest_waits()
}

impl BatchReader {
    /// The message that has passed must be the next known one. It does not arrive again.
    pub(super) fn recognise(&mut self, is_invalid: bool) -> Result<(), BatchError> {
        let number = self.known.start;
        if !self.is_known(number, is_invalid) {
            let how = format!("message {} is another one", number + 1);
            return Err(self.changed(&how));
        }
        self.known.start += 1;
        Ok(())
    }

    fn is_known(&self, number: usize, is_invalid: bool) -> bool {
        let Some(record) = self.store.messages.get(number) else {
            return false;
        };
        let now = self.record(0, 0, is_invalid, false);
        let is_same = (now.hash(), now.length()) == (record.hash(), record.length());
        let recipients = self.found.len().max(1);
        is_same
            && now.is_invalid() == record.is_invalid()
            && !record.is_to_file()
            && recipients == record.recipients() as usize
            && self.has_recipients_from(record.first_recipient() as usize)
    }

    /// True if the recipients of the message that has passed are those from `first` on.
    fn has_recipients_from(&self, first: usize) -> bool {
        let mut text = Vec::new();
        self.found.iter().enumerate().all(|(i, found)| {
            let Some(place) = self.store.recipients.get(first + i) else {
                return false;
            };
            text.resize(place.len(), 0);
            let read = self.store.addresses.read(place.at(), &mut text);
            read.is_ok()
                && place.is_mailbox() == found.mailbox.is_ok()
                && text == self.shown(found).as_bytes()
        })
    }

    /// The batch is not the one that was begun.
    pub(super) fn changed(&self, how: &str) -> BatchError {
        changed(&self.intake.file_name(), how)
    }
}
