//! A domain that mail can be sent to, in the one spelling that everything below compares, hashes and looks up.
//!
//! A domain name is kept in lower case and as A-labels (RFC 5891), without the dot at its end; an address literal (RFC 5321
//! 4.1.3) as `[192.0.2.1]` or `[IPv6:2001:db8::1]` in the shortest spelling of its address. Two domains are equal exactly if
//! their texts are.
//!
//! INVARIANT: [`Domain::as_str`] holds only `a-z 0-9 - _ .`, or one address literal: it can be written into a command or a
//! look-up as it is. Underscores are let through, because names with them exist and resolve; `xn--` labels are taken as they come.
//!
//! Limits: 63 octets a label, 255 in all (RFC 5321 4.5.3.1.2). Nothing panics, whatever the text.

use super::address::AddressFault;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The longest label, in octets (RFC 1035 2.3.4).
const LABEL_OCTETS_MAX: usize = 63;
/// The longest domain, in octets (RFC 5321 4.5.3.1.2).
const DOMAIN_OCTETS_MAX: usize = 255;
/// How an IPv6 address literal begins (RFC 5321 4.1.3).
const IPV6_TAG: &str = "ipv6:";

/// A destination's domain or address literal, normalised. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Normalises `text`: a domain name in any case and script, or an address literal in brackets.
    pub fn parse(text: &str) -> Result<Domain, AddressFault> {
        if let Some(rest) = text.strip_prefix('[') {
            let inner = rest.strip_suffix(']').ok_or(AddressFault::BadLiteral)?;
            return Domain::parse_literal(inner);
        }
        let ascii = to_ascii(text)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        check_name(name)?;
        Ok(Domain(name.into()))
    }

    /// The normalised text: `example.test`, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if this is an address literal: no MX look-up then (RFC 5321 5.1).
    pub fn literal(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match strip_ipv6_tag(inner) {
            Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }

    fn parse_literal(inner: &str) -> Result<Domain, AddressFault> {
        let text = match strip_ipv6_tag(inner) {
            Some(v6) => v6.parse::<Ipv6Addr>().ok().map(|ip| format!("[IPv6:{ip}]")),
            None => inner.parse::<Ipv4Addr>().ok().map(|ip| format!("[{ip}]")),
        };
        text.map(|text| Domain(text.into()))
            .ok_or(AddressFault::BadLiteral)
    }
}

fn strip_ipv6_tag(inner: &str) -> Option<&str> {
    let tag = inner.get(..IPV6_TAG.len())?;
    tag.eq_ignore_ascii_case(IPV6_TAG)
        .then(|| &inner[IPV6_TAG.len()..])
}

/// Lower case and A-labels. Only names that are not ASCII go through UTS 46: plain ones are most of a batch.
fn to_ascii(text: &str) -> Result<Cow<'_, str>, AddressFault> {
    if text.len() > 4 * DOMAIN_OCTETS_MAX {
        return Err(AddressFault::DomainTooLong);
    }
    if text.is_ascii() {
        return Ok(if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        });
    }
    idna::uts46::Uts46::new()
        .to_ascii(
            text.as_bytes(),
            idna::AsciiDenyList::EMPTY, // check_name() decides on ASCII characters, for these names as for the others
            idna::uts46::Hyphens::Allow,
            idna::uts46::DnsLength::Ignore,
        )
        .map_err(|_| AddressFault::BadIdn)
}

fn check_name(name: &str) -> Result<(), AddressFault> {
    if name.is_empty() {
        return Err(AddressFault::DomainEmpty);
    }
    if name.len() > DOMAIN_OCTETS_MAX {
        return Err(AddressFault::DomainTooLong);
    }
    name.split('.').try_for_each(check_label)?;
    if name.parse::<Ipv4Addr>().is_ok() {
        return Err(AddressFault::BareIp);
    }
    Ok(())
}

fn check_label(label: &str) -> Result<(), AddressFault> {
    if label.is_empty() {
        return Err(AddressFault::LabelEmpty);
    }
    if label.len() > LABEL_OCTETS_MAX {
        return Err(AddressFault::LabelTooLong);
    }
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if !label.bytes().all(good) {
        return Err(AddressFault::BadDomain);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(AddressFault::HyphenAtEdge);
    }
    Ok(())
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Result<String, AddressFault> {
        Domain::parse(text).map(|domain| domain.as_str().to_owned())
    }

    #[test]
    fn names_have_one_spelling() {
        for (text, want) in [
            ("Example.TEST", "example.test"),
            ("example.test.", "example.test"),
            ("localhost", "localhost"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"), // non-transitional: not fass.example
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dmarc.a_b.example", "_dmarc.a_b.example"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[ipv6:2001:DB8:0:0::1]", "[IPv6:2001:db8::1]"),
        ] {
            assert_eq!(normal(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_no_domain_can_be_is_refused_with_the_reason() {
        let long_label = format!("{}.test", "a".repeat(64));
        let long_name = "a.".repeat(200);
        for (text, want) in [
            ("", AddressFault::DomainEmpty),
            (".", AddressFault::DomainEmpty),
            ("a..test", AddressFault::LabelEmpty),
            (".test", AddressFault::LabelEmpty),
            ("-a.test", AddressFault::HyphenAtEdge),
            ("a-.test", AddressFault::HyphenAtEdge),
            ("a b.test", AddressFault::BadDomain),
            ("a\r\nb.test", AddressFault::BadDomain),
            ("ü b.test", AddressFault::BadDomain),
            ("192.0.2.1", AddressFault::BareIp),
            ("[192.0.2.256]", AddressFault::BadLiteral),
            ("[2001:db8::1]", AddressFault::BadLiteral),
            ("[", AddressFault::BadLiteral),
            ("ü\u{fffd}.test", AddressFault::BadIdn),
            (long_label.as_str(), AddressFault::LabelTooLong),
            (long_name.as_str(), AddressFault::DomainTooLong),
        ] {
            assert_eq!(normal(text), Err(want), "{text}");
        }
    }

    #[test]
    fn literals_give_their_address() {
        let address = |text: &str| Domain::parse(text).unwrap().literal();
        assert_eq!(address("[192.0.2.1]"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(
            address("[IPv6:2001:db8::1]"),
            Some("2001:db8::1".parse().unwrap())
        );
        assert_eq!(address("example.test"), None);
    }
}
