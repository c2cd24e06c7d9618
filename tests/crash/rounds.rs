//! Random kills: each round is a batch of its own, killed some times and then left to end.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::autopsy::{Case, Phase, Sessions};
use crate::knife::Moment;
use crate::lab::SOON;
use crate::run::Run;
use crate::stage::Stage;

/// Messages to one recipient, and to 30, of a round's batch: 2,100 recipients.
const SINGLES: usize = 1500;
const MANY: usize = 20;
/// Kills of a round at most: then the run is left alone.
const KILLS_MAX: usize = 5;
/// Rounds under way at once: they mostly wait.
const THREADS: usize = 2;

/// How a round's batch is sent, and sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// A file, by the same command line each time.
    File,
    /// The same with `--in-doubt hold`.
    Hold,
    /// Standard input with `--job`, fed from its beginning each time.
    Stream,
}

/// What rounds came to.
#[derive(Default)]
struct Totals {
    rounds: usize,
    kills: HashMap<Phase, usize>,
    in_doubt: usize,
    resent: usize,
    twice: usize,
    held: usize,
}

#[test]
fn nobody_is_lost_and_nobody_is_mailed_twice_but_those_in_doubt() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let (rounds, first) = (number("CRASH_ROUNDS", 60), number("CRASH_SEED", 1));
    let whole = untroubled();
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= first + rounds {
                        break;
                    }
                    let told = Told(seed);
                    round(seed, whole, &totals);
                    std::mem::forget(told);
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap();
    println!("{}", totals.line());
}

/// Says how a round that turns red is run alone.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        let seed = self.0;
        eprintln!("red: CRASH_SEED={seed} CRASH_ROUNDS=1 cargo test --test crash nobody_is_lost");
    }
}

/// How long a run takes that nobody interrupts.
fn untroubled() -> Duration {
    let stage = Stage::new(0, SINGLES, MANY);
    let path = stage.lab.file("batch.mbox", stage.batch.bytes());
    let began = Instant::now();
    let ended = Run::start(&stage.lab, &flags(Manner::File), Some(&path), None).wait();
    Case::new(&stage, false).close(&ended);
    began.elapsed()
}

fn flags(manner: Manner) -> Vec<&'static str> {
    let own: &[&str] = match manner {
        Manner::File => &[],
        Manner::Hold => &["--in-doubt", "hold"],
        Manner::Stream => &["--job", "news"],
    };
    [
        &SOON,
        &["--in-doubt-wait", "200ms", "--max-workers", "24"],
        own,
    ]
    .concat()
}

fn round(seed: u64, whole: Duration, totals: &Mutex<Totals>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let manner = [Manner::File, Manner::Hold, Manner::Stream][rng.usize(..3)];
    let stage = Stage::new(seed, SINGLES, MANY);
    let path = stage.lab.file("batch.mbox", stage.batch.bytes());
    let mut case = Case::new(&stage, manner == Manner::Hold);
    let start = || match manner {
        Manner::Stream => Run::start(&stage.lab, &flags(manner), None, Some(stage.batch.bytes())),
        _ => Run::start(&stage.lab, &flags(manner), Some(&path), None),
    };
    let mut kills: Vec<Phase> = Vec::new();
    for _ in 0..rng.usize(1..=KILLS_MAX) {
        let left = stage
            .messages()
            .saturating_sub(stage.lab.sink.stats().messages as usize);
        let moment = Moment::any(&mut rng, whole, left);
        let mut run = start();
        moment.wait(&mut run, &stage.lab);
        let sessions = Sessions::now(&stage);
        let was_killed = run.kill();
        let phase = case.look(sessions);
        if !was_killed {
            break;
        }
        kills.push(phase);
    }
    let end = case.close(&start().wait());
    let mut totals = totals.lock().unwrap();
    totals.rounds += 1;
    totals.in_doubt += end.in_doubt;
    totals.resent += end.resent;
    totals.twice += end.twice;
    totals.held += end.held;
    for phase in kills {
        *totals.kills.entry(phase).or_default() += 1;
    }
}

impl Totals {
    fn line(&self) -> String {
        let kills = Phase::ALL.map(|phase| {
            let count = self.kills.get(&phase).copied().unwrap_or(0);
            format!("{} {count}", format!("{phase:?}").to_lowercase())
        });
        format!(
            "crash: rounds {}, kills {} ({}), in doubt {}, resent {}, held {}, lost 0, twice {}, twice without doubt 0",
            self.rounds,
            self.kills.values().sum::<usize>(),
            kills.join(", "),
            self.in_doubt,
            self.resent,
            self.held,
            self.twice
        )
    }
}
