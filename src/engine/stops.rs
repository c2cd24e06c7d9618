//! Sites that were stopped because their servers refuse us as the sender: told by queues, read by the face.
//!
//! INVARIANT: a site is here before its mail is left, so before the run can be over.
//! Limits: one entry for each queue that had such a site; texts are as short as those of verdicts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mail::Verdict;

/// A site that nothing more is sent to in this run.
#[derive(Clone, Debug)]
pub struct StoppedSite {
    /// A domain it serves; `None` for a relay.
    pub domain: Option<String>,
    /// What its servers say.
    pub verdict: Arc<Verdict>,
    /// Recipients whose mail was left for this reason so far.
    pub left: usize,
}

/// All of them, in the order in which they were stopped.
#[derive(Debug, Default)]
pub struct Stops {
    sites: Mutex<Vec<StoppedSite>>,
}

impl Stops {
    /// Adds one. Returns its number.
    pub fn add(&self, site: StoppedSite) -> usize {
        let mut sites = self.lock();
        sites.push(site);
        sites.len() - 1
    }

    /// More mail was left for site number `at`.
    pub fn set_left(&self, at: usize, left: usize) {
        if let Some(site) = self.lock().get_mut(at) {
            site.left = left;
        }
    }

    /// Those from number `from` on.
    pub fn from(&self, from: usize) -> Vec<StoppedSite> {
        self.lock().iter().skip(from).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StoppedSite>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
