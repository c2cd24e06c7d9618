//! Replies: from a decision to bytes, and what follows from it for the session.
//!
//! INVARIANT: a reply that is delayed is held with whatever is to follow it, and nothing is processed before it is sent.

use super::policy::{Answer, Decision};
use super::{Next, Phase, Session};

impl Session {
    /// Carries a decision out. True if the stage, whose usual reply is given, succeeded.
    pub(super) fn settle(
        &mut self,
        decision: Decision,
        code: u16,
        text: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut reply = Vec::new();
        let target = if decision.delay.is_zero() {
            &mut *out
        } else {
            &mut reply
        };
        let mut end = decision.close.then_some(Next::Close);
        let is_answered = matches!(decision.answer, Answer::Accept | Answer::Reply(_));
        let is_success = match &decision.answer {
            Answer::Accept => {
                write_reply(self.writes_enhanced(), code, text, target);
                true
            }
            Answer::Reply(own) => {
                write_reply(true, own.code, &own.text, target);
                // RFC 5321 3.8: after 421 the server closes the connection.
                if own.code == 421 {
                    end = Some(Next::Close);
                }
                own.code / 100 == code / 100
            }
            Answer::Drop => {
                end = Some(Next::Drop);
                false
            }
            Answer::Silence => {
                self.phase = Phase::Deaf;
                end = None;
                false
            }
        };
        if is_answered {
            target.extend_from_slice(&decision.surplus);
        }
        if decision.delay.is_zero() {
            self.next = end;
        } else {
            self.held = Some((reply, end));
            self.next = Some(Next::Pause(decision.delay));
        }
        is_success
    }

    /// Ends the session after the reply just given, if nothing else does already.
    pub(super) fn end_with(&mut self, next: Next) {
        if self.phase == Phase::Deaf {
            return;
        }
        match &mut self.held {
            Some((_, end)) => {
                end.get_or_insert(next);
            }
            None => {
                self.next.get_or_insert(next);
            }
        }
    }

    /// A refusal that counts as a client's error; too many end the session.
    pub(super) fn error(&mut self, code: u16, text: &str, out: &mut Vec<u8>) {
        self.errors += 1;
        self.write(code, text, out);
        if self.errors > self.settings.errors_max {
            self.write(421, "4.7.0 Too many errors", out);
            self.end_with(Next::Close);
        }
    }

    /// A reply that is not the handler's to change.
    pub(super) fn write(&self, code: u16, text: &str, out: &mut Vec<u8>) {
        write_reply(self.writes_enhanced(), code, text, out);
    }

    /// RFC 2034 3: enhanced codes follow EHLO only where they were offered.
    pub(super) fn writes_enhanced(&self) -> bool {
        self.extended && self.settings.enhanced_status_codes
    }
}

/// Writes a reply; LF in the text separates lines (RFC 5321 4.2.1). Without `enhanced` a leading enhanced code is left out.
fn write_reply(enhanced: bool, code: u16, text: &str, out: &mut Vec<u8>) {
    let text = if enhanced {
        text
    } else {
        without_enhanced(text)
    };
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        let digits = code % 1000;
        out.extend([digits / 100, digits / 10 % 10, digits % 10].map(|digit| b'0' + digit as u8));
        out.push(if lines.peek().is_some() { b'-' } else { b' ' });
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// The text after a leading `d.d.d `.
fn without_enhanced(text: &str) -> &str {
    match text.split_once(' ') {
        Some((first, rest)) if is_enhanced(first) => rest,
        _ => text,
    }
}

fn is_enhanced(word: &str) -> bool {
    let mut parts = word.split('.');
    let is_number = |part: Option<&str>| {
        part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
    };
    is_number(parts.next())
        && is_number(parts.next())
        && is_number(parts.next())
        && parts.next().is_none()
}
