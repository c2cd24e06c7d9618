//! One question to the DNS, its answer in our words.
//!
//! hickory tells NXDOMAIN, no data, error codes and time-outs apart; here they become a small enum, so that the rest of the
//! program knows nothing of its types. Exchange names come from anybody's zone: a name that is no host name (RFC 952,
//! underscores tolerated) is dropped here and can neither reach a terminal nor a report.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use trust_dns_resolver::lookup::Lookup;
use trust_dns_resolver::net::{DnsError, NetError};
use trust_dns_resolver::proto::rr::{Name, RData};

use super::failure::DnsFailure;

/// What a question brought when it brought no records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lack {
    /// NXDOMAIN.
    NoSuchName,
    /// The name exists, without records of this type.
    NoData,
    /// The answer says that the server could not find out.
    Failed(String),
    /// No server answered in time, or none could be reached.
    Unanswered,
    /// This machine could not even ask.
    Local(String),
}

impl Lack {
    /// What an error of the resolver means.
    pub fn from_error(error: &NetError) -> Lack {
        if error.is_nx_domain() {
            return Lack::NoSuchName;
        }
        match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => Lack::NoData,
            NetError::Dns(DnsError::ResponseCode(code)) => Lack::Failed(code.to_string()),
            NetError::Io(error) if is_ours(error) => Lack::Local(error.to_string()),
            NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy => {
                Lack::Unanswered
            }
            other => Lack::Failed(other.to_string()),
        }
    }

    /// True if nothing follows for other questions: a name server said something, whatever it was, or was not asked.
    pub fn is_answer(&self) -> bool {
        *self != Lack::Unanswered
    }

    /// The failure of a destination for which this was the last word.
    pub fn failure(self) -> DnsFailure {
        match self {
            Lack::NoSuchName => DnsFailure::NoSuchDomain,
            Lack::NoData => DnsFailure::NoAddress,
            Lack::Failed(text) => DnsFailure::ServerFailed(text),
            Lack::Unanswered => DnsFailure::TimedOut,
            Lack::Local(text) => DnsFailure::Local(text),
        }
    }
}

/// True if this machine has no descriptor, no buffer or no memory left (EMFILE, ENFILE, ENOBUFS, ENOMEM).
fn is_ours(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

/// The MX records of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exchanges {
    /// Preference and name, as they came, without those that are no host names.
    pub named: Vec<(u16, String)>,
    /// True if one was the root: alone, it is the null MX of RFC 7505.
    pub has_root: bool,
    /// How long the answer is valid.
    pub ttl: Duration,
}

/// The MX records in an answer, following whatever CNAMEs led to it.
pub fn exchanges(answer: &Lookup) -> Exchanges {
    let mut found = Exchanges {
        ttl: ttl_of(answer),
        ..Exchanges::default()
    };
    for record in answer.answers() {
        if let RData::MX(mx) = &record.data {
            if mx.exchange.is_root() {
                found.has_root = true;
            } else if let Some(name) = host_name(&mx.exchange) {
                found.named.push((mx.preference, name));
            }
        }
    }
    found
}

/// The addresses in an answer, of either family.
pub fn addresses(answer: &Lookup) -> Vec<IpAddr> {
    answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .collect()
}

/// How long an answer is valid from now on.
pub fn ttl_of(answer: &Lookup) -> Duration {
    answer
        .valid_until()
        .saturating_duration_since(Instant::now())
}

/// The absolute name of a domain, if it is one: letters, digits, hyphens, underscores and dots; labels of 1 to 63 octets,
/// 253 in all (RFC 1035 2.3.4). One final dot is allowed.
pub fn question_name(domain: &str) -> Option<Name> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if !is_host_name(domain) {
        return None;
    }
    let mut name = Name::from_ascii(domain).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Lower-case text of an exchange's name without its final dot; `None` if it is no host name.
fn host_name(name: &Name) -> Option<String> {
    let text = name.to_lowercase().to_ascii();
    let text = text.strip_suffix('.').unwrap_or(&text);
    is_host_name(text).then(|| text.to_owned())
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

#[cfg(test)]
mod tests {
    #[test]
    fn want_of_descriptors_is_no_silence_of_the_name_server() {
        let error = |code| NetError::from(std::io::Error::from_raw_os_error(code));
        let lack = Lack::from_error(&error(24));
        assert!(matches!(&lack, Lack::Local(text) if text.contains("open files")));
        assert!(lack.is_answer(), "no name server is suspected");
        assert!(!lack.failure().is_no_server());
        assert_eq!(Lack::from_error(&error(111)), Lack::Unanswered);
    }

    use super::*;

    #[test]
    fn only_host_names_are_asked_for() {
        assert!(question_name("Example.Test.").unwrap().is_fqdn());
        assert!(question_name("_dmarc.a-b.test").is_some());
        let long_label = format!("{}.test", "a".repeat(64));
        let long_name = ["abcdefg"; 32].join(".");
        for bad in [
            "",
            ".",
            "a..b",
            "a b.test",
            "a\\.b",
            "é.test",
            "a\n.test",
            &long_label,
            &long_name,
        ] {
            assert!(question_name(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_hostile_exchange_name_is_no_host_name() {
        let name = Name::from_labels([&b"a\x1b[2J"[..], b"test"]).unwrap();
        assert_eq!(host_name(&name), None);
        let name = Name::from_labels([&b"MX1"[..], b"Test"]).unwrap();
        assert_eq!(host_name(&name), Some("mx1.test".into()));
    }
}
