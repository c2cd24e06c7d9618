//! Promotion: a site with much of the mail gets a queue of its own while the run goes on, and gives it back when it needs it
//! no more.
//!
//! The general queue watches its sites. One that has more than `min` envelopes pending and more than `share` of all that is
//! pending in the general queue, or that keeps more than one session busy for two seconds with mail still waiting, is
//! promoted if a queue is free: its destinations move there with their routes, their waiting mail, and their deferred mail
//! with its due times. What comes later for them is forwarded, as is what the general queue's workers still hand back.
//!
//! ```text
//!  general queue                      promoted queue
//!  site is large --Action::Promote--> Step::Begun (to both): the site's mail follows
//!  Moved: mail is forwarded --------> delivers; looks up again itself
//!                          <--------- a destination whose hosts became others comes back at once
//!                          <--------- drained for a while, or by order: Step::HandedBack, then all destinations
//!  the queue is free again <--------- the last worker is gone: Step::Vacated
//! ```
//!
//! Never promoted: a site that rests after a failure, is stopped or suspect; the fallback relay; the site that is alone in
//! the general queue, since nobody would gain. A promoted queue has one site: mail that goes to the fallback relay, and
//! destinations that prove to have other hosts, return to the general queue. A site that refuses us as the sender keeps its
//! queue for the rest of the run, since that queue knows it.
//!
//! INVARIANTS: at any time exactly one queue handles a destination, and whoever handled it before forwards to it. Mail that a
//! promoted queue does not handle goes to the general queue and nowhere else, and comes back only for a site that is promoted
//! there: no loops. A queue is free only when nothing of its last site is in it. The engine answers `Action::Promote`, always
//! the last action of its event, before any other event.
//!
//! Limits: what is deferred counts towards a site's share only once a second, when all of it is counted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mail::{DestinationId, QueueId, SiteId, Verdict};

mod general;
mod own;

/// How often all that is pending is counted,
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// and how often at most, while so much waits for a site that it may be large.
const COUNT_SOONER: Duration = Duration::from_millis(50);
/// How long nothing is promoted after a thread could not be started.
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// What a queue has to do with promotion.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Promotion {
    /// Its sites stay.
    #[default]
    Never,
    /// It is the general queue and promotes sites.
    Watch(PromoteRules),
    /// It is for promoted sites, one at a time, and hands a site back for which it has had no mail for so long.
    Promoted(Duration),
}

/// When a site is promoted, and where to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PromoteRules {
    /// The first of the queues for promoted sites.
    pub first: QueueId,
    /// How many of them there are.
    pub queues: u16,
    /// A site is large with more than this share of what is pending (`promote_share`),
    pub share: f64,
    /// and with more envelopes than this (`promote_min`).
    pub min: usize,
    /// So is one that keeps more than one session busy for so long.
    pub demand: Duration,
}

impl PromoteRules {
    /// The defaults, for so many queues from `first` on.
    pub fn new(first: QueueId, queues: u16) -> PromoteRules {
        PromoteRules {
            first,
            queues,
            share: 0.005,
            min: 50,
            demand: Duration::from_secs(2),
        }
    }

    /// True if a site with `pending` of `all` envelopes is large. One that is alone is not.
    fn is_large(&self, pending: usize, all: usize) -> bool {
        pending > self.min && pending as f64 > self.share * all as f64 && pending < all
    }
}

/// What queues tell each other about a promotion, or are told of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// The operator wants the site of this destination back in the general queue.
    Demote(DestinationId),
    /// The promoted queue is there: the answer to [`Action::Promote`](super::Action::Promote), and the first that the promoted queue hears.
    Begun {
        /// Which queue.
        queue: QueueId,
        /// For which site.
        site: SiteId,
    },
    /// It could not be started.
    Failed {
        /// Which.
        queue: QueueId,
    },
    /// A promoted queue gives its site back; its destinations follow.
    HandedBack {
        /// Which queue.
        queue: QueueId,
        /// The operator wanted it: the site is not promoted again unless he wants that, too.
        by_order: bool,
        /// The site has failed and rests.
        rest: Option<Rest>,
    },
    /// Nothing of the site is left in the promoted queue.
    Vacated {
        /// Which.
        queue: QueueId,
    },
}

/// Why and until when a site rests.
#[derive(Clone, PartialEq, Debug)]
pub struct Rest {
    /// Until when.
    pub until: Instant,
    /// Its failures in a row.
    pub failures: u32,
    /// The latest of them.
    pub why: Option<Arc<Verdict>>,
}

/// Why a site is not promoted, or not taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpromoted {
    /// It is no site that the general queue promotes.
    Never,
    /// It is where it is to be already.
    Already,
    /// Its hosts are not known yet.
    Unknown,
    /// It rests after a failure, or nothing is sent to it.
    Rests,
    /// All queues for promoted sites are taken.
    NoQueue,
}

/// A queue for promoted sites, as the general queue sees it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Slot {
    #[default]
    Free,
    /// The engine was asked to start it.
    Asked,
    Serving(SiteId),
    /// It has handed its site back and is not empty yet.
    Vacating,
}

/// The state that a dispatcher keeps for promotion, whatever its part.
#[derive(Default, Debug)]
pub(super) struct Promotions {
    /// General queue: the queues for promoted sites.
    slots: Vec<Slot>,
    /// Which of them has a site.
    by_site: HashMap<SiteId, QueueId>,
    /// Sites that the operator wants in the general queue.
    kept: HashSet<SiteId>,
    /// Sites to be promoted when the event is over, each with its queue.
    asked: Vec<(QueueId, u32)>,
    watch: Watch,
    /// Nothing is promoted before.
    not_before: Option<Instant>,
    /// Promoted queue: its site.
    site: Option<SiteId>,
    /// It has handed it back.
    leaving: bool,
    /// It has been without mail since.
    drained_since: Option<Instant>,
}

/// Watches over the demand of sites: how long each has kept more than one session busy, and when all was last counted.
#[derive(Default, Debug)]
struct Watch {
    since: HashMap<u32, Instant>,
    counted_at: Option<Instant>,
    /// A site may be large: all is counted soon.
    is_urgent: bool,
}

impl Watch {
    /// Site `s` keeps so many sessions busy and has mail waiting, or not.
    fn note(&mut self, s: u32, sessions: usize, waits: bool, now: Instant) {
        if sessions < 2 || !waits {
            self.since.remove(&s);
        } else {
            self.since.entry(s).or_insert(now);
        }
    }

    /// True if site `s` has kept more than one session busy for `demand`.
    fn demands(&self, s: u32, demand: Duration, now: Instant) -> bool {
        let since = self.since.get(&s);
        since.is_some_and(|since| now.saturating_duration_since(*since) >= demand)
    }

    /// True if it is time to count.
    fn is_due(&mut self, now: Instant) -> bool {
        let wait = if self.is_urgent {
            COUNT_SOONER
        } else {
            COUNT_EVERY
        };
        let due = self
            .counted_at
            .is_none_or(|at| now.saturating_duration_since(at) >= wait);
        if due {
            (self.counted_at, self.is_urgent) = (Some(now), false);
        }
        due
    }
}

impl Promotions {
    pub(super) fn new(promotion: Promotion) -> Promotions {
        let slots = match promotion {
            Promotion::Watch(rules) => usize::from(rules.queues),
            _ => 0,
        };
        Promotions {
            slots: vec![Slot::Free; slots],
            ..Promotions::default()
        }
    }

    /// True once the site was handed back: workers are not kept.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_large_above_both_limits_and_beside_others() {
        let rules = PromoteRules::new(QueueId(1), 32);
        for (pending, all, expected) in [
            (50, 100, false),
            (51, 100, true),
            (51, 51, false),
            (51, 10_199, true),
            (51, 10_200, false),
            (5_000, 1_000_000, false),
            (5_001, 1_000_000, true),
        ] {
            assert_eq!(rules.is_large(pending, all), expected, "{pending} of {all}");
        }
    }

    #[test]
    fn demand_is_more_than_one_busy_session_with_mail_behind_it_for_the_whole_time() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let (demand, second) = (Duration::from_secs(2), Duration::from_secs(1));
        watch.note(0, 2, true, now);
        watch.note(0, 5, true, now + second);
        assert!(!watch.demands(0, demand, now + second));
        assert!(watch.demands(0, demand, now + 2 * second));
        watch.note(0, 1, true, now + 2 * second);
        assert!(!watch.demands(0, demand, now + 9 * second), "one session");
        watch.note(0, 2, false, now + 9 * second);
        assert!(
            !watch.demands(0, demand, now + 19 * second),
            "nothing waits"
        );
        assert!(!watch.demands(1, demand, now + 9 * second));
    }

    #[test]
    fn all_is_counted_once_a_second_and_sooner_while_a_site_may_be_large() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let ms = Duration::from_millis(1);
        assert!(watch.is_due(now));
        assert!(!watch.is_due(now + 999 * ms));
        watch.is_urgent = true;
        assert!(!watch.is_due(now + 49 * ms));
        assert!(watch.is_due(now + 50 * ms));
        assert!(!watch.is_due(now + 999 * ms), "once");
        assert!(watch.is_due(now + 1050 * ms));
    }
}
