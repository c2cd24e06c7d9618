//! A parcel: one message with the recipients of one transaction, loaded and ready to be sent.
//!
//! Its memory is used again for the next message.

use std::time::Instant;

use crate::batch::{BatchStore, Content};
use crate::dkim::{BodyHash, KeyError, Signers};
use crate::mail::{Enhanced, Envelope, Scope, Stage, Status, Verdict};
use crate::smtp::{Dsn, Mail};

/// One message with the recipients of one transaction.
#[derive(Debug)]
pub struct Parcel {
    /// The recipients' envelopes, all of one message.
    pub envelopes: Vec<Envelope>,
    /// What is sent.
    pub content: Content,
    /// When it was taken up.
    pub began: Instant,
    /// Addresses: of the envelopes, then of earlier messages, whose memory is used again.
    recipients: Vec<String>,
    reverse_path: String,
    utf8: bool,
    body_hash: BodyHash,
}

impl Default for Parcel {
    fn default() -> Parcel {
        Parcel {
            envelopes: Vec::new(),
            content: Content::default(),
            began: Instant::now(),
            recipients: Vec::new(),
            reverse_path: String::new(),
            utf8: false,
            body_hash: BodyHash::default(),
        }
    }
}

impl Parcel {
    /// True if there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.envelopes.is_empty()
    }

    /// Forgets the message, keeps the memory.
    pub fn clear(&mut self) {
        self.envelopes.clear();
    }

    /// Reads the message of its envelopes and their addresses. Envelopes that cannot be sent are taken out and
    /// returned with their verdicts: the bytes changed since the batch was read, or are none that may be sent. What is loaded
    /// is signed, once for all transactions of the message.
    pub fn load(&mut self, store: &BatchStore, signers: &Signers) -> Vec<(Envelope, Verdict)> {
        let Some(first) = self.envelopes.first() else {
            return Vec::new();
        };
        let loaded = store.load(first.message, &mut self.content);
        let ready = match loaded {
            Ok(()) => self.sign(signers).map_err(|error| unsigned(&error)),
            Err(error) => Err(error.verdict()),
        };
        if let Err(verdict) = ready {
            return self
                .envelopes
                .drain(..)
                .map(|envelope| (envelope, verdict.clone()))
                .collect();
        }
        let sender = self.content.reverse_path();
        self.reverse_path.clear();
        self.reverse_path.push_str(sender.as_str());
        self.utf8 = self.content.has_utf8_header() || sender.needs_utf8();
        let (mut lost, mut count) = (Vec::new(), 0);
        self.envelopes.retain(
            |envelope| match store.mailbox(&self.content, envelope.recipient) {
                Ok(mailbox) => {
                    self.utf8 |= mailbox.needs_utf8();
                    if count == self.recipients.len() {
                        self.recipients.push(String::new());
                    }
                    mailbox.as_str().clone_into(&mut self.recipients[count]);
                    count += 1;
                    true
                }
                Err(error) => {
                    lost.push((*envelope, error.verdict()));
                    false
                }
            },
        );
        lost
    }

    fn sign(&mut self, signers: &Signers) -> Result<(), KeyError> {
        if signers.is_empty() || self.content.is_signed() {
            return Ok(());
        }
        let now = jiff::Timestamp::now().as_second();
        let signatures = signers.sign(self.content.bytes(), now, &mut self.body_hash)?;
        self.content.sign(signatures.as_bytes());
        Ok(())
    }

    /// What the session has to know.
    pub fn mail<'a>(&'a self, dsn: Option<&'a Dsn>) -> Mail<'a, String> {
        Mail {
            reverse_path: &self.reverse_path,
            recipients: &self.recipients[..self.envelopes.len()],
            size: self.content.bytes().len() as u64,
            eight_bit: self.content.is_eight_bit(),
            utf8: self.utf8,
            dsn,
        }
    }
}

/// Mail that should be signed does not leave without it.
fn unsigned(error: &KeyError) -> Verdict {
    let text = format!("cannot be signed (DKIM): {error}");
    let enhanced = Enhanced::new(4, 3, 5);
    Verdict::own(
        Status::Deferred,
        Scope::Local,
        Stage::Batch,
        enhanced,
        &text,
    )
}
