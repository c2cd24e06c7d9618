//! The loop closed: window, rate, session limit and health against receivers that enforce limits, of which they know nothing.
//!
//! One site, sessions without end to be had, a backlog without end; replies come after a latency. For half an hour of virtual
//! time, without its first minute: at least 95 % of what the receiver permits is accepted, and at most 2 % of all
//! attempts (transactions, and connections that were refused) are turned away.
//!
//! `SEEDS=5000` tries more seeds, `SEED=7` one, and `--nocapture` shows the table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use mailer::queue::{Admission, SessionLimit, SiteRate, SiteTerms, Window};

use crate::receiver::{Answer, Count, Limits, MINUTE, Receiver, SECOND};

/// The run, and the part of it that is measured.
const END: u64 = 30 * MINUTE;
/// Idle sessions are closed after this.
const IDLE: u64 = 10 * SECOND;
/// A greylisted recipient comes again after this (and up to a fifth more).
const RETRY: u64 = 5 * MINUTE;

/// How long things take.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// A transaction, at most a fifth more or less.
    message: u64,
    /// From the connection to the reply to EHLO.
    setup: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
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
struct Tally {
    accepted: u64,
    turned_away: u64,
    attempts: u64,
}

struct Loop {
    base: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    posted: u64,
    rng: fastrand::Rng,
    times: Times,
    receiver: Receiver,
    change: Option<Limits>,
    sessions: Vec<Session>,
    connecting: u32,
    working: u32,
    wake: Option<u64>,
    window: Window,
    rate: SiteRate,
    limit: SessionLimit,
    recipients: u64,
    delayed: BinaryHeap<Reverse<(u64, u64)>>,
    from: u64,
    tally: Tally,
    trace: bool,
}

impl Loop {
    fn new(limits: Limits, times: Times, seed: u64) -> Loop {
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

    fn post(&mut self, at: u64, event: Event) {
        self.posted += 1;
        self.events.push(Reverse((at, self.posted, event)));
    }

    fn about(&mut self, time: u64) -> u64 {
        time * self.rng.u64(80..=120) / 100
    }

    fn run(&mut self, until: u64) {
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

/// What became of a run.
#[derive(Clone, Copy, Debug)]
struct Result {
    /// Accepted, as a part of what is permitted.
    accepted: f64,
    /// Turned away, as a part of the attempts.
    turned_away: f64,
}

/// A kind of receiver.
struct Case {
    name: &'static str,
    times: fn(&mut fastrand::Rng) -> Times,
    limits: fn(&mut fastrand::Rng) -> Limits,
    /// Messages that it permits within the measured time.
    permitted: fn(&Limits, Times) -> f64,
    /// The part of it that has to be reached.
    part: f64,
}

const MEASURED: f64 = (END - MINUTE) as f64;
const SESSIONS: f64 = 20.0;

fn slow(rng: &mut fastrand::Rng) -> Times {
    Times {
        message: rng.u64(300..1500) * 1000,
        setup: rng.u64(300..2000) * 1000,
    }
}

fn quick(rng: &mut fastrand::Rng) -> Times {
    Times {
        message: rng.u64(100..250) * 1000,
        setup: rng.u64(100..400) * 1000,
    }
}

fn storms(
    rng: &mut fastrand::Rng,
    mut next: impl FnMut(&mut fastrand::Rng, u64) -> u64,
) -> Vec<(u64, u64)> {
    let mut storms = Vec::new();
    let mut at = rng.u64(5 * SECOND..MINUTE);
    while at < END {
        storms.push((at, at + 20 * SECOND));
        at = next(rng, at);
    }
    storms
}

fn calm_time(limits: &Limits) -> f64 {
    let stormy: u64 = limits
        .storms
        .iter()
        .map(|(from, to)| to.min(&END).saturating_sub(*from.max(&MINUTE)))
        .sum();
    MEASURED - stormy as f64
}

fn rated(count: Count) -> Limits {
    Limits {
        per_minute: Some(100),
        count: Some(count),
        ..Limits::default()
    }
}

fn by_rate(limits: &Limits, _: Times) -> f64 {
    limits.per_minute.unwrap() as f64 * MEASURED / MINUTE as f64
}

const CASES: [Case; 9] = [
    Case {
        name: "5 sessions",
        times: slow,
        limits: |_| Limits {
            sessions: Some(5),
            ..Limits::default()
        },
        permitted: |_, times| 5.0 * MEASURED / times.message as f64,
        part: 0.95,
    },
    Case {
        name: "20 messages per session",
        times: slow,
        limits: |_| Limits {
            per_session: Some(20),
            ..Limits::default()
        },
        permitted: |_, times| {
            SESSIONS * 20.0 * MEASURED / (20 * times.message + times.setup) as f64
        },
        part: 0.95,
    },
    Case {
        name: "100 per minute, sliding",
        times: slow,
        limits: |_| rated(Count::Sliding { refused: false }),
        permitted: by_rate,
        part: 0.95,
    },
    Case {
        name: "100 per minute, sliding, refused ones count",
        times: slow,
        limits: |_| rated(Count::Sliding { refused: true }),
        permitted: by_rate,
        part: 0.94,
    },
    Case {
        name: "100 per minute of the clock",
        times: slow,
        limits: |rng| {
            rated(Count::Fixed {
                offset: rng.u64(0..MINUTE),
            })
        },
        permitted: by_rate,
        part: 0.95,
    },
    Case {
        name: "100 per minute, bucket of 20",
        times: slow,
        limits: |_| rated(Count::Bucket { burst: 20 }),
        permitted: by_rate,
        part: 0.95,
    },
    Case {
        name: "421 storms, each minute",
        times: quick,
        limits: |rng| Limits {
            storms: storms(rng, |_, at| at + MINUTE),
            ..Limits::default()
        },
        permitted: |limits, times| SESSIONS * calm_time(limits) / times.message as f64,
        part: 0.95,
    },
    Case {
        name: "421 storms, at random",
        times: quick,
        limits: |rng| Limits {
            storms: storms(rng, |rng, at| {
                at + 20 * SECOND + rng.u64(15 * SECOND..90 * SECOND)
            }),
            ..Limits::default()
        },
        permitted: |limits, times| SESSIONS * calm_time(limits) / times.message as f64,
        part: 0.95,
    },
    Case {
        name: "5 sessions and 100 per minute",
        times: slow,
        limits: |rng| {
            let count = match rng.u8(0..3) {
                0 => Count::Sliding { refused: false },
                1 => Count::Fixed {
                    offset: rng.u64(0..MINUTE),
                },
                _ => Count::Bucket { burst: 20 },
            };
            Limits {
                sessions: Some(5),
                ..rated(count)
            }
        },
        permitted: by_rate,
        part: 0.95,
    },
];

fn measure(case: &Case, seed: u64) -> Result {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x10_0b);
    let times = (case.times)(&mut rng);
    let limits = (case.limits)(&mut rng);
    let permitted = (case.permitted)(&limits, times);
    let mut world = Loop::new(limits, times, seed);
    world.run(END);
    let tally = world.tally;
    Result {
        accepted: tally.accepted as f64 / permitted,
        turned_away: tally.turned_away as f64 / tally.attempts as f64,
    }
}

fn seeds() -> std::ops::Range<u64> {
    match crate::number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..crate::number("SEEDS").map_or(200, |seeds| seeds.min(5_000)),
    }
}

/// Greylisting is no reason to slow down: window and rate stay as they are, and all recipients are served when they come again.
#[test]
fn greylisting_moves_neither_window_nor_rate() {
    for seed in seeds().take(50) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let times = slow(&mut rng);
        let mut world = Loop::new(
            Limits {
                greylist: Some(MINUTE),
                ..Limits::default()
            },
            times,
            seed,
        );
        world.run(4 * MINUTE);
        assert_eq!(world.tally.accepted, 0, "seed {seed}: nobody was due");
        assert_eq!(
            world.window.size(),
            1,
            "seed {seed}: the window grows by what is accepted"
        );
        assert_eq!(world.rate.learned(), None, "seed {seed}");
        world.run(12 * MINUTE);
        assert_eq!(world.window.size(), SESSIONS as u32, "seed {seed}");
        world.from = 12 * MINUTE;
        world.tally = Tally::default();
        world.run(END);
        let tally = world.tally;
        assert_eq!(tally.turned_away, 0, "seed {seed}");
        assert_eq!(
            (world.window.size(), world.rate.learned()),
            (SESSIONS as u32, None),
            "seed {seed}"
        );
        // All sessions are busy all the time, with first attempts or with second ones.
        let possible = SESSIONS * (END - world.from) as f64 / times.message as f64;
        assert!(
            tally.attempts as f64 >= 0.95 * possible,
            "seed {seed}: {tally:?} of {possible}"
        );
        assert_eq!(world.receiver.again_too_early, 0, "seed {seed}");
    }
}

/// Limits that change while messages flow are followed: ten minutes later, 95 % of what is permitted then is accepted.
#[test]
fn a_limit_that_changes_is_followed_within_ten_minutes() {
    type Change = fn(&mut Limits);
    let counts = [
        Count::Sliding { refused: false },
        Count::Fixed {
            offset: 17 * SECOND,
        },
        Count::Bucket { burst: 20 },
    ];
    let changes: [(&str, Change, f64); 4] = [
        (
            "lowered to 50 per minute",
            |limits| limits.per_minute = Some(50),
            50.0,
        ),
        (
            "lowered to 20 per minute",
            |limits| limits.per_minute = Some(20),
            20.0,
        ),
        (
            "raised to 200 per minute",
            |limits| limits.per_minute = Some(200),
            200.0,
        ),
        (
            "raised to 400 per minute",
            |limits| limits.per_minute = Some(400),
            400.0,
        ),
    ];
    let mut bad = Vec::new();
    for (name, change, per_minute) in changes {
        for count in &counts {
            let mut parts = Vec::new();
            for seed in seeds() {
                let times = slow(&mut fastrand::Rng::with_seed(seed));
                let before = rated(count.clone());
                let mut after = before.clone();
                change(&mut after);
                let part = followed(before, after, times, seed, per_minute);
                if part < 0.95 {
                    bad.push((name, count.clone(), seed, part));
                }
                parts.push(part);
            }
            let mean = parts.iter().sum::<f64>() / parts.len() as f64;
            let least = parts.iter().copied().fold(f64::MAX, f64::min);
            println!(
                "{name:30} {count:35?} {:6.2} {:6.2} %",
                100.0 * mean,
                100.0 * least
            );
        }
    }
    assert!(
        bad.is_empty(),
        "{} runs fail, the first: {:?}",
        bad.len(),
        &bad[..bad.len().min(5)]
    );
}

/// Another number of sessions.
#[test]
fn a_changed_number_of_sessions_is_followed_within_ten_minutes() {
    for seed in seeds() {
        let times = slow(&mut fastrand::Rng::with_seed(seed));
        let limits = |sessions| Limits {
            sessions: Some(sessions),
            ..Limits::default()
        };
        let part = followed(
            limits(5),
            limits(12),
            times,
            seed,
            12.0 * MINUTE as f64 / times.message as f64,
        );
        assert!(part >= 0.95, "seed {seed}: {part} of 12 sessions");
    }
}

/// The part of `per_minute` that is accepted from ten minutes after the change on, for five minutes.
fn followed(before: Limits, after: Limits, times: Times, seed: u64, per_minute: f64) -> f64 {
    let mut world = Loop::new(before, times, seed);
    world.change = Some(after);
    let at = 10 * MINUTE + seed * 7 * SECOND % MINUTE;
    world.post(at, Event::Change);
    world.from = at + 10 * MINUTE;
    world.run(world.from + 5 * MINUTE);
    world.tally.accepted as f64 / (5.0 * per_minute)
}

#[test]
fn receivers_limits_are_found_from_their_replies() {
    let mut bad = Vec::new();
    println!(
        "{:45} accepted: mean, least   turned away: mean, most",
        "receiver"
    );
    for case in &CASES {
        if std::env::var("CASE").is_ok_and(|wanted| !case.name.contains(&wanted)) {
            continue;
        }
        let results: Vec<(u64, Result)> = seeds().map(|seed| (seed, measure(case, seed))).collect();
        let number = results.len() as f64;
        let mean =
            |of: fn(&Result) -> f64| results.iter().map(|(_, r)| of(r)).sum::<f64>() / number;
        let least = results
            .iter()
            .min_by(|a, b| a.1.accepted.total_cmp(&b.1.accepted))
            .unwrap();
        let most = results
            .iter()
            .max_by(|a, b| a.1.turned_away.total_cmp(&b.1.turned_away))
            .unwrap();
        println!(
            "{:45} {:6.2} {:6.2} % (seed {})  {:6.3} {:6.3} % (seed {})",
            case.name,
            100.0 * mean(|r| r.accepted),
            100.0 * least.1.accepted,
            least.0,
            100.0 * mean(|r| r.turned_away),
            100.0 * most.1.turned_away,
            most.0,
        );
        let failed = results
            .iter()
            .filter(|(_, r)| r.accepted < case.part || r.turned_away > 0.02);
        bad.extend(failed.map(|(seed, result)| (case.name, *seed, *result)));
    }
    assert!(
        bad.is_empty(),
        "{} runs fail, the first: {:?}",
        bad.len(),
        &bad[..bad.len().min(5)]
    );
}
