//! What receivers permit is used through the dispatchers as well: by one queue, and by two that share the site.
//!
//! From the second to the twentieth minute at least 95 % of what a receiver permits is accepted on average (90 % in each
//! run), and at most 2 % of all attempts are turned away. How to try more seeds is in the head of `enforced`.

use crate::closed_loop::Times;
use crate::enforced::{END, Enforced, FROM};
use crate::receiver::{Count, Limits, MINUTE, SECOND};

const MEASURED: f64 = (END - FROM) as f64;
const SESSIONS: f64 = 20.0;

/// A kind of receiver.
struct Case {
    name: &'static str,
    times: fn(&mut fastrand::Rng) -> Times,
    limits: fn(&mut fastrand::Rng) -> Limits,
    /// Messages that it permits within the measured time.
    permitted: fn(&Limits, Times) -> f64,
    /// Very many messages: fewer seeds, unless they are asked for.
    is_heavy: bool,
}

fn rated(count: Count) -> Limits {
    Limits {
        per_minute: Some(100),
        count: Some(count),
        ..Limits::default()
    }
}

fn by_rate(limits: &Limits, _: Times) -> f64 {
    limits.per_minute.unwrap_or(0) as f64 * MEASURED / MINUTE as f64
}

/// 20 s of 421 in each minute.
fn storms(rng: &mut fastrand::Rng) -> Limits {
    let first = rng.u64(5 * SECOND..MINUTE);
    let begin = (0..END / MINUTE).map(|minute| first + minute * MINUTE);
    Limits {
        storms: begin.map(|at| (at, at + 20 * SECOND)).collect(),
        ..Limits::default()
    }
}

fn calm_time(limits: &Limits) -> f64 {
    let within = |(from, to): &(u64, u64)| to.min(&END).saturating_sub(*from.max(&FROM));
    MEASURED - limits.storms.iter().map(within).sum::<u64>() as f64
}

const CASES: [Case; 6] = [
    Case {
        name: "5 sessions",
        times: slow,
        limits: |_| Limits {
            sessions: Some(5),
            ..Limits::default()
        },
        permitted: |_, times| 5.0 * MEASURED / times.message as f64,
        is_heavy: false,
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
        is_heavy: true,
    },
    Case {
        name: "100 per minute, sliding",
        times: slow,
        limits: |_| rated(Count::Sliding { refused: false }),
        permitted: by_rate,
        is_heavy: false,
    },
    Case {
        name: "100 per minute of the clock",
        times: slow,
        limits: |rng| {
            let offset = rng.u64(0..MINUTE);
            rated(Count::Fixed { offset })
        },
        permitted: by_rate,
        is_heavy: false,
    },
    Case {
        name: "100 per minute, bucket of 20",
        times: slow,
        limits: |_| rated(Count::Bucket { burst: 20 }),
        permitted: by_rate,
        is_heavy: false,
    },
    Case {
        name: "421 storms, each minute",
        times: quick,
        limits: storms,
        permitted: |limits, times| SESSIONS * calm_time(limits) / times.message as f64,
        is_heavy: true,
    },
];

/// A storm cuts each session once: many messages have to go meanwhile for that to be few.
fn quick(rng: &mut fastrand::Rng) -> Times {
    Times {
        message: rng.u64(100..250) * 1000,
        setup: rng.u64(100..400) * 1000,
    }
}

fn slow(rng: &mut fastrand::Rng) -> Times {
    Times {
        message: rng.u64(300..1500) * 1000,
        setup: rng.u64(300..2000) * 1000,
    }
}

/// What was accepted of what is permitted, and turned away of what was tried.
fn measure(case: &Case, queues: usize, seed: u64) -> (f64, f64) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x7b0);
    let times = (case.times)(&mut rng);
    let limits = (case.limits)(&mut rng);
    let permitted = (case.permitted)(&limits, times);
    let mut world = Enforced::new(limits, times, queues, seed);
    world.run(END);
    let tally = world.tally;
    if crate::number("SEED").is_some() {
        println!("{times:?} {tally:?} by minute: {:?}", world.by_minute);
    }
    (
        tally.accepted as f64 / permitted,
        tally.turned_away as f64 / tally.attempts as f64,
    )
}

fn seeds(number: u64) -> std::ops::Range<u64> {
    match crate::number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..crate::number("SEEDS").map_or(number, |seeds| seeds.min(200)),
    }
}

fn limits_are_used(queues: usize) {
    let mut bad = Vec::new();
    for case in &CASES {
        if std::env::var("CASE").is_ok_and(|wanted| !case.name.contains(&wanted)) {
            continue;
        }
        let seeds = seeds(if case.is_heavy { 2 } else { 10 });
        let results: Vec<_> = seeds
            .map(|seed| (seed, measure(case, queues, seed)))
            .collect();
        let number = results.len() as f64;
        let accepted = results
            .iter()
            .map(|(_, (accepted, _))| accepted)
            .sum::<f64>()
            / number;
        let turned_away = results.iter().map(|(_, (_, away))| away).sum::<f64>() / number;
        let least = results
            .iter()
            .min_by(|a, b| a.1.0.total_cmp(&b.1.0))
            .unwrap();
        let most = results
            .iter()
            .max_by(|a, b| a.1.1.total_cmp(&b.1.1))
            .unwrap();
        println!(
            "{queues} queue(s), {:30} accepted {:6.2} {:6.2} % (seed {})  turned away {:6.3} {:6.3} % (seed {})",
            case.name,
            100.0 * accepted,
            100.0 * least.1.0,
            least.0,
            100.0 * turned_away,
            100.0 * most.1.1,
            most.0
        );
        if accepted < 0.95 || least.1.0 < 0.9 || most.1.1 > 0.02 {
            bad.push(case.name);
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn one_queue_uses_what_receivers_permit() {
    limits_are_used(1);
}

#[test]
fn two_queues_that_share_a_site_use_what_it_permits() {
    limits_are_used(2);
}

/// Greylisting is no reason to slow down: neither a rate nor a ceiling is learned. And though there is more mail than the first session
/// could try once in all the time, what comes again is not behind it, so that the window grows.
#[test]
fn greylisting_moves_neither_window_nor_rate_through_the_dispatchers() {
    for queues in [1, 2] {
        for seed in seeds(3) {
            let times = slow(&mut fastrand::Rng::with_seed(seed));
            let limits = Limits {
                greylist: Some(MINUTE),
                ..Limits::default()
            };
            let mut world = Enforced::new(limits, times, queues, seed);
            world.run(3 * MINUTE);
            let status = world.status();
            assert_eq!(world.tally.accepted, 0, "seed {seed}: nobody was due");
            assert_eq!(
                (status.window, status.rate_per_minute),
                (1, None),
                "seed {seed}"
            );
            world.run(END);
            let (status, tally) = (world.status(), world.tally);
            let learned = (status.rate_per_minute, status.ceiling, tally.turned_away);
            assert_eq!(learned, (None, None, 0), "seed {seed}");
            assert!(status.window >= 10, "seed {seed}: {}", status.window);
            assert!(
                tally.accepted * 3 > tally.attempts,
                "seed {seed}: {tally:?}"
            );
        }
    }
}
