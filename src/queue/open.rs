//! Sessions, as the queue knows them: being opened, open, being closed; and the permits they stand for.
//!
//! A worker has the permit for a session from before it opens it until it says that it is closed. One that turns to another
//! site has two for a while: the old one until it says so, in whatever words.
//!
//! A session that ends while there is more for the worker is opened again without a question: the permit stands for the next
//! one. The table is told, since connections have rates. A worker that goes on like this while they have no room is given no
//! run ahead, behind which it would do so again, and the second time it is retired: the next session is one that is granted.
//!
//! INVARIANT: every session that a worker has, opens or closes stands for one permit, and every opening for one more.

use std::time::Duration;

use super::dispatcher::{Dispatcher, Turn};
use crate::mail::{SiteId, WorkerId};

impl<P: Clone> Dispatcher<P> {
    /// A worker has opened the session that its run needs.
    pub(super) fn opened(&mut self, worker: WorkerId, setup: Duration, t: &mut Turn<'_, P>) {
        if let Some(w) = self.workers.find(worker)
            && let Some(s) = self.workers[w].session
        {
            self.sites[s].measured.opened(setup);
            self.sites.refresh(s);
            self.opening_is_over(w, t);
        }
    }

    /// The session of `w` is open, or will never be.
    pub(super) fn opening_is_over(&mut self, w: u32, t: &Turn<'_, P>) {
        let worker = &mut self.workers[w];
        if let Some(phase) = worker.opening.take()
            && let Some(s) = worker.session
        {
            let (id, source) = (self.sites[s].id, worker.source);
            t.permits.end_opening(id, self.config.queue, source, phase);
        }
    }

    /// Keeps the permits in step with the session that the worker says is open.
    pub(super) fn note_session(&mut self, w: u32, open: Option<SiteId>, t: &mut Turn<'_, P>) {
        if open.is_some() && open == self.workers[w].closing.map(|s| self.sites[s].id) {
            self.keep_old_session(w, t);
        }
        self.closing_is_over(w, t);
        let Some(s) = self.workers[w].session else {
            return;
        };
        debug_assert!(open.is_none_or(|open| open == self.sites[s].id));
        if open.is_none() {
            self.unprove(w);
            if self.workers[w].current.is_some() {
                // For the run that was given ahead. If that is taken back in time one is counted too many: better than too few.
                self.reopens(w, s, t);
            } else {
                self.leave_session(w, t);
                self.closing_is_over(w, t);
            }
        }
    }

    /// The worker gave its run back before it left its old session for it.
    pub(super) fn keep_old_session(&mut self, w: u32, t: &mut Turn<'_, P>) {
        let old = self.workers[w].closing.take();
        let source = self.workers[w].closing_source;
        self.leave_session(w, t);
        self.closing_is_over(w, t);
        self.workers[w].session = old;
        self.workers[w].source = source;
        if let Some(old) = old {
            self.sites[old].workers += 1;
            self.sites.refresh(old);
        }
    }

    /// A worker has closed a session.
    pub(super) fn closed(&mut self, worker: WorkerId, site: SiteId, t: &mut Turn<'_, P>) {
        let Some(w) = self.workers.find(worker) else {
            return;
        };
        let is_site = |s: Option<u32>| s.is_some_and(|s| self.sites[s].id == site);
        if is_site(self.workers[w].closing) {
            self.closing_is_over(w, t);
        } else if let Some(s) = self.workers[w].session.filter(|s| is_site(Some(*s))) {
            if self.workers[w].current.is_some() {
                self.unprove(w);
                return self.reopens(w, s, t); // for the run it holds
            }
            let list = &mut self.sites[s].idle;
            self.workers.site_links.remove(list, w);
            self.leave_session(w, t);
            self.closing_is_over(w, t);
        }
    }

    /// Worker `w` opens another session with site `s` in the place of the one that has ended.
    fn reopens(&mut self, w: u32, s: u32, t: &Turn<'_, P>) {
        let (id, queue, source) = (self.sites[s].id, self.config.queue, self.workers[w].source);
        let had_room = t.permits.reopened(id, queue, source, t.now);
        let unpaid = &mut self.workers[w].unpaid;
        *unpaid = if had_room {
            0
        } else {
            unpaid.saturating_add(1)
        };
    }

    /// True if worker `w` has opened its session again at least so often for which the rates of connections had no room, and
    /// they still have none.
    pub(super) fn owes_connections(&self, w: u32, least: u32, t: &Turn<'_, P>) -> bool {
        let (worker, queue) = (&self.workers[w], self.config.queue);
        worker.unpaid >= least
            && worker.session.is_some_and(|s| {
                let (id, source) = (self.sites[s].id, worker.source);
                !t.permits.may_reopen(id, queue, source, t.now)
            })
    }

    /// Worker `w`, which stands in no list of a site, is to serve another one or none: its session is about to close.
    pub(super) fn leave_session(&mut self, w: u32, t: &mut Turn<'_, P>) {
        self.unprove(w);
        self.opening_is_over(w, t);
        let Some(s) = self.workers[w].session.take() else {
            return;
        };
        self.workers[w].unpaid = 0;
        self.closing_is_over(w, t);
        self.sites[s].workers -= 1;
        if self.sites[s].waiting > 0 {
            // The next session is the first one now, or pays.
            self.touch(s);
        }
        self.sites.refresh(s);
        self.workers[w].closing = Some(s);
        self.workers[w].closing_source = self.workers[w].source;
    }

    /// The session that was being closed is closed: its permit goes back.
    pub(super) fn closing_is_over(&mut self, w: u32, t: &mut Turn<'_, P>) {
        if let Some(s) = self.workers[w].closing.take() {
            let site = &mut self.sites[s];
            let source = self.workers[w].closing_source;
            t.permits.return_session(site.id, self.config.queue, source);
            // It may have been refused for a limit of our own, of which nobody else would tell us.
            site.blocked = false;
            self.touch(s);
        }
    }
}
