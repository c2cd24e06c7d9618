//! Sessions, as the queue knows them: being opened, open, being closed; and the permits they stand for.
//!
//! A worker has the permit for a session from before it opens it until it says that it is closed. One that turns to another
//! site has two for a while: the old one until it says so, in whatever words.
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
            // With a run given ahead it will open another at once: the permit stands for that one.
            if self.workers[w].current.is_none() {
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
        } else if is_site(self.workers[w].session) {
            if self.workers[w].current.is_some() {
                return self.unprove(w); // it opens another for the run it holds
            }
            if let Some(s) = self.workers[w].session {
                let list = &mut self.sites[s].idle;
                self.workers.site_links.remove(list, w);
            }
            self.leave_session(w, t);
            self.closing_is_over(w, t);
        }
    }

    /// Worker `w`, which stands in no list of a site, is to serve another one or none: its session is about to close.
    pub(super) fn leave_session(&mut self, w: u32, t: &mut Turn<'_, P>) {
        self.unprove(w);
        self.opening_is_over(w, t);
        let Some(s) = self.workers[w].session.take() else {
            return;
        };
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
