//! A receiver that enforces limits of its own, as its replies alone show. Virtual time, in microseconds; no randomness.
//!
//! It is everything that the closed loop may not know: how many sessions, how many messages in each, how many per minute and
//! counted how, when it is in a bad mood, whom it greylists.

use std::collections::{HashMap, VecDeque};

pub const SECOND: u64 = 1_000_000;
pub const MINUTE: u64 = 60 * SECOND;

/// How a receiver counts messages.
#[derive(Clone, Debug)]
pub enum Count {
    /// Within the minute before; `refused`: what it turns away counts as well.
    Sliding { refused: bool },
    /// Within minutes that begin at this offset.
    Fixed { offset: u64 },
    /// A bucket of this size that fills evenly.
    Bucket { burst: u64 },
}

/// What a receiver limits.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub sessions: Option<u32>,
    pub per_session: Option<u32>,
    pub per_minute: Option<u64>,
    pub count: Option<Count>,
    /// Each from, to: everything is answered 421.
    pub storms: Vec<(u64, u64)>,
    /// A recipient is accepted this long after its first attempt.
    pub greylist: Option<u64>,
}

/// Its answer to a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 250 to the dot.
    Accepted,
    /// 421, and the connection is closed.
    Goodbye,
    /// 450 4.7.1 to MAIL or the dot.
    TooFast,
    /// 450 to RCPT.
    Greylisted,
}

/// The receiver with its books.
#[derive(Debug)]
pub struct Receiver {
    pub limits: Limits,
    open: u32,
    counted: VecDeque<u64>,
    tokens: f64,
    filled: u64,
    first_attempts: HashMap<u64, u64>,
    /// Greylisted recipients that came again before they could be accepted.
    pub again_too_early: u64,
}

impl Receiver {
    pub fn new(limits: Limits) -> Receiver {
        let tokens = match limits.count {
            Some(Count::Bucket { burst }) => burst as f64,
            _ => 0.0,
        };
        Receiver {
            limits,
            open: 0,
            counted: VecDeque::new(),
            tokens,
            filled: 0,
            first_attempts: HashMap::new(),
            again_too_early: 0,
        }
    }

    pub fn storms(&self, now: u64) -> bool {
        let storms = &self.limits.storms;
        storms.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    /// A connection: whether it is greeted with 220.
    pub fn connect(&mut self, now: u64) -> bool {
        let full = self.limits.sessions.is_some_and(|most| self.open >= most);
        let welcome = !full && !self.storms(now);
        self.open += u32::from(welcome);
        welcome
    }

    /// A session is over.
    pub fn closed(&mut self) {
        self.open -= 1;
    }

    /// The next transaction of a session that has carried so many.
    pub fn message(&mut self, carried: u32, recipient: u64, now: u64) -> Answer {
        let worn_out = self.limits.per_session.is_some_and(|most| carried >= most);
        if worn_out || self.storms(now) {
            self.closed();
            return Answer::Goodbye;
        }
        if let Some(wait) = self.limits.greylist {
            let first = *self.first_attempts.entry(recipient).or_insert(now);
            if now < first + wait {
                self.again_too_early += u64::from(now > first);
                return Answer::Greylisted;
            }
            self.first_attempts.remove(&recipient);
        }
        match self.is_within_rate(now) {
            true => Answer::Accepted,
            false => Answer::TooFast,
        }
    }

    fn is_within_rate(&mut self, now: u64) -> bool {
        let Some(most) = self.limits.per_minute else {
            return true;
        };
        match self
            .limits
            .count
            .clone()
            .expect("a rate is counted somehow")
        {
            Count::Sliding { refused } => {
                self.counted_after(now.saturating_sub(MINUTE));
                let within = (self.counted.len() as u64) < most;
                if within || refused {
                    self.counted.push_back(now);
                }
                within
            }
            Count::Fixed { offset } => {
                let into = (now + MINUTE - offset) % MINUTE;
                if let Some(before) = now.checked_sub(into + 1) {
                    self.counted_after(before);
                }
                let within = (self.counted.len() as u64) < most;
                if within {
                    self.counted.push_back(now);
                }
                within
            }
            Count::Bucket { burst } => {
                let passed = (now - self.filled) as f64 / MINUTE as f64;
                self.tokens = (self.tokens + passed * most as f64).min(burst as f64);
                self.filled = now;
                let within = self.tokens >= 1.0;
                self.tokens -= f64::from(u8::from(within));
                within
            }
        }
    }

    fn counted_after(&mut self, begun: u64) {
        while self.counted.front().is_some_and(|at| *at <= begun) {
            self.counted.pop_front();
        }
    }
}
