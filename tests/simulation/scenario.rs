//! What a simulated world consists of: queues, sites with their manners, destinations, messages and when they come.

use std::time::Duration;

use mailer::mail::{DestinationId, QueueId};
use mailer::queue::{Order, PromoteRules, origin_of};

use crate::limits::Limits;

/// How a site treats those who connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Takes everything.
    Good,
    /// Accepts connections and never answers.
    Silent,
    /// Refuses connections until this many seconds have passed.
    DownUntil(u64),
    /// Each connection fails, and each transaction is lost, with this percentage.
    Flaky(u8),
    /// Defers each recipient's first attempts.
    Greylist,
    /// Loses the connection after the final dot with this percentage.
    DropsAfterDot(u8),
    /// Defers messages for their rate with this percentage.
    RateLimits(u8),
    /// Turns sessions away beyond this many, at its greeting.
    LimitsSessions(u32),
    /// Ends the session after this many messages.
    EndsSessionAfter(u32),
    /// Refuses or defers messages because of the sender with this percentage.
    RefusesSender(u8),
}

impl Manner {
    /// Nothing that the site does holds further sessions with it back for a while.
    pub fn works_the_same(self) -> bool {
        matches!(
            self,
            Manner::Good | Manner::Greylist | Manner::RefusesSender(_)
        )
    }
}

/// What the resolver says of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// It is served by a site, after so many failed look-ups.
    Site { site: u32, failures: u32 },
    /// It does not exist.
    Refused,
}

#[derive(Clone, Debug)]
pub struct Destination {
    pub naming: Naming,
    /// The queue the router posts to.
    pub queue: u16,
    /// The queue that the MX hosts' names belong to.
    pub moves_to: Option<u16>,
    /// Life of an answer of the resolver, in seconds.
    pub life: u64,
}

/// One call of the router: a run of recipients of one message to one destination.
#[derive(Clone, Debug)]
pub struct Post {
    pub at: Duration,
    pub destination: u32,
    pub message: u32,
    pub recipients: std::ops::Range<u32>,
}

#[derive(Clone, Copy, Debug)]
pub struct Fallback {
    pub site: u32,
    pub after: u32,
}

/// When the operator wants something.
pub type Planned = (Duration, Wish);
/// A destination, the site that it becomes one of, and after how many look-ups.
pub type Rehosting = (u32, u32, u32);

/// What an operator may want.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    Promote(u32),
    /// Back to the general queue; the order goes there, or else to the queue that has the site.
    Demote(u32, bool),
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub queue_maxima: Vec<u32>,
    pub workers_max: u32,
    pub limits: Limits,
    /// Windows of single sites.
    pub windows: Vec<(u32, u32)>,
    pub manners: Vec<Manner>,
    pub destinations: Vec<Destination>,
    pub posts: Vec<Post>,
    pub envelopes: u32,
    pub run_max: usize,
    pub quantum: usize,
    pub retry_min: Duration,
    pub run_for: Duration,
    pub expire: Option<Duration>,
    pub stop: Option<Duration>,
    /// What the operator orders, and when.
    pub orders: Vec<(Duration, Order)>,
    /// Longest time an event spends in an inbox, in milliseconds.
    pub inbox_ms: u64,
    /// Of a thousand assignments, how many end with the thread.
    pub deaths: u32,
    /// Messages a site may refuse because of the sender before it is stopped; 0: any number.
    pub sender_refusals: u32,
    /// The site of the fallback relay, and after how many failures mail goes there.
    pub fallback: Option<Fallback>,
    /// Queues for promoted sites, and when these are made.
    pub promotion: Option<PromoteRules>,
    /// How long a promoted queue is without mail before it hands its site back.
    pub promoted_rest: Duration,
    /// Which sites the operator wants promoted, or back, and when.
    pub wishes: Vec<Planned>,
    /// Of ten promotions, how many find no thread.
    pub promotion_failures: u8,
    /// Destinations whose hosts become those of another site, after so many look-ups.
    pub moves: Vec<Rehosting>,
    /// Checks that take time proportional to the world are made every so many events.
    pub census_every: u64,
}

impl Scenario {
    /// The site that serves a destination, if there is one and it is always the same.
    pub fn site_of(&self, id: DestinationId) -> Option<u32> {
        let (origin, is_fallback) = origin_of(id);
        match self.destinations[origin.index()].naming {
            _ if is_fallback => Some(self.fallback.expect("nobody may fall back").site),
            Naming::Site { .. } if self.moves.iter().any(|(d, ..)| *d == origin.0) => None,
            Naming::Site { site, .. } => Some(site),
            Naming::Refused => None,
        }
    }

    /// A world of up to a few dozen sites, everything that can happen in it.
    pub fn small(seed: u64) -> Scenario {
        let mut rng = fastrand::Rng::with_seed(seed);
        let queues = rng.u16(1..5);
        let sites = if rng.u8(0..20) == 0 {
            rng.u32(12..40)
        } else {
            rng.u32(1..9)
        };
        let mut manners: Vec<_> = (0..sites).map(|_| manner(&mut rng)).collect();
        let mut limits = fastrand::Rng::with_seed(seed ^ 0x5e55);
        for manner in &mut manners {
            if limits.u8(0..12) == 0 {
                *manner = Manner::LimitsSessions(limits.u32(1..4));
            }
        }
        // Of dice of its own, so that the rest of a seed's world is the same with and without it.
        let mut dice = fastrand::Rng::with_seed(seed ^ 0xfa11);
        let fallback = (dice.u8(0..3) == 0).then(|| Fallback {
            site: sites,
            after: dice.u32(1..5),
        });
        manners.extend(fallback.map(|_| manner(&mut dice)));
        let destinations: Vec<_> = (0..sites + rng.u32(0..6))
            .map(|_| destination(&mut rng, sites, queues))
            .collect();
        let (posts, envelopes) = posts(&mut rng, destinations.len() as u32);
        let mut promoted = fastrand::Rng::with_seed(seed ^ 0x900d);
        let rules = rules(&mut promoted, queues);
        let (wishes, moves) = wishes(&mut promoted, destinations.len() as u32, sites);
        let maxima = (0..queues).map(|_| rng.u32(1..9)).collect();
        let windows = (0..rng.u32(0..3))
            .map(|_| (rng.u32(0..sites), rng.u32(1..8)))
            .collect();
        let (workers_max, window) = (rng.u32(1..13), rng.u32(1..5));
        let mut scenario = Scenario {
            seed,
            queue_maxima: maxima,
            workers_max,
            limits: Limits::of(seed, window, usize::from(queues)),
            windows,
            manners,
            destinations,
            posts,
            envelopes,
            run_max: rng.usize(1..9),
            quantum: rng.usize(1..12),
            retry_min: Duration::from_secs(rng.u64(1..120)),
            run_for: Duration::from_secs(rng.u64(60..7200)),
            expire: (rng.u8(0..5) == 0).then(|| Duration::from_secs(rng.u64(30..7200))),
            stop: (rng.u8(0..6) == 0).then(|| Duration::from_millis(rng.u64(0..60_000))),
            inbox_ms: if rng.bool() { 0 } else { rng.u64(1..80) },
            deaths: if rng.u8(0..4) == 0 { 40 } else { 0 },
            promotion: Some(rules),
            promoted_rest: Duration::from_millis(promoted.u64(0..20_000)),
            wishes,
            promotion_failures: if promoted.u8(0..4) == 0 { 4 } else { 0 },
            moves,
            sender_refusals: if rng.u8(0..8) == 0 { 0 } else { rng.u32(1..6) },
            fallback,
            orders: Vec::new(),
            census_every: 64,
        };
        scenario.orders = crate::orders::random(seed, &scenario);
        scenario
    }

    /// Many sites, most of them with little mail, all well-behaved but one in a hundred.
    pub fn large(sites: u32, envelopes: u32) -> Scenario {
        let mut rng = fastrand::Rng::with_seed(1);
        let manners = (0..sites)
            .map(|site| match site % 100 {
                7 => Manner::Silent,
                8 => Manner::Greylist,
                9 => Manner::RefusesSender(100),
                _ => Manner::Good,
            })
            .collect();
        let destination = |site| Destination {
            naming: Naming::Site { site, failures: 0 },
            queue: u16::from(site % 50 == 0),
            moves_to: None,
            life: 86_400,
        };
        let posts = (0..envelopes)
            .map(|n| Post {
                at: Duration::from_micros(u64::from(n) * 20),
                // A long tail: half of the mail goes to a hundredth of the destinations.
                destination: if rng.bool() {
                    rng.u32(0..sites / 100)
                } else {
                    rng.u32(0..sites)
                },
                message: n,
                recipients: n..n + 1,
            })
            .collect();
        Scenario {
            seed: 1,
            queue_maxima: vec![300, 50],
            workers_max: 320,
            limits: Limits::fixed(20, 2),
            windows: Vec::new(),
            manners,
            destinations: (0..sites).map(destination).collect(),
            posts,
            envelopes,
            run_max: 64,
            quantum: 64,
            retry_min: Duration::from_secs(300),
            run_for: Duration::from_secs(3600),
            expire: None,
            stop: None,
            inbox_ms: 0,
            deaths: 0,
            promotion: Some(PromoteRules::new(QueueId(2), 32)),
            promoted_rest: Duration::from_secs(10),
            wishes: Vec::new(),
            promotion_failures: 0,
            moves: Vec::new(),
            orders: Vec::new(),
            sender_refusals: 10,
            fallback: None,
            census_every: 100_000,
        }
    }
}

fn rules(rng: &mut fastrand::Rng, queues: u16) -> PromoteRules {
    PromoteRules {
        share: [0.0, 0.005, 0.3, 0.9][rng.usize(0..4)],
        min: rng.usize(0..12),
        demand: Duration::from_millis(rng.u64(0..5000)),
        ..PromoteRules::new(QueueId(queues), rng.u16(0..4))
    }
}

/// Wishes of all kinds at any time, and destinations whose hosts change.
fn wishes(
    rng: &mut fastrand::Rng,
    destinations: u32,
    sites: u32,
) -> (Vec<Planned>, Vec<Rehosting>) {
    let longest = [200, 3000, 60_000, 600_000][rng.usize(0..4)];
    let wish = |rng: &mut fastrand::Rng| {
        let d = rng.u32(0..destinations);
        match rng.bool() {
            true => Wish::Promote(d),
            false => Wish::Demote(d, rng.bool()),
        }
    };
    let wishes = (0..rng.u32(0..10)).map(|_| {
        let at = Duration::from_millis(rng.u64(0..longest));
        (at, wish(rng))
    });
    let wishes = wishes.collect();
    let moves = (0..rng.u32(0..6).saturating_sub(2)).map(|_| {
        let d = rng.u32(0..destinations);
        (d, rng.u32(0..sites), rng.u32(1..4))
    });
    (wishes, moves.collect())
}

fn manner(rng: &mut fastrand::Rng) -> Manner {
    match rng.u8(0..18) {
        0 => Manner::Silent,
        1 => Manner::DownUntil(rng.u64(5..3000)),
        2 => Manner::Flaky(rng.u8(5..60)),
        3 => Manner::Greylist,
        4 => Manner::DropsAfterDot(rng.u8(5..40)),
        5 => Manner::RateLimits(rng.u8(5..40)),
        6 => Manner::EndsSessionAfter(rng.u32(0..4)),
        7 => Manner::RefusesSender(100),
        8 => Manner::RefusesSender(rng.u8(30..98)),
        _ => Manner::Good,
    }
}

fn destination(rng: &mut fastrand::Rng, sites: u32, queues: u16) -> Destination {
    let naming = if rng.u8(0..15) == 0 {
        Naming::Refused
    } else {
        Naming::Site {
            site: rng.u32(0..sites),
            failures: if rng.u8(0..6) == 0 { rng.u32(1..5) } else { 0 },
        }
    };
    let queue = if rng.bool() { 0 } else { rng.u16(0..queues) };
    let moves = queue == 0 && queues > 1 && rng.u8(0..6) == 0;
    Destination {
        naming,
        queue,
        moves_to: moves.then(|| rng.u16(1..queues)),
        life: if rng.u8(0..4) == 0 {
            rng.u64(0..60)
        } else {
            86_400
        },
    }
}

/// Messages with one recipient or several, in bursts or one by one.
fn posts(rng: &mut fastrand::Rng, destinations: u32) -> (Vec<Post>, u32) {
    let mut posts = Vec::new();
    let mut recipient = 0;
    let mut at = Duration::ZERO;
    let gap_ms = [0, 0, 5, 400][rng.usize(0..4)];
    let popular = rng.u32(0..destinations);
    for message in 0..rng.u32(3..50) {
        at += Duration::from_millis(if gap_ms == 0 { 0 } else { rng.u64(0..gap_ms) });
        let clones = if rng.u8(0..4) == 0 { rng.u32(2..4) } else { 1 };
        let mut met = Vec::new();
        for _ in 0..clones {
            let destination = if rng.bool() {
                popular
            } else {
                rng.u32(0..destinations)
            };
            if met.contains(&destination) {
                continue;
            }
            met.push(destination);
            let count = if rng.u8(0..5) == 0 { rng.u32(2..6) } else { 1 };
            posts.push(Post {
                at,
                destination,
                message,
                recipients: recipient..recipient + count,
            });
            recipient += count;
        }
    }
    (posts, recipient)
}
