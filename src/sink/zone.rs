//! A DNS zone in memory, for tests, labs and `rehearse`: what the embedded name server answers, without any I/O.
//!
//! Records are explicit (read from lines, see [`super::zone_text`]) or synthetic: with [`Zone::synthetic`] every other name D
//! has `MX 10 mx1.D`, `MX 20 mx2.D` and an address of its own in 127/8, so that every domain is served by hosts of its own.
//!
//! How a name is answered: its own records, if it has any; else the fate ([`Fate`]) of itself or the nearest name above it;
//! else NODATA if something lies below it; else the synthetic rule; else NXDOMAIN. CNAMEs are followed within the zone.
//!
//! Limits: no wildcards, no delegation; names compare without regard to ASCII case.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Time to live of records that name none.
pub const TTL_DEFAULT: u32 = 300;
/// Longest CNAME chain that is followed.
const CNAME_HOPS_MAX: usize = 8;

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    /// A mail exchanger; the name is empty (the root) for the null MX of RFC 7505.
    Mx(u16, String),
    /// An address: an A or an AAAA record.
    Address(IpAddr),
    /// Another name for the same thing.
    Cname(String),
}

/// A record with its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneRecord {
    /// Lower case, no final dot.
    pub owner: String,
    /// Seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What is asked for. Other types exist and have no records here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// MX.
    Mx,
    /// A.
    A,
    /// AAAA.
    Aaaa,
    /// CNAME.
    Cname,
    /// Any other type.
    Other,
}

/// How a name without records of its own, and all names below it, are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// SERVFAIL.
    ServerFailure,
    /// No answer at all.
    Silence,
    /// NXDOMAIN.
    NoSuchName,
}

/// The kind of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Records, or none for a name that exists (NODATA).
    Records,
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL.
    ServerFailure,
    /// Nothing is to be sent.
    Silence,
}

/// What is to be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneAnswer {
    /// Which kind of answer.
    pub outcome: Outcome,
    /// CNAMEs first, in their order, then the records asked for.
    pub records: Vec<ZoneRecord>,
    /// How long to wait before answering.
    pub delay: Duration,
}

/// The records and rules.
#[derive(Clone, Default, Debug)]
pub struct Zone {
    records: HashMap<String, Vec<ZoneRecord>>,
    /// Names that exist because something lies below them.
    above: HashSet<String>,
    fates: HashMap<String, Fate>,
    delays: HashMap<String, Duration>,
    synthetic: bool,
}

impl Zone {
    /// An empty zone: everything is NXDOMAIN.
    pub fn new() -> Zone {
        Zone::default()
    }

    /// A zone in which every name that nothing else is said about has two exchanges and addresses of its own.
    pub fn synthetic() -> Zone {
        Zone {
            synthetic: true,
            ..Zone::default()
        }
    }

    /// Switches the synthetic rule on or off.
    pub fn set_synthetic(&mut self, synthetic: bool) {
        self.synthetic = synthetic;
    }

    /// Adds a record.
    pub fn add(&mut self, owner: &str, ttl: u32, data: Data) {
        let owner = canonical(owner);
        let mut rest = owner.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            self.above.insert(parent.to_owned());
            rest = parent;
        }
        let record = ZoneRecord {
            owner: owner.clone(),
            ttl,
            data,
        };
        self.records.entry(owner).or_default().push(record);
    }

    /// Adds an MX record; the exchange `.` makes it the null MX.
    pub fn add_mx(&mut self, owner: &str, preference: u16, exchange: &str) {
        self.add(
            owner,
            TTL_DEFAULT,
            Data::Mx(preference, canonical(exchange)),
        );
    }

    /// Adds an A or AAAA record.
    pub fn add_address(&mut self, owner: &str, address: IpAddr) {
        self.add(owner, TTL_DEFAULT, Data::Address(address));
    }

    /// Decides how `name` and all names below it are answered where they have no records of their own.
    pub fn set_fate(&mut self, name: &str, fate: Fate) {
        self.fates.insert(canonical(name), fate);
    }

    /// Answers for exactly this name wait so long.
    pub fn set_delay(&mut self, name: &str, delay: Duration) {
        self.delays.insert(canonical(name), delay);
    }

    /// What a question is answered with.
    pub fn answer(&self, name: &str, kind: Kind) -> ZoneAnswer {
        let name = canonical(name);
        let delay = self.delays.get(&name).copied().unwrap_or_default();
        let mut records = Vec::new();
        let outcome = self.collect(name, kind, &mut records);
        ZoneAnswer {
            outcome,
            records,
            delay,
        }
    }

    /// Follows CNAMEs from `name` and gathers what is found on the way.
    fn collect(&self, mut name: String, kind: Kind, found: &mut Vec<ZoneRecord>) -> Outcome {
        for _ in 0..CNAME_HOPS_MAX {
            let own = match self.own_records(&name) {
                Ok(own) => own,
                Err(outcome) => return outcome,
            };
            let before = found.len();
            found.extend(own.iter().filter(|r| r.data.is_of(kind)).cloned());
            if found.len() > before || kind == Kind::Cname {
                return Outcome::Records;
            }
            let alias = own.into_iter().find_map(|record| match &record.data {
                Data::Cname(target) => Some((canonical(target), record)),
                _ => None,
            });
            let Some((target, record)) = alias else {
                return Outcome::Records;
            };
            found.push(record);
            name = target;
        }
        Outcome::ServerFailure
    }

    /// The records of exactly this name, possibly none, or what else is to be answered.
    fn own_records(&self, name: &str) -> Result<Vec<ZoneRecord>, Outcome> {
        if let Some(own) = self.records.get(name) {
            return Ok(own.clone());
        }
        if let Some(fate) = self.fate_of(name) {
            return Err(match fate {
                Fate::ServerFailure => Outcome::ServerFailure,
                Fate::Silence => Outcome::Silence,
                Fate::NoSuchName => Outcome::NoSuchName,
            });
        }
        if name.is_empty() || self.above.contains(name) {
            return Ok(Vec::new());
        }
        if self.synthetic {
            return Ok(synthetic_records(name));
        }
        Err(Outcome::NoSuchName)
    }

    /// The fate of the name or the nearest name above it that has one.
    fn fate_of(&self, name: &str) -> Option<Fate> {
        let mut rest = Some(name);
        while let Some(at) = rest {
            if let Some(&fate) = self.fates.get(at) {
                return Some(fate);
            }
            rest = at.split_once('.').map(|(_, parent)| parent);
        }
        None
    }
}

impl Data {
    fn is_of(&self, kind: Kind) -> bool {
        match self {
            Data::Mx(..) => kind == Kind::Mx,
            Data::Address(IpAddr::V4(_)) => kind == Kind::A,
            Data::Address(IpAddr::V6(_)) => kind == Kind::Aaaa,
            Data::Cname(_) => kind == Kind::Cname,
        }
    }
}

fn synthetic_records(name: &str) -> Vec<ZoneRecord> {
    let record = |data| ZoneRecord {
        owner: name.to_owned(),
        ttl: TTL_DEFAULT,
        data,
    };
    vec![
        record(Data::Mx(10, format!("mx1.{name}"))),
        record(Data::Mx(20, format!("mx2.{name}"))),
        record(Data::Address(IpAddr::V4(synthetic_address(name)))),
    ]
}

/// The address that the synthetic rule gives a name: always the same, in 127.1.0.1 to 127.254.255.254, so that it never
/// meets the addresses that programs listen on by habit (127.0.x.x).
pub fn synthetic_address(name: &str) -> Ipv4Addr {
    let hash = xxhash_rust::xxh3::xxh3_64(canonical(name).as_bytes());
    let second = 1 + (hash % 254) as u8;
    let third = (hash >> 16) as u8;
    let fourth = 1 + ((hash >> 32) % 254) as u8;
    Ipv4Addr::new(127, second, third, fourth)
}

/// Lower case, no final dot.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn explicit_names_are_found_whatever_their_case() {
        let mut zone = Zone::new();
        zone.add_mx("Example.Test.", 10, "MX1.example.test.");
        zone.add_address("mx1.example.test", v4("127.0.0.2"));
        let answer = zone.answer("EXAMPLE.test", Kind::Mx);
        assert_eq!(
            answer.records[0].data,
            Data::Mx(10, "mx1.example.test".into())
        );
        assert_eq!(zone.answer("mx1.example.test.", Kind::A).records.len(), 1);
        assert_eq!(
            zone.answer("mx1.example.test", Kind::Aaaa).outcome,
            Outcome::Records
        );
        assert_eq!(
            zone.answer("other.test", Kind::A).outcome,
            Outcome::NoSuchName
        );
        // It exists, since something lies below it.
        assert_eq!(zone.answer("test", Kind::A).outcome, Outcome::Records);
    }

    #[test]
    fn cnames_are_followed_and_loops_end() {
        let mut zone = Zone::new();
        zone.add("www.test", 60, Data::Cname("real.test".into()));
        zone.add_mx("real.test", 10, "mx.real.test");
        let answer = zone.answer("www.test", Kind::Mx);
        assert_eq!(answer.records.len(), 2);
        assert_eq!(answer.records[1].owner, "real.test");
        zone.add("a.test", 60, Data::Cname("b.test".into()));
        zone.add("b.test", 60, Data::Cname("a.test".into()));
        assert_eq!(
            zone.answer("a.test", Kind::Mx).outcome,
            Outcome::ServerFailure
        );
        zone.add("dangling.test", 60, Data::Cname("nowhere.test".into()));
        assert_eq!(
            zone.answer("dangling.test", Kind::A).outcome,
            Outcome::NoSuchName
        );
    }

    #[test]
    fn fates_reach_below_a_name_but_not_over_records() {
        let mut zone = Zone::synthetic();
        zone.set_fate("bad.test", Fate::ServerFailure);
        zone.set_fate("quiet.bad.test", Fate::Silence);
        zone.add_address("good.bad.test", v4("127.0.0.3"));
        assert_eq!(
            zone.answer("bad.test", Kind::Mx).outcome,
            Outcome::ServerFailure
        );
        assert_eq!(
            zone.answer("x.quiet.bad.test", Kind::Mx).outcome,
            Outcome::Silence
        );
        assert_eq!(zone.answer("good.bad.test", Kind::A).records.len(), 1);
        assert_eq!(zone.answer("notbad.test", Kind::Mx).records.len(), 2);
    }

    #[test]
    fn synthetic_domains_have_stable_addresses_of_their_own() {
        let zone = Zone::synthetic();
        let mut seen = HashSet::new();
        for n in 0..200 {
            let answer = zone.answer(&format!("mx1.d{n}.test"), Kind::A);
            let Data::Address(IpAddr::V4(address)) = answer.records[0].data else {
                panic!("an A record")
            };
            let octets = address.octets();
            assert!(octets[0] == 127 && octets[1] >= 1 && (1..=254).contains(&octets[3]));
            seen.insert(address);
        }
        assert_eq!(seen.len(), 200);
        assert_eq!(zone.answer("d1.test", Kind::Aaaa).records.len(), 0);
    }
}
