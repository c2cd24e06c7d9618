//! The limits of receivers are found from their replies: half an hour of virtual time, without its first minute.
//!
//! At least 95 % of what a receiver permits is accepted, and at most 2 % of all attempts (transactions, and connections that
//! were refused) are turned away. `SEEDS=5000` tries more seeds, `SEED=7` one, `CASE=storms` one kind of receiver;
//! `--nocapture` shows the table.

use crate::closed_loop::{END, Event, Loop, Tally, Times};
use crate::receiver::{Count, Limits, MINUTE, SECOND};

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
    /// Very many messages: fewer seeds, unless they are asked for.
    heavy: bool,
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
        heavy: false,
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
        heavy: true,
    },
    Case {
        name: "100 per minute, sliding",
        times: slow,
        limits: |_| rated(Count::Sliding { refused: false }),
        permitted: by_rate,
        part: 0.95,
        heavy: false,
    },
    Case {
        name: "100 per minute, sliding, refused ones count",
        times: slow,
        limits: |_| rated(Count::Sliding { refused: true }),
        permitted: by_rate,
        part: 0.94,
        heavy: false,
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
        heavy: false,
    },
    Case {
        name: "100 per minute, bucket of 20",
        times: slow,
        limits: |_| rated(Count::Bucket { burst: 20 }),
        permitted: by_rate,
        part: 0.95,
        heavy: false,
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
        heavy: true,
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
        heavy: true,
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
        heavy: false,
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

/// Limits that change while messages flow are followed: ten minutes later 95 % of what is permitted then is accepted, on average,
/// and 85 % at least (a test of the limit may fall into the five minutes that are measured).
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
            for seed in seeds().take(few(40)) {
                let times = slow(&mut fastrand::Rng::with_seed(seed));
                let before = rated(count.clone());
                let mut after = before.clone();
                change(&mut after);
                let part = followed(before, after, times, seed, per_minute);
                if part < 0.85 {
                    bad.push((name, count.clone(), seed, part));
                }
                parts.push(part);
            }
            let mean = parts.iter().sum::<f64>() / parts.len() as f64;
            let least = parts.iter().copied().fold(f64::MAX, f64::min);
            assert!(mean >= 0.95, "{name}, {count:?}: {mean}");
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
    for seed in seeds().take(few(40)) {
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

/// So many seeds where each takes long, unless the number was asked for.
fn few(number: usize) -> usize {
    match crate::number("SEEDS") {
        None => number,
        Some(_) => usize::MAX,
    }
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
        let seeds = seeds();
        let number = if case.heavy { few(16) } else { usize::MAX };
        let results: Vec<(u64, Result)> = seeds
            .take(number)
            .map(|seed| (seed, measure(case, seed)))
            .collect();
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
