//! Limits of sessions and rates in the simulated world: what is drawn for a seed, and that nothing ever exceeds it.
//!
//! The books keep a log of what was handed out, by its instant; what a worker gave back untried is taken out of it again. So
//! a rate is checked against any window of its length that ends with a run.
//!
//! A session counts as opened when it is granted, or when the queue learns that a worker has opened it again. The latter is no
//! decision of the queue: it may exceed a rate of connections, but whatever is granted then waits until it is paid back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mailer::mail::{Envelope, QueueId, SiteId, SourceNo, Stage, WorkerId};
use mailer::queue::{Bounds, Outcome, PermitTable, Phase, Rate, SiteTerms};

use crate::scenario::Scenario;
use crate::world::World;

/// The limits of a world.
#[derive(Clone, Debug)]
pub struct Limits {
    pub terms: SiteTerms,
    pub sources: u8,
    pub source_rate: Option<Rate>,
    /// Of each queue: messages and connections.
    pub queue_rates: Vec<(Option<Rate>, Option<Rate>)>,
    pub session_backlog: u32,
    /// Nothing is limited but the number of sessions, which is always the same.
    pub are_fixed: bool,
}

impl Limits {
    /// A fixed number of sessions for each site, at any rate.
    pub fn fixed(window: u32, queues: usize) -> Limits {
        let bounds = Bounds {
            start: window,
            max: window,
            ..Bounds::default()
        };
        Limits {
            terms: SiteTerms {
                bounds,
                ..SiteTerms::default()
            },
            sources: 1,
            source_rate: None,
            queue_rates: vec![(None, None); queues],
            session_backlog: 0,
            are_fixed: true,
        }
    }

    /// Of half of the seeds everything that can be limited is, now and then.
    pub fn of(seed: u64, window: u32, queues: usize) -> Limits {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x11a175);
        let mut limits = Limits::fixed(window, queues);
        if dice.bool() {
            return limits;
        }
        limits.are_fixed = false;
        let max = dice.u32(1..8);
        limits.terms.bounds = Bounds {
            start: dice.u32(1..=max),
            max,
            step: [0.5, 1.0, 4.0][dice.usize(0..3)],
        };
        limits.sources = dice.u8(1..4);
        limits.session_backlog = [0, 1, 8][dice.usize(0..3)];
        limits.terms.rate = rate(&mut dice, 3);
        limits.terms.connect_rate = rate(&mut dice, 4);
        limits.source_rate = rate(&mut dice, 4);
        for rates in &mut limits.queue_rates {
            *rates = (rate(&mut dice, 4), rate(&mut dice, 6));
        }
        limits
    }

    pub fn table(&self, scenario: &Scenario, now: Instant) -> PermitTable {
        let mut table = PermitTable::with_terms(scenario.workers_max, self.terms, self.sources);
        for &(site, window) in &scenario.windows {
            table.set_site_window(SiteId(site), window, now);
        }
        table.set_source_rate(self.source_rate, now);
        for (number, (rate, connect_rate)) in self.queue_rates.iter().enumerate() {
            table.set_queue_rates(QueueId(number as u16), *rate, *connect_rate, now);
        }
        table
    }
}

/// A rate with a chance of one in `odds`.
fn rate(dice: &mut fastrand::Rng, odds: u8) -> Option<Rate> {
    let rate = Rate {
        events: dice.u32(1..40),
        per: Duration::from_secs([1, 10, 60][dice.usize(0..3)]),
        burst: dice.bool().then(|| dice.u32(1..10)),
    };
    (dice.u8(0..odds) == 0).then_some(rate)
}

/// A run that was handed out.
#[derive(Debug)]
struct Handed {
    at: Instant,
    queue: usize,
    site: SiteId,
    source: SourceNo,
    messages: u32,
}

/// A session that is opened.
#[derive(Debug)]
struct Opened {
    at: Instant,
    queue: usize,
    to: (SiteId, SourceNo),
}

/// What was handed out, and to whom.
#[derive(Default)]
pub struct Log {
    runs: Vec<Handed>,
    openings: Vec<Opened>,
    /// The site and the source address that each worker serves.
    serves: HashMap<(usize, WorkerId), (SiteId, SourceNo)>,
    /// Connections that workers made.
    pub connects: usize,
    /// The runs that each worker owes, oldest first.
    owed: HashMap<(usize, WorkerId), Vec<usize>>,
}

fn messages(envelopes: &[Envelope]) -> u32 {
    envelopes.chunk_by(|a, b| a.message == b.message).count() as u32
}

impl Log {
    /// A worker gives the run back that it was given last.
    pub fn recalled(&mut self, q: usize, worker: WorkerId) {
        let owed = self.owed.entry((q, worker)).or_default();
        let run = owed.pop().expect("it was given");
        self.runs[run].messages = 0;
    }

    /// A worker has finished its oldest run.
    pub fn finished(&mut self, q: usize, worker: WorkerId, outcome: &Outcome) {
        let run = self.owed.entry((q, worker)).or_default().remove(0);
        let last = outcome
            .deferred
            .last()
            .map(|(envelope, _)| envelope.message);
        let begun = outcome.returned.iter();
        let begun = begun.take_while(|e| Some(e.message) == last).count();
        let run = &mut self.runs[run];
        run.messages -= messages(&outcome.returned[begun..]).min(run.messages);
        let stage = outcome.host_failed.as_ref().map(|verdict| verdict.stage);
        if matches!(stage, Some(Stage::Connect | Stage::Greeting)) {
            run.messages = 0;
        }
    }

    pub fn gone(&mut self, q: usize, worker: WorkerId) {
        self.owed.remove(&(q, worker));
        self.serves.remove(&(q, worker));
    }

    /// A worker, without a session by now, opens another for the run that it holds.
    pub fn reopened(&mut self, q: usize, worker: WorkerId, at: Instant) {
        let to = self.serves[&(q, worker)];
        self.openings.push(Opened { at, queue: q, to });
    }

    /// Every connection is in the books.
    pub fn check_end(&self) {
        let (made, known) = (self.connects, self.openings.len());
        assert!(made <= known, "{made} connections, {known} are known");
    }
}

impl World {
    /// A run is handed out: within every rate that holds for it.
    pub fn hand_out(
        &mut self,
        q: usize,
        worker: WorkerId,
        to: (SiteId, SourceNo),
        envelopes: &[Envelope],
    ) {
        if !self.is_small() {
            return;
        }
        let (site, source) = to;
        let log = &mut self.books.log;
        let handed = Handed {
            at: self.now,
            queue: q,
            site,
            source,
            messages: messages(envelopes),
        };
        log.owed
            .entry((q, worker))
            .or_default()
            .push(log.runs.len());
        log.runs.push(handed);
        log.serves.insert((q, worker), to);
        let limits = &self.scenario.limits;
        let of_site = |run: &Handed| (run.site, run.source) == to;
        self.check_rate(limits.terms.rate, of_site);
        // Queues for promoted sites have no rates of their own.
        let of_queue = limits.queue_rates.get(q).and_then(|rates| rates.0);
        self.check_rate(of_queue, |run| run.queue == q);
        self.check_rate(limits.source_rate, |run| run.source == source);
    }

    /// A session is granted: within the rates of connections, those counted that workers open again by themselves.
    pub fn open(&mut self, q: usize, to: (SiteId, SourceNo)) {
        if !self.is_small() {
            return;
        }
        let (at, queue) = (self.now, q);
        self.books.log.openings.push(Opened { at, queue, to });
        let limits = &self.scenario.limits;
        let of_queue = limits.queue_rates.get(q).and_then(|rates| rates.1);
        self.check_openings(limits.terms.connect_rate, |opened| opened.to == to);
        self.check_openings(of_queue, |opened| opened.queue == q);
    }

    fn check_openings(&self, rate: Option<Rate>, counts: impl Fn(&Opened) -> bool) {
        let Some(rate) = rate else { return };
        let openings = self.books.log.openings.iter().rev();
        let recent = openings.take_while(|opened| opened.at + rate.per >= self.now);
        let count = recent.filter(|opened| counts(opened)).count();
        let most = (rate.events + rate.burst.unwrap_or(0)) as usize;
        assert!(count <= most, "{count} sessions opened at a rate of {rate}");
    }

    fn check_rate(&self, rate: Option<Rate>, counts: impl Fn(&Handed) -> bool) {
        let Some(rate) = rate else { return };
        let runs = self.books.log.runs.iter().rev();
        let recent = runs.take_while(|run| run.at + rate.per >= self.now);
        let sum: u32 = recent
            .filter(|run| counts(run))
            .map(|run| run.messages)
            .sum();
        let most = rate.events + rate.burst.unwrap_or(0);
        assert!(sum <= most, "{sum} messages at a rate of {rate}");
    }

    /// Neither windows nor the number of sessions being opened are exceeded by what this event took.
    pub fn check_windows(&self, taken: &[(SiteId, SourceNo)]) {
        let table = self.permits.borrow();
        for &(site, source) in taken {
            let (held, window) = table.sessions_from(site, source);
            assert!(held <= window, "{held} sessions with {site:?} of {window}");
        }
        for phase in Phase::BOTH {
            let (connecting, most) = (table.connecting(phase), table.connects_max(phase));
            assert!(connecting <= most, "{connecting} {phase:?} sessions opened");
        }
    }
}
