//! The resolver pool: a few threads that find out where destinations' mail goes, so that no worker and no queue ever
//! waits for the DNS.
//!
//! A dispatcher asks; the answer goes to its queue's inbox as an event. All answers with the same set of MX hosts carry
//! the same [`SiteId`], whichever queue asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::settings::Relay;
use crate::dns::{DnsFailure, MxHost, MxPlan, Resolver};
use crate::mail::SiteId;

/// A relay's addresses are looked up again after this time.
const RELAY_TTL: Duration = Duration::from_secs(300);

/// Where the mail of a destination goes, and how it is connected to.
#[derive(Debug)]
pub struct Exchange {
    /// The hosts, in order of preference.
    pub plan: MxPlan,
    /// Their port.
    pub port: u16,
}

/// Finds exchanges and names sites.
pub struct Finder {
    means: Means,
    port: u16,
    sites: Mutex<HashMap<Arc<str>, SiteId>>,
    answered: AtomicBool,
}

/// How exchanges are found.
pub enum Means {
    /// MX look-up.
    Dns(Box<Resolver>),
    /// Everything goes to one relay.
    Relay(Relay),
}

impl Finder {
    /// A finder; `port` is the port of MX hosts.
    pub fn new(means: Means, port: u16) -> Finder {
        Finder {
            means,
            port,
            sites: Mutex::default(),
            answered: AtomicBool::new(false),
        }
    }

    /// The exchange for a destination, and its site. Blocks as long as the DNS does.
    ///
    /// # Errors
    /// [`DnsFailure`], to be made a verdict.
    pub fn find(&self, destination: &str) -> Result<(SiteId, Exchange), DnsFailure> {
        let found = match &self.means {
            Means::Dns(resolver) => resolver.route_to(destination).map(|plan| Exchange {
                plan,
                port: self.port,
            }),
            Means::Relay(relay) => relay_plan(relay).map(|plan| Exchange {
                plan,
                port: relay.port,
            }),
        };
        if !matches!(&found, Err(failure) if failure.is_soft()) {
            self.answered.store(true, Relaxed);
        }
        let exchange = found?;
        Ok((self.site(&exchange.plan.site), exchange))
    }

    /// True if any look-up has been answered in this run.
    pub fn has_answer(&self) -> bool {
        self.answered.load(Relaxed)
    }

    fn site(&self, key: &Arc<str>) -> SiteId {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let next = SiteId(sites.len() as u32);
        *sites.entry(Arc::clone(key)).or_insert(next)
    }
}

/// The relay as a plan of one host. Its name is looked up as the system does (hosts file included), not as an MX.
fn relay_plan(relay: &Relay) -> Result<MxPlan, DnsFailure> {
    let addresses: Vec<IpAddr> = match relay.host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => (relay.host.as_str(), relay.port)
            .to_socket_addrs()
            .map_err(|error| DnsFailure::ServerFailed(error.to_string()))?
            .map(|address: SocketAddr| address.ip())
            .collect(),
    };
    if addresses.is_empty() {
        return Err(DnsFailure::NoAddress);
    }
    let name: Arc<str> = Arc::from(relay.host.as_str());
    let site = Arc::from(format!("relay {}:{}", relay.host, relay.port));
    Ok(MxPlan {
        site,
        hosts: vec![MxHost {
            preference: 0,
            name,
            addresses,
        }],
        ttl: RELAY_TTL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_one_site_for_all_destinations() {
        let relay = Relay {
            host: "127.0.0.1".into(),
            port: 2525,
        };
        let finder = Finder::new(Means::Relay(relay), 25);
        let (one, exchange) = finder.find("a.test").unwrap();
        let (other, _) = finder.find("b.test").unwrap();
        assert_eq!(one, other);
        assert_eq!(
            (
                exchange.port,
                exchange.plan.hosts[0].addresses[0].to_string()
            ),
            (2525, "127.0.0.1".into())
        );
    }

    #[test]
    fn sites_are_numbered_by_their_set_of_hosts() {
        let finder = Finder::new(
            Means::Relay(Relay {
                host: "::1".into(),
                port: 1,
            }),
            25,
        );
        let a = finder.site(&Arc::from("mx1.a.test"));
        let b = finder.site(&Arc::from("mx1.b.test"));
        assert_ne!(a, b);
        assert_eq!(a, finder.site(&Arc::from("mx1.a.test")));
    }
}
