//! What a finished run says of its site: whether it takes mail, and what the permit table is to learn.
//!
//! A host failure hurts the site: if no session of it is known to work, the site is paused, which is one change of state however
//! much mail waits, and after a back-off (a short one if it worked a moment ago) one worker probes it; if others work, only new sessions are held back for a while.
//! Messages that are put off one after the other pause it as well: then the site is sick, not the messages (`health`).
//!
//! How many sessions a site gets, and how fast, is learned in the permit table, which is told once for each run. A session
//! that is turned away while others work is no failure: the site has as many of ours as it likes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delayed::Timer;
use super::dispatcher::{Dispatcher, Turn};
use super::event::{Action, Outcome};
use super::outcome::is_opening_failed;
use super::permits::Feedback;
use super::ready::Work;
use super::site::Gate;
use crate::mail::{Envelope, MessageNo, Verdict};
use crate::retry::{Class, Deferral};

/// A site that worked so recently is expected to work again soon.
const STORM: Duration = Duration::from_secs(30);
/// The shortest rest of such a site.
const SOON: Duration = Duration::from_secs(1);

impl<P: Clone> Dispatcher<P> {
    /// What a finished run says about its site. `cut_short`: the server ended the session before it had carried anything.
    /// True if its session was turned away since the site has enough of ours.
    pub(super) fn judge_site(
        &mut self,
        w: u32,
        work: Work,
        outcome: &Outcome,
        cut_short: bool,
        t: &mut Turn<'_, P>,
    ) -> bool {
        let Some(s) = self.workers[w].session else {
            return false;
        };
        self.sites[s].measured.sent(outcome.tried, outcome.spent);
        self.sites[s].patience.heard(t.now);
        if outcome.settled > 0 {
            self.sites[s].worked_at = Some(t.now);
        }
        self.sites.refresh(s);
        let turned_away = is_opening_failed(outcome)
            && outcome.settled == 0
            && outcome.session.is_none()
            && self.others_working(w, s, t) > 0;
        self.report(w, s, (work, outcome), turned_away || cut_short, t);
        if turned_away {
            if self.sites[s].gate == Gate::Probing(w) {
                self.pause(s, t);
            }
            return true;
        }
        let reached = |(_, deferral): &(Envelope, Deferral)| deferral.class != Class::Host;
        if let Some(verdict) = &outcome.host_failed {
            self.host_failed(w, s, Some(verdict), t);
        } else if cut_short {
            self.host_failed(w, s, None, t);
        } else if outcome.settled > 0 || outcome.deferred.iter().any(reached) {
            let was_probing = self.sites[s].gate == Gate::Probing(w);
            if self.is_sick(s, outcome) && (was_probing || self.sites[s].gate == Gate::Open) {
                self.pause(s, t);
            } else {
                self.works(w);
            }
        } else if self.sites[s].gate == Gate::Probing(w) {
            // It gave the probe back untried: somebody else may try, but not in a circle.
            self.pause(s, t);
        }
        false
    }

    /// Sessions with site `s` that work beside that of `w`, in this queue or another.
    pub(super) fn others_working(&self, w: u32, s: u32, t: &Turn<'_, P>) -> u32 {
        let worker = &self.workers[w];
        let open = t.permits.sessions_working(self.sites[s].id, worker.source);
        open.saturating_sub(u32::from(worker.opening.is_none()))
    }

    /// Tells the permit table what a run has taught of the site.
    pub(super) fn report(
        &mut self,
        w: u32,
        s: u32,
        (work, outcome): (Work, &Outcome),
        turned_away: bool,
        t: &mut Turn<'_, P>,
    ) {
        let (mut signals, mut hint, mut latest) = (0, None, None);
        for (envelope, deferral) in &outcome.deferred {
            if deferral.class == Class::Rate {
                signals += u32::from(latest != Some(envelope.message));
                latest = Some(envelope.message);
                hint = hint.max(deferral.not_before);
            }
        }
        let feedback = Feedback {
            accepted: outcome.accepted,
            rate_signals: signals,
            otherwise: outcome.tried.saturating_sub(outcome.accepted + signals),
            hint,
            host_failed: outcome.host_failed.is_some() && !turned_away,
            session_refused: turned_away,
            working: if turned_away {
                self.others_working(w, s, t)
            } else {
                0
            },
            ended_after: outcome.ended_after,
            carried: outcome.carried,
        };
        if feedback != Feedback::default() {
            let (id, source) = (self.sites[s].id, self.workers[w].source);
            t.permits
                .report(id, source, &feedback, work.taken, t.now, &mut self.rng);
        }
    }

    /// True if the latest messages of site `s` were all put off, one like the other. What is about us as the sender is judged
    /// elsewhere.
    pub(super) fn is_sick(&mut self, s: u32, outcome: &Outcome) -> bool {
        let site = &mut self.sites[s];
        let mut latest = None;
        for (envelope, deferral) in &outcome.deferred {
            if deferral.class == Class::Message && latest != Some(envelope.message) {
                site.health.note(envelope.message, false);
                latest = Some(envelope.message);
            }
        }
        if outcome.settled > 0 {
            site.health.note(MessageNo(u32::MAX), true);
        }
        latest.is_some() && !site.standing.is_suspect() && site.health.is_sick()
    }

    pub(super) fn host_failed(
        &mut self,
        w: u32,
        s: u32,
        verdict: Option<&Arc<Verdict>>,
        t: &mut Turn<'_, P>,
    ) {
        self.unprove(w);
        if let Some(verdict) = verdict
            && self.sites[s].gate != Gate::Stopped
        {
            self.sites[s].failure = Some(verdict.clone());
        }
        match self.sites[s].gate {
            Gate::Open | Gate::Narrow(_) if self.sites[s].proven > 0 => self.narrow(s, t),
            Gate::Open | Gate::Narrow(_) => self.pause(s, t),
            Gate::Probing(prober) if prober == w => self.pause(s, t),
            // Failures of attempts begun before the pause say nothing new.
            Gate::Paused(_) | Gate::Probe | Gate::Probing(_) | Gate::Stopped => {}
        }
        self.recall_next(w, t);
    }

    /// Asks for the run back that was given ahead to `w`, which has just finished the one before: it is its current run by
    /// now. Unless it has begun with it, it need not fail as well.
    pub(super) fn recall_next(&mut self, w: u32, t: &mut Turn<'_, P>) {
        let worker = &mut self.workers[w];
        if worker.current.is_some() && !worker.recalled {
            worker.recalled = true;
            t.actions.push(Action::Recall { worker: worker.id });
        }
    }

    /// Holds new sessions back for a while.
    pub(super) fn narrow(&mut self, s: u32, t: &mut Turn<'_, P>) {
        let back_off = self.config.retry.host_back_off(1, &mut self.rng);
        let until = t.now
            + self
                .soon(s, t.now)
                .map_or(back_off, |soon| soon.min(back_off));
        self.sites[s].gate = Gate::Narrow(until);
        self.timers.push(until, Timer::Site(s));
        self.touch(s);
    }

    /// Stops the site for a while. If that is longer than the run, its mail is left now; if the site is given up, its mail
    /// goes to the fallback relay.
    pub(super) fn pause(&mut self, s: u32, t: &mut Turn<'_, P>) {
        let failures = self.sites[s].failures.saturating_add(1);
        let back_off = self.config.retry.host_back_off(failures, &mut self.rng);
        let soon = self.soon(s, t.now).filter(|soon| *soon < back_off);
        if soon.is_none() {
            self.sites[s].failures = failures;
        }
        let until = t.now + soon.unwrap_or(back_off);
        self.sites[s].gate = Gate::Paused(until);
        self.timers.push(until, Timer::Site(s));
        self.touch(s);
        if self.config.retry.beyond(until).is_some() || self.is_site_given_up(s) {
            let mut waiting = Vec::new();
            while let Some(d) = self.sites[s].destinations.front() {
                waiting.push((d, self.withdraw(d)));
            }
            for (d, all) in waiting {
                self.admit(d, all, false, t);
            }
        }
    }

    /// The rest of a site that worked a moment ago: a passing storm is to cost as little as it can, so the rest grows with the
    /// time since, and does not count among the failures in a row. `None`: it is longer ago than a storm lasts, or never was.
    fn soon(&self, s: u32, now: Instant) -> Option<Duration> {
        let worked_at = self.sites[s].worked_at?;
        let since = now.saturating_duration_since(worked_at);
        (since < STORM).then(|| (since / 16).max(SOON))
    }

    /// The session of `w` works, and so does its site.
    pub(super) fn works(&mut self, w: u32) {
        let Some(s) = self.workers[w].session else {
            return;
        };
        if !std::mem::replace(&mut self.workers[w].proven, true) {
            self.sites[s].proven += 1;
        }
        self.sites[s].failures = 0;
        if matches!(
            self.sites[s].gate,
            Gate::Paused(_) | Gate::Probe | Gate::Probing(_)
        ) {
            self.sites[s].gate = Gate::Open;
            self.sites[s].failure = None;
            self.touch(s);
        }
    }

    /// The session of `w` is not known to work any more.
    pub(super) fn unprove(&mut self, w: u32) {
        self.workers[w].carried = false;
        if std::mem::replace(&mut self.workers[w].proven, false)
            && let Some(s) = self.workers[w].session
        {
            self.sites[s].proven -= 1;
        }
    }
}
