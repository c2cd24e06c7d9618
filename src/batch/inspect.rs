//! What was understood of a batch, message by message: `mailer inspect`.
//!
//! Reads and loads exactly as sending does, so that the digests are those of the bytes that would be sent. They hold a Date that is
//! added where a message has none: such a digest is that of this run's date ([`ReadOptions::date`]). A message to very many is
//! one entry with all its recipients in memory.

use super::content::{Content, ContentError};
use super::error::BatchError;
use super::options::ReadOptions;
use super::problem::Problem;
use super::reader::{Arrival, BatchReader};
use super::source::Input;
use super::store::BatchStore;
use crate::mbox::canonical::hex;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A message as it was understood.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Its number in the batch, from 1.
    pub message: u64,
    /// The file it is in.
    pub source: String,
    /// Where it begins there.
    pub offset: u64,
    /// Its bytes there, From_ line included.
    pub bytes: u64,
    /// Its reverse-path: empty for the null one, `None` if it has none.
    pub reverse_path: Option<String>,
    /// Its recipients; one with an empty address and a problem if it names none.
    pub recipients: Vec<InspectedRecipient>,
    /// The octets that would be sent, without dot-stuffing. `None` if it cannot be sent.
    pub sent_bytes: Option<u64>,
    /// Their SHA-256 in hexadecimal.
    pub sha256: Option<String>,
    /// Why it cannot be loaded although nothing is wrong with it: the file changed meanwhile, or cannot be read again.
    pub load_error: Option<String>,
    /// True if a server must offer 8BITMIME, or convert.
    pub eight_bit: bool,
    /// All that is wrong with it, warnings included.
    pub problems: Vec<Problem>,
}

/// A recipient as it was understood.
#[derive(Clone, Debug)]
pub struct InspectedRecipient {
    /// The address in wire form, or what stands in its place.
    pub address: String,
    /// Why nothing can be sent to it.
    pub problem: Option<Problem>,
}

/// Reads the batch and gives `each` its messages in order.
pub fn inspect(
    inputs: Vec<Input>,
    options: ReadOptions,
    mut each: impl FnMut(Inspected),
) -> Result<(), BatchError> {
    let store = Arc::new(BatchStore::new(options));
    let mut reader = BatchReader::open(inputs, store.clone())?;
    let mut content = Content::new();
    let mut under_way: Option<Inspected> = None;
    while let Some(arrival) = reader.next_arrival()? {
        let mut inspected = match under_way.take() {
            Some(inspected) => inspected,
            None => begin(&store, &arrival, &mut content),
        };
        inspected.problems.extend_from_slice(arrival.problems);
        inspected
            .recipients
            .extend(arrival.recipients.iter().map(|arrived| {
                let (address, problem) = match &arrived.outcome {
                    Ok(mailbox) => (mailbox.to_string(), None),
                    Err(problem) => (store.recipient_text(arrived.no), Some(problem.clone())),
                };
                InspectedRecipient { address, problem }
            }));
        if arrival.is_complete {
            each(inspected);
        } else {
            under_way = Some(inspected);
        }
    }
    Ok(())
}

fn begin(store: &BatchStore, arrival: &Arrival<'_>, content: &mut Content) -> Inspected {
    let (source, offset) = store.place(arrival.message).unwrap_or(("".into(), 0));
    let loaded = store.load(arrival.message, content);
    let is_loaded = loaded.is_ok();
    let sent = is_loaded.then(|| content.bytes());
    Inspected {
        message: arrival.message.ordinal(),
        source: source.to_string(),
        offset,
        bytes: store
            .message(arrival.message)
            .map_or(0, |record| u64::from(record.length())),
        reverse_path: arrival.reverse_path.map(|path| path.as_str().to_owned()),
        recipients: Vec::new(),
        sent_bytes: sent.map(|bytes| bytes.len() as u64),
        sha256: sent.map(|bytes| hex(&Sha256::digest(bytes))),
        load_error: match loaded {
            Ok(()) | Err(ContentError::Invalid) => None,
            Err(error) => Some(error.to_string()),
        },
        eight_bit: is_loaded && content.is_eight_bit(),
        problems: Vec::new(),
    }
}
