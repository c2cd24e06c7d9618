//! The pipeline: what has been written and not been answered yet.
//!
//! Under pipelining (RFC 2920) the client runs ahead of the server. Replies are matched to commands by counting alone
//! (3.1 forbids anything else): [`Pipeline::write`] pushes what is awaited, [`Pipeline::answered`] pops it. So commands
//! written minus replies read *is* the length of the FIFO; there is no other count that could disagree.
//!
//! Between 354 and the final dot a second lane is open: commands of the next transaction, which leave in the same flight
//! as the dot (RFC 2920 3.1 lets a group begin with the end of a message's content). They enter the FIFO behind the dot
//! in the moment the dot is written. Content that leaves by BDAT (RFC 3030) goes with its own commands instead, and has
//! no such lane.
//!
//! INVARIANTS: behind a command that must be the last of its group (EHLO, STARTTLS, AUTH, DATA, QUIT; RFC 2920 3.1,
//! RFC 3207 section 4, RFC 4954 section 4) nothing is written until it is answered; unanswered commands are at most
//! [`REPLIES_MAX`] and [`BYTES_MAX`] bytes, so that two peers who both write first and read later cannot block each other; at
//! [`Pipelining::None`] at most one command is unanswered.

use std::collections::VecDeque;
use std::fmt;

use crate::mail::Stage;

/// The most bytes of commands that may be unanswered: what the smallest socket buffers in use can hold.
pub const BYTES_MAX: usize = 4096;
/// The most commands that may be unanswered.
pub const REPLIES_MAX: usize = 100;

/// How far the client runs ahead of the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Pipelining {
    /// Lock step: each command waits for the reply before it. Four round trips a message.
    None,
    /// MAIL, RCPT and DATA in one flight (RFC 2920). Two round trips a message.
    Classic,
    /// And the next message's MAIL, RCPT and DATA with the final dot of this one. One round trip a message.
    Cross,
}

/// How content is framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Dot-stuffed, behind 354, with a final dot (RFC 5321 4.1.1.4).
    Dot,
    /// As it is, behind BDAT and the number of its octets (RFC 3030): neither stuffing nor dot.
    Bdat,
}

/// What a reply answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// The opening of the connection.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO, after EHLO was not understood.
    Helo,
    /// LHLO (RFC 2033).
    Lhlo,
    /// STARTTLS.
    StartTls,
    /// AUTH, or a response to a challenge of it.
    Auth,
    /// RSET.
    Rset,
    /// MAIL.
    Mail,
    /// RCPT for the recipient of this number within its transaction.
    Rcpt(usize),
    /// DATA.
    Data,
    /// Nothing yet: the body is being sent. A reply that comes now comes early.
    Body,
    /// The final dot.
    Dot,
    /// The final dot, for the recipient of this number alone (RFC 2033 4.2).
    DotFor(usize),
    /// BDAT LAST with its content (RFC 3030).
    Bdat,
    /// A dot without content, to end a transaction that has no recipient (RFC 2920 3.1).
    LoneDot,
    /// QUIT.
    Quit,
}

impl Awaited {
    /// The stage that a verdict from this reply names, and whose time limit applies to the wait.
    pub fn stage(self) -> Stage {
        match self {
            Awaited::Greeting => Stage::Greeting,
            Awaited::Ehlo | Awaited::Helo | Awaited::Lhlo => Stage::Ehlo,
            Awaited::StartTls => Stage::StartTls,
            Awaited::Auth => Stage::Auth,
            Awaited::Rset => Stage::Rset,
            Awaited::Mail => Stage::Mail,
            Awaited::Rcpt(_) => Stage::Rcpt,
            Awaited::Data => Stage::Data,
            Awaited::Body => Stage::Body,
            Awaited::Dot | Awaited::DotFor(_) | Awaited::Bdat | Awaited::LoneDot => Stage::Dot,
            Awaited::Quit => Stage::Quit,
        }
    }

    /// True if the content's fate hangs on it.
    pub fn is_final(self) -> bool {
        matches!(self, Awaited::Dot | Awaited::DotFor(_) | Awaited::Bdat)
    }

    /// For people: what was being done while it was due.
    pub fn describe(self) -> &'static str {
        match self {
            Awaited::Greeting => "while the greeting was due",
            Awaited::Ehlo => "while the reply to EHLO was due",
            Awaited::Helo => "while the reply to HELO was due",
            Awaited::Lhlo => "while the reply to LHLO was due",
            Awaited::StartTls => "during STARTTLS",
            Awaited::Auth => "during AUTH",
            Awaited::Rset => "while the reply to RSET was due",
            Awaited::Mail => "while the reply to MAIL FROM was due",
            Awaited::Rcpt(_) => "while the reply to RCPT TO was due",
            Awaited::Data => "while the reply to DATA was due",
            Awaited::Body => "while the content was being sent",
            Awaited::Dot | Awaited::DotFor(_) => {
                "while the reply to the final dot was due: the message may have been delivered"
            }
            Awaited::Bdat => {
                "while the reply to the content was due: the message may have been delivered"
            }
            Awaited::LoneDot => "while the reply to a dot for nobody was due",
            Awaited::Quit => "while the reply to QUIT was due",
        }
    }

    /// True if nothing may be written behind it before it is answered (RFC 2920 3.1; the greeting: RFC 5321 4.3.1).
    fn ends_group(self) -> bool {
        matches!(
            self,
            Awaited::Greeting
                | Awaited::Ehlo
                | Awaited::Helo
                | Awaited::Lhlo
                | Awaited::StartTls
                | Awaited::Auth
                | Awaited::Data
                | Awaited::Quit
        )
    }
}

/// A command on its way: what its reply answers, and its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Expected {
    awaited: Awaited,
    bytes: usize,
}

/// Output not yet taken by the driver, and the FIFO of expected replies.
pub struct Pipeline {
    level: Pipelining,
    output: Vec<u8>,
    output_after_dot: Vec<u8>,
    expected: VecDeque<Expected>,
    expected_after_dot: Vec<Expected>,
    unanswered_bytes: usize,
    /// Commands of which the driver has not taken the bytes yet; means something only while there is output.
    unsent: usize,
    /// The content may leave and has not yet; behind a [`Framing::Dot`] goes what is written meanwhile.
    body_due: Option<Framing>,
}

/// Output may hold credentials: only its length is shown.
impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |lane: &[u8]| format!("{} bytes", lane.len());
        f.debug_struct("Pipeline")
            .field("level", &self.level)
            .field("output", &bytes(&self.output))
            .field("output_after_dot", &bytes(&self.output_after_dot))
            .field("expected", &self.expected)
            .field("expected_after_dot", &self.expected_after_dot)
            .field("body_due", &self.body_due)
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// A pipeline of a connection just opened: the greeting is awaited.
    pub fn new(level: Pipelining) -> Pipeline {
        let greeting = Expected {
            awaited: Awaited::Greeting,
            bytes: 0,
        };
        Pipeline {
            level,
            output: Vec::new(),
            output_after_dot: Vec::new(),
            expected: VecDeque::from([greeting]),
            expected_after_dot: Vec::new(),
            unanswered_bytes: 0,
            unsent: 0,
            body_due: None,
        }
    }

    /// How far it runs ahead.
    pub fn level(&self) -> Pipelining {
        self.level
    }

    /// Runs ahead this far from now on.
    pub fn set_level(&mut self, level: Pipelining) {
        self.level = level;
    }

    /// What the driver must write before it waits; the driver writes all of it and clears it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What leaves behind the final dot, in its flight.
    pub fn output_after_dot(&self) -> &[u8] {
        &self.output_after_dot
    }

    /// What the next reply answers; `None` if no reply is due.
    pub fn awaited(&self) -> Option<Awaited> {
        self.expected.front().map(|expected| expected.awaited)
    }

    /// Commands written minus replies read.
    pub fn unanswered(&self) -> usize {
        self.expected.len()
    }

    /// True if a command of `bytes` may be written now.
    pub fn has_room(&self, bytes: usize) -> bool {
        let (lane_last, count) = if self.body_due.is_some() {
            // The dot itself is going to be unanswered too.
            let last = self.expected_after_dot.last();
            (last, self.expected_after_dot.len() + 1)
        } else {
            (self.expected.back(), self.expected.len())
        };
        if lane_last.is_some_and(|last| last.awaited.ends_group())
            || self.body_due == Some(Framing::Bdat)
        {
            return false;
        }
        match self.level {
            Pipelining::None => count == 0,
            Pipelining::Classic if self.body_due.is_some() => false,
            // The first command of a flight always has room: the builder keeps it well below the bound.
            _ => count == 0 || (count < REPLIES_MAX && self.unanswered_bytes + bytes <= BYTES_MAX),
        }
    }

    /// Writes a command, or appends it behind the final dot if the body is due.
    pub fn write(&mut self, command: &[u8], awaited: Awaited) {
        let expected = Expected {
            awaited,
            bytes: command.len(),
        };
        self.unanswered_bytes += command.len();
        if self.body_due.is_some() {
            self.output_after_dot.extend_from_slice(command);
            self.expected_after_dot.push(expected);
        } else {
            if self.output.is_empty() {
                self.unsent = 0;
            }
            self.unsent += 1;
            self.output.extend_from_slice(command);
            self.expected.push_back(expected);
        }
    }

    /// True if a command has left that is not answered.
    pub fn is_reply_due(&self) -> bool {
        let unsent = if self.output.is_empty() {
            0
        } else {
            self.unsent
        };
        self.expected.len() > unsent
    }

    /// A reply was read: what it answers. `None` if no reply is due: no reply can answer a command that has not left.
    pub fn answered(&mut self) -> Option<Awaited> {
        if !self.is_reply_due() {
            return None;
        }
        let expected = self.expected.pop_front()?;
        self.unanswered_bytes -= expected.bytes;
        Some(expected.awaited)
    }

    /// 354 was read: the body is due, and the lane behind its dot is open.
    pub fn open_body(&mut self) {
        self.body_due = Some(Framing::Dot);
    }

    /// The content is to follow the commands written so far, behind `bdat`. What that command is answered counts as the
    /// reply to the content, and is expected once the content has left.
    pub fn open_chunk(&mut self, bdat: &[u8]) {
        self.output.extend_from_slice(bdat);
        self.body_due = Some(Framing::Bdat);
    }

    /// The content has been written with its end, and what waited behind it: `finals` are the replies due to the end.
    pub fn close_body(&mut self, finals: impl IntoIterator<Item = Awaited>) {
        self.body_due = None;
        let finals = finals.into_iter();
        self.expected
            .extend(finals.map(|awaited| Expected { awaited, bytes: 0 }));
        self.expected.extend(self.expected_after_dot.drain(..));
        self.output_after_dot.clear();
    }

    /// How the content is framed, while it may leave and has not yet.
    pub fn body_due(&self) -> Option<Framing> {
        self.body_due
    }

    /// The session is over: nothing is written, nothing awaited any more.
    pub fn shut(&mut self) {
        self.output.clear();
        self.output_after_dot.clear();
        self.expected.clear();
        self.expected_after_dot.clear();
        self.unanswered_bytes = 0;
        self.body_due = None;
    }
}

#[cfg(test)]
mod tests;
