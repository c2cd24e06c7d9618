//! How mail for a domain would be sent: what `mailer explain` shows. Looked up as a run does, with its settings; no connection is
//! made and nothing is written.
//!
//! [`Explanation::limits`] are all limits on a site of the domain, each with who set it; [`Explanation::capacity`] says which of them
//! binds and what that makes in an hour: so many sessions, each of which carries a message in the time that one takes, but never
//! more than the lowest rate.
//!
//! INVARIANT: the answers come from the finder, the route table and the policies that a run uses, so they cannot differ from it.
//!
//! Limits: the time of a message is an assumption, or the round trip that an earlier run measured if that is longer; what a site
//! will turn away today nobody knows before.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::parts;
use super::resolve::{Finder, Found, PolicyOrigin};
use super::run::StartError;
use super::settings::Settings;
use super::sources;
use crate::dns::DnsFailure;
use crate::hosts::{AddressRow, HostStore, SiteRow};
use crate::mail::QueueId;
use crate::queue::pace::Rate;
use crate::route::RouteTable;
use crate::route::providers::Provider;
use crate::smtp::TlsPolicy;

const HOUR_SECS: f64 = 3600.0;

/// Explains domains.
pub struct Explainer {
    settings: Settings,
    finder: Finder,
    routes: Arc<RouteTable>,
    memory: Option<HostStore>,
    now_ms: i64,
}

/// How mail for one domain would be sent.
#[derive(Debug)]
pub struct Explanation {
    /// The queue.
    pub queue: String,
    /// Why that one.
    pub queue_reason: QueueReason,
    /// What makes the site.
    pub site: Arc<str>,
    /// Its hosts, best preference first.
    pub hosts: Vec<HostView>,
    /// They are relays: `preference` is their order.
    pub are_relays: bool,
    /// Whose hosts they are, if that is a large provider.
    pub provider: Option<Arc<Provider>>,
    /// Whether sessions are protected, and who said so.
    pub tls: (TlsPolicy, PolicyOrigin),
    /// All limits.
    pub limits: Vec<Limit>,
    /// What earlier runs have learned, from each of our addresses.
    pub learned: Vec<SiteRow>,
    /// Source addresses, for each of which the limits of a site hold.
    pub sources: u8,
}

/// Why a queue handles a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueReason {
    /// It names the domain.
    Domain(String),
    /// It names a suffix of the domain.
    Suffix(String),
    /// It names this MX host of the domain, or a suffix of it.
    Mx(String),
    /// No specific queue names the domain or its hosts.
    General,
}

/// An MX host or relay.
#[derive(Debug)]
pub struct HostView {
    /// Its preference.
    pub preference: u16,
    /// Its name.
    pub name: Arc<str>,
    /// Its addresses, with what is remembered of them.
    pub addresses: Vec<(IpAddr, Option<AddressRow>)>,
}

/// What a limit limits.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// Sessions with the site at a time, from each source address.
    Sessions(u32),
    /// Sessions at a time, whatever the source address.
    Workers(u32),
    /// Messages of one session: decides how often connections are opened, not how much is sent.
    MessagesPerSession(u32),
    /// Messages in a time, from each source address.
    Rate(Rate),
    /// Messages of the queue in a time, whatever the source address.
    QueueRate(Rate),
    /// Messages a minute from each source address, as they were learned.
    PerMinute(f64),
    /// Connections in a time, from each source address: limits messages where a session carries only so many.
    Connects(Rate),
    /// Connections of the queue in a time, whatever the source address.
    QueueConnects(Rate),
}

/// Who has set a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody: the program's own figure.
    Default,
    /// The configuration or the command line.
    Configured,
    /// The provider's profile.
    Provider,
    /// An earlier run.
    Learned,
}

impl Origin {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::Configured => "configured",
            Origin::Provider => "provider",
            Origin::Learned => "learned",
        }
    }
}

/// One limit.
#[derive(Clone, PartialEq, Debug)]
pub struct Limit {
    /// Its key, or what it is.
    pub name: String,
    /// What it allows.
    pub bound: Bound,
    /// Who said so.
    pub origin: Origin,
}

/// What the limits come to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Capacity {
    /// The place of the limit that binds among [`Explanation::limits`].
    pub binds: usize,
    /// Sessions at a time.
    pub sessions: u32,
    /// How long a message takes.
    pub message_time: Duration,
    /// Messages in an hour.
    pub per_hour: f64,
}

impl Explainer {
    /// One that looks up as a run with these settings would. `memory` is what earlier runs have learned.
    ///
    /// # Errors
    /// As a run that cannot start.
    pub fn new(
        settings: Settings,
        memory: Option<HostStore>,
        now_ms: i64,
    ) -> Result<Explainer, StartError> {
        let routes = Arc::new(parts::routes(&settings)?);
        let policies = Arc::new(parts::policies(&settings)?);
        let finder = parts::finder(&settings, &routes, &policies)?;
        Ok(Explainer {
            settings,
            finder,
            routes,
            memory,
            now_ms,
        })
    }

    /// How mail for `domain`, which is in A-labels, would be sent.
    ///
    /// # Errors
    /// [`DnsFailure`]: it could not be.
    pub fn explain(&self, domain: &str) -> Result<Explanation, DnsFailure> {
        let by_name = self.routes.queue_of(domain);
        let found = self.finder.find(domain, by_name)?;
        let queue = found.queue.unwrap_or(by_name);
        let in_use = sources::names(&self.settings.bind);
        let learned = self.memory.as_ref();
        let learned = learned.and_then(|store| store.site(&found.key, self.now_ms).ok());
        let mut learned = learned.unwrap_or_default();
        learned.retain(|row| in_use.contains(&row.source));
        Ok(Explanation {
            queue: self.routes.name(queue).to_owned(),
            queue_reason: self.queue_reason(domain, &found),
            hosts: self.hosts(&found),
            are_relays: !found.exchange.relays.is_empty(),
            provider: found.exchange.provider.clone(),
            tls: (found.exchange.tls, found.tls_origin),
            limits: self.limits(&found, queue, &learned),
            site: found.key,
            learned,
            sources: sources::count(&self.settings.bind),
        })
    }

    fn queue_reason(&self, domain: &str, found: &Found) -> QueueReason {
        if let Some((pattern, is_suffix)) = self.routes.pattern_of(domain) {
            return match is_suffix {
                true => QueueReason::Suffix(pattern),
                false => QueueReason::Domain(pattern),
            };
        }
        let hosts = found.exchange.plan.hosts.iter();
        let mut by_host = hosts.filter(|host| {
            let one = [&*host.name];
            self.routes.queue_of_hosts(one).is_some()
        });
        match by_host.next().filter(|_| found.queue.is_some()) {
            Some(host) => QueueReason::Mx(host.name.to_string()),
            None => QueueReason::General,
        }
    }

    fn hosts(&self, found: &Found) -> Vec<HostView> {
        let remembered = |ip: &IpAddr| {
            let store = self.memory.as_ref()?;
            store.address(*ip, self.now_ms).ok()?
        };
        let hosts = found.exchange.plan.hosts.iter();
        hosts
            .map(|host| HostView {
                preference: host.preference,
                name: Arc::clone(&host.name),
                addresses: host
                    .addresses
                    .iter()
                    .map(|ip| (*ip, remembered(ip)))
                    .collect(),
            })
            .collect()
    }

    fn limits(&self, found: &Found, queue: QueueId, learned: &[SiteRow]) -> Vec<Limit> {
        let settings = &self.settings;
        let unset = Settings::default();
        let mut limits = Limits(Vec::new());
        let general = |is_default: bool| match is_default {
            true => Origin::Default,
            false => Origin::Configured,
        };
        let sessions = settings.sessions_per_site;
        let origin = general(sessions == unset.sessions_per_site);
        limits.add("max_sessions", Bound::Sessions(sessions), origin);
        let workers = settings.workers_max;
        let origin = general(workers == unset.workers_max);
        limits.add("max_workers", Bound::Workers(workers), origin);
        let rate = settings.rate.map(Bound::Rate);
        limits.add_if("rate", rate, Origin::Configured);
        let connects = settings.connect_rate.map(Bound::Connects);
        limits.add_if("connect_rate", connects, Origin::Configured);
        let rate = settings.source_rate.map(Bound::Rate);
        limits.add_if("source_rate", rate, Origin::Configured);
        let own = queue.index().checked_sub(1);
        let own = own.and_then(|at| settings.queues.get(at));
        if let Some(own) = own {
            let bounds = [
                ("max_sessions", own.sessions_per_site.map(Bound::Sessions)),
                ("max_workers", own.workers_max.map(Bound::Workers)),
                ("rate", own.rate.map(Bound::QueueRate)),
                ("connect_rate", own.connect_rate.map(Bound::QueueConnects)),
            ];
            for (key, bound) in bounds {
                let name = format!("[queue.{}] {key}", own.name);
                limits.add_if(&name, bound, Origin::Configured);
            }
        }
        if let Some(provider) = &found.exchange.provider {
            let name = |what: &str| format!("{what} of provider {}", provider.name);
            // Who says in `[queue.X]` how many sessions a site gets knows better.
            let says = own.is_some_and(|own| own.sessions_per_site.is_some());
            let sessions = provider.sessions.filter(|_| !says).map(Bound::Sessions);
            limits.add_if(&name("sessions"), sessions, Origin::Provider);
            let rate = provider.rate.map(Bound::Rate);
            limits.add_if(&name("rate"), rate, Origin::Provider);
            let messages = provider.messages_per_session.map(Bound::MessagesPerSession);
            limits.add_if(&name("messages per session"), messages, Origin::Provider);
        }
        for row in learned {
            let from = match &*row.source {
                "" => String::new(),
                source => format!(" from {source}"),
            };
            let name = |what: &str| format!("{what}{from}");
            let learned = &row.learned;
            let ceiling = learned.sessions_ceiling.map(Bound::Sessions);
            limits.add_if(&name("sessions"), ceiling, Origin::Learned);
            let rate = learned.rate_per_minute.map(Bound::PerMinute);
            limits.add_if(&name("rate"), rate, Origin::Learned);
            let messages = learned.messages_per_session.map(Bound::MessagesPerSession);
            limits.add_if(&name("messages per session"), messages, Origin::Learned);
        }
        limits.0
    }
}

struct Limits(Vec<Limit>);

impl Limits {
    fn add(&mut self, name: &str, bound: Bound, origin: Origin) {
        self.0.push(Limit {
            name: name.to_owned(),
            bound,
            origin,
        });
    }

    fn add_if(&mut self, name: &str, bound: Option<Bound>, origin: Origin) {
        if let Some(bound) = bound {
            self.add(name, bound, origin);
        }
    }
}

impl Explanation {
    /// What the limits come to where a message takes `assumed`, or the shortest round trip that is remembered if that is longer.
    pub fn capacity(&self, assumed: Duration) -> Capacity {
        let known = self.hosts.iter().flat_map(|host| &host.addresses);
        let rtt = known
            .filter_map(|(_, row)| row.as_ref()?.rtt_ms)
            .min()
            .map(|ms| Duration::from_millis(u64::from(ms)));
        let message_time = rtt.unwrap_or_default().max(assumed);
        capacity(&self.limits, message_time, u32::from(self.sources))
    }
}

fn capacity(limits: &[Limit], message_time: Duration, sources: u32) -> Capacity {
    let per_session = HOUR_SECS / message_time.as_secs_f64().max(0.001);
    let mut sessions = u32::MAX;
    let mut lowest: Option<(usize, f64)> = None;
    let of_session = |limit: &Limit| match limit.bound {
        Bound::MessagesPerSession(most) => Some(f64::from(most)),
        _ => None,
    };
    let of_session = limits.iter().filter_map(of_session).reduce(f64::min);
    let of_session = of_session.unwrap_or(f64::INFINITY);
    for (place, limit) in limits.iter().enumerate() {
        let of_all = f64::from(sources);
        let mut at_a_time = |most: u32| {
            sessions = sessions.min(most);
            f64::from(most) * per_session
        };
        let per_hour = match limit.bound {
            Bound::Sessions(most) => at_a_time(most.saturating_mul(sources)),
            Bound::Workers(most) => at_a_time(most),
            Bound::Rate(rate) => rate.in_a_minute() * 60.0 * of_all,
            Bound::QueueRate(rate) => rate.in_a_minute() * 60.0,
            Bound::PerMinute(rate) => rate * 60.0 * of_all,
            Bound::Connects(rate) => rate.in_a_minute() * 60.0 * of_all * of_session,
            Bound::QueueConnects(rate) => rate.in_a_minute() * 60.0 * of_session,
            Bound::MessagesPerSession(_) => continue,
        };
        if lowest.is_none_or(|(_, least)| per_hour < least) {
            lowest = Some((place, per_hour));
        }
    }
    let (binds, per_hour) = lowest.unwrap_or((0, 0.0));
    Capacity {
        binds,
        sessions,
        message_time,
        per_hour,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(bound: Bound) -> Limit {
        Limit {
            name: "x".into(),
            bound,
            origin: Origin::Default,
        }
    }

    #[test]
    fn the_limit_that_lets_the_least_through_binds() {
        let fifth = Duration::from_millis(200);
        let sessions = [20, 256, 5].map(|n| limit(Bound::Sessions(n)));
        let found = capacity(&sessions, fifth, 1);
        assert_eq!((found.binds, found.sessions), (2, 5));
        assert_eq!(found.per_hour, 5.0 * 18_000.0);
        let rate = limit(Bound::Rate("1/s".parse().unwrap()));
        let found = capacity(&[&sessions[..], &[rate]].concat(), fifth, 1);
        assert_eq!((found.binds, found.per_hour.round()), (3, 3600.0));
        let many = [Bound::Sessions(5), Bound::Workers(8)].map(limit);
        let found = capacity(&many, fifth, 2);
        assert_eq!(
            (found.binds, found.sessions),
            (1, 8),
            "two addresses have 10"
        );
        let connects = limit(Bound::Connects("2/min".parse().unwrap()));
        let found = capacity(
            &[&sessions[..], std::slice::from_ref(&connects)].concat(),
            fifth,
            1,
        );
        assert_eq!(found.binds, 2, "a session may carry any number");
        let few = limit(Bound::MessagesPerSession(10));
        let found = capacity(&[&sessions[..], &[connects, few]].concat(), fifth, 1);
        assert_eq!((found.binds, found.per_hour), (3, 1200.0));
        let rate = limit(Bound::PerMinute(1e6));
        let found = capacity(
            &[
                limit(Bound::MessagesPerSession(1)),
                rate,
                limit(Bound::Sessions(1)),
            ],
            fifth,
            1,
        );
        assert_eq!((found.binds, found.per_hour), (2, 18_000.0));
    }
}
