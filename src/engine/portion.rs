//! Which of a job's mail a run takes: that of some domains, so many recipients. What it does not take stays queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::mail::Domain;

/// The mail that a run takes. The default is all of it.
#[derive(Clone, Debug, Default)]
pub struct Portion {
    /// Only these; empty: all.
    only: Vec<Domain>,
    /// How many recipients may still be taken; shared by all who ask.
    left: Option<Arc<AtomicU64>>,
}

impl Portion {
    /// Mail for these domains, or for all if there are none, and at most so many recipients.
    pub fn new(only: Vec<Domain>, limit: Option<u64>) -> Portion {
        Portion {
            only,
            left: limit.map(|limit| Arc::new(AtomicU64::new(limit))),
        }
    }

    /// True if a recipient in `domain` is taken; that counts.
    pub fn takes(&self, domain: &Domain) -> bool {
        if !self.only.is_empty() && !self.only.contains(domain) {
            return false;
        }
        let take = |left: u64| left.checked_sub(1);
        self.left
            .as_ref()
            .is_none_or(|left| left.fetch_update(Relaxed, Relaxed, take).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_do_not_count_against_the_limit() {
        let [a, b] = ["a.example", "b.example"].map(|name| Domain::parse(name).unwrap());
        let portion = Portion::new(vec![a.clone()], Some(2));
        let taken = [&a, &b, &b, &a, &a].map(|domain| portion.takes(domain));
        assert_eq!(taken, [true, false, false, true, false]);
        let all = Portion::default();
        assert!(all.takes(&a) && all.takes(&b));
        assert!(!Portion::new(Vec::new(), Some(0)).takes(&a));
    }
}
