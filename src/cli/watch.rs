//! While a run goes on: progress for people, obedience to signals, and the reasons to stop early.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::ShowArgs;
use super::exit::{Exit, Failure};
use crate::engine::run::Running;
use crate::progress::Progress;

const TICK: Duration = Duration::from_millis(100);
/// How long transactions under way may take to end after the first signal.
const GRACE: Duration = Duration::from_secs(60);

/// Why a run was stopped before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// SIGINT or SIGTERM.
    Signal,
    /// `--run-for`.
    Time,
    /// No server anywhere answers.
    Blocked,
}

/// Shows progress and obeys signals until the run is over. Returns what stopped it before its end, if anything did.
///
/// # Errors
/// If signals cannot be listened to.
pub fn watch(
    running: &Running,
    show: &ShowArgs,
    began: Instant,
    stop_after: Option<Duration>,
) -> Result<Option<Stopped>> {
    let mut signals = Told::listen()?;
    let mut progress = (!show.quiet && io::stderr().is_terminal()).then(Progress::begin);
    let mut stopped: Option<(Stopped, Instant)> = None;
    let mut cut = false;
    while !running.wait(TICK) {
        let now = Instant::now();
        if let Some(progress) = &mut progress {
            progress.tick(running.gauges(), now);
        }
        let told = signals.count();
        if stopped.is_none() {
            stopped = match () {
                () if told > 0 => Some((Stopped::Signal, now)),
                () if stop_after.is_some_and(|after| now >= began + after) => {
                    Some((Stopped::Time, now))
                }
                () if running.is_blocked() => Some((Stopped::Blocked, now)),
                () => None,
            };
            if stopped.is_some() {
                running.stop();
            }
        }
        if !cut && stopped.is_some_and(|(_, at)| told > 1 || now >= at + GRACE) {
            cut = true;
            running.cut();
        }
    }
    Ok(stopped.map(|(why, _)| why))
}

/// SIGINT and SIGTERM, as far as they have arrived.
struct Told {
    signals: Signals,
    count: usize,
}

impl Told {
    fn listen() -> Result<Told> {
        let signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| {
            Failure::new(Exit::Software, format!("cannot listen to signals: {error}"))
        })?;
        Ok(Told { signals, count: 0 })
    }

    /// How many have arrived since the start of the run.
    fn count(&mut self) -> usize {
        self.count += self.signals.pending().count();
        self.count
    }
}
