//! The resolver pool: a few threads that find out where destinations' mail goes, so that no worker and no queue ever
//! waits for the DNS.
//!
//! A dispatcher asks; the answer goes to its queue's inbox as an event. All answers with the same set of MX hosts carry
//! the same [`SiteId`], whichever queue asked; so do all whose hosts belong to one large provider, whatever their sets.
//!
//! Relays are a site for each TLS policy that makes a difference to them. Mail of several policies meets there, and if the
//! relay cannot do what one of them asks for, the back-off of that one must not hold the others up; nor does mail under
//! `may` then leave in a session that was opened in clear for somebody else's. The price: limits of a site hold for each.
//!
//! INVARIANTS: the policy of an exchange is that of the queue which will handle the mail, not of the one that asked; whoever is
//! told a site's number knows that the site has been introduced ([`Found::meet`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use super::settings::Relay;
use crate::dns::{DnsFailure, MxAddress, MxHost, MxPlan, Resolver};
use crate::mail::{QueueId, SiteId};
use crate::route::RouteTable;
use crate::route::providers::{Provider, Providers};
use crate::smtp::TlsPolicy;

/// A relay's addresses are looked up again after this time.
const RELAY_TTL: Duration = Duration::from_secs(300);

/// Where the mail of a destination goes, and how it is connected to.
#[derive(Debug)]
pub struct Exchange {
    /// The hosts, in order of preference.
    pub plan: MxPlan,
    /// Their port, if they are MX hosts.
    pub port: u16,
    /// The relays, if the hosts are relays: a host's preference is the place of its relay.
    pub relays: Vec<Relay>,
    /// Whether sessions must be protected.
    pub tls: TlsPolicy,
    /// Whose hosts they are, if that is a large provider.
    pub provider: Option<Arc<Provider>>,
}

impl Exchange {
    /// True if a session with the server `mx` at `ip` leads where this mail goes. Within a site that is a set of hosts any of
    /// them does. A provider's domains share limits, not servers: one of them may well refuse mail for another's hosts (or be
    /// verified by another name), so the session must be with one of this domain's own.
    pub fn leads_to(&self, mx: &str, ip: Option<IpAddr>) -> bool {
        if !self.provider.as_ref().is_some_and(|it| it.rolls_up) {
            return true;
        }
        let is_same = |host: &MxHost| {
            let is_at = |ip| host.addresses.contains(&ip);
            *host.name == *mx || self.tls != TlsPolicy::Verify && ip.is_some_and(is_at)
        };
        self.plan.hosts.iter().any(is_same)
    }

    /// The relay behind an address of the plan.
    pub fn relay(&self, place: &MxAddress) -> Option<&Relay> {
        self.relays.get(usize::from(place.preference))
    }
}

/// Finds exchanges and names sites.
pub struct Finder {
    means: Means,
    fallback: Vec<Relay>,
    port: u16,
    routes: Arc<RouteTable>,
    policies: Arc<Policies>,
    providers: Arc<Providers>,
    sites: Mutex<HashMap<SiteKey, (SiteId, Arc<Once>)>>,
    answered: AtomicBool,
}

/// What makes a site: its hosts, and, for relays, the policy.
type SiteKey = (Arc<str>, Option<TlsPolicy>);

/// What a look-up has found.
#[derive(Debug)]
pub struct Found {
    /// The site.
    pub site: SiteId,
    /// What makes it one, for people and for other runs: its set of MX hosts, its provider or its relays.
    pub key: Arc<str>,
    /// How it is reached.
    pub exchange: Exchange,
    /// The specific queue that handles mail for these hosts, if it is not the one that asked.
    pub queue: Option<QueueId>,
    /// Why the policy is what it is.
    pub tls_origin: PolicyOrigin,
    met: Arc<Once>,
}

impl Found {
    /// Calls `introduce` if the site is met for the first time. Who meets it at the same time waits.
    pub fn meet(&self, introduce: impl FnOnce()) {
        // A panic of somebody else who began with it is told elsewhere; the site is then introduced by the next.
        self.met.call_once_force(|_| introduce());
    }
}

/// How exchanges are found.
pub enum Means {
    /// MX look-up.
    Dns(Box<Resolver>),
    /// Everything goes to relays.
    Relays(Vec<Relay>),
}

impl Finder {
    /// A finder; `port` is the port of MX hosts, `fallback` are the relays for mail that its own hosts do not take.
    pub fn new(
        means: Means,
        fallback: Vec<Relay>,
        port: u16,
        routes: Arc<RouteTable>,
        policies: Arc<Policies>,
        providers: Arc<Providers>,
    ) -> Finder {
        Finder {
            means,
            fallback,
            port,
            routes,
            policies,
            providers,
            sites: Mutex::default(),
            answered: AtomicBool::new(false),
        }
    }

    /// The exchange for the mail of the queue `asker` to a destination, and its site. Blocks as long as the DNS does.
    ///
    /// # Errors
    /// [`DnsFailure`], to be made a verdict.
    pub fn find(&self, destination: &str, asker: QueueId) -> Result<Found, DnsFailure> {
        let (found, relays) = match &self.means {
            Means::Dns(resolver) => (resolver.route_to(destination), Vec::new()),
            Means::Relays(relays) => (relay_plan(relays), relays.clone()),
        };
        if !matches!(&found, Err(failure) if failure.is_soft()) {
            self.answered.store(true, Relaxed);
        }
        let plan = found?;
        let hosts = plan.hosts.iter().map(|host| &*host.name);
        let by_hosts = self.routes.queue_of_hosts(hosts);
        // Queues for promoted sites ask as the general one does.
        let is_configured = specific(asker).is_some_and(|at| at < self.policies.queues.len());
        let queue = by_hosts.filter(|_| !is_configured);
        let provider = match &self.means {
            // All names of the set, those without an address included.
            Means::Dns(_) => self.providers.of_hosts(plan.site.split(',')).cloned(),
            Means::Relays(_) => None,
        };
        let queue_of_mail = queue.unwrap_or(asker);
        let tls = (self.policies).towards(destination, queue_of_mail, provider.as_deref());
        Ok(self.found(plan, relays, provider, tls, queue))
    }

    /// These hosts, or relays, under this policy, as a site and the way to it.
    fn found(
        &self,
        plan: MxPlan,
        relays: Vec<Relay>,
        provider: Option<Arc<Provider>>,
        (tls, tls_origin): (TlsPolicy, PolicyOrigin),
        queue: Option<QueueId>,
    ) -> Found {
        let key = match provider.as_ref().filter(|provider| provider.rolls_up) {
            Some(provider) => provider_key(&provider.name),
            None => Arc::clone(&plan.site),
        };
        let (site, met) = self.site((Arc::clone(&key), policy_among(&relays, tls)));
        let exchange = Exchange {
            plan,
            port: self.port,
            relays,
            tls,
            provider,
        };
        Found {
            site,
            key,
            exchange,
            queue,
            tls_origin,
            met,
        }
    }

    /// The exchange for the mail of the queue `asker` to a destination whose own hosts do not take it: the fallback relays,
    /// under the TLS policy of the destination.
    ///
    /// # Errors
    /// [`DnsFailure`]: none of them has an address for now.
    pub fn find_fallback(&self, destination: &str, asker: QueueId) -> Result<Found, DnsFailure> {
        let relays = self.fallback.clone();
        let plan = relay_plan(&relays).map_err(|error| match error.is_soft() {
            true => error,
            // The relay's name is ours to mend: no reason to refuse anybody's mail.
            false => DnsFailure::ServerFailed(error.to_string()),
        })?;
        let tls = self.policies.towards(destination, asker, None);
        Ok(self.found(plan, relays, None, tls, None))
    }

    /// Whom a failure to find the way to `destination` is about: it, or the relays that take its mail.
    pub fn subject<'a>(&self, destination: &'a str, is_fallback: bool) -> Cow<'a, str> {
        let relays = match &self.means {
            _ if is_fallback => &self.fallback,
            Means::Dns(_) => return Cow::Borrowed(destination),
            Means::Relays(relays) => relays,
        };
        let hosts: Vec<&str> = relays.iter().map(|relay| relay.host.as_str()).collect();
        let kind = if is_fallback {
            "fallback relay"
        } else {
            "relay"
        };
        Cow::Owned(format!("{kind} {}", hosts.join(", ")))
    }

    /// True if any look-up has been answered in this run.
    pub fn has_answer(&self) -> bool {
        self.answered.load(Relaxed)
    }

    fn site(&self, key: SiteKey) -> (SiteId, Arc<Once>) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let next = SiteId(sites.len() as u32);
        let new = || (next, Arc::new(Once::new()));
        sites.entry(key).or_insert_with(new).clone()
    }
}

/// The key of the one site that a provider's domains are. No set of MX hosts has a space in it.
pub fn provider_key(name: &str) -> Arc<str> {
    Arc::from(format!("provider {name}"))
}

/// Who has said how sessions are protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyOrigin {
    /// `[domain."..."]`.
    Domain,
    /// `[queue.NAME]`.
    Queue,
    /// The provider's servers are known for TLS.
    Provider,
    /// The general policy.
    General,
}

/// Whether sessions must be protected: by domain, else by queue, else in general.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The general policy.
    pub general: TlsPolicy,
    /// Those of the specific queues, in order.
    pub queues: Vec<Option<TlsPolicy>>,
    /// The domains that have policies of their own: their patterns stand as queues of this table.
    pub domains: RouteTable,
    /// Those policies, in order.
    pub of_domains: Vec<TlsPolicy>,
}

impl Policies {
    /// The policy of a domain itself, if it has one.
    pub fn of_domain(&self, domain: &str) -> Option<TlsPolicy> {
        let own = specific(self.domains.queue_of(domain))?;
        self.of_domains.get(own).copied()
    }

    /// The policy for mail of `queue` to `domain`, whose hosts may be a provider's, and who said so. Where TLS is only a wish
    /// of the general policy, a provider that is known for it gets nothing in clear: what offers none there is not its server.
    fn towards(
        &self,
        domain: &str,
        queue: QueueId,
        provider: Option<&Provider>,
    ) -> (TlsPolicy, PolicyOrigin) {
        let queues = || specific(queue).and_then(|at| *self.queues.get(at)?);
        if let Some(tls) = self.of_domain(domain) {
            (tls, PolicyOrigin::Domain)
        } else if let Some(tls) = queues() {
            (tls, PolicyOrigin::Queue)
        } else if self.general == TlsPolicy::May && provider.is_some_and(|it| it.expects_tls) {
            (TlsPolicy::Require, PolicyOrigin::Provider)
        } else {
            (self.general, PolicyOrigin::General)
        }
    }
}

/// The place of a specific queue among its like.
fn specific(queue: QueueId) -> Option<usize> {
    queue.index().checked_sub(1)
}

/// The policy as far as it makes a difference to these relays; `None` for MX hosts.
fn policy_among(relays: &[Relay], tls: TlsPolicy) -> Option<TlsPolicy> {
    if relays.is_empty() {
        None
    } else if relays.iter().all(|relay| relay.socket.is_some()) {
        Some(TlsPolicy::None)
    } else if tls != TlsPolicy::Verify && relays.iter().all(|relay| relay.implicit_tls) {
        Some(TlsPolicy::Implicit)
    } else {
        Some(tls)
    }
}

/// The relays as a plan of one site. Names are looked up as the system does (hosts file included), not as MX.
fn relay_plan(relays: &[Relay]) -> Result<MxPlan, DnsFailure> {
    let mut failure = DnsFailure::NoAddress;
    let mut hosts = Vec::new();
    for (place, relay) in relays.iter().enumerate() {
        match relay_addresses(relay) {
            Ok(addresses) => {
                hosts.push(MxHost {
                    preference: place as u16,
                    name: Arc::from(relay.host.as_str()),
                    addresses,
                });
            }
            Err(error) => failure = error,
        }
    }
    if hosts.is_empty() {
        return Err(failure);
    }
    let names: Vec<String> = relays
        .iter()
        .map(|relay| format!("{}:{}", relay.host, relay.port))
        .collect();
    let site = Arc::from(format!("relay {}", names.join(",")));
    Ok(MxPlan {
        site,
        hosts,
        ttl: RELAY_TTL,
    })
}

fn relay_addresses(relay: &Relay) -> Result<Vec<IpAddr>, DnsFailure> {
    if relay.socket.is_some() {
        // Never connected to: the socket is.
        return Ok(vec![IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)]);
    }
    if let Ok(ip) = relay.host.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    let found = (relay.host.as_str(), relay.port).to_socket_addrs();
    let addresses: Vec<IpAddr> = found
        .map_err(|error| DnsFailure::ServerFailed(error.to_string()))?
        .map(|address: SocketAddr| address.ip())
        .collect();
    if addresses.is_empty() {
        Err(DnsFailure::NoAddress)
    } else {
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests;
