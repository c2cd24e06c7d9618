//! The pure part of MX routing: which hosts and addresses serve a destination, and in which order they are tried.
//!
//! `dns` looks records up; here they are filtered, put together and ordered, without I/O, clock or hidden randomness.
//!
//! INVARIANTS: the hosts of an [`MxPlan`] are in ascending preference and each has at least one address that may be
//! connected to; [`MxPlan::site`] depends on the set of exchange names alone, not on which of them resolved just now, so a
//! flaky host does not split a site in two.
//!
//! Limits: at most [`HOSTS_MAX`] exchanges and [`HOST_ADDRESSES_MAX`] addresses of each are kept, [`ADDRESSES_MAX`] are
//! tried in one attempt. The addresses of this machine's own interfaces other than loopback are not recognised.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::failure::DnsFailure;

/// Most exchanges of a domain that are looked at: the best preferences win.
pub const HOSTS_MAX: usize = 16;
/// Most addresses kept of one exchange.
pub const HOST_ADDRESSES_MAX: usize = 16;
/// Most addresses tried in one attempt.
pub const ADDRESSES_MAX: usize = 5;
/// How long a plan is good for when one of its hosts could not be looked up just now.
const INCOMPLETE_TTL_MAX: Duration = Duration::from_secs(60);

/// One exchange of a destination, with the addresses that may be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MxHost {
    /// Lower is better (RFC 5321 5.1); 0 for an implicit MX and for address literals.
    pub preference: u16,
    /// The host's name: lower case, no final dot.
    pub name: Arc<str>,
    /// Its addresses, both families, never empty.
    pub addresses: Vec<IpAddr>,
}

/// Where the mail of a destination goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MxPlan {
    /// The canonical name of the MX set: sorted exchange names joined by commas. Domains with equal keys are one site.
    pub site: Arc<str>,
    /// In ascending preference; never empty.
    pub hosts: Vec<MxHost>,
    /// How long all of this may be kept.
    pub ttl: Duration,
}

/// One address to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MxAddress {
    /// The exchange it belongs to.
    pub host: Arc<str>,
    /// Where to connect to.
    pub address: IpAddr,
    /// The exchange's preference.
    pub preference: u16,
}

/// What looking up the addresses of one exchange gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostAddresses {
    /// Some addresses, usable or not.
    Found {
        /// In the order of the answer.
        addresses: Vec<IpAddr>,
        /// How long they are valid.
        ttl: Duration,
        /// False if one of the two families could not be looked up just now.
        complete: bool,
    },
    /// The name exists not, or has no address: will not change soon.
    Missing,
    /// Could not be found out now.
    Failed(DnsFailure),
}

/// An exchange before its addresses are filtered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// As in the MX record.
    pub preference: u16,
    /// Lower case, no final dot.
    pub name: Arc<str>,
    /// What its look-up gave.
    pub addresses: HostAddresses,
}

/// Sorts exchanges by preference, drops repeated names (the best preference stays) and what exceeds [`HOSTS_MAX`].
pub fn select_exchanges(mut exchanges: Vec<(u16, String)>) -> Vec<(u16, Arc<str>)> {
    exchanges.sort();
    let mut seen = BTreeSet::new();
    exchanges
        .into_iter()
        .filter(|(_, name)| seen.insert(name.clone()))
        .take(HOSTS_MAX)
        .map(|(preference, name)| (preference, Arc::from(name.as_str())))
        .collect()
}

/// Puts a plan together from what the look-ups gave. A soft failure dominates hard ones when nothing else is left: the
/// exchange that could not be looked up now may be the one that works.
pub fn assemble(
    candidates: Vec<Candidate>,
    allow_loopback: bool,
    ttl: Duration,
) -> Result<MxPlan, DnsFailure> {
    let site = site_key(candidates.iter().map(|c| &*c.name));
    let mut hosts: Vec<MxHost> = Vec::new();
    let mut ttl = ttl;
    let mut soft: Option<DnsFailure> = None;
    let mut unusable = false;
    for candidate in candidates {
        match candidate.addresses {
            HostAddresses::Missing => {}
            HostAddresses::Failed(failure) => {
                ttl = ttl.min(INCOMPLETE_TTL_MAX);
                soft.get_or_insert(failure);
            }
            HostAddresses::Found {
                mut addresses,
                ttl: host_ttl,
                complete,
            } => {
                ttl = ttl.min(host_ttl);
                if !complete {
                    ttl = ttl.min(INCOMPLETE_TTL_MAX);
                }
                addresses.retain(|&address| is_usable(address, allow_loopback));
                addresses.truncate(HOST_ADDRESSES_MAX);
                if addresses.is_empty() {
                    unusable = true;
                } else {
                    hosts.push(MxHost {
                        preference: candidate.preference,
                        name: candidate.name,
                        addresses,
                    });
                }
            }
        }
    }
    if hosts.is_empty() {
        return Err(match soft {
            Some(failure) => failure,
            None if unusable => DnsFailure::OnlyLoopback,
            None => DnsFailure::Unresolvable,
        });
    }
    hosts.sort_by_key(|host| host.preference);
    Ok(MxPlan { site, hosts, ttl })
}

/// A plan that needs no DNS: the address literal `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3).
pub fn literal(domain: &str, allow_loopback: bool) -> Result<MxPlan, DnsFailure> {
    let inner = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .ok_or(DnsFailure::BadLiteral)?;
    let address = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            inner[5..].parse::<Ipv6Addr>().map(IpAddr::V6)
        }
        _ => inner.parse::<Ipv4Addr>().map(IpAddr::V4),
    }
    .map_err(|_| DnsFailure::BadLiteral)?;
    if !is_usable(address, allow_loopback) {
        return Err(DnsFailure::OnlyLoopback);
    }
    let name: Arc<str> = Arc::from(domain.to_ascii_lowercase());
    Ok(MxPlan {
        site: name.clone(),
        hosts: vec![MxHost {
            preference: 0,
            name,
            addresses: vec![address],
        }],
        ttl: Duration::from_secs(86_400),
    })
}

/// The canonical name of a set of exchanges.
fn site_key<'a>(names: impl Iterator<Item = &'a str>) -> Arc<str> {
    let names: BTreeSet<&str> = names.collect();
    Arc::from(names.into_iter().collect::<Vec<_>>().join(","))
}

/// True if an MX may point to `address`. A hostile MX record must not lead us to ourselves or to addresses that are no
/// single remote host; addresses of private networks are fine, companies route mail there.
pub fn is_usable(address: IpAddr, allow_loopback: bool) -> bool {
    // ::ffff:127.0.0.1 reaches 127.0.0.1.
    let address = address.to_canonical();
    if address.is_loopback() {
        return allow_loopback;
    }
    match address {
        // Linux connects 0.0.0.0/8 to this host (RFC 1122 3.2.1.3).
        IpAddr::V4(v4) => {
            v4.octets()[0] != 0 && !v4.is_multicast() && !v4.is_broadcast() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
    }
}

impl MxPlan {
    /// The addresses to try in one attempt, best first: ascending preference, random among equals (RFC 5321 5.1), the two
    /// families taking turns, at most [`ADDRESSES_MAX`] of which each family has its half where both exist, so that a broken
    /// family never uses up the attempt.
    pub fn ordered(&self, rng: &mut fastrand::Rng) -> Vec<MxAddress> {
        let mut all = Vec::new();
        let mut rest = &self.hosts[..];
        while let Some(first) = rest.first() {
            let equals = rest.partition_point(|host| host.preference <= first.preference);
            all.extend(one_preference(&rest[..equals], rng));
            rest = &rest[equals..];
        }
        balance(all)
    }
}

/// All addresses of hosts of one preference: shuffled, then the families alternate.
fn one_preference(hosts: &[MxHost], rng: &mut fastrand::Rng) -> Vec<MxAddress> {
    let mut all: Vec<MxAddress> = hosts
        .iter()
        .flat_map(|host| {
            host.addresses.iter().map(|&address| MxAddress {
                host: host.name.clone(),
                address,
                preference: host.preference,
            })
        })
        .collect();
    rng.shuffle(&mut all);
    let starts_with_v6 = all.first().is_some_and(|first| first.address.is_ipv6());
    let (mut front, mut back): (Vec<_>, Vec<_>) = all
        .into_iter()
        .rev()
        .partition(|a| a.address.is_ipv6() == starts_with_v6);
    let mut out = Vec::with_capacity(front.len() + back.len());
    while !(front.is_empty() && back.is_empty()) {
        out.extend(front.pop());
        out.extend(back.pop());
    }
    out
}

/// Keeps the first [`ADDRESSES_MAX`], but leaves half of them to each family that is there.
fn balance(all: Vec<MxAddress>) -> Vec<MxAddress> {
    let v6 = all.iter().filter(|a| a.address.is_ipv6()).count();
    let v4 = all.len() - v6;
    let half = ADDRESSES_MAX / 2;
    let (mut room_v4, mut room_v6) = (ADDRESSES_MAX - v6.min(half), ADDRESSES_MAX - v4.min(half));
    all.into_iter()
        .filter(|a| {
            let room = if a.address.is_ipv6() {
                &mut room_v6
            } else {
                &mut room_v4
            };
            let fits = *room > 0;
            *room = room.saturating_sub(1);
            fits
        })
        .take(ADDRESSES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(preference: u16, name: &str, addresses: &[&str]) -> Candidate {
        Candidate {
            preference,
            name: Arc::from(name),
            addresses: HostAddresses::Found {
                addresses: addresses.iter().map(|a| ip(a)).collect(),
                ttl: Duration::from_secs(300),
                complete: true,
            },
        }
    }

    fn lacking(preference: u16, name: &str, addresses: HostAddresses) -> Candidate {
        Candidate {
            preference,
            name: Arc::from(name),
            addresses,
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn preferences_ascend_and_ties_are_random() {
        let plan = assemble(
            vec![
                found(20, "c.test", &["192.0.2.3"]),
                found(10, "a.test", &["192.0.2.1"]),
                found(10, "b.test", &["192.0.2.2"]),
            ],
            false,
            HOUR,
        )
        .unwrap();
        let mut first = BTreeSet::new();
        for seed in 0..64 {
            let order = plan.ordered(&mut fastrand::Rng::with_seed(seed));
            assert_eq!(order.len(), 3);
            assert_eq!(&*order[2].host, "c.test");
            first.insert(order[0].host.clone());
        }
        assert_eq!(
            first.len(),
            2,
            "both hosts of preference 10 come first at times"
        );
    }

    #[test]
    fn each_family_has_its_half_of_an_attempt() {
        let v4: Vec<String> = (1..9).map(|n| format!("192.0.2.{n}")).collect();
        let v4: Vec<&str> = v4.iter().map(String::as_str).collect();
        let plan = assemble(
            vec![
                found(10, "a.test", &v4),
                found(20, "b.test", &["2001:db8::1", "2001:db8::2", "2001:db8::3"]),
            ],
            false,
            HOUR,
        )
        .unwrap();
        for seed in 0..16 {
            let order = plan.ordered(&mut fastrand::Rng::with_seed(seed));
            let v6 = order.iter().filter(|a| a.address.is_ipv6()).count();
            assert_eq!((order.len(), v6), (5, 2));
        }
    }

    #[test]
    fn families_of_one_preference_take_turns() {
        let plan = assemble(
            vec![found(
                10,
                "a.test",
                &["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"],
            )],
            false,
            HOUR,
        )
        .unwrap();
        for seed in 0..16 {
            let order = plan.ordered(&mut fastrand::Rng::with_seed(seed));
            assert_ne!(order[0].address.is_ipv6(), order[1].address.is_ipv6());
            assert_ne!(order[2].address.is_ipv6(), order[3].address.is_ipv6());
        }
    }

    #[test]
    fn a_single_family_may_use_the_whole_attempt() {
        let v6: Vec<String> = (1..9).map(|n| format!("2001:db8::{n}")).collect();
        let v6: Vec<&str> = v6.iter().map(String::as_str).collect();
        let plan = assemble(vec![found(10, "a.test", &v6)], false, HOUR).unwrap();
        assert_eq!(plan.ordered(&mut fastrand::Rng::with_seed(1)).len(), 5);
    }

    #[test]
    fn loopback_and_its_disguises_are_never_used_unasked() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "169.254.169.254",
            "fe80::1",
        ] {
            assert!(!is_usable(ip(address), false), "{address}");
        }
        assert!(is_usable(ip("127.9.9.9"), true) && is_usable(ip("::1"), true));
        assert!(!is_usable(ip("0.0.0.0"), true) && !is_usable(ip("::"), true));
        assert!(is_usable(ip("10.0.0.1"), false) && is_usable(ip("2001:db8::1"), false));
    }

    #[test]
    fn only_loopback_is_a_failure_of_its_own_and_soft_errors_dominate() {
        let loopback = || found(10, "a.test", &["127.0.0.1"]);
        assert_eq!(
            assemble(vec![loopback()], false, HOUR),
            Err(DnsFailure::OnlyLoopback)
        );
        let failed = HostAddresses::Failed(DnsFailure::TimedOut);
        assert_eq!(
            assemble(vec![loopback(), lacking(20, "b.test", failed)], false, HOUR),
            Err(DnsFailure::TimedOut)
        );
        let missing = || lacking(5, "c.test", HostAddresses::Missing);
        assert_eq!(
            assemble(vec![missing()], false, HOUR),
            Err(DnsFailure::Unresolvable)
        );
        assert!(assemble(vec![missing(), loopback()], true, HOUR).is_ok());
    }

    #[test]
    fn the_site_key_ignores_order_and_what_failed_to_resolve() {
        let failed = HostAddresses::Failed(DnsFailure::TimedOut);
        let one = assemble(
            vec![
                found(10, "b.test", &["192.0.2.1"]),
                lacking(20, "a.test", failed),
            ],
            false,
            HOUR,
        )
        .unwrap();
        let two = assemble(
            vec![
                found(5, "a.test", &["192.0.2.9"]),
                found(5, "b.test", &["192.0.2.1"]),
            ],
            false,
            HOUR,
        )
        .unwrap();
        assert_eq!((&*one.site, &one.site), ("a.test,b.test", &two.site));
        assert_eq!(
            one.ttl,
            Duration::from_secs(60),
            "half a plan is soon asked again"
        );
        assert_eq!(two.ttl, Duration::from_secs(300));
    }

    #[test]
    fn exchanges_are_sorted_capped_and_named_once() {
        let many: Vec<(u16, String)> = (0..100u16)
            .rev()
            .map(|n| (n, format!("mx{n}.test")))
            .collect();
        let kept = select_exchanges(many);
        assert_eq!(kept.len(), HOSTS_MAX);
        assert_eq!(&*kept[0].1, "mx0.test");
        let twice = select_exchanges(vec![(20, "a.test".into()), (10, "a.test".into())]);
        assert_eq!(twice, vec![(10, Arc::from("a.test"))]);
    }

    #[test]
    fn address_literals_need_no_dns() {
        let plan = literal("[192.0.2.7]", false).unwrap();
        assert_eq!(plan.hosts[0].addresses, vec![ip("192.0.2.7")]);
        let plan = literal("[IPv6:2001:db8::7]", false).unwrap();
        assert_eq!(plan.hosts[0].addresses, vec![ip("2001:db8::7")]);
        assert_eq!(literal("[127.0.0.1]", false), Err(DnsFailure::OnlyLoopback));
        assert!(literal("[127.0.0.1]", true).is_ok());
        for bad in [
            "[]",
            "[",
            "192.0.2.7]",
            "[2001:db8::7]",
            "[IPv6:192.0.2.7]",
            "[IPv6é]",
            "[a.test]",
        ] {
            assert_eq!(literal(bad, true), Err(DnsFailure::BadLiteral), "{bad}");
        }
    }
}
