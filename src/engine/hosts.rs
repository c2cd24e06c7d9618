//! What is known of hosts in this run: how far ahead of them it is safe to run.
//!
//! A session starts at classic pipelining. Its first message that is taken proves that the host answers a group of
//! commands one by one; from then on the next message's commands leave with the final dot of this one (RFC 2920 3.1). If
//! a session ends in a way that this may have caused (replies out of step, 421 or end of file right behind such a dot),
//! the host is never run ahead of that far again.
//!
//! Touched once a session, never for a message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::smtp::Pipelining;

/// How far it is safe to run ahead of hosts, as far as it is known not to be all the way.
#[derive(Debug, Default)]
pub struct HostLevels {
    lowered: Mutex<HashMap<IpAddr, Pipelining>>,
}

impl HostLevels {
    /// The furthest a session with this host may run ahead.
    pub fn level(&self, host: IpAddr) -> Pipelining {
        self.lock().get(&host).copied().unwrap_or(Pipelining::Cross)
    }

    /// A session that ran ahead this far ended suspiciously: one level less from now on.
    pub fn suspect(&self, host: IpAddr, level: Pipelining) {
        let less = match level {
            Pipelining::Cross => Pipelining::Classic,
            Pipelining::Classic | Pipelining::None => Pipelining::None,
        };
        let mut lowered = self.lock();
        let known = lowered.entry(host).or_insert(less);
        *known = (*known).min(less);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Pipelining>> {
        self.lowered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspected_host_is_never_run_ahead_of_that_far_again() {
        let hosts = HostLevels::default();
        let host = "192.0.2.1".parse().unwrap();
        assert_eq!(hosts.level(host), Pipelining::Cross);
        hosts.suspect(host, Pipelining::Cross);
        assert_eq!(hosts.level(host), Pipelining::Classic);
        hosts.suspect(host, Pipelining::Classic);
        hosts.suspect(host, Pipelining::Cross);
        assert_eq!(hosts.level(host), Pipelining::None);
        assert_eq!(hosts.level("192.0.2.2".parse().unwrap()), Pipelining::Cross);
    }
}
