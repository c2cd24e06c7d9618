//! Routing: which queue handles a destination, and how a message becomes clones.
//!
//! A [`RouteTable`] is made from the configured queues. A specific queue names domains (`example.test` exactly;
//! `*.example.test` or `.example.test` for every subdomain, not the domain itself) and patterns of MX hosts (the same
//! forms). An exact name goes before a suffix, a longer suffix before a shorter one; what nobody names is the general
//! queue's. One pattern in two queues is an error, since a specific queue handles only its own domains.
//!
//! [`Interner`] numbers the domains of a batch, [`clones`] groups the recipients of a message by destination: one clone
//! per destination, each a run of envelopes that refer to the one message. Which MX hosts belong to which large provider is
//! known by [`providers`].
//!
//! INVARIANTS: a domain has one number, and one queue by name; a look-up costs one hash per label, whatever the number of
//! patterns. No I/O: the configuration is read elsewhere.

pub mod providers;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::mail::{DestinationId, Envelope, MessageNo, QueueId, RecipientNo};

/// A specific queue as configured.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct QueueRule {
    /// Its name.
    pub name: String,
    /// The domains it handles.
    pub domains: Vec<String>,
    /// The MX hosts whose domains it handles.
    pub mx: Vec<String>,
}

/// Which queue handles what.
#[derive(Clone, Default, Debug)]
pub struct RouteTable {
    names: Vec<String>,
    domains: Patterns,
    mx: Patterns,
}

/// Why a table cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteError {
    /// Two queues have one name, or one is named like the general queue.
    DuplicateQueue(String),
    /// More queues than can be numbered.
    TooManyQueues,
    /// Two queues claim the same pattern.
    DuplicatePattern {
        /// The pattern.
        pattern: String,
        /// The queue that had it first.
        first: String,
        /// The queue that claims it too.
        second: String,
    },
    /// A pattern that cannot match any domain.
    BadPattern {
        /// The pattern.
        pattern: String,
        /// The queue that has it.
        queue: String,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::DuplicateQueue(name) => write!(f, "queue {name:?} is defined twice"),
            RouteError::TooManyQueues => write!(f, "more than {} queues", u16::MAX),
            RouteError::DuplicatePattern {
                pattern,
                first,
                second,
            } => write!(
                f,
                "{pattern:?} is claimed by queue {first:?} and by queue {second:?}"
            ),
            RouteError::BadPattern { pattern, queue } => write!(
                f,
                "queue {queue:?}: {pattern:?} is neither a domain nor of the form \"*.example.com\""
            ),
        }
    }
}

impl std::error::Error for RouteError {}

impl RouteTable {
    /// The name of the general queue.
    pub const GENERAL: &str = "general";

    /// The table of these specific queues; the first gets number 1.
    pub fn new(rules: &[QueueRule]) -> Result<RouteTable, RouteError> {
        let mut table = RouteTable {
            names: vec![RouteTable::GENERAL.to_owned()],
            ..RouteTable::default()
        };
        for rule in rules {
            let queue = u16::try_from(table.names.len()).map_err(|_| RouteError::TooManyQueues)?;
            if table.names.contains(&rule.name) {
                return Err(RouteError::DuplicateQueue(rule.name.clone()));
            }
            table.names.push(rule.name.clone());
            for pattern in &rule.domains {
                table.domains.add(pattern, QueueId(queue), &table.names)?;
            }
            for pattern in &rule.mx {
                table.mx.add(pattern, QueueId(queue), &table.names)?;
            }
        }
        Ok(table)
    }

    /// The number of queues, the general one included.
    pub fn queues(&self) -> usize {
        self.names.len().max(1)
    }

    /// The name of a queue.
    pub fn name(&self, queue: QueueId) -> &str {
        self.names
            .get(queue.index())
            .map_or(RouteTable::GENERAL, String::as_str)
    }

    /// True if some queue takes destinations by their MX hosts.
    pub fn has_mx_patterns(&self) -> bool {
        !self.mx.is_empty()
    }

    /// The queue that handles a domain (in A-labels; case does not matter).
    pub fn queue_of(&self, domain: &str) -> QueueId {
        self.domains.find(domain).unwrap_or(QueueId::GENERAL)
    }

    /// The pattern by which a specific queue names a domain, and true if it is a suffix.
    pub fn pattern_of(&self, domain: &str) -> Option<(String, bool)> {
        self.domains.pattern_of(domain)
    }

    /// The specific queue that handles destinations served by these MX hosts, best preference first: the first host that a
    /// pattern matches decides.
    pub fn queue_of_hosts<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> Option<QueueId> {
        hosts.into_iter().find_map(|host| self.mx.find(host))
    }
}

/// Names and suffixes, each with the queue that claims it.
#[derive(Clone, Default, Debug)]
struct Patterns {
    exact: HashMap<String, QueueId>,
    suffixes: HashMap<String, QueueId>,
}

impl Patterns {
    /// Adds a pattern for `queue`, the last of `names`.
    fn add(&mut self, pattern: &str, queue: QueueId, names: &[String]) -> Result<(), RouteError> {
        let suffix = pattern
            .strip_prefix("*.")
            .or_else(|| pattern.strip_prefix('.'));
        let name_of = |queue: QueueId| names[queue.index()].clone();
        let Some(name) = normal_name(suffix.unwrap_or(pattern)) else {
            return Err(RouteError::BadPattern {
                pattern: pattern.to_owned(),
                queue: name_of(queue),
            });
        };
        let map = match suffix {
            Some(_) => &mut self.suffixes,
            None => &mut self.exact,
        };
        match map.insert(name, queue) {
            Some(first) if first != queue => Err(RouteError::DuplicatePattern {
                pattern: pattern.to_owned(),
                first: name_of(first),
                second: name_of(queue),
            }),
            _ => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty()
    }

    /// The pattern that decides about a name, and true if it is a suffix.
    fn pattern_of(&self, name: &str) -> Option<(String, bool)> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if self.exact.contains_key(&name) {
            return Some((name, false));
        }
        let parents = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
        let mut known = parents.filter(|parent| self.suffixes.contains_key(*parent));
        known.next().map(|suffix| (format!(".{suffix}"), true))
    }

    fn find(&self, name: &str) -> Option<QueueId> {
        if self.is_empty() {
            return None;
        }
        let lower;
        let mut name = name.strip_suffix('.').unwrap_or(name);
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            name = &lower;
        }
        if let Some(queue) = self.exact.get(name) {
            return Some(*queue);
        }
        while let Some((_, parent)) = name.split_once('.') {
            if let Some(queue) = self.suffixes.get(parent) {
                return Some(*queue);
            }
            name = parent;
        }
        None
    }
}

/// A domain of a pattern as look-ups see it (A-labels, lower case, no final dot), or `None` if it is none.
fn normal_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    // An address literal is a destination too (RFC 5321 4.1.3); it has no labels.
    if name.starts_with('[') && name.ends_with(']') {
        return Some(name.to_ascii_lowercase());
    }
    let ascii = idna::domain_to_ascii(name).ok()?;
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (ascii.len() <= 255 && ascii.split('.').all(label)).then_some(ascii)
}

/// The domains of a batch, numbered in the order in which they are met. Names are read by other threads while it grows.
#[derive(Default, Debug)]
pub struct Interner {
    ids: HashMap<Arc<str>, DestinationId>,
    names: Arc<boxcar::Vec<Arc<str>>>,
}

impl Interner {
    /// The number of a domain, and true if it is new.
    pub fn intern(&mut self, domain: &str) -> (DestinationId, bool) {
        if let Some(id) = self.ids.get(domain) {
            return (*id, false);
        }
        let name: Arc<str> = domain.into();
        let id = DestinationId(self.names.push(name.clone()) as u32);
        self.ids.insert(name, id);
        (id, true)
    }

    /// All names, by number.
    pub fn names(&self) -> Arc<boxcar::Vec<Arc<str>>> {
        self.names.clone()
    }

    /// The number of domains.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if no domain was met yet.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The clones of some messages: for each destination, in the order in which they are met, the envelopes of its
/// recipients. Envelopes of one message stand together: they are one clone, and travel in one transaction.
pub fn clones(
    recipients: impl IntoIterator<Item = (MessageNo, RecipientNo, DestinationId)>,
) -> Vec<(DestinationId, Vec<Envelope>)> {
    let mut clones: Vec<(DestinationId, Vec<Envelope>)> = Vec::new();
    let mut places: HashMap<DestinationId, usize> = HashMap::new();
    for (message, recipient, destination) in recipients {
        let place = *places.entry(destination).or_insert_with(|| {
            clones.push((destination, Vec::new()));
            clones.len() - 1
        });
        clones[place].1.push(Envelope::new(message, recipient));
    }
    clones
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, domains: &[&str], mx: &[&str]) -> QueueRule {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        QueueRule {
            name: name.to_owned(),
            domains: owned(domains),
            mx: owned(mx),
        }
    }

    fn table() -> RouteTable {
        RouteTable::new(&[
            rule("big", &["big.test", "*.big.test"], &["*.google.example"]),
            rule(
                "vip",
                &["vip.big.test", ".deep.vip.big.test"],
                &["mx.vip.test"],
            ),
            rule("idn", &["bücher.example", "[192.0.2.1]"], &[]),
        ])
        .unwrap()
    }

    #[test]
    fn a_specific_queue_handles_its_domains_and_the_general_one_the_rest() {
        let table = table();
        for (domain, queue) in [
            ("big.test", 1),
            ("BIG.Test", 1),
            ("a.big.test", 1),
            ("a.b.big.test", 1),
            ("vip.big.test", 2),
            ("x.vip.big.test", 1),
            ("x.deep.vip.big.test", 2),
            ("deep.vip.big.test", 1),
            ("xn--bcher-kva.example", 3),
            ("[192.0.2.1]", 3),
            ("[192.0.2.2]", 0),
            ("notbig.test", 0),
            ("test", 0),
            ("", 0),
            ("...", 0),
        ] {
            assert_eq!(table.queue_of(domain), QueueId(queue), "{domain}");
        }
        let pattern = |domain| table.pattern_of(domain);
        assert_eq!(pattern("BIG.test."), Some(("big.test".into(), false)));
        assert_eq!(pattern("a.b.big.test"), Some((".big.test".into(), true)));
        let deep = Some((".deep.vip.big.test".into(), true));
        assert_eq!(pattern("x.deep.vip.big.test"), deep);
        assert_eq!(pattern("notbig.test"), None);
        assert_eq!(table.name(QueueId(0)), "general");
        assert_eq!(table.name(QueueId(2)), "vip");
        assert_eq!(table.queues(), 4);
    }

    #[test]
    fn without_specific_queues_everything_is_general() {
        let table = RouteTable::new(&[]).unwrap();
        assert_eq!(table.queue_of("big.test"), QueueId::GENERAL);
        assert_eq!(table.queue_of_hosts(["mx.vip.test"]), None);
    }

    #[test]
    fn the_first_mx_host_that_matches_decides() {
        let table = table();
        let queue = |hosts: &[&str]| table.queue_of_hosts(hosts.iter().copied());
        assert_eq!(queue(&["aspmx.l.google.example"]), Some(QueueId(1)));
        assert_eq!(
            queue(&["mx.other.test", "MX.vip.test.", "a.google.example"]),
            Some(QueueId(2))
        );
        assert_eq!(queue(&["google.example"]), None);
        assert_eq!(queue(&[]), None);
    }

    #[test]
    fn one_domain_in_two_queues_is_an_error_that_names_both() {
        let twice = RouteTable::new(&[rule("a", &["x.test"], &[]), rule("b", &["X.test"], &[])]);
        assert_eq!(
            twice.unwrap_err().to_string(),
            "\"X.test\" is claimed by queue \"a\" and by queue \"b\""
        );
        let mx = RouteTable::new(&[rule("a", &[], &["*.x.test"]), rule("b", &[], &[".x.test"])]);
        assert!(matches!(mx, Err(RouteError::DuplicatePattern { .. })));
        assert!(RouteTable::new(&[rule("a", &["x.test", "x.test"], &[])]).is_ok());
        assert!(RouteTable::new(&[rule("a", &["x.test"], &["x.test"])]).is_ok());
    }

    #[test]
    fn bad_patterns_and_names_are_errors() {
        for pattern in [
            "", "*", "*.", ".", "a..test", "a.*.test", "a b.test", "x@y.test",
        ] {
            let table = RouteTable::new(&[rule("a", &[pattern], &[])]);
            assert!(
                matches!(table, Err(RouteError::BadPattern { .. })),
                "{pattern:?}: {table:?}"
            );
        }
        for names in [["a", "a"], ["a", "general"]] {
            let rules = names.map(|name| rule(name, &[], &[]));
            assert!(matches!(
                RouteTable::new(&rules),
                Err(RouteError::DuplicateQueue(_))
            ));
        }
    }

    #[test]
    fn domains_are_numbered_once() {
        let mut interner = Interner::default();
        assert!(interner.is_empty());
        assert_eq!(interner.intern("a.test"), (DestinationId(0), true));
        assert_eq!(interner.intern("b.test"), (DestinationId(1), true));
        assert_eq!(interner.intern("a.test"), (DestinationId(0), false));
        assert_eq!(&**interner.names().get(1).unwrap(), "b.test");
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn a_message_is_cloned_once_per_destination() {
        let mut rng = fastrand::Rng::with_seed(3);
        for destinations in [1, 3, 9, 40] {
            let recipients: Vec<_> = (0..200)
                .map(|n| (RecipientNo(n), DestinationId(rng.u32(0..destinations))))
                .collect();
            let clones = clones(
                recipients
                    .iter()
                    .map(|(no, destination)| (MessageNo(5), *no, *destination)),
            );
            let mut seen = 0;
            for (at, (destination, envelopes)) in clones.iter().enumerate() {
                assert!(clones[..at].iter().all(|(other, _)| other != destination));
                let expected: Vec<_> = recipients
                    .iter()
                    .filter(|(_, d)| d == destination)
                    .map(|(recipient, _)| Envelope::new(MessageNo(5), *recipient))
                    .collect();
                assert_eq!(*envelopes, expected);
                seen += envelopes.len();
            }
            assert_eq!(seen, 200);
        }
    }
}
