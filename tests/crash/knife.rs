//! When a run is killed: after a time, at a number of messages, or when a file of its job appears.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::run::{LOOK, Run, jobs};

/// Files whose appearance is a moment to be killed at, so that the short parts of a run are met as often as the long one.
const MOMENTS: [&str; 6] = [
    "job.json",
    "index",
    "journal-000001",
    "ledger.sqlite.new",
    "ledger.sqlite",
    "ledger.sqlite-journal",
];

/// A moment.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// So long after the start.
    After(Duration),
    /// So many messages more have been taken.
    Taken(u64),
    /// This file of the job has appeared, and then so much later.
    File(&'static str, Duration),
}

impl Moment {
    /// Any, for a run that takes about `whole` if nobody interrupts it and has `left` messages to send.
    pub fn any(rng: &mut fastrand::Rng, whole: Duration, left: usize) -> Moment {
        let millis =
            |rng: &mut fastrand::Rng, most: u64| Duration::from_micros(rng.u64(..most * 1000));
        match rng.u8(..10) {
            0 => Moment::After(millis(rng, 60)),
            1..=3 => Moment::After(whole.mul_f64(1.3 * rng.f64())),
            4..=6 => Moment::Taken(rng.u64(..=left as u64 + 1)),
            _ => {
                let later = millis(rng, 8);
                Moment::File(MOMENTS[rng.usize(..MOMENTS.len())], later)
            }
        }
    }

    /// Waits for the moment, or for the end of the run.
    pub fn wait(self, run: &mut Run, lab: &Lab) {
        let began = Instant::now();
        let taken = lab.sink.stats().messages;
        let there = |name: &str| jobs(lab).iter().any(|job| is_there(job, name));
        match self {
            Moment::After(time) => until(run, || began.elapsed() >= time),
            Moment::Taken(more) => until(run, || lab.sink.stats().messages >= taken + more),
            // Of a later run, which finds it there, the first messages.
            Moment::File(name, later) => {
                let was_there = there(name);
                until(run, || match was_there {
                    true => lab.sink.stats().messages > taken,
                    false => there(name),
                });
                let from = Instant::now();
                until(run, || from.elapsed() >= later);
            }
        }
    }
}

fn is_there(job: &Path, name: &str) -> bool {
    job.join(name).exists()
}

/// Waits for it, or for the end of the run.
pub fn until(run: &mut Run, condition: impl Fn() -> bool) {
    while !condition() && !run.has_ended() {
        // Some of the moments are short.
        std::thread::park_timeout(LOOK / 5);
    }
}
