//! The resolver pool: a few threads that find out where destinations' mail goes, so that no worker and no queue ever
//! waits for the DNS.
//!
//! A dispatcher asks; the answer goes to its queue's inbox as an event. All answers with the same set of MX hosts carry
//! the same [`SiteId`], whichever queue asked.
//!
//! Relays are a site for each TLS policy that makes a difference to them. Mail of several policies meets there, and if the
//! relay cannot do what one of them asks for, the back-off of that one must not hold the others up; nor does mail under
//! `may` then leave in a session that was opened in clear for somebody else's. The price: limits of a site hold for each.
//!
//! INVARIANT: the policy of an exchange is that of the queue which will handle the mail, not of the one that asked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::settings::Relay;
use crate::dns::{DnsFailure, MxAddress, MxHost, MxPlan, Resolver};
use crate::mail::{QueueId, SiteId};
use crate::route::RouteTable;
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
}

impl Exchange {
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
    sites: Mutex<HashMap<SiteKey, SiteId>>,
    answered: AtomicBool,
}

/// What makes a site: its hosts, and, for relays, the policy.
type SiteKey = (Arc<str>, Option<TlsPolicy>);

/// What a look-up has found.
#[derive(Debug)]
pub struct Found {
    /// The site.
    pub site: SiteId,
    /// How it is reached.
    pub exchange: Exchange,
    /// The specific queue that handles mail for these hosts, if it is not the one that asked.
    pub queue: Option<QueueId>,
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
    ) -> Finder {
        Finder {
            means,
            fallback,
            port,
            routes,
            policies,
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
        let tls = self.policies.of(destination, queue.unwrap_or(asker));
        Ok(self.found(plan, relays, tls, queue))
    }

    /// These hosts, or relays, under this policy, as a site and the way to it.
    fn found(
        &self,
        plan: MxPlan,
        relays: Vec<Relay>,
        tls: TlsPolicy,
        queue: Option<QueueId>,
    ) -> Found {
        let key = (Arc::clone(&plan.site), policy_among(&relays, tls));
        let exchange = Exchange {
            plan,
            port: self.port,
            relays,
            tls,
        };
        Found {
            site: self.site(key),
            exchange,
            queue,
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
        let tls = self.policies.of(destination, asker);
        Ok(self.found(plan, relays, tls, None))
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

    fn site(&self, key: SiteKey) -> SiteId {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let next = SiteId(sites.len() as u32);
        *sites.entry(key).or_insert(next)
    }
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

    fn of(&self, domain: &str, queue: QueueId) -> TlsPolicy {
        let queues = specific(queue).and_then(|at| *self.queues.get(at)?);
        self.of_domain(domain).or(queues).unwrap_or(self.general)
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
mod tests {
    use super::*;
    use crate::route::QueueRule;
    use crate::smtp::Protocol;

    fn relay(host: &str, port: u16) -> Relay {
        Relay {
            host: host.into(),
            port,
            protocol: Protocol::Smtp,
            implicit_tls: false,
            socket: None,
        }
    }

    fn policies() -> Policies {
        let rule = QueueRule {
            name: "d".into(),
            domains: vec![".bank.test".into()],
            mx: Vec::new(),
        };
        Policies {
            general: TlsPolicy::May,
            queues: vec![Some(TlsPolicy::Require), None],
            domains: RouteTable::new(&[rule]).unwrap(),
            of_domains: vec![TlsPolicy::Verify],
        }
    }

    fn finder(relays: Vec<Relay>) -> Finder {
        let strict = QueueRule {
            name: "strict".into(),
            mx: vec!["localhost".into()],
            ..QueueRule::default()
        };
        let routes = Arc::new(RouteTable::new(&[strict]).unwrap());
        let fallback = vec![relay("127.0.0.9", 587)];
        Finder::new(
            Means::Relays(relays),
            fallback,
            25,
            routes,
            Arc::new(policies()),
        )
    }

    #[test]
    fn relays_are_one_site_for_all_destinations_of_a_policy() {
        let relays = vec![relay("127.0.0.1", 2525), relay("127.0.0.2", 26)];
        let finder = finder(relays);
        let find = |name: &str, queue: u16| finder.find(name, QueueId(queue)).unwrap();
        let one = find("a.test", 0);
        assert_eq!(one.site, find("b.test", 0).site);
        assert_eq!(one.site, find("b.test", 2).site, "queues share a site");
        let strict = find("a.test", 1);
        assert_eq!(strict.exchange.tls, TlsPolicy::Require);
        let bank = find("x.bank.test", 0);
        assert_eq!(bank.exchange.tls, TlsPolicy::Verify);
        assert!(strict.site != one.site && bank.site != one.site && bank.site != strict.site);
        let ports: Vec<u16> = one
            .exchange
            .plan
            .ordered(&mut fastrand::Rng::with_seed(1))
            .iter()
            .map(|place| one.exchange.relay(place).unwrap().port)
            .collect();
        assert_eq!(ports, [2525, 26]);
    }

    #[test]
    fn the_policy_is_that_of_the_queue_that_the_hosts_lead_to() {
        let finder = finder(vec![relay("localhost", 25)]);
        let found = finder.find("a.test", QueueId::GENERAL).unwrap();
        assert_eq!(found.queue, Some(QueueId(1)));
        assert_eq!(found.exchange.tls, TlsPolicy::Require);
        let found = finder.find("a.test", QueueId(2)).unwrap();
        assert_eq!((found.queue, found.exchange.tls), (None, TlsPolicy::May));
    }

    #[test]
    fn a_policy_is_no_site_where_it_makes_no_difference() {
        let mut relay = relay("127.0.0.1", 465);
        let site = |relay: &Relay, tls| policy_among(std::slice::from_ref(relay), tls);
        use TlsPolicy::{May, Require, Verify};
        assert_ne!(site(&relay, May), site(&relay, Require));
        relay.implicit_tls = true;
        assert_eq!(site(&relay, May), site(&relay, Require));
        assert_ne!(site(&relay, May), site(&relay, Verify));
        relay.socket = Some("/run/lmtp".into());
        assert_eq!(site(&relay, May), site(&relay, Verify));
        assert_eq!(policy_among(&[], Verify), None);
    }

    #[test]
    fn a_failure_names_the_relays_and_not_the_destination() {
        let relays = vec![relay("a.relay.invalid", 25), relay("b.relay.invalid", 25)];
        let finder = finder(relays);
        let subject = finder.subject("a.test", false);
        assert_eq!(subject, "relay a.relay.invalid, b.relay.invalid");
    }

    #[test]
    fn a_domain_s_policy_goes_before_its_queue_s_and_that_before_the_general_one() {
        let policies = policies();
        assert_eq!(policies.of("x.bank.test", QueueId(1)), TlsPolicy::Verify);
        assert_eq!(policies.of("bank.test", QueueId(1)), TlsPolicy::Require);
        assert_eq!(policies.of("a.test", QueueId(2)), TlsPolicy::May);
        assert_eq!(policies.of("a.test", QueueId::GENERAL), TlsPolicy::May);
    }

    #[test]
    fn fallback_relays_are_a_site_of_their_own_under_the_policy_of_the_destination() {
        let finder = finder(vec![relay("127.0.0.1", 2525)]);
        let own = finder.find("a.test", QueueId::GENERAL).unwrap();
        let fallback = |name: &str, queue| finder.find_fallback(name, QueueId(queue)).unwrap();
        let found = fallback("a.test", 0);
        assert_ne!(found.site, own.site);
        assert_eq!(found.site, fallback("b.test", 2).site);
        assert_eq!((found.queue, found.exchange.tls), (None, TlsPolicy::May));
        assert_eq!(found.exchange.relays[0].port, 587);
        assert_eq!(fallback("x.bank.test", 0).exchange.tls, TlsPolicy::Verify);
        let subject = finder.subject("a.test", true);
        assert_eq!(subject, "fallback relay 127.0.0.9");
    }

    #[test]
    fn sites_are_numbered_by_their_set_of_hosts() {
        let finder = finder(vec![relay("::1", 1)]);
        let site = |name: &str| finder.site((name.into(), None));
        let (a, b) = (site("mx1.a.test"), site("mx1.b.test"));
        assert_ne!(a, b);
        assert_eq!(a, site("mx1.a.test"));
    }
}
