//! How dispatchers ask the table, wherever it is: behind a mutex in the engine, in a cell in a simulation.

use std::cell::RefCell;
use std::time::Instant;

use super::{Feedback, Grant, PermitTable, Phase, Share, Slots, Wanted};
use crate::mail::{QueueId, SiteId, SourceNo};

/// The table, shared by all queues. Questions are short; none of them blocks on anything but a mutex.
pub trait Permits {
    /// Does something with the table.
    fn with(&self, act: &mut dyn FnMut(&mut PermitTable));
}

impl Permits for RefCell<PermitTable> {
    fn with(&self, act: &mut dyn FnMut(&mut PermitTable)) {
        act(&mut self.borrow_mut());
    }
}

/// What a dispatcher asks of the table, and nothing else: see the methods of the same names there.
impl dyn Permits + '_ {
    fn ask<T>(&self, act: impl FnOnce(&mut PermitTable) -> T) -> T {
        let (mut act, mut answer) = (Some(act), None);
        self.with(&mut |table| answer = act.take().map(|act| act(table)));
        answer.expect("the table is asked once")
    }

    /// [`PermitTable::take_worker`].
    pub fn take_worker(&self, queue: QueueId) -> bool {
        self.ask(|table| table.take_worker(queue))
    }

    /// [`PermitTable::return_worker`].
    pub fn return_worker(&self, queue: QueueId) {
        self.ask(|table| table.return_worker(queue));
    }

    /// [`PermitTable::decline_worker`].
    pub fn decline_worker(&self, queue: QueueId) {
        self.ask(|table| table.decline_worker(queue));
    }

    /// [`PermitTable::worker_wanted`].
    pub fn worker_wanted(&self, queue: QueueId) -> Wanted {
        self.ask(|table| table.worker_wanted(queue))
    }

    /// [`PermitTable::take_session`].
    pub fn take_session(&self, site: SiteId, queue: QueueId, phase: Phase, now: Instant) -> Grant {
        self.ask(|table| table.take_session(site, queue, phase, now))
    }

    /// [`PermitTable::reopened`].
    pub fn reopened(&self, site: SiteId, queue: QueueId, source: SourceNo, now: Instant) -> bool {
        self.ask(|table| table.reopened(site, queue, source, now))
    }

    /// [`PermitTable::may_reopen`].
    pub fn may_reopen(&self, site: SiteId, queue: QueueId, source: SourceNo, now: Instant) -> bool {
        self.ask(|table| table.may_reopen(site, queue, source, now))
    }

    /// [`PermitTable::end_opening`].
    pub fn end_opening(&self, site: SiteId, queue: QueueId, source: SourceNo, phase: Phase) {
        self.ask(|table| table.end_opening(site, queue, source, phase));
    }

    /// [`PermitTable::return_session`].
    pub fn return_session(&self, site: SiteId, queue: QueueId, source: SourceNo) {
        self.ask(|table| table.return_session(site, queue, source));
    }

    /// [`PermitTable::decline_session`].
    pub fn decline_session(&self, site: SiteId, queue: QueueId) {
        self.ask(|table| table.decline_session(site, queue));
    }

    /// [`PermitTable::decline_connect`].
    pub fn decline_connect(&self, queue: QueueId, phase: Phase) {
        self.ask(|table| table.decline_connect(queue, phase));
    }

    /// [`PermitTable::session_wanted`].
    pub fn session_wanted(&self, site: SiteId, queue: QueueId) -> Wanted {
        self.ask(|table| table.session_wanted(site, queue))
    }

    /// [`PermitTable::sessions_working`].
    pub fn sessions_working(&self, site: SiteId, source: SourceNo) -> u32 {
        self.ask(|table| table.sessions_working(site, source))
    }

    /// [`PermitTable::share`].
    pub fn share(&self, site: SiteId, queue: QueueId, source: SourceNo) -> Share {
        self.ask(|table| table.share(site, queue, source))
    }

    /// [`PermitTable::take_messages`].
    pub fn take_messages(
        &self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        wanted: u32,
        now: Instant,
    ) -> Slots {
        self.ask(|table| table.take_messages(site, queue, source, wanted, now))
    }

    /// [`PermitTable::give_back_messages`].
    pub fn give_back_messages(
        &self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        slots: u32,
        taken: Instant,
    ) {
        self.ask(|table| table.give_back_messages(site, queue, source, slots, taken));
    }

    /// [`PermitTable::report`].
    pub fn report(
        &self,
        site: SiteId,
        source: SourceNo,
        feedback: &Feedback,
        taken: Instant,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        self.ask(|table| table.report(site, source, feedback, taken, now, rng));
    }
}
