//! Source addresses: which of those configured a session is made from.
//!
//! The permit table gives each session the number of a source. Addresses of both families are paired in the order in which
//! they are configured: source 0 is the first IPv4 and the first IPv6 address, and so on; where one family has fewer, they
//! serve again. So every source can reach every host, and a limit per source holds for each address of the longer list.

use std::net::IpAddr;
use std::sync::Arc;

use crate::mail::SourceNo;

/// How many sources these addresses make: at least 1.
pub fn count(bind: &[IpAddr]) -> u8 {
    let fours = bind.iter().filter(|address| address.is_ipv4()).count();
    let longer = fours.max(bind.len() - fours);
    u8::try_from(longer).unwrap_or(u8::MAX).max(1)
}

/// The address of a source towards a peer; `None`: the system's choice, since none of its family is configured.
pub fn address(bind: &[IpAddr], source: SourceNo, peer: IpAddr) -> Option<IpAddr> {
    let is_of_family = |address: &&IpAddr| address.is_ipv4() == peer.is_ipv4();
    let of_family = || bind.iter().filter(is_of_family);
    let place = source.index() % of_family().count().max(1);
    of_family().nth(place).copied()
}

/// The names of all sources, as they stand in the host memory: their addresses; empty for the system's choice.
pub fn names(bind: &[IpAddr]) -> Vec<Arc<str>> {
    let of_family = |is_four: bool, place: usize| {
        let family: Vec<&IpAddr> = bind.iter().filter(|ip| ip.is_ipv4() == is_four).collect();
        let place = place % family.len().max(1);
        family.get(place).map(ToString::to_string)
    };
    let name = |place: u8| {
        let both = [true, false].into_iter();
        let addresses: Vec<String> = both
            .filter_map(|is_four| of_family(is_four, usize::from(place)))
            .collect();
        Arc::from(addresses.join(","))
    };
    (0..count(bind)).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_reaches_both_families_if_both_are_configured() {
        let bind = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let four: IpAddr = "198.51.100.1".parse().unwrap();
        let six: IpAddr = "2001:db8::25".parse().unwrap();
        assert_eq!(count(&bind), 2);
        let used = [0, 1].map(|source| address(&bind, SourceNo(source), four).unwrap());
        assert_eq!(used, [bind[0], bind[2]]);
        let used = [0, 1].map(|source| address(&bind, SourceNo(source), six).unwrap());
        assert_eq!(used, [bind[1], bind[1]]);
        let named: Vec<String> = names(&bind).iter().map(ToString::to_string).collect();
        assert_eq!(named, ["192.0.2.1,2001:db8::1", "192.0.2.2,2001:db8::1"]);
        assert_eq!(names(&[]), [Arc::from("")]);
        assert_eq!((count(&[]), address(&[], SourceNo(0), four)), (1, None));
        assert_eq!(address(&bind[..1], SourceNo(0), six), None);
    }
}
