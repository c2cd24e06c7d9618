//! Random kills: each round is a batch of its own, killed some times and then left to end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::autopsy::{Case, End, Phase, Sessions};
use crate::job::Look;
use crate::knife::Moment;
use crate::lab::SOON;
use crate::resumed::{Fate, fold_often, go_on_without, settle_doubts};
use crate::run::{Run, id, jobs};
use crate::stage::Stage;

/// Messages to one recipient, and to 30, of a round's batch: 2,100 recipients.
const SINGLES: usize = 1500;
const MANY: usize = 20;
/// Kills of a round at most: then the run is left alone.
const KILLS_MAX: usize = 5;
/// Rounds under way at once: they mostly wait.
const THREADS: usize = 2;

/// A journal is folded when it has so many bytes, in rounds about that: some hundred recipients.
const FOLD_BYTES: u64 = 16 * 1024;

/// How a round's batch is sent, and sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// A file, by the same command line each time.
    File,
    /// The same with `--in-doubt hold`.
    Hold,
    /// Standard input with `--job`, fed from its beginning each time.
    Stream,
    /// `mailer resume` from another directory, after this has become of the file.
    Resume(Fate),
    /// The same, and who is in doubt after a kill is settled by a person.
    Settle,
    /// The same, and the journal is folded every second while mail is sent.
    Folds,
}

const MANNERS: [Manner; 8] = [
    Manner::File,
    Manner::Hold,
    Manner::Stream,
    Manner::Resume(Fate::Stays),
    Manner::Resume(Fate::Removed),
    Manner::Resume(Fate::Overwritten),
    Manner::Settle,
    Manner::Folds,
];

impl Manner {
    /// The most workers that a run has.
    fn workers(self) -> u64 {
        if self == Manner::Folds { 8 } else { 24 }
    }

    fn stage(self, seed: u64) -> Stage {
        match self {
            Manner::Folds => Stage::slow(seed, SINGLES, MANY),
            _ => Stage::new(seed, SINGLES, MANY),
        }
    }

    /// How long a run takes, if one takes `whole` that nothing slows down.
    fn time(self, whole: Duration) -> Duration {
        match self {
            Manner::Folds => whole.max(Duration::from_secs(4)),
            _ => whole,
        }
    }

    fn goes_on_by_resume(self) -> bool {
        !matches!(self, Manner::File | Manner::Hold | Manner::Stream)
    }
}

/// What rounds came to.
#[derive(Default)]
struct Totals {
    rounds: usize,
    kills: HashMap<Phase, usize>,
    /// Kills of runs that had folded while they sent, or were about to.
    rotated: usize,
    settled: usize,
    end: End,
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
    assert_eq!((totals.end.lost, totals.end.unsure), (0, 0));
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
        Manner::Hold => &["--in-doubt", "hold"],
        Manner::Stream => &["--job", "news"],
        _ => &[],
    };
    let workers = match manner.workers() {
        8 => "8",
        _ => "24",
    };
    [
        &SOON,
        &["--in-doubt-wait", "200ms", "--max-workers", workers],
        own,
    ]
    .concat()
}

/// A round under way.
struct Round<'a> {
    manner: Manner,
    stage: &'a Stage,
    path: PathBuf,
    rng: fastrand::Rng,
}

impl Round<'_> {
    /// Sends the batch, or goes on with its job.
    fn start(&mut self) -> Run {
        let (lab, flags) = (&self.stage.lab, flags(self.manner));
        let job = jobs(lab).pop();
        match (self.manner, job) {
            (Manner::Stream, _) => Run::start(lab, &flags, None, Some(self.stage.batch.bytes())),
            (manner, Some(job)) if manner.goes_on_by_resume() => {
                Run::resume(lab, self.rng.bool().then(|| id(&job)))
            }
            _ => Run::start(lab, &flags, Some(&self.path), None),
        }
    }

    /// When the next run is to be killed. Only its card makes a job fold often, so there must be one first.
    fn moment(&mut self, whole: Duration) -> Moment {
        let lab = &self.stage.lab;
        if self.manner == Manner::Folds && jobs(lab).is_empty() {
            return Moment::File("job.json", Duration::ZERO);
        }
        let taken = lab.sink.stats().messages as usize;
        let left = self.stage.messages().saturating_sub(taken);
        Moment::any(&mut self.rng, self.manner.time(whole), left)
    }

    /// What happens to the job, its batch and its doubts before the next run. Returns how many of these were settled.
    fn meddle(&mut self, case: &mut Case<'_>, job: &Path, look: &Look) -> usize {
        match self.manner {
            Manner::Resume(Fate::Removed) => go_on_without(self.stage, case, job, look, &self.path),
            Manner::Resume(fate) => {
                fate.befall(&self.path, self.stage);
                case.batch_is(fate);
            }
            Manner::Folds => fold_often(job, FOLD_BYTES),
            Manner::Settle => {
                settle_doubts(self.stage, case, job, &look.in_doubt);
                return look.in_doubt.len();
            }
            Manner::File | Manner::Hold | Manner::Stream => {}
        }
        0
    }
}

fn round(seed: u64, whole: Duration, totals: &Mutex<Totals>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let manner = MANNERS[rng.usize(..MANNERS.len())];
    let stage = manner.stage(seed);
    let mut case = Case::new(&stage, manner == Manner::Hold);
    let mut round = Round {
        manner,
        path: stage.lab.file("batch.mbox", stage.batch.bytes()),
        stage: &stage,
        rng,
    };
    let mut sum = Totals {
        rounds: 1,
        ..Totals::default()
    };
    for _ in 0..round.rng.usize(1..=KILLS_MAX) {
        let moment = round.moment(whole);
        let mut sessions = Sessions::from_now(&stage, manner.workers());
        let mut run = round.start();
        moment.wait(&mut run, &stage.lab);
        sessions.at_kill(&stage);
        let was_killed = run.kill();
        let left = case.look(sessions);
        if !was_killed {
            break;
        }
        *sum.kills.entry(left.phase).or_default() += 1;
        sum.rotated += usize::from(left.was_rotated);
        if let Some((job, look)) = left.job {
            sum.settled += round.meddle(&mut case, &job, &look);
        }
    }
    let ended = round.start().wait();
    sum.end = case.close(&ended);
    totals.lock().unwrap().add(&sum);
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.rounds += other.rounds;
        for (phase, count) in &other.kills {
            *self.kills.entry(*phase).or_default() += count;
        }
        self.rotated += other.rotated;
        self.settled += other.settled;
        self.end.add(&other.end);
    }

    fn line(&self) -> String {
        let kills = Phase::ALL.map(|phase| {
            let count = self.kills.get(&phase).copied().unwrap_or(0);
            format!("{} {count}", format!("{phase:?}").to_lowercase())
        });
        let end = &self.end;
        format!(
            "crash: rounds {}, kills {} ({}; {} with folds while sending), in doubt {}, resent {}, settled {}, held {}, invalid {}, \
             lost {}, twice {}, twice without doubt {}",
            self.rounds,
            self.kills.values().sum::<usize>(),
            kills.join(", "),
            self.rotated,
            end.in_doubt,
            end.resent,
            self.settled,
            end.held,
            end.invalid,
            end.lost,
            end.twice,
            end.unsure
        )
    }
}
