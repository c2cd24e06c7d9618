//! What can go wrong between a domain and its addresses, and what each case means for the mail.
//!
//! A failure is a value like a reply: it becomes a [`Verdict`] of the destination, or of this machine when no name server
//! answers at all. Hard failures (the DNS said so) refuse, everything that may change defers.

use std::fmt;

use crate::mail::{Enhanced, Scope, Stage, Status, Verdict};

/// Why a destination has no route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DnsFailure {
    /// It is no domain name: bad characters, empty or over-long labels.
    BadName,
    /// It looks like an address literal and is none (RFC 5321 4.1.3).
    BadLiteral,
    /// NXDOMAIN: the domain does not exist.
    NoSuchDomain,
    /// The domain says that it takes no mail (RFC 7505).
    NullMx,
    /// The domain exists but has neither MX nor address records.
    NoAddress,
    /// It has MX records, and none of the hosts has an address.
    Unresolvable,
    /// All that is left are addresses of this machine, or none of a single remote host.
    OnlyLoopback,
    /// A name server answered that it could not find out (SERVFAIL, REFUSED, garbage ...).
    ServerFailed(String),
    /// No answer for this name in time, while the name servers do answer other questions.
    TimedOut,
    /// No name server answers anything: nothing can be delivered from here.
    NoServer,
    /// This machine could not even ask: it has no descriptors left, say.
    Local(String),
}

impl DnsFailure {
    /// True if a later attempt may do better.
    pub fn is_soft(&self) -> bool {
        matches!(
            self,
            DnsFailure::ServerFailed(_)
                | DnsFailure::TimedOut
                | DnsFailure::NoServer
                | DnsFailure::Local(_)
        )
    }

    /// True if the trouble is ours: no name server can be reached at all.
    pub fn is_no_server(&self) -> bool {
        *self == DnsFailure::NoServer
    }

    /// The verdict for every recipient of `domain`.
    pub fn verdict(&self, domain: &str) -> Verdict {
        let status = if self.is_soft() {
            Status::Deferred
        } else {
            Status::Refused
        };
        let scope = if matches!(self, DnsFailure::NoServer | DnsFailure::Local(_)) {
            Scope::Local
        } else {
            Scope::Domain
        };
        let text = format!("{domain}: {self}");
        Verdict::own(status, scope, Stage::Dns, self.enhanced(), &text)
    }

    /// The status code of RFC 3463 (and RFC 7505 4.2 for the null MX) that fits best.
    fn enhanced(&self) -> Enhanced {
        match self {
            DnsFailure::NoSuchDomain | DnsFailure::BadName => Enhanced::new(5, 1, 2),
            DnsFailure::BadLiteral => Enhanced::new(5, 1, 3),
            DnsFailure::NullMx => Enhanced::new(5, 1, 10),
            DnsFailure::NoAddress | DnsFailure::Unresolvable => Enhanced::new(5, 4, 4),
            DnsFailure::OnlyLoopback => Enhanced::new(5, 4, 6),
            DnsFailure::ServerFailed(_) | DnsFailure::TimedOut | DnsFailure::NoServer => {
                Enhanced::new(4, 4, 3)
            }
            // RFC 3463 3.4: x.3.0 is trouble of the mail system itself.
            DnsFailure::Local(_) => Enhanced::new(4, 3, 0),
        }
    }
}

impl fmt::Display for DnsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnsFailure::BadName => f.write_str("not a domain name"),
            DnsFailure::BadLiteral => f.write_str("not an address literal"),
            DnsFailure::NoSuchDomain => f.write_str("the domain does not exist"),
            DnsFailure::NullMx => f.write_str("the domain takes no mail (null MX)"),
            DnsFailure::NoAddress => f.write_str("the domain has neither MX nor address records"),
            DnsFailure::Unresolvable => f.write_str("none of its MX hosts has an address"),
            DnsFailure::OnlyLoopback => {
                f.write_str("its MX hosts have only loopback or unusable addresses")
            }
            DnsFailure::ServerFailed(text) => write!(f, "the name server failed: {text}"),
            DnsFailure::TimedOut => f.write_str("no answer from the DNS in time"),
            DnsFailure::NoServer => f.write_str("no name server answers at all"),
            DnsFailure::Local(text) => write!(f, "no look-up is possible on this machine: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_status_scope_and_code() {
        let failed = DnsFailure::ServerFailed("SERVFAIL".into());
        let refused = [
            (DnsFailure::BadName, "5.1.2"),
            (DnsFailure::BadLiteral, "5.1.3"),
            (DnsFailure::NoSuchDomain, "5.1.2"),
            (DnsFailure::NullMx, "5.1.10"),
            (DnsFailure::NoAddress, "5.4.4"),
            (DnsFailure::Unresolvable, "5.4.4"),
            (DnsFailure::OnlyLoopback, "5.4.6"),
        ];
        let deferred = [
            (failed, Scope::Domain),
            (DnsFailure::TimedOut, Scope::Domain),
            (DnsFailure::NoServer, Scope::Local),
        ];
        let refused = refused
            .into_iter()
            .map(|(failure, code)| (failure, Status::Refused, Scope::Domain, code));
        let deferred = deferred
            .into_iter()
            .map(|(failure, scope)| (failure, Status::Deferred, scope, "4.4.3"));
        for (failure, status, scope, enhanced) in refused.chain(deferred) {
            let verdict = failure.verdict("example.test");
            assert_eq!(
                (verdict.status, verdict.scope, verdict.stage),
                (status, scope, Stage::Dns)
            );
            assert_eq!(
                verdict.enhanced.unwrap().to_string(),
                enhanced,
                "{failure:?}"
            );
            assert!(
                verdict.text.starts_with("example.test: "),
                "{}",
                verdict.text
            );
        }
    }
}
