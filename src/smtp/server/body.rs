//! The content of a message in a session, after DATA or in chunks: the handler is asked at its first octets and at its end, and
//! the replies it wants are given.
//!
//! INVARIANTS: content beyond the limit is read and counted, never handed on; the transaction is over with its last octet,
//! whatever the reply; replies that are still due leave before any further input is looked at.

use super::policy::{Answer, Decision, Handler};
use super::violation::Violation;
use super::{Next, Phase, Session};

impl Session {
    pub(super) fn take_content(
        &mut self,
        asked: bool,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> usize {
        if !asked {
            self.phase = Phase::Content(true);
            if let Some(used) = self.body_begins(input.len(), out, handler) {
                return used;
            }
        }
        let Some(used) = self.feed(input, handler) else {
            return input.len();
        };
        self.phase = Phase::Command;
        if used < input.len() && !self.offers_pipelining() {
            handler.violation(Violation::PipeliningNotOffered);
        }
        self.end_of_content(out, handler);
        used
    }

    /// Asks the handler about the first octets. How much of the input is used, if they are not to be read now.
    pub(super) fn body_begins(
        &mut self,
        available: usize,
        out: &mut Vec<u8>,
        handler: &mut impl Handler,
    ) -> Option<usize> {
        let decision = handler.body(&self.transaction);
        if decision.answer != Answer::Accept {
            // The reply comes while the client still sends: no sequence could be kept after it.
            self.settle(decision, 354, "", out);
            self.end_with(Next::Close);
            return Some(available);
        }
        if !decision.delay.is_zero() {
            self.held = Some((Vec::new(), None));
            self.next = Some(Next::Pause(decision.delay));
            return Some(0);
        }
        None
    }

    /// Reads content and hands it on, as long as it is within the limit. How much was used, if the end was among it.
    pub(super) fn feed(&mut self, input: &[u8], handler: &mut impl Handler) -> Option<usize> {
        let within = self.settings.content_bytes_max;
        let mut seen = self.content.bytes();
        self.content.feed(input, |slice| {
            seen += slice.len() as u64;
            if seen <= within {
                handler.content(slice);
            }
        })
    }

    pub(super) fn end_of_content(&mut self, out: &mut Vec<u8>, handler: &mut impl Handler) {
        self.check_content(handler);
        let delay = std::mem::take(&mut self.chunk.delay);
        let (bytes, flaws) = (self.content.bytes(), self.content.flaws());
        self.in_transaction = false;
        self.mail_tried = false;
        self.chunks = None;
        let replies = match self.settings.lmtp {
            true => self.transaction.recipients.len(),
            false => 1,
        };
        let refusal = if bytes > self.settings.content_bytes_max {
            Some((552, "5.3.4 Message too big"))
        } else if self.settings.refuse_bare_newlines && (flaws.bare_lf || flaws.bare_cr) {
            Some((554, "5.6.0 Bare CR or LF in the message"))
        } else {
            None
        };
        if let Some((code, text)) = refusal {
            handler.abandoned();
            (0..replies).for_each(|_| self.write(code, text, out));
        } else {
            self.due = match self.settings.lmtp {
                true => handler.dot_each(&self.transaction, bytes).into(),
                false => [handler.dot(&self.transaction, bytes)].into(),
            };
            self.due.resize(replies, Decision::accept());
            if let Some(first) = self.due.front_mut() {
                first.delay += delay;
            }
            self.answer_due(out);
        }
        self.transaction.recipients.clear();
    }

    /// Gives the replies to the content that are due, up to one that makes the client wait or ends the session.
    pub(super) fn answer_due(&mut self, out: &mut Vec<u8>) {
        while self.next.is_none() && self.phase != Phase::Deaf {
            let Some(decision) = self.due.pop_front() else {
                return;
            };
            self.settle(decision, 250, "2.0.0 OK: taken", out);
        }
    }

    fn check_content(&self, handler: &mut impl Handler) {
        let flaws = self.content.flaws();
        let too_big = self
            .transaction
            .declared_size
            .is_some_and(|size| self.content.bytes() > size);
        for (is_so, violation) in [
            (flaws.bare_lf, Violation::BareLf),
            (flaws.bare_cr, Violation::BareCr),
            (flaws.long_line, Violation::LongLine),
            (flaws.unstuffed_dot, Violation::UnstuffedDot),
            (
                flaws.eight_bit && !self.transaction.eight_bit,
                Violation::EightBitUndeclared,
            ),
            (too_big, Violation::SizeExceedsDeclared),
        ] {
            if is_so {
                handler.violation(violation);
            }
        }
    }
}
