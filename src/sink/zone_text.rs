//! Zones as lines of text: `mailer sink --zone FILE`, and short fixtures in tests.
//!
//! ```text
//! example.test        MX 10 mx1.example.test     # owner [TTL] TYPE data
//! mx1.example.test 60 A 127.0.0.2
//! mx1.example.test    AAAA ::1
//! www.example.test    CNAME example.test
//! nomail.test         NULLMX                     # RFC 7505
//! SERVFAIL broken.test                           # this name and all below it
//! SILENT quiet.test
//! NXDOMAIN gone.test
//! DELAY slow.test 200ms
//! SYNTHETIC                                      # every other name gets MX and addresses of its own in 127/8
//! ```
//!
//! An error names its line and word. Nothing here does I/O.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::words::{duration, printable_word};
use super::zone::{Data, Fate, TTL_DEFAULT, Zone};

/// A line of a zone that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneError {
    /// Counts from 1.
    pub line: usize,
    /// What is wrong, with the word.
    pub problem: String,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for ZoneError {}

/// Reads a zone. Empty lines and everything after `#` or `;` are ignored.
pub fn parse(text: &str) -> Result<Zone, ZoneError> {
    let mut zone = Zone::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        parse_line(&mut zone, &words).map_err(|problem| ZoneError {
            line: index + 1,
            problem,
        })?;
    }
    Ok(zone)
}

fn parse_line(zone: &mut Zone, words: &[&str]) -> Result<(), String> {
    match words {
        [] => {}
        ["SYNTHETIC"] => zone.set_synthetic(true),
        ["SERVFAIL", name] => zone.set_fate(checked(name)?, Fate::ServerFailure),
        ["SILENT", name] => zone.set_fate(checked(name)?, Fate::Silence),
        ["NXDOMAIN", name] => zone.set_fate(checked(name)?, Fate::NoSuchName),
        ["DELAY", name, time] => zone.set_delay(checked(name)?, duration(time)?),
        [owner, rest @ ..] => {
            let (ttl, rest) = match rest {
                [first, rest @ ..] if first.bytes().all(|b| b.is_ascii_digit()) => {
                    let ttl = first
                        .parse()
                        .map_err(|_| format!("bad TTL {}", printable_word(first)))?;
                    (ttl, rest)
                }
                rest => (TTL_DEFAULT, rest),
            };
            zone.add(checked(owner)?, ttl, record(rest)?);
        }
    }
    Ok(())
}

fn record(words: &[&str]) -> Result<Data, String> {
    match words {
        ["MX", preference, exchange] => {
            let preference = preference
                .parse()
                .map_err(|_| format!("bad preference {}", printable_word(preference)))?;
            let exchange = if *exchange == "." {
                "."
            } else {
                checked(exchange)?
            };
            let exchange = exchange.trim_end_matches('.').to_ascii_lowercase();
            Ok(Data::Mx(preference, exchange))
        }
        ["NULLMX"] => Ok(Data::Mx(0, String::new())),
        ["A", address] => address
            .parse::<Ipv4Addr>()
            .map(|address| Data::Address(IpAddr::V4(address)))
            .map_err(|_| format!("bad IPv4 address {}", printable_word(address))),
        ["AAAA", address] => address
            .parse::<Ipv6Addr>()
            .map(|address| Data::Address(IpAddr::V6(address)))
            .map_err(|_| format!("bad IPv6 address {}", printable_word(address))),
        ["CNAME", target] => Ok(Data::Cname(checked(target)?.to_owned())),
        [kind @ ("MX" | "NULLMX" | "A" | "AAAA" | "CNAME"), ..] => {
            Err(format!("wrong number of words for {kind}"))
        }
        [other, ..] => Err(format!(
            "unknown type {} (known: MX, NULLMX, A, AAAA, CNAME)",
            printable_word(other)
        )),
        [] => Err("a name without a record".into()),
    }
}

/// A name that can be put on the wire: labels of 1 to 63 octets, 253 in all.
fn checked(name: &str) -> Result<&str, String> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let fits = bare.len() <= 253
        && bare.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        });
    if fits {
        Ok(name)
    } else {
        Err(format!("bad name {}", printable_word(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::zone::{Kind, Outcome};
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_example_of_the_header_is_read() {
        let zone = parse(
            "example.test MX 10 mx1.example.test # ten\nmx1.example.test 60 A 127.0.0.2\n\
             mx1.example.test AAAA ::1\nwww.example.test CNAME example.test\nnomail.test NULLMX\n\n\
             SERVFAIL broken.test\nSILENT quiet.test\nNXDOMAIN gone.test\nDELAY slow.test 200ms\nSYNTHETIC\n",
        )
        .unwrap();
        let answer = zone.answer("www.example.test", Kind::Mx);
        assert_eq!(
            answer.records[1].data,
            Data::Mx(10, "mx1.example.test".into())
        );
        assert_eq!(zone.answer("mx1.example.test", Kind::A).records[0].ttl, 60);
        assert_eq!(zone.answer("mx1.example.test", Kind::Aaaa).records.len(), 1);
        let null = &zone.answer("nomail.test", Kind::Mx).records;
        assert_eq!(null[0].data, Data::Mx(0, String::new()));
        assert_eq!(
            zone.answer("a.broken.test", Kind::A).outcome,
            Outcome::ServerFailure
        );
        assert_eq!(zone.answer("quiet.test", Kind::A).outcome, Outcome::Silence);
        assert_eq!(
            zone.answer("gone.test", Kind::A).outcome,
            Outcome::NoSuchName
        );
        assert_eq!(
            zone.answer("slow.test", Kind::A).delay,
            Duration::from_millis(200)
        );
        assert_eq!(zone.answer("any.test", Kind::Mx).records.len(), 2);
    }

    #[test]
    fn an_error_names_line_and_word() {
        let table = [
            ("a.test MX ten b.test", "bad preference `ten`"),
            ("\na.test MY 10 b.test", "zone line 2: unknown type `MY`"),
            ("a.test A 1.2.3", "bad IPv4 address `1.2.3`"),
            ("a.test AAAA 1.2.3.4", "bad IPv6 address `1.2.3.4`"),
            ("a..test A 127.0.0.1", "bad name `a..test`"),
            ("a.test", "a name without a record"),
            ("a.test MX 10", "wrong number of words for MX"),
            ("a.test 99999999999 A 127.0.0.1", "bad TTL `99999999999`"),
            ("DELAY a.test soon", "`soon`"),
        ];
        for (text, part) in table {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
