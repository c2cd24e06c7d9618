//! The loop closed: window, rate and session limit against a receiver that enforces limits, of which they know nothing.
//!
//! One site, sessions without end to be had, a backlog without end; replies come after a latency. What the loop does is what the
//! permit table, the dispatcher and a worker do together: it asks before it opens and before it sends, and reports
//! what it was answered. `TRACE=1` shows every answer but acceptance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use mailer::queue::{Admission, SessionLimit, SiteRate, SiteTerms, Window};

use crate::receiver::{Answer, Limits, MINUTE, Receiver, SECOND};

/// The run, and the part of it that is measured.
pub const END: u64 = 30 * MINUTE;
/// Idle sessions are closed after this.
const IDLE: u64 = 10 * SECOND;
/// A greylisted recipient comes again after this (and up to a fifth more).
const RETRY: u64 = 5 * MINUTE;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A transaction, at most a fifth more or less.
    pub message: u64,
    /// From the connection to the reply to EHLO.
    pub setup: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    /// A connection reaches the receiver.
    Connects(usize),
    /// A transaction reaches it.
    Mail(usize),
    /// A QUIT does.
    Quits,
    /// A session was greeted, or not.
    Greeted(usize, bool),
    /// A transaction was answered.
    Answered(usize, u8),
    /// Something may be possible now.
    Wake,
    /// The limits change.
    Change,
}

const ANSWERS: [Answer; 4] = [
    Answer::Accepted,
    Answer::Goodbye,
    Answer::TooFast,
    Answer::Greylisted,
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    Connecting,
    Idle(u64),
    Busy,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    state: State,
    begun: u32,
    accepted: u32,
    recipient: u64,
    taken: u64,
}

/// What happened in the part that is measured.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub accepted: u64,
    pub turned_away: u64,
    pub attempts: u64,
}

pub struct Loop {
    base: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    posted: u64,
    rng: fastrand::Rng,
    times: Times,
    pub receiver: Receiver,
    pub change: Option<Limits>,
    sessions: Vec<Session>,
    connecting: u32,
    working: u32,
    wake: Option<u64>,
    pub window: Window,
    pub rate: SiteRate,
    limit: SessionLimit,
    recipients: u64,
    delayed: BinaryHeap<Reverse<(u64, u64)>>,
    pub from: u64,
    pub tally: Tally,
    trace: bool,
}

impl Loop {
    pub fn new(limits: Limits, times: Times, seed: u64) -> Loop {
        let terms = SiteTerms::default();
        let closed = Session {
            state: State::Closed,
            begun: 0,
            accepted: 0,
            recipient: 0,
            taken: 0,
        };
        Loop {
            base: Instant::now(),
            now: 0,
            events: BinaryHeap::new(),
            posted: 0,
            rng: fastrand::Rng::with_seed(seed),
            times,
            receiver: Receiver::new(limits),
            change: None,
            sessions: vec![closed; terms.bounds.max as usize],
            connecting: 0,
            working: 0,
            wake: None,
            window: Window::new(terms.bounds, None),
            rate: SiteRate::new(&terms),
            limit: SessionLimit::new(None, None),
            recipients: 0,
            delayed: BinaryHeap::new(),
            from: MINUTE,
            tally: Tally::default(),
            trace: std::env::var("TRACE").is_ok(),
        }
    }

    fn at(&self, time: u64) -> Instant {
        self.base + Duration::from_micros(time)
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base)
            .as_nanos()
            .div_ceil(1000) as u64
    }

    pub fn post(&mut self, at: u64, event: Event) {
        self.posted += 1;
        self.events.push(Reverse((at, self.posted, event)));
    }

    fn about(&mut self, time: u64) -> u64 {
        time * self.rng.u64(80..=120) / 100
    }

    pub fn run(&mut self, until: u64) {
        self.pump();
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > until {
                self.events.push(Reverse((at, 0, event)));
                break;
            }
            self.now = at;
            self.handle(event);
            self.pump();
        }
        self.now = until;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connects(s) => {
                let welcome = self.receiver.connect(self.now);
                let rest = self.about(self.times.setup / 2);
                self.post(self.now + rest, Event::Greeted(s, welcome));
            }
            Event::Mail(s) => {
                let session = self.sessions[s];
                let answer = self
                    .receiver
                    .message(session.begun - 1, session.recipient, self.now);
                let rest = self.about(self.times.message / 2);
                let index = ANSWERS.iter().position(|a| *a == answer).unwrap() as u8;
                self.post(self.now + rest, Event::Answered(s, index));
            }
            Event::Quits => self.receiver.closed(),
            Event::Greeted(s, welcome) => self.greeted(s, welcome),
            Event::Answered(s, answer) => self.answered(s, ANSWERS[answer as usize]),
            Event::Wake => self.wake = None,
            Event::Change => {
                self.receiver.limits = self.change.take().unwrap();
            }
        }
    }

    fn note(&mut self, accepted: bool, turned_away: bool) {
        if self.now >= self.from {
            self.tally.attempts += 1;
            self.tally.accepted += u64::from(accepted);
            self.tally.turned_away += u64::from(turned_away);
        }
    }

    fn greeted(&mut self, s: usize, welcome: bool) {
        self.connecting -= 1;
        if welcome {
            self.working += 1;
            self.sessions[s].state = State::Idle(self.now);
            return;
        }
        self.note(false, true);
        self.sessions[s].state = State::Closed;
        let now = self.at(self.now);
        if self.trace {
            println!(
                "{:9.3} refused, {} work",
                self.now as f64 / 1e6,
                self.working
            );
        }
        match self.working {
            0 => self.window.host_error(now),
            working => self.window.session_refused(working, now),
        }
    }

    fn answered(&mut self, s: usize, answer: Answer) {
        let now = self.at(self.now);
        self.note(
            answer == Answer::Accepted,
            matches!(answer, Answer::Goodbye | Answer::TooFast),
        );
        if self.trace && answer != Answer::Accepted {
            println!(
                "{:9.3} {answer:?} {} {:?}",
                self.now as f64 / 1e6,
                self.sessions[s].begun,
                self.rate.learned()
            );
        }
        self.sessions[s].state = State::Idle(self.now);
        let taken = self.at(self.sessions[s].taken);
        match answer {
            Answer::Accepted => {
                self.sessions[s].accepted += 1;
                self.window.accepted(1, self.working, now);
                self.rate.accepted(1, taken, now);
            }
            Answer::TooFast => self.rate.signal(taken, None, now, &mut self.rng),
            Answer::Greylisted => {
                self.rate.answered_otherwise(taken);
                let due = self.now + RETRY + self.rng.u64(0..RETRY / 5);
                self.delayed
                    .push(Reverse((due, self.sessions[s].recipient)));
            }
            Answer::Goodbye => self.cut(s, now),
        }
    }

    fn cut(&mut self, s: usize, now: Instant) {
        let session = self.sessions[s];
        self.rate.give_back(1, self.at(session.taken));
        self.working -= 1;
        self.sessions[s].state = State::Closed;
        if session.accepted == 0 {
            self.window.host_error(now);
        } else {
            self.window.session_cut(now);
            self.limit.note_ended(session.begun - 1);
        }
    }

    fn close(&mut self, s: usize) {
        self.limit.note_carried(self.sessions[s].begun);
        self.sessions[s].state = State::Closed;
        self.working -= 1;
        let half = self.about(self.times.message / 2);
        self.post(self.now + half, Event::Quits);
    }

    /// Does all that is possible now.
    fn pump(&mut self) {
        let now = self.at(self.now);
        self.close_the_used_up();
        loop {
            let idle = (0..self.sessions.len())
                .filter_map(|s| match self.sessions[s].state {
                    State::Idle(since) => Some((since, s)),
                    _ => None,
                })
                .max();
            if let Some((_, s)) = idle {
                if self.rate.take(1, now) == 0 {
                    let next = self.rate.next(now).expect("there is a limit");
                    assert!(next > now, "no slot, and yet one now");
                    let next = self.micros(next);
                    return self.wake_at(next);
                }
                self.send(s);
                continue;
            }
            if let Some(next) = self.rate.next(now).filter(|next| *next > now) {
                let next = self.micros(next);
                return self.wake_at(next);
            }
            match self
                .window
                .admits(self.working + self.connecting, self.connecting, now)
            {
                // A session that is on its way will take the next message.
                Admission::Open => self.open(),
                Admission::Full => return,
                Admission::NotBefore(at) => {
                    let at = self.micros(at);
                    return self.wake_at(at);
                }
            }
        }
    }

    fn close_the_used_up(&mut self) {
        for s in 0..self.sessions.len() {
            let State::Idle(since) = self.sessions[s].state else {
                continue;
            };
            let full = self
                .limit
                .limit()
                .is_some_and(|limit| self.sessions[s].begun >= limit);
            if full || self.now >= since + IDLE {
                self.close(s);
            }
        }
    }

    fn wake_at(&mut self, at: u64) {
        let at = at.max(self.now + 1);
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
            self.post(at, Event::Wake);
        }
    }

    fn open(&mut self) {
        let free = self.sessions.iter().position(|s| s.state == State::Closed);
        let s = free.expect("no more sessions than the maximum");
        self.sessions[s] = Session {
            state: State::Connecting,
            begun: 0,
            accepted: 0,
            ..self.sessions[s]
        };
        self.connecting += 1;
        let half = self.about(self.times.setup / 2);
        self.post(self.now + half, Event::Connects(s));
    }

    fn send(&mut self, s: usize) {
        let due = self
            .delayed
            .peek()
            .is_some_and(|Reverse((due, _))| *due <= self.now);
        let recipient = if due {
            self.delayed.pop().unwrap().0.1
        } else {
            self.recipients += 1;
            self.recipients
        };
        let session = &mut self.sessions[s];
        session.state = State::Busy;
        session.begun += 1;
        session.recipient = recipient;
        session.taken = self.now;
        let half = self.about(self.times.message / 2);
        self.post(self.now + half, Event::Mail(s));
    }
}
