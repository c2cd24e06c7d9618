//! CHUNKING (RFC 3030): content in counted chunks, `BDAT size [LAST]`, without dot-stuffing and final dot.
//!
//! The octets of a chunk are read whatever becomes of it, and its reply comes after them (RFC 3030 2): so a refused chunk is
//! never taken for commands. Only where the size itself cannot be read, the session ends.
//!
//! INVARIANTS: a transaction has BDAT or DATA, never both; after a chunk that failed nothing but RSET (or EHLO) helps it, but
//! for the last one, whose reply settles the transaction as the dot's does.

use std::time::Duration;

use super::content::Content;
use super::policy::{Answer, Decision, Handler};
use super::violation::Violation;
use super::{Phase, Session};

/// How a transaction with chunks stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chunks {
    /// More can come.
    Open,
    /// One was refused: those in the pipeline behind it are thrown away.
    Failed,
}

/// The chunk whose octets are being read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Chunk {
    is_last: bool,
    bytes: u64,
    refusal: Option<Refused>,
    /// The handler was asked about the message's first octets.
    asked: bool,
    /// What the handler wants to wait before the reply.
    pub(super) delay: Duration,
}

/// Why a chunk is thrown away.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Refused {
    /// The protocol.
    Rule(u16, &'static str),
    /// The handler.
    Decided(Decision),
}

impl Session {
    /// BDAT: its octets follow.
    pub(super) fn bdat(
        &mut self,
        bytes: u64,
        is_last: bool,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) {
        let mut refusal = self.chunk_out_of_place(handler);
        if refusal.is_none() && self.chunks.is_none() {
            match self.first_chunk(out, handler) {
                Ok(decided) => refusal = decided,
                Err(()) => return,
            }
        }
        let total = self.content.bytes().saturating_add(bytes);
        // Of the last chunk the size is judged with the message, and ends the transaction.
        if refusal.is_none() && !is_last && total > self.settings.content_bytes_max {
            refusal = Some(Refused::Rule(552, "5.3.4 Message too big"));
        }
        (self.chunk.is_last, self.chunk.bytes) = (is_last, bytes);
        self.chunk.refusal = refusal;
        self.phase = Phase::Chunk(bytes);
        if bytes == 0 {
            self.end_of_chunk(out, handler);
        }
    }

    /// Why there can be no chunk now.
    fn chunk_out_of_place(&self, handler: &mut impl Handler) -> Option<Refused> {
        if !(self.extended && self.settings.chunking) {
            handler.violation(Violation::UnofferedCommand);
            return Some(Refused::Rule(502, "5.5.1 CHUNKING is not offered here"));
        }
        if self.chunks == Some(Chunks::Failed) {
            return Some(Refused::Rule(503, "5.5.1 A chunk has failed: RSET first"));
        }
        let is_possible = self.in_transaction && !self.transaction.recipients.is_empty();
        if is_possible {
            return None;
        }
        // As with DATA: behind refused commands of the same group it is no mistake (RFC 2920 3.1).
        if !(self.mail_tried && (self.rcpt_tried || !self.in_transaction)) {
            handler.violation(Violation::OutOfSequence);
        }
        Some(match self.in_transaction && !self.settings.lmtp {
            true => Refused::Rule(554, "5.5.1 No valid recipients"),
            false => Refused::Rule(503, "5.5.1 MAIL and RCPT first"),
        })
    }

    /// Asks the handler, as DATA would. `Err` if it wants no reply ever.
    fn first_chunk(
        &mut self,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> Result<Option<Refused>, ()> {
        let decision = handler.data(&self.transaction);
        if matches!(decision.answer, Answer::Drop | Answer::Silence) {
            self.settle(decision, 250, "", out);
            return Err(());
        }
        self.content = Content::chunked();
        self.chunks = Some(Chunks::Open);
        self.chunk = Chunk::default();
        let is_refusal = matches!(&decision.answer, Answer::Reply(reply) if reply.code >= 400);
        if is_refusal {
            return Ok(Some(Refused::Decided(decision)));
        }
        self.chunk.delay = decision.delay;
        Ok(None)
    }

    /// Reads octets of a chunk, of which `left` are still to come.
    pub(super) fn take_chunk(
        &mut self,
        left: u64,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> usize {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        if self.chunk.refusal.is_none() {
            if !self.chunk.asked {
                self.chunk.asked = true;
                if let Some(used) = self.body_begins(input.len(), out, handler) {
                    return used;
                }
            }
            self.feed(&input[..length], handler);
        }
        let left = left - length as u64;
        self.phase = Phase::Chunk(left);
        if left == 0 {
            if length < input.len() && !self.offers_pipelining() {
                handler.violation(Violation::PipeliningNotOffered);
            }
            self.end_of_chunk(out, handler);
        }
        length
    }

    fn end_of_chunk(&mut self, out: &mut Vec<u8>, handler: &mut impl Handler) {
        self.phase = Phase::Command;
        let Some(refusal) = self.chunk.refusal.take() else {
            return self.chunk_taken(out, handler);
        };
        if self.in_transaction {
            self.chunks = Some(Chunks::Failed);
        }
        match refusal {
            Refused::Rule(code, text) => self.error(code, text, out),
            Refused::Decided(decision) => {
                self.settle(decision, 250, "", out);
            }
        }
    }

    fn chunk_taken(&mut self, out: &mut Vec<u8>, handler: &mut impl Handler) {
        if self.chunk.is_last {
            self.content.end_chunks();
            return self.end_of_content(out, handler);
        }
        let decision = Decision {
            delay: std::mem::take(&mut self.chunk.delay),
            ..Decision::accept()
        };
        let text = format!("2.0.0 {} octets taken", self.chunk.bytes);
        self.settle(decision, 250, &text, out);
    }
}
