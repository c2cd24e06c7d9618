//! Terms: what is known of a site before the first session with it, from the configuration, a provider's profile or an earlier run.
//!
//! Plain values. Who makes them up (profiles, host memory, `[queue.X]`) and who obeys them (`window`, `site_rate`) is elsewhere;
//! what the two have to agree on is here. A site that nobody said anything about has [`SiteTerms::default`].
//!
//! INVARIANTS: none of its own; [`Bounds::tidy`] is what makes bounds usable, and everybody who obeys bounds calls it.

use super::pace::Rate;

/// Between what a window of sessions may move, and how fast.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bounds {
    /// Sessions that a site gets of which nothing is known (`window_start`).
    pub start: u32,
    /// Sessions that a site never has more of (`max_sessions`).
    pub max: u32,
    /// Sessions that a clean cohort adds (`window_step`); 0 leaves the window where it starts.
    pub step: f32,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            start: 1,
            max: 20,
            step: 1.0,
        }
    }
}

impl Bounds {
    /// The same with 1 <= start <= max and a step that is a number, not negative.
    pub fn tidy(self) -> Bounds {
        let max = self.max.max(1);
        Bounds {
            start: self.start.clamp(1, max),
            max,
            step: if self.step.is_finite() {
                self.step.max(0.0)
            } else {
                1.0
            },
        }
    }
}

/// What earlier sessions with a site taught: what a run hands to the next one.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Learned {
    /// Sessions it carried without complaint; 0 if that is not known.
    pub window: u32,
    /// One more than this was turned away.
    pub sessions_ceiling: Option<u32>,
    /// A session is ended by the server after this many messages.
    pub messages_per_session: Option<u32>,
    /// Messages per minute that went through when the server had complained of more.
    pub rate_per_minute: Option<f64>,
}

/// Limits of one site: a provider's, or set by the operator. Kept apart from those of all sites, so that these can change.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct OwnLimits {
    /// Sessions, per source address.
    pub sessions: Option<u32>,
    /// Messages.
    pub rate: Option<Rate>,
    /// The operator has ordered this rate, or none, for this site alone: it holds in the place of all others.
    pub ordered_rate: Option<Option<Rate>>,
}

/// All that is known of a site before its first session.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SiteTerms {
    /// Limits of its own, which bind together with the general ones that follow.
    pub own: OwnLimits,
    /// Bounds of its window, per source address.
    pub bounds: Bounds,
    /// Messages after which a session is to be ended by us (a profile says so).
    pub messages_per_session: Option<u32>,
    /// The most messages that are sent to it.
    pub rate: Option<Rate>,
    /// The most connections that are opened to it.
    pub connect_rate: Option<Rate>,
    /// What an earlier run learned.
    pub learned: Option<Learned>,
}

impl SiteTerms {
    /// The terms as they bind: what the site has of its own and what holds for all, whichever is less, unless the operator
    /// has ordered otherwise.
    pub fn in_force(&self) -> SiteTerms {
        let mut terms = *self;
        if let Some(own) = self.own.sessions {
            terms.bounds.max = own.min(self.bounds.max);
        }
        terms.bounds = terms.bounds.tidy();
        terms.rate = match (self.rate, self.own.rate) {
            (Some(general), Some(own)) if general.in_a_minute() < own.in_a_minute() => self.rate,
            (general, own) => own.or(general),
        };
        if let Some(rate) = self.own.ordered_rate {
            terms.rate = rate;
        }
        terms
    }
}
