//! While a run goes on: progress for people, obedience to signals, and the reasons to stop early.
//!
//! SIGINT, SIGTERM: no new transaction; the second one cuts connections. SIGHUP: limits are read again.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::{DeliveryArgs, ShowArgs};
use super::exit::{Exit, Failure};
use super::{config, say};
use crate::engine::run::Running;
use crate::progress::Progress;
use crate::report::summary::stopped_line;

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
    /// `mailer ctl stop` or `--stop-on`.
    Early,
    /// No server anywhere answers.
    Blocked,
    /// The engine itself: no name server, no room for the ledger, credentials that are not accepted.
    Engine,
}

/// Shows progress and obeys signals until the run is over. Returns what stopped it before its end, if anything did.
pub fn watch(
    told: &mut Told,
    running: &Running,
    flags: &DeliveryArgs,
    show: &ShowArgs,
    began: Instant,
    stop_after: Option<Duration>,
) -> Option<Stopped> {
    let mut progress = (!show.quiet && io::stderr().is_terminal()).then(Progress::begin);
    let mut stopped: Option<(Stopped, Instant)> = None;
    let mut cut = false;
    let mut sites_told = 0;
    while !running.wait(TICK) {
        let now = Instant::now();
        if let Some(progress) = &mut progress {
            progress.tick(running.gauges(), now);
        }
        tell_stops(running, progress.as_ref(), &mut sites_told);
        told.look();
        if std::mem::take(&mut told.reload) {
            reload(running, flags);
        }
        if stopped.is_none() {
            stopped = match () {
                () if told.ends > 0 => Some((Stopped::Signal, now)),
                () if stop_after.is_some_and(|after| now >= began + after) => {
                    Some((Stopped::Time, now))
                }
                () if running.early_end().is_some() => Some((Stopped::Early, now)),
                () if running.is_stopping() || running.trouble().is_some() => {
                    Some((Stopped::Engine, now))
                }
                () if running.is_blocked() => Some((Stopped::Blocked, now)),
                () => None,
            };
            if let Some((why, _)) = stopped {
                running.stop();
                if matches!(why, Stopped::Signal | Stopped::Early)
                    && let Some(progress) = &progress
                {
                    progress.note(
                        "stopping: transactions under way may end; once more to cut them off",
                    );
                }
            }
        }
        if !cut && stopped.is_some_and(|(_, at)| told.ends > 1 || now >= at + GRACE) {
            cut = true;
            running.cut();
        }
    }
    tell_stops(running, progress.as_ref(), &mut sites_told);
    stopped.map(|(why, _)| why)
}

/// Says of each site that was stopped since the last time why that is.
fn tell_stops(running: &Running, progress: Option<&Progress>, told: &mut usize) {
    for site in running.stopped_sites(*told) {
        *told += 1;
        let line = stopped_line(&site);
        match progress {
            Some(progress) => progress.note(&format!("mailer: {line}")),
            None => say::complain(line),
        }
    }
}

/// The signals that have arrived.
pub struct Told {
    signals: Signals,
    /// SIGINT and SIGTERM since it listens.
    ends: usize,
    /// SIGHUP since it was last looked at.
    reload: bool,
}

impl Told {
    /// Listens from now on: before anything is sent, so that no signal ends the process without a report.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn listen() -> Result<Told> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| {
            Failure::new(Exit::Software, format!("cannot listen to signals: {error}"))
        })?;
        Ok(Told {
            signals,
            ends: 0,
            reload: false,
        })
    }

    /// True once it was asked to end.
    pub fn is_ended(&mut self) -> bool {
        self.look();
        self.ends > 0
    }

    fn look(&mut self) {
        for signal in self.signals.pending() {
            match signal {
                SIGHUP => self.reload = true,
                _ => self.ends += 1,
            }
        }
    }
}

/// SIGHUP: the configuration is read again, and its limits are put into force. One that cannot be read changes nothing.
fn reload(running: &Running, flags: &DeliveryArgs) {
    match config::settings(flags) {
        Ok(settings) => running.set_limits(&settings),
        Err(error) => say::complain(format!("the configuration was not read again: {error}")),
    }
}
