//! The limits of the table: what the operator sets, now and while it runs, and what a site has come to.

use std::time::Instant;

use super::site::{Site, set_pace};
use super::{PermitTable, Phase};
use crate::mail::{QueueId, SiteId, SourceNo};
use crate::queue::pace::Rate;
use crate::queue::terms::{Bounds, Learned, SiteTerms};

/// What a site has come to, all source addresses together.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct SiteStatus {
    /// Sessions that it may have just now.
    pub window: u32,
    /// Sessions that it has, open or about to be.
    pub held: u32,
    /// Those of them that are being opened.
    pub connecting: u32,
    /// The most sessions that it let us have, if it has turned away more.
    pub ceiling: Option<u32>,
    /// The messages after which sessions are ended.
    pub messages_per_session: Option<u32>,
    /// Messages per minute, if there is a limit.
    pub rate_per_minute: Option<f64>,
    /// It was learned from the site's replies, not configured.
    pub rate_is_learned: bool,
    /// The bounds of each window.
    pub bounds: Bounds,
    /// What the first source address has learned: see [`PermitTable::learned`] for the others.
    pub learned: Learned,
}

impl PermitTable {
    /// Changes the maximum of workers of the process.
    pub fn set_workers_max(&mut self, workers_max: u32) {
        self.workers_max = workers_max.max(1);
        self.notify_workers();
        for phase in Phase::BOTH {
            self.notify_connects(phase);
        }
    }

    /// Changes the terms of sites. A site that was introduced with other terms keeps those in which it differs; what it has of
    /// its own binds where it is less.
    pub fn set_general(&mut self, general: SiteTerms, now: Instant) {
        let old = std::mem::replace(&mut self.general, general);
        for site in self.sites.values_mut() {
            site.set_terms(follow(site.terms, &old, &general), now);
        }
        self.notify_sites();
    }

    /// Gives all sites a fixed number of sessions: see [`PermitTable::new`].
    pub fn set_window(&mut self, window: u32, now: Instant) {
        let bounds = fixed(window);
        self.set_general(
            SiteTerms {
                bounds,
                ..self.general
            },
            now,
        );
    }

    /// Gives one site a fixed number of sessions for each source address.
    pub fn set_site_window(&mut self, site: SiteId, window: u32, now: Instant) {
        let bounds = fixed(window);
        let terms = SiteTerms {
            bounds,
            ..self.terms(site)
        };
        self.introduce(site, terms, now);
    }

    /// What is known of a site before its first session. Told again it changes the site's limits; what was learned stays.
    pub fn introduce(&mut self, site: SiteId, terms: SiteTerms, now: Instant) {
        match self.sites.get_mut(&site) {
            Some(known) => known.set_terms(terms, now),
            None => {
                self.sites.insert(site, Site::new(terms, self.sources));
            }
        }
        self.notify_site(site);
    }

    /// The same, unless the site is known already, by terms that were made from the general ones with which the run began:
    /// these may be others by now.
    pub fn introduce_once(&mut self, site: SiteId, terms: SiteTerms, now: Instant) {
        if !self.knows(site) {
            let terms = follow(terms, &self.general_then, &self.general);
            self.introduce(site, terms, now);
        }
    }

    /// The operator changes what one site has of its own: its sessions, or its rate (`Some(None)`: it has none any more). That
    /// takes the place of what was known of it. The sessions are never more than those of all sites; the rate may be.
    pub fn set_site_bounds(
        &mut self,
        site: SiteId,
        sessions_max: Option<u32>,
        rate: Option<Option<Rate>>,
        now: Instant,
    ) {
        let mut terms = self.terms(site);
        if let Some(max) = sessions_max {
            terms.own.sessions = Some(max.max(1));
        }
        if let Some(rate) = rate {
            terms.own.ordered_rate = Some(rate);
        }
        self.introduce(site, terms, now);
    }

    /// True if `site` was introduced, or has had a session.
    pub fn knows(&self, site: SiteId) -> bool {
        self.sites.contains_key(&site)
    }

    fn terms(&self, site: SiteId) -> SiteTerms {
        let known = self.sites.get(&site);
        known.map_or(self.general, |site| site.terms)
    }

    /// Sets how many sessions `queue` may have with any one site; `None`: as many as the site. A queue that was refused for
    /// this limit is not told: it looks again when it hears of changed limits.
    pub fn set_queue_window(&mut self, queue: QueueId, window: Option<u32>) {
        let window = window.map(|window| window.max(1));
        self.queues.entry(queue).or_default().window = window;
    }

    /// Sets the rates of all mail of `queue`, whatever the site: of messages, and of connections.
    pub fn set_queue_rates(
        &mut self,
        queue: QueueId,
        rate: Option<Rate>,
        connect_rate: Option<Rate>,
        now: Instant,
    ) {
        let limits = self.queues.entry(queue).or_default();
        set_pace(&mut limits.rate, rate, now);
        set_pace(&mut limits.connect_rate, connect_rate, now);
    }

    /// Sets the rate of each source address, whatever the site.
    pub fn set_source_rate(&mut self, rate: Option<Rate>, now: Instant) {
        for pace in &mut self.source_rates {
            set_pace(pace, rate, now);
        }
    }

    /// Sets the weight of `queue` where workers are shared out; 1 is what it has from the start.
    pub fn set_queue_weight(&mut self, queue: QueueId, weight: u32) {
        self.weights.set(queue, weight);
    }

    /// What `site` has come to.
    pub fn site_status(&self, site: SiteId) -> SiteStatus {
        let Some(of_site) = self.sites.get(&site) else {
            return SiteStatus {
                bounds: self.general.bounds,
                window: self.site_window(site),
                ..SiteStatus::default()
            };
        };
        let mut status = SiteStatus {
            window: of_site.size(),
            held: of_site.stock.held,
            bounds: of_site.terms.in_force().bounds,
            learned: self.learned(site, SourceNo(0)),
            ..SiteStatus::default()
        };
        for lane in &of_site.lanes {
            status.connecting += lane.connecting;
            if let Some(ceiling) = lane.window.ceiling() {
                status.ceiling = Some(status.ceiling.unwrap_or(0) + ceiling);
            }
            if let Some(rate) = lane.rate.per_minute() {
                status.rate_per_minute = Some(status.rate_per_minute.unwrap_or(0.0) + rate);
            }
            status.rate_is_learned |= lane.rate.is_learned();
            let messages = [status.messages_per_session, lane.limit.limit()];
            status.messages_per_session = messages.into_iter().flatten().min();
        }
        status
    }

    /// What `site` has taught a source address: what the next run is to know.
    pub fn learned(&self, site: SiteId, source: SourceNo) -> Learned {
        let lane = self
            .sites
            .get(&site)
            .and_then(|site| site.lanes.get(source.index()));
        lane.map_or_else(Learned::default, |lane| Learned {
            window: lane.window.size(),
            sessions_ceiling: lane.window.ceiling(),
            messages_per_session: lane.limit.learned(),
            rate_per_minute: lane.rate.learned(),
        })
    }

    fn notify_sites(&mut self) {
        let sites: Vec<SiteId> = self.sites.keys().copied().collect();
        for site in sites {
            self.notify_site(site);
        }
    }
}

/// Terms that follow those of all sites where they do not differ from them. A site that begins with its maximum goes on to.
fn follow(mut terms: SiteTerms, old: &SiteTerms, new: &SiteTerms) -> SiteTerms {
    let bounds = &mut terms.bounds;
    if bounds.start == old.bounds.start {
        bounds.start = new.bounds.start;
    } else if bounds.start == old.bounds.max {
        bounds.start = new.bounds.max;
    }
    if bounds.max == old.bounds.max {
        bounds.max = new.bounds.max;
    }
    if bounds.step == old.bounds.step {
        bounds.step = new.bounds.step;
    }
    if terms.rate == old.rate {
        terms.rate = new.rate;
    }
    if terms.connect_rate == old.connect_rate {
        terms.connect_rate = new.connect_rate;
    }
    terms
}

fn fixed(window: u32) -> Bounds {
    Bounds {
        start: window.max(1),
        max: window.max(1),
        ..Bounds::default()
    }
}
