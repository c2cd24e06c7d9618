//! The pipeline: what has been written and not been answered yet.
//!
//! Under pipelining (RFC 2920) the client runs ahead of the server. Replies are matched to commands by counting alone
//! (3.1 forbids anything else): [`Pipeline::write`] pushes what is awaited, [`Pipeline::answered`] pops it. So commands
//! written minus replies read *is* the length of the FIFO; there is no other count that could disagree.
//!
//! Between 354 and the final dot a second lane is open: commands of the next transaction, which leave in the same flight
//! as the dot (RFC 2920 3.1 lets a group begin with the end of a message's content). They enter the FIFO behind the dot
//! in the moment the dot is written.
//!
//! INVARIANTS: behind a command that must be the last of its group (EHLO, DATA, QUIT; RFC 2920 3.1) nothing is written
//! until it is answered; unanswered commands are at most [`REPLIES_MAX`] and [`BYTES_MAX`] bytes, so that two peers who
//! both write first and read later cannot block each other; at [`Pipelining::None`] at most one command is unanswered.

use std::collections::VecDeque;

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

/// What a reply answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// The opening of the connection.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO, after EHLO was not understood.
    Helo,
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
            Awaited::Ehlo | Awaited::Helo => Stage::Ehlo,
            Awaited::Rset => Stage::Rset,
            Awaited::Mail => Stage::Mail,
            Awaited::Rcpt(_) => Stage::Rcpt,
            Awaited::Data => Stage::Data,
            Awaited::Body => Stage::Body,
            Awaited::Dot | Awaited::LoneDot => Stage::Dot,
            Awaited::Quit => Stage::Quit,
        }
    }

    /// True if nothing may be written behind it before it is answered (RFC 2920 3.1; the greeting: RFC 5321 4.3.1).
    fn ends_group(self) -> bool {
        matches!(
            self,
            Awaited::Greeting | Awaited::Ehlo | Awaited::Helo | Awaited::Data | Awaited::Quit
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
#[derive(Debug)]
pub struct Pipeline {
    level: Pipelining,
    output: Vec<u8>,
    output_after_dot: Vec<u8>,
    expected: VecDeque<Expected>,
    expected_after_dot: Vec<Expected>,
    unanswered_bytes: usize,
    /// Commands of which the driver has not taken the bytes yet; means something only while there is output.
    unsent: usize,
    /// 354 was read, and the final dot is not written yet: what is written now goes behind the dot.
    body_due: bool,
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
            body_due: false,
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
        let (lane_last, count) = if self.body_due {
            // The dot itself is going to be unanswered too.
            let last = self.expected_after_dot.last();
            (last, self.expected_after_dot.len() + 1)
        } else {
            (self.expected.back(), self.expected.len())
        };
        if lane_last.is_some_and(|last| last.awaited.ends_group()) {
            return false;
        }
        match self.level {
            Pipelining::None => count == 0,
            Pipelining::Classic if self.body_due => false,
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
        if self.body_due {
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

    /// A reply was read: what it answers. `None` if no reply is due: no reply can answer a command that has not left.
    pub fn answered(&mut self) -> Option<Awaited> {
        if !self.output.is_empty() && self.expected.len() <= self.unsent {
            return None;
        }
        let expected = self.expected.pop_front()?;
        self.unanswered_bytes -= expected.bytes;
        Some(expected.awaited)
    }

    /// 354 was read: the body is due, and the lane behind its dot is open.
    pub fn open_body(&mut self) {
        self.body_due = true;
    }

    /// The dot has been written, and what waited behind it.
    pub fn close_body(&mut self) {
        self.body_due = false;
        self.expected.push_back(Expected {
            awaited: Awaited::Dot,
            bytes: 0,
        });
        self.expected.extend(self.expected_after_dot.drain(..));
        self.output_after_dot.clear();
    }

    /// True between 354 and the final dot.
    pub fn is_body_due(&self) -> bool {
        self.body_due
    }

    /// The session is over: nothing is written, nothing awaited any more.
    pub fn shut(&mut self) {
        self.output.clear();
        self.output_after_dot.clear();
        self.expected.clear();
        self.expected_after_dot.clear();
        self.unanswered_bytes = 0;
        self.body_due = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipeline behind its greeting.
    fn open(level: Pipelining) -> Pipeline {
        let mut pipeline = Pipeline::new(level);
        assert!(!pipeline.has_room(4), "the greeting comes first");
        assert_eq!(pipeline.answered(), Some(Awaited::Greeting));
        pipeline
    }

    #[test]
    fn replies_answer_commands_in_order() {
        let mut pipeline = open(Pipelining::Classic);
        pipeline.write(b"MAIL\r\n", Awaited::Mail);
        pipeline.write(b"RCPT\r\n", Awaited::Rcpt(0));
        pipeline.write(b"DATA\r\n", Awaited::Data);
        assert_eq!(pipeline.output().as_slice(), b"MAIL\r\nRCPT\r\nDATA\r\n");
        assert_eq!(pipeline.unanswered(), 3);
        pipeline.output().clear();
        let order: Vec<_> = std::iter::from_fn(|| pipeline.answered()).collect();
        assert_eq!(order, [Awaited::Mail, Awaited::Rcpt(0), Awaited::Data]);
        assert_eq!(pipeline.unanswered_bytes, 0);
    }

    #[test]
    fn a_reply_cannot_answer_a_command_that_has_not_left() {
        let mut pipeline = open(Pipelining::Classic);
        pipeline.write(b"MAIL\r\n", Awaited::Mail);
        assert_eq!(pipeline.answered(), None);
        pipeline.output().clear();
        pipeline.write(b"RCPT\r\n", Awaited::Rcpt(0));
        assert_eq!(pipeline.answered(), Some(Awaited::Mail));
        assert_eq!(pipeline.answered(), None);
    }

    #[test]
    fn nothing_follows_a_command_that_ends_its_group() {
        for awaited in [Awaited::Ehlo, Awaited::Helo, Awaited::Data, Awaited::Quit] {
            let mut pipeline = open(Pipelining::Cross);
            pipeline.write(b"X\r\n", awaited);
            assert!(!pipeline.has_room(4), "{awaited:?}");
        }
    }

    #[test]
    fn lock_step_has_one_command_unanswered() {
        let mut pipeline = open(Pipelining::None);
        assert!(pipeline.has_room(4));
        pipeline.write(b"MAIL\r\n", Awaited::Mail);
        assert!(!pipeline.has_room(4));
        pipeline.output().clear();
        pipeline.answered();
        assert!(pipeline.has_room(4));
    }

    #[test]
    fn unanswered_commands_are_bounded_in_number_and_bytes() {
        let mut pipeline = open(Pipelining::Classic);
        for i in 0..REPLIES_MAX {
            assert!(pipeline.has_room(4));
            pipeline.write(b"RCPT", Awaited::Rcpt(i));
        }
        assert!(!pipeline.has_room(4));
        pipeline.output().clear();
        pipeline.answered();
        assert!(pipeline.has_room(4));

        let mut pipeline = open(Pipelining::Classic);
        pipeline.write(&[b'x'; BYTES_MAX - 10], Awaited::Mail);
        assert!(pipeline.has_room(10));
        assert!(!pipeline.has_room(11));
        pipeline.output().clear();
        pipeline.answered();
        assert!(pipeline.has_room(11));
    }

    #[test]
    fn commands_behind_the_dot_are_expected_behind_the_dot() {
        let mut pipeline = open(Pipelining::Cross);
        pipeline.open_body();
        pipeline.write(b"MAIL\r\n", Awaited::Mail);
        assert_eq!(pipeline.output_after_dot(), b"MAIL\r\n");
        assert!(pipeline.output().is_empty());
        assert_eq!(pipeline.unanswered(), 0);
        pipeline.close_body();
        assert_eq!(pipeline.answered(), Some(Awaited::Dot));
        assert_eq!(pipeline.answered(), Some(Awaited::Mail));
    }

    #[test]
    fn only_the_cross_level_writes_behind_the_dot() {
        for (level, room) in [
            (Pipelining::None, false),
            (Pipelining::Classic, false),
            (Pipelining::Cross, true),
        ] {
            let mut pipeline = open(level);
            pipeline.open_body();
            assert_eq!(pipeline.has_room(4), room);
        }
    }

    #[test]
    fn the_lane_behind_the_dot_has_the_same_bounds() {
        let mut pipeline = open(Pipelining::Cross);
        pipeline.open_body();
        for i in 0..REPLIES_MAX - 1 {
            assert!(pipeline.has_room(4));
            pipeline.write(b"RCPT", Awaited::Rcpt(i));
        }
        assert!(!pipeline.has_room(4), "the dot is one of them");
        pipeline.close_body();
        assert_eq!(pipeline.unanswered(), REPLIES_MAX);
    }
}
