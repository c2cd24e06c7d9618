//! Who has got which mail of a job with a name: the same stream may come again, and adds nothing; one with more people adds these.
//!
//! The key of a mail is its recipient and its Message-ID; without one, the digest of what leaves (a Date that is added
//! does not count). A message or an address that is unfit counts as what it is, byte by byte: once somebody has put
//! it right, it is another one. With `--once-per-recipient` the recipient alone is the key. A key has 128 bits of SHA-256: a collision would be mail that is lost,
//! and must not be had by chance nor by craft.
//!
//! Memory: 16 bytes of key per recipient of the job, in a hash table.

use crate::mail::Mailbox;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// The keys of all recipients so far.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: HashSet<u128>,
    /// How many came that were known.
    pub(super) repeated: u64,
}

/// What makes a mail the same mail when it comes again, its recipient apart.
#[derive(Clone)]
pub(super) struct Identity(Sha256);

impl Identity {
    /// Of a message with this Message-ID.
    pub(super) fn of_message_id(value: &[u8]) -> Identity {
        Identity::of(b'm', value)
    }

    /// Of any that a recipient is to get once: they are all the same.
    pub(super) fn of_any() -> Identity {
        Identity::of(b'a', b"")
    }

    /// Of one without, by what leaves of it.
    pub(super) fn of_content(canonical: &[u8]) -> Identity {
        Identity::of(b'c', &Sha256::digest(canonical))
    }

    /// Of one that cannot be sent, by its bytes.
    pub(super) fn of_unfit(hash: u64, length: u64) -> Identity {
        let [hash, length] = [hash, length].map(u64::to_le_bytes);
        Identity::of(b'u', &[hash, length].concat())
    }

    fn of(kind: u8, value: &[u8]) -> Identity {
        let mut digest = Sha256::new();
        digest.update([kind]);
        digest.update((value.len() as u64).to_le_bytes());
        digest.update(value);
        Identity(digest)
    }

    /// The key of this mail to a recipient.
    pub(super) fn key(&self, recipient: &Recipient<'_>) -> u128 {
        let (kind, text) = match recipient {
            Recipient::Mailbox(mailbox) => (b'm', mailbox.as_str().as_bytes()),
            Recipient::Unfit(text) => (b'u', *text),
        };
        let mut digest = self.0.clone();
        digest.update([kind]);
        digest.update(text);
        let digest: [u8; 32] = digest.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        u128::from_le_bytes(half)
    }
}

/// A recipient of a message, or what stands in the place of one.
pub(super) enum Recipient<'a> {
    /// Its domain is in lower case.
    Mailbox(&'a Mailbox),
    Unfit(&'a [u8]),
}

impl Keys {
    /// Those of earlier runs.
    pub(super) fn new(known: Vec<u128>) -> Keys {
        Keys {
            known: known.into_iter().collect(),
            repeated: 0,
        }
    }

    /// True if the key was not there. It is now.
    pub(super) fn is_new(&mut self, key: u128) -> bool {
        let is_new = self.known.insert(key);
        self.repeated += u64::from(!is_new);
        is_new
    }
}
