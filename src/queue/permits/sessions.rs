//! Permits for sessions: which queue may have one more with a site, and from which source address.
//!
//! A session is refused, in this order, for the queue's own maximum or pace, for the number of sessions being opened, for
//! the window of the site, and for the pace of the site. What only time can change is told with its instant, and then the
//! queue stands in no line: it asks again.
//!
//! Of several source addresses that have room the one with the smallest part of its window in use is taken.

use std::time::Instant;

use super::site::{Lane, Site, Wish};
use super::stock::Waiter;
use super::{News, Notice, Permit, PermitTable, Phase, Wanted};
use crate::mail::{QueueId, SiteId, SourceNo};

/// The answer to a queue that wants one more session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    /// It has one, from this source address.
    Granted(SourceNo),
    /// The site has as many as it may have: the queue stands in its line and will be notified, unless it was refused for a
    /// limit of its own, which only its own return can change.
    Refused,
    /// Too many sessions are being opened: the queue stands in that line and will be notified.
    Connects,
    /// The pace of this site has no room before: ask again then.
    NotBefore(Instant),
    /// The pace of this queue, or of all source addresses, has no room for any site before.
    NoneBefore(Instant),
}

/// What a queue may count on at a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Sessions: the windows, divided among the queues that use the site. At least 1.
    pub sessions: u32,
    /// The window may grow: what this depends on should be heard of soon.
    pub grows: bool,
    /// Messages have a pace, or had one: slots must be taken before they are handed out.
    pub is_paced: bool,
    /// The messages after which a session is to be ended by us.
    pub messages_per_session: Option<u32>,
}

impl PermitTable {
    /// Sessions with `site` held by all queues.
    pub fn sessions_held(&self, site: SiteId) -> u32 {
        self.sites.get(&site).map_or(0, |site| site.stock.held)
    }

    /// Sessions with `site` held by `queue`.
    pub fn sessions_held_by(&self, site: SiteId, queue: QueueId) -> u32 {
        let site = self.sites.get(&site);
        site.map_or(0, |site| site.stock.held_by(queue))
    }

    /// Sessions with `site` from this address, and how many there may be just now.
    pub fn sessions_from(&self, site: SiteId, source: SourceNo) -> (u32, u32) {
        let lane = self
            .sites
            .get(&site)
            .and_then(|site| site.lanes.get(source.index()));
        lane.map_or((0, self.general.bounds.start), |lane| {
            (lane.held, lane.window.size())
        })
    }

    /// Sessions that are open to `site` from this address, as opposed to those that are being opened.
    pub fn sessions_working(&self, site: SiteId, source: SourceNo) -> u32 {
        let lane = self
            .sites
            .get(&site)
            .and_then(|site| site.lanes.get(source.index()));
        lane.map_or(0, Lane::working)
    }

    /// Sessions that `site` may have just now, all source addresses together.
    pub fn site_window(&self, site: SiteId) -> u32 {
        match self.sites.get(&site) {
            Some(site) => site.size(),
            None => Site::new(self.general, self.sources).size(),
        }
    }

    /// Whether [`take_session`](PermitTable::take_session) would succeed at `now`.
    pub fn would_take_session(
        &self,
        site: SiteId,
        queue: QueueId,
        phase: Phase,
        now: Instant,
    ) -> bool {
        if self.is_full(site, queue) || !self.would_connect(phase) {
            return false;
        }
        if self.queue_next(queue, now).max(self.sources_next(now)) > now {
            return false;
        }
        match self.sites.get(&site) {
            None => true,
            Some(of_site) => {
                of_site.stock.grants(queue, of_site.room(Some(now)), 0)
                    && self.choose_source(of_site, now).is_ok()
            }
        }
    }

    /// Takes a permit for a session with `site` that is to be opened.
    pub fn take_session(
        &mut self,
        site: SiteId,
        queue: QueueId,
        phase: Phase,
        now: Instant,
    ) -> Grant {
        self.seen = Some(now);
        if self.is_full(site, queue) {
            return Grant::Refused;
        }
        let general = self.queue_next(queue, now).max(self.sources_next(now));
        if general > now {
            self.leave_site_line(site, queue);
            return Grant::NoneBefore(general);
        }
        if !self.would_connect(phase) {
            self.leave_site_line(site, queue);
            self.join_connect_line(queue, phase);
            return Grant::Connects;
        }
        let (terms, sources) = (self.general, self.sources);
        let of_site = self
            .sites
            .entry(site)
            .or_insert_with(|| Site::new(terms, sources));
        if !of_site.stock.grants(queue, of_site.room(Some(now)), 0) {
            if of_site.stock.join_line(queue) {
                let pressure = of_site.stock.pressure(queue, Permit::Session(site));
                self.notices.extend(pressure);
            }
            return Grant::Refused;
        }
        match self.choose_source(&self.sites[&site], now) {
            Err(at) => {
                self.leave_site_line(site, queue);
                let lanes = self.sites.get_mut(&site).into_iter();
                for lane in lanes.flat_map(|of_site| &mut of_site.lanes) {
                    lane.note_rest(queue, Wish::Session, at);
                }
                Grant::NotBefore(at)
            }
            Ok(source) => {
                self.grant(site, queue, source, phase, now);
                Grant::Granted(source)
            }
        }
    }

    fn grant(
        &mut self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        phase: Phase,
        now: Instant,
    ) {
        self.charge_connection(site, queue, source, now);
        if let Some(of_site) = self.sites.get_mut(&site) {
            of_site.stock.add(queue);
            if let Some(lane) = of_site.lane(source) {
                lane.held += 1;
                lane.connecting += 1;
            }
        }
        self.begin_connect(queue, phase);
    }

    /// A holder of a session lets it go and opens another with the same site at once: the permit stands for that one, and the
    /// connection counts as any other. It cannot be held back any more, so the rates may run into debt, which is paid back
    /// before a session is granted. False if they had no room for it.
    pub fn reopened(
        &mut self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        now: Instant,
    ) -> bool {
        self.seen = Some(now);
        self.charge_connection(site, queue, source, now)
    }

    /// Whether the rates of connections have room for one to `site` from this address.
    pub fn may_reopen(&self, site: SiteId, queue: QueueId, source: SourceNo, now: Instant) -> bool {
        let of_queue = self.queues.get(&queue).map(|own| &own.connect_rate);
        let lane = self.sites.get(&site).map(|site| &site.lanes);
        let lane = lane.and_then(|lanes| lanes.get(source.index()));
        let of_site = lane.map(|lane| &lane.connect_rate);
        let mut paces = [of_queue, of_site].into_iter().flatten().flatten();
        paces.all(|pace| pace.next(now) <= now)
    }

    /// Counts a connection against the rates of the queue, and of the site and the address. True if both had room.
    fn charge_connection(
        &mut self,
        site: SiteId,
        queue: QueueId,
        source: SourceNo,
        now: Instant,
    ) -> bool {
        let of_queue = self.queues.get_mut(&queue);
        let of_queue = of_queue.and_then(|own| own.connect_rate.as_mut());
        let lane = self.sites.get_mut(&site).and_then(|site| site.lane(source));
        let of_site = lane.and_then(|lane| lane.connect_rate.as_mut());
        let mut had_room = true;
        for pace in [of_queue, of_site].into_iter().flatten() {
            had_room &= pace.charge(now);
        }
        had_room
    }

    /// The session is open, or will never be: it is being opened no more.
    pub fn end_opening(&mut self, site: SiteId, queue: QueueId, source: SourceNo, phase: Phase) {
        if let Some(lane) = self.sites.get_mut(&site).and_then(|site| site.lane(source)) {
            debug_assert!(lane.connecting > 0, "no session with {site:?} is opened");
            lane.connecting = lane.connecting.saturating_sub(1);
        }
        self.end_connect(queue, phase);
        self.notify_site(site);
    }

    /// Gives a session back, whose opening has been ended before.
    pub fn return_session(&mut self, site: SiteId, queue: QueueId, source: SourceNo) {
        if let Some(of_site) = self.sites.get_mut(&site) {
            of_site.stock.subtract(queue);
            if let Some(lane) = of_site.lane(source) {
                debug_assert!(lane.held > lane.connecting, "{site:?} is still opened");
                lane.held = lane.held.saturating_sub(1);
            }
        }
        self.notify_site(site);
    }

    /// Leaves the site's line. Nothing happens if it does not stand in it.
    pub fn decline_session(&mut self, site: SiteId, queue: QueueId) {
        self.leave_site_line(site, queue);
    }

    /// Whether others want the sessions that `queue` holds with `site`.
    pub fn session_wanted(&self, site: SiteId, queue: QueueId) -> Wanted {
        if self.sessions_held_by(site, queue) > self.queue_window(queue) {
            return Wanted::Yes;
        }
        let Some(of_site) = self.sites.get(&site) else {
            return Wanted::No;
        };
        if of_site.stock.held > of_site.most() {
            return Wanted::Yes; // The limit was lowered.
        }
        let (size, room) = (of_site.size(), of_site.stock.held + of_site.room(self.seen));
        of_site
            .stock
            .wanted_from(queue, size, room, &super::Weights::default())
    }

    /// What `queue` may count on at `site`, by sessions from this address.
    pub fn share(&self, site: SiteId, queue: QueueId, source: SourceNo) -> Share {
        let limits = self.queues.get(&queue);
        let of_queue = limits.is_some_and(|limits| limits.rate.is_some());
        let of_source =
            self.source_rates[source.index().min(self.source_rates.len() - 1)].is_some();
        let (sessions, grows, paced, messages) = match self.sites.get(&site) {
            None => (self.site_window(site), true, true, None),
            Some(of_site) => {
                let lane = of_site.lanes.get(source.index());
                (
                    of_site.size() / of_site.stock.parties(),
                    lane.is_some_and(|lane| lane.window.can_grow()),
                    lane.is_some_and(|lane| lane.rate.counts()),
                    lane.and_then(|lane| lane.limit.limit()),
                )
            }
        };
        Share {
            sessions: sessions.clamp(1, self.queue_window(queue)),
            grows,
            is_paced: paced || of_queue || of_source,
            messages_per_session: messages,
        }
    }

    /// The source address for the next session: one with room whose pace allows it now. Else when one will.
    fn choose_source(&self, site: &Site, now: Instant) -> Result<SourceNo, Instant> {
        let mut best: Option<(u64, SourceNo)> = None;
        let mut soonest: Option<Instant> = None;
        for (number, lane) in site.lanes.iter().enumerate() {
            if lane.room(Some(now)) == 0 {
                continue;
            }
            let source = SourceNo(number as u8);
            let next = lane.next(now).max(self.source_next(source, now));
            if next > now {
                soonest = Some(soonest.map_or(next, |at| at.min(next)));
                continue;
            }
            let used = u64::from(lane.held) * 1000 / u64::from(lane.window.size());
            if best.is_none_or(|(least, _)| used < least) {
                best = Some((used, source));
            }
        }
        // Without any room nobody asks.
        best.map(|(_, source)| source).ok_or(soonest.unwrap_or(now))
    }

    fn is_full(&self, site: SiteId, queue: QueueId) -> bool {
        self.sessions_held_by(site, queue) >= self.queue_window(queue)
    }

    pub(super) fn queue_window(&self, queue: QueueId) -> u32 {
        let limits = self.queues.get(&queue);
        limits.and_then(|own| own.window).unwrap_or(u32::MAX)
    }

    /// When `queue` may open a session and send a message over it, as far as its own rates go.
    fn queue_next(&self, queue: QueueId, now: Instant) -> Instant {
        let Some(limits) = self.queues.get(&queue) else {
            return now;
        };
        let paces = [&limits.rate, &limits.connect_rate];
        let nexts = paces.into_iter().flatten().map(|pace| pace.next(now));
        nexts.fold(now, Instant::max)
    }

    fn leave_site_line(&mut self, site: SiteId, queue: QueueId) {
        if let Some(of_site) = self.sites.get_mut(&site) {
            of_site.stock.leave_line(queue);
            self.notify_site(site);
        }
    }

    /// Tells those in line for a session with `site` who can have one now.
    pub(super) fn notify_site(&mut self, site: SiteId) {
        let Some(of_site) = self.sites.get_mut(&site) else {
            return;
        };
        let room = of_site.room(self.seen);
        for at in 0..of_site.stock.line.len() {
            let Waiter { queue, notified } = of_site.stock.line[at];
            if !notified && of_site.stock.grants(queue, room, 0) {
                of_site.stock.line[at].notified = true;
                let permit = Permit::Session(site);
                self.notices.push(Notice::new(queue, permit, News::Free));
            }
        }
    }
}
