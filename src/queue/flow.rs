//! How much is handed out at once, and when: slots of a pace, the length of a run, whether a further session pays.
//!
//! Where messages have a pace, a run is as long as the slots that are free, and a site without any leaves the ring until
//! there is one: one timer, however much mail waits. Where the pace is the queue's own (or that of all source addresses), the
//! whole queue rests; the sites that wanted to go on with their sessions stand in a list, so that a slot costs one step and
//! not one for each site, and they and the ring begin in turn.
//!
//! A run is short while the window of its site may still grow, and never longer than what a second carries: what is
//! learned from it then comes in time.
//!
//! A further session pays if enough mail waits for it: its opening takes as long as some messages do. Both times are measured
//! for each site. What is said to come soon may not come: if nothing is heard of a site's sessions for a while (a server that has
//! gone away says nothing), one more pays however little waits.
//!
//! INVARIANT: what rests has a timer for the end of its rest.

use std::time::{Duration, Instant};

use super::delayed::Timer;
use super::dispatcher::{Dispatcher, Turn};
use super::ready::Work;
use super::site::Gate;
use crate::mail::{Envelope, SourceNo, Status};

/// A run is cut no shorter than what takes so long: about what one message takes to a server 20 ms away, whose runs are as they were.
const RUN_TIME_MIN: Duration = Duration::from_millis(25);
/// A run carries no more than what is sent in this time.
const RUN_TIME: Duration = Duration::from_secs(1);
/// Nobody looks more often, whatever a pace says.
const REST_MIN: Duration = Duration::from_millis(1);
/// A pace that rests for longer than this and than the run ends the run for its mail.
const REST_MAX: Duration = Duration::from_secs(15 * 60);
/// Until it is measured: the opening of a session takes as long as so many messages.
const SETUP_MESSAGES: f32 = 4.0;
/// A session that is not heard of for as long as so many messages take there, on average, may be hung.
const PATIENCE_MESSAGES: f32 = 4.0;
/// A message that takes longer than this is not waited for.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// What may be handed to a worker now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// The length of the run.
    pub(super) length: usize,
    /// The slots that were taken for it, if messages have a pace.
    pub(super) slots: u32,
    /// The messages after which the session is to be ended.
    pub(super) messages_per_session: Option<u32>,
}

/// Times measured at a site, as moving averages in seconds.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Measured {
    setup: Option<f32>,
    message: Option<f32>,
}

impl Measured {
    /// A session was opened.
    pub(super) fn opened(&mut self, setup: Duration) {
        average(&mut self.setup, setup.as_secs_f32(), 1);
    }

    /// So many messages took so long.
    pub(super) fn sent(&mut self, messages: u32, spent: Duration) {
        if messages > 0 {
            let each = spent.as_secs_f32() / messages as f32;
            average(&mut self.message, each, messages);
        }
    }

    /// How many messages could be sent in the time that the opening of a session takes.
    fn setup_messages(self) -> f32 {
        match (self.setup, self.message) {
            (Some(setup), Some(message)) => (setup / message.max(1e-6)).clamp(1.0, 32.0),
            _ => SETUP_MESSAGES,
        }
    }

    /// True if a session beside `sessions` others pays where `waiting` envelopes wait. `backlog`: how many messages must wait for
    /// each, in units of its opening; 0: it always pays.
    pub(super) fn pays(self, waiting: usize, sessions: usize, backlog: u32) -> bool {
        let each = backlog as f32 * self.setup_messages();
        sessions == 0 || waiting as f32 >= (sessions + 1) as f32 * each
    }

    /// How long nothing may be heard from sessions before they are taken for hung: at least `least`.
    fn patience(self, least: Duration) -> Duration {
        let message = self.message.unwrap_or(0.0).min(PATIENCE_MAX.as_secs_f32());
        least.max(Duration::from_secs_f32(PATIENCE_MESSAGES * message))
    }

    /// The messages of a run that is over so soon that to cut it shorter costs more than it helps: a run of one message can have
    /// no other behind it in time, and its session waits a round trip more for each.
    fn least_run(self) -> usize {
        let each = self.message.filter(|each| *each > 0.0);
        each.map_or(1, |each| {
            (RUN_TIME_MIN.as_secs_f32() / each).max(1.0) as usize
        })
    }

    /// The most messages that a second carries.
    fn per_run(self) -> usize {
        let each = self.message.filter(|each| *each > 0.0);
        each.map_or(usize::MAX, |each| {
            (RUN_TIME.as_secs_f32() / each).max(1.0) as usize
        })
    }
}

/// The wait for the sessions of a site that are open, where a further one does not pay.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Patience {
    /// When a run with the site was last begun or finished.
    heard_at: Option<Instant>,
    /// A timer runs.
    is_timed: bool,
    /// Nothing was heard for too long: one more session pays.
    pub(super) is_over: bool,
}

impl Patience {
    /// A run was begun or finished.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
        self.is_over = false;
    }
}

fn average(place: &mut Option<f32>, value: f32, count: u32) {
    let weight = (count as f32 / 8.0).clamp(0.125, 0.5);
    *place = Some(place.map_or(value, |old| old + (value - old) * weight));
}

/// The length of a run: the backlog of the site divided so that each session gets two, and nobody idles at the end.
pub fn run_length(backlog: usize, sessions: u32, run_max: usize) -> usize {
    let shares = 2 * sessions.max(1) as usize;
    backlog.div_ceil(shares).clamp(1, run_max.max(1))
}

impl<P: Clone> Dispatcher<P> {
    /// What may be handed to a worker whose session with site `s` is, or will be, made from `source`. `None`: nothing before a
    /// timer.
    pub(super) fn allowance(
        &mut self,
        s: u32,
        source: SourceNo,
        probes: bool,
        t: &mut Turn<'_, P>,
    ) -> Option<Allowance> {
        if self.hold_until.is_some() {
            self.starve(s);
            return None;
        }
        let site = &self.sites[s];
        let share = t.permits.share(site.id, self.config.queue, source);
        let length = if probes || site.standing.is_suspect() {
            1
        } else {
            // A session needs a worker: shares for more than there can be would be runs of one, between which the
            // worker's messages cannot follow each other at once.
            let sessions = share.sessions.min(self.config.workers_max);
            let growing = if share.grows {
                2 * share.sessions as usize
            } else {
                usize::MAX
            };
            let most = self
                .config
                .run_max
                .min(growing)
                .min(site.measured.per_run());
            let least = site.measured.least_run().min(site.waiting).min(most);
            run_length(site.waiting, sessions, most).max(least)
        };
        let mut allowance = Allowance {
            length,
            slots: 0,
            messages_per_session: share.messages_per_session,
        };
        if share.is_paced {
            let wanted = u32::try_from(length).unwrap_or(u32::MAX);
            let (id, queue) = (site.id, self.config.queue);
            let slots = t.permits.take_messages(id, queue, source, wanted, t.now);
            if slots.granted == 0 {
                self.rest(s, source, slots.next.unwrap_or(t.now), slots.for_all, t);
                return None;
            }
            allowance.length = slots.granted as usize;
            allowance.slots = slots.granted;
        }
        Some(allowance)
    }

    /// The slots of an allowance that this run does not need go back.
    pub(super) fn trim(
        &self,
        s: u32,
        source: SourceNo,
        allowance: Allowance,
        run: &[Envelope],
        t: &Turn<'_, P>,
    ) -> u32 {
        let needed = transactions(run, self.config.recipients_max).min(allowance.slots);
        self.give_back(s, source, allowance.slots - needed, t.now, t);
        needed
    }

    /// Gives slots back that a run did not use.
    pub(super) fn give_back(
        &self,
        s: u32,
        source: SourceNo,
        slots: u32,
        taken: Instant,
        t: &Turn<'_, P>,
    ) {
        if slots > 0 {
            let (id, queue) = (self.sites[s].id, self.config.queue);
            t.permits
                .give_back_messages(id, queue, source, slots, taken);
        }
    }

    /// What a worker gave back of its run: a slot for each message that nobody tried. `last` is the last one that was.
    pub(super) fn untried_slots(
        &self,
        work: Work,
        returned: &[Envelope],
        last: Option<&Envelope>,
    ) -> u32 {
        let is_begun = |e: &&Envelope| last.is_some_and(|last| last.message == e.message);
        let begun = returned.iter().take_while(is_begun).count();
        transactions(&returned[begun..], self.config.recipients_max).min(work.slots)
    }

    /// No message may leave before `until`: from this source address to site `s`, or for all of the queue's mail.
    fn rest(
        &mut self,
        s: u32,
        source: SourceNo,
        until: Instant,
        for_all: bool,
        t: &mut Turn<'_, P>,
    ) {
        let until = until.max(t.now + REST_MIN);
        if for_all {
            self.hold_until = Some(until);
            self.timers.push(until, Timer::Hold);
            self.touch_all_if_beyond(until, t.now);
            return self.starve(s);
        }
        self.timers.push(until, Timer::Pace(s));
        let sources = usize::from(self.config.sources.max(1));
        self.sites[s].rest(source, until, sources);
        self.sites.refresh(s);
        self.leave_what_rests(s, t);
    }

    /// Leaves the mail of site `s` if it rests for long, and beyond the end of the run.
    pub(super) fn leave_what_rests(&mut self, s: u32, t: &mut Turn<'_, P>) {
        if self.sites[s].waiting > 0
            && let Some(status) = self.rest_beyond_the_run(s, t.now)
        {
            while let Some(d) = self.sites[s].destinations.front() {
                let all = self.withdraw(d);
                self.leave(d, all, Some(status), None, t);
            }
        }
    }

    /// The status in which mail for site `s` is left, if a pace has nothing for it for long, and beyond the end of the run: no
    /// message, or no session where there is none.
    pub(super) fn rest_beyond_the_run(&self, s: u32, now: Instant) -> Option<Status> {
        let site = &self.sites[s];
        let messages = site.rests_until().filter(|_| site.is_held());
        let no_session = |until: &Instant| site.workers == 0 && *until > now;
        let sessions = site.sessions_after.filter(no_session);
        let of_all = self.sessions_after.filter(no_session);
        // What is in workers' hands may give slots back.
        let all = self.hold_until.max(of_all).filter(|_| self.in_hand == 0);
        let until = messages.max(sessions).max(all)?;
        self.status_beyond(until, now)
    }

    fn status_beyond(&self, until: Instant, now: Instant) -> Option<Status> {
        let is_long = until.saturating_duration_since(now) > REST_MAX;
        let is_beyond = is_long && self.config.retry.beyond(until).is_some();
        // Pending, even where it expires meanwhile: it is our own pace that keeps it.
        is_beyond.then_some(Status::Deferred)
    }

    /// Slots came back, or the last of the mail in workers' hands did: what rests with the whole queue is looked at again.
    pub(super) fn hold_is_checked(&mut self, freed: bool, now: Instant) {
        let Some(until) = self.hold_until.max(self.sessions_after) else {
            return;
        };
        if freed {
            // Whoever is next asks again, and is told how long there really is to wait.
            (self.hold_until, self.sessions_after) = (None, None);
        } else if self.in_hand == 0 {
            self.touch_all_if_beyond(until, now);
        }
    }

    /// The whole queue rests until then: if that is too long, all sites are looked at.
    fn touch_all_if_beyond(&mut self, until: Instant, now: Instant) {
        if self.status_beyond(until, now).is_some() {
            for s in 0..self.sites.iter().count() as u32 {
                self.touch(s);
            }
        }
    }

    /// No further session with site `s` before `until`.
    pub(super) fn open_after(&mut self, s: u32, until: Instant, t: &Turn<'_, P>) {
        let until = until.max(t.now + REST_MIN);
        self.sites[s].sessions_after = Some(until);
        self.timers.push(until, Timer::Pace(s));
        self.sites.refresh(s);
        if self.status_beyond(until, t.now).is_some() {
            self.touch(s);
        }
    }

    /// No further session with any site before `until`.
    pub(super) fn open_none_before(&mut self, until: Instant, t: &Turn<'_, P>) {
        let until = until.max(t.now + REST_MIN);
        self.sessions_after = Some(until);
        self.timers.push(until, Timer::Hold);
        self.touch_all_if_beyond(until, t.now);
    }

    /// Site `s` would go on with its sessions, but the queue rests.
    fn starve(&mut self, s: u32) {
        if !std::mem::replace(&mut self.sites[s].starved, true) {
            self.starved.push_back(s);
        }
    }

    /// The rest of a site may be over.
    pub(super) fn pace_time_is_over(&mut self, s: u32, now: Instant) {
        let sources = usize::from(self.config.sources.max(1));
        self.sites[s].rest_is_over(now, sources);
        self.touch(s);
    }

    /// The rest of the queue may be over.
    pub(super) fn hold_time_is_over(&mut self, now: Instant) {
        if self.hold_until.is_some_and(|until| until <= now) {
            self.hold_until = None;
            self.ring_begins = !self.ring_begins;
        }
        if self.sessions_after.is_some_and(|until| until <= now) {
            self.sessions_after = None;
        }
    }

    /// Paces were changed: nothing rests until it is told to again.
    pub(super) fn forget_rests(&mut self) {
        (self.hold_until, self.sessions_after) = (None, None);
        for s in 0..self.sites.iter().count() as u32 {
            self.sites[s].forget_rest();
            self.touch(s);
        }
    }

    /// Sites whose sessions waited for the rest of the queue to end go on, one after the other, while there are slots.
    pub(super) fn feed_starved(&mut self, t: &mut Turn<'_, P>) {
        while self.hold_until.is_none()
            && let Some(s) = self.starved.pop_front()
        {
            self.steps += 1;
            self.sites[s].starved = false;
            self.feed_all(s, t);
        }
    }

    /// Mail may have to wait for the sessions of site `s` from now on: not for ever.
    pub(super) fn time_patience(&mut self, s: u32, now: Instant) {
        let site = &mut self.sites[s];
        if !site.patience.is_timed && site.waits_for_sessions(self.config.session_backlog) {
            site.patience.is_timed = true;
            let heard_at = site.patience.heard_at.unwrap_or(now);
            let wait = site.measured.patience(self.config.recall_after);
            let until = (heard_at + wait).max(now + REST_MIN);
            self.timers.push(until, Timer::Patience(s));
        }
    }

    /// Nothing may have been heard from the sessions of site `s` for too long.
    pub(super) fn patience_is_over(&mut self, s: u32, now: Instant) {
        let site = &mut self.sites[s];
        let wait = site.measured.patience(self.config.recall_after);
        site.patience.is_timed = false;
        let heard_at = site.patience.heard_at;
        site.patience.is_over = site.waits_for_sessions(self.config.session_backlog)
            && heard_at.is_none_or(|at| at + wait <= now);
        self.touch(s);
    }

    /// Whether the next run for site `s` is a probe, if worker `w` gets it.
    pub(super) fn probes(&self, s: u32, w: Option<u32>) -> bool {
        match self.sites[s].gate {
            Gate::Probe => true,
            Gate::Probing(prober) => w == Some(prober),
            _ => false,
        }
    }
}

/// How many transactions these envelopes make: one for each message, or more if it has very many recipients.
fn transactions(envelopes: &[Envelope], recipients_max: usize) -> u32 {
    let groups = envelopes.chunk_by(|a, b| a.message == b.message);
    let count: usize = groups
        .map(|group| group.len().div_ceil(recipients_max.max(1)))
        .sum();
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{MessageNo, RecipientNo};

    #[test]
    fn a_session_pays_once_enough_waits_for_it_beside_those_that_are_open() {
        let mut measured = Measured::default();
        assert!(measured.pays(1, 0, 8), "the first always does");
        assert!(!measured.pays(63, 1, 8) && measured.pays(64, 1, 8));
        assert!(measured.pays(1, 5, 0));
        measured.opened(Duration::from_millis(100));
        measured.sent(10, Duration::from_millis(100));
        assert!(!measured.pays(159, 1, 8) && measured.pays(160, 1, 8));
        measured.sent(1000, Duration::from_secs(1000));
        measured.sent(1000, Duration::from_secs(1000));
        assert!(measured.pays(16, 1, 8), "at slow servers early");
    }

    #[test]
    fn a_run_takes_as_many_messages_as_a_moment_carries() {
        let mut measured = Measured::default();
        assert_eq!(measured.least_run(), 1, "nothing is known");
        measured.sent(1000, Duration::from_secs(5));
        assert_eq!(measured.least_run(), 5, "at fast servers several");
        measured.sent(64, Duration::from_secs(64));
        assert_eq!(measured.least_run(), 1, "at slow ones one");
    }

    #[test]
    fn no_run_is_longer_than_a_second_carries() {
        let mut measured = Measured::default();
        assert_eq!(measured.per_run(), usize::MAX);
        measured.sent(4, Duration::from_secs(1));
        assert_eq!(measured.per_run(), 4);
        measured.sent(64, Duration::from_secs(6400));
        assert_eq!(measured.per_run(), 1);
    }

    #[test]
    fn each_message_is_a_transaction_and_one_with_very_many_recipients_several() {
        let envelope = |(recipient, message): (usize, &u32)| {
            Envelope::new(MessageNo(*message), RecipientNo(recipient as u32))
        };
        let messages = [1, 2, 2, 2, 3];
        let envelopes: Vec<_> = messages.iter().enumerate().map(envelope).collect();
        assert_eq!(transactions(&envelopes, 50), 3);
        assert_eq!(transactions(&envelopes, 2), 4);
        assert_eq!(transactions(&[], 2), 0);
    }
}
