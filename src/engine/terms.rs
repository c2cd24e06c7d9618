//! The terms of a site: what profiles and earlier runs say of it, before its first session.
//!
//! What the user has said of the queue that handles its mail goes before a provider's profile, and that before the general
//! settings; the general maximum of sessions is never exceeded. What was learned is handed on as it is: the window decides what
//! to make of it.
//!
//! Limits: where sessions are made from several source addresses, the most careful of what they have learned holds for all of
//! them; a site that two queues share has the terms of the one that met it first.

use super::parts;
use super::resolve::Found;
use super::settings::Settings;
use super::sources;
use crate::hosts::SiteRow;
use crate::mail::QueueId;
use crate::queue::terms::{Learned, OwnLimits, SiteTerms};

/// What is known of a site; `None`: nothing but what is known of all.
pub(super) fn of_site(
    settings: &Settings,
    found: &Found,
    asker: QueueId,
    remembered: &[SiteRow],
) -> Option<SiteTerms> {
    let learned = learned(settings, remembered);
    let is_relay = !found.exchange.relays.is_empty();
    let provider = found.exchange.provider.as_ref();
    if learned.is_none() && provider.is_none() && !is_relay {
        return None;
    }
    let mut terms = match is_relay {
        true => parts::relay_terms(settings),
        false => parts::site_terms(settings),
    };
    if let Some(provider) = provider {
        let queue = found.queue.unwrap_or(asker).index().checked_sub(1);
        let own = queue.and_then(|at| settings.queues.get(at));
        let own = own.and_then(|queue| queue.sessions_per_site);
        terms.own = OwnLimits {
            sessions: own.or(provider.sessions),
            rate: provider.rate,
            ordered_rate: None,
        };
        terms.messages_per_session = provider.messages_per_session;
    }
    terms.learned = learned;
    Some(terms)
}

/// What the addresses that are in use now have learned; the most careful of them.
fn learned(settings: &Settings, remembered: &[SiteRow]) -> Option<Learned> {
    let names = sources::names(&settings.bind);
    let of_these = remembered
        .iter()
        .filter(|row| names.contains(&row.source))
        .map(|row| row.learned);
    of_these.reduce(|one, other| Learned {
        window: one.window.min(other.window),
        sessions_ceiling: least(one.sessions_ceiling, other.sessions_ceiling),
        messages_per_session: least(one.messages_per_session, other.messages_per_session),
        rate_per_minute: match (one.rate_per_minute, other.rate_per_minute) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        },
    })
}

fn least(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    [one, other].into_iter().flatten().min()
}
